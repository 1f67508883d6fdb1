"""A version made out of others: patches enter, scores follow, and all of it is published.

It is what `add`, `remove` and `merge` share; each says with a `Draft` what is kept and what is new.

Left-out distances can only be measured where the photograph's features are there; those of the other ones stay as
the index keeps them, and the scores and the calibration are made anew of all of them.  What kept distances are
worth follows from what became of the bank: memories that enter can only make them smaller ("bound"), memories that
left may have made them larger ("stale").  Where neither happened, they hold.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from indexer.calibration_records import write_calibration_records
from indexer.enlargement import enlarge
from indexer.leave_out import LeftOut, left_out_distances, score_left_out
from indexer.left_out_groups import left_out_groups
from indexer.lifecycle.draft import Draft, check_people, worst
from indexer.progress import Stages
from indexer.publication import carry, feature_files, made, write_left_out
from indexer.records import new_records
from resad import index, runtime
from resad.calibration import Calibration, Quantile, calibrate
from resad.detector import Detector
from resad.index_writing import publish
from resad.loaded_index import score_probe
from resad.manifest import Counts, FileRecord, Manifest, Quality
from resad.memory_bank import MemoryBank
from resad.photo_records import CALIBRATION_FILE, PHOTOS_FILE, ReferenceRecord, Standing, write_records
from resad.preparation import frame_of, mask_of
from resad.quality import quality_limits
from resad.search.plan import SearchRecord


@dataclass(frozen=True, slots=True)
class Succession:
    """The new version.  before: the manifest of its base.  entered: memories.

    measured: reference photos whose left-out scores were measured in the new bank.
    """

    version: Path
    before: Manifest
    after: Manifest
    entered: int
    measured: int


def replayed(patches: Sequence[Quantile], count: int) -> NDArray[np.float32]:
    """So many values with these quantiles, as good as the quantiles tell: float32 (count,)."""
    at, values = zip(*((one.at, one.value) for one in patches), strict=True)
    drawn: NDArray[np.float32] = np.interp(np.linspace(0, 1, count), at, values).astype(np.float32)
    return drawn


def succeed(draft: Draft, place: Path, scratch: Path, stages: Stages, *, live: bool) -> Succession:
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
    others = worst([draft.others, "bound" if entered else "measured"])
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
            history=(*before.history, made(draft.operation, before.version, draft.also_from)),
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
    return Succession(version, before, after, entered, len(draft.numbers))


def _enlarged(draft: Draft, scratch: Path, stages: Stages) -> MemoryBank:
    with stages.stage("coreset", len(draft.store), "photos") as advance:
        if not len(draft.store):
            return draft.bank
        device = draft.base.loaded.detector.encoder.device
        return enlarge(draft.bank, draft.store, draft.numbers, draft.radius, device, advance, scratch / "points")


def _left_out(
    draft: Draft, bank: MemoryBank, groups: Sequence[frozenset[int]], advance: Callable[[int], None]
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


def _mask(draft: Draft, number: int) -> NDArray[np.bool_]:
    """The field of view of a photograph on its prepared square, as when it was encoded: bool (S, S)."""
    preparation = draft.base.manifest.config.preparation
    if number >= len(draft.kept):
        reference = draft.new[number - len(draft.kept)]
        return mask_of(reference.frame, reference.field_of_view, preparation)
    record = draft.kept[number]
    frame = frame_of(record.width, record.height, record.field_of_view, preparation)
    return mask_of(frame, record.field_of_view, preparation)


def _records(draft: Draft, left_out: LeftOut, others: Standing) -> tuple[ReferenceRecord, ...]:
    """Those kept, scored anew, then the new ones'."""
    measured, old = set(draft.numbers), len(draft.kept)
    records = [
        replace(
            one,
            score=left_out.scores[row],
            peak=left_out.peaks[row],
            standing="measured" if row in measured else worst([one.standing, others]),
        )
        for row, one in enumerate(draft.kept)
    ]
    records += new_records(
        draft.new, left_out, draft.patients, row=old, after=draft.numbered, keep_names=draft.base.keeps_names
    )
    return tuple(records)


def _calibration(
    draft: Draft, records: Sequence[ReferenceRecord], left_out: LeftOut, others: Standing
) -> tuple[Calibration, Standing]:
    """On the photographs outside the bank with their scores of before, or on the reference photos."""
    before = draft.base.manifest
    if draft.calibrated_on:
        normals = draft.calibrated_on
        values = replayed(before.calibration.patches, len(normals) * before.counts.grid[0] * before.counts.grid[1])
        found = calibrate(
            [one.score for one in normals],
            [one.peak for one in normals],
            values,
            cameras=[one.camera for one in normals],
            source="separate",
        )
        return found, worst([before.calibrated, others])
    return left_out.calibration, worst(one.standing for one in records)


def _quality(draft: Draft, radius: float, photos: int, stages: Stages) -> Quality:
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


def _share_files(draft: Draft, records: Sequence[ReferenceRecord], staging: Path) -> dict[str, FileRecord]:
    """Put what the version shares with others into `staging`; by name, what the base's manifest knows of it."""
    base = draft.base
    files = {**base.shared_files(), **draft.pictures}
    if draft.keep_features:
        files |= feature_files(records, draft.store)
    carry(files, staging)
    return {one.name: one for one in base.manifest.files if files.get(one.name) == base.place / one.name}
