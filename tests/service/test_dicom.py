"""DICOM over HTTP: photographs in, objects out, problems for what is hostile, nothing of a patient in the log."""

import io
import logging
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pydicom import dcmread
from pydicom.dataset import FileDataset
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian, JPEG2000Lossless, JPEGBaseline8Bit
from resad_client.records import read_result
from werkzeug.http import parse_options_header

from resad.dicom.results import finding_mask
from service.dicom import wants_dicom
from tests.dicom_files import PATIENT, encoded, header, photograph
from tests.service.running import Served

DICOM = {"Content-Type": "application/dicom"}
RELATED = {"Accept": 'multipart/related; type="application/dicom"'}
RULE = {"fpr": "0.9", "false_regions": "2"}


@pytest.fixture(scope="module")
def pixels(photo: bytes) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.asarray(Image.open(io.BytesIO(photo)).convert("RGB"))


@pytest.fixture(scope="module")
def dicom(pixels: np.ndarray[Any, np.dtype[np.uint8]]) -> bytes:
    return photograph(pixels, PixelSpacing=[0.01, 0.01])


def objects_in(content: bytes, content_type: str) -> list[FileDataset]:
    media_type, options = parse_options_header(content_type)
    assert media_type == "multipart/related"
    assert options["type"] == "application/dicom"
    delimiter = b"--" + options["boundary"].encode()
    parts = [part.partition(b"\r\n\r\n") for part in content.split(delimiter)[1:-1]]
    assert all(head.strip() == b"Content-Type: application/dicom" for head, _, _ in parts)
    return [dcmread(io.BytesIO(body.removesuffix(b"\r\n"))) for _, _, body in parts]


def test_the_same_answer_as_for_the_picture(
    running: Served, dicom: bytes, pixels: np.ndarray[Any, np.dtype[np.uint8]]
) -> None:
    png = io.BytesIO()
    Image.fromarray(pixels).save(png, "PNG")
    query = RULE | {"eye": "right"}
    as_png = running.client.post(
        "/v1/score", content=png.getvalue(), headers={"Content-Type": "image/png"}, params=query
    )
    as_dicom = running.client.post("/v1/score", content=dicom, headers=DICOM, params=RULE)
    first, second = read_result(as_png.content), read_result(as_dicom.content)
    assert first.image_score == second.image_score
    assert [finding.place for finding in first.findings] == [finding.place for finding in second.findings]
    assert first.findings
    assert {finding.area_mm2 for finding in first.findings} == {None}
    for finding in second.findings:
        assert finding.area_mm2 == pytest.approx(finding.area_px * 1e-4)


def test_objects_hold_the_services_own_answer(running: Served, dicom: bytes) -> None:
    result = read_result(running.client.post("/v1/score", content=dicom, headers=DICOM, params=RULE).content)
    response = running.client.post("/v1/score", content=dicom, headers=DICOM | RELATED, params=RULE)
    assert response.status_code == 200
    objects = objects_in(response.content, response.headers["content-type"])
    assert [dataset.Modality for dataset in objects] == ["OT", "SEG", "SR", "OT"]
    raw = running.client.post("/v1/anomaly-map", content=dicom, headers=DICOM | {"Accept": "application/x-npy"})
    assert np.allclose(objects[0].pixel_array, np.load(io.BytesIO(raw.content)), rtol=0, atol=1e-6)
    stored = objects[1].pixel_array.reshape(-1, result.photo.height, result.photo.width)
    assert len(stored) == len(result.findings) > 0
    for finding, mask in zip(result.findings, stored, strict=True):
        assert np.array_equal(mask.astype(bool), finding_mask(finding, result.photo.width, result.photo.height))
    assert f"{result.image_score:.6f}"[:6] in str(objects[2])


def test_multipart_takes_dicom_and_says_what_it_cannot_do(running: Served, dicom: bytes, photo: bytes) -> None:
    files = [("photo", ("a.dcm", dicom, "application/dicom")), ("photo", ("b", dicom, "application/octet-stream"))]
    answer = running.client.post("/v1/score", files=files, params=RULE)
    scores = [entry["image_score"] for entry in answer.json()["results"]]
    assert scores[0] == scores[1]
    refused = running.client.post("/v1/score", files=files, headers=RELATED)
    assert (refused.status_code, "one photograph" in refused.json()["detail"]) == (406, True)
    jpeg = running.client.post("/v1/score", content=photo, headers={"Content-Type": "image/jpeg"} | RELATED)
    assert (jpeg.status_code, "DICOM photograph" in jpeg.json()["detail"]) == (406, True)


