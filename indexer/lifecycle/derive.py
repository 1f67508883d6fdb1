"""A new version of an index, derived from one that exists: shared by `add`, `remove` and `merge`."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from indexer.build.feature_store import FeatureStore
from indexer.build.progress import Stages
from indexer.build.publication import feature_files, history_entry, link_files, write_left_out
from indexer.build.references import MIN_PHOTOS, Reference, new_records
from indexer.calibration.calibrate import CalibrationRecord, calibration_records, write_calibration_records
from indexer.calibration.leave_out import (
    LeftOut,
    PatchDistances,
    left_out_distances,
    read_patch_distances,
    score_left_out,
)
from indexer.coreset.selection import extend
from indexer.photos.near_duplicates import left_out_groups
from resad import index, runtime
from resad.calibration import Calibration, Quantile, calibrate
from resad.detector import Detector
from resad.errors import IndexInvalid, SettingError
from resad.index import check_files, publish
from resad.loaded_index import BACKBONE_FILE, PROBE_FILE, LoadedIndex, load_index, score_probe
from resad.manifest import (
    CALIBRATION_FILE,
    FEATURES,
    PHOTOS_FILE,
    Counts,
    FileRecord,
    Manifest,
    Quality,
    ReferenceRecord,
    Standing,
    write_records,
)
from resad.memory_bank import MemoryBank, Provenance
from resad.pictures.evidence import file_name
from resad.preparation import frame_of, mask_of
from resad.quality import quality_limits
from resad.search.plan import SearchRecord


@dataclass(frozen=True, slots=True, eq=False)
class SourceVersion:
    """place: ROOT/NAME/VERSION.  placed: left-out distances of its photographs, in their order.

    features: of all of them, where they are kept.
    """

    place: Path
    loaded: LoadedIndex
    placed: tuple[PatchDistances, ...]
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
        names = (BACKBONE_FILE, PROBE_FILE)
        return {one.name: self.place / one.name for one in self.manifest.files if one.name in names}

    def pictures(self, ids: Mapping[str, str]) -> dict[str, Path]:
        """The pictures of some photographs, where they are kept: name -> where it lies.

        Args:
            ids: of each photograph here, and in the version that the names are for.
        """
        here = {file_name(own): file_name(new) for own, new in ids.items()}
        return {here[one.name]: self.place / one.name for one in self.manifest.files if one.name in here}


def open_source(path: Path, device: torch.device) -> SourceVersion:
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
    placed = read_patch_distances(place, [record.id for record in loaded.photos])
    return SourceVersion(place, loaded, tuple(placed), features, calibration_records(place))


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


_WORST: Final[tuple[Standing, ...]] = get_args(Standing)


@dataclass(frozen=True, slots=True, eq=False)
class VersionSpec:
    """What a new version is to be made of; photographs are counted `kept` first, then `new`.

    base: whose settings, trunk, probe and history it has.  also_from: the second of a merge, NAME/VERSION.
    bank: the memories there are before any enters.
    kept: records of earlier versions.  new, patients: photographs that have none yet, and whose they are.
    store, numbers: the features that are there, and whose they are, ascending.
    keep_features: they are those of all photographs, and stay.
    placed: the left-out distances of the other ones, by number.  others: what these are worth in `bank`.
    covering: bounds the distance of these photographs' patches to their nearest memory in `bank`.
    radius: the covering radius to keep.  numbered: the highest number of an id so far.
    calibrated_on: the photographs outside the bank that it is calibrated on; none for the reference photos.
    pictures: of reference photos: name -> where each lies.
    """

    base: SourceVersion
    operation: str
    bank: MemoryBank
    kept: tuple[ReferenceRecord, ...]
    new: tuple[Reference, ...]
    patients: tuple[str | None, ...]
    store: FeatureStore
    numbers: tuple[int, ...]
    keep_features: bool
    placed: Mapping[int, PatchDistances]
    others: Standing
    covering: float
    radius: float
    numbered: int
    calibrated_on: tuple[CalibrationRecord, ...]
    pictures: Mapping[str, Path]
    also_from: str | None = None


def worst_standing(standings: Iterable[Standing]) -> Standing:
    """The one that promises least."""
    return max(standings, key=_WORST.index, default="measured")


def check_people(groups: Sequence[frozenset[int]]) -> None:
    """Raise `SettingError` where too few photographs are left for an index, by what is left out together."""
    if (count := len(set(groups))) < MIN_PHOTOS:
        raise SettingError(
            f"{count} photographs (of different patients, copies counted once) would be left, an index needs "
            f"at least {MIN_PHOTOS}"
        )


@dataclass(frozen=True, slots=True)
class NewVersion:
    """The new version.  before: the manifest of its base.  entered: memories.

    measured: reference photos whose left-out scores were measured in the new bank.
    """

    version: Path
    before: Manifest
    after: Manifest
    entered: int
    measured: int


def sample_quantiles(patches: Sequence[Quantile], count: int) -> NDArray[np.float32]:
    """So many values with these quantiles, as good as the quantiles tell: float32 (count,)."""
    at, values = zip(*((one.at, one.value) for one in patches), strict=True)
    drawn: NDArray[np.float32] = np.interp(np.linspace(0, 1, count), at, values).astype(np.float32)
    return drawn


def derive_version(draft: VersionSpec, place: Path, scratch: Path, stages: Stages, *, live: bool) -> NewVersion:
    """Make the new version of `place` (ROOT/NAME), whose lock the caller holds.

    Args:
        scratch: a folder on the same disk.
        live: make it the live version.
    Raises:
        SettingError: too few photographs or memories are left for a calibration.
    """
    before = draft.base.manifest
    patients = [*(record.patient for record in draft.kept), *draft.patients]
    groups = left_out_groups(patients, [*draft.kept, *draft.new])
    check_people(groups)
    bank = _enlarged(draft, scratch, stages)
    entered = len(bank) - len(draft.bank)
    with stages.stage("calibrate", len(draft.numbers), "photos") as advance:
        left_out = _left_out(draft, bank, groups, advance)
    others = worst_standing([draft.others, "bound" if entered else "measured"])
    records = _records(draft, left_out, others)
    calibration, calibrated = _calibration(draft, records, left_out, others)
    with stages.stage("publish", 1, "version") as advance:
        staging = scratch / "version"
        staging.mkdir()
        known = _share_files(draft, records, staging)
        bank.save(staging)
        write_records(records, staging / PHOTOS_FILE)
        write_left_out([record.id for record in records], left_out, staging)
        if draft.calibrated_on:
            write_calibration_records(draft.calibrated_on, staging / CALIBRATION_FILE)
        told = replace(
            before,
            name=place.name,
            version=index.new_version(),
            history=(*before.history, history_entry(draft.operation, before.version, draft.also_from)),
            counts=_counts(before.counts, records, bank),
            calibration=calibration,
            calibrated=calibrated,
            quality=_quality(draft, left_out.covering_radius, len(records), stages),
            photo_quality=quality_limits([one.quality for one in draft.calibrated_on or records]),
            probe_score=score_probe(Detector(draft.base.loaded.detector.encoder, bank), staging),
            device=str(draft.base.loaded.detector.encoder.device),
            packages=runtime.packages(),
            search=SearchRecord(bank.plan, 0, ()),
            numbered=draft.numbered + len(draft.new),
        )
        version, after = publish(staging, place, lambda files: replace(told, files=files), live=live, known=known)
        advance(1)
    return NewVersion(version, before, after, entered, len(draft.numbers))


def _enlarged(draft: VersionSpec, scratch: Path, stages: Stages) -> MemoryBank:
    with stages.stage("coreset", len(draft.store), "photos") as advance:
        if not len(draft.store):
            return draft.bank
        device = draft.base.loaded.detector.encoder.device
        return extend(draft.bank, draft.store, draft.numbers, draft.radius, device, advance, scratch / "points")


def _left_out(
    draft: VersionSpec, bank: MemoryBank, groups: Sequence[frozenset[int]], advance: Callable[[int], None]
) -> LeftOut:
    """Of all photographs, from distances that are measured where features are there; the radius is over these."""
    config = draft.base.manifest.config
    own = [groups[number] for number in draft.numbers]
    measured, radius = left_out_distances(draft.store, own, bank, config.search.neighbors, advance)
    placed = {**draft.placed, **dict(zip(draft.numbers, measured, strict=True))}
    numbers = range(len(groups))
    cameras = [*(one.camera for one in draft.kept), *(one.source.camera for one in draft.new)]
    masks = (_mask(draft, number) for number in numbers)
    return score_left_out([placed[number] for number in numbers], radius, masks, config, cameras)


def _mask(draft: VersionSpec, number: int) -> NDArray[np.bool_]:
    """The field of view of a photograph on its prepared square, as when it was encoded: bool (S, S)."""
    preparation = draft.base.manifest.config.preparation
    if number >= len(draft.kept):
        reference = draft.new[number - len(draft.kept)]
        return mask_of(reference.frame, reference.field_of_view, preparation)
    record = draft.kept[number]
    frame = frame_of(record.width, record.height, record.field_of_view, preparation)
    return mask_of(frame, record.field_of_view, preparation)


def _records(draft: VersionSpec, left_out: LeftOut, others: Standing) -> tuple[ReferenceRecord, ...]:
    """Those kept, scored anew, then the new ones'."""
    measured, old = set(draft.numbers), len(draft.kept)
    records = [
        replace(
            one,
            score=left_out.scores[row],
            peak=left_out.peaks[row],
            standing="measured" if row in measured else worst_standing([one.standing, others]),
        )
        for row, one in enumerate(draft.kept)
    ]
    records += new_records(
        draft.new, left_out, draft.patients, row=old, after=draft.numbered, keep_names=draft.base.keeps_names
    )
    return tuple(records)


