"""From an upload to its answer: decode, judge, detect, assemble, draw; one photograph or several."""

import asyncio
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor, Future
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect, Request

from resad.calibration import Rule
from resad.config import PhotoLimits
from resad.detector import Detection
from resad.engine import assemble
from resad.findings import Eye
from resad.loaded_index import LoadedIndex
from resad.manifest import Manifest
from resad.pictures.overlay import Layout, PictureKind
from resad.preparation import PreparedPhoto, prepare
from resad.quality import demand, judge
from resad.result import Result, Timings
from service.admission import Admission, Pace
from service.index_cache import Shelf
from service.maps import MapType, data_url, encoded_map, encoded_overlay
from service.metrics import Metrics
from service.problems import DEADLINE, Problem, Refusal, refusal
from service.schemas import MapQuery, Results, ScoreQuery
from service.tracing import Account, ContentHash, PhotoAccount, Stage
from service.uploads import Upload
from service.worker import Worker

Answer = TypeVar("Answer")


async def in_time(
    request: Request, places: ExitStack, work: Callable[[], Coroutine[Any, Any, Answer]], deadline_s: float
) -> Answer:
    """`work`, until the deadline, while its caller is there; else it is dropped.

    The work takes the places over: what has begun on a thread ends later than the answer that it missed.

    Raises `Refusal` (504), and `ClientDisconnect` once nobody waits.
    """
    task, gone = asyncio.create_task(work()), asyncio.create_task(_disconnected(request))
    held = places.pop_all()
    task.add_done_callback(lambda _: held.close())
    try:
        await asyncio.wait({task, gone}, timeout=deadline_s, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        if gone.done():
            raise ClientDisconnect
        raise Refusal(DEADLINE, f"no answer within {deadline_s:g} s")
    finally:
        task.cancel()
        gone.cancel()


async def ended(work: Future[Answer]) -> Answer:
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


@dataclass(frozen=True, slots=True)
class Steps:
    """Decodes and draws on the pool; tells the metrics and the photograph's own account."""

    pool: Executor
    metrics: Metrics

    async def pooled(self, stage: Stage, work: Callable[[], Answer], own: PhotoAccount) -> Answer:
        """`work` on a thread of the pool; how long it waited for one, and how long it took there."""
        asked = time.perf_counter()

        def timed() -> tuple[float, Answer]:
            began = time.perf_counter()
            return began, work()

        began, answer = await ended(self.pool.submit(timed))
        self.over("wait", began - asked, own)
        self.over(stage, time.perf_counter() - began, own)
        return answer

    def over(self, stage: Stage, seconds: float, own: PhotoAccount) -> None:
        """A step has just ended."""
        self.metrics.stage(stage, seconds)
        own.over(stage, seconds)


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


@dataclass(frozen=True, slots=True)
class Drawing:
    """Draws on the pool.  max_overlay_side: longest side of an overlay, px, whatever is asked."""

    steps: Steps
    limits: PhotoLimits
    max_overlay_side: int

    async def map(
        self, kind: MapType, scored: Scored, loaded: LoadedIndex, size: int | None, own: PhotoAccount
    ) -> bytes:
        """The map in the photo's frame, its longer side at most `size` px."""
        frame, manifest = scored.photo.frame, loaded.manifest
        return await self.steps.pooled(
            "render", lambda: encoded_map(kind, scored.detection, frame, manifest, size), own
        )

    async def overlay(
        self,
        data: bytes,
        scored: Scored,
        loaded: LoadedIndex,
        own: PhotoAccount,
        *,
        size: int | None,
        layout: Layout,
        kind: PictureKind,
    ) -> bytes:
        """The photo, whose file `data` is, with its map, findings and color bar."""
        detection, frame, result, manifest = scored.detection, scored.photo.frame, scored.result, loaded.manifest
        longest = min(size or self.max_overlay_side, self.max_overlay_side)

        def drawn() -> bytes:
            return encoded_overlay(
                data,
                self.limits,
                detection,
                frame,
                result,
                manifest,
                longest,
                layout=layout,
                kind=kind,
            )

        return await self.steps.pooled("render", drawn, own)


@dataclass(frozen=True, slots=True)
class Pipeline:
    """Answers requests from indexes that are in memory, and keeps the deadline and the queue's limit."""

    scorer: Scorer
    drawing: Drawing
    shelf: Shelf
    admission: Admission
    pace: Pace

    async def score(
        self,
        request: Request,
        upload: Upload,
        places: ExitStack,
        name: str,
        asked: ScoreQuery,
        account: Account,
    ) -> Result | Results:
        """The answer of `POST /v1/score` by the index `name`.

        `places` holds the one place that the request was admitted with.

        Raises `Refusal` (429, 503, 504), `ClientDisconnect` once nobody waits, and `PhotoError` for a photograph
        that came alone; among several, each has its own problem.
        """
        deadline_s = self.admission.bounds.deadline_s
        if not upload.several:
            data = upload.only()

            async def the_one() -> Result:
                async with self.shelf.lent(name) as loaded:
                    return await self._result(data, loaded, asked, account)

            return await in_time(request, places, the_one, deadline_s)
        places.enter_context(self.admission.places(len(upload.photos) - 1, own=1))

        async def all_of_them() -> Results:
            async with self.shelf.lent(name) as loaded:
                slots = (self._slot(photo, loaded, asked, account) for photo in upload.photos)
                return Results(tuple(await asyncio.gather(*slots)))

        return await in_time(request, places, all_of_them, deadline_s)

    async def anomaly_map(
        self,
        request: Request,
        data: bytes,
        places: ExitStack,
        name: str,
        asked: MapQuery,
        kind: MapType,
        account: Account,
    ) -> tuple[bytes, Manifest]:
        """The answer of `POST /v1/anomaly-map`, and of which version it is.

        Raises as `score` does for a photograph that came alone.
        """

        async def drawn() -> tuple[bytes, Manifest]:
            own = account.photo()
            async with self.shelf.lent(name) as loaded:
                scored = await self.scorer.score(data, loaded, asked.rule, own)
                if asked.style == "overlay":
                    picture: PictureKind = "jpeg" if kind == "image/jpeg" else "png"
                    body = await self._overlay(data, scored, loaded, asked, picture, own)
                else:
                    body = await self.drawing.map(kind, scored, loaded, asked.size, own)
            self.pace.pooled(own.pooled)
            return body, loaded.manifest

        return await in_time(request, places, drawn, self.admission.bounds.deadline_s)

    async def _slot(
        self, photo: bytes | Refusal, loaded: LoadedIndex, asked: ScoreQuery, account: Account
    ) -> Result | Problem:
        try:
            if isinstance(photo, Refusal):
                raise photo
            return await self._result(photo, loaded, asked, account)
        except Exception as error:
            return refusal(error, account.request_id).problem(account.request_id)

    async def _result(self, data: bytes, loaded: LoadedIndex, asked: ScoreQuery, account: Account) -> Result:
        began, own = time.perf_counter(), account.photo()
        scored = await self.scorer.score(
            data,
            loaded,
            asked.rule,
            own,
            evidence=asked.evidence,
            request_id=account.request_id,
            eye=asked.eye,
            require_quality=asked.quality == "require",
        )
        match asked.map:
            case "none":
                url = None
            case "png":
                url = data_url(await self.drawing.map("image/png", scored, loaded, asked.size, own))
            case "overlay":
                url = data_url(await self._overlay(data, scored, loaded, asked, "png", own))
            case "overlay-jpeg":
                url = data_url(await self._overlay(data, scored, loaded, asked, "jpeg", own), "jpeg")
        self.pace.pooled(own.pooled)
        timings = Timings(scored.result.timings_ms.decode, 1e3 * (time.perf_counter() - began))
        return replace(scored.result, map=url, timings_ms=timings)

    async def _overlay(
        self,
        data: bytes,
        scored: Scored,
        loaded: LoadedIndex,
        asked: ScoreQuery | MapQuery,
        kind: PictureKind,
        own: PhotoAccount,
    ) -> bytes:
        return await self.drawing.overlay(
            data, scored, loaded, own, size=asked.size, layout=asked.layout, kind=kind
        )
