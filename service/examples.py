"""Examples for the OpenAPI document, made from the records themselves so that they cannot drift."""

from typing import Any, Final

from pydantic import TypeAdapter

from resad.calibration import Interval
from resad.quality import PhotoQuality, QualityMeasures
from resad.result import (
    Disc,
    Evidence,
    Finding,
    IndexReference,
    NormalsReference,
    PhotoReference,
    Result,
    Timings,
)
from service.problems import PHOTO_UNREADABLE, Refusal
from service.schemas import Results

REQUEST_ID: Final = "01KAPW6ZT0Q8V4M2N5E7R9X3YB"
_RESULT: Final = TypeAdapter(Result)
_RESULTS: Final = TypeAdapter(Results)


def result() -> Result:
    """One photograph with one finding."""
    return Result(
        request_id=REQUEST_ID,
        image_score=0.5812,
        p_value=0.0196,
        fpr=0.05,
        threshold=0.5533,
        abnormal=True,
        reason=None,
        normals=NormalsReference(None, 134, Interval(0.0166, 0.0949), 0.5719, None),
        index=IndexReference(
            name="idrid",
            version="20261122T101500Z-3f9c",
            fingerprint="sha256:" + "3f" * 32,
            backbone="wide_resnet50_2",
            weights="sha256:" + "9a" * 32,
        ),
        photo=PhotoReference(4288, 2848, Disc(2140.5, 1424.0, 1710.2)),
        quality=PhotoQuality(True, (), QualityMeasures(71.4, 0.812, 0.0198, 0.922, 0.0)),
        findings=(
            Finding(
                rank=1,
                peak=0.6021,
                p_value=0.0196,
                x=3012,
                y=1377,
                box=(2960, 1330, 3071, 1422),
                area_px=6120,
                area_share=0.0007,
                place="superior temporal",
                contour=((2960, 1377), (3012, 1330), (3071, 1380), (3010, 1422)),
                evidence=(Evidence("r-00041", 0.5987, 31, 64, mirrored=True),),
            ),
        ),
        map=None,
        timings_ms=Timings(61.0, 2350.0),
    )


def with_examples(document: dict[str, Any]) -> dict[str, Any]:
    """The OpenAPI document with answers of `POST /v1/score`; FastAPI itself would drop the nulls from them."""
    unreadable = Refusal(PHOTO_UNREADABLE, PHOTO_UNREADABLE.example).problem(REQUEST_ID)
    answers = {
        "one": ("One photograph", _RESULT.dump_python(result(), mode="json")),
        "several": (
            "Several, the second no image",
            _RESULTS.dump_python(Results((result(), unreadable)), mode="json"),
        ),
    }
    content = document["paths"]["/v1/score"]["post"]["responses"]["200"]["content"]["application/json"]
    content["examples"] = {name: {"summary": title, "value": value} for name, (title, value) in answers.items()}
    return document
