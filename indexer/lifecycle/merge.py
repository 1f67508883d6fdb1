"""`resad-indexer merge`: merges two indexes with the same fingerprint into one with the memories of both.

Nothing is encoded again.  All memories stay, except doubles of a photograph that is in both: every patch stays as
near to a memory as before, and the covering radius is the larger of the two.  The left-out distances of before are
upper bounds in the merged bank, whoever the patients are; if both keep features, all are measured again.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from indexer.build.feature_store import FeatureStore
from indexer.build.progress import Stages
from indexer.build.references import number_patients, photo_id
from indexer.calibration.leave_out import PatchDistances
from indexer.lifecycle.derive import (
    NewVersion,
    SourceVersion,
    VersionSpec,
    combine_stores,
    derive_version,
    open_source,
    worst_standing,
)
from indexer.photos.listing import NearDuplicate
from resad.errors import IndexInvalid
from resad.index import staging_folder, tombstone, tombstones
from resad.manifest import ReferenceRecord
from resad.memory_bank import MemoryBank, Provenance
from resad.near_duplicates import DuplicatePair, match_near_duplicates


@dataclass(frozen=True, slots=True)
class MergeOptions:
    """What to merge, and into which index.

    first, second: ROOT/NAME or ROOT/NAME/VERSION.  root, name: of the index that gets the new version.
    """

    first: Path
    second: Path
    root: Path
    name: str
    device: torch.device
    live: bool = True


@dataclass(frozen=True, slots=True)
class MergeReport:
    """The new version, and the photographs that are in both indexes.

    doubles: photographs that are in both.  near_duplicates: by their ids in the new index.
    recalibrated: an index was calibrated on photographs outside its bank; the new version is not.
    """

    derived: NewVersion
    doubles: int
    near_duplicates: tuple[NearDuplicate, ...]
    recalibrated: bool


def merge(options: MergeOptions, stages: Stages) -> MergeReport:
    """Write a version of ROOT/NAME with the photographs of both; after any error the index is unchanged.

    Raises:
        IndexInvalid: an index cannot be used, fingerprints differ, or a photograph was purged from ROOT/NAME.
        SettingError: another process writes to ROOT/NAME.
    """
    with staging_folder(options.root, options.name) as scratch:
        first, second = (open_source(path, options.device) for path in (options.first, options.second))
        _check(first, second, options.root / options.name)
        spec, new_rows, pairs = _spec(first, second, scratch)
        derived = derive_version(spec, options.root / options.name, scratch, stages, live=options.live)
    ids = [record.id for record in spec.records]
    near_duplicates = tuple(
        NearDuplicate(
            ids[len(first.photos) + new_rows.index(pair.first)], ids[pair.second], pair.bits, pair.mirrored
        )
        for pair in pairs
        if pair.bits is not None
    )
    doubles = len(second.photos) - len(new_rows)
    return MergeReport(derived, doubles, near_duplicates, bool(first.calibrated_on or second.calibrated_on))


def _check(first: SourceVersion, second: SourceVersion, place: Path) -> None:
    if first.manifest.fingerprint != second.manifest.fingerprint:
        raise IndexInvalid(
            f"{first.folder} and {second.folder} measure different distances: settings or weights differ "
            f"(fingerprints {first.manifest.fingerprint[:19]}... and {second.manifest.fingerprint[:19]}...)"
        )
    barred = tombstones(place)
    for source in (first, second):
        contents = [record.content_sha256 for record in source.photos]
        contents += [record.content_sha256 for record in source.loaded.examples.records]
        if any(tombstone(content) in barred for content in contents):
            raise IndexInvalid(f"{source.folder} holds photographs that were purged from {place.name}")


def _spec(
    first: SourceVersion, second: SourceVersion, scratch: Path
) -> tuple[VersionSpec, list[int], list[DuplicatePair]]:
    """The new version, the rows of `second` that are not in `first`, and its near-duplicates of `first`."""
    pairs = list(match_near_duplicates(second.photos, first.photos))
    doubles = {pair.first: pair.second for pair in pairs if pair.bits is None}
    new_rows = [row for row in range(len(second.photos)) if row not in doubles]
    count = len(first.photos)
    number_of = doubles | {row: count + place for place, row in enumerate(new_rows)}
    first_records, first_distances = _with_smaller_distances(first, second, doubles)
    records = (*first_records, *_renamed(first, second, new_rows))
    have_features = first.features is not None and second.features is not None
    store = FeatureStore(scratch / "whole")
    if first.features is not None and second.features is not None:
        store = combine_stores(scratch / "whole", [(first.features, range(count)), (second.features, new_rows)])
    manifests = first.manifest, second.manifest
    second_aside = [name for name in second.manifest.calibration.set_aside if name.startswith("r-")]
    spec = VersionSpec(
        source=first,
        operation="merge",
        bank=_merge_banks(first.loaded.detector.bank, second.loaded.detector.bank, number_of),
        records=records,
        additions=(),
        patients=(),
        store=store,
        numbers=tuple(range(len(records))) if have_features else (),
        distances=dict(enumerate([*first_distances, *(second.distances[row] for row in new_rows)])),
        keep_features=have_features,
        standing="bound",
        covering_radius=max(manifest.quality.covering_radius for manifest in manifests),
        kept_radius=max(manifest.quality.radius_to_keep for manifest in manifests),
        last_number=first.last_number + len(new_rows) + len(second_aside),
        calibrated_on=(),
        # Those of the second have no row: they get the ids after all others.
        set_aside=(
            *first.manifest.calibration.set_aside,
            *(photo_id(first.last_number + len(new_rows) + place) for place in range(1, len(second_aside) + 1)),
        ),
        pictures=_pictures(first, second, new_rows),
        examples=first.loaded.examples.with_others(second.loaded.examples),
        also_from=f"{second.manifest.name}/{second.manifest.version}",
    )
    return spec, new_rows, pairs


def _merge_banks(first: MemoryBank, second: MemoryBank, number_of: dict[int, int]) -> MemoryBank:
    """The memories of both; of a patch that is in both, the first bank's memory."""
    photo = np.array([number_of[row] for row in second.provenance.photo.tolist()], dtype=np.int32)
    cells = second.provenance.cell
    origin = first.provenance
    first_patches = set(zip(origin.photo.tolist(), map(tuple, origin.cell.tolist()), strict=True))
    patches = zip(photo.tolist(), map(tuple, cells.tolist()), strict=True)
    added = np.array([patch not in first_patches for patch in patches])
    pick = np.argsort(np.argsort(second.provenance.pick[added])).astype(np.int32) + len(first)
    merged = Provenance(
        np.concatenate([origin.photo, photo[added]]),
        np.concatenate([origin.cell, cells[added]]),
        np.concatenate([origin.pick, pick]),
    )
    bank_order = merged.bank_order()
    memories = np.concatenate([first.memories, second.memories[added]])[bank_order]
    return MemoryBank(memories, merged.subset(bank_order), gpu=first.gpu, plan=first.plan)


