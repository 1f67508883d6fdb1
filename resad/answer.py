"""A detection, read against an index's calibration -> what a caller gets (`resad.result`)."""

import numpy as np

from resad.detector import Detection
from resad.findings import Region, find_regions
from resad.loaded_index import LoadedIndex
from resad.manifest import Manifest
from resad.neighbors import listed_of_both
from resad.place import Eye, place_in_words
from resad.preparation import PreparedPhoto
from resad.quality import PhotoQuality, judge
from resad.result import (
    Disc,
    Evidence,
    Finding,
    IndexReference,
    NormalsReference,
    PhotoReference,
    Result,
    Timings,
)
from resad.verdict import Rule, Standard, standard


def assemble(
    photo: PreparedPhoto,
    detection: Detection,
    loaded: LoadedIndex,
    *,
    rule: Rule,
    evidence: int,
    timings: Timings,
    quality: PhotoQuality | None = None,
    eye: Eye | None = None,
    request_id: str | None = None,
    map_url: str | None = None,
) -> Result:
    """A detection read against the index's calibration as `rule` asks.

    Args:
        evidence: neighbors listed per finding, at least 0.
        quality: where the photo was judged before.
        eye: which one, where it is known, for the findings' places.
    """
    by = standard(loaded.manifest.calibration, rule)
    limit = by.limit.value
    frame, dense = photo.frame, detection.anomaly_map
    regions = () if by.level is None else find_regions(dense, detection.scored, frame, by.level)
    return Result(
        request_id=request_id,
        image_score=detection.image_score,
        p_value=by.normals.p_value(detection.image_score) if limit is not None else None,
        fpr=by.limit.fpr,
        threshold=limit,
        abnormal=detection.image_score > limit if limit is not None else None,
        reason=by.limit.reason,
        normals=_normals_reference(by),
        index=index_reference(loaded.manifest),
        photo=_photo_reference(photo),
        quality=quality or judge(photo, loaded.manifest.photo_quality),
        findings=_findings(regions, photo, detection, loaded, by, evidence=evidence, eye=eye),
        map=map_url,
        timings_ms=timings,
    )


def index_reference(manifest: Manifest) -> IndexReference:
    """What answers say of the index they come from."""
    return IndexReference(
        name=manifest.name,
        version=manifest.version,
        fingerprint=manifest.fingerprint,
        backbone=manifest.config.backbone.name,
        weights=manifest.weights_sha256,
    )


def _normals_reference(by: Standard) -> NormalsReference:
    return NormalsReference(by.camera, len(by.normals.scores), by.limit.interval, by.level, by.reason)


def _photo_reference(photo: PreparedPhoto) -> PhotoReference:
    disc = photo.field_of_view
    return PhotoReference(
        width=photo.frame.width,
        height=photo.frame.height,
        field_of_view=Disc(disc.cx, disc.cy, disc.radius) if disc.found else None,
    )


def _findings(
    regions: tuple[Region, ...],
    photo: PreparedPhoto,
    detection: Detection,
    loaded: LoadedIndex,
    by: Standard,
    *,
    evidence: int,
    eye: Eye | None,
) -> tuple[Finding, ...]:
    """Regions with their p-values, places, and the healthy patches nearest to their peaks."""
    near = _evidence(regions, detection, loaded, evidence)
    return tuple(
        Finding(
            rank=rank,
            peak=region.peak,
            p_value=by.normals.peak_p_value(region.peak),
            x=region.x,
            y=region.y,
            box=region.box,
            area_px=region.area_px,
            area_share=region.area_share,
            place=place_in_words(region.x + 0.5, region.y + 0.5, photo.field_of_view, eye),
            contour=region.contour,
            evidence=healthy,
        )
        for rank, (region, healthy) in enumerate(zip(regions, near, strict=True), start=1)
    )


def _evidence(
    regions: tuple[Region, ...], detection: Detection, loaded: LoadedIndex, count: int
) -> list[tuple[Evidence, ...]]:
    """Per region the memories nearest to the patch under its peak, nearest first.

    They are those of the look that the map has the distance of: the photo's, or its mirror image's.
    """
    bank, patches = loaded.detector.bank, detection.patches
    count = min(count, len(bank))
    if not regions or not count:
        return [() for _ in regions]
    side = detection.anomaly_map.shape[0]
    peaks = np.array([region.cell for region in regions]) * patches.grid // side  # (R, 2) cells
    distance = np.abs(patches.cells[None].astype(int) - peaks[:, None]).sum(axis=2)  # (R, N)
    under = distance.argmin(axis=1)
    mirror_image = None if patches.mirrored is None else patches.mirrored[under]
    k = loaded.manifest.config.search.neighbors
    found, in_mirror = listed_of_both(bank.search, patches.features[under], mirror_image, k, count)
    origin = bank.provenance

    def healthy(row: int, far: float, mirrored: bool) -> Evidence:
        y, x = origin.cell[row].tolist()
        return Evidence(loaded.photos[origin.photo[row]].id, far, y, x, mirrored)

    each = zip(found.rows.tolist(), found.distances.tolist(), in_mirror.tolist(), strict=True)
    return [
        tuple(healthy(row, far, turned) for row, far in zip(rows, distances, strict=True))
        for rows, distances, turned in each
    ]
