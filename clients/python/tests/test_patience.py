"""Runs against a service that is slow, busy, restarting or gone: they end well, and say how they go on."""

import asyncio
import csv
import io
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from playing import BAD, Service, service
from resad_client import (
    AsyncClient,
    Busy,
    ConnectionFailed,
    ConnectionLost,
    DeadlinePassed,
    NotReady,
    PhotoRefused,
    PhotoUnusable,
    Problem,
    ProtocolError,
    ResadClientError,
    Result,
    ServerFault,
    TimedOut,
    from_json,
)
from resad_client.batch import (
    OutputFiles,
    RunOptions,
    RunReport,
    ScoreFailure,
    open_journal,
    plan_jobs,
    score_photos,
)
from resad_client.errors import with_remedy
from resad_client.photos import list_labeled
from resad_client.progress import RunProgress, in_words, shown
from resad_client.protocol import ScoreQuery
from resad_client.records import ScoreRow
from resad_client.run_files import RunTables
from resad_client.terminal import SafeConsole
from samples import EXAMPLE, picture, problem, score_response

__all__ = ["service"]
POISON = picture("JPEG", shade=3)
OPTIONS = RunOptions(ScoreQuery(), concurrency=3)
SCORED = ScoreRow("sound.jpg", from_json(Result, EXAMPLE), 4)
FAILED = ScoreFailure("bad.jpg", "bad.jpg: no photograph", "no photograph")
Answer = Callable[[httpx.Request], httpx.Response]


class World:
    """A service and the time of its clock: `answer` gets each score request; every wait passes at once."""

    def __init__(self, answer: Answer, ready: Answer = lambda _: httpx.Response(200)) -> None:
        self.answer = answer
        self.ready = ready
        self.seconds = 0.0
        self.scores = 0
        self.attempts: Counter[bytes] = Counter()
        self.together = 0
        self.most_together: list[int] = []

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        if request.url.path == "/readyz":
            return self.ready(request)
        self.scores += 1
        self.attempts[request.content] += 1
        self.together += 1
        self.most_together.append(self.together)
        await asyncio.sleep(0)
        self.together -= 1
        return self.answer(request)

    async def sleep(self, seconds: float) -> None:
        self.seconds += seconds
        await asyncio.sleep(0)

    def run(self, folder: Path, options: RunOptions = OPTIONS) -> tuple[RunReport, dict[str, str]]:
        """The report, and the column `error` of the table, by photograph."""
        outputs = OutputFiles(RunTables(folder.parent / "out.csv"))
        client = AsyncClient(
            "http://service", transport=httpx.MockTransport(self), sleep=self.sleep, retries=sys.maxsize,
            lost_retries=0, max_wait_s=options.patience_s,
        )  # fmt: skip
        with open_journal(outputs, options, "overwrite") as journal:
            assert journal is not None
            jobs = plan_jobs(list_labeled([folder])[0], outputs, journal, "overwrite")
            report = asyncio.run(score_photos(client, jobs, options, journal, lambda _: None, sleep=self.sleep))
            outputs.tables.write(journal.outcomes)
        with (folder.parent / "out.csv").open(newline="") as file:
            return report, {row["photo"]: row["error"] for row in csv.DictReader(file)}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    photos = tmp_path / "photos"
    photos.mkdir()
    for number in range(6):
        (photos / f"{number}.jpg").write_bytes(picture("JPEG", shade=100 + number))
    return photos


def with_poison(poisoned: Answer) -> Answer:
    return lambda request: poisoned(request) if request.content == POISON else score_response()


def test_a_service_that_is_busy_for_hours_loses_no_photograph(folder: Path) -> None:
    world = World(
        lambda _: problem(429, "busy", **{"Retry-After": "3"}) if world.seconds < 7200 else score_response()
    )
    report, errors = world.run(folder)
    assert world.seconds >= 7200
    assert report.stopped is None
    assert set(errors.values()) == {""}
    assert len(errors) == 6


def test_patience_is_what_the_caller_says_it_is(folder: Path) -> None:
    world = World(lambda _: problem(429, "busy", **{"Retry-After": "3"}))
    report, errors = world.run(folder, replace(OPTIONS, patience_s=300.0))
    assert report.stopped is None
    assert len(report.outcomes) == 6
    assert all("--patience, then repeat the command with --resume" in error for error in errors.values())


