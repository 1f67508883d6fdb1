"""`resad-indexer score`: photographs -> one JSON, one 16-bit map and one overlay each."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from indexer.photos import list_photos
from resad.config import PhotoLimits
from resad.detector import Detection
from resad.errors import PhotoError
from resad.loaded_index import LoadedIndex
from resad.manifest import Manifest
from resad.map_files import map_png16
from resad.photo import read_photo
from resad.preparation import PreparedPhoto, prepare
from resad.rendering import overlay_picture
from resad.result import Result, Timings, assemble, result_json

_QUICK: Final = 1
"""PNG compression of overlays: a sixth of the time of Pillow's usual level for a sixth more bytes."""


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
    loaded: LoadedIndex, sources: Sequence[Path], out: Path, limits: PhotoLimits, *, fpr: float, evidence: int
) -> Iterator[Scored | Failed]:
    """Score each photograph (folders and CSVs are listed) and write its files into `out`.

    Files are named after the photographs; where two have one name, later ones get a number.
    """
    paths = [photo.path for source in sources for photo in list_photos(source)]
    out.mkdir(parents=True, exist_ok=True)
    for path, stem in zip(paths, _stems(paths), strict=True):
        began = time.perf_counter()
        try:
            photo = prepare(path, loaded.manifest.config.preparation, limits)
            decoded = time.perf_counter()
            detection = loaded.detector.detect([photo])[0]
        except PhotoError as error:
            yield Failed(path, str(error))
            continue
        timings = Timings(1e3 * (decoded - began), 1e3 * (time.perf_counter() - began))
        result = assemble(photo, detection, loaded, fpr=fpr, evidence=evidence, timings=timings)
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
    picture = overlay_picture(read_photo(path, limits).pixels, in_photo, result, manifest.calibration)
    _beside(place, "_map.png").write_bytes(
        map_png16(in_photo, manifest.calibration.full_scale, manifest.fingerprint)
    )
    picture.save(_beside(place, "_overlay.png"), compress_level=_QUICK)
    _beside(place, ".json").write_text(result_json(result) + "\n")


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
