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
from indexer.leave_out import LeftOut, leave_out
from indexer.left_out_groups import groups_of
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
        self._seen: dict[tuple[str, bool], tuple[tuple[Tensor, ...], Tensor]] = {}

    @torch.inference_mode()
    def stages(
        self, photos: Sequence[PreparedPhoto], *, mirrored: bool = False
    ) -> tuple[tuple[Tensor, ...], Tensor]:
        """As `Trunk`, one photograph at a time."""
        (photo,) = photos
        key = photo.content_hash, mirrored
        if key not in self._seen:
            self._seen[key] = super().stages(photos, mirrored=mirrored)
        return self._seen[key]


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


@dataclass(frozen=True, slots=True, eq=False)
class HeldIndex:
    """The memory bank of some photographs, its provenance in their order, and their left-out scores."""

    bank: MemoryBank
    left_out: LeftOut

    def without(self, place: int) -> "HeldIndex":
        """The bank without one photograph's memories."""
        return HeldIndex(self.bank.without_photos(np.array([place], dtype=np.int32)), self.left_out)


def index_of(encoded: Encoded, rows: Rows) -> HeldIndex:
    """As a build makes it of the photographs `rows`."""
    store = _Held([encoded.patches[row] for row in rows])
    chosen = select(store, encoded.config.coreset, [torch.device("cpu")], lambda _: None)
    bank = MemoryBank(chosen.memories, chosen.provenance)
    masks = [encoded.masks[row] for row in rows]
    return HeldIndex(
        bank, leave_out(store, masks, groups_of([None] * len(rows)), bank, encoded.config, lambda _: None)
    )


def score(encoded: Encoded, row: int, index: HeldIndex) -> float:
    """The image score of a photograph."""
    patches, mask = encoded.patches[row], encoded.masks[row]
    return measure(patches, mask, index.bank, encoded.config).image_score
