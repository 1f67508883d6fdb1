"""Attacks on the service: what others get meanwhile, and what is left behind.

Run as `python -m benchmarks.attack`; needs RESAD_DATA.  One service with its own settings and two keys: one
attacks, the other scores photographs one after another.  Only a loopback address of this machine is attacked.
"""

import os
import re
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import httpx
import typer
from resad_client import Client
from resad_client.errors import ResadError

from benchmarks._bench import Json, Quick, print_header, print_table, shared_data, write_json
from benchmarks._costly_files import bmp_of_runs, jpeg_of_scans, png, tiff_of_strips
from benchmarks._idrid import Variant, build_index, data_set
from benchmarks._service import memory_of, score_offline
from service.keys import KeyRecord, Scope, new_key, sha256_of, write_keys

_BOUND: Final = 1e-4
"""How far an answer may lie from the offline one, relatively."""
_SIZE: Final = 128
"""Of the index's squares, px: attacks are not on the scoring."""
_WAIT_S: Final = 300.0
_LOST: Final = 0
"""Status of an attacker's request that was cut off, or that it gave up."""
_POST: Final = "POST /v1/{call} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {key}\r\n"


@dataclass(frozen=True, slots=True)
class Target:
    """The service that is attacked, and its keys."""

    url: str
    pid: int
    attacker: str
    ward: str

    @property
    def port(self) -> int:
        """Of its loopback address."""
        return int(self.url.rpartition(":")[2])


@dataclass(frozen=True, slots=True)
class Attack:
    """An attack: its name, how many requests it makes, and what makes them and gives their statuses."""

    name: str
    requests: int
    run: Callable[[Target, int], list[int]]


@dataclass(frozen=True, slots=True)
class Figures:
    """What came of one attack.

    refused, cut, failed: the attacker's requests with a status below 500, without one, and with another.
    answered, lost, wrong: photographs of the other key during the attack: answered as offline, not answered,
    answered otherwise.  first_s, worst_s: its first and its slowest answer, with the waits that 429 asks for.
    before_mb, most_mb, after_mb: resident memory of service and decoders.  clean_s: after the end, until `/readyz`
    says ready and nothing is held.
    """

    attack: str
    requests: int
    refused: int
    cut: int
    failed: int
    answered: int
    lost: int
    wrong: int
    first_s: float
    worst_s: float
    before_mb: float
    most_mb: float
    after_mb: float
    clean_s: float


def main(quick: Quick = False, json: Json = None) -> None:
    """Attack a service and print a table."""
    shared = shared_data()
    share = 8 if quick else 1
    print_header(
        "The service under attack",
        f"preset resad, ResNet-18 (ImageNet), size {_SIZE}; resad-service with its own settings. One key attacks; "
        "another one scores JPEGs of 512 x 512 px meanwhile, one after another.",
    )
    photos = [path.read_bytes() for path in sorted((data_set(shared) / "test").glob("*/*.jpg"))[:4]]
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "root"
        loaded = build_index(Variant("resad"), _SIZE, shared, root)
        expected = [score_offline(loaded, photo).image_score for photo in photos]
        with _service(root, Path(folder)) as target:
            figures = [_measure(target, attack, share, photos, expected) for attack in _ATTACKS]
    print_table(
        "One attack after another on the same process",
        ("attack", "requests", "refused", "cut off", "5xx", "others: answered", "lost", "wrong", "first answer, s",
         "slowest, s", "MB before", "most", "after", "clean after, s"),
        [_row(row) for row in figures],
    )  # fmt: skip
    write_json(json, figures)
    if any(row.wrong or row.lost for row in figures):
        print("an answer of the other key was lost or wrong", file=sys.stderr)
        raise typer.Exit(1)


def _row(row: Figures) -> tuple[str, ...]:
    counts = (row.requests, row.refused, row.cut, row.failed, row.answered, row.lost, row.wrong)
    seconds, memory = (row.first_s, row.worst_s), (row.before_mb, row.most_mb, row.after_mb)
    return (
        row.attack, *map(str, counts), *(f"{value:.1f}" for value in seconds),
        *(f"{value:,.0f}" for value in memory), f"{row.clean_s:.1f}",
    )  # fmt: skip


