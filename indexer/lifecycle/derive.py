"""A new version of an index, derived from one that exists: shared by `add`, `remove` and `merge`."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from resad_client.text import counted

from indexer.build.feature_store import FeatureStore
from indexer.build.progress import Stages
from indexer.build.publication import feature_files, history_entry, link_files, write_left_out
from indexer.build.references import Reference, new_records, photo_id
from indexer.calibration.calibrate import (
    CalibrationRecord,
    as_normals,
    calibration_records,
    write_calibration_records,
)
from indexer.calibration.leave_out import (
    LeftOut,
    PatchDistances,
    left_out_distances,
    read_patch_distances,
    score_left_out,
)
from indexer.calibration.normals import calibrate_normals, normals_to_use
from indexer.coreset.selection import extend
from indexer.photos.listing import MIN_PHOTOS
from resad import index, runtime
from resad.calibration import Calibration, Quantile
from resad.detector import Detector
from resad.errors import IndexInvalid, SettingError
from resad.examples import Examples
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
from resad.near_duplicates import left_out_groups
from resad.pictures.evidence import file_name
from resad.preparation import frame_of, mask_of
from resad.quality import quality_limits
from resad.search.plan import SearchRecord


@dataclass(frozen=True, slots=True, eq=False)
class SourceVersion:
    """A loaded version that another one is derived from.

    folder: ROOT/NAME/VERSION.  distances: left-out distances of its photographs, in order.
    features: of all photographs, if they are kept.  calibrated_on: photographs outside the bank, if any.
    """

    folder: Path
    loaded: LoadedIndex
    distances: tuple[PatchDistances, ...]
    features: FeatureStore | None
    calibrated_on: tuple[CalibrationRecord, ...]

    @property
    def manifest(self) -> Manifest:
        """The version's manifest."""
        return self.loaded.manifest

    @property
    def photos(self) -> tuple[ReferenceRecord, ...]:
        """The reference photographs, in the order of the memory bank's provenance."""
        return self.loaded.photos

    @property
    def last_number(self) -> int:
        """The highest number that an id of the index ever had."""
        return len(self.photos) if self.manifest.numbered is None else self.manifest.numbered

    @property
    def keeps_names(self) -> bool:
        """Whether file names and patients' ids are stored."""
        return any(record.name is not None for record in self.photos)

    def shared_files(self) -> dict[str, Path]:
        """Files that belong to no photograph: name -> path."""
        names = (BACKBONE_FILE, PROBE_FILE)
        return {file.name: self.folder / file.name for file in self.manifest.files if file.name in names}

    def pictures(self, ids: Mapping[str, str]) -> dict[str, Path]:
        """Pictures of photographs, if they are kept: name in the new version -> path.

        Args:
            ids: id here -> id in the new version.
        """
        names = {file_name(old_id): file_name(new_id) for old_id, new_id in ids.items()}
        return {names[file.name]: self.folder / file.name for file in self.manifest.files if file.name in names}

    def example_pictures(self, examples: Examples) -> dict[str, Path]:
        """Pictures of marked photographs, if they are kept: name -> path."""
        return self.pictures({name: name for name in examples.photo_ids()})


def open_source(path: Path, device: torch.device) -> SourceVersion:
    """Check and load ROOT/NAME (its live version) or ROOT/NAME/VERSION, with kept features.

    Raises:
        IndexInvalid: it cannot be used, or is not below a ROOT/NAME.
    """
    folder = index.resolve(path).resolve()
    if folder.name not in index.versions(folder.parent):
        raise IndexInvalid(f"{folder} is not below ROOT/NAME, where a new version would go")
    loaded = load_index(folder, device)
    runtime.configure(loaded.manifest.config.precision)
    features = None
    if loaded.manifest.keeps_features:
        check_files(folder)
        features = _kept_features(folder, loaded)
    distances = read_patch_distances(folder, [record.id for record in loaded.photos])
    return SourceVersion(folder, loaded, tuple(distances), features, calibration_records(folder))


