"""The service's calls and how their answers are read: the same for `Client` and `AsyncClient`."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Final, Literal, TypeAlias
from urllib.parse import quote

from resad_client.errors import (
    NotReady,
    PhotoUnusable,
    Problem,
    ProtocolError,
    ServerProblem,
    SettingError,
    problem_error,
)
from resad_client.http import Attachment, Call, Port, answer, once
from resad_client.maps import AnomalyMap, checked_jpeg, checked_png, read_map_npy
from resad_client.photos import Eye, media_type, unsupported_reason
from resad_client.records import (
    Evidence,
    IndexInfo,
    IndexReference,
    MarkedPhoto,
    MarkList,
    Result,
    from_json,
    from_value,
    items,
    parsed,
)
from resad_client.text import counted

Photo: TypeAlias = bytes | Path
"""A photograph: the bytes of its file, or where that lies."""
MapKind: TypeAlias = Literal["none", "png", "overlay", "overlay-jpeg"]
"""Which picture comes with a result: none, the map in 16 bit, or the map drawn over the photo as PNG or JPEG."""
PictureKind: TypeAlias = Literal["png", "jpeg"]
"""Of an overlay: to the last pixel, or much faster and smaller."""
Layout: TypeAlias = Literal["blend", "side"]
"""Of an overlay: the map over the photo, or the photo by itself beside that."""
Quality: TypeAlias = Literal["report", "require"]
"""What becomes of a photograph below the index's limits of quality: it is reported, or refused."""

_JSON: Final = "application/json"
_NPY: Final = "application/x-npy"
_JPEG: Final = "image/jpeg"
_PNG: Final = "image/png"


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreQuery:
    """Query of `POST /v1/score`, by the service's names; what is None is the service's choice."""

    index: str | None = None
    fpr: float | None = None
    threshold: float | None = None
    false_regions: float | None = None
    frame: int | None = None
    camera: str | None = None
    quality: Quality | None = None
    evidence: int | None = None
    map: MapKind | None = None
    size: int | None = None
    layout: Layout | None = None
    eye: Eye | None = None

    def __post_init__(self) -> None:
        _check_rule(self.fpr, self.threshold)

    @property
    def pairs(self) -> tuple[tuple[str, str], ...]:
        """As it is sent."""
        return _query(**{field.name: getattr(self, field.name) for field in fields(self)})


async def score(port: Port, photo: Photo, query: ScoreQuery) -> Result:
    """One photograph -> its result."""
    call = Call("POST", "/v1/score", _JSON, query.pairs, await _attachment(port, photo, 1))
    return from_json(Result, (await answer(port, call)).content)


async def score_many(port: Port, photos: Sequence[Photo], query: ScoreQuery) -> list[Result | ServerProblem]:
    """Several photographs in one request -> a result or a problem for each, in order."""
    if not photos:
        return []
    body = tuple([await _attachment(port, photo, number) for number, photo in enumerate(photos, start=1)])
    response = await answer(port, Call("POST", "/v1/score", _JSON, query.pairs, body))
    answers = items(parsed(response.content), "results")
    if len(answers) != len(photos):
        raise ProtocolError(f"{counted(len(answers), 'result')} for {counted(len(photos), 'photograph')}")
    return [_result_or_problem(value, f"results[{i}]") for i, value in enumerate(answers)]


async def anomaly_map(port: Port, photo: Photo, *, index: str | None, size: int | None) -> AnomalyMap:
    """One photograph -> its map as numbers."""
    query = _query(index=index, size=size)
    call = Call("POST", "/v1/anomaly-map", _NPY, query, await _attachment(port, photo, 1))
    return read_map_npy((await answer(port, call)).content)


async def overlay(
    port: Port,
    photo: Photo,
    *,
    index: str | None,
    fpr: float | None,
    threshold: float | None,
    false_regions: float | None,
    frame: int | None,
    camera: str | None,
    size: int | None,
    layout: Layout | None,
    kind: PictureKind,
) -> bytes:
    """One photograph -> a picture of it under its map."""
    _check_rule(fpr, threshold)
    query = _query(
        index=index, fpr=fpr, threshold=threshold, false_regions=false_regions, frame=frame, camera=camera,
        size=size, layout=layout, style="overlay",
    )  # fmt: skip
    accept = _JPEG if kind == "jpeg" else _PNG
    call = Call("POST", "/v1/anomaly-map", accept, query, await _attachment(port, photo, 1))
    return (checked_jpeg if kind == "jpeg" else checked_png)((await answer(port, call)).content)