def test_frames_by_name(running: Served, pixels: np.ndarray[Any, np.dtype[np.uint8]]) -> None:
    dataset = header(pixels, {"NumberOfFrames": 2})
    dataset.PixelData = np.stack([pixels[::-1], pixels]).tobytes()
    data = encoded(dataset, ExplicitVRLittleEndian)
    refused = running.client.post("/v1/score", content=data, headers=DICOM)
    assert (refused.status_code, "?frame=1" in refused.json()["detail"]) == (415, True)
    scores = [
        running.client.post("/v1/score", content=data, headers=DICOM, params={"frame": n}).json()["image_score"]
        for n in (1, 2)
    ]
    alone = running.client.post("/v1/score", content=photograph(pixels), headers=DICOM).json()["image_score"]
    assert scores[1] == alone != scores[0]
    assert running.client.post("/v1/score", content=data, headers=DICOM, params={"frame": 3}).status_code == 422
    response = running.client.post("/v1/score", content=data, headers=DICOM | RELATED, params={"frame": 2})
    assert response.status_code == 200


def test_a_frame_of_a_jpeg_is_a_bad_request(running: Served, photo: bytes) -> None:
    assert running.score(photo, frame=2).status_code == 422


def hostile(pixels: np.ndarray[Any, np.dtype[np.uint8]]) -> list[bytes]:
    data, deflate = photograph(pixels), zlib.compressobj(9, wbits=-15)
    bomb = deflate.compress(b"\0" * 100_000_000) + deflate.flush()
    syntax = DeflatedExplicitVRLittleEndian.encode()
    meta = b"\0" * 128 + b"DICM\x02\0\x10\0UI" + len(syntax).to_bytes(2, "little") + syntax
    nested = b"\x40\0\x30\xa7SQ\0\0\xff\xff\xff\xff\xfe\xff\0\xe0\xff\xff\xff\xff" * 20_000
    return [
        b"DICM", b"\0" * 128 + b"DICM", data[:200], data[:1000], data[: len(data) // 2], meta + bomb,
        b"\0" * 128 + b"DICM\x02\0\x10\0UI\x14\x001.2.840.10008.1.2.1\0" + nested,
        photograph(pixels, Rows=65_535, Columns=65_535), photograph(pixels, Modality="OPT"),
        photograph(pixels, BitsAllocated=32, BitsStored=32),
        photograph(pixels, JPEG2000Lossless)[:-5000], photograph(pixels, JPEGBaseline8Bit)[:900],
        photograph(pixels, SOPClassUID="1.2.840.10008.5.1.4.1.1.104.1"),
    ]  # fmt: skip


def test_hostile_files_get_problem_documents(
    running: Served, pixels: np.ndarray[Any, np.dtype[np.uint8]], caplog: pytest.LogCaptureFixture
) -> None:
    for body in hostile(pixels):
        for accept in ({}, RELATED):
            response = running.client.post("/v1/score", content=body, headers=DICOM | accept)
            if response.status_code == 200:  # a JPEG 2000 stream without its end still has a picture
                continue
            assert 400 <= response.status_code < 500, body[:200]
            assert response.headers["content-type"] == "application/problem+json"
            assert not any(value in response.text for value in PATIENT.values())
    assert running.client.get("/livez").status_code == 200


def test_nothing_of_a_header_is_logged(running: Served, dicom: bytes, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        for headers in (DICOM, DICOM | RELATED):
            assert running.client.post("/v1/score", content=dicom, headers=headers).status_code == 200
        running.client.post("/v1/score", content=dicom[: len(dicom) // 2], headers=DICOM)
    for value in (*PATIENT.values(), "ACC-0815", "Poe", "Topcon", "TRC-NW8"):
        assert value not in caplog.text


@pytest.mark.parametrize(
    ("accept", "dicom"),
    [
        ("", False),
        ("*/*", False),
        ("application/json", False),
        ('multipart/related; type="application/dicom"', True),
        ("multipart/related; type=application/dicom; transfer-syntax=*", True),
        ("multipart/related", True),
        ('multipart/related; type="application/dicom", application/json;q=0.5', True),
        ('multipart/related; type="application/dicom";q=0.4, application/json', False),
        ('multipart/related; type="application/dicom+xml"', False),
        ('multipart/related; type="application/dicom";q=0', False),
    ],
)
def test_who_gets_dicom(accept: str, dicom: bool) -> None:
    assert wants_dicom(accept) is dicom