def _kept_features(folder: Path, loaded: LoadedIndex) -> FeatureStore:
    store = FeatureStore(folder / FEATURES)
    for record in loaded.photos:
        if not store.add_stored(folder / FEATURES / record.id, loaded.manifest.counts.grid, record.patches):
            raise IndexInvalid(f"{folder}: the features of {record.id} are incomplete")
    return store


def combine_stores(folder: Path, parts: Sequence[tuple[FeatureStore, Sequence[int]]]) -> FeatureStore:
    """Photographs of several stores, by their numbers, as one store; nothing is copied into `folder`."""
    combined = FeatureStore(folder)
    for store, numbers in parts:
        for number in numbers:
            combined.share(store, number)
    return combined


def only_photos(bank: MemoryBank, photos: Sequence[int]) -> MemoryBank:
    """The memories of these photographs alone, renumbered in this order.  photos: numbers, ascending."""
    rows = np.asarray(photos, dtype=np.int32)
    inside = np.isin(bank.provenance.photo, rows)
    origin = bank.provenance
    pick: NDArray[np.int32] = np.argsort(np.argsort(origin.pick[inside])).astype(np.int32)
    photo = np.searchsorted(rows, origin.photo[inside]).astype(np.int32)
    provenance = Provenance(photo, origin.cell[inside], pick)
    return MemoryBank(bank.memories[inside], provenance, gpu=bank.gpu, plan=bank.plan)


_REFERENCE: Final = "r-"
"""How the ids of reference photos begin."""
_STANDINGS: Final[tuple[Standing, ...]] = get_args(Standing)
"""From the best to the worst."""


@dataclass(frozen=True, slots=True, eq=False)
class VersionSpec:
    """What a new version is made of; its photographs are numbered `records` first, then `additions`.

    source: gives settings, trunk, probe and history.  also_from: the second source of a merge, NAME/VERSION.
    bank: the memories before new ones enter.
    records: of photographs that stay.  additions, patients: photographs without a record, and their patients.
    store, numbers: the available features, and the numbers of their photographs, ascending.
    keep_features: the features are those of all photographs, and stay in the index.
    distances: left-out distances of the photographs without features, by number.
    standing: how far these distances hold in `bank`.
    covering_radius: bound of the distance from these photographs' patches to their nearest memory in `bank`.
    kept_radius: the covering radius to keep.  last_number: the highest number of an id so far.
    calibrated_on: photographs outside the bank for the calibration; without any, the reference photos.
    set_aside: ids of photographs that earlier versions left out of bank or calibration on request.
    pictures: of reference photos and marked ones: name -> path.  examples: that the version has.
    """

    source: SourceVersion
    operation: str
    bank: MemoryBank
    records: tuple[ReferenceRecord, ...]
    additions: tuple[Reference, ...]
    patients: tuple[str | None, ...]
    store: FeatureStore
    numbers: tuple[int, ...]
    keep_features: bool
    distances: Mapping[int, PatchDistances]
    standing: Standing
    covering_radius: float
    kept_radius: float
    last_number: int
    calibrated_on: tuple[CalibrationRecord, ...]
    pictures: Mapping[str, Path]
    examples: Examples
    set_aside: tuple[str, ...] = ()
    also_from: str | None = None


def worst_standing(standings: Iterable[Standing]) -> Standing:
    """The worst of them; `measured` without any."""
    return max(standings, key=_STANDINGS.index, default="measured")


def check_people(groups: Sequence[frozenset[int]]) -> None:
    """Raise `SettingError` if too few photographs are left.  groups: per photograph those left out with it."""
    if (count := len(set(groups))) < MIN_PHOTOS:
        raise SettingError(
            f"{counted(count, 'photograph')} (of different patients, copies counted once) would be left, an index "
            f"needs at least {MIN_PHOTOS}"
        )


