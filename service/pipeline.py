"""bytes -> prepare -> worker -> assemble -> map -> answer: the online sentence, each step on its own threads."""

import asyncio
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor, Future
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect, Request

from resad.config import PhotoLimits
from resad.detector import Detection
from resad.loaded_index import LoadedIndex
from resad.place import Eye
from resad.preparation import PreparedPhoto, prepare
from resad.quality import demand, judge
from resad.rendering import PictureKind
from resad.result import Result, Timings, assemble
from resad.verdict import Rule
from service.admission import Admission
from service.maps import MapType, data_url, encoded_map, encoded_overlay
from service.metrics import Metrics
from service.problems import DEADLINE, Problem, Refusal, refusal
from service.schemas import MapQuery, Results, ScoreQuery
from service.uploads import Upload
from service.worker import Worker

Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True, eq=False)
class Scored:
    """A photograph, what was measured on it, and what is said of it."""

    photo: PreparedPhoto
    detection: Detection
    result: Result


@dataclass(frozen=True, slots=True)
class Pipeline:
    """Scores on the worker, decodes and encodes on a bounded pool, keeps the deadline and the queue's limit."""

    worker: Worker
    pool: Executor
    admission: Admission
    metrics: Metrics
    limits: PhotoLimits
    deadline_s: float

    async def score(
        self,
        request: Request,
        upload: Upload,
        places: ExitStack,
        loaded: LoadedIndex,
        asked: ScoreQuery,
        request_id: str,
    ) -> Result | Results:
        """The answer of `POST /v1/score`; `places` holds the one place that the request was admitted with.

        Raises `Refusal` (429, 503, 504), `ClientDisconnect` once nobody waits, and `PhotoError` for a photograph
        that came alone; among several, each has its own problem.
        """
        if not upload.several:
            data = upload.only()
            return await self._in_time(request, places, lambda: self._result(data, loaded, asked, request_id))
        places.enter_context(self.admission.places(len(upload.photos) - 1))

        async def all_of_them() -> Results:
            slots = (self._slot(photo, loaded, asked, request_id) for photo in upload.photos)
            return Results(tuple(await asyncio.gather(*slots)))

        return await self._in_time(request, places, all_of_them)

    async def anomaly_map(
        self,
        request: Request,
        data: bytes,
        places: ExitStack,
        loaded: LoadedIndex,
        asked: MapQuery,
        kind: MapType,
    ) -> bytes:
        """The answer of `POST /v1/anomaly-map`; raises as `score` does for a photograph that came alone."""

        async def drawn() -> bytes:
            scored = await self._scored(data, loaded, asked.rule, 0, None)
            if asked.style == "overlay":
                picture: PictureKind = "jpeg" if kind == "image/jpeg" else "png"
                return await self._overlay(data, scored, loaded, asked, picture)
            return await self._map(kind, scored, loaded, asked.size)

        return await self._in_time(request, places, drawn)

    async def _in_time(
        self, request: Request, places: ExitStack, work: Callable[[], Coroutine[Any, Any, Answer]]
    ) -> Answer:
        """`work`, until the deadline, while its caller is there; else it is dropped.

        The work takes the places over: what has begun on a thread ends later than the answer that it missed.
        """
        task, gone = asyncio.create_task(work()), asyncio.create_task(_disconnected(request))
        held = places.pop_all()
        task.add_done_callback(lambda _: held.close())
        try:
            await asyncio.wait({task, gone}, timeout=self.deadline_s, return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                return task.result()
            if gone.done():
                raise ClientDisconnect
            raise Refusal(DEADLINE, f"no answer within {self.deadline_s:g} s")
        finally:
            task.cancel()
            gone.cancel()

    async def _slot(
        self, photo: bytes | Refusal, loaded: LoadedIndex, asked: ScoreQuery, request_id: str
    ) -> Result | Problem:
        try:
            if isinstance(photo, Refusal):
                raise photo
            return await self._result(photo, loaded, asked, request_id)
        except Exception as error:
            return refusal(error, request_id).problem(request_id)

    async def _result(self, data: bytes, loaded: LoadedIndex, asked: ScoreQuery, request_id: str) -> Result:
        began = time.perf_counter()
        scored = await self._scored(
            data,
            loaded,
            asked.rule,
            asked.evidence,
            request_id,
            eye=asked.eye,
            require_quality=asked.quality == "require",
        )
        match asked.map:
            case "none":
                url = None
            case "png":
                url = data_url(await self._map("image/png", scored, loaded, asked.size))
            case "overlay":
                url = data_url(await self._overlay(data, scored, loaded, asked, "png"))
            case "overlay-jpeg":
                url = data_url(await self._overlay(data, scored, loaded, asked, "jpeg"), "jpeg")
        timings = Timings(scored.result.timings_ms.decode, 1e3 * (time.perf_counter() - began))
        return replace(scored.result, map=url, timings_ms=timings)

    async def _scored(
        self,
        data: bytes,
        loaded: LoadedIndex,
        rule: Rule,
        evidence: int,
        request_id: str | None,
        *,
        eye: Eye | None = None,
        require_quality: bool = False,
    ) -> Scored:
        manifest = loaded.manifest
        began = time.perf_counter()
        with self.worker.expecting():
            photo = await self._pooled("decode", lambda: prepare(data, manifest.config.preparation, self.limits))
            quality = await self._pooled("judge", lambda: judge(photo, manifest.photo_quality))
            if require_quality:
                demand(quality)
            decoded = time.perf_counter()
            timings = Timings(1e3 * (decoded - began), 0.0)

            def finish(detection: Detection) -> Scored:
                # On the worker's thread, because evidence is searched for in the memory bank.
                result = assemble(
                    photo, detection, loaded, rule=rule, evidence=evidence, timings=timings, quality=quality,
                    eye=eye, request_id=request_id,
                )  # fmt: skip
                return Scored(photo, detection, result)

            queued = self.worker.detect(loaded.detector, photo, finish)
        scored = await _ended(queued)
        self.metrics.stage("score", time.perf_counter() - decoded)
        return scored

    async def _map(self, kind: MapType, scored: Scored, loaded: LoadedIndex, size: int | None) -> bytes:
        frame, manifest = scored.photo.frame, loaded.manifest
        return await self._pooled("render", lambda: encoded_map(kind, scored.detection, frame, manifest, size))

    async def _overlay(
        self, data: bytes, scored: Scored, loaded: LoadedIndex, asked: ScoreQuery | MapQuery, kind: PictureKind
    ) -> bytes:
        detection, frame, result = scored.detection, scored.photo.frame, scored.result
        return await self._pooled(
            "render",
            lambda: encoded_overlay(
                data,
                self.limits,
                detection,
                frame,
                result,
                loaded.manifest,
                asked.size,
                layout=asked.layout,
                kind=kind,
            ),
        )

    async def _pooled(self, stage: str, work: Callable[[], Answer]) -> Answer:
        began = time.perf_counter()
        answer = await _ended(self.pool.submit(work))
        self.metrics.stage(stage, time.perf_counter() - began)
        return answer


async def _ended(work: Future[Answer]) -> Answer:
    """What `work` returns.  Cancelled, it is dropped or, once begun, waited for: a thread cannot be stopped."""
    end = asyncio.wrap_future(work)
    try:
        return await asyncio.shield(end)
    except asyncio.CancelledError:
        if not work.cancel():
            await asyncio.wait({end})
        raise


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
