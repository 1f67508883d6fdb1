"""Patch distances -> the anomaly map on the prepared square -> the image score (paper, section 3.3)."""

from typing import cast

import numpy as np
import scipy.ndimage as ndi
import torch
import torch.nn.functional as nnf
from numpy.typing import NDArray

from resad.config import ScoreConfig
from resad.errors import NotAFundusPhoto

_TRUNCATED = 4.0
"""Standard deviations at which SciPy cuts its Gaussian off."""
_SMOOTHING_SIDE = 784
"""The prepared side that `ScoreConfig.smoothing` refers to, px."""


def anomaly_map(
    distances: NDArray[np.float32], valid: NDArray[np.bool_], mask: NDArray[np.bool_], config: ScoreConfig
) -> NDArray[np.float32]:
    """The map A of the paper, on the prepared square and not yet on the photo's own pixels.

    Args:
        distances: float32 (h, w), feature units; read only where valid.
        valid: bool (h, w), patches that touch the field of view.
        mask: bool (S, S), the field of view.
    Returns:
        float32 (S, S), bilinear between patch centers, 0 outside the field of view.
    """
    filled = distances
    if not valid.all():
        # Cells beyond the rim have no distance; they repeat their nearest neighbor's, so that the interpolation
        # at the rim stays between measured values.
        nearest = ndi.distance_transform_edt(~valid, return_distances=False, return_indices=True)
        filled = distances[tuple(nearest)]
    grid = torch.from_numpy(np.ascontiguousarray(filled, dtype=np.float32))[None, None]
    dense = nnf.interpolate(grid, mask.shape, mode="bilinear", align_corners=False)[0, 0].numpy()
    if config.smoothing > 0:
        sigma = config.smoothing * mask.shape[0] / _SMOOTHING_SIDE
        weight = ndi.gaussian_filter(mask.astype(np.float32), sigma, truncate=_TRUNCATED)
        dense = ndi.gaussian_filter(dense * mask, sigma, truncate=_TRUNCATED) / np.maximum(
            weight, np.finfo(np.float32).tiny
        )
    return cast(NDArray[np.float32], np.where(mask, dense, 0).astype(np.float32))


def scored_area(mask: NDArray[np.bool_], config: ScoreConfig) -> NDArray[np.bool_]:
    """bool (S, S): the field of view less its margin.  Raises `NotAFundusPhoto` where nothing is left."""
    scored = mask
    if config.margin > 0:
        padded = np.pad(mask, 1)
        depth = ndi.distance_transform_edt(padded)[1:-1, 1:-1]
        scored = depth > config.margin * mask.shape[0]
    if not scored.any():
        raise NotAFundusPhoto(f"no field of view is left within the margin of {config.margin:g} of the side")
    return scored


def image_score(anomaly_map: NDArray[np.float32], scored: NDArray[np.bool_], config: ScoreConfig) -> float:
    """The image score: maximum of the map in the scored area, or the mean of its highest share."""
    values = anomaly_map[scored]
    if config.kind == "max":
        return float(values.max())
    count = max(1, round(config.share * values.size))
    return float(np.partition(values, values.size - count)[-count:].mean(dtype=np.float64))


def top_pixels(
    anomaly_map: NDArray[np.float32], scored: NDArray[np.bool_], config: ScoreConfig
) -> NDArray[np.bool_]:
    """bool (S, S): the pixels that the image score is taken from."""
    values = anomaly_map[scored]
    count = 1 if config.kind == "max" else max(1, round(config.share * values.size))
    top = np.zeros(scored.shape, dtype=bool)
    places = np.flatnonzero(scored)
    top.flat[places[np.argpartition(values, values.size - count)[-count:]]] = True
    return top


def cells_under(pixels: NDArray[np.bool_], valid: NDArray[np.bool_], config: ScoreConfig) -> NDArray[np.bool_]:
    """bool (h, w): the patches whose distances enter the map at `pixels`, bool (S, S); no others do."""
    if config.smoothing > 0:
        reach = int(_TRUNCATED * config.smoothing * pixels.shape[0] / _SMOOTHING_SIDE + 0.5)
        pixels = ndi.maximum_filter(pixels, size=2 * reach + 1)
    entering = np.zeros(valid.shape, dtype=bool)
    y, x = np.nonzero(pixels)
    low = [
        np.floor((place + 0.5) * cells / side - 0.5).astype(int)
        for place, cells, side in zip((y, x), valid.shape, pixels.shape, strict=True)
    ]
    for down in (0, 1):
        for right in (0, 1):
            row, column = (low[0] + down).clip(0, valid.shape[0] - 1), (low[1] + right).clip(0, valid.shape[1] - 1)
            entering[row, column] = True
    if valid.all():
        return entering
    # As the map does: a cell beyond the rim repeats its nearest valid one.
    nearest = ndi.distance_transform_edt(~valid, return_distances=False, return_indices=True)
    sources = np.zeros_like(entering)
    sources[nearest[0][entering], nearest[1][entering]] = True
    return sources
