"""`resad-indexer merge`: two indexes of the same fingerprint become one, with the memories of both.

Nothing is encoded again.  All memories stay but those that both have of a photograph that is in both: a patch is
as near to a memory as it was, and the covering radius is the larger of the two.  Every left-out distance of before
bounds the one in the merged bank, whoever the patients are; where both keep features, all are measured anew.
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
    derive_version,
    open_source,
    store_of,
    worst_standing,
)
from indexer.photos.listing import NearDuplicate
from indexer.photos.near_duplicates import DuplicatePair, match_near_duplicates
from resad.errors import IndexInvalid
from resad.index import purged, tombstone, writing
from resad.manifest import ReferenceRecord
from resad.memory_bank import MemoryBank, Provenance


@dataclass(frozen=True, slots=True)
class MergeOptions:
    """first, second: ROOT/NAME or ROOT/NAME/VERSION.  root, name: of the index that a version is written to."""

    first: Path
    second: Path
    root: Path
    name: str
    device: torch.device
    live: bool = True


@dataclass(frozen=True, slots=True)
class MergeReport:
    """What came of it.

    doubles: photographs that are in both.  near_duplicates: by their ids in the new index.
    recalibrated: one was calibrated on photographs outside its bank, which the new version is not.
    """

    made: NewVersion
    doubles: int
    near_duplicates: tuple[NearDuplicate, ...]
    recalibrated: bool


def merge(order: MergeOptions, stages: Stages) -> MergeReport:
    """Write a version of ROOT/NAME with the photographs of both; on any error all is as it was.

    Raises:
        IndexInvalid: an index cannot be used, their fingerprints differ, or one holds what was purged from there.
        SettingError: somebody else writes to ROOT/NAME.
    """
    with writing(order.root, order.name) as scratch:
        first, second = (open_source(path, order.device) for path in (order.first, order.second))
        _check(first, second, order.root / order.name)
        draft, fresh, pairs = _draft(first, second, scratch)
        made = derive_version(draft, order.root / order.name, scratch, stages, live=order.live)
    ids = [record.id for record in draft.kept]
    near_duplicates = tuple(
        NearDuplicate(ids[len(first.photos) + fresh.index(pair.first)], ids[pair.second], pair.bits, pair.mirrored)
        for pair in pairs
        if pair.bits is not None
    )
    doubles = len(second.photos) - len(fresh)
    return MergeReport(made, doubles, near_duplicates, bool(first.calibrated_on or second.calibrated_on))


def _check(first: SourceVersion, second: SourceVersion, place: Path) -> None:
    if first.manifest.fingerprint != second.manifest.fingerprint:
        raise IndexInvalid(
            f"{first.place} and {second.place} do not measure the same: settings or weights differ "
            f"(fingerprints {first.manifest.fingerprint[:19]}... and {second.manifest.fingerprint[:19]}...)"
        )
    graves = purged(place)
    for base in (first, second):
        if any(tombstone(record.content_sha256) in graves for record in base.photos):
            raise IndexInvalid(f"{base.place} holds photographs that were purged from {place.name}")


def _draft(
    first: SourceVersion, second: SourceVersion, scratch: Path
) -> tuple[VersionSpec, list[int], list[DuplicatePair]]:
    """With which rows of `second` are not in `first`, and what they look like there."""
    pairs = list(match_near_duplicates(second.photos, first.photos))
    same = {pair.first: pair.second for pair in pairs if pair.bits is None}
    fresh = [row for row in range(len(second.photos)) if row not in same]
    count = len(first.photos)
    number_of = same | {row: count + place for place, row in enumerate(fresh)}
    ours, placed = _with_smaller_distances(first, second, same)
    records = (*ours, *_renamed(first, second, fresh))
    whole = first.features is not None and second.features is not None
    store = FeatureStore(scratch / "whole")
    if first.features is not None and second.features is not None:
        store = store_of(scratch / "whole", [(first.features, range(count)), (second.features, fresh)])
    manifests = first.manifest, second.manifest
    draft = VersionSpec(
        base=first,
        operation="merge",
        bank=_united(first.loaded.detector.bank, second.loaded.detector.bank, number_of),
        kept=records,
        new=(),
        patients=(),
        store=store,
        numbers=tuple(range(len(records))) if whole else (),
        placed=dict(enumerate([*placed, *(second.placed[row] for row in fresh)])),
        keep_features=whole,
        others="bound",
        covering=max(one.quality.covering_radius for one in manifests),
        radius=max(one.quality.radius_to_keep for one in manifests),
        numbered=first.numbered + len(fresh),
        calibrated_on=(),
        pictures=_pictures(first, second, fresh),
        also_from=f"{second.manifest.name}/{second.manifest.version}",
    )
    return draft, fresh, pairs


def _united(first: MemoryBank, second: MemoryBank, number_of: dict[int, int]) -> MemoryBank:
    """The memories of both; of a patch that both have, the first one's."""
    photo = np.array([number_of[row] for row in second.provenance.photo.tolist()], dtype=np.int32)
    cells = second.provenance.cell
    origin = first.provenance
    there = set(zip(origin.photo.tolist(), map(tuple, origin.cell.tolist()), strict=True))
    more = np.array([one not in there for one in zip(photo.tolist(), map(tuple, cells.tolist()), strict=True)])
    pick = np.argsort(np.argsort(second.provenance.pick[more])).astype(np.int32) + len(first)
    merged = Provenance(
        np.concatenate([origin.photo, photo[more]]),
        np.concatenate([origin.cell, cells[more]]),
        np.concatenate([origin.pick, pick]),
    )
    order = merged.photo_by_photo()
    memories = np.concatenate([first.memories, second.memories[more]])[order]
    return MemoryBank(memories, merged.taken(order), gpu=first.gpu, plan=first.plan)


