"""A version that another one is made from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from indexer.calibration_records import CalibrationRecord, calibration_records
from indexer.feature_store import FeatureStore
from indexer.placed import Placed, read_placed
from resad import index, runtime
from resad.errors import IndexInvalid
from resad.evidence_crops import file_name
from resad.integrity import check_files
from resad.loaded_index import BACKBONE_FILE, PROBE_FILE, LoadedIndex, load_index
from resad.manifest import FEATURES, Manifest
from resad.memory_bank import MemoryBank
from resad.photo_records import ReferenceRecord
from resad.provenance import Provenance
from resad.whitening import FILE as WHITENING_FILE


@dataclass(frozen=True, slots=True, eq=False)
class Base:
    """place: ROOT/NAME/VERSION.  placed: left-out distances of its photographs, in their order.

    features: of all of them, where they are kept.
    """

    place: Path
    loaded: LoadedIndex
    placed: tuple[Placed, ...]
    features: FeatureStore | None
    calibrated_on: tuple[CalibrationRecord, ...]

    @property
    def manifest(self) -> Manifest:
        """Of the version."""
        return self.loaded.manifest

    @property
    def photos(self) -> tuple[ReferenceRecord, ...]:
        """The reference photographs, in the order of the memory bank's provenance."""
        return self.loaded.photos

    @property
    def numbered(self) -> int:
        """The highest number that an id ever had."""
        return len(self.photos) if self.manifest.numbered is None else self.manifest.numbered

    @property
    def keeps_names(self) -> bool:
        """Whether file names and patients' ids are stored."""
        return any(record.name is not None for record in self.photos)

    def shared_files(self) -> dict[str, Path]:
        """What belongs to no photograph: name -> where it lies."""
        names = (BACKBONE_FILE, WHITENING_FILE, PROBE_FILE)
        return {one.name: self.place / one.name for one in self.manifest.files if one.name in names}

    def pictures(self, ids: Mapping[str, str]) -> dict[str, Path]:
        """The pictures of some photographs, where they are kept: name -> where it lies.

        Args:
            ids: of each photograph here, and in the version that the names are for.
        """
        here = {file_name(own): file_name(new) for own, new in ids.items()}
        return {here[one.name]: self.place / one.name for one in self.manifest.files if one.name in here}


def open_base(path: Path, device: torch.device) -> Base:
    """Check and load ROOT/NAME (its live version) or ROOT/NAME/VERSION, with kept features.

    Raises:
        IndexInvalid: it cannot be used, or lies in no ROOT/NAME.
    """
    place = index.resolve(path).resolve()
    if place.name not in index.versions(place.parent):
        raise IndexInvalid(f"{place} lies in no index: a new version needs ROOT/NAME beside it")
    loaded = load_index(place, device)
    runtime.configure(loaded.manifest.config.precision)
    features = None
    if loaded.manifest.keeps_features:
        check_files(place)
        features = _stored(place, loaded)
    placed = read_placed(place, [record.id for record in loaded.photos])
    return Base(place, loaded, tuple(placed), features, calibration_records(place))


def _stored(place: Path, loaded: LoadedIndex) -> FeatureStore:
    store = FeatureStore(place / FEATURES)
    for record in loaded.photos:
        if not store.take_up(place / FEATURES / record.id, loaded.manifest.counts.grid, record.patches):
            raise IndexInvalid(f"{place}: the features of {record.id} are not whole")
    return store


def store_of(folder: Path, parts: Sequence[tuple[FeatureStore, Sequence[int]]]) -> FeatureStore:
    """Some photographs of several stores as one, none copied; `folder` would take what is appended."""
    whole = FeatureStore(folder)
    for store, rows in parts:
        for row in rows:
            whole.take_from(store, row)
    return whole


def renumbered(bank: MemoryBank, kept: Sequence[int]) -> MemoryBank:
    """The memories of the photographs `kept` alone, which are counted anew in this order; `kept` ascends."""
    rows = np.asarray(kept, dtype=np.int32)
    inside = np.isin(bank.provenance.photo, rows)
    origin = bank.provenance
    pick: NDArray[np.int32] = np.argsort(np.argsort(origin.pick[inside])).astype(np.int32)
    photo = np.searchsorted(rows, origin.photo[inside]).astype(np.int32)
    provenance = Provenance(photo, origin.cell[inside], pick)
    return MemoryBank(bank.memories[inside], provenance, gpu=bank.gpu, plan=bank.plan)
