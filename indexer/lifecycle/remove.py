"""`resad-indexer remove`: removes photographs from an index, with their memories, pictures and records.

Patches that only the removed memories covered are covered again if there are features: kept in the index, or of
the photographs given, which are encoded again.  Then every score is measured again.  Without features the removed
memories leave holes: the stated covering radius is then a bound, by the triangle inequality, and the left-out
distances that stay may be too small ("stale").
"""

import hashlib
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch

from indexer.build.feature_store import FeatureStore
from indexer.build.progress import Stages
from indexer.calibration.calibrate import CalibrationRecord, calibration_records
from indexer.lifecycle.derive import (
    NewVersion,
    SourceVersion,
    VersionSpec,
    combine_stores,
    derive_version,
    only_photos,
    open_source,
)
from indexer.photos.listing import list_photos
from indexer.photos.naming import parse_names
from resad import index
from resad.calibration import RATES, normals_needed
from resad.config import PhotoLimits
from resad.errors import IndexInvalid, SettingError, naming
from resad.index import (
    add_tombstones,
    content_hashes,
    delete_leftovers,
    delete_version,
    staging_folder,
    tombstone,
    tombstones,
    write_lock,
)
from resad.manifest import PHOTOS_FILE, ReferenceRecord, read_records
from resad.preparation import prepare

_GROUPS: Final = ("patient", "camera")


@dataclass(frozen=True, slots=True)
class Choice:
    """Photographs to remove.  ids, hashes: of single photographs.

    groups: (`patient` or `camera`, value); the case of a camera's name does not matter.  Patients are those of the
    reference photos: photographs of a separate calibration have patient numbers of their own.
    """

    ids: frozenset[str]
    hashes: frozenset[str]
    groups: frozenset[tuple[str, str]]

    def __call__(self, record: ReferenceRecord | CalibrationRecord) -> bool:
        """Whether a photograph is to be removed."""
        camera = None if record.camera is None else record.camera.casefold()
        return (
            record.id in self.ids
            or record.content_sha256 in self.hashes
            or (isinstance(record, ReferenceRecord) and ("patient", record.patient) in self.groups)
            or ("camera", camera) in self.groups
        )


def choose(photos: Sequence[str], groups: Sequence[str]) -> Choice:
    """Parse the options --photo and --group.

    Args:
        photos: ids (r-00041), content hashes, files, folders or CSVs.
        groups: `patient=p-00003` or `camera=Topcon`.
    Raises:
        SettingError: a value is none of these, or there are no values.
    """
    named, group_values = parse_names("--photo", photos), set()
    for text in groups:
        kind, equals, value = text.partition("=")
        if kind not in _GROUPS or not equals or not value:
            raise SettingError(f"--group {text!r}: expected patient=ID or camera=NAME")
        group_values.add((kind, value.casefold() if kind == "camera" else value))
    if not (named.ids or named.hashes or group_values):
        raise SettingError("nothing is named: give --photo or --group")
    return Choice(named.ids, named.hashes, frozenset(group_values))


BEYOND_REACH: Final = (
    "exports of this index (resad-indexer export), and indexes imported from them elsewhere",
    "backups, snapshots and copies of the folder; blocks that the disk itself has not overwritten yet",
    "services until they have loaded the new version, and answers that they sent",
    "audit pages, reports and tables that were written to files",
)
"""Copies that this program cannot know of."""


@dataclass(frozen=True, slots=True)
class PurgeReport:
    """What a purge deleted.  versions: deleted versions.  work: an unfinished build was deleted, too.

    elsewhere: versions of other indexes in the same root that hold purged photographs.
    """

    versions: tuple[str, ...]
    work: bool
    elsewhere: tuple[Path, ...]


def purge(place: Path, hashes: Sequence[str]) -> PurgeReport:
    """Delete every version of ROOT/NAME that holds these photographs (content hashes), and bar them for good.

    Raises:
        IndexInvalid: the live version holds one of them: remove it first.
        SettingError: another process writes to the index.
    """
    with write_lock(place):
        live = index.live_version(place)
        holding = [version for version in index.versions(place) if content_hashes(place / version) & set(hashes)]
        if live in holding:
            raise IndexInvalid(f"{place / live} is live and holds the photographs: remove them first")
        add_tombstones(place, hashes)
        delete_leftovers(place)
        for version in holding:
            delete_version(place, version)
        work = (place / index.WORK).exists()
        shutil.rmtree(place / index.WORK, ignore_errors=True)
    return PurgeReport(tuple(holding), work, _elsewhere(place))


def hashes_to_purge(place: Path, hashes: frozenset[str]) -> frozenset[str]:
    """The content hashes that some version of ROOT/NAME holds, or that are barred from it already."""
    in_versions = frozenset().union(*(content_hashes(place / version) for version in index.versions(place)))
    barred = tombstones(place)
    return (in_versions & hashes) | {content for content in hashes if tombstone(content) in barred}


def _elsewhere(place: Path) -> tuple[Path, ...]:
    barred = tombstones(place)
    return tuple(
        folder / version
        for folder in sorted(place.parent.iterdir())
        if folder != place
        for version in index.versions(folder)
        if any(tombstone(content) in barred for content in content_hashes(folder / version))
    )


Photo = ReferenceRecord | CalibrationRecord
PhotoFilter = Callable[[Photo], bool]
"""Whether a photograph is to be removed."""


@dataclass(frozen=True, slots=True)
class RemoveOptions:
    """What to remove, and from which index.

    index: ROOT/NAME or ROOT/NAME/VERSION.  photos: where the photographs that stay are found by content, to be
    encoded again.  live: make the new version the live one.
    """

    index: Path
    chosen: PhotoFilter
    device: torch.device
    photos: Path | None = None
    live: bool = True
    limits: PhotoLimits = PhotoLimits()


