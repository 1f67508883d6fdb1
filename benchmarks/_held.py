"""Photographs encoded once and parted many times: banks, left-out and new scores from features in memory."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks._idrid import Variant, config_of
from indexer.feature_store import FeatureStore
from indexer.selection import select
from resad.backbone import load_backbone
from resad.config import MethodConfig, PhotoLimits
from resad.detector import measure
from resad.encoder import Encoder, PatchFeatures
from resad.memory_bank import MemoryBank
from resad.preparation import prepare

Rows = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Encoded:
    """Photographs as patch features with their fields of view, and the settings they were made with."""

    patches: tuple[PatchFeatures, ...]
    masks: tuple[NDArray[np.bool_], ...]
    config: MethodConfig


class _Held(FeatureStore):
    """A store that holds its photographs in memory."""

    def __init__(self, patches: Sequence[PatchFeatures]) -> None:
        self._patches = list(patches)
        self._cells = [one.cells for one in patches]
        self._grids = [one.grid for one in patches]

    def photo(self, number: int) -> PatchFeatures:
        return self._patches[number]


def encode_all(paths: Sequence[Path], variant: Variant, size: int, weights: str) -> Encoded:
    """Encode the photographs as an index of `variant` would, at `size` px."""
    config = config_of(variant, size)
    encoder = Encoder(load_backbone(config.backbone, weights), config, torch.device("cpu"))
    patches, masks = [], []
    for path in paths:
        photo = prepare(path, config.preparation, PhotoLimits())
        patches.append(encoder.encode([photo])[0])
        masks.append(photo.mask)
    return Encoded(tuple(patches), tuple(masks), config)


def bank_of(encoded: Encoded, rows: Rows) -> MemoryBank:
    """The memory bank of some photographs; its provenance counts them in the order of `rows`."""
    store = _Held([encoded.patches[row] for row in rows])
    chosen = select(store, encoded.config.coreset, torch.device("cpu"), lambda _: None)
    return MemoryBank(chosen.memories, chosen.provenance)


def score(encoded: Encoded, row: int, bank: MemoryBank) -> float:
    """The image score of a photograph."""
    return measure(encoded.patches[row], encoded.masks[row], bank, encoded.config).image_score


def left_out_scores(encoded: Encoded, rows: Rows, bank: MemoryBank) -> list[float]:
    """The score of each photograph of `rows`, of which `bank` was made, without its own memories."""
    return [
        score(encoded, int(row), bank.without_photos(np.array([place], dtype=np.int32)))
        for place, row in enumerate(rows)
    ]
