"""One engine: a photograph's bytes or path -> its result (prepare, judge quality, detect, assemble).

The command line, the cluster's workers and the service all score here.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from resad_client.records import (
    Disc,
    Evidence,
    Finding,
    IndexReference,
    NormalsReference,
    PhotoQuality,
    PhotoReference,
    ReferenceMatch,
    Resemblance,
    Result,
    Timings,
)

from resad import index
from resad.calibration import Calibration, Criterion, DecisionRule, Source, criterion
from resad.config import Eye, PhotoLimits
from resad.detector import Detection
from resad.dicom.header import PhotoHeader
from resad.findings import Region, find_regions, place_in_words
from resad.index_warnings import index_warnings
from resad.loaded_index import PROBE_FILE, LoadedIndex
from resad.manifest import Manifest
from resad.near_duplicates import perceptual_hash
from resad.neighbors import list_with_mirror
from resad.optic_disc import find_optic_disc
from resad.preparation import THIS_PROCESS, PhotoDecoder, PreparedPhoto, prepare
from resad.quality import demand, judge

_MOST_PATCHES: Final = 64
"""Of a region, the strongest ones, whose nearest examples say what it resembles."""


@dataclass(frozen=True, slots=True)
class ScoreOptions:
    """How a photograph is judged and described.

    rule: the rate or threshold that decides, the rate of findings, and the camera to compare with.
    evidence: healthy patches listed per finding, at least 0.
    eye: which eye the photograph shows, if known; it makes the findings' places nasal or temporal.
    require_quality: refuse a photograph below the index's limits of quality.
    """

    rule: DecisionRule = DecisionRule()
    evidence: int = 0
    eye: Eye | None = None
    require_quality: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class CheckedPhoto:
    """A prepared photograph and its quality.

    started: when its preparation began, by `time.perf_counter`.  decode_ms: preparation and judging, milliseconds.
    """

    photo: PreparedPhoto
    quality: PhotoQuality
    started: float
    decode_ms: float


@dataclass(frozen=True, slots=True, eq=False)
class ScoredPhoto:
    """A prepared photograph, what was measured on it, and its result."""

    photo: PreparedPhoto
    detection: Detection
    result: Result


@dataclass(frozen=True, slots=True, eq=False)
class Engine:
    """Scores photographs with one loaded index.

    `prepare`, `judge` and `check` may run on any thread.  `detect`, `assemble` and `score` use torch and FAISS:
    only one thread at a time may call them.

    limits: what is refused before it is decoded.  decoder: decodes the photographs.
    """

    loaded: LoadedIndex
    limits: PhotoLimits = PhotoLimits()
    decoder: PhotoDecoder = THIS_PROCESS

    def prepare(self, source: bytes | Path) -> PreparedPhoto:
        """The prepared square of a file's bytes or path.  Raises as `resad.photo.read_photo`."""
        return prepare(source, self.loaded.manifest.config.preparation, self.limits, decoder=self.decoder)

    def judge(self, photo: PreparedPhoto, *, require: bool = False) -> PhotoQuality:
        """The photograph's quality by the index's limits; with `require`, raises `PhotoPoor` if unacceptable."""
        quality = judge(photo, self.loaded.manifest.photo_quality)
        if require:
            demand(quality)
        return quality

    def check(self, source: bytes | Path, options: ScoreOptions) -> CheckedPhoto:
        """`prepare` and `judge` together; raises as they do."""
        started = time.perf_counter()
        photo = self.prepare(source)
        quality = self.judge(photo, require=options.require_quality)
        return CheckedPhoto(photo, quality, started, 1e3 * (time.perf_counter() - started))

    def detect(self, photos: Sequence[PreparedPhoto]) -> list[Detection]:
        """One detection per photograph, the same alone and in a batch."""
        return self.loaded.detector.detect(photos)

    def assemble(
        self, checked: CheckedPhoto, detection: Detection, options: ScoreOptions, *, request_id: str | None = None
    ) -> Result:
        """The result of a detection; its total time ends now.  Searches the memory bank for the evidence."""
        total_ms = 1e3 * (time.perf_counter() - checked.started)
        return assemble(
            checked.photo, detection, self.loaded, options,
            timings=Timings(checked.decode_ms, total_ms), quality=checked.quality, request_id=request_id,
        )  # fmt: skip

    def score(self, source: bytes | Path, options: ScoreOptions = ScoreOptions()) -> ScoredPhoto:
        """All steps: prepare, judge, detect, assemble.

        Raises `PhotoError` for a photograph that cannot be used.
        """
        return self.score_checked(self.check(source, options), options)

    def score_checked(self, checked: CheckedPhoto, options: ScoreOptions = ScoreOptions()) -> ScoredPhoto:
        """The steps after `check`: detect and assemble."""
        detection = self.detect([checked.photo])[0]
        return ScoredPhoto(checked.photo, detection, self.assemble(checked, detection, options))


