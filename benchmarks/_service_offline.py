"""The work of a service done in this process: what its answers are checked against and its time is held beside."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from indexer.score_jobs import Job, Order
from indexer.scoring import score_photos
from resad.answer import assemble
from resad.config import PhotoLimits
from resad.loaded_index import LoadedIndex
from resad.map_files import map_png16
from resad.preparation import prepare
from resad.result import Timings
from resad.verdict import Rule

_RULE: Final = Rule(fpr=0.05)
_EVIDENCE: Final = 3
_LIMITS: Final = PhotoLimits()


@dataclass(frozen=True, slots=True)
class Photos:
    """Photographs of one kind, posted in turn."""

    name: str
    paths: tuple[Path, ...]


@dataclass(frozen=True, slots=True)
class Offline:
    """One photograph scored in this process, in seconds, with what the service must answer."""

    decode: float
    score: float
    render: float
    image_score: float
    png: bytes


def score_offline(loaded: LoadedIndex, data: bytes) -> Offline:
    """What the service does for a photograph, step by step, without it."""
    manifest = loaded.manifest
    began = time.perf_counter()
    photo = prepare(data, manifest.config.preparation, _LIMITS)
    decoded = time.perf_counter()
    detection = loaded.detector.detect([photo])[0]
    result = assemble(photo, detection, loaded, rule=_RULE, evidence=_EVIDENCE, timings=Timings(0.0, 0.0))
    scored = time.perf_counter()
    in_photo = photo.frame.map_to_photo(detection.anomaly_map)
    png = map_png16(in_photo, manifest.calibration.full_scale, manifest.fingerprint)
    rendered = time.perf_counter()
    return Offline(decoded - began, scored - decoded, rendered - scored, result.image_score, png)


def command_seconds(loaded: LoadedIndex, photos: Photos, out: Path) -> float:
    """Mean per photograph of all that `resad-indexer score` does once its index is loaded."""
    jobs = [
        Job(path, path.name, path.stem, json=out / f"{number}.json", map=out / f"{number}_map.png",
            overlay=out / f"{number}_overlay.png")
        for number, path in enumerate(photos.paths)
    ]  # fmt: skip
    began = time.perf_counter()
    for _ in score_photos(loaded, jobs, Order(_RULE, _EVIDENCE), _LIMITS):
        pass
    return (time.perf_counter() - began) / len(jobs)