@pytest.mark.parametrize("status", [504, 408, 502])
def test_a_service_that_is_too_slow_for_a_while_loses_no_photograph(folder: Path, status: int) -> None:
    """However often it happens: no photograph is scored meanwhile, so it is none of the photographs' fault."""
    world = World(lambda _: problem(status) if world.scores < 200 else score_response())
    document = {"type": "about:blank", "title": "Bad Gateway", "status": 502}
    if status == 502:
        world.answer = lambda _: httpx.Response(502, json=document) if world.scores < 200 else score_response()
    report, errors = world.run(folder)
    assert report.stopped is None
    assert (len(errors), set(errors.values())) == (6, {""})


@pytest.mark.parametrize(
    ("poisoned", "words"),
    [
        (lambda _: problem(504, "deadline"), "a longer --deadline-s, then repeat the command with --resume"),
        (lambda _: problem(503, "out-of-memory"), "save it smaller"),
        (httpx.ReadError("the connection broke"), "what becomes of this photograph"),
        (httpx.ReadTimeout("too slow"), "what becomes of this photograph"),
    ],
)
def test_a_photograph_that_never_passes_holds_up_no_run_and_takes_no_other_with_it(
    folder: Path, poisoned: Answer | Exception, words: str
) -> None:
    (folder / "0.jpg").write_bytes(POISON)

    def answer(request: httpx.Request) -> httpx.Response:
        if isinstance(poisoned, Exception):
            raise poisoned
        return poisoned(request)

    world = World(with_poison(answer))
    report, errors = world.run(folder)
    assert report.stopped is None
    assert {name for name, error in errors.items() if error} == {"0.jpg"}
    assert words in errors["0.jpg"]
    assert world.attempts[POISON] == 5
    assert max(world.most_together[6:]) == 1  # later attempts are made alone


def test_a_service_that_dies_of_a_photograph_and_is_restarted_scores_all_others(folder: Path) -> None:
    (folder / "3.jpg").write_bytes(POISON)
    dead_until = 0.0

    def answer(request: httpx.Request) -> httpx.Response:
        nonlocal dead_until
        if world.seconds < dead_until:
            raise httpx.ConnectError("refused")
        if request.content == POISON:
            dead_until = world.seconds + 40
            raise httpx.RemoteProtocolError("the server disconnected")
        return score_response()

    def ready(_: httpx.Request) -> httpx.Response:
        if world.seconds < dead_until:
            raise httpx.ConnectError("refused")
        return httpx.Response(200)

    world = World(answer, ready)
    report, errors = world.run(folder)
    assert report.stopped is None
    assert {name for name, error in errors.items() if error} == {"3.jpg"}


def test_a_photograph_that_never_passes_and_is_the_last_one_ends_too(folder: Path) -> None:
    """It was tried for as long as patience lasts, since none was scored after its first failure."""
    (folder / "9.jpg").write_bytes(POISON)
    world = World(with_poison(lambda _: problem(504, "deadline")))
    report, errors = world.run(folder, replace(OPTIONS, concurrency=1))
    assert report.stopped is None
    assert {name for name, error in errors.items() if error} == {"9.jpg"}
    assert world.attempts[POISON] == 5


def test_one_photograph_alone_is_given_up_after_five_attempts(folder: Path) -> None:
    for path in sorted(folder.iterdir())[1:]:
        path.unlink()
    world = World(lambda _: problem(504, "deadline"))
    report, _ = world.run(folder)
    assert isinstance(report.outcomes[0], ScoreFailure)
    assert world.scores == 5


def test_a_service_that_is_gone_is_waited_for_or_ends_the_run_once_patience_ends(folder: Path) -> None:
    def gone(_: httpx.Request) -> httpx.Response:
        if world.seconds < 5000:
            raise httpx.ConnectError("refused")
        return score_response()

    world = World(gone, gone)
    report, errors = world.run(folder)
    assert (report.stopped, set(errors.values())) == (None, {""})
    world = World(gone, gone)
    report, errors = world.run(folder, replace(OPTIONS, patience_s=0.0))
    assert isinstance(report.stopped, ConnectionFailed)
    assert not errors


