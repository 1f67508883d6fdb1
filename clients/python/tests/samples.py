"""Answers as the service gives them, and a transport that plays the service."""

import io
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from email.message import Message
from email.parser import BytesParser
from email.policy import HTTP

import httpx
import numpy as np
from hypothesis import strategies as st
from PIL import Image

from resad_client import (
    Disc,
    Evidence,
    Finding,
    IndexReference,
    IndexWarning,
    Interval,
    NormalsReference,
    PhotoQuality,
    PhotoReference,
    QualityMeasures,
    Result,
    Timings,
)

EXAMPLE = """
{"request_id": "01J7", "image_score": 2.314, "p_value": 0.0196, "fpr": 0.05, "threshold": 1.982, "abnormal": true,
 "reason": null,
 "normals": {"camera": null, "photos": 134, "rate": {"low": 0.0166, "high": 0.0949}, "finding_level": 2.1,
   "false_regions": 0.25, "source": "left-out", "reason": null},
 "index": {"name": "idrid", "version": "20261122T101500Z-3f9c", "fingerprint": "sha256:ab",
   "backbone": "wide_resnet50_2", "weights": "sha256:cd", "warnings": []},
 "photo": {"width": 4288, "height": 2848, "field_of_view": {"cx": 2140.5, "cy": 1424.0, "radius": 1710.2}},
 "quality": {"acceptable": true, "reasons": [],
   "measures": {"brightness": 71.4, "contrast": 0.812, "sharpness": 0.02, "completeness": 0.922, "saturated": 0}},
 "findings": [{"rank": 1, "peak": 2.314, "p_value": 0.0196, "x": 3012, "y": 1377, "box": [2960, 1330, 3071, 1422],
   "area_px": 6120, "area_share": 0.0007, "place": "superior temporal", "contour": [[2960, 1377], [2961, 1380]],
   "evidence": [{"photo": "r-00041", "distance": 2.314, "y": 31, "x": 64, "mirrored": true}]}],
 "map": null, "timings_ms": {"decode": 61, "total": 2350}, "intended_use": "Research use only. Not for diagnosis."}
"""


def picture(kind: str, shade: int = 90) -> bytes:
    """A small photograph as a file of Pillow's format `kind`."""
    file = io.BytesIO()
    Image.new("RGB", (12, 8), (shade, 40, 10)).save(file, kind)
    return file.getvalue()


JPEG = picture("JPEG")
PNG = picture("PNG")


def npy(values: np.ndarray[tuple[int, ...], np.dtype[np.generic]]) -> bytes:
    file = io.BytesIO()
    np.save(file, values, allow_pickle=False)
    return file.getvalue()


def problem(
    status: int, slug: str = "trouble", *, detail: str = "31.2 MB, the limit is 25 MB", **headers: str
) -> httpx.Response:
    """A problem document as the service sends it."""
    body = {
        "type": f"urn:resad:problem:{slug}",
        "title": "Some trouble",
        "status": status,
        "detail": detail,
        "request_id": "01J7",
    }
    return httpx.Response(status, json=body, headers={"Content-Type": "application/problem+json", **headers})


def score_response() -> httpx.Response:
    return httpx.Response(200, json=json.loads(EXAMPLE))


@dataclass
class Script:
    """Gives the answers one after the other, the last for ever; an exception is raised.  Keeps the requests."""

    answers: Iterable[httpx.Response | Exception | Callable[[httpx.Request], httpx.Response]]
    requests: list[httpx.Request] = field(default_factory=list)

    def __call__(self, request: httpx.Request) -> httpx.Response:
        request.read()
        answers = list(self.answers)
        answer = answers[min(len(self.requests), len(answers) - 1)]
        self.requests.append(request)
        if isinstance(answer, httpx.TransportError):
            answer.request = request
        if isinstance(answer, Exception):
            raise answer
        if not isinstance(answer, httpx.Response):
            return answer(request)
        return httpx.Response(answer.status_code, headers=answer.headers, content=answer.content)


def parts(content_type: str, body: bytes) -> list[tuple[Message, bytes]]:
    """A multipart body read by the standard library: each part with its headers."""
    head = f"Content-Type: {content_type}\r\n\r\n".encode()
    message = BytesParser(policy=HTTP).parsebytes(head + body)
    return [(part, part.get_payload(decode=True)) for part in message.iter_parts()]  # type: ignore[misc]


_numbers = st.floats(allow_nan=False, allow_infinity=False)
_integers = st.integers(-(2**53), 2**53)
_text = st.text(max_size=12)
_rates = st.floats(0, 1)


def _tuples(items: st.SearchStrategy[object]) -> st.SearchStrategy[tuple[object, ...]]:
    return st.lists(items, max_size=3).map(tuple)


_findings = st.builds(
    Finding,
    rank=_integers,
    peak=_numbers,
    p_value=_rates,
    x=_integers,
    y=_integers,
    box=st.tuples(_integers, _integers, _integers, _integers),
    area_px=_integers,
    area_share=_rates,
    place=st.none() | _text,
    contour=_tuples(st.tuples(_integers, _integers)),
    evidence=_tuples(
        st.builds(Evidence, photo=_text, distance=_numbers, y=_integers, x=_integers, mirrored=st.booleans())
    ),
)

results: st.SearchStrategy[Result] = st.builds(
    Result,
    request_id=st.none() | _text,
    image_score=_numbers,
    p_value=st.none() | _rates,
    fpr=_rates,
    threshold=st.none() | _numbers,
    abnormal=st.none() | st.booleans(),
    reason=st.none() | _text,
    normals=st.builds(
        NormalsReference,
        st.none() | _text,
        _integers,
        st.none() | st.builds(Interval, _rates, _rates),
        st.none() | _numbers,
        st.none() | _text,
        false_regions=st.none() | _numbers,
        source=st.none() | _text,
    ),
    index=st.builds(
        IndexReference, *[_text] * 5, warnings=_tuples(st.builds(IndexWarning, code=_text, text=_text))
    ),
    photo=st.builds(PhotoReference, _integers, _integers, st.none() | st.builds(Disc, *[_numbers] * 3)),
    quality=st.builds(PhotoQuality, st.booleans(), _tuples(_text), st.builds(QualityMeasures, *[_numbers] * 5)),
    findings=_tuples(_findings),
    map=st.none() | _text,
    timings_ms=st.builds(Timings, _numbers, _numbers),
    intended_use=_text,
)
"""Any result there can be."""
