"""The HTTP calls: scoring, maps, evidence, indexes, metrics, health, and the page."""

import asyncio
import pathlib
import re
import time
from contextlib import ExitStack
from dataclasses import asdict
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Path, Query, Request, Response
from pydantic import TypeAdapter, ValidationError
from starlette.responses import HTMLResponse
from starlette.staticfiles import StaticFiles

from resad.loaded_index import LoadedIndex
from resad.pictures.evidence import Pixels, crop_around, jpeg, keeps_crops, read_square
from resad.result import Result
from service import problems
from service.maps import MAP_TYPES, OVERLAY_TYPES, negotiate
from service.metrics import MEDIA_TYPE
from service.middleware import account_of
from service.problems import INVALID_REQUEST, NO_EVIDENCE, Refusal, documented, faults
from service.registry import Served
from service.schemas import (
    NAME_PATTERN,
    Activation,
    Health,
    IndexDetail,
    IndexList,
    IndexState,
    IndexSummary,
    MapQuery,
    Results,
    ScoreQuery,
)
from service.security import REFUSED, needs
from service.state import House
from service.tracing import Account, Step
from service.uploads import MULTIPART, PART, PHOTO_TYPES, Upload, gathered, read_limited, read_upload

router: Final = APIRouter()
_ANSWER: Final[TypeAdapter[Result | Results]] = TypeAdapter(Result | Results)

_UPLOAD: Final = (
    *REFUSED,
    problems.MALFORMED_UPLOAD,
    problems.UNKNOWN_INDEX,
    problems.UPLOAD_SLOW,
    problems.PHOTO_TOO_LARGE,
    problems.UPLOAD_TOO_LARGE,
    problems.UNSUPPORTED,
    problems.PHOTO_UNREADABLE,
    problems.NOT_FUNDUS,
    problems.INVALID_REQUEST,
    problems.INDEX_NOT_NAMED,
    problems.BUSY,
    problems.NOT_READY,
    problems.NOT_LIVE,
    problems.OUT_OF_MEMORY,
    problems.DEADLINE,
)
_BINARY: Final = {"schema": {"type": "string", "format": "binary"}}
_ONE_PHOTO: Final[dict[str, Any]] = dict.fromkeys(PHOTO_TYPES, _BINARY)
_SEVERAL: Final[dict[str, Any]] = {
    "schema": {
        "type": "object",
        "required": [PART],
        "properties": {PART: {"type": "array", "minItems": 1, "items": _BINARY["schema"]}},
    },
    "encoding": {PART: {"contentType": ", ".join(PHOTO_TYPES)}},
}


def _house(request: Request) -> House:
    house: House = request.app.state.house
    return house


In = Annotated[House, Depends(_house)]
Own = Annotated[Account, Depends(account_of)]


@router.post(
    "/v1/score",
    summary="Score one photograph, or several",
    dependencies=[Depends(needs("score"))],
    response_model=Result | Results,
    responses={
        200: {
            "description": "One result for a photograph as the body; a list, in order, for a multipart.",
        },
        **documented((*_UPLOAD, problems.POOR_QUALITY)),
    },
    openapi_extra={"requestBody": {"required": True, "content": {**_ONE_PHOTO, MULTIPART: _SEVERAL}}},
)
async def score(request: Request, house: In, own: Own, asked: Annotated[ScoreQuery, Query()]) -> Response:
    """The photograph is the body; or a multipart's parts named `photo` are, and each has its own answer.

    Nothing that is uploaded is kept. Research use only, not for diagnosis.
    """
    with ExitStack() as places:
        name = _welcome(house, asked.index, places)
        upload = await _received(request, house, own, places, several=True)
        answer = await house.pipeline.score(request, upload, places, name, asked, own)
    return Response(_ANSWER.dump_json(answer), media_type="application/json")


@router.post(
    "/v1/anomaly-map",
    summary="The anomaly map of one photograph",
    dependencies=[Depends(needs("score"))],
    response_class=Response,
    responses={
        200: {
            "description": "By `Accept`: 16 bits on the index's absolute scale, or float32 feature distances, or "
            "with `style=overlay` a picture. PNG and TIFF of maps state their scale, unit and fingerprint inside.",
            "content": dict.fromkeys((*MAP_TYPES, *OVERLAY_TYPES[1:]), _BINARY),
            "headers": {
                "Resad-Index": {"description": "NAME/VERSION", "schema": {"type": "string"}},
                "Resad-Full-Scale": {
                    "description": "The distance at which the scale ends.",
                    "schema": {"type": "number"},
                },
            },
        },
        **documented((problems.NOT_ACCEPTABLE, *_UPLOAD)),
    },
    openapi_extra={"requestBody": {"required": True, "content": _ONE_PHOTO}},
)
async def anomaly_map(request: Request, house: In, own: Own, asked: Annotated[MapQuery, Query()]) -> Response:
    """The map in the photograph's own frame, at its size or smaller; overlays are bounded in size."""
    kind = negotiate(",".join(request.headers.getlist("accept")), overlay=asked.style == "overlay")
    with ExitStack() as places:
        name = _welcome(house, asked.index, places)
        upload = await _received(request, house, own, places, several=False)
        body, manifest = await house.pipeline.anomaly_map(request, upload.only(), places, name, asked, kind, own)
    scale = {
        "Resad-Index": f"{manifest.name}/{manifest.version}",
        "Resad-Full-Scale": str(manifest.calibration.full_scale),
        "Vary": "Accept",
    }
    return Response(body, headers=scale, media_type=kind)


