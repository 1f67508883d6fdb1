"""The blocking client."""

import random
import time
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx

from resad_client import http, protocol
from resad_client.errors import ServerProblem
from resad_client.http import DEFAULT_TIMEOUT, DEFAULT_URL, Call, Port, RetryPolicy
from resad_client.maps import AnomalyMap
from resad_client.photos import Eye
from resad_client.protocol import Layout, MapKind, NewMark, Photo, PictureKind, Quality, ScoreQuery
from resad_client.records import Evidence, IndexInfo, IndexReference, MarkedPhoto, MarkList, Result

T = TypeVar("T")


class BlockingPort(Port):
    """Blocks in every method."""

    def __init__(
        self, http: httpx.Client, sleep: Callable[[float], None], policy: RetryPolicy, rng: random.Random
    ) -> None:
        super().__init__(policy, rng)
        self._http = http
        self._sleep = sleep

    async def read(self, path: Path) -> bytes:
        """The bytes of a file."""
        return path.read_bytes()

    async def send(self, call: Call) -> httpx.Response:
        """Send a request and wait for its answer."""
        return self._http.send(http.request(self._http, call))

    async def pause(self, seconds: float) -> None:
        """Sleep."""
        self._sleep(seconds)


def finish(call: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine over a `BlockingPort`, which never suspends and so ends with its first step."""
    try:
        call.send(None)
    except StopIteration as done:
        result: T = done.value
        return result
    raise RuntimeError("a blocking call suspended")


class Client:
    """A ReSAD service.  May be shared by threads; close it, or use it in a `with` statement.

    Args:
        base_url: http or https, with host and, behind a proxy, a path.
        key: API key, sent as a bearer token; the environment is not looked into for one, as the command does.
        timeout: seconds (per connect, read and write) or httpx's own.
        retries, max_wait_s, lost_retries: see `RetryPolicy`; repeated are 429, 503 and lost connections, of which
            a proxy tells by a 500 or 502 that is not the service's own.
        rng: of the waits' random part.
        sleep, transport: for tests.

    Raises `SettingError` for an address, key or policy that cannot be used.  Every call raises the errors of
    `resad_client.errors`.
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
        sleep: Callable[[float], None] = time.sleep,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        policy = RetryPolicy(retries, max_wait_s, lost_retries)
        self._http = httpx.Client(
            base_url=http.base_url(base_url),
            headers=http.standing_headers(key),
            timeout=timeout,
            transport=transport,
        )
        self._port = BlockingPort(self._http, sleep, policy, rng or random.Random())

    def score(
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
        """Score a photograph; what is None is the service's choice.

        Args:
            fpr: false-positive rate of the verdict, in (0, 1).
            threshold: image score above which the photograph is abnormal; excludes `fpr`.
            false_regions: regions above the level of findings that a healthy photograph shows on average; one of
                the rates that the index states levels for.
            frame: of a DICOM object of several: the frame to score, from 1.
            camera: compare with this camera's normals, where the index has enough.
            quality: `require` refuses a photograph below the index's limits of quality.
            evidence: healthy patches per finding, at least 0.
            map: which picture comes in `Result.map`.
            size, layout: of that picture; px on its longer side.
            eye: which one, if known: findings' places are then nasal or temporal.
        """
        query = ScoreQuery(
            index=index, fpr=fpr, threshold=threshold, false_regions=false_regions, frame=frame, camera=camera,
            quality=quality, evidence=evidence, map=map, size=size, layout=layout, eye=eye,
        )  # fmt: skip
        return finish(protocol.score(self._port, photo, query))

    def score_many(
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
        """Score photographs in one request: for each, in order, its result or what is wrong with it.

        Raises what concerns the request as a whole, and `PhotoUnusable` before anything is sent.
        """
        query = ScoreQuery(
            index=index, fpr=fpr, threshold=threshold, false_regions=false_regions, frame=frame, camera=camera,
            quality=quality, evidence=evidence, map=map, size=size, layout=layout, eye=eye,
        )  # fmt: skip
        return finish(protocol.score_many(self._port, photos, query))

    def anomaly_map(self, photo: Photo, *, index: str | None = None, size: int | None = None) -> AnomalyMap:
        """A photograph's map in float32, at the photo's own size, or smaller: `size` px on the longer side."""
        return finish(protocol.anomaly_map(self._port, photo, index=index, size=size))

    def overlay(
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
        """The photograph under its map, with a color bar and the findings outlined, as PNG or JPEG."""
        call = protocol.overlay(
            self._port, photo, index=index, fpr=fpr, threshold=threshold, false_regions=false_regions,
            frame=frame, camera=camera, size=size, layout=layout, kind=kind,
        )  # fmt: skip
        return finish(call)

    def evidence_crop(self, index: IndexReference, evidence: Evidence) -> bytes:
        """A JPEG of what a healthy patch looks like, framed in its surroundings.

        `index` and `evidence` are those of one result.  The picture is as the reference photo is: where `evidence`
        is `mirrored`, turn it left to right to see what was compared.  Raises `NotFound` where the index keeps no
        pictures, or another version answers by now.
        """
        return finish(protocol.evidence_crop(self._port, index, evidence))

    def mark(
        self, photo: Photo, marks: Sequence[NewMark], *, index: str | None = None, reader: str | None = None
    ) -> MarkedPhoto:
        """Mark regions of a photograph as normal variants, artifacts or known lesions, for `resad-indexer teach`.

        Nothing changes at once, and the photograph is not kept.  Takes the scope `teach`.  reader: who marks,
        beside the owner of the key.  Raises what `score` raises.
        """
        return finish(protocol.mark(self._port, photo, marks, index=index, reader=reader))

    def marks(self, index: str | None = None) -> MarkList:
        """The journal of marks, and the labels that marks may have."""
        return finish(protocol.marks(self._port, index))

    def withdraw_mark(self, name: str, index: str | None = None) -> None:
        """Take a mark back, by its id; raises `NotFound` if there is none."""
        finish(protocol.withdraw_mark(self._port, name, index))

    def indexes(self) -> tuple[IndexInfo, ...]:
        """What is served."""
        return finish(protocol.indexes(self._port))

    def ready(self) -> bool:
        """Whether the service can score now; asked once.  Raises `ConnectionFailed` if nobody answers."""
        return finish(protocol.ready(self._port))

    def close(self) -> None:
        """Give back the connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
