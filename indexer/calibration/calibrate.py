"""`resad-indexer calibrate`: calibrates an index on other normal photographs; its memory bank stays.

None of them may be in the bank: they are scored as new photographs are, so that p-values hold exactly (see
`resad.calibration`), for the camera and the patients that they come from.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter
from pydantic.dataclasses import dataclass as checked_dataclass
from resad_client.records import QualityMeasures
from resad_client.text import counted

from indexer.build.progress import Advance, Stages
from indexer.build.publication import history_entry, link_files
from indexer.build.references import LoadedPhoto, load_photos
from indexer.calibration.normals import Normal, calibrate_normals, far_outliers, normals_to_use
from indexer.photos.listing import Duplicate, Skipped, list_references
from resad import index
from resad.calibration import RATES, normals_needed
from resad.config import PhotoLimits
from resad.errors import IndexInvalid, SettingError
from resad.false_regions import RegionHeights, region_heights
from resad.index import publish, staging_folder
from resad.loaded_index import LoadedIndex
from resad.manifest import CALIBRATION_FILE, Manifest, ReferenceRecord
from resad.near_duplicates import match_near_duplicates, perceptual_hash
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


def as_normals(
    records: Sequence[CalibrationRecord], distances: Sequence[NDArray[np.float32] | None] = ()
) -> list[Normal]:
    """The photographs as normals.  distances: of each one's patches, if they are at hand."""
    return [
        Normal(record.id, record.score, record.peak, patches, record.regions, record.camera)
        for record, patches in zip(records, distances or [None] * len(records), strict=True)
    ]


def write_calibration_records(records: Sequence[CalibrationRecord], path: Path) -> None:
    """Write `calibration.jsonl`, a line for each photograph."""
    path.write_bytes(b"".join(_RECORD.dump_json(record) + b"\n" for record in records))


_MIN_PHOTOS: Final = normals_needed(max(RATES))
"""Photographs of a calibration, at least."""


@dataclass(frozen=True, slots=True)
class CalibrationReport:
    """The new version, or one that is about to be written, and the photographs that were not used.

    version: its folder, once it is written.  before, after: manifests of the two versions.
    named: id -> file, of outliers and of photographs that were set aside.
    """

    version: Path
    before: Manifest
    after: Manifest
    skipped: tuple[Skipped, ...]
    duplicates: tuple[Duplicate, ...]
    named: Mapping[str, Path]


@dataclass(frozen=True, slots=True, eq=False)
class _Scored:
    """A photograph of the calibration.  distances: of its patches."""

    path: Path
    record: CalibrationRecord
    distances: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class SetAside:
    """Photographs to leave out of a calibration.

    hashes: their content hashes.  outliers: those whose scores lie far above the rest, too.
    """

    hashes: frozenset[str] = frozenset()
    outliers: bool = False


def _accept(report: CalibrationReport) -> None:
    return None