@contextmanager
def _service(root: Path, folder: Path) -> Iterator[Target]:
    keys = new_key(), new_key()
    scopes: tuple[Scope, ...] = ("score", "metrics")
    records = [KeyRecord(name, sha256_of(key), scopes) for name, key in zip(("a", "b"), keys, strict=True)]
    write_keys(folder / "keys.json", records)
    command = Path(sys.executable).with_name("resad-service")
    variables = {name: value for name, value in os.environ.items() if not name.startswith("RESAD_")}
    line = [str(command), "--root", str(root), "--port", "0", "--keys-file", str(folder / "keys.json")]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(line, env=variables, stdout=subprocess.PIPE, stderr=log, text=True)
        try:
            assert process.stdout is not None
            match = re.search(r"http://\S+:\d+", process.stdout.readline())
            assert match
            target = Target(match.group(), process.pid, *keys)
            _wait(lambda: httpx.get(f"{target.url}/readyz").status_code == httpx.codes.OK)
            yield target
        finally:
            process.terminate()
            process.wait()


def _measure(
    target: Target, attack: Attack, share: int, photos: Sequence[bytes], expected: Sequence[float]
) -> Figures:
    requests = max(2, attack.requests // share)
    statuses: list[int] = []
    before_mb = most_mb = _memory_mb(target.pid)
    attacking = threading.Thread(target=lambda: statuses.extend(attack.run(target, requests)))
    seconds: list[float] = []
    right = lost = wrong = number = 0
    with (
        Client(target.url, key=target.ward, retries=20, max_wait_s=_WAIT_S) as ward,
        httpx.Client(base_url=target.url, timeout=_WAIT_S, headers=_bearer(target.ward)) as probe,
    ):
        attacking.start()
        time.sleep(0.5)
        while attacking.is_alive() or number < len(photos):
            began = time.perf_counter()
            photo = number % len(photos)
            try:
                score = ward.score(photos[photo]).image_score
            except ResadError:
                lost += 1
            else:
                close = abs(score - expected[photo]) <= _BOUND * expected[photo]
                right, wrong = right + close, wrong + (not close)
            seconds.append(time.perf_counter() - began)
            most_mb = max(most_mb, _memory_mb(target.pid))
            number += 1
        attacking.join()
        began = time.perf_counter()
        _wait(lambda: _is_clean(probe))
    refused, cut = sum(400 <= status < 500 for status in statuses), statuses.count(_LOST)
    return Figures(
        attack.name, requests, refused, cut, sum(status >= 500 for status in statuses), right, lost, wrong,
        seconds[0], max(seconds), before_mb, most_mb, _memory_mb(target.pid), time.perf_counter() - began,
    )  # fmt: skip


def _is_clean(ward: httpx.Client) -> bool:
    metrics = ward.get("/metrics").text
    gauges = re.findall(r"^resad_(?:held_bytes|queue_photos) (\S+)$", metrics, re.MULTILINE)
    return ward.get("/readyz").status_code == httpx.codes.OK and [float(value) for value in gauges] == [0.0, 0.0]


def _wait(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _WAIT_S
    while True:
        with suppress(httpx.TransportError):
            if condition():
                return
        if time.monotonic() > deadline:
            raise SystemExit("the service did not become ready, or did not become clean, in time")
        time.sleep(0.1)


def _memory_mb(pid: int) -> float:
    """Of a process and its children."""
    children = [
        int(child) for file in Path(f"/proc/{pid}/task").glob("*/children") for child in file.read_text().split()
    ]
    total = 0.0
    for process in (pid, *children):
        with suppress(OSError, KeyError):  # it has just ended
            total += memory_of(process).now_mb
    return total


def _bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def _post_all(body: bytes, media_type: str) -> Callable[[Target, int], list[int]]:
    """Post a body many times, four at once."""

    def run(target: Target, count: int) -> list[int]:
        statuses: list[int] = []
        numbers = iter(range(count))  # shared: next() on it is atomic
        headers = {**_bearer(target.attacker), "Content-Type": media_type}

        def post() -> None:
            with httpx.Client(base_url=target.url, timeout=_WAIT_S) as client:
                statuses.extend(
                    client.post("/v1/score", content=body, headers=headers).status_code for _ in numbers
                )

        threads = [threading.Thread(target=post) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return statuses

    return run


def _read_nothing(target: Target, count: int) -> list[int]:
    """Ask for maps of 256 MB each, and read none of them until the service closes the connection."""
    body = png(8000, 8000)
    head = _POST.format(call="anomaly-map", key=target.attacker) + "Accept: application/x-npy\r\n"
    with ExitStack() as stack:
        lines = [stack.enter_context(_line(target)) for _ in range(count)]
        for line in lines:
            line.sendall(_with_body(head + "Content-Type: image/png\r\n", len(body)) + body)
        time.sleep(60)
        return [_status(line) for line in lines]


def _send_slowly(target: Target, count: int) -> list[int]:
    """Uploads of 700 kB at 12 kB a second: a little faster than the least rate."""
    head = _POST.format(call="score", key=target.attacker) + "Content-Type: image/jpeg\r\n"
    with ExitStack() as stack:
        lines = [stack.enter_context(_line(target)) for _ in range(count)]
        for line in lines:
            line.sendall(_with_body(head, 700_000))
        began, sent = time.monotonic(), 0
        while (elapsed := time.monotonic() - began) < 30:
            due = int(12_000 * elapsed)
            for line in lines:
                with suppress(OSError):
                    line.sendall(b"x" * (due - sent))
            sent = due
            time.sleep(0.2)
        return [_status(line, wait_s=0.05) for line in lines]


def _announce(target: Target, count: int) -> list[int]:
    """Announce uploads of 25 MB and send nothing of them."""
    head = _POST.format(call="score", key=target.attacker) + "Content-Type: image/jpeg\r\n"
    with ExitStack() as stack:
        lines = [stack.enter_context(_line(target)) for _ in range(count)]
        for line in lines:
            line.sendall(_with_body(head, 25_000_000))
        return [_status(line, wait_s=20) for line in lines]


def _other_hosts(target: Target, count: int) -> list[int]:
    """Requests as a browser sends them for a page whose name resolves to this machine."""
    with httpx.Client(base_url=target.url, timeout=_WAIT_S) as client:
        headers = {**_bearer(target.attacker), "Host": "evil.example"}
        return [client.get("/v1/indexes", headers=headers).status_code for _ in range(count)]


def _with_body(head: str, length: int) -> bytes:
    return f"{head}Content-Length: {length}\r\n\r\n".encode()


@contextmanager
def _line(target: Target) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", target.port), timeout=_WAIT_S) as line:
        line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
        yield line


def _status(line: socket.socket, wait_s: float = 1.0) -> int:
    """Of the answer, if it came whole; otherwise `_LOST`."""
    line.settimeout(wait_s)
    try:
        head = line.recv(4096)
        while b"transfer-encoding: chunked" in head and line.recv(1 << 20):
            continue
    except OSError:
        return _LOST
    return int(head.split()[1]) if head else _LOST


_ATTACKS: Final = (
    Attack("JPEG of 6,000 empty scans", 100, _post_all(jpeg_of_scans(6000), "image/jpeg")),
    Attack("TIFF of a million strips", 20, _post_all(tiff_of_strips(1_000_000), "image/tiff")),
    Attack("BMP of run lengths, 79 million px", 8, _post_all(bmp_of_runs(8900), "image/bmp")),
    Attack("maps of 256 MB that nobody reads", 6, _read_nothing),
    Attack("uploads at 12 kB a second", 64, _send_slowly),
    Attack("uploads of 25 MB announced", 64, _announce),
    Attack("another Host", 50, _other_hosts),
)


if __name__ == "__main__":
    typer.run(main)