def _with_smaller_distances(
    first: SourceVersion, second: SourceVersion, doubles: dict[int, int]
) -> tuple[list[ReferenceRecord], list[PatchDistances]]:
    """Records and distances of `first`; of a photograph in both the smaller distances, since both are bounds."""
    records, distances = list(first.photos), list(first.distances)
    for second_row, row in doubles.items():
        standings = (records[row].standing, second.photos[second_row].standing)
        pair = (distances[row], second.distances[second_row])
        bounds = [patches for patches, standing in zip(pair, standings, strict=True) if standing != "stale"]
        if bounds:
            smallest = np.minimum.reduce([patches.distances for patches in bounds])
            distances[row] = replace(distances[row], distances=smallest)
            standing = worst_standing(standing for standing in standings if standing != "stale")
            records[row] = replace(records[row], standing=standing)
    return records, distances


def _renamed(first: SourceVersion, second: SourceVersion, new_rows: Sequence[int]) -> list[ReferenceRecord]:
    """The records of `second` with ids and patient numbers that continue those of `first`."""
    patients = [second.photos[row].patient for row in new_rows]
    if not (first.keeps_names and second.keeps_names):
        in_both = _patients_in_both(first, second)
        # Equal numbers in two indexes are two patients: a prefix that no number has keeps them apart.
        prefixed = [name and (in_both.get(name) or f"second {name}") for name in patients]
        patients = number_patients(prefixed, [record.patient for record in first.photos])
    return [
        replace(second.photos[row], id=photo_id(first.last_number + place), patient=name)
        for place, (row, name) in enumerate(zip(new_rows, patients, strict=True), start=1)
    ]


def _patients_in_both(first: SourceVersion, second: SourceVersion) -> dict[str, str]:
    """Patient in `second` -> the same patient in `first`, by photographs that are in both."""
    by_content = {record.content_sha256: record.patient for record in first.photos}
    pairs = ((record.patient, by_content.get(record.content_sha256)) for record in second.photos)
    return {name: first_name for name, first_name in pairs if name is not None and first_name is not None}


def _pictures(first: SourceVersion, second: SourceVersion, new_rows: Sequence[int]) -> dict[str, Path]:
    pictures = first.pictures({record.id: record.id for record in first.photos})
    ids = {
        second.photos[row].id: photo_id(first.last_number + place) for place, row in enumerate(new_rows, start=1)
    }
    marked = (source.example_pictures(source.loaded.examples) for source in (second, first))
    return pictures | second.pictures(ids) | next(marked) | next(marked)
