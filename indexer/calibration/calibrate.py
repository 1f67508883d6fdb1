"""`resad-indexer calibrate`: an index's meaning made anew from other normal photographs, its memory bank kept.

None of them may be in the bank: they are scored just as new photographs are, so that their p-values hold exactly
(see `resad.calibration`), and for the camera and the patients they come from.
"""

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter
from pydantic.dataclasses import dataclass as checked_dataclass

from indexer.build.progress import Advance, Stages
from indexer.build.publication import history_entry, link_files
from indexer.build.references import LoadedPhoto, load_photos
from indexer.photos.listing import Duplicate, Skipped, list_references
from indexer.photos.near_duplicates import match_near_duplicates, perceptual_hash
from resad import index
from resad.calibration import RATES, Calibration, calibrate, normals_needed
from resad.config import PhotoLimits
from resad.errors import IndexInvalid, SettingError
from resad.index import publish, staging_folder
from resad.loaded_index import LoadedIndex
from resad.manifest import CALIBRATION_FILE, Manifest, ReferenceRecord
from resad.quality import QualityMeasures, measure_quality, quality_limits


@checked_dataclass(frozen=True)
class CalibrationRecord:
    """One photograph of the calibration: a line of `calibration.jsonl`; fields as in `ReferenceRecord`."""

    id: str
    content_sha256: str
    perceptual_hash: str
    score: float
    peak: float
    quality: QualityMeasures
    patient: str | None
    camera: str | None


_RECORD: Final = TypeAdapter(CalibrationRecord)


def calibration_records(version: Path) -> tuple[CalibrationRecord, ...]:
    """The photographs that a version was calibrated on anew; none where its own references are."""
    file = version / CALIBRATION_FILE
    return tuple(map(_RECORD.validate_json, file.read_bytes().splitlines())) if file.is_file() else ()


def write_calibration_records(records: Sequence[CalibrationRecord], path: Path) -> None:
    """A line for each."""
    path.write_bytes(b"".join(_RECORD.dump_json(record) + b"\n" for record in records))


_FEWEST: Final = normals_needed(max(RATES))


@dataclass(frozen=True, slots=True)
class CalibrationReport:
    """What came of it.  before, after: the manifests of the two versions."""

    version: Path
    before: Manifest
    after: Manifest
    skipped: tuple[Skipped, ...]
    duplicates: tuple[Duplicate, ...]


@dataclass(frozen=True, slots=True)
class _Scored:
    """records: of the photographs.  distances: of all their patches."""

    records: tuple[CalibrationRecord, ...]
    distances: NDArray[np.float32]


def recalibrate(
    place: Path,
    loaded: LoadedIndex,
    photos: Path,
    limits: PhotoLimits,
    stages: Stages,
    *,
    live: bool,
    strict: bool,
) -> CalibrationReport:
    """Write a version with the bank of `loaded` and the calibration of `photos` (a folder or a CSV).

    A CSV gives what `build` would take of it: of a column split the rows of `train`, and none labeled abnormal.
    A copy of a photograph of the bank, re-encoded, resized or mirrored, is left aside; the same file is an error,
    as it says that the photographs are the wrong ones.

    Args:
        place: ROOT/NAME/VERSION of `loaded`.
        live: make the new version the live one.
        strict: refuse instead of skipping photographs that cannot be used.
    Raises:
        SettingError: a photograph is in the bank, one is labeled abnormal, or there are too few for any rate that
            is stated.
        PhotoError: with `strict`, for the first photograph that cannot be used.
    """
    root, name = place.parent.parent, place.parent.name
    if index.versions(place.parent).count(place.name) == 0:
        raise IndexInvalid(f"{place} lies in no index: a new version needs ROOT/NAME beside it")
    listed = list_references(photos)
    _check_enough(len(listed), photos)
    left_aside: list[Skipped | Duplicate] = []
    with staging_folder(root, name) as scratch:
        with stages.stage("score", len(listed), "photos") as advance:
            preparation = loaded.manifest.config.preparation
            with closing(load_photos(listed, preparation, limits, strict=strict)) as outcomes:
                new = _new(_taken(outcomes, left_aside, advance), loaded.photos, left_aside, strict=strict)
                scored = _score(loaded, new)
        _check_enough(len(scored.records), photos, len(left_aside))
        with stages.stage("publish", 1, "version") as advance:
            staging = scratch / "version"
            kept = {one.name: one for one in loaded.manifest.files if one.name != CALIBRATION_FILE}
            link_files({name: place / name for name in kept}, staging)
            write_calibration_records(scored.records, staging / CALIBRATION_FILE)
            after = _manifest(loaded.manifest, scored)
            version, after = publish(
                staging, place.parent, lambda files: replace(after, files=files), live=live, known=kept
            )
            advance(1)
    return CalibrationReport(
        version,
        loaded.manifest,
        after,
        tuple(one for one in left_aside if isinstance(one, Skipped)),
        tuple(one for one in left_aside if isinstance(one, Duplicate)),
    )


