"""Photographs encoded once and parted many times: banks, left-out and new scores from features in memory."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmarks._idrid import Variant, config_of
from indexer.feature_store import FeatureStore
from indexer.selection import select
from resad.backbone import Backbone, load_backbone
from resad.config import MethodConfig, PhotoLimits
from resad.detector import measure
from resad.encoder import Encoder, PatchFeatures, Trunk, whitening_of
from resad.memory_bank import MemoryBank
from resad.preparation import PreparedPhoto, prepare

Rows = NDArray[np.int64]


class RememberingTrunk(Trunk):
    """One that looks at a photograph once: by content hash."""

    def __init__(self, backbone: Backbone, config: MethodConfig) -> None:
        super().__init__(backbone, config, torch.device("cpu"))
        self._seen: dict[str, tuple[tuple[Tensor, ...], Tensor]] = {}

    @torch.inference_mode()
    def stages(self, photos: Sequence[PreparedPhoto]) -> tuple[tuple[Tensor, ...], Tensor]:
        """As `Trunk`, one photograph at a time."""
        (photo,) = photos
        if photo.content_hash not in self._seen:
            self._seen[photo.content_hash] = super().stages(photos)
        return self._seen[photo.content_hash]


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """Photographs that their trunk has looked at."""

    photos: tuple[PreparedPhoto, ...]
    trunk: RememberingTrunk

    def fitted(self, rows: Rows) -> "Encoded":
        """All of them as an index of the photographs `rows` would encode them."""
        encoder = Encoder(self.trunk, whitening_of(self.trunk, (self.photos[row] for row in rows)))
        patches = tuple(encoder.encode([photo])[0] for photo in self.photos)
        return Encoded(patches, tuple(photo.mask for photo in self.photos), encoder.config)


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
        self._dimension = patches[0].features.shape[1]

    def photo(self, number: int) -> PatchFeatures:
        return self._patches[number]


def look_at(paths: Sequence[Path], variant: Variant, size: int, weights: str) -> Seen:
    """Prepare the photographs as an index of `variant` would, at `size` px."""
    config = config_of(variant, size)
    photos = tuple(prepare(path, config.preparation, PhotoLimits()) for path in paths)
    return Seen(photos, RememberingTrunk(load_backbone(config.backbone, weights), config))


def bank_of(encoded: Encoded, rows: Rows) -> MemoryBank:
    """The memory bank of some photographs; its provenance counts them in the order of `rows`."""
    store = _Held([encoded.patches[row] for row in rows])
    chosen = select(store, encoded.config.coreset, [torch.device("cpu")], lambda _: None)
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