@dataclass(frozen=True, slots=True)
class NewMark:
    """A region to be marked.

    label: `normal-variant`, `artifact`, or a kind of lesion, as `MarkList.labels` has them.  contour: polygon of
    at least three points, pixel indexes of the photograph, as `Finding.contour`.
    """

    label: str
    contour: Sequence[tuple[float, float]]


async def mark(
    port: Port, photo: Photo, marks: Sequence[NewMark], *, index: str | None, reader: str | None
) -> MarkedPhoto:
    """Regions of one photograph -> what the journal has of them."""
    document = {"marks": [{"label": entry.label, "contour": list(entry.contour)} for entry in marks]}
    text = json.dumps(document if reader is None else document | {"reader": reader}, allow_nan=False)
    parts = await _attachment(port, photo, 1), Attachment("marks", _JSON, text.encode(), part="marks")
    call = Call("POST", "/v1/marks", _JSON, _query(index=index), parts)
    return from_json(MarkedPhoto, (await answer(port, call, changes=True)).content)


async def marks(port: Port, index: str | None) -> MarkList:
    """The journal of marks."""
    call = Call("GET", "/v1/marks", _JSON, _query(index=index))
    return from_json(MarkList, (await answer(port, call)).content)


async def withdraw_mark(port: Port, name: str, index: str | None) -> None:
    """Take a mark back."""
    call = Call("DELETE", f"/v1/marks/{quote(name, safe='')}", "*/*", _query(index=index))
    await answer(port, call, changes=True)


async def evidence_crop(port: Port, index: IndexReference, evidence: Evidence) -> bytes:
    """The surroundings of a healthy patch -> a JPEG."""
    name, photo = (quote(part, safe="") for part in (index.name, evidence.photo))
    path = f"/v1/indexes/{name}/evidence/{photo}/{evidence.y}/{evidence.x}"
    return checked_jpeg((await answer(port, Call("GET", path, _JPEG, _query(version=index.version)))).content)


async def indexes(port: Port) -> tuple[IndexInfo, ...]:
    """What is served."""
    value = parsed((await answer(port, Call("GET", "/v1/indexes", _JSON))).content)
    served = value if isinstance(value, list) else items(value, "indexes")
    return tuple(from_value(IndexInfo, item, f"indexes[{i}]") for i, item in enumerate(served))


async def ready(port: Port) -> bool:
    """Whether the service can score now; asked once, not again."""
    try:
        await once(port, Call("GET", "/readyz", "*/*"))
    except NotReady:
        return False
    return True


async def _attachment(port: Port, photo: Photo, number: int) -> Attachment:
    if isinstance(photo, bytes):
        data, name = photo, f"photo {number} ({len(photo)} bytes)"
    else:
        name = str(photo)
        try:
            data = await port.read(photo)
        except OSError as error:
            raise PhotoUnusable(f"{name}: cannot be read ({error.strerror or error})") from error
    kind = media_type(data)
    if kind is None:
        raise PhotoUnusable(f"{name}: {unsupported_reason(data)}")
    return Attachment(f"photo-{number}", kind, data)


def _check_rule(fpr: float | None, threshold: float | None) -> None:
    """As the service has it, but before anything is sent."""
    if fpr is not None and threshold is not None:
        raise SettingError("fpr and threshold exclude each other: give one of them")


def _query(**options: str | float | None) -> tuple[tuple[str, str], ...]:
    return tuple((name, str(value)) for name, value in options.items() if value is not None)


def _result_or_problem(value: object, where: str) -> Result | ServerProblem:
    """A problem has a status, a result has none."""
    if isinstance(value, dict) and "status" in value:
        return problem_error(from_value(Problem, value, where))
    return from_value(Result, value, where)
