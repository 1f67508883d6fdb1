"""`resad-indexer calibrate`: calibrates an index on other normal photographs; its memory bank stays.

None of them may be in the bank: they are scored as new photographs are, so that p-values hold exactly (see
`resad.calibration`), for the camera and the patients that they come from.
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
from resad_client.records import QualityMeasures

from indexer.build.progress import Advance, Stages
from indexer.build.publication import history_entry, link_files
from indexer.build.references import LoadedPhoto, load_photos
from indexer.photos.listing import Duplicate, Skipped, list_references
from indexer.photos.near_duplicates import match_near_duplicates, perceptual_hash
from resad import index
from resad.calibration import RATES, Calibration, calibrate, normals_needed
from resad.config import PhotoLimits
from resad.errors import IndexInvalid, SettingError
from resad.false_regions import RegionHeights, region_heights
from resad.index import publish, staging_folder
from resad.loaded_index import LoadedIndex
from resad.manifest import CALIBRATION_FILE, Manifest, ReferenceRecord
from resad.quality import measure_quality, quality_limits


@checked_dataclass(frozen=True)
class CalibrationRecord:
    """A photograph of a separate calibration: a line of `calibration.jsonl`; fields as in `ReferenceRecord`.

    regions: of its map; None in records of older indexes.
    """

    id: str
    content_sha256: str
    perceptual_hash: str
    score: float
    peak: float
    quality: QualityMeasures
    patient: str | None
    camera: str | None
    regions: RegionHeights | None = None


_RECORD: Final = TypeAdapter(CalibrationRecord)


def calibration_records(version: Path) -> tuple[CalibrationRecord, ...]:
    """The photographs of a version's separate calibration; none if its reference photos calibrate it."""
    file = version / CALIBRATION_FILE
    return tuple(map(_RECORD.validate_json, file.read_bytes().splitlines())) if file.is_file() else ()


def stored_regions(records: Sequence[CalibrationRecord]) -> list[RegionHeights]:
    """The regions of all photographs; none unless every record states them."""
    regions = [record.regions for record in records if record.regions is not None]
    return regions if len(regions) == len(records) else []


def write_calibration_records(records: Sequence[CalibrationRecord], path: Path) -> None:
    """Write `calibration.jsonl`, a line for each photograph."""
    path.write_bytes(b"".join(_RECORD.dump_json(record) + b"\n" for record in records))


_MIN_PHOTOS: Final = normals_needed(max(RATES))
"""Photographs of a calibration, at least."""


@dataclass(frozen=True, slots=True)
class CalibrationReport:
    """The new version, and the photographs that were not used.  before, after: manifests of the two versions."""

    version: Path
    before: Manifest
    after: Manifest
    skipped: tuple[Skipped, ...]
    duplicates: tuple[Duplicate, ...]


