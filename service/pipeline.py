"""bytes -> prepare -> worker -> assemble -> map -> answer: the online sentence, each step on its own threads."""

import asyncio
import time
from contextlib import ExitStack
from dataclasses import dataclass, replace

from starlette.requests import Request

from resad.answer import assemble
from resad.config import PhotoLimits
from resad.detector import Detection
from resad.loaded_index import LoadedIndex
from resad.manifest import Manifest
from resad.place import Eye
from resad.preparation import PreparedPhoto, prepare
from resad.quality import demand, judge
from resad.rendering import PictureKind
from resad.result import Result, Timings
from resad.verdict import Rule
from service.account import Account, ContentHash, PhotoAccount
from service.admission import Admission
from service.maps import MapType, data_url, encoded_map, encoded_overlay
from service.pace import Pace
from service.problems import Problem, Refusal, refusal
from service.schemas import MapQuery, Results, ScoreQuery
from service.shelf import Shelf
from service.steps import Steps
from service.uploads import Upload
from service.waiting import ended, in_time
from service.worker import Worker


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
    shelf: Shelf
    steps: Steps
    admission: Admission
    pace: Pace
    content: ContentHash
    limits: PhotoLimits
    max_overlay_side: int

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
                scored = await self._scored(data, loaded, asked.rule, 0, None, own)
                if asked.style == "overlay":
                    picture: PictureKind = "jpeg" if kind == "image/jpeg" else "png"
                    body = await self._overlay(data, scored, loaded, asked, picture, own)
                else:
                    body = await self._map(kind, scored, loaded, asked.size, own)
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
        require = asked.quality == "require"
        scored = await self._scored(
            data,
            loaded,
            asked.rule,
            asked.evidence,
            account.request_id,
            own,
            eye=asked.eye,
            require_quality=require,
        )
        match asked.map:
            case "none":
                url = None
            case "png":
                url = data_url(await self._map("image/png", scored, loaded, asked.size, own))
            case "overlay":
                url = data_url(await self._overlay(data, scored, loaded, asked, "png", own))
            case "overlay-jpeg":
                url = data_url(await self._overlay(data, scored, loaded, asked, "jpeg", own), "jpeg")
        self.pace.pooled(own.pooled)
        timings = Timings(scored.result.timings_ms.decode, 1e3 * (time.perf_counter() - began))
        return replace(scored.result, map=url, timings_ms=timings)

    async def _scored(
        self,
        data: bytes,
        loaded: LoadedIndex,
        rule: Rule,
        evidence: int,
        request_id: str | None,
        own: PhotoAccount,
        *,
        eye: Eye | None = None,
        require_quality: bool = False,
    ) -> Scored:
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

    async def _map(
        self, kind: MapType, scored: Scored, loaded: LoadedIndex, size: int | None, own: PhotoAccount
    ) -> bytes:
        frame, manifest = scored.photo.frame, loaded.manifest
        return await self.steps.pooled(
            "render", lambda: encoded_map(kind, scored.detection, frame, manifest, size), own
        )

    async def _overlay(
        self,
        data: bytes,
        scored: Scored,
        loaded: LoadedIndex,
        asked: ScoreQuery | MapQuery,
        kind: PictureKind,
        own: PhotoAccount,
    ) -> bytes:
        detection, frame, result = scored.detection, scored.photo.frame, scored.result
        longest = min(asked.size or self.max_overlay_side, self.max_overlay_side)

        def drawn() -> bytes:
            return encoded_overlay(
                data,
                self.limits,
                detection,
                frame,
                result,
                loaded.manifest,
                longest,
                layout=asked.layout,
                kind=kind,
            )

        return await self.steps.pooled("render", drawn, own)
