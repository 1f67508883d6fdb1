"""The HTTP calls: scoring, maps, evidence, indexes, metrics, health, and the page."""

import asyncio
import pathlib
import re
import time
from contextlib import ExitStack
from dataclasses import asdict
from functools import partial
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Path, Query, Request, Response
from pydantic import TypeAdapter, ValidationError
from resad_client.records import MarkedPhoto, MarkList, Result
from starlette.responses import HTMLResponse, StreamingResponse
from starlette.staticfiles import StaticFiles

from resad.index_warnings import index_warnings
from resad.loaded_index import LoadedIndex
from resad.pictures.evidence import Pixels, crop_around, jpeg, keeps_crops, read_square
from service import problems
from service.dicom import RELATED, wants_dicom
from service.maps import MAP_TYPES, OVERLAY_TYPES, MapFile, negotiate
from service.marks import list_marks, parse_marks, withdraw_mark, write_marks
from service.metrics import MEDIA_TYPE
from service.middleware import held_until_sent, trace_of
from service.problems import INVALID_REQUEST, NO_EVIDENCE, Refusal, documented, faults
from service.registry import IndexEntry
from service.schemas import (
    NAME_PATTERN,
    Activation,
    Health,
    IndexDetail,
    IndexList,
    IndexState,
    IndexSummary,
    MapQuery,
    MarksQuery,
    NewMarks,
    Results,
    ScoreQuery,
)
from service.security import REFUSED, require_scope
from service.state import AppState
from service.tracing import RequestTrace, Step
from service.uploads import MARKS_PART, MULTIPART, PART, PHOTO_TYPES, Upload, join

router: Final = APIRouter()
_ANSWER: Final[TypeAdapter[Result | Results]] = TypeAdapter(Result | Results)

_UPLOAD_PROBLEMS: Final = (
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
_PHOTO_BODY: Final[dict[str, Any]] = dict.fromkeys(PHOTO_TYPES, _BINARY)
_MULTIPART_BODY: Final[dict[str, Any]] = {
    "schema": {
        "type": "object",
        "required": [PART],
        "properties": {PART: {"type": "array", "minItems": 1, "items": _BINARY["schema"]}},
    },
    "encoding": {PART: {"contentType": ", ".join(PHOTO_TYPES)}},
}


def _state_of(request: Request) -> AppState:
    state: AppState = request.app.state.app_state
    return state


State = Annotated[AppState, Depends(_state_of)]
Trace = Annotated[RequestTrace, Depends(trace_of)]


@router.post(
    "/v1/score",
    summary="Score one photograph, or several",
    dependencies=[Depends(require_scope("score"))],
    response_model=Result | Results,
    responses={
        200: {
            "description": "One result for a photograph as the body; a list, in order, for a multipart. Where "
            '`Accept` prefers `multipart/related; type="application/dicom"`, one DICOM photograph gets DICOM '
            "objects of its study: map, findings, report, overlay.",
            "content": {RELATED: _BINARY},
        },
        **documented((problems.NOT_ACCEPTABLE, *_UPLOAD_PROBLEMS, problems.POOR_QUALITY)),
    },
    openapi_extra={"requestBody": {"required": True, "content": {**_PHOTO_BODY, MULTIPART: _MULTIPART_BODY}}},
)
async def score(request: Request, state: State, trace: Trace, query: Annotated[ScoreQuery, Query()]) -> Response:
    """The photograph is the body; or a multipart's parts named `photo` are, and each has its own answer.

    Nothing that is uploaded is kept. Research use only, not for diagnosis.
    """
    as_dicom = wants_dicom(",".join(request.headers.getlist("accept")))
    with ExitStack() as slots:
        name = _admit(state, query.index, slots, trace)
        upload = await _receive(request, state, trace, slots, several=True)
        if as_dicom:
            dicom = await state.pipeline.dicom(request, upload, slots, name, query, trace)
            _hold(request, state, trace, len(dicom.body))
            return Response(dicom.body, media_type=dicom.media_type, headers={"Vary": "Accept"})
        answer = await state.pipeline.score(request, upload, slots, name, query, trace)
    body = await asyncio.to_thread(_ANSWER.dump_json, answer)
    _hold(request, state, trace, len(body))
    return Response(body, media_type="application/json")


@router.post(
    "/v1/anomaly-map",
    summary="The anomaly map of one photograph",
    dependencies=[Depends(require_scope("score"))],
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
        **documented((problems.NOT_ACCEPTABLE, *_UPLOAD_PROBLEMS)),
    },
    openapi_extra={"requestBody": {"required": True, "content": _PHOTO_BODY}},
)
async def anomaly_map(
    request: Request, state: State, trace: Trace, query: Annotated[MapQuery, Query()]
) -> Response:
    """The map in the photograph's own frame, at its size or smaller; overlays are bounded in size."""
    media_type = negotiate(",".join(request.headers.getlist("accept")), overlay=query.style == "overlay")
    with ExitStack() as slots:
        name = _admit(state, query.index, slots, trace)
        upload = await _receive(request, state, trace, slots, several=False)
        body, manifest = await state.pipeline.anomaly_map(request, upload, slots, name, query, media_type, trace)
    scale = {
        "Resad-Index": f"{manifest.name}/{manifest.version}",
        "Resad-Full-Scale": str(manifest.calibration.full_scale),
        "Vary": "Accept",
    }
    _hold(request, state, trace, body.held_bytes if isinstance(body, MapFile) else len(body))
    if isinstance(body, MapFile):
        return StreamingResponse(state.pipeline.map_parts(body, trace), headers=scale, media_type=media_type)
    return Response(body, headers=scale, media_type=media_type)


