"""From an upload to its answer: decode, judge, detect, assemble, draw; one photograph or several."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from concurrent.futures import Executor, Future
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any, Final, TypeVar

from resad_client.records import MarkedPhoto, Result, Timings
from starlette.requests import ClientDisconnect, Request

from resad.calibration import criterion
from resad.config import PhotoLimits
from resad.decoder_pool import DecoderPool
from resad.detector import Detection
from resad.dicom.files import is_dicom, single_frame
from resad.engine import CheckedPhoto, Engine, ScoreOptions
from resad.errors import SettingError
from resad.loaded_index import LoadedIndex
from resad.manifest import Manifest
from resad.pictures.overlay import PictureKind
from resad.preparation import PhotoDecoder, PreparedPhoto
from service.admission import Admission, ByteReservation, Throughput
from service.dicom import DicomBody, demand_dicom, encode_dicom
from service.fairness import Turns
from service.index_cache import IndexCache
from service.maps import Drawable, MapFile, MapType, data_url, encode_map, encode_overlay, map_file
from service.metrics import Metrics
from service.problems import DEADLINE, INVALID_REQUEST, NOT_ACCEPTABLE, Problem, Refusal, refusal
from service.schemas import MapQuery, Results, ScoreQuery
from service.tracing import ContentHash, PhotoTrace, RequestTrace, Stage
from service.uploads import Upload
from service.worker import Worker

Answer = TypeVar("Answer")
_SMALL_MAP: Final = 4_000_000
"""Pixels up to which a map is made at once; a larger one is made while it is sent, and takes little memory."""


async def within_deadline(
    request: Request, slots: ExitStack, work: Callable[[], Coroutine[Any, Any, Answer]], deadline_s: float
) -> Answer:
    """Run `work` until it ends, the deadline passes, or the caller disconnects; in the last two cases cancel it.

    The work takes over the queue `slots` and frees them at its own end, because a step that runs on a thread
    cannot be stopped and may end after the answer was given up.

    Raises `Refusal` (504) at the deadline and `ClientDisconnect` if the caller disconnects.
    """
    task, disconnect = asyncio.create_task(work()), asyncio.create_task(_disconnect(request))
    task_slots = slots.pop_all()
    task.add_done_callback(lambda _: task_slots.close())
    try:
        await asyncio.wait({task, disconnect}, timeout=deadline_s, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        if disconnect.done():
            raise ClientDisconnect
        raise Refusal(DEADLINE, f"no answer within {deadline_s:g} s")
    finally:
        task.cancel()
        disconnect.cancel()


async def _disconnect(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def wait_for(future: Future[Answer], stop: Callable[[], None] = lambda: None) -> Answer:
    """The result of a thread's work.

    If this is cancelled, work that has not begun is dropped, and work that has begun is stopped by `stop`, if
    that is possible, and waited for.
    """
    wrapped = asyncio.wrap_future(future)
    try:
        return await asyncio.shield(wrapped)
    except asyncio.CancelledError:
        if not future.cancel():
            stop()
            await asyncio.wait({wrapped})
            if not wrapped.cancelled():
                wrapped.exception()  # nobody else asks for it
        raise


@dataclass(frozen=True, slots=True)
class TimedPool:
    """A bounded pool of threads that measures each step; accounts take turns.

    turns: as many as there are threads.
    """

    threads: Executor
    turns: Turns
    metrics: Metrics

    async def run(
        self, stage: Stage, work: Callable[[], Answer], trace: PhotoTrace, stop: Callable[[], None] = lambda: None
    ) -> Answer:
        """Run `work` on a thread of the pool; records the wait for a thread and the time on it.

        stop: ends the work from another thread, for when nobody waits for it any more.
        """
        submitted = time.perf_counter()

        def timed() -> tuple[float, Answer]:
            began = time.perf_counter()
            return began, work()

        async with self.turns.turn(trace.account):
            began, answer = await wait_for(self.threads.submit(timed), stop)
        self.record("wait", began - submitted, trace)
        self.record(stage, time.perf_counter() - began, trace)
        return answer

    def record(self, stage: Stage, seconds: float, trace: PhotoTrace) -> None:
        """Record a stage that has just ended."""
        self.metrics.stage(stage, seconds)
        trace.record(stage, seconds)


@dataclass(slots=True, eq=False)
class Scorer:
    """Scores one photograph: a process decodes it, the pool judges it, the worker's thread detects and assembles.

    turns: at the worker.  decoding: threads that wait for the decoders.  pool: threads that judge and draw.
    """

    worker: Worker
    turns: Turns
    decoders: DecoderPool
    decoding: TimedPool
    pool: TimedPool
    content_hash: ContentHash
    limits: PhotoLimits
    engine: Callable[[LoadedIndex, PhotoLimits], Engine] = Engine

    async def score(
        self, data: bytes, loaded: LoadedIndex, query: ScoreQuery, trace: PhotoTrace, request_id: str | None
    ) -> Drawable:
        """The result for `POST /v1/score`, and what its map is drawn from.

        Raises `PhotoError` for a photograph that cannot be used, `Refusal` if the worker cannot score it.
        """
        engine = self.engine(loaded, self.limits)
        with self._counting_dropped():
            checked = await self._check(engine, data, query.options, trace)
            return await self._assemble(engine, checked, query.options, trace, request_id)

    async def score_map(self, data: bytes, loaded: LoadedIndex, query: MapQuery, trace: PhotoTrace) -> Drawable:
        """The map for `POST /v1/anomaly-map`, with the findings that an overlay outlines; raises as `score`."""
        engine = self.engine(loaded, self.limits)
        with self._counting_dropped():
            if query.style == "overlay":
                checked = await self._check(engine, data, query.options, trace)
                return await self._assemble(engine, checked, query.options, trace)
            photo = await self._decode(engine, data, trace)

            def finish(detection: Detection) -> Drawable:
                return Drawable(photo.frame, detection, loaded.manifest)

            return await self._detect(photo, loaded, finish, trace)

    async def measure(
        self, data: bytes, loaded: LoadedIndex, trace: PhotoTrace
    ) -> tuple[PreparedPhoto, Detection]:
        """A photograph's patches and their distances, for marks; raises as `score`."""
        engine = self.engine(loaded, self.limits)
        with self._counting_dropped():
            photo = await self._decode(engine, data, trace)

            def finish(detection: Detection) -> Drawable:
                return Drawable(photo.frame, detection, loaded.manifest)

            return photo, (await self._detect(photo, loaded, finish, trace)).detection

    async def decode(self, work: Callable[[PhotoDecoder], Answer], stage: Stage, trace: PhotoTrace) -> Answer:
        """Run `work`, which uses the decoder that it is given; the decoder is stopped if this is cancelled."""
        decoding = self.decoders.decoding()
        try:
            return await self.decoding.run(stage, lambda: work(decoding), trace, decoding.stop)
        finally:
            trace.printed += decoding.printed

    @contextmanager
    def _counting_dropped(self) -> Iterator[None]:
        try:
            yield
        except asyncio.CancelledError:
            self.pool.metrics.dropped()
            raise

    async def _check(self, engine: Engine, data: bytes, options: ScoreOptions, trace: PhotoTrace) -> CheckedPhoto:
        """The steps of `Engine.check`, each measured by itself."""
        started = time.perf_counter()
        photo = await self._decode(engine, data, trace)
        quality = await self.pool.run("judge", lambda: engine.judge(photo, require=options.require_quality), trace)
        return CheckedPhoto(photo, quality, started, 1e3 * (time.perf_counter() - started))

    async def _decode(self, engine: Engine, data: bytes, trace: PhotoTrace) -> PreparedPhoto:
        def decode(decoder: PhotoDecoder) -> PreparedPhoto:
            trace.content = self.content_hash.of(data)
            return replace(engine, decoder=decoder).prepare(data)

        return await self.decode(decode, "decode", trace)

    async def _assemble(
        self,
        engine: Engine,
        checked: CheckedPhoto,
        options: ScoreOptions,
        trace: PhotoTrace,
        request_id: str | None = None,
    ) -> Drawable:
        def finish(detection: Detection) -> Drawable:
            # On the worker's thread, because evidence is searched for in the memory bank.
            result = engine.assemble(checked, detection, options, request_id=request_id)
            return Drawable(checked.photo.frame, detection, engine.loaded.manifest, result)

        return await self._detect(checked.photo, engine.loaded, finish, trace)

    async def _detect(
        self,
        photo: PreparedPhoto,
        loaded: LoadedIndex,
        finish: Callable[[Detection], Drawable],
        trace: PhotoTrace,
    ) -> Drawable:
        queued = started = time.perf_counter()

        def begin() -> None:
            nonlocal started
            started = time.perf_counter()

        async with self.turns.turn(trace.account):
            drawable = await wait_for(self.worker.detect(loaded.detector, photo, finish, begin))
        ended = time.perf_counter()
        self.pool.record("queue", started - queued, trace)
        self.pool.record("detect", ended - started, trace)
        self.pool.record("score", ended - queued, trace)
        manifest = drawable.manifest
        self.pool.metrics.scored(manifest.name, manifest.version, drawable.detection.image_score)
        return drawable