@router.get("/livez", summary="Whether the service works", responses=documented((problems.NOT_LIVE,)))
async def livez(house: In) -> Health:
    """503 once the thread that scores has died: restart the service."""
    if not house.worker.alive:
        raise problems.Refusal(problems.NOT_LIVE, problems.NOT_LIVE.example)
    return Health("live")


@router.get("/readyz", summary="Whether every index answers", responses=documented((problems.NOT_READY,)))
async def readyz(house: In) -> Health:
    """200 once every live index has scored its probe photograph as when it was built; 503 while stopping."""
    missing = house.not_ready()
    if missing is not None:
        raise problems.Refusal(problems.NOT_READY, missing)
    return Health("ready")


def _welcome(house: House, index: str | None, places: ExitStack) -> str:
    """What is settled before the body is read: which index answers, and a place for the first photograph."""
    name = house.registry.answering(index)
    places.enter_context(house.admission.places(1))
    return name


async def _received(request: Request, house: House, own: Account, places: ExitStack, *, several: bool) -> Upload:
    """The upload, its bytes counted as long as the places are held."""
    held = places.enter_context(house.admission.holding())
    began = time.perf_counter()
    upload = await read_upload(request, house.settings, held, several=several)
    seconds = time.perf_counter() - began
    house.metrics.stage("receive", seconds)
    own.received = Step("receive", time.time(), seconds)
    return upload


_JPEG: Final = "image/jpeg"
_PICTURE: Final[dict[str, Any]] = {_JPEG: {"schema": {"type": "string", "format": "binary"}}}
_PRIVATE: Final = {"Cache-Control": "private, no-store"}
"""Pictures of patients do not belong into any cache."""


@router.get(
    "/v1/indexes/{name}/evidence/{photo}/{y}/{x}",
    summary="What a healthy patch looks like",
    response_class=Response,
    dependencies=[Depends(needs("evidence"))],
    responses={
        200: {"description": "The surroundings of the cell, which is framed.", "content": _PICTURE},
        **documented(
            (*REFUSED, problems.UNKNOWN_INDEX, NO_EVIDENCE, problems.INVALID_REQUEST, problems.NOT_READY)
        ),
    },
)
async def evidence(
    house: In,
    name: Annotated[str, Path(description="As in `GET /v1/indexes`.")],
    photo: Annotated[str, Path(max_length=64, description="`photo` of an item of `evidence`.")],
    y: Annotated[int, Path(ge=0, le=9999, description="Its `y`.")],
    x: Annotated[int, Path(ge=0, le=9999, description="Its `x`.")],
    version: Annotated[
        str | None,
        Query(max_length=64, description="`index.version` of the result: 404 where another one answers by now."),
    ] = None,
) -> Response:
    """A JPEG, where the index was built with `--keep-crops`.

    An id means another photograph in another version: name the version that the result states.  The picture is
    as the reference photo is: where the item is `mirrored`, turn it left to right beside the finding.
    """
    async with house.shelf.lent(house.registry.answering(name)) as loaded:
        square = await asyncio.to_thread(_square, house, loaded, photo, version)
        grid = loaded.manifest.counts.grid
    if y >= grid[0] or x >= grid[1]:
        raise Refusal(NO_EVIDENCE, f"cell {y}, {x}: the patch grid has {grid[0]} x {grid[1]} cells")
    return Response(jpeg(crop_around(square, (y, x), grid)), headers=_PRIVATE, media_type=_JPEG)


def _square(house: House, loaded: LoadedIndex, photo: str, version: str | None) -> Pixels:
    manifest = loaded.manifest
    if version is not None and version != manifest.version:
        raise Refusal(NO_EVIDENCE, f"{manifest.name} answers with another version by now")
    if not keeps_crops(manifest):
        raise Refusal(NO_EVIDENCE, NO_EVIDENCE.example)
    # Only an id that the index has ever becomes part of a path.
    if all(record.id != photo for record in loaded.photos):
        raise Refusal(NO_EVIDENCE, f"{manifest.name} has no such reference photo")
    square = read_square(house.settings.root / manifest.name / manifest.version, manifest, photo)
    if square is None:
        raise Refusal(NO_EVIDENCE, f"{manifest.name} keeps no picture of this reference photo")
    return square


_BODY_LIMIT: Final = 4096
_LIST: Final = TypeAdapter(IndexList)
_DETAIL: Final = TypeAdapter(IndexDetail)

