"""bytes -> prepare -> judge -> worker -> assemble: one photograph's way to its score, each step on its threads."""

import time
from dataclasses import dataclass

from resad.answer import assemble
from resad.config import PhotoLimits
from resad.detector import Detection
from resad.loaded_index import LoadedIndex
from resad.place import Eye
from resad.preparation import PreparedPhoto, prepare
from resad.quality import demand, judge
from resad.result import Result, Timings
from resad.verdict import Rule
from service.account import ContentHash, PhotoAccount
from service.steps import Steps
from service.waiting import ended
from service.worker import Worker


@dataclass(frozen=True, slots=True, eq=False)
class Scored:
    """A photograph, what was measured on it, and what is said of it."""

    photo: PreparedPhoto
    detection: Detection
    result: Result


@dataclass(frozen=True, slots=True)
class Scorer:
    """Scores on the worker, decodes and judges on a bounded pool."""

    worker: Worker
    steps: Steps
    content: ContentHash
    limits: PhotoLimits

    async def score(
        self,
        data: bytes,
        loaded: LoadedIndex,
        rule: Rule,
        own: PhotoAccount,
        *,
        evidence: int = 0,
        request_id: str | None = None,
        eye: Eye | None = None,
        require_quality: bool = False,
    ) -> Scored:
        """A photograph's file scored by an index in memory; the result's total time is yet to be told.

        Raises `PhotoError` for a photograph that cannot be used, and `Refusal` where the worker cannot.
        """
        manifest = loaded.manifest
        began = time.perf_counter()

        def decode() -> PreparedPhoto:
            own.content = self.content.of(data)
            return prepare(data, manifest.config.preparation, self.limits)

        with self.worker.expecting():
            photo = await self.steps.pooled("decode", decode, own)
            quality = await self.steps.pooled("judge", lambda: judge(photo, manifest.photo_quality), own)
            if require_quality:
                demand(quality)
            decoded = time.perf_counter()
            timings = Timings(1e3 * (decoded - began), 0.0)
            turn = decoded

            def begin() -> None:
                nonlocal turn
                turn = time.perf_counter()

            def finish(detection: Detection) -> Scored:
                # On the worker's thread, because evidence is searched for in the memory bank.
                result = assemble(
                    photo, detection, loaded, rule=rule, evidence=evidence, timings=timings, quality=quality,
                    eye=eye, request_id=request_id,
                )  # fmt: skip
                return Scored(photo, detection, result)

            queued = self.worker.detect(loaded.detector, photo, finish, begin)
        scored = await ended(queued)
        found = time.perf_counter()
        self.steps.over("queue", turn - decoded, own)
        self.steps.over("detect", found - turn, own)
        self.steps.over("score", found - decoded, own)
        self.steps.metrics.scored(scored.result)
        return scored
