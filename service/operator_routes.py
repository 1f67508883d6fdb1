"""The calls of those who run the service: indexes, metrics."""

import asyncio
from dataclasses import asdict
from typing import Annotated, Final

from fastapi import APIRouter, Depends, Path, Request, Response
from pydantic import TypeAdapter, ValidationError

from service import problems
from service.bodies import gathered, read_limited
from service.house import House
from service.metrics import MEDIA_TYPE
from service.problems import INVALID_REQUEST, Refusal, documented, faults
from service.registry import Served
from service.routes import In
from service.schemas import NAME_PATTERN, Activation, IndexDetail, IndexList, IndexState, IndexSummary
from service.security import REFUSED, needs

router: Final = APIRouter()
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
