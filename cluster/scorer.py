"""What runs on a worker while folders are scored: photographs against an index.  Nothing here knows Ray."""

import os
import socket
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from cluster.score_rows import Row, named, stamp
from cluster.worker_pool import WorkerInfo
from indexer.prefetching import prefetch
from indexer.scoring import failure_reason
from resad import runtime
from resad.calibration import DecisionRule
from resad.config import PhotoLimits
from resad.engine import ScoreOptions, assemble
from resad.errors import SettingError
from resad.loaded_index import LoadedIndex, load_index
from resad.preparation import PreparedPhoto, prepare
from resad.quality import demand, judge
from resad.result import Result, Timings

_AHEAD: Final = 3
"""Photographs that are prepared while one is scored."""


@dataclass(frozen=True, slots=True)
class ScoreTask:
    """What all workers are told.  version: ROOT/NAME/VERSION, where every node sees it.  device: its kind."""

    version: Path
    device: str
    threads: int
    rule: DecisionRule
    require_quality: bool
    limits: PhotoLimits


class Scorer:
    """An actor: an index in memory."""

    def start(self, task: ScoreTask) -> WorkerInfo:
        """Load the index; raises `SettingError` where this node does not see it."""
        if not task.version.is_dir():
            raise SettingError(
                f"{task.version} is not there on the worker {socket.gethostname()}: an index must lie where "
                "every node of the cluster sees it under the same path"
            )
        runtime.use_threads(task.threads)
        self._loaded = load_index(task.version, runtime.pick_device(task.device))
        runtime.configure(self._loaded.manifest.config.precision)
        self._task = task
        return WorkerInfo(socket.gethostname(), os.getpid())

    def score(self, photos: Sequence[Path]) -> list[Row]:
        """A row for each photograph, whatever is wrong with it."""
        look = partial(_prepared, loaded=self._loaded, limits=self._task.limits)
        with closing(prefetch(photos, look, threads=1, most=_AHEAD)) as prepared:
            return [self._row(photo, ready) for photo, ready in zip(photos, prepared, strict=True)]

    def clean_up(self) -> None:
        """Nothing is left."""

    def _row(self, path: Path, photo: PreparedPhoto | str) -> Row:
        begin = unscored(path, self._loaded.manifest.version, self._task.rule)
        if isinstance(photo, str):
            return begin(fault=photo)
        try:
            result = self._result(photo)
        except Exception as error:  # no photograph can end the run
            return begin(fault=failure_reason(error))
        return begin(
            image_score=f"{result.image_score:.9g}",
            p_value=_cell(result.p_value),
            threshold=_cell(result.threshold),
            abnormal="" if result.abnormal is None else str(result.abnormal).lower(),
            findings=str(len(result.findings)),
            reasons=";".join(result.quality.reasons),
        )

    def _result(self, photo: PreparedPhoto) -> Result:
        began = time.perf_counter()
        quality = judge(photo, self._loaded.manifest.photo_quality)
        if self._task.require_quality:
            demand(quality)
        detection = self._loaded.detector.detect([photo])[0]
        timings = Timings(0.0, 1e3 * (time.perf_counter() - began))
        return assemble(
            photo, detection, self._loaded, ScoreOptions(self._task.rule), timings=timings, quality=quality
        )


def unscored(path: Path, version: str, rule: DecisionRule) -> "partial[Row]":
    """A row's beginning: the photograph's file and what it is scored with."""
    return partial(Row, named(path), *stamp(path), version, _cell(rule.fpr), _cell(rule.threshold))


def _prepared(path: Path, loaded: LoadedIndex, limits: PhotoLimits) -> PreparedPhoto | str:
    """Or the fault."""
    try:
        return prepare(path, loaded.manifest.config.preparation, limits)
    except Exception as error:
        return failure_reason(error)


def _cell(value: float | None) -> str:
    return "" if value is None else f"{value:.9g}"