@dataclass(frozen=True, slots=True)
class Pipeline:
    """Answers requests from leased indexes, within the deadline and the queue's limit.

    max_overlay_side: longest side of an overlay, px, whatever the query says.
    """

    scorer: Scorer
    index_cache: IndexCache
    admission: Admission
    throughput: Throughput
    max_overlay_side: int

    async def score(
        self,
        request: Request,
        upload: Upload,
        slots: ExitStack,
        index: str,
        query: ScoreQuery,
        trace: RequestTrace,
    ) -> Result | Results:
        """The answer of `POST /v1/score`.

        Args:
            slots: holds the one queue slot that the request was admitted with.
            index: its name.
        Raises:
            Refusal: 422 for a rate that the index states no level for; 429, 503 or 504.
            ClientDisconnect: the caller has disconnected.
            PhotoError: a photograph sent by itself cannot be used; among several, each has its own problem.
        """
        deadline_s = self.admission.limits.deadline_s
        if not upload.several:
            data = upload.only()

            async def score_alone() -> Result:
                async with self.index_cache.lease(index) as loaded:
                    _check_rule(loaded, query)
                    return await self._result(data, loaded, query, trace, upload.reservation)

            return await within_deadline(request, slots, score_alone, deadline_s)
        slots.enter_context(self.admission.admit(len(upload.photos) - 1, trace.key, already=1))

        async def score_all() -> Results:
            async with self.index_cache.lease(index) as loaded:
                _check_rule(loaded, query)
                answers = (
                    self._result_or_problem(photo, loaded, query, trace, upload.reservation)
                    for photo in upload.photos
                )
                return Results(tuple(await asyncio.gather(*answers)))

        return await within_deadline(request, slots, score_all, deadline_s)

    async def dicom(
        self,
        request: Request,
        upload: Upload,
        slots: ExitStack,
        index: str,
        query: ScoreQuery,
        trace: RequestTrace,
    ) -> DicomBody:
        """The objects for `POST /v1/score` where the caller accepts DICOM; raises as `score`.

        Raises `Refusal` (406) for several photographs and for those that are not DICOM.
        """
        if upload.several:
            raise Refusal(NOT_ACCEPTABLE, "results as DICOM are of one photograph: send it as the body")
        data = upload.only()
        demand_dicom(data)

        async def encode() -> DicomBody:
            photo_trace = trace.photo()
            async with self.index_cache.lease(index) as loaded:
                _check_rule(loaded, query)
                photo = await self._frame(data, query, photo_trace)
                drawable = await self.scorer.score(photo, loaded, query, photo_trace, trace.request_id)
                longest = None if query.size is None else min(query.size, self.max_overlay_side)
                limits, layout = self.scorer.limits, query.layout
                body = await self.scorer.decode(
                    lambda decoder: encode_dicom(drawable, photo, limits, longest, layout, decoder),
                    "render",
                    photo_trace,
                )
            self.throughput.pooled(photo_trace.pooled_s)
            return body

        return await within_deadline(request, slots, encode, self.admission.limits.deadline_s)

    async def mark(
        self,
        request: Request,
        data: bytes,
        slots: ExitStack,
        index: str,
        write: Callable[[LoadedIndex, PreparedPhoto, Detection], MarkedPhoto],
        trace: RequestTrace,
    ) -> MarkedPhoto:
        """The answer of `POST /v1/marks`; raises as `score`.

        write: adds the marks to the journal, on a thread.
        """

        async def measure_and_write() -> MarkedPhoto:
            photo_trace = trace.photo()
            async with self.index_cache.lease(index) as loaded:
                photo, detection = await self.scorer.measure(data, loaded, photo_trace)
                return await asyncio.to_thread(write, loaded, photo, detection)

        return await within_deadline(request, slots, measure_and_write, self.admission.limits.deadline_s)

    async def _frame(self, data: bytes, query: ScoreQuery | MapQuery, trace: PhotoTrace) -> bytes:
        """The photograph; of several frames the one that the query names."""
        number = query.frame
        if number is None:
            return data
        if not is_dicom(data):
            raise Refusal(INVALID_REQUEST, "frame: only DICOM photographs have frames")
        return await self.scorer.pool.run("decode", lambda: single_frame(data, number, self.scorer.limits), trace)

    async def anomaly_map(
        self,
        request: Request,
        upload: Upload,
        slots: ExitStack,
        index: str,
        query: MapQuery,
        media_type: MapType,
        trace: RequestTrace,
    ) -> tuple[bytes | MapFile, Manifest]:
        """The file for `POST /v1/anomaly-map`, and the manifest of its version; raises as `score`.

        A large map is made while it is sent, by `map_parts`.
        """
        data = upload.only()

        async def draw() -> tuple[bytes | MapFile, Manifest]:
            photo_trace = trace.photo()
            async with self.index_cache.lease(index) as loaded:
                _check_rule(loaded, query)
                photo = await self._frame(data, query, photo_trace)
                drawable = await self.scorer.score_map(photo, loaded, query, photo_trace)
                body: bytes | MapFile
                if query.style == "overlay":
                    kind: PictureKind = "jpeg" if media_type == "image/jpeg" else "png"
                    body = await self._overlay(photo, drawable, query, kind, photo_trace)
                else:
                    body = map_file(drawable, media_type, query.size)
                    if body.pixels <= _SMALL_MAP:
                        body = await self._map(drawable, media_type, query.size, photo_trace)
            self.throughput.pooled(photo_trace.pooled_s)
            return body, drawable.manifest

        return await within_deadline(request, slots, draw, self.admission.limits.deadline_s)

    async def map_parts(self, map_file: MapFile, trace: RequestTrace) -> AsyncIterator[bytes]:
        """The parts of a map file; each is made when the one before was taken."""
        photo_trace = trace.photos[-1]
        while part := await self.scorer.pool.run("render", lambda: next(map_file.parts, b""), photo_trace):
            yield part

    async def _result_or_problem(
        self,
        photo: bytes | Refusal,
        loaded: LoadedIndex,
        query: ScoreQuery,
        trace: RequestTrace,
        reservation: ByteReservation,
    ) -> Result | Problem:
        try:
            if isinstance(photo, Refusal):
                raise photo
            return await self._result(photo, loaded, query, trace, reservation)
        except Exception as error:
            return refusal(error, trace.request_id).problem(trace.request_id)

    async def _result(
        self,
        data: bytes,
        loaded: LoadedIndex,
        query: ScoreQuery,
        trace: RequestTrace,
        reservation: ByteReservation,
    ) -> Result:
        began, photo_trace = time.perf_counter(), trace.photo()
        data = await self._frame(data, query, photo_trace)
        drawable = await self.scorer.score(data, loaded, query, photo_trace, trace.request_id)
        match query.map:
            case "none":
                url = None
            case "png":
                url = data_url(await self._map(drawable, "image/png", query.size, photo_trace))
            case "overlay":
                url = data_url(await self._overlay(data, drawable, query, "png", photo_trace))
            case "overlay-jpeg":
                url = data_url(await self._overlay(data, drawable, query, "jpeg", photo_trace), "jpeg")
        self.throughput.pooled(photo_trace.pooled_s)
        reservation.add(len(url or ""))
        result = drawable.result
        assert result is not None
        timings = Timings(result.timings_ms.decode, 1e3 * (time.perf_counter() - began))
        return replace(result, map=url, timings_ms=timings)

    async def _map(self, drawable: Drawable, media_type: MapType, size: int | None, trace: PhotoTrace) -> bytes:
        return await self.scorer.pool.run("render", lambda: encode_map(drawable, media_type, size), trace)

    async def _overlay(
        self, data: bytes, drawable: Drawable, query: ScoreQuery | MapQuery, kind: PictureKind, trace: PhotoTrace
    ) -> bytes:
        longest = min(query.size or self.max_overlay_side, self.max_overlay_side)

        def draw(decoder: PhotoDecoder) -> bytes:
            return encode_overlay(drawable, data, self.scorer.limits, longest, query.layout, kind, decoder)

        return await self.scorer.decode(draw, "render", trace)


def _check_rule(loaded: LoadedIndex, query: ScoreQuery | MapQuery) -> None:
    """Raises `Refusal` (422) if the index states no level for the rate of findings."""
    try:
        criterion(loaded.manifest.calibration, query.options.rule)
    except SettingError as error:
        raise Refusal(INVALID_REQUEST, str(error)) from error