@pytest.mark.parametrize(
    "error",
    [
        PhotoUnusable("a.jpg: the file is empty"),
        PhotoRefused(Problem("Photograph too large", 413)),
        PhotoRefused(Problem("Photograph unreadable", 422, "urn:resad:problem:photo-unreadable")),
        PhotoRefused(Problem("Too dark", 422, "urn:resad:problem:photo-quality")),
        Busy(Problem("Busy", 429)),
        NotReady(Problem("Not ready", 503)),
        NotReady(Problem("Out of memory", 503, "urn:resad:problem:out-of-memory")),
        DeadlinePassed(Problem("Deadline", 504)),
        ServerFault(Problem("Internal", 500)),
        ConnectionLost("gone"),
        TimedOut("slow"),
        ProtocolError("no JSON"),
        ResadClientError("else"),
    ],
)
def test_every_error_says_how_to_go_on(error: ResadClientError) -> None:
    for resumable, last in ((True, "repeat the command with --resume"), (False, "score it again")):
        text = with_remedy(error, resumable=resumable)
        assert text.startswith(f"{error}; to go on: ")
        assert text.endswith(f", then {last}")


def test_lines_say_how_far_a_run_is_and_what_it_waits_for() -> None:
    now = 0.0
    progress = RunProgress(1200, clock=lambda: now)
    assert progress.line == "0 of 1,200 photographs done"
    now = 100.0
    for number in range(100):
        progress.count(SCORED if number else FAILED)
    assert progress.line == "100 of 1,200 photographs done, 1 without a score, about 18 min left"
    progress.wait(Busy(Problem("Too many photographs waiting", 429)), 1.0)
    now = 103.0
    assert "waiting" not in progress.line  # as it is with every busy service
    now = 400.0
    progress.wait(Busy(Problem("Too many photographs waiting", 429)), 1.0)
    assert progress.line.endswith("; waiting for 5 min: 429 Too many photographs waiting")
    progress.count(SCORED)
    assert "waiting" not in progress.line
    assert [in_words(seconds) for seconds in (3, 89, 90, 5399, 5400)] == [
        "3 s",
        "89 s",
        "2 min",
        "90 min",
        "1.5 h",
    ]


def test_a_terminal_has_a_bar_and_a_file_has_lines() -> None:
    async def watch(console: SafeConsole, total: int = 5, wait: ResadClientError | None = None) -> str:
        now = 0.0
        progress = RunProgress(total, clock=lambda: now)
        with shown(progress, console, first_s=0.01):
            progress.count(SCORED)
            if wait:
                progress.wait(wait)
            now = 10.0
            await asyncio.sleep(0.3)
        assert isinstance(console.file, io.StringIO)
        return console.file.getvalue()

    lines = asyncio.run(watch(SafeConsole(file=io.StringIO())))
    assert lines == "1 of 5 photographs done, about 40 s left\n"
    assert asyncio.run(watch(SafeConsole(file=io.StringIO()), total=2)) == ""
    waiting = asyncio.run(watch(SafeConsole(file=io.StringIO()), total=2, wait=Busy(Problem("Too many", 429))))
    assert waiting.endswith("; waiting for 10 s: 429 Too many\n")
    bar = asyncio.run(watch(SafeConsole(file=io.StringIO(), force_terminal=True, width=80)))
    assert "1/5" in bar
    assert "photographs done" not in bar


def test_a_redirected_run_prints_lines(service: Service, folder: Path, tmp_path: Path) -> None:
    service.busy, service.seconds = 0, 0.9  # seven of them: more than the 5 s after which the first line comes
    (folder / "bad.jpg").write_bytes(BAD)
    words = ("score", folder, "--url", service.url, "--csv", tmp_path / "out.csv", "--concurrency", "1")
    command = Path(sys.executable).with_name("resad-client")
    process = subprocess.run([command, *words], capture_output=True, text=True, timeout=120, check=False)
    assert process.returncode == 2
    first, *_, last = process.stderr.splitlines()
    assert " of 7 photographs done" in first
    assert last == "resad-client: 1 of 7 photographs could not be scored"
    resumed = subprocess.run(
        [command, *words[:4], "--csv", tmp_path / "new.csv", "--resume"],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert resumed.stderr.startswith(f"nothing to resume: there is no {tmp_path}/new.csv.journal; starting\n")