@router.get("/livez", summary="Whether the service works", responses=documented((problems.NOT_LIVE,)))
async def livez(state: State) -> Health:
    """503 once the thread that scores has died: restart the service."""
    if not state.worker.alive:
        raise problems.Refusal(problems.NOT_LIVE, problems.NOT_LIVE.example)
    return Health("live")


@router.get("/readyz", summary="Whether every index answers", responses=documented((problems.NOT_READY,)))
async def readyz(state: State) -> Health:
    """200 once every live index has scored its probe photograph as when it was built; 503 while stopping."""
    reason = state.not_ready()
    if reason is not None:
        raise problems.Refusal(problems.NOT_READY, reason)
    return Health("ready")


def _admit(state: AppState, index: str | None, slots: ExitStack, trace: RequestTrace) -> str:
    """Before the body is read: resolve the index, and take a queue slot for the first photograph."""
    name = state.registry.resolve(index)
    slots.enter_context(state.admission.admit(1, trace.key))
    return name


async def _receive(
    request: Request, state: AppState, trace: RequestTrace, slots: ExitStack, *, several: bool
) -> Upload:
    """Read the upload; its bytes are reserved as long as the slots."""
    reservation = slots.enter_context(state.admission.reserve_bytes(trace.key))
    began = time.perf_counter()
    upload = await state.body_reader.read_upload(request, reservation, several=several)
    seconds = time.perf_counter() - began
    state.metrics.stage("receive", seconds)
    trace.received = Step("receive", time.time(), seconds)
    return upload


def _hold(request: Request, state: AppState, trace: RequestTrace, count: int) -> None:
    """Reserve the bytes of an answer until it is sent; raises `Refusal` (429) if all together are too many."""
    held_until_sent(request).enter_context(state.admission.reserve_bytes(trace.key)).grow_to(count)


_JPEG: Final = "image/jpeg"
_PICTURE: Final[dict[str, Any]] = {_JPEG: {"schema": {"type": "string", "format": "binary"}}}
_PRIVATE: Final = {"Cache-Control": "private, no-store"}
"""No cache may keep pictures of patients."""


