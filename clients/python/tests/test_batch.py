"""Runs over many photographs: resumed, refused, waited for; and a watched folder."""

import csv
import io
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from playing import BAD, DARK, Service, run, service
from resad_client.journal import stamp_of
from resad_client.maps import with_name
from resad_client.photos import list_labeled
from resad_client.watch_command import SettledFiles
from samples import JPEG, PNG, picture

__all__ = ["service"]
COMMAND = Path(sys.executable).with_name("resad-client")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    photos = tmp_path / "photos"
    for name, data in (("a/eye.jpg", JPEG), ("a/eye.png", PNG), ("b/eye.jpg", picture("JPEG", 120))):
        (photos / name).parent.mkdir(parents=True, exist_ok=True)
        (photos / name).write_bytes(data)
    return photos


def table(path: Path) -> dict[str, dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len({row["photo"] for row in rows}) == len(rows)
    return {row["photo"]: row for row in rows}


def with_intended_use(png: bytes) -> bytes:
    """As the service's pictures are."""
    file, facts = io.BytesIO(), PngInfo()
    facts.add_text("resad:intended_use", "Research use only. Not for diagnosis.")
    with Image.open(io.BytesIO(png)) as image:
        image.save(file, "PNG", pnginfo=facts)
    return file.getvalue()


def wait_until(condition: Callable[[], bool], seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not become true in time"
        time.sleep(0.02)


def test_resume_scores_new_changed_and_failed_photographs(
    service: Service,
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    service.busy = 0
    (folder / "c.jpg").write_bytes(BAD)
    words = ("score", folder, "--url", service.url, "--csv", tmp_path / "out.csv", "--json", tmp_path / "json")
    assert run(monkeypatch, *words) == 2
    assert len(service.requests) == 4
    assert {name: bool(row["error"]) for name, row in table(tmp_path / "out.csv").items()} == {
        "a/eye.jpg": False, "a/eye.png": False, "b/eye.jpg": False, "c.jpg": True,
    }  # fmt: skip
    assert {path.relative_to(tmp_path / "json").as_posix() for path in (tmp_path / "json").rglob("*.json")} == {
        "a/eye.json", "a/eye-2.json", "b/eye.json",
    }  # fmt: skip
    file_names = {path.stem: json.loads(path.read_text())["file_name"] for path in (tmp_path / "json/a").iterdir()}
    assert file_names == {"eye": "a/eye.jpg", "eye-2": "a/eye.png"}
    (folder / "c.jpg").write_bytes(JPEG)
    (folder / "a" / "0.jpg").write_bytes(JPEG)
    (folder / "b" / "eye.jpg").write_bytes(picture("JPEG", 130))
    service.requests.clear()
    capsys.readouterr()
    assert run(monkeypatch, *words, "--resume") == 0
    assert len(service.requests) == 3
    assert "3 photographs, 2 more by an earlier run" in capsys.readouterr().out
    assert not any(row["error"] for row in table(tmp_path / "out.csv").values())
    assert len(table(tmp_path / "out.csv")) == 5
    assert run(monkeypatch, *words, "--resume") == 0
    assert len(service.requests) == 3
    assert "nothing was left to do" in capsys.readouterr().out


def test_files_are_replaced_only_with_overwrite(
    service: Service,
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = ("score", folder, "--url", service.url, "--overlays", tmp_path / "out")
    (tmp_path / "out" / "a").mkdir(parents=True)
    (tmp_path / "out" / "a" / "eye_overlay.png").write_bytes(b"mine")
    assert run(monkeypatch, *words) == 2
    assert "a/eye_overlay.png exists: --resume continues the run that wrote it" in capsys.readouterr().err
    assert not service.requests
    assert run(monkeypatch, *words, "--overwrite") == 0
    assert (tmp_path / "out" / "a" / "eye_overlay.png").read_bytes() == with_name(PNG, "a/eye.jpg")
    shutil.copy(folder / "b" / "eye.jpg", folder / "late.jpg")
    (tmp_path / "out" / "late_overlay.png").write_bytes(b"mine")
    os.utime(tmp_path / "out" / "late_overlay.png", (1, 1))
    assert run(monkeypatch, *words, "--resume") == 2
    assert "late_overlay.png is older than the run: move it away" in capsys.readouterr().err
    assert (tmp_path / "out" / "late_overlay.png").read_bytes() == b"mine"
    (tmp_path / "out" / "late_overlay.png").write_bytes(b"left half way by a killed run")
    assert run(monkeypatch, *words, "--resume") == 0
    assert (tmp_path / "out" / "late_overlay.png").read_bytes() == with_name(PNG, "late.jpg")
    assert run(monkeypatch, *words, "--resume", "--fpr", "0.1") == 2
    assert "fpr was None, now it is 0.1" in capsys.readouterr().err
    assert run(monkeypatch, *words, "--resume", "--camera", "Kowa") == 2
    assert "camera was None, now it is Kowa" in capsys.readouterr().err
    assert run(monkeypatch, *words, "--resume", "--overwrite") == 2
    assert run(monkeypatch, *words[:4], "--resume") == 2
    assert "name them, as in --csv out.csv" in capsys.readouterr().err


def test_a_refused_run_leaves_nothing(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("resad_client.score_command._ATTEMPTS", 1)
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
    assert run(monkeypatch, "score", folder, "--url", url, "--csv", tmp_path / "out.csv") == 2
    assert list(tmp_path.iterdir()) == [folder]


def test_pictures_as_jpeg_annotations_and_the_eye_of_a_csv(
    service: Service, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    service.busy = 0
    rows = "path,eye\na/eye.jpg,OS\nb/eye.jpg,\n"
    (folder / "list.csv").write_text(rows)
    code = run(
        monkeypatch, "score", folder / "list.csv", "--url", service.url, "--eye", "right", "--layout", "side",
        "--overlays", tmp_path / "out", "--overlay-format", "jpeg", "--geojson", tmp_path / "out",
        "--findings-csv", tmp_path / "findings.csv", "--coco", tmp_path / "coco.json", "--concurrency", "1",
    )  # fmt: skip
    assert code == 0
    queries = [query for _, query, _ in service.requests]
    assert queries == [{"map": ["overlay-jpeg"], "layout": ["side"], "eye": [eye]} for eye in ("left", "right")]
    assert (tmp_path / "out/a/eye_overlay.jpg").read_bytes() == with_name(JPEG, "a/eye.jpg")
    assert (
        json.loads((tmp_path / "out/b/eye.geojson").read_text())["features"][0]["properties"]["photo"]
        == "b/eye.jpg"
    )
    assert [image["file_name"] for image in json.loads((tmp_path / "coco.json").read_text())["images"]] == [
        "a/eye.jpg", "b/eye.jpg",
    ]  # fmt: skip
    assert (tmp_path / "findings.csv").read_text().count("\n") == 3


def test_a_csv_with_an_unknown_eye_is_refused(folder: Path) -> None:
    (folder / "list.csv").write_text("eye,path\nmiddle,a/eye.jpg\n")
    photos, errors = list_labeled([folder / "list.csv"])
    assert not photos
    assert "line 2: eye 'middle' is none of left, right" in errors[0]


def test_photographs_of_several_folders_keep_them_apart(folder: Path) -> None:
    photos, _ = list_labeled([folder / "a", folder / "b", folder / "a/eye.jpg"])
    assert [photo.label for photo in photos] == ["a/eye.jpg", "a/eye.png", "b/eye.jpg"]


def test_a_run_waits_for_a_service_that_restarts(service: Service, folder: Path, tmp_path: Path) -> None:
    service.seconds = 0.1
    for number in range(8):
        (folder / f"{number}.jpg").write_bytes(JPEG)
    with Service() as first:
        first.seconds = 0.1
        port = first.server_address[1]
        thread = threading.Thread(target=first.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        words: list[str | Path] = [
            COMMAND,
            "score",
            folder,
            "--url",
            first.url,
            "--csv",
            tmp_path / "out.csv",
            "--concurrency",
            "1",
        ]
        client = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        wait_until(lambda: len(first.requests) >= 3)
        first.shutdown()
        thread.join()
    time.sleep(0.5)
    with Service(int(port)) as second:
        thread = threading.Thread(target=second.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        _, errors = client.communicate(timeout=60)
        second.shutdown()
        thread.join()
    assert client.returncode == 0, errors
    assert len(table(tmp_path / "out.csv")) == 11


def test_ctrl_c_leaves_a_table_and_says_how_to_go_on(service: Service, folder: Path, tmp_path: Path) -> None:
    service.busy, service.seconds = 0, 0.2
    words: list[str | Path] = [
        COMMAND,
        "score",
        folder,
        "--url",
        service.url,
        "--csv",
        tmp_path / "out.csv",
        "--concurrency",
        "1",
    ]
    client = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    wait_until(lambda: len(service.requests) == 2)
    client.send_signal(signal.SIGINT)
    _, errors = client.communicate(timeout=30)
    assert client.returncode == 130
    assert errors.strip() == "stopped: the same command with --resume continues"
    assert 1 <= len(table(tmp_path / "out.csv")) <= 2


def test_a_watched_folder_survives_restarts_and_waits_for_whole_files(
    service: Service, folder: Path, tmp_path: Path
) -> None:
    service.busy = 0
    words: list[str | Path] = [
        COMMAND, "watch", folder, "--url", service.url, "--every", "0.1", "--settle", "0.4",
        "--threshold", "1.5", "--evidence", "1", "--csv", tmp_path / "out.csv",
    ]  # fmt: skip

    def start_watcher() -> subprocess.Popen[str]:
        return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    (folder / "bad.jpg").write_bytes(BAD)
    watcher = start_watcher()
    wait_until(lambda: len(list(folder.rglob("*.json"))) == 3)
    assert (folder / "b/eye_overlay.png").is_file()
    with (folder / "slow.jpg").open("wb") as file:
        for part in (JPEG[:100], JPEG[100:200], JPEG[200:]):
            file.write(part)
            file.flush()
            time.sleep(0.25)
    wait_until(lambda: "slow.jpg" in (tmp_path / "out.csv").read_text())
    watcher.kill()
    watcher.communicate()
    (folder / "late.jpg").write_bytes(JPEG)
    (folder / "dark.jpg").write_bytes(DARK)
    # As if it was killed before it could note it.
    (folder / "late_overlay.png").write_bytes(with_intended_use(PNG))
    watcher = start_watcher()
    wait_until(lambda: (folder / "late.json").is_file() and (folder / "dark.json").is_file())
    time.sleep(0.6)
    watcher.send_signal(signal.SIGTERM)
    output, errors = watcher.communicate(timeout=30)
    assert watcher.returncode == 0, errors
    assert "5 photographs known" in output
    assert "late.jpg: score 2.314, p 0.0196, abnormal, findings 1\n" in output
    doubtful_line = (
        "dark.jpg: score 2.314, p 0.0196, abnormal?, findings 1; not to be trusted: too-dark, blurred\n"
    )
    assert doubtful_line in output
    assert errors.splitlines()[0].startswith("bad.jpg: 422")
    assert errors.splitlines()[1:] == ["stopped; the same command continues"]
    assert {tuple(query["threshold"] + query["evidence"]) for _, query, _ in service.requests} == {("1.5", "1")}
    assert len(service.requests) == 6 + 2  # what cannot be scored is tried once after each start
    rows = table(tmp_path / "out.csv")
    assert sorted(rows) == [
        "a/eye.jpg", "a/eye.png", "b/eye.jpg", "bad.jpg", "dark.jpg", "late.jpg", "slow.jpg",
    ]  # fmt: skip
    assert (folder / "late_overlay.png").read_bytes() == with_name(PNG, "late.jpg")
    assert [name for name, row in rows.items() if row["error"]] == ["bad.jpg"]


def test_watching_never_overwrites_files_beside_the_photographs(
    service: Service, folder: Path, tmp_path: Path
) -> None:
    """A photograph that is called like an overlay is scored, and replaced no more than a camera's own JSON."""
    service.busy = 0
    other_files = {"a/eye_overlay.png": PNG, "b/eye.json": b'{"shutter": 30}', "b/eye_overlay.jpg": JPEG}
    for name, data in other_files.items():
        (folder / name).write_bytes(data)
    words: list[str | Path] = [COMMAND, "watch", folder, "--url", service.url, "--every", "0.1", "--settle", "0.2",
             "--csv", tmp_path / "out.csv"]  # fmt: skip
    watcher = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        wait_until(lambda: len(list(folder.rglob("*.json"))) == 6)
        time.sleep(0.5)  # what it has written itself would be scored by now
    finally:
        watcher.send_signal(signal.SIGTERM)
        _, errors = watcher.communicate(timeout=30)
    assert watcher.returncode == 0, errors
    photos = ["a/eye.jpg", "a/eye.png", "a/eye_overlay.png", "b/eye.jpg", "b/eye_overlay.jpg"]
    assert sorted(table(tmp_path / "out.csv")) == photos
    assert len(service.requests) == len(photos)
    assert {name: (folder / name).read_bytes() for name in other_files} == other_files
    answers = {path.relative_to(folder).as_posix() for path in folder.rglob("*.json")} - set(other_files)
    assert answers == {"a/eye-2.json", "a/eye-3.json", "a/eye_overlay.json", "b/eye-2.json", "b/eye_overlay.json"}


def test_a_file_is_complete_once_it_has_not_changed_for_a_while(tmp_path: Path) -> None:
    path, empty_path = tmp_path / "a.jpg", tmp_path / "b.jpg"
    path.write_bytes(b"1")
    empty_path.touch()
    settled_files = SettledFiles(5.0)
    assert settled_files.complete([path, empty_path], 0.0) == []
    assert settled_files.complete([path, empty_path], 4.9) == []
    path.write_bytes(b"12")
    assert settled_files.complete([path, empty_path], 6.0) == []
    assert settled_files.complete([path, empty_path], 11.0) == [path]
    assert stamp_of(tmp_path / "absent.jpg") is None
