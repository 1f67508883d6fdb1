"""What browsers are told, who of them may call from elsewhere, and what is not served."""

from pathlib import Path

import pytest

from tests.service.running import JPEG, Served, served

ELSEWHERE = "https://elsewhere.example"
CLINIC = "https://clinic.example"


@pytest.mark.parametrize("path", ["/", "/livez", "/v1/indexes", "/nowhere", "/v1/score", "/docs"])
def test_every_answer_keeps_browsers_in_bounds(running: Served, path: str) -> None:
    headers = running.client.get(path).headers
    policy = dict(part.strip().split(" ", 1) for part in headers["content-security-policy"].split(";"))
    assert policy["default-src"] == policy["frame-ancestors"] == policy["base-uri"] == "'none'"
    assert policy["script-src"] == ("'self' 'unsafe-inline'" if path == "/docs" else "'self'")
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    # The page itself holds nothing of anybody: it may be kept, and is asked for again.
    assert headers["cache-control"] == ("no-cache" if path == "/" else "no-store")
    assert "server" not in headers


def test_pages_from_elsewhere_may_not_call_unless_told(root: Path, running: Served, photo: bytes) -> None:
    preflight = {"Origin": CLINIC, "Access-Control-Request-Method": "POST"}
    answer = running.client.post("/v1/score", content=photo, headers=JPEG | {"Origin": CLINIC})
    assert not [name for name in answer.headers if name.startswith("access-control")]
    assert running.client.options("/v1/score", headers=preflight).status_code == 405
    with served(root, allowed_origins=(CLINIC,)) as service:
        preflight_answer = service.client.options("/v1/score", headers=preflight)
        assert preflight_answer.status_code == 200
        assert preflight_answer.headers["access-control-allow-origin"] == CLINIC
        answer = service.client.post("/v1/score", content=photo, headers=JPEG | {"Origin": CLINIC})
        assert answer.headers["access-control-allow-origin"] == CLINIC
        assert "access-control-allow-credentials" not in answer.headers
        refusal = service.client.options("/v1/score", headers=preflight | {"Origin": ELSEWHERE})
        assert "access-control-allow-origin" not in refusal.headers
        answer = service.client.post("/v1/score", content=photo, headers=JPEG | {"Origin": ELSEWHERE})
        assert "access-control-allow-origin" not in answer.headers


def test_the_docs_can_be_switched_off(root: Path, running: Served) -> None:
    page_with_docs = running.client.get("/").text
    assert page_with_docs.count("docs") == 4  # a link and a sentence, both marked
    with served(root, docs=False) as service:
        for path in ("/docs", "/openapi.json", "/redoc", "/static-offline-docs/swagger-ui-bundle.js"):
            assert service.client.get(path).status_code == 404
        page = service.client.get("/")
        assert page.status_code == 200
        assert "docs" not in page.text
        assert "HTTP interface" not in page.text
        assert len(page.text.splitlines()) == len(page_with_docs.splitlines()) - 1
        assert "This page needs JavaScript.</p>" in page.text