@router.get(
    "/v1/indexes/{name}/evidence/{photo}/{y}/{x}",
    summary="What a healthy patch looks like",
    response_class=Response,
    dependencies=[Depends(require_scope("evidence"))],
    responses={
        200: {"description": "The surroundings of the cell, which is framed.", "content": _PICTURE},
        **documented(
            (*REFUSED, problems.UNKNOWN_INDEX, NO_EVIDENCE, problems.INVALID_REQUEST, problems.NOT_READY)
        ),
    },
)
async def evidence(
    state: State,
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
    async with state.index_cache.lease(state.registry.resolve(name)) as loaded:
        square = await asyncio.to_thread(_read_square, state, loaded, photo, version)
        grid = loaded.manifest.counts.grid
    if y >= grid[0] or x >= grid[1]:
        raise Refusal(NO_EVIDENCE, f"cell {y}, {x}: the patch grid has {grid[0]} x {grid[1]} cells")
    return Response(jpeg(crop_around(square, (y, x), grid)), headers=_PRIVATE, media_type=_JPEG)


def _read_square(state: AppState, loaded: LoadedIndex, photo: str, version: str | None) -> Pixels:
    manifest = loaded.manifest
    if version is not None and version != manifest.version:
        raise Refusal(NO_EVIDENCE, f"{manifest.name} answers with another version by now")
    if not keeps_crops(manifest):
        raise Refusal(NO_EVIDENCE, NO_EVIDENCE.example)
    # Only ids of the index become part of a path.
    if photo not in loaded.examples.photo_ids() and all(record.id != photo for record in loaded.photos):
        raise Refusal(NO_EVIDENCE, f"{manifest.name} has no such reference photo")
    square = read_square(state.settings.root / manifest.name / manifest.version, manifest, photo)
    if square is None:
        raise Refusal(NO_EVIDENCE, f"{manifest.name} keeps no picture of this reference photo")
    return square


_MARKED: Final = TypeAdapter(MarkedPhoto)
_MARKS: Final = TypeAdapter(MarkList)


def _new_marks_schema() -> dict[str, Any]:
    """The schema with its definition in place: in the OpenAPI document `#/$defs` would be the document's own."""
    schema = NewMarks.model_json_schema()
    schema["properties"]["marks"]["items"] = schema.pop("$defs")["NewMark"]
    return schema


@router.post(
    "/v1/marks",
    summary="Mark regions of a photograph",
    status_code=201,
    dependencies=[Depends(require_scope("teach"))],
    response_model=MarkedPhoto,
    responses=documented((*_UPLOAD_PROBLEMS, problems.CALL_OFF, problems.READ_ONLY)),
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {
                MULTIPART: {
                    "schema": {
                        "type": "object",
                        "required": [PART, MARKS_PART],
                        "properties": {PART: _BINARY["schema"], MARKS_PART: _new_marks_schema()},
                    },
                    "encoding": {
                        PART: {"contentType": ", ".join(PHOTO_TYPES)},
                        MARKS_PART: {"contentType": "application/json"},
                    },
                }
            },
        }
    },
)
async def mark(request: Request, state: State, trace: Trace, query: Annotated[MarksQuery, Query()]) -> Response:
    """Adds marks to the journal beside the index: normal variants, artifacts, known lesions.

    Nothing changes at once: `resad-indexer teach` makes a version of them.  Of the photograph only the features of
    the marked patches are kept, and its prepared square where the index keeps such pictures.
    """
    with ExitStack() as slots:
        name = _admit(state, query.index, slots, trace)
        reservation = slots.enter_context(state.admission.reserve_bytes(trace.key))
        data, part = await state.body_reader.read_marked(request, reservation)
        marks = parse_marks(part)
        write = partial(write_marks, state.settings.root / name, marks, trace.key)
        marked = await state.pipeline.mark(request, data, slots, name, write, trace)
    return Response(_MARKED.dump_json(marked), 201, media_type="application/json")


@router.get(
    "/v1/marks",
    summary="The journal of marks",
    dependencies=[Depends(require_scope("teach"))],
    response_model=MarkList,
    responses=documented((*REFUSED, problems.CALL_OFF, problems.UNKNOWN_INDEX, INVALID_REQUEST,
                          problems.INDEX_NOT_NAMED)),
)  # fmt: skip
async def marks(state: State, query: Annotated[MarksQuery, Query()]) -> Response:
    """The marks that were not taken back, oldest first, and the labels that marks may have."""
    place = state.settings.root / state.registry.resolve(query.index)
    journal = await asyncio.to_thread(list_marks, place)
    return Response(await asyncio.to_thread(_MARKS.dump_json, journal), media_type="application/json")


@router.delete(
    "/v1/marks/{mark}",
    summary="Take a mark back",
    status_code=204,
    dependencies=[Depends(require_scope("teach"))],
    response_class=Response,
    responses=documented(
        (
            *REFUSED,
            problems.CALL_OFF,
            problems.UNKNOWN_INDEX,
            problems.UNKNOWN_MARK,
            INVALID_REQUEST,
            problems.INDEX_NOT_NAMED,
            problems.READ_ONLY,
        )
    ),
)
async def withdraw(
    state: State,
    trace: Trace,
    mark: Annotated[str, Path(max_length=64, description="`id` of a mark.")],
    query: Annotated[MarksQuery, Query()],
) -> Response:
    """The journal keeps it as taken back; a version that has learned it forgets it at the next `teach`."""
    place = state.settings.root / state.registry.resolve(query.index)
    await asyncio.to_thread(withdraw_mark, place, mark, trace.key)
    return Response(status_code=204)


_ACTIVATION_BYTES: Final = 4096
_LIST: Final = TypeAdapter(IndexList)
_DETAIL: Final = TypeAdapter(IndexDetail)

