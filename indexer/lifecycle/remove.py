"""`resad-indexer remove`: removes photographs from an index, with their memories, pictures and records.

Patches that only the removed memories covered are covered again if there are features: kept in the index, or of
the photographs given, which are encoded again.  Then every score is measured again.  Without features the removed
memories leave holes: the stated covering radius is then a bound, by the triangle inequality, and the left-out
distances that stay may be too small ("stale").
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from resad_client.text import counted

from indexer.build.feature_store import FeatureStore
from indexer.build.progress import Stages
from indexer.calibration.calibrate import CalibrationRecord
from indexer.lifecycle.derive import (
    NewVersion,
    SourceVersion,
    VersionSpec,
    combine_stores,
    derive_version,
    only_photos,
    open_source,
)
from indexer.lifecycle.teach import write_taught
from indexer.photos.listing import list_photos
from indexer.photos.naming import IdentifiedPhoto
from resad import index
from resad.calibration import RATES, normals_needed
from resad.config import PhotoLimits
from resad.errors import IndexInvalid, SettingError, naming
from resad.examples import ExampleRecord, Examples
from resad.index import staging_folder
from resad.manifest import ReferenceRecord
from resad.preparation import prepare


@dataclass(frozen=True, slots=True)
class RemoveOptions:
    """What to remove, and from which index.

    index: ROOT/NAME or ROOT/NAME/VERSION.  hashes: content hashes of the photographs.  photos: where the
    photographs that stay are found by content, to be encoded again.  live: make the new version the live one.
    """

    index: Path
    hashes: frozenset[str]
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


def remove(options: RemoveOptions, stages: Stages) -> RemoveReport:
    """Write a version without the chosen photographs; after any error the index is unchanged.

    Raises:
        SettingError: none is chosen, too few are left, or another process writes to the index.
        IndexInvalid: the index cannot be used.
    """
    place = index.resolve(options.index).resolve().parent
    with staging_folder(place.parent, place.name) as scratch:
        return derive_without(options, scratch, stages, live=options.live)


def derive_without(options: RemoveOptions, scratch: Path, stages: Stages, *, live: bool) -> RemoveReport:
    """As `remove`, for a caller that holds the index's lock.  scratch: an empty folder on the same disk."""
    source = open_source(options.index, options.device)
    photos: list[ReferenceRecord | CalibrationRecord] = [*source.photos, *source.calibrated_on]
    removed = [photo for photo in photos if photo.content_sha256 in options.hashes]
    marked = [record for record in source.loaded.examples.records if record.content_sha256 in options.hashes]
    if not removed and not marked:
        raise SettingError(f"{source.folder} holds no such photograph")
    if not removed:
        return _without_examples(source, options, marked, scratch, live=live)
    remaining = [row for row, record in enumerate(source.photos) if record.content_sha256 not in options.hashes]
    spec = _spec(source, options, remaining, scratch, stages)
    derived = derive_version(spec, source.folder.parent, scratch, stages, live=live)
    return RemoveReport(
        derived,
        tuple(photo.id for photo in removed),
        tuple(photo.content_sha256 for photo in removed),
        len(source.loaded.detector.bank) - len(spec.bank),
        bool(source.calibrated_on) and not spec.calibrated_on,
        () if options.photos is None else _without_features(spec),
    )


def _without_examples(
    source: SourceVersion, options: RemoveOptions, marked: Sequence[ExampleRecord], scratch: Path, *, live: bool
) -> RemoveReport:
    """The version without the examples of photographs that are in no other part of it."""
    derived = write_taught(source, _kept_examples(source, options), {}, "remove", scratch, live=live)
    ids = tuple(dict.fromkeys(record.photo for record in marked))
    hashes = tuple(dict.fromkeys(record.content_sha256 for record in marked))
    return RemoveReport(derived, ids, hashes, 0, fell_back=False, missing=())


def _kept_examples(source: SourceVersion, options: RemoveOptions) -> Examples:
    examples = source.loaded.examples
    return examples.only([record.content_sha256 not in options.hashes for record in examples.records])


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
            f"{counted(count, 'memory', 'memories')} would be left, fewer than the {neighbors} neighbors that are "
            "searched"
        )
    remaining_bank = only_photos(bank, remaining)
    features, numbers = _features(source, options, remaining, scratch, stages)
    normals = tuple(record for record in source.calibrated_on if record.content_sha256 not in options.hashes)
    covering_radius = source.manifest.quality.covering_radius
    examples = _kept_examples(source, options)
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
        pictures=source.pictures({source.photos[row].id: source.photos[row].id for row in remaining})
        | source.example_pictures(examples),
        examples=examples,
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


def reference_files(source: Path, records: Sequence[IdentifiedPhoto], limits: PhotoLimits) -> dict[str, Path]:
    """Content hash -> path of an index's photographs in `source` (a folder tree or a CSV).

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
