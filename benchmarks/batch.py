"""Photographs through `resad-client score` against a service, the client killed half way and resumed.

Run as `python -m benchmarks.batch`; takes RESAD_DATA.  The photographs are IDRiD's test photographs at 512 px,
written again at other qualities until there are enough.
"""

import csv
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

import typer
from PIL import Image

from benchmarks._bench import Json, Quick, print_header, print_table, shared_data, write_json
from benchmarks._idrid import Variant, build_index, data_set
from benchmarks._service_process import running_service
from resad import runtime

_SIZE: Final = 256
_CONCURRENCY: Final = 4
_POLL_S: Final = 0.02

Index = Annotated[Path | None, typer.Option(help="ROOT of an index to serve; one is built unless given.")]


@dataclass(frozen=True, slots=True)
class Ran:
    """One call of the client.  scored: photographs with an answer when it ended.  Seconds: wall clock."""

    name: str
    scored: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the table says at the end.  twice: answers that the second run wrote anew."""

    photographs: int
    rows: int
    missing: int
    doubled: int
    errors: int
    twice: int


def main(quick: Quick = False, json: Json = None, index: Index = None) -> None:
    """Kill the batch client half way, resume it, count."""
    shared = shared_data()
    runtime.configure("exact")
    count = 24 if quick else 500
    print_header(
        "A batch killed half way and resumed",
        f"{count} photographs of 512 px, bundled trunk at {_SIZE} px, {_CONCURRENCY} sent at a time, "
        "JSON and CSV written.",
    )
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        if index is None:
            build_index(Variant("resad", backbone="bundled", weights="bundled"), _SIZE, shared, place / "root")
        _write_photos(shared, place / "photos", count)
        with running_service(index or place / "root", place / "service.log") as service:
            ran, outcome = _killed_and_resumed(service.url, place, count)
    print_table(
        "The two runs",
        ("run", "photographs with an answer", "seconds", "photographs a second"),
        [(one.name, f"{one.scored}", f"{one.seconds:.1f}", f"{one.scored / one.seconds:.1f}") for one in ran],
    )
    print(
        f"{outcome.rows} rows for {outcome.photographs} photographs: {outcome.missing} missing, {outcome.doubled} "
        f"doubled, {outcome.errors} with an error; {outcome.twice} answers of the first run were written again.\n"
    )
    write_json(json, (ran, outcome))


def _killed_and_resumed(url: str, place: Path, count: int) -> tuple[list[Ran], Outcome]:
    began = time.perf_counter()
    first = _client(url, place)
    while len(_answers(place)) < count // 2 and first.poll() is None:
        time.sleep(_POLL_S)
    first.send_signal(signal.SIGKILL)
    first.wait()
    half = Ran("killed", len(_answers(place)), time.perf_counter() - began)
    before = {path: path.stat().st_mtime_ns for path in _answers(place)}
    began = time.perf_counter()
    _client(url, place, "--resume").wait()
    rest = Ran("resumed", len(_answers(place)) - half.scored, time.perf_counter() - began)
    with (place / "out.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    named = Counter(row["photo"] for row in rows)
    expected = {path.relative_to(place / "photos").as_posix() for path in (place / "photos").rglob("*.jpg")}
    outcome = Outcome(
        photographs=len(expected),
        rows=len(rows),
        missing=len(expected - named.keys()),
        doubled=sum(times > 1 for times in named.values()),
        errors=sum(bool(row["error"]) for row in rows),
        twice=sum(path.stat().st_mtime_ns != changed for path, changed in before.items()),
    )
    return [half, rest], outcome


def _client(url: str, place: Path, *more: str) -> "subprocess.Popen[bytes]":
    command = Path(sys.executable).with_name("resad-client")
    words: list[str | Path] = [
        command, "score", place / "photos", "--url", url, "--csv", place / "out.csv", "--json", place / "json",
        "--concurrency", str(_CONCURRENCY), *more,
    ]  # fmt: skip
    return subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def _answers(place: Path) -> list[Path]:
    return list((place / "json").rglob("*.json"))


def _write_photos(shared: Path, folder: Path, count: int) -> None:
    """Of ten folders, whose files are called alike."""
    sources = sorted((data_set(shared) / "test").rglob("*.jpg"))
    for number in range(count):
        path = folder / f"{number % 10}" / f"{number // 10:03}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        with Image.open(sources[number % len(sources)]) as image:
            image.save(path, quality=70 + number // len(sources))


if __name__ == "__main__":
    typer.run(main)