@dataclass(frozen=True, slots=True)
class NewVersion:
    """A derived version.  before: the manifest of its source.  entered: new memories.

    measured: reference photos whose left-out scores were measured in the new bank.
    """

    version: Path
    before: Manifest
    after: Manifest
    entered: int
    measured: int


def sample_quantiles(patches: Sequence[Quantile], count: int) -> NDArray[np.float32]:
    """`count` values whose quantiles are approximately `patches`: float32 (count,)."""
    at, values = zip(*((quantile.at, quantile.value) for quantile in patches), strict=True)
    sample: NDArray[np.float32] = np.interp(np.linspace(0, 1, count), at, values).astype(np.float32)
    return sample


def derive_version(spec: VersionSpec, place: Path, scratch: Path, stages: Stages, *, live: bool) -> NewVersion:
    """Write the new version into `place` (ROOT/NAME), whose lock the caller holds.

    Args:
        scratch: a folder on the same disk.
        live: make it the live version.
    Raises:
        SettingError: too few photographs or memories are left for a calibration.
    """
    before = spec.source.manifest
    patients = [*(record.patient for record in spec.records), *spec.patients]
    groups = left_out_groups(patients, [*spec.records, *spec.additions])
    check_people(groups)
    bank = _extend(spec, scratch, stages)
    entered = len(bank) - len(spec.bank)
    with stages.stage("calibrate", len(spec.numbers), "photos") as advance:
        left_out = _left_out(spec, bank, groups, advance)
    standing = worst_standing([spec.standing, "bound" if entered or spec.examples.variants else "measured"])
    records = _records(spec, left_out, standing)
    calibration, calibrated = _calibration(spec, records, left_out, standing)
    with stages.stage("publish", 1, "version") as advance:
        staging = scratch / "version"
        staging.mkdir()
        unchanged = _share_files(spec, records, staging)
        bank.save(staging)
        write_records(records, staging / PHOTOS_FILE)
        write_left_out([record.id for record in records], left_out, staging)
        if spec.examples.records:
            spec.examples.save(staging)
        if spec.calibrated_on:
            write_calibration_records(spec.calibrated_on, staging / CALIBRATION_FILE)
        manifest = replace(
            before,
            name=place.name,
            version=index.new_version(),
            history=(*before.history, history_entry(spec.operation, before.version, spec.also_from)),
            counts=_counts(before.counts, records, bank),
            calibration=calibration,
            calibrated=calibrated,
            quality=_quality(spec, left_out.covering_radius, len(records), stages),
            photo_quality=quality_limits([photo.quality for photo in spec.calibrated_on or records]),
            probe_score=score_probe(Detector(spec.source.loaded.detector.encoder, bank, spec.examples), staging),
            device=str(spec.source.loaded.detector.encoder.device),
            packages=runtime.packages(),
            search=SearchRecord(bank.plan, 0, ()),
            numbered=spec.last_number + len(spec.additions),
        )
        version, after = publish(
            staging, place, lambda files: replace(manifest, files=files), live=live, shared_files=unchanged
        )
        advance(1)
    return NewVersion(version, before, after, entered, len(spec.numbers))


def _extend(spec: VersionSpec, scratch: Path, stages: Stages) -> MemoryBank:
    with stages.stage("coreset", len(spec.store), "photos") as advance:
        if not len(spec.store):
            return spec.bank
        device = spec.source.loaded.detector.encoder.device
        return extend(spec.bank, spec.store, spec.numbers, spec.kept_radius, device, advance, scratch / "points")