Name = Annotated[str, Path(pattern=NAME_PATTERN, description="As in `GET /v1/indexes`.")]


@router.get(
    "/v1/indexes",
    summary="What is served",
    dependencies=[Depends(needs("score", "admin"))],
    response_model=IndexList,
    responses=documented(REFUSED),
)
async def indexes(house: In) -> Response:
    """Every index under the root, with the version that answers."""
    found = tuple(_summary(house, entry) for entry in house.registry.served.values())
    return Response(_LIST.dump_json(IndexList(found)), media_type="application/json")


@router.get(
    "/v1/indexes/{name}",
    summary="One index",
    dependencies=[Depends(needs("score", "admin"))],
    response_model=IndexDetail,
    responses=documented((*REFUSED, problems.UNKNOWN_INDEX, INVALID_REQUEST, problems.NOT_READY)),
)
async def index(house: In, name: Name) -> Response:
    """With its manifest, its calibration, its versions, and why one of them is not live."""
    return await _detail(house, house.registry.get(name))


@router.put(
    "/v1/indexes/{name}/current",
    summary="Make a version live",
    dependencies=[Depends(needs("admin"))],
    response_model=IndexDetail,
    responses=documented(
        (
            *REFUSED,
            problems.CALL_OFF,
            problems.UNKNOWN_INDEX,
            problems.UNKNOWN_VERSION,
            problems.READ_ONLY,
            problems.INDEX_INVALID,
            problems.UPLOAD_SLOW,
            problems.UPLOAD_TOO_LARGE,
            problems.UNSUPPORTED,
            INVALID_REQUEST,
            problems.NOT_READY,
            problems.INDEX_TOO_LARGE,
        )
    ),
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": Activation.model_json_schema()}},
        }
    },
)
async def activate(request: Request, house: In, name: Name) -> Response:
    """Verifies the version, then writes CURRENT; every service that watches the same volume follows.

    Off unless the service was started with a keys file; needs a key with the scope `admin`.
    """
    chunks = read_limited(request, _BODY_LIMIT, problems.UPLOAD_TOO_LARGE, house.settings)
    body = await gathered(chunks)
    try:
        wanted = Activation.model_validate_json(body)
    except ValidationError as error:
        raise Refusal(INVALID_REQUEST, faults(error.errors(include_url=False))) from error
    entry = await asyncio.to_thread(house.succession.activate, name, wanted.version)
    return await _detail(house, entry)


@router.get(
    "/metrics",
    summary="For Prometheus",
    dependencies=[Depends(needs("metrics", "admin"))],
    response_class=Response,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}, **documented(REFUSED)},
)
async def metrics(house: In) -> Response:
    """Requests, queue, batches, seconds per stage, versions, scores and their drift, memory."""
    return Response(await house.metrics_text(), media_type=MEDIA_TYPE)


async def _detail(house: House, entry: Served) -> Response:
    versions = await asyncio.to_thread(house.registry.versions, entry.name)
    detail = IndexDetail(**asdict(_summary(house, entry)), versions=versions, manifest=entry.manifest)
    return Response(_DETAIL.dump_json(detail), media_type="application/json")


def _summary(house: House, entry: Served) -> IndexSummary:
    manifest = entry.manifest
    return IndexSummary(
        name=entry.name,
        default=entry.name == house.registry.default,
        state=_state(entry),
        fault=entry.fault,
        version=manifest.version if manifest else None,
        fingerprint=manifest.fingerprint if manifest else None,
        backbone=manifest.config.backbone.name if manifest else None,
        photos=manifest.counts.photos if manifest else None,
        memories=manifest.counts.memories if manifest else None,
    )


def _state(entry: Served) -> IndexState:
    if entry.live:
        return "serving"
    if entry.answers:
        return "resting"
    return "failed" if entry.fault else "loading"


_FOLDER: Final = pathlib.Path(__file__).with_name("web")

HEADERS: Final = {"Cache-Control": "no-cache"}
"""Asked for again each time, and answered with 304: a new version's modules never meet an old one's."""


class _Files(StaticFiles):
    def file_response(self, *args: Any, **options: Any) -> Response:
        response = super().file_response(*args, **options)
        response.headers.update(HEADERS)
        return response


files: Final = _Files(directory=_FOLDER)
"""To be mounted at `/web`."""


_ABOUT_DOCS: Final = re.compile(r"\s*<(\w+)[^>]* data-docs>.*?</\1>", re.DOTALL)
"""An element that leads to /docs; nothing of the same kind lies within it."""


def page_text(*, docs: bool) -> str:
    """The page; without what leads to /docs where these are not served."""
    text = (_FOLDER / "index.html").read_text(encoding="utf-8")
    return text if docs else _ABOUT_DOCS.sub("", text)


@router.get("/", include_in_schema=False)
async def page(request: Request) -> HTMLResponse:
    """The page itself."""
    return HTMLResponse(request.app.state.page, headers=HEADERS)
