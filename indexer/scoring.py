"""`resad-indexer score`: photographs -> one JSON, one 16-bit map and one overlay each."""

import secrets
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from indexer.photos import list_photos
from resad.config import PhotoLimits
from resad.detector import Detection
from resad.errors import PhotoError, SettingError, naming
from resad.loaded_index import LoadedIndex
from resad.manifest import Manifest
from resad.map_files import map_png16
from resad.photo import read_photo
from resad.preparation import PreparedPhoto, prepare
from resad.quality import demand, judge
from resad.rendering import overlay_picture, picture_png
from resad.result import Result, Timings, assemble, result_json
from resad.verdict import Rule

_JSON: Final = ".json"
_MAP: Final = "_map.png"
_OVERLAY: Final = "_overlay.png"


@dataclass(frozen=True, slots=True)
class Scored:
    """A photograph that was scored; `stem` begins the names of its files."""

    path: Path
    stem: str
    result: Result


@dataclass(frozen=True, slots=True)
class Failed:
    """A photograph that was not."""

    path: Path
    reason: str


def score_photos(
    loaded: LoadedIndex,
    sources: Sequence[Path],
    out: Path,
    limits: PhotoLimits,
    *,
    rule: Rule,
    evidence: int,
    require_quality: bool = False,
) -> Iterator[Scored | Failed]:
    """Score each photograph (folders and CSVs are listed) and write its files into `out`.

    Files are named after the photographs; where two have one name, later ones get a number.  With
    `require_quality`, a photograph below the index's limits of quality fails.

    Raises:
        SettingError: nothing to score, or a file to be written is a photograph to be scored.
    """
    paths = [photo.path for source in sources for photo in list_photos(source)]
    stems = _stems(paths)
    _keep_photos(paths, [_beside(out / stem, ending) for stem in stems for ending in (_JSON, _MAP, _OVERLAY)])
    out.mkdir(parents=True, exist_ok=True)
    for path, stem in zip(paths, stems, strict=True):
        began = time.perf_counter()
        try:
            photo = prepare(path, loaded.manifest.config.preparation, limits)
            quality = judge(photo, loaded.manifest.photo_quality)
            if require_quality:
                demand(quality)
            decoded = time.perf_counter()
            detection = loaded.detector.detect([photo])[0]
        except PhotoError as error:
            yield Failed(path, str(error))
            continue
        timings = Timings(1e3 * (decoded - began), 1e3 * (time.perf_counter() - began))
        result = assemble(photo, detection, loaded, rule=rule, evidence=evidence, timings=timings, quality=quality)
        _write(path, out / stem, photo, detection, result, loaded.manifest, limits)
        yield Scored(path, stem, result)


def _write(
    path: Path,
    place: Path,
    photo: PreparedPhoto,
    detection: Detection,
    result: Result,
    manifest: Manifest,
    limits: PhotoLimits,
) -> None:
    in_photo = photo.frame.map_to_photo(detection.anomaly_map)
    with naming(path):
        pixels = read_photo(path, limits).pixels
    picture = overlay_picture(pixels, in_photo, result, manifest.calibration)
    full_scale = manifest.calibration.full_scale
    write_whole(_beside(place, _MAP), map_png16(in_photo, full_scale, manifest.fingerprint))
    write_whole(_beside(place, _OVERLAY), picture_png(picture))
    # Last, so that a photograph with an answer has its pictures, too.
    write_whole(_beside(place, _JSON), result_json(result).encode() + b"\n")


def write_whole(path: Path, content: bytes) -> None:
    """Write a file so that it is never seen half-written, whatever happens."""
    fresh = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        fresh.write_bytes(content)
        fresh.replace(path)
    finally:
        fresh.unlink(missing_ok=True)


def _keep_photos(photos: Sequence[Path], outputs: Sequence[Path]) -> None:
    inputs = {photo.resolve() for photo in photos}
    for output in outputs:
        if output.resolve() in inputs:
            raise SettingError(
                f"{output} is a photograph to be scored and would be overwritten; give another --out"
            )


def _beside(place: Path, ending: str) -> Path:
    return place.with_name(place.name + ending)


def _stems(paths: Sequence[Path]) -> list[str]:
    """Each file's name without its ending, made unique in order: a, b, a-2."""
    taken: set[str] = set()
    stems = []
    for path in paths:
        stem, number = path.stem, 1
        while stem in taken:
            number += 1
            stem = f"{path.stem}-{number}"
        taken.add(stem)
        stems.append(stem)
    return stems