def _left_out(
    spec: VersionSpec, bank: MemoryBank, groups: Sequence[frozenset[int]], advance: Callable[[int], None]
) -> LeftOut:
    """Left-out scores of all photographs; distances are measured anew if features are there, as is the radius."""
    config = spec.source.manifest.config
    store_groups = [groups[number] for number in spec.numbers]
    measured, radius = left_out_distances(spec.store, store_groups, bank, config.search.neighbors, advance)
    distances = {**spec.distances, **dict(zip(spec.numbers, measured, strict=True))}
    numbers = range(len(groups))
    cameras = [*(record.camera for record in spec.records), *(photo.source.camera for photo in spec.additions)]
    masks = (_mask(spec, number) for number in numbers)
    new_ids = [photo_id(spec.last_number + number) for number in range(1, len(spec.additions) + 1)]
    return score_left_out(
        [distances[number] for number in numbers], radius, masks, config, cameras,
        ids=[*(record.id for record in spec.records), *new_ids],
        use=normals_to_use([*spec.records, *spec.additions], spec.source.loaded.detector.encoder),
        set_aside=[name for name in spec.set_aside if name.startswith(_REFERENCE)],
    )  # fmt: skip


def _mask(spec: VersionSpec, number: int) -> NDArray[np.bool_]:
    """A photograph's field of view on its prepared square: bool (S, S)."""
    preparation = spec.source.manifest.config.preparation
    if number >= len(spec.records):
        return spec.additions[number - len(spec.records)].mask(preparation)
    record = spec.records[number]
    frame = frame_of(record.width, record.height, record.field_of_view, preparation)
    return mask_of(frame, record.field_of_view, preparation)


def _records(spec: VersionSpec, left_out: LeftOut, standing: Standing) -> tuple[ReferenceRecord, ...]:
    """Existing records with new scores, then records of the additions."""
    # The bank alone was measured: memories that readers have added make distances smaller.
    measured = set() if spec.examples.variants else set(spec.numbers)
    records = [
        replace(
            record,
            score=left_out.scores[row],
            peak=left_out.peaks[row],
            standing="measured" if row in measured else worst_standing([record.standing, standing]),
        )
        for row, record in enumerate(spec.records)
    ]
    records += new_records(
        spec.additions, left_out, spec.patients, first_row=len(records), last_number=spec.last_number,
        keep_names=spec.source.keeps_names,
    )  # fmt: skip
    return tuple(records)


def _calibration(
    spec: VersionSpec, records: Sequence[ReferenceRecord], left_out: LeftOut, standing: Standing
) -> tuple[Calibration, Standing]:
    """By the earlier scores of the photographs outside the bank, or by the reference photos."""
    before = spec.source.manifest
    if spec.calibrated_on:
        normals = spec.calibrated_on
        values = sample_quantiles(
            before.calibration.patches, len(normals) * before.counts.grid[0] * before.counts.grid[1]
        )
        use = normals_to_use(normals, spec.source.loaded.detector.encoder)
        calibration = calibrate_normals(
            as_normals(normals), use, source="separate", set_aside=spec.set_aside, distances=values
        )
        return calibration, worst_standing([before.calibrated, standing])
    return left_out.calibration, worst_standing(record.standing for record in records)


def _quality(spec: VersionSpec, radius: float, photos: int, stages: Stages) -> Quality:
    all_measured = len(spec.numbers) == photos
    return replace(
        spec.source.manifest.quality,
        covering_radius=radius if all_measured else max(radius, spec.covering_radius),
        covering="measured" if all_measured else "bound",
        kept_radius=spec.kept_radius,
        stages=tuple(stages.done),
        peak_memory_bytes=runtime.peak_memory_bytes(),
    )


def _counts(before: Counts, records: Sequence[ReferenceRecord], bank: MemoryBank) -> Counts:
    patches = sum(record.patches for record in records)
    return replace(before, photos=len(records), patches=patches, memories=len(bank))


def _share_files(spec: VersionSpec, records: Sequence[ReferenceRecord], staging: Path) -> dict[str, FileRecord]:
    """Link shared files into `staging`; returns the source's file records of those that are unchanged, by name."""
    source = spec.source
    files = {**source.shared_files(), **spec.pictures}
    if spec.keep_features:
        files |= feature_files(records, spec.store)
    link_files(files, staging)
    records_by_name = {file.name: file for file in source.manifest.files}
    return {name: file for name, file in records_by_name.items() if files.get(name) == source.folder / name}
