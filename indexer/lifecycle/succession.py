"""A version made out of others: patches enter, scores follow, and all of it is published.

It is what `add`, `remove` and `merge` share; each says with a `Draft` what is kept and what is new.

A left-out score can only be measured where the photograph's features are there.  What the kept score of another
one is worth follows from what became of the bank.  A map is monotone in its patches' distances, and the image
score and the peak in the map: memories that enter can only lower a score, so that the kept one bounds it
("bound") and p-values err upwards; memories that left may have raised it ("stale").  Where none did, it holds.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, get_args

import numpy as np
from numpy.typing import NDArray

from indexer.calibrate import CalibrationRecord, write_calibration_records
from indexer.enlargement import enlarge
from indexer.feature_store import FeatureStore
from indexer.leave_out import LeftOutScores, groups_of, score_left_out
from indexer.lifecycle.base import Base
from indexer.progress import Stages
from indexer.publication import carry, feature_files, made
from indexer.records import new_records
from indexer.references import FEWEST, Reference
from resad import index, runtime
from resad.calibration import Calibration, Quantile, calibrate
from resad.detector import Detector
from resad.errors import SettingError
from resad.loaded_index import score_probe
from resad.manifest import (
    CALIBRATION_FILE,
    PHOTOS_FILE,
    Manifest,
    Quality,
    ReferenceRecord,
    Standing,
    write_records,
)
from resad.memory_bank import MemoryBank
from resad.preparation import frame_of, mask_of
from resad.quality import quality_limits
from resad.search.plan import SearchRecord

_WORST: Final[tuple[Standing, ...]] = get_args(Standing)


@dataclass(frozen=True, slots=True, eq=False)
class Draft:
    """What a new version is to be made of; photographs are counted `kept` first, then `new`.

    base: whose settings, trunk, probe and history it has.  also_from: the second of a merge, NAME/VERSION.
    bank: the memories there are before any enters.
    kept: records of earlier versions.  new, patients: photographs that have none yet, and whose they are.
    store, numbers: the features that are there, and whose they are, ascending.
    keep_features: they are those of all photographs, and stay.
    others: what the scores of photographs without features are worth in `bank`.
    covering: bounds the distance of these photographs' patches to their nearest memory in `bank`.
    distances: stands for these photographs' left-out patch distances, float32 (n,).
    radius: the covering radius to keep.  numbered: the highest number of an id so far.
    calibrated_on: the photographs outside the bank that it is calibrated on; none for the reference photos.
    pictures: of reference photos: name -> where each lies.
    """

    base: Base
    operation: str
    bank: MemoryBank
    kept: tuple[ReferenceRecord, ...]
    new: tuple[Reference, ...]
    patients: tuple[str | None, ...]
    store: FeatureStore
    numbers: tuple[int, ...]
    keep_features: bool
    others: Standing
    covering: float
    distances: NDArray[np.float32]
    radius: float
    numbered: int
    calibrated_on: tuple[CalibrationRecord, ...]
    pictures: Mapping[str, Path]
    also_from: str | None = None


@dataclass(frozen=True, slots=True)
class Succession:
    """The new version.  before: the manifest of its base.  entered, lost: memories.

    measured: reference photos whose left-out scores were measured in the new bank.
    """

    version: Path
    before: Manifest
    after: Manifest
    entered: int
    measured: int


def worst(standings: Iterable[Standing]) -> Standing:
    """The one that promises least."""
    return max(standings, key=_WORST.index, default="measured")


def replayed(patches: Sequence[Quantile], count: int) -> NDArray[np.float32]:
    """So many values with these quantiles, as good as the quantiles tell: float32 (count,)."""
    at, values = zip(*((one.at, one.value) for one in patches), strict=True)
    drawn: NDArray[np.float32] = np.interp(np.linspace(0, 1, count), at, values).astype(np.float32)
    return drawn


def check_people(patients: Sequence[str | None]) -> None:
    """Raise `SettingError` where too few photographs (of different patients) are left for an index."""
    count = len({who for who in patients if who is not None}) + sum(who is None for who in patients)
    if count < FEWEST:
        raise SettingError(f"{count} photographs (of different patients) would be left, an index needs {FEWEST}")


def succeed(draft: Draft, place: Path, scratch: Path, stages: Stages, *, live: bool) -> Succession:
    """Make the new version of `place` (ROOT/NAME), whose lock the caller holds.

    Args:
        scratch: a folder on the same disk.
        live: make it the live version.
    Raises:
        SettingError: too few photographs or memories are left for a calibration.
    """
    base = draft.base
    patients = [*(record.patient for record in draft.kept), *draft.patients]
    check_people(patients)
    bank = _enlarged(draft, scratch, stages)
    entered = len(bank) - len(draft.bank)
    with stages.stage("calibrate", len(draft.numbers), "photos") as advance:
        measured = _measured(draft, bank, patients, advance)
    others = worst([draft.others, "bound" if entered else "measured"])
    records = _records(draft, measured, others)
    calibration, calibrated = _calibration(draft, records, measured, others)
    with stages.stage("publish", 1, "version") as advance:
        staging = scratch / "version"
        staging.mkdir()
        files = _files(draft, records)
        carry(files, staging)
        bank.save(staging)
        write_records(records, staging / PHOTOS_FILE)
        if draft.calibrated_on:
            write_calibration_records(draft.calibrated_on, staging / CALIBRATION_FILE)
        judged = draft.calibrated_on or records
        after = replace(
            base.manifest,
            name=place.name,
            version=index.new_version(),
            history=(*base.manifest.history, made(draft.operation, base.manifest.version, draft.also_from)),
            counts=replace(
                base.manifest.counts,
                photos=len(records),
                patches=sum(record.patches for record in records),
                memories=len(bank),
            ),
            calibration=calibration,
            calibrated=calibrated,
            quality=_quality(draft, measured, len(records), stages),
            photo_quality=quality_limits([one.quality for one in judged]),
            probe_score=score_probe(Detector(base.loaded.detector.encoder, bank), staging),
            device=str(base.loaded.detector.encoder.device),
            packages=runtime.packages(),
            search=SearchRecord(bank.plan, 0, ()),
            numbered=draft.numbered + len(draft.new),
        )
        known = {one.name: one for one in base.manifest.files if files.get(one.name) == base.place / one.name}
        version, after = index.publish(
            staging, place, lambda files: replace(after, files=files), live=live, known=known
        )
        advance(1)
    return Succession(version, base.manifest, after, entered, len(draft.numbers))


def _enlarged(draft: Draft, scratch: Path, stages: Stages) -> MemoryBank:
    with stages.stage("coreset", len(draft.store), "photos") as advance:
        if not len(draft.store):
            return draft.bank
        device = draft.base.loaded.detector.encoder.device
        return enlarge(draft.bank, draft.store, draft.numbers, draft.radius, device, advance, scratch / "points")


def _measured(
    draft: Draft, bank: MemoryBank, patients: Sequence[str | None], advance: Callable[[int], None]
) -> LeftOutScores:
    """The left-out scores of the photographs whose features are there."""
    if not len(draft.store):
        return LeftOutScores((), (), np.empty(0, np.float32), 0.0)
    config, groups = draft.base.manifest.config, groups_of(patients)
    masks = (_mask(draft, number) for number in draft.numbers)
    own = [groups[number] for number in draft.numbers]
    return score_left_out(draft.store, masks, own, bank, config, advance)


def _mask(draft: Draft, number: int) -> NDArray[np.bool_]:
    """The field of view of a photograph on its prepared square, as when it was encoded: bool (S, S)."""
    preparation = draft.base.manifest.config.preparation
    if number >= len(draft.kept):
        reference = draft.new[number - len(draft.kept)]
        return mask_of(reference.frame, reference.field_of_view, preparation)
    record = draft.kept[number]
    frame = frame_of(record.width, record.height, record.field_of_view, preparation)
    return mask_of(frame, record.field_of_view, preparation)


def _records(draft: Draft, measured: LeftOutScores, others: Standing) -> tuple[ReferenceRecord, ...]:
    """Those kept, with their scores measured anew or their standing lowered, then the new ones'."""
    found = {number: place for place, number in enumerate(draft.numbers)}
    records = [
        replace(one, score=measured.scores[found[row]], peak=measured.peaks[found[row]], standing="measured")
        if row in found
        else replace(one, standing=worst([one.standing, others]))
        for row, one in enumerate(draft.kept)
    ]
    places = [found[len(draft.kept) + row] for row in range(len(draft.new))]
    patches = np.diff(draft.store.first_rows)
    records += new_records(
        draft.new,
        [int(patches[place]) for place in places],
        [measured.scores[place] for place in places],
        [measured.peaks[place] for place in places],
        draft.patients,
        after=draft.numbered,
        keep_names=draft.base.keeps_names,
    )
    return tuple(records)


def _calibration(
    draft: Draft, records: Sequence[ReferenceRecord], measured: LeftOutScores, others: Standing
) -> tuple[Calibration, Standing]:
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
    found = calibrate(
        [one.score for one in records],
        [one.peak for one in records],
        np.concatenate([measured.distances, draft.distances]),
        cameras=[one.camera for one in records],
    )
    return found, worst(one.standing for one in records)


def _quality(draft: Draft, measured: LeftOutScores, photos: int, stages: Stages) -> Quality:
    whole = len(draft.numbers) == photos
    return replace(
        draft.base.manifest.quality,
        covering_radius=measured.covering_radius if whole else max(measured.covering_radius, draft.covering),
        covering="measured" if whole else "bound",
        kept_radius=draft.radius,
        stages=tuple(stages.done),
        peak_memory_bytes=runtime.peak_memory_bytes(),
    )


def _files(draft: Draft, records: Sequence[ReferenceRecord]) -> dict[str, Path]:
    """What the version shares with others: name -> where it lies."""
    files = {**draft.base.shared_files(), **draft.pictures}
    if draft.keep_features:
        files |= feature_files(records, draft.store)
    return files
