"""The asynchronous client, for asyncio."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx

from resad_client import http, protocol
from resad_client.errors import ServerProblem
from resad_client.http import DEFAULT_TIMEOUT, DEFAULT_URL, Call, OnWait, Port, RetryPolicy
from resad_client.maps import AnomalyMap
from resad_client.photos import Eye
from resad_client.protocol import Layout, MapKind, NewMark, Photo, PictureKind, Quality, ScoreQuery
from resad_client.records import Evidence, IndexInfo, IndexReference, MarkedPhoto, MarkList, Result


class AsyncClient:
    """A ReSAD service, as `resad_client.Client`: same arguments, same calls, same errors, awaited.

    `on_wait` is called before each wait for a service that is busy, starting or gone.
    May be shared by the tasks of one event loop; close it, or use it in an `async with` statement.
    """

    def __init__(
        self,
        base_url: str = DEFAULT_URL,
        *,
        key: str | None = None,
        timeout: float | httpx.Timeout = DEFAULT_TIMEOUT,
        retries: int = 5,
        max_wait_s: float = 60.0,
        lost_retries: int = 5,
        rng: random.Random | None = None,
        on_wait: OnWait | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        policy = RetryPolicy(retries, max_wait_s, lost_retries)
        self._http = httpx.AsyncClient(
            base_url=http.base_url(base_url),
            headers=http.standing_headers(key),
            timeout=timeout,
            transport=transport,
        )
        self._port = _AwaitingPort(self._http, sleep, policy, rng or random.Random(), on_wait)

    async def score(
        self,
        photo: Photo,
        *,
        index: str | None = None,
        fpr: float | None = None,
        threshold: float | None = None,
        false_regions: float | None = None,
        frame: int | None = None,
        camera: str | None = None,
        quality: Quality | None = None,
        evidence: int | None = None,
        map: MapKind | None = None,
        size: int | None = None,
        layout: Layout | None = None,
        eye: Eye | None = None,
    ) -> Result:
        """Score a photograph; see `Client.score`."""
        query = ScoreQuery(
            index=index, fpr=fpr, threshold=threshold, false_regions=false_regions, frame=frame, camera=camera,
            quality=quality, evidence=evidence, map=map, size=size, layout=layout, eye=eye,
        )  # fmt: skip
        return await protocol.score(self._port, photo, query)

    async def score_many(
        self,
        photos: Sequence[Photo],
        *,
        index: str | None = None,
        fpr: float | None = None,
        threshold: float | None = None,
        false_regions: float | None = None,
        frame: int | None = None,
        camera: str | None = None,
        quality: Quality | None = None,
        evidence: int | None = None,
        map: MapKind | None = None,
        size: int | None = None,
        layout: Layout | None = None,
        eye: Eye | None = None,
    ) -> list[Result | ServerProblem]:
        """Score photographs in one request; see `Client.score_many`."""
        query = ScoreQuery(
            index=index, fpr=fpr, threshold=threshold, false_regions=false_regions, frame=frame, camera=camera,
            quality=quality, evidence=evidence, map=map, size=size, layout=layout, eye=eye,
        )  # fmt: skip
        return await protocol.score_many(self._port, photos, query)

    async def anomaly_map(self, photo: Photo, *, index: str | None = None, size: int | None = None) -> AnomalyMap:
        """A photograph's map in float32; see `Client.anomaly_map`."""
        return await protocol.anomaly_map(self._port, photo, index=index, size=size)

    async def overlay(
        self,
        photo: Photo,
        *,
        index: str | None = None,
        fpr: float | None = None,
        threshold: float | None = None,
        false_regions: float | None = None,
        frame: int | None = None,
        camera: str | None = None,
        size: int | None = None,
        layout: Layout | None = None,
        kind: PictureKind = "png",
    ) -> bytes:
        """A photograph under its map; see `Client.overlay`."""
        call = protocol.overlay(
            self._port, photo, index=index, fpr=fpr, threshold=threshold, false_regions=false_regions,
            frame=frame, camera=camera, size=size, layout=layout, kind=kind,
        )  # fmt: skip
        return await call

    async def evidence_crop(self, index: IndexReference, evidence: Evidence) -> bytes:
        """A JPEG of what a healthy patch looks like; see `Client.evidence_crop`."""
        return await protocol.evidence_crop(self._port, index, evidence)

    async def mark(
        self, photo: Photo, marks: Sequence[NewMark], *, index: str | None = None, reader: str | None = None
    ) -> MarkedPhoto:
        """Mark regions of a photograph; see `Client.mark`."""
        return await protocol.mark(self._port, photo, marks, index=index, reader=reader)

    async def marks(self, index: str | None = None) -> MarkList:
        """The journal of marks, and the labels that marks may have."""
        return await protocol.marks(self._port, index)

    async def withdraw_mark(self, name: str, index: str | None = None) -> None:
        """Take a mark back, by its id; raises `NotFound` if there is none."""
        await protocol.withdraw_mark(self._port, name, index)

    async def indexes(self) -> tuple[IndexInfo, ...]:
        """What is served."""
        return await protocol.indexes(self._port)

    async def ready(self) -> bool:
        """Whether the service can score now; see `Client.ready`."""
        return await protocol.ready(self._port)

    async def aclose(self) -> None:
        """Give back the connections."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()


class _AwaitingPort(Port):
    """Lets other tasks run while a file is read, an answer comes, or time passes."""

    def __init__(
        self,
        http: httpx.AsyncClient,
        sleep: Callable[[float], Awaitable[None]],
        policy: RetryPolicy,
        rng: random.Random,
        on_wait: OnWait | None,
    ) -> None:
        super().__init__(policy, rng, on_wait)
        self._http = http
        self._sleep = sleep

    async def read(self, path: Path) -> bytes:
        return await asyncio.to_thread(path.read_bytes)

    async def send(self, call: Call) -> httpx.Response:
        return await self._http.send(http.request(self._http, call))

    async def pause(self, seconds: float) -> None:
        await self._sleep(seconds)