def _calibration(
    draft: VersionSpec, records: Sequence[ReferenceRecord], left_out: LeftOut, others: Standing
) -> tuple[Calibration, Standing]:
    """On the photographs outside the bank with their scores of before, or on the reference photos."""
    before = draft.base.manifest
    if draft.calibrated_on:
        normals = draft.calibrated_on
        values = sample_quantiles(
            before.calibration.patches, len(normals) * before.counts.grid[0] * before.counts.grid[1]
        )
        found = calibrate(
            [one.score for one in normals],
            [one.peak for one in normals],
            values,
            cameras=[one.camera for one in normals],
            source="separate",
        )
        return found, worst_standing([before.calibrated, others])
    return left_out.calibration, worst_standing(one.standing for one in records)


def _quality(draft: VersionSpec, radius: float, photos: int, stages: Stages) -> Quality:
    whole = len(draft.numbers) == photos
    return replace(
        draft.base.manifest.quality,
        covering_radius=radius if whole else max(radius, draft.covering),
        covering="measured" if whole else "bound",
        kept_radius=draft.radius,
        stages=tuple(stages.done),
        peak_memory_bytes=runtime.peak_memory_bytes(),
    )


def _counts(before: Counts, records: Sequence[ReferenceRecord], bank: MemoryBank) -> Counts:
    patches = sum(record.patches for record in records)
    return replace(before, photos=len(records), patches=patches, memories=len(bank))


def _share_files(draft: VersionSpec, records: Sequence[ReferenceRecord], staging: Path) -> dict[str, FileRecord]:
    """Put what the version shares with others into `staging`; by name, what the base's manifest knows of it."""
    base = draft.base
    files = {**base.shared_files(), **draft.pictures}
    if draft.keep_features:
        files |= feature_files(records, draft.store)
    link_files(files, staging)
    return {one.name: one for one in base.manifest.files if files.get(one.name) == base.place / one.name}