def warm_up(loaded: LoadedIndex, path: Path) -> None:
    """Score the probe photograph of an index in every step: the first answer then takes little longer than others.

    path: ROOT/NAME or one of its versions.
    """
    Engine(loaded).score(index.resolve(path) / PROBE_FILE)


def assemble(
    photo: PreparedPhoto,
    detection: Detection,
    loaded: LoadedIndex,
    options: ScoreOptions,
    *,
    timings: Timings,
    quality: PhotoQuality | None = None,
    request_id: str | None = None,
) -> Result:
    """The result of a detection, by the index's calibration.

    Args:
        quality: of the photograph, if it was judged before.
    """
    options = _with_header(options, photo.header, loaded.manifest.calibration)
    chosen = criterion(loaded.manifest.calibration, options.rule)
    limit, normals, score = chosen.limit.value, chosen.normals, detection.image_score
    regions = (
        ()
        if chosen.level is None
        else find_regions(detection.anomaly_map, detection.scored, photo.frame, chosen.level)
    )
    return Result(
        request_id=request_id,
        image_score=score,
        p_value=normals.p_value(score) if limit is not None else None,
        fpr=chosen.limit.fpr,
        threshold=limit,
        abnormal=score > limit if limit is not None else None,
        reason=chosen.limit.reason,
        normals=_normals_reference(chosen, loaded.manifest.calibration.source),
        index=index_reference(loaded.manifest, chosen.camera),
        photo=_photo_reference(photo),
        quality=quality or judge(photo, loaded.manifest.photo_quality),
        findings=_findings(regions, photo, detection, loaded, chosen, options),
        map=None,
        timings_ms=timings,
        same_as=_same_as(photo, loaded),
    )


def _same_as(photo: PreparedPhoto, loaded: LoadedIndex) -> ReferenceMatch | None:
    """The photograph of the index that shows the same, if there is one."""
    match = loaded.near_duplicates.match(photo.content_hash, perceptual_hash(photo.pixels))
    if match is None:
        return None
    number, bits, mirrored = match
    return ReferenceMatch(loaded.photos[number].id, bits, mirrored)


def _with_header(options: ScoreOptions, header: PhotoHeader | None, calibration: Calibration) -> ScoreOptions:
    """The options with the eye and camera of a DICOM header where the caller names none.

    Only a camera whose normals suffice: what a header says by itself is no reason for a remark.
    """
    if header is None:
        return options
    rule = options.rule
    if rule.camera is None and header.camera is not None:
        of_camera = replace(rule, camera=header.camera)
        if criterion(calibration, of_camera).camera is not None:
            rule = of_camera
    return replace(options, rule=rule, eye=options.eye or header.eye)


def index_reference(manifest: Manifest, camera: str | None = None) -> IndexReference:
    """The reference to an index in results, with what makes its verdicts doubtful.

    Args:
        camera: the camera whose normals the photograph is compared with; else all.
    """
    return IndexReference(
        name=manifest.name,
        version=manifest.version,
        fingerprint=manifest.fingerprint,
        backbone=manifest.config.backbone.name,
        weights=manifest.weights_sha256,
        warnings=index_warnings(manifest, camera),
    )


def _normals_reference(chosen: Criterion, source: Source) -> NormalsReference:
    return NormalsReference(
        camera=chosen.camera,
        photos=len(chosen.normals.scores),
        rate=chosen.limit.interval,
        finding_level=chosen.level,
        false_regions=chosen.false_regions,
        source=source,
        reason=chosen.reason,
    )