Name = Annotated[str, Path(pattern=NAME_PATTERN, description="As in `GET /v1/indexes`.")]


@router.get(
    "/v1/indexes",
    summary="What is served",
    dependencies=[Depends(require_scope("score", "admin"))],
    response_model=IndexList,
    responses=documented(REFUSED),
)
async def indexes(state: State) -> Response:
    """Every index under the root, with the version that answers."""
    summaries = tuple(_summary(state, entry) for entry in state.registry.entries.values())
    return Response(_LIST.dump_json(IndexList(summaries)), media_type="application/json")


@router.get(
    "/v1/indexes/{name}",
    summary="One index",
    dependencies=[Depends(require_scope("score", "admin"))],
    response_model=IndexDetail,
    responses=documented((*REFUSED, problems.UNKNOWN_INDEX, INVALID_REQUEST, problems.NOT_READY)),
)
async def index(state: State, name: Name) -> Response:
    """With its manifest, its calibration, its versions, and why one of them is not live."""
    return await _detail(state, state.registry.get(name))


@router.put(
    "/v1/indexes/{name}/current",
    summary="Make a version live",
    dependencies=[Depends(require_scope("admin"))],
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
async def activate(request: Request, state: State, name: Name) -> Response:
    """Verifies the version, then writes CURRENT; every service that watches the same volume follows.

    Off unless the service was started with a keys file; needs a key with the scope `admin`.
    """
    body = await join(state.body_reader.chunks(request, _ACTIVATION_BYTES, problems.UPLOAD_TOO_LARGE))
    try:
        activation = Activation.model_validate_json(body)
    except ValidationError as error:
        raise Refusal(INVALID_REQUEST, faults(error.errors(include_url=False))) from error
    entry = await asyncio.to_thread(state.reloader.activate, name, activation.version)
    return await _detail(state, entry)


@router.get(
    "/metrics",
    summary="For Prometheus",
    dependencies=[Depends(require_scope("metrics", "admin"))],
    response_class=Response,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}, **documented(REFUSED)},
)
async def metrics(state: State) -> Response:
    """Requests, queue, batches, seconds per stage, versions, scores and their drift, memory."""
    return Response(await state.metrics_text(), media_type=MEDIA_TYPE)


async def _detail(state: AppState, entry: IndexEntry) -> Response:
    versions = await asyncio.to_thread(state.registry.versions, entry.name)
    detail = IndexDetail(**asdict(_summary(state, entry)), versions=versions, manifest=entry.manifest)
    return Response(_DETAIL.dump_json(detail), media_type="application/json")


def _summary(state: AppState, entry: IndexEntry) -> IndexSummary:
    manifest = entry.manifest
    return IndexSummary(
        name=entry.name,
        default=entry.name == state.registry.default,
        state=_state(entry),
        fault=entry.fault,
        version=manifest.version if manifest else None,
        fingerprint=manifest.fingerprint if manifest else None,
        backbone=manifest.config.backbone.name if manifest else None,
        photos=manifest.counts.photos if manifest else None,
        memories=manifest.counts.memories if manifest else None,
        warnings=index_warnings(manifest) if manifest else (),
    )


def _state(entry: IndexEntry) -> IndexState:
    if entry.live:
        return "serving"
    if entry.answers:
        return "resting"
    return "failed" if entry.fault else "loading"


_WEB: Final = pathlib.Path(__file__).with_name("web")

_REVALIDATE: Final = {"Cache-Control": "no-cache"}
"""Browsers ask each time (and get 304), so that modules of two versions are never mixed."""


class _Files(StaticFiles):
    def file_response(self, *args: Any, **options: Any) -> Response:
        response = super().file_response(*args, **options)
        response.headers.update(_REVALIDATE)
        return response


files: Final = _Files(directory=_WEB)
"""Mounted at `/web`."""


_DOCS_LINK: Final = re.compile(r"\s*<(\w+)[^>]* data-docs>.*?</\1>", re.DOTALL)
"""An element with a link to /docs; it contains no element of its own kind."""


def page_text(*, docs: bool) -> str:
    """The page; without links to /docs if they are not served."""
    text = (_WEB / "index.html").read_text(encoding="utf-8")
    return text if docs else _DOCS_LINK.sub("", text)


@router.get("/", include_in_schema=False)
async def page(request: Request) -> HTMLResponse:
    """The page."""
    return HTMLResponse(request.app.state.page, headers=_REVALIDATE)
