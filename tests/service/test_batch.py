"""`resad-client score` over many photographs against a real service, killed half way and resumed."""

import csv
import io
import json
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from PIL import Image

from tests.service.running import served, until

COUNT = 60


@pytest.fixture(scope="module")
def batch_folder(photos: tuple[bytes, ...], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixty files in five folders, whose names are those of other folders again, and one that is no photograph."""
    folder = tmp_path_factory.mktemp("many")
    for number in range(COUNT):
        path = folder / f"ward {number % 5}" / f"eye {number // 5}.jpg"
        path.parent.mkdir(exist_ok=True)
        with Image.open(io.BytesIO(photos[number % len(photos)])) as image:
            image.save(path, quality=60 + number // 3)
    (folder / "ward 0" / "notes.jpg").write_bytes(b"\xff\xd8\xff\xe0 no photograph")
    return folder


def start(url: str, folder: Path, out: Path, *options: str) -> subprocess.Popen[str]:
    command = Path(sys.executable).with_name("resad-client")
    words: list[str | Path] = [
        command, "score", folder, "--url", url, "--csv", out / "out.csv", "--json", out / "json",
        "--findings-csv", out / "findings.csv", "--coco", out / "coco.json", "--fpr", "0.9", "--concurrency", "3",
    ]  # fmt: skip
    return subprocess.Popen(
        [*map(str, words), *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


@pytest.mark.long
def test_killed_half_way_and_resumed_nothing_is_lost_or_done_twice(
    root: Path, batch_folder: Path, tmp_path: Path
) -> None:
    with served(root) as service:
        first = start(service.url, batch_folder, tmp_path)
        until(lambda: len(list((tmp_path / "json").rglob("*.json"))) >= COUNT // 2, 60)
        first.send_signal(signal.SIGKILL)
        first.communicate()
        mtimes = {path: path.stat().st_mtime_ns for path in (tmp_path / "json").rglob("[!.]*.json")}
        assert COUNT // 2 <= len(mtimes) < COUNT
        assert not (tmp_path / "out.csv").exists()
        with (tmp_path / "out.csv.journal").open("ab") as journal:
            journal.write(b'{"photo": "ward 4/eye 11.jpg", "place')  # as if killed within a line
        without_resume = start(service.url, batch_folder, tmp_path)
        assert "out.csv.journal exists: --resume continues" in without_resume.communicate()[1]
        second = start(service.url, batch_folder, tmp_path, "--resume")
        output, errors = second.communicate(timeout=120)
        assert second.returncode == 2, errors
        assert "ward 0/notes.jpg: 422 Photograph unreadable" in errors
        assert "more by an earlier run" in output
        rewritten = sum(path.stat().st_mtime_ns != mtime for path, mtime in mtimes.items())
        assert rewritten <= 3  # what was written, but not noted, when the end came
        assert COUNT <= service.metric("resad_batch_photos_sum") <= COUNT + 6
    with (tmp_path / "out.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    expected = {path.relative_to(batch_folder).as_posix() for path in batch_folder.rglob("*.jpg")}
    assert Counter(row["photo"] for row in rows) == Counter(expected)
    assert [row["photo"] for row in rows if row["error"]] == ["ward 0/notes.jpg"]
    answers = {path.relative_to(tmp_path / "json").as_posix() for path in (tmp_path / "json").rglob("[!.]*.json")}
    assert answers == {name.replace(".jpg", ".json") for name in expected} - {"ward 0/notes.json"}
    for row in rows:
        if not row["error"]:
            answer = json.loads((tmp_path / "json" / row["photo"].replace(".jpg", ".json")).read_text())
            assert float(row["image_score"]) == answer["image_score"]
            assert int(row["findings"]) == len(answer["findings"])
    coco = json.loads((tmp_path / "coco.json").read_text())
    assert len(coco["images"]) == COUNT
    assert len(coco["annotations"]) == sum(int(row["findings"] or 0) for row in rows)
