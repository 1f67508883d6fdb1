"""upload -> scorer -> drawing -> answer: the online sentence, for one photograph or several."""

import asyncio
import time
from contextlib import ExitStack
from dataclasses import dataclass, replace

from starlette.requests import Request

from resad.loaded_index import LoadedIndex
from resad.manifest import Manifest
from resad.rendering import PictureKind
from resad.result import Result, Timings
from service.account import Account, PhotoAccount
from service.admission import Admission
from service.drawing import Drawing
from service.maps import MapType, data_url
from service.pace import Pace
from service.problems import Problem, Refusal, refusal
from service.schemas import MapQuery, Results, ScoreQuery
from service.scorer import Scored, Scorer
from service.shelf import Shelf
from service.uploads import Upload
from service.waiting import in_time


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
