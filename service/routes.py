"""The calls: HTTP on the one side, the pipeline and the registry on the other."""

import time
from contextlib import ExitStack
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import TypeAdapter

from resad.result import Result
from service import problems
from service.account import Account, Step
from service.exchange import account_of
from service.house import House
from service.maps import MAP_TYPES, OVERLAY_TYPES, negotiate
from service.problems import documented
from service.schemas import Health, MapQuery, Results, ScoreQuery
from service.security import REFUSED, needs
from service.uploads import MULTIPART, PART, PHOTO_TYPES, Upload, read_upload

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