def recalibrate(
    place: Path,
    loaded: LoadedIndex,
    photos: Path,
    limits: PhotoLimits,
    stages: Stages,
    *,
    live: bool,
    strict: bool,
    set_aside: SetAside = SetAside(),
    check: Callable[[CalibrationReport], None] = _accept,
) -> CalibrationReport:
    """Write a version with the bank of `loaded` and the calibration of `photos` (a folder or a CSV).

    Of a CSV the same rows are used as by `build`: those of the split `train`, and none labeled abnormal.
    A copy of a photograph of the bank, re-encoded, resized or mirrored, is skipped; the same file is an error,
    since the photographs are then probably the wrong ones.

    Args:
        place: ROOT/NAME/VERSION of `loaded`.
        live: make the new version the live one.
        strict: refuse instead of skipping photographs that cannot be used.
        set_aside: photographs that do not calibrate; their ids are stated.
        check: called before the version is written; what it raises leaves the index unchanged.
    Raises:
        SettingError: a photograph is in the bank or labeled abnormal, one to set aside is not there, or there are
            too few for any stated rate.
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
                scored = _score(loaded, _without_copies(usable, loaded.photos, unused, strict=strict))
        draft, used = _draft(place, loaded, photos, scored, set_aside, unused)
        check(draft)
        with stages.stage("publish", 1, "version") as advance:
            staging = scratch / "version"
            shared = {file.name: file for file in loaded.manifest.files if file.name != CALIBRATION_FILE}
            link_files({name: place / name for name in shared}, staging)
            write_calibration_records([photo.record for photo in used], staging / CALIBRATION_FILE)
            version, after = publish(
                staging,
                place.parent,
                lambda files: replace(draft.after, files=files),
                live=live,
                shared_files=shared,
            )
            advance(1)
    return replace(draft, version=version, after=after)


def _draft(
    place: Path,
    loaded: LoadedIndex,
    photos: Path,
    scored: Sequence[_Scored],
    set_aside: SetAside,
    unused: Sequence[Skipped | Duplicate],
) -> tuple[CalibrationReport, list[_Scored]]:
    """The version to write, with the photographs that calibrate it."""
    if missing := set_aside.hashes - {photo.record.content_sha256 for photo in scored}:
        raise SettingError(
            f"{len(missing)} of {counted(len(set_aside.hashes), 'photograph')} to set aside not among those of "
            f"{photos} (SHA-256 {min(missing)[:12]}...)"
        )
    aside = {photo.record.id for photo in scored if photo.record.content_sha256 in set_aside.hashes}
    used = _without(scored, aside, photos, unused)
    after = _manifest(loaded, used, aside)
    if set_aside.outliers and (outliers := far_outliers(after.calibration)):
        aside |= outliers
        used = _without(scored, aside, photos, unused)
        after = _manifest(loaded, used, aside)
    remaining = after.calibration.outliers
    names = aside | {photo.id for photo in (remaining.photos if remaining else ())}
    draft = CalibrationReport(
        place.parent / after.version,
        loaded.manifest,
        after,
        tuple(photo for photo in unused if isinstance(photo, Skipped)),
        tuple(photo for photo in unused if isinstance(photo, Duplicate)),
        {photo.record.id: photo.path for photo in scored if photo.record.id in names},
    )
    return draft, used


def _without(
    scored: Sequence[_Scored], aside: set[str], photos: Path, unused: Sequence[Skipped | Duplicate]
) -> list[_Scored]:
    used = [photo for photo in scored if photo.record.id not in aside]
    _check_enough(len(used), photos, len(unused) + len(aside))
    return used


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


def _score(loaded: LoadedIndex, photos: Iterator[tuple[LoadedPhoto, _Hashes]]) -> list[_Scored]:
    """Score each photograph against the whole bank."""
    scored = []
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
        scored.append(_Scored(source.path, record, detection.patch_distances))
    return scored


def _check_enough(count: int, photos: Path, unused: int = 0) -> None:
    if count < _MIN_PHOTOS:
        raise SettingError(
            f"{photos} holds no more than {counted(count, 'usable photograph')} ({unused} not used); a "
            f"calibration needs at least {_MIN_PHOTOS}, for a rate of {max(RATES):g}"
        )


def _manifest(loaded: LoadedIndex, scored: Sequence[_Scored], aside: set[str]) -> Manifest:
    """The new version's manifest, without its files.

    aside: ids of photographs that do not calibrate on request; reference photos that were set aside stay stated.
    """
    before = loaded.manifest
    records = [photo.record for photo in scored]
    references = [name for name in before.calibration.set_aside if name.startswith("r-")]
    calibration = calibrate_normals(
        as_normals(records, [photo.distances for photo in scored]),
        normals_to_use(records, loaded.detector.encoder),
        source="separate",
        set_aside=[*references, *sorted(aside)],
    )
    return replace(
        before,
        version=index.new_version(),
        history=(*before.history, history_entry("calibrate", before.version)),
        calibration=calibration,
        calibrated="measured",
        photo_quality=quality_limits([record.quality for record in records]),
    )