@dataclass(frozen=True, slots=True)
class RemoveReport:
    """The new version and the photographs that were removed.

    removed: ids, of reference photos and of photographs of a separate calibration.  hashes: their content hashes.
    lost: removed memories.  fell_back: too few photographs of a separate calibration were left, so that the index
    is calibrated on its reference photos.  missing: ids of photographs that stay and were not found.
    """

    derived: NewVersion
    removed: tuple[str, ...]
    hashes: tuple[str, ...]
    lost: int
    fell_back: bool
    missing: tuple[str, ...]


def holds(version: Path, chosen: PhotoFilter) -> bool:
    """Whether ROOT/NAME/VERSION has one of the chosen photographs."""
    photos: list[Photo] = [*read_records(version / PHOTOS_FILE), *calibration_records(version)]
    return any(map(chosen, photos))


def remove(options: RemoveOptions, stages: Stages) -> RemoveReport:
    """Write a version without the chosen photographs; after any error the index is unchanged.

    Raises:
        SettingError: none is chosen, too few are left, or another process writes to the index.
        IndexInvalid: the index cannot be used.
    """
    place = index.resolve(options.index).resolve().parent
    with staging_folder(place.parent, place.name) as scratch:
        source = open_source(options.index, options.device)
        photos: list[Photo] = [*source.photos, *source.calibrated_on]
        removed = [photo for photo in photos if options.chosen(photo)]
        if not removed:
            raise SettingError(f"{source.folder} holds no such photograph")
        remaining = [row for row, record in enumerate(source.photos) if not options.chosen(record)]
        spec = _spec(source, options, remaining, scratch, stages)
        derived = derive_version(spec, place, scratch, stages, live=options.live)
    return RemoveReport(
        derived,
        tuple(photo.id for photo in removed),
        tuple(photo.content_sha256 for photo in removed),
        len(source.loaded.detector.bank) - len(spec.bank),
        bool(source.calibrated_on) and not spec.calibrated_on,
        () if options.photos is None else _without_features(spec),
    )


def _without_features(spec: VersionSpec) -> tuple[str, ...]:
    with_features = set(spec.numbers)
    return tuple(record.id for number, record in enumerate(spec.records) if number not in with_features)


def _spec(
    source: SourceVersion, options: RemoveOptions, remaining: Sequence[int], scratch: Path, stages: Stages
) -> VersionSpec:
    bank, neighbors = source.loaded.detector.bank, source.manifest.config.search.neighbors
    removed = ~np.isin(bank.provenance.photo, remaining)
    if (count := int((~removed).sum())) < neighbors:
        raise SettingError(
            f"{count} memories would be left, fewer than the {neighbors} neighbors that are searched"
        )
    remaining_bank = only_photos(bank, remaining)
    features, numbers = _features(source, options, remaining, scratch, stages)
    normals = tuple(record for record in source.calibrated_on if not options.chosen(record))
    covering_radius = source.manifest.quality.covering_radius
    if removed.any():
        covering_radius += float(remaining_bank.search(bank.memories[removed], 1).distances.max())
    return VersionSpec(
        source=source,
        operation="remove",
        bank=remaining_bank,
        records=tuple(source.photos[row] for row in remaining),
        additions=(),
        patients=(),
        store=features,
        numbers=numbers,
        keep_features=source.features is not None,
        distances={number: source.distances[row] for number, row in enumerate(remaining)},
        standing="stale" if removed.any() else "measured",
        covering_radius=covering_radius,
        kept_radius=source.manifest.quality.radius_to_keep,
        last_number=source.last_number,
        calibrated_on=normals if len(normals) >= normals_needed(max(RATES)) else (),
        set_aside=source.manifest.calibration.set_aside,
        pictures=source.pictures({source.photos[row].id: source.photos[row].id for row in remaining}),
    )


def _features(
    source: SourceVersion, options: RemoveOptions, remaining: Sequence[int], scratch: Path, stages: Stages
) -> tuple[FeatureStore, tuple[int, ...]]:
    """Features of photographs that stay, and their numbers: all if the index keeps them, else of those found."""
    if source.features is not None:
        return combine_stores(scratch / "whole", [(source.features, remaining)]), tuple(range(len(remaining)))
    store = FeatureStore(scratch / "again")
    if options.photos is None:
        return store, ()
    records = [source.photos[row] for row in remaining]
    paths = reference_files(options.photos, records, options.limits)
    numbers = tuple(number for number, record in enumerate(records) if record.content_sha256 in paths)
    encoder = source.loaded.detector.encoder
    with stages.stage("encode", len(numbers), "photos") as advance:
        for number in numbers:
            path = paths[records[number].content_sha256]
            with naming(path):
                photo = prepare(path, encoder.config.preparation, options.limits)
            (patches,) = encoder.encode([photo])
            expected = records[number].patches
            if len(patches.cells) != expected:
                raise IndexInvalid(
                    f"{path} gives {len(patches.cells)} patches and gave {expected} when the index was built: "
                    "another version of this program finds another field of view"
                )
            store.append(patches)
            advance(1)
    return store, numbers


def reference_files(source: Path, records: Sequence[ReferenceRecord], limits: PhotoLimits) -> dict[str, Path]:
    """Content hash -> path of the reference photographs in `source` (a folder tree or a CSV).

    Other files are ignored.  Raises `SettingError` if `source` lists nothing.
    """
    reference_hashes = {record.content_sha256 for record in records}
    paths: dict[str, Path] = {}
    for photo in list_photos(source):
        if photo.path.stat().st_size > limits.max_bytes:
            continue
        with photo.path.open("rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
        if content in reference_hashes:
            paths.setdefault(content, photo.path)
    return paths