@dataclass(frozen=True, slots=True)
class _Scores:
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

    Of a CSV the same rows are used as by `build`: those of the split `train`, and none labeled abnormal.
    A copy of a photograph of the bank, re-encoded, resized or mirrored, is skipped; the same file is an error,
    since the photographs are then probably the wrong ones.

    Args:
        place: ROOT/NAME/VERSION of `loaded`.
        live: make the new version the live one.
        strict: refuse instead of skipping photographs that cannot be used.
    Raises:
        SettingError: a photograph is in the bank or labeled abnormal, or there are too few for any stated rate.
        PhotoError: with `strict`, for the first photograph that cannot be used.
    """
    root, name = place.parent.parent, place.parent.name
    if index.versions(place.parent).count(place.name) == 0:
        raise IndexInvalid(f"{place} is not below ROOT/NAME, where a new version would go")
    listed = list_references(photos)
    _check_enough(len(listed), photos)
    unused: list[Skipped | Duplicate] = []
    with staging_folder(root, name) as scratch:
        with stages.stage("score", len(listed), "photos") as advance:
            preparation = loaded.manifest.config.preparation
            with closing(load_photos(listed, preparation, limits, strict=strict)) as outcomes:
                usable = _usable(outcomes, unused, advance)
                scores = _score(loaded, _without_copies(usable, loaded.photos, unused, strict=strict))
        _check_enough(len(scores.records), photos, len(unused))
        with stages.stage("publish", 1, "version") as advance:
            staging = scratch / "version"
            shared = {file.name: file for file in loaded.manifest.files if file.name != CALIBRATION_FILE}
            link_files({name: place / name for name in shared}, staging)
            write_calibration_records(scores.records, staging / CALIBRATION_FILE)
            after = _manifest(loaded.manifest, scores)
            version, after = publish(
                staging, place.parent, lambda files: replace(after, files=files), live=live, known=shared
            )
            advance(1)
    return CalibrationReport(
        version,
        loaded.manifest,
        after,
        tuple(photo for photo in unused if isinstance(photo, Skipped)),
        tuple(photo for photo in unused if isinstance(photo, Duplicate)),
    )


def _usable(
    outcomes: Iterator[LoadedPhoto | Skipped | Duplicate], unused: list[Skipped | Duplicate], advance: Advance
) -> Iterator[LoadedPhoto]:
    for outcome in outcomes:
        if isinstance(outcome, LoadedPhoto):
            yield outcome
        else:
            unused.append(outcome)
        advance(1)


@dataclass(frozen=True, slots=True)
class _Hashes:
    content_sha256: str
    perceptual_hash: str


def _without_copies(
    photos: Iterator[LoadedPhoto],
    references: Sequence[ReferenceRecord],
    unused: list[Skipped | Duplicate],
    *,
    strict: bool,
) -> Iterator[tuple[LoadedPhoto, _Hashes]]:
    """Photographs that show none of `references`; a copy that is not the same file is skipped."""
    for loaded in photos:
        hashes = _Hashes(loaded.photo.content_hash, perceptual_hash(loaded.photo.pixels))
        match = next(match_near_duplicates([hashes], references), None)
        if match is None:
            yield loaded, hashes
            continue
        path, match_id = loaded.source.path, references[match.second].id
        if match.bits is None:
            raise SettingError(
                f"{path} is in the index (as {match_id}): a calibration needs normal photographs that are not"
            )
        relation = (
            f"is a mirror image of {match_id} of the index"
            if match.mirrored
            else f"shows what {match_id} of the index shows"
        )
        reason = f"it {relation} ({match.bits} of 255 bits differ)"
        if strict:
            raise SettingError(f"{path}: {reason}")
        unused.append(Skipped(path, reason))


def _score(loaded: LoadedIndex, photos: Iterator[tuple[LoadedPhoto, _Hashes]]) -> _Scores:
    """Score each photograph against the whole bank."""
    records, distances = [], []
    patients: dict[str, str] = {}
    for number, (normal, hashes) in enumerate(photos, start=1):
        source, photo = normal.source, normal.photo
        detection = loaded.detector.detect([photo])[0]
        patient = source.patient and patients.setdefault(source.patient, f"p-{len(patients) + 1:05d}")
        record = CalibrationRecord(
            id=f"c-{number:05d}",
            content_sha256=hashes.content_sha256,
            perceptual_hash=hashes.perceptual_hash,
            score=detection.image_score,
            peak=detection.peak,
            regions=region_heights(detection.patch_distances, detection.patches.cells, detection.patches.grid),
            quality=measure_quality(photo),
            patient=patient,
            camera=source.camera,
        )
        records.append(record)
        distances.append(detection.patch_distances)
    return _Scores(tuple(records), np.concatenate([*distances, np.empty(0, np.float32)]))


def _check_enough(count: int, photos: Path, unused: int = 0) -> None:
    if count < _MIN_PHOTOS:
        raise SettingError(
            f"{photos} holds no more than {count} usable photographs ({unused} not used); a "
            f"calibration needs at least {_MIN_PHOTOS}, for a rate of {max(RATES):g}"
        )


def _manifest(before: Manifest, scores: _Scores) -> Manifest:
    """The new version's manifest, without its files."""
    return replace(
        before,
        version=index.new_version(),
        history=(*before.history, history_entry("calibrate", before.version)),
        calibration=_calibration(scores),
        calibrated="measured",
        photo_quality=quality_limits([record.quality for record in scores.records]),
    )


def _calibration(scores: _Scores) -> Calibration:
    records = scores.records
    return calibrate(
        [record.score for record in records],
        [record.peak for record in records],
        scores.distances,
        regions=stored_regions(records),
        cameras=[record.camera for record in records],
        source="separate",
    )
