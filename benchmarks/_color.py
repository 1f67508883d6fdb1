"""What a trunk has to beat: mean and spread of the colors around each cell, and the nearest healthy cells."""

from pathlib import Path
from typing import Final

import numpy as np
import torch
import torch.nn.functional as nnf
from numpy.typing import NDArray
from torch import Tensor

from indexer.datasets.mvtec import read_mvtec
from indexer.evaluate import Measured, measure_with
from indexer.photos import list_photos
from resad.config import MethodConfig, PhotoLimits
from resad.detector import Detection, measure
from resad.encoder import PatchFeatures
from resad.memory_bank import MemoryBank
from resad.preparation import PreparedPhoto, prepare
from resad.provenance import Provenance

_CELLS: Final = (8, 24)
"""Sides of the squares around a grid cell's center, px; the grid is that of stride 8."""
_MEMORIES: Final = 20_000


def color_features(photo: PreparedPhoto) -> PatchFeatures:
    """Mean and standard deviation of R, G and B in both squares around each cell that touches the disc."""
    image = torch.from_numpy(photo.pixels).permute(2, 0, 1)[None].float() / 255
    maps = torch.cat([part for side in _CELLS for part in _statistics(image, side)], dim=1)[0]
    valid = nnf.adaptive_max_pool2d(torch.from_numpy(photo.mask)[None, None].float(), maps.shape[-2:])[0, 0] > 0
    cells = valid.nonzero().to(torch.int16).numpy()
    return PatchFeatures(maps[:, valid].T.contiguous().numpy(), cells, (valid.shape[0], valid.shape[1]))


def measure_color(data: Path, config: MethodConfig) -> Measured:
    """The test photographs against `_MEMORIES` healthy cells at random, every feature scaled to spread 1."""
    limits = PhotoLimits()
    photos = [prepare(one.path, config.preparation, limits) for one in list_photos(data / "train" / "good")]
    healthy = np.concatenate([color_features(photo).features for photo in photos])
    spread = healthy.std(axis=0)
    rows = np.random.default_rng(0).choice(len(healthy), min(_MEMORIES, len(healthy)), replace=False)
    bank = MemoryBank(healthy[rows] / spread, no_provenance(len(rows)))

    def detect(photo: PreparedPhoto) -> Detection:
        found = color_features(photo)
        return measure(PatchFeatures(found.features / spread, found.cells, found.grid), photo.mask, bank, config)

    full_scale = 4 * max(float(detect(photo).peak) for photo in photos)
    return measure_with(detect, config.preparation, full_scale, read_mvtec(data), limits, lambda _: None)


def _statistics(image: Tensor, side: int) -> tuple[Tensor, Tensor]:
    """float32 (1, 3, S / 8, S / 8) each."""
    padding = (side - 8) // 2
    mean = nnf.avg_pool2d(image, side, 8, padding, count_include_pad=False)
    square = nnf.avg_pool2d(image.square(), side, 8, padding, count_include_pad=False)
    return mean, (square - mean.square()).clamp(min=0).sqrt()


def no_provenance(count: int) -> Provenance:
    """Of memories that nobody will ask about."""
    nothing: NDArray[np.int32] = np.zeros(count, dtype=np.int32)
    return Provenance(nothing, np.zeros((count, 2), dtype=np.int16), np.arange(count, dtype=np.int32))
