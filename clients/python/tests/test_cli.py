"""The command against a real HTTP server, and what it prints and returns."""

import base64
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from resad_client import INTENDED_USE, Result, cli, from_json
from samples import EXAMPLE, JPEG, PNG, picture, problem

BAD = picture("JPEG", shade=1)
"""A photograph that the service below refuses."""


class Service(ThreadingHTTPServer):
    """Plays the service; the first score of all is refused as busy."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.seen: list[tuple[str, dict[str, list[str]], dict[str, str]]] = []
        self.busy = 1
        self.active = self.most = 0
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    """Answers as the contract says."""

    protocol_version = "HTTP/1.1"
    server: Service

    def do_GET(self) -> None:
        idrid = {
            "name": "idrid[1]",
            "version": "v2",
            "state": "serving",
            "backbone": "resnet18",
            "memories": 16384,
        }
        indexes = [idrid, {"name": "other", "state": "failed", "fault": "manifest.json is missing"}]
        self._answer(200, json.dumps({"indexes": indexes}).encode())

    def do_POST(self) -> None:
        service = self.server
        body = self.rfile.read(int(self.headers["Content-Length"]))
        url = urlsplit(self.path)
        query = parse_qs(url.query)
        with service.lock:
            service.seen.append((url.path, query, dict(self.headers)))
            busy, service.busy = service.busy, 0
        if busy:
            self._answer(429, problem(429).content, retry_after="0")
        elif self.headers.get("Authorization") == "Bearer wrong":
            self._answer(401, problem(401, "key-needed").content)
        elif query.get("index") == ["two"]:
            self._answer(422, problem(422, "index-not-named").content)
        elif body == BAD:
            self._answer(422, problem(422, "photo-unreadable").content)
        else:
            answer = json.loads(EXAMPLE)
            if query.get("map") == ["overlay"]:
                answer["map"] = "data:image/png;base64," + base64.b64encode(PNG).decode()
            if body == PNG:
                few = "a rate of 0.05 needs 19 normal photographs"
                answer |= {"p_value": None, "threshold": None, "abnormal": None, "reason": few}
                answer["quality"] |= {"acceptable": False, "reasons": ["no-field-of-view"]}
            self._answer(200, json.dumps(answer).encode())

    def _answer(self, status: int, body: bytes, retry_after: str | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        if retry_after is not None:
            self.send_header("Retry-After", retry_after)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.delenv("RESAD_KEY", raising=False)
    with Service() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    photos = tmp_path / "photos"
    (photos / "b").mkdir(parents=True)
    (photos / "a.jpg").write_bytes(JPEG)
    (photos / "b" / "a.png").write_bytes(PNG)
    (photos / "b" / "bad.jpg").write_bytes(BAD)
    (photos / "broken.jpg").write_bytes(b"no photograph")
    return photos


def run(monkeypatch: pytest.MonkeyPatch, *words: object) -> int:
    """The exit code of the command in this process."""
    monkeypatch.setattr(sys, "argv", ["resad-client", *map(str, words)])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    return caught.value.code if isinstance(caught.value.code, int) else 0


def rows(table: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.strip("│┃").split("│")] for line in table.splitlines() if "│" in line]


def test_the_installed_command_from_end_to_end(service: Service, folder: Path, tmp_path: Path) -> None:
    command = Path(sys.executable).with_name("resad-client")
    key_file = tmp_path / "key"
    key_file.write_text("secret-key\n")
    words: list[str | Path] = [
        command, "score", folder, folder / "a.jpg", tmp_path / "absent.jpg",
        "--url", service.url, "--index", "idrid", "--fpr", "0.05",
        "--key-file", key_file, "--json", tmp_path / "json", "--overlays", tmp_path / "overlays",
    ]  # fmt: skip
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2, done.stderr
    assert rows(done.stdout) == [
        ["a.jpg", "2.314", "0.0196", "abnormal", "1"],
        ["b/a.png", "2.314", "-", "-", "1"],
        ["a.jpg", "2.314", "0.0196", "abnormal", "1"],
    ]
    assert INTENDED_USE in done.stdout
    errors = done.stderr.splitlines()
    assert "b/bad.jpg: 422 Some trouble: 31.2 MB, the limit is 25 MB (request 01J7)" in errors
    assert f"{folder}/broken.jpg: not a photograph that is taken (JPEG, PNG, TIFF, BMP, WebP)" in errors
    assert f"{tmp_path}/absent.jpg: cannot be read (No such file or directory)" in errors
    assert "b/a.png: the score may not be trusted (no-field-of-view)" in errors
    assert "no verdict: a rate of 0.05 needs 19 normal photographs" in errors
    assert errors[-1] == "resad-client: 3 of 6 photographs could not be scored"
    written = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.json"))
    assert written == ["json/a-2.json", "json/a.json", "json/b/a.json"]
    assert from_json(Result, (tmp_path / "json/a.json").read_bytes()) == from_json(Result, EXAMPLE)
    pictures = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.png"))
    assert pictures[:3] == ["overlays/a-2_overlay.png", "overlays/a_overlay.png", "overlays/b/a_overlay.png"]
    assert (tmp_path / "overlays/b/a_overlay.png").read_bytes() == PNG
    assert len(service.seen) == 5  # four that were sent, one of them twice
    for path, query, headers in service.seen:
        assert (path, query) == ("/v1/score", {"index": ["idrid"], "fpr": ["0.05"], "map": ["overlay"]})
        assert headers["Authorization"] == "Bearer secret-key"
    assert "secret-key" not in done.stdout + done.stderr


def test_one_photograph_with_its_overlay(
    service: Service,
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("RESAD_KEY", "from-the-variable")
    out = tmp_path / "new" / "out.png"
    assert run(monkeypatch, "score", folder / "a.jpg", "--url", service.url, "--overlay", out) == 0
    assert out.read_bytes() == PNG
    assert rows(capsys.readouterr().out) == [["a.jpg", "2.314", "0.0196", "abnormal", "1"]]
    assert {headers["Authorization"] for _, _, headers in service.seen} == {"Bearer from-the-variable"}


def test_the_readmes_lines_run(service: Service, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    readme = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    program = readme.split("```python\n")[1].split("```")[0]
    assert program.count("http://127.0.0.1:8000") == 1
    (folder / "photo.jpg").write_bytes(JPEG)
    monkeypatch.chdir(folder)
    words = [sys.executable, "-c", program.replace("http://127.0.0.1:8000", service.url)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "2.314 True [(2960, 1330, 3071, 1422)]\n"
    assert (folder / "overlay.png").read_bytes() == PNG


def test_without_files_no_picture_is_asked_for(
    service: Service, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(monkeypatch, "score", folder / "a.jpg", "--url", service.url) == 0
    assert service.seen[-1][1] == {}


def test_indexes(service: Service, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(monkeypatch, "indexes", "--url", service.url) == 0
    printed = capsys.readouterr()
    assert rows(printed.out) == [
        ["idrid[1]", "v2", "serving", "resnet18", "-", "16,384"],
        ["other", "-", "failed", "-", "-", "-"],
    ]
    assert INTENDED_USE in printed.out
    assert printed.err == "other: manifest.json is missing\n"


@pytest.mark.parametrize("words", [("--key-file", "wrong"), ("--index", "two")])
def test_what_would_meet_every_photograph_ends_the_run(
    service: Service,
    folder: Path,
    words: tuple[str, str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    service.busy = 0
    monkeypatch.chdir(folder)
    (folder / "wrong").write_text("wrong")
    code = run(monkeypatch, "score", *[folder / "a.jpg"] * 9, "--url", service.url, *words, "--concurrency", 1)
    assert code == 2
    assert len(service.seen) == 1
    assert "resad-client: stopped after 0 of 9 photographs: 4" in capsys.readouterr().err


def test_nobody_answers(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with Service() as gone:
        url = gone.url
    assert run(monkeypatch, "indexes", "--url", url) == 2
    assert f"resad-client: no answer from {url}: " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--fpr", "1.5"], "--fpr 1.5: a rate lies between 0 and 1"),
        (["--overlay", "out.png"], "--overlay is for one photograph, there are 4: use --overlays FOLDER"),
        (["--overlay", "out.png", "--overlays", "out"], "--overlay and --overlays: one of them"),
        (["--url", "localhost"], "'localhost' is no address of a service"),
        (["--key-file", "two-words"], "the key is empty or holds"),
        (["--key-file", "nowhere"], "--key-file nowhere cannot be read"),
        (["--concurrency", "0"], "--concurrency"),
    ],
)
def test_impossible_values_are_refused_before_anything_is_sent(
    folder: Path,
    words: list[str],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(folder)
    (folder / "two-words").write_text("two words")
    assert run(monkeypatch, "score", folder, *words) == 2
    assert message in capsys.readouterr().err


def test_importing_it_loads_neither_the_method_nor_its_libraries() -> None:
    code = (
        "import sys, resad_client, resad_client.cli; print(*sorted({name.split('.')[0] for name in sys.modules}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    loaded = set(done.stdout.split())
    assert "resad_client" in loaded
    assert not loaded & {"torch", "faiss", "resad", "indexer", "service", "scipy", "skimage"}