def _taken(
    outcomes: Iterator[LoadedPhoto | Skipped | Duplicate], left_aside: list[Skipped | Duplicate], advance: Advance
) -> Iterator[LoadedPhoto]:
    for outcome in outcomes:
        if isinstance(outcome, LoadedPhoto):
            yield outcome
        else:
            left_aside.append(outcome)
        advance(1)


@dataclass(frozen=True, slots=True)
class _Hashes:
    content_sha256: str
    perceptual_hash: str


def _new(
    taken: Iterator[LoadedPhoto],
    references: Sequence[ReferenceRecord],
    left_aside: list[Skipped | Duplicate],
    *,
    strict: bool,
) -> Iterator[tuple[LoadedPhoto, _Hashes]]:
    """Those that show none of `references`; a copy that is not the same file is left aside."""
    for one in taken:
        hashes = _Hashes(one.photo.content_hash, perceptual_hash(one.photo.pixels))
        same = next(match_near_duplicates([hashes], references), None)
        if same is None:
            yield one, hashes
            continue
        path, known = one.source.path, references[same.second].id
        if same.bits is None:
            raise SettingError(
                f"{path} is in the index (as {known}): a calibration takes normal photographs that are not"
            )
        what = (
            f"is a mirror image of {known} of the index"
            if same.mirrored
            else f"shows what {known} of the index shows"
        )
        reason = f"it {what} ({same.bits} of 255 bits differ)"
        if strict:
            raise SettingError(f"{path}: {reason}")
        left_aside.append(Skipped(path, reason))


def _score(loaded: LoadedIndex, new: Iterator[tuple[LoadedPhoto, _Hashes]]) -> _Scored:
    """Each photograph against the whole bank."""
    records, distances = [], []
    patients: dict[str, str] = {}
    for number, (one, hashes) in enumerate(new, start=1):
        source, photo = one.source, one.photo
        detection = loaded.detector.detect([photo])[0]
        patient = source.patient and patients.setdefault(source.patient, f"p-{len(patients) + 1:05d}")
        record = CalibrationRecord(
            id=f"c-{number:05d}",
            content_sha256=hashes.content_sha256,
            perceptual_hash=hashes.perceptual_hash,
            score=detection.image_score,
            peak=detection.peak,
            quality=measure_quality(photo),
            patient=patient,
            camera=source.camera,
        )
        records.append(record)
        distances.append(detection.patch_distances)
    return _Scored(tuple(records), np.concatenate([*distances, np.empty(0, np.float32)]))


def _check_enough(count: int, photos: Path, left_aside: int = 0) -> None:
    if count < _FEWEST:
        raise SettingError(
            f"{photos} holds no more than {count} usable photographs ({left_aside} left aside); a "
            f"calibration needs at least {_FEWEST}, for a rate of {max(RATES):g}"
        )


def _manifest(before: Manifest, scored: _Scored) -> Manifest:
    """The new version's manifest, less its files."""
    return replace(
        before,
        version=index.new_version(),
        history=(*before.history, history_entry("calibrate", before.version)),
        calibration=_calibration(scored),
        calibrated="measured",
        photo_quality=quality_limits([record.quality for record in scored.records]),
    )


def _calibration(scored: _Scored) -> Calibration:
    records = scored.records
    return calibrate(
        [record.score for record in records],
        [record.peak for record in records],
        scored.distances,
        cameras=[record.camera for record in records],
        source="separate",
    )
