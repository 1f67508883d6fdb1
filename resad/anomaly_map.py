"""Patch distances -> the anomaly map on the prepared square -> the image score (paper, section 3.3)."""

from typing import cast

import numpy as np
import scipy.ndimage as ndi
import torch
import torch.nn.functional as nnf
from numpy.typing import NDArray

from resad.config import ScoreConfig
from resad.errors import NotAFundusPhoto


def anomaly_map(
    distances: NDArray[np.float32], valid: NDArray[np.bool_], mask: NDArray[np.bool_]
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
        # Cells beyond the rim have no distance.  They repeat their nearest neighbor's, so that interpolation at
        # the rim stays between measured values.
        nearest = ndi.distance_transform_edt(~valid, return_distances=False, return_indices=True)
        filled = distances[tuple(nearest)]
    grid = torch.from_numpy(np.ascontiguousarray(filled, dtype=np.float32))[None, None]
    dense = nnf.interpolate(grid, mask.shape, mode="bilinear", align_corners=False)[0, 0].numpy()
    return cast(NDArray[np.float32], np.where(mask, dense, 0).astype(np.float32))


def check_field_of_view(mask: NDArray[np.bool_]) -> None:
    """Raise `NotAFundusPhoto` if `mask`, the field of view on the prepared square, is empty."""
    if not mask.any():
        raise NotAFundusPhoto("the field of view is empty: nothing of the photograph can be scored")


def image_score(anomaly_map: NDArray[np.float32], mask: NDArray[np.bool_], config: ScoreConfig) -> float:
    """The image score: maximum of the map in the field of view, or the mean of its highest share."""
    values = anomaly_map[mask]
    if config.kind == "max":
        return float(values.max())
    count = max(1, round(config.share * values.size))
    return float(np.partition(values, values.size - count)[-count:].mean(dtype=np.float64))


def top_pixels(
    anomaly_map: NDArray[np.float32], mask: NDArray[np.bool_], config: ScoreConfig
) -> NDArray[np.bool_]:
    """bool (S, S): the pixels that the image score is taken from."""
    values = anomaly_map[mask]
    count = 1 if config.kind == "max" else max(1, round(config.share * values.size))
    top = np.zeros(mask.shape, dtype=bool)
    pixels = np.flatnonzero(mask)
    top.flat[pixels[np.argpartition(values, values.size - count)[-count:]]] = True
    return top


def cells_under(pixels: NDArray[np.bool_], valid: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """bool (h, w): the patches whose distances enter the map at `pixels`, bool (S, S); no other patch does."""
    entering = np.zeros(valid.shape, dtype=bool)
    y, x = np.nonzero(pixels)
    low = [
        np.floor((position + 0.5) * cells / side - 0.5).astype(int)
        for position, cells, side in zip((y, x), valid.shape, pixels.shape, strict=True)
    ]
    for down in (0, 1):
        for right in (0, 1):
            row, column = (low[0] + down).clip(0, valid.shape[0] - 1), (low[1] + right).clip(0, valid.shape[1] - 1)
            entering[row, column] = True
    if valid.all():
        return entering
    # As in the map, a cell beyond the rim repeats its nearest valid one.
    nearest = ndi.distance_transform_edt(~valid, return_distances=False, return_indices=True)
    sources = np.zeros_like(entering)
    sources[nearest[0][entering], nearest[1][entering]] = True
    return sources