def _photo_reference(photo: PreparedPhoto) -> PhotoReference:
    disc = photo.field_of_view
    return PhotoReference(
        width=photo.frame.width,
        height=photo.frame.height,
        field_of_view=Disc(disc.cx, disc.cy, disc.radius, disc.stretch) if disc.found else None,
        square=photo.frame.extent,
        optic_disc=find_optic_disc(photo),
    )


def _findings(
    regions: tuple[Region, ...],
    photo: PreparedPhoto,
    detection: Detection,
    loaded: LoadedIndex,
    chosen: Criterion,
    options: ScoreOptions,
) -> tuple[Finding, ...]:
    """Findings: regions with p-values, places, and the healthy patches nearest to their peaks."""
    under = _patches_under(regions, detection)
    evidence = _evidence(under, detection, loaded, options.evidence)
    spacing = photo.header.spacing_mm if photo.header else None
    return tuple(
        Finding(
            rank=rank,
            peak=region.peak,
            p_value=chosen.normals.peak_p_value(region.peak),
            x=region.x,
            y=region.y,
            box=region.box,
            area_px=region.area_px,
            area_share=region.area_share,
            place=place_in_words(region.x + 0.5, region.y + 0.5, photo.field_of_view, options.eye),
            contour=region.contour,
            evidence=healthy,
            doubts=region.doubts,
            area_mm2=region.area_px * spacing[0] * spacing[1] if spacing else None,
            resembles=_resemblance(region, int(peak), detection, loaded, chosen, options.evidence),
        )
        for rank, (region, healthy, peak) in enumerate(zip(regions, evidence, under, strict=True), start=1)
    )


def _patches_under(regions: tuple[Region, ...], detection: Detection) -> NDArray[np.intp]:
    """(R,): the patch under each region's peak."""
    patches, side = detection.patches, detection.anomaly_map.shape[0]
    peaks = np.array([region.cell for region in regions], np.intp).reshape(-1, 2) * patches.grid // side
    distance = np.abs(patches.cells[None].astype(int) - peaks[:, None]).sum(axis=2)  # (R, N)
    under: NDArray[np.intp] = distance.argmin(axis=1)
    return under


def _resemblance(
    region: Region, peak: int, detection: Detection, loaded: LoadedIndex, chosen: Criterion, count: int
) -> Resemblance | None:
    """What the region resembles, by its patches above the level of findings within its part of the map."""
    if loaded.examples.lesions is None or chosen.level is None:
        return None
    patches, side = detection.patches, detection.anomaly_map.shape[0]
    rows, columns = region.place
    y, x = (patches.cells.astype(int).T * side + side // 2) // np.array(patches.grid)[:, None]
    inside = (y >= rows.start) & (y < rows.stop) & (x >= columns.start) & (x < columns.stop)
    inside &= detection.patch_distances > chosen.level
    inside[peak] = False
    strongest = np.flatnonzero(inside)
    strongest = strongest[np.argsort(-detection.patch_distances[strongest], kind="stable")][: _MOST_PATCHES - 1]
    features = patches.features[np.concatenate([[peak], strongest])]
    return loaded.examples.resembles(features, float(detection.patch_distances[peak]), count)


def _evidence(
    under: NDArray[np.intp], detection: Detection, loaded: LoadedIndex, count: int
) -> list[tuple[Evidence, ...]]:
    """For each region the memories nearest to the patch under its peak, nearest first.

    Of the patch or of its mirror image, whichever the map's distance comes from.
    """
    bank, patches = loaded.detector.bank, detection.patches
    count = min(count, len(bank))
    if not len(under) or not count:
        return [() for _ in under]
    mirror_image = None if patches.mirrored is None else patches.mirrored[under]
    k = loaded.manifest.config.search.neighbors
    nearest, in_mirror = list_with_mirror(bank.search, patches.features[under], mirror_image, k, count)
    origin = bank.provenance

    def healthy(row: int, distance: float, mirrored: bool) -> Evidence:
        y, x = origin.cell[row].tolist()
        return Evidence(loaded.photos[origin.photo[row]].id, distance, y, x, mirrored)

    per_region = zip(nearest.rows.tolist(), nearest.distances.tolist(), in_mirror.tolist(), strict=True)
    return [
        tuple(healthy(row, distance, mirrored) for row, distance in zip(rows, distances, strict=True))
        for rows, distances, mirrored in per_region
    ]