def _with_smaller_distances(
    first: SourceVersion, second: SourceVersion, same: dict[int, int]
) -> tuple[list[ReferenceRecord], list[PatchDistances]]:
    """Records and distances of `first`; of a photograph in both the smaller ones, as either bounds them."""
    records, placed = list(first.photos), list(first.placed)
    for theirs, ours in same.items():
        standings = (records[ours].standing, second.photos[theirs].standing)
        pair = (placed[ours], second.placed[theirs])
        bounds = [one for one, standing in zip(pair, standings, strict=True) if standing != "stale"]
        if bounds:
            smallest = np.minimum.reduce([one.distances for one in bounds])
            placed[ours] = replace(placed[ours], distances=smallest)
            standing = worst_standing(standing for standing in standings if standing != "stale")
            records[ours] = replace(records[ours], standing=standing)
    return records, placed


def _renamed(first: SourceVersion, second: SourceVersion, fresh: Sequence[int]) -> list[ReferenceRecord]:
    """The records of `second` with ids, and patients' numbers, that go on after those of `first`."""
    patients = [second.photos[row].patient for row in fresh]
    if not (first.keeps_names and second.keeps_names):
        known = [record.patient for record in first.photos]
        ours = _patients_in_both(first, second)
        # Equal numbers of two indexes are two patients: a mark that no number has keeps them apart.
        marked = [who and (ours.get(who) or f"second {who}") for who in patients]
        patients = number_patients(marked, known)
    return [
        replace(second.photos[row], id=photo_id(first.numbered + place), patient=who)
        for place, (row, who) in enumerate(zip(fresh, patients, strict=True), start=1)
    ]


def _patients_in_both(first: SourceVersion, second: SourceVersion) -> dict[str, str]:
    """What `second` calls a patient -> what `first` does, as told by photographs that are in both."""
    ours = {record.content_sha256: record.patient for record in first.photos}
    pairs = ((record.patient, ours.get(record.content_sha256)) for record in second.photos)
    return {theirs: known for theirs, known in pairs if theirs is not None and known is not None}


def _pictures(first: SourceVersion, second: SourceVersion, fresh: Sequence[int]) -> dict[str, Path]:
    pictures = first.pictures({record.id: record.id for record in first.photos})
    ids = {second.photos[row].id: photo_id(first.numbered + place) for place, row in enumerate(fresh, start=1)}
    return pictures | second.pictures(ids)
