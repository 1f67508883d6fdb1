"""Photographs as clients send them: any name of a media type, none, and a word for what is sent in a wrong way."""

from pathlib import Path

import httpx
import pytest
from PIL import Image

from resad.errors import SettingError
from service.settings import read_settings
from tests.service.running import Served, served
from tests.service.test_uploads import multipart, upload_refusal

ALIASES = (
    "image/jpg", "image/pjpeg", "image/tif", "image/x-ms-bmp", "application/octet-stream", "IMAGE/JPEG",
    "image/jp2", "image/x-portable-pixmap", "image/x-png",
)  # fmt: skip


@pytest.mark.parametrize("alias", ALIASES)
def test_any_name_of_a_type_is_taken_and_the_bytes_decide(running: Served, photo: bytes, alias: str) -> None:
    answer = running.client.post("/v1/score", content=photo, headers={"Content-Type": alias})
    assert answer.status_code == 200, answer.text
    body, headers = multipart(("photo", photo, alias))
    (item,) = running.client.post("/v1/score", content=body, headers=headers).json()["results"]
    assert item["image_score"] == answer.json()["image_score"]


@pytest.mark.parametrize("alias", ["application/octet-stream", "image/jpeg"])
def test_what_is_no_photograph_is_refused_whatever_it_is_called(running: Served, alias: str) -> None:
    headers = {"Content-Type": alias}
    answer = running.client.post("/v1/score", content=b"GIF89a" + bytes(100), headers=headers)
    assert answer.status_code == 415
    assert "the file is GIF" in answer.json()["detail"]
    assert running.client.post("/v1/score", content=bytes(100), headers=headers).status_code == 422


@pytest.mark.parametrize("alias", ["text/plain", "application/pdf", "image/gif", "application/json"])
def test_other_types_are_refused_unread(running: Served, alias: str) -> None:
    answer = running.client.post("/v1/score", content=b"x", headers={"Content-Type": alias})
    assert answer.status_code == 415
    assert "supported are image/jpeg" in answer.json()["detail"]


def test_a_part_with_another_name_is_told_the_right_one() -> None:
    for name, words in (("file", "a part is named file"), ("Mueller_1975", "a part has another name, or none")):
        body, headers = multipart((name, b"x", "image/jpeg"))
        refusal, _ = upload_refusal([body], headers)
        assert refusal.detail == f"{words}; each photograph is a part named photo, as in curl -F photo=@a.jpg"


def test_a_form_of_curl_is_told_the_header() -> None:
    refusal, _ = upload_refusal([b"x"], {"Content-Type": "application/x-www-form-urlencoded"})
    assert "add -H 'Content-Type: image/jpeg'" in str(refusal.detail)


def test_the_pages_work_behind_a_prefix(root: Path, photo: bytes) -> None:
    """As behind a proxy that serves the service under /resad and takes the prefix away."""
    with served(root, root_path="/resad") as service:
        docs = service.client.get("/docs")
        assert docs.status_code == 200
        assert "script-src 'self' 'unsafe-inline'" in docs.headers["content-security-policy"]
        for path in ("/resad/openapi.json", "/resad/static-offline-docs/swagger-ui-bundle.js"):
            assert path in docs.text
            assert service.client.get(path.removeprefix("/resad")).status_code == 200
        assert service.client.get("/openapi.json").json()["servers"][0] == {"url": "/resad"}
        assert "unsafe" not in service.client.get("/").headers["content-security-policy"]
        assert service.client.get("/web/app/main.js").status_code == 200
        assert service.score(photo).status_code == 200
        assert service.client.get("/readyz", headers={"Host": "elsewhere.example"}).status_code == 200


def test_a_misspelled_variable_is_answered_with_the_right_one(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RESAD_MAX_BTYES", "5")
    with pytest.raises(SettingError, match=r"^RESAD_MAX_BTYES is no setting; did you mean RESAD_MAX_BYTES\?$"):
        read_settings(root=root)
    monkeypatch.delenv("RESAD_MAX_BTYES")
    monkeypatch.setenv("RESAD_PHOTOS", "5")
    assert read_settings(root=root).root == root


def score(running: Served, path: Path) -> httpx.Response:
    return running.client.post("/v1/score", content=path.read_bytes(), headers={"Content-Type": "image/tif"})


def test_the_cases_in_the_service(running: Served, shared: Path, tmp_path: Path) -> None:
    cases = shared / "cases"
    for path in sorted((cases / "other_suffixes").glob("[a-d].*")):
        assert score(running, path).status_code == 200, path.name
    expected, *scores = (
        score(running, cases / "planar16" / name).json()["image_score"]
        for name in ("expected.png", "planar16_be.tif", "planar16_le.tif")
    )
    assert scores == [expected, expected]
    refused = {"multipage/two_eyes.tif": "a TIFF of 2 pages", "twelve_bits_in_16/rgb12in16.tif": "low 12 bits"}
    for name, words in refused.items():
        answer = score(running, cases / name)
        assert answer.status_code == 415
        assert words in answer.json()["detail"]
    with Image.open(cases / "multipage" / "thumb_first.tif") as picture:
        picture.seek(1)
        picture.save(tmp_path / "page.png")
    thumbnail = score(running, cases / "multipage" / "thumb_first.tif").json()
    assert thumbnail["photo"]["width"] == 256
    assert thumbnail["image_score"] == score(running, tmp_path / "page.png").json()["image_score"]
