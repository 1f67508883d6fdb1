"""What a fault of the service or the PACS costs."""

import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from resad_client.errors import (
    ConnectionFailed,
    ConnectionLost,
    DeadlinePassed,
    NotReady,
    Problem,
    ProtocolError,
    TimedOut,
    problem_error,
)

from dicom_samples import photo_object, result_objects, uid_for
from resad_dicom.metrics import Metrics
from resad_dicom.objects import read_header
from resad_dicom.queue import Queue, QueueLimits, StoredResult, read_state
from resad_dicom.settings import KINDS, ResultKind
from resad_dicom.work import ATTEMPTS, PeerAway, Scoring, Sending


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Service:
    def __init__(self, answer: Callable[[bytes], list[bytes]]) -> None:
        self.answer = answer
        self.calls = 0

    def results(self, photo: bytes) -> list[bytes]:
        self.calls += 1
        return self.answer(photo)


class Pacs:
    """refusals: kind of result -> reason.  away_after: results before the association is lost."""

    def __init__(self) -> None:
        self.refusals: dict[int, str] = {}
        self.away_after = 1000
        self.stored: list[str] = []

    def send(self, results: Sequence[StoredResult], answer: Callable[[StoredResult, str | None], None]) -> None:
        for result in results:
            if self.away_after == 0:
                raise PeerAway("gone")
            self.away_after -= 1
            refusal = self.refusals.get(result.number)
            if refusal is None:
                self.stored.append(read_header(result.path.read_bytes()).sop_instance)
            answer(result, refusal)


def fail(error: Exception) -> Callable[[bytes], list[bytes]]:
    def answer(photo: bytes) -> list[bytes]:
        raise error

    return answer


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def queue(tmp_path: Path, clock: Clock) -> Iterator[Queue]:
    queue = Queue(tmp_path, QueueLimits(100, 10**7, 0), clock=clock)
    queue.add(photo_object(0))
    yield queue
    queue.close()


def scoring(
    queue: Queue, answer: Callable[[bytes], list[bytes]], kinds: tuple[ResultKind, ...] = KINDS
) -> Scoring:
    return Scoring(queue, Service(answer), kinds, Metrics(), threading.Event())


def sending(queue: Queue, pacs: Pacs, clock: Clock) -> Sending:
    return Sending(queue, pacs, Metrics(), threading.Event(), clock)


def problem(status: int, kind: str) -> Exception:
    return problem_error(Problem(kind, status, f"urn:resad:problem:{kind}"), retry_after=7.0)


@pytest.mark.parametrize(
    "error",
    [
        ConnectionFailed("no answer"),
        problem(503, "not-ready"),
        problem(429, "busy"),
        problem(401, "key-needed"),
        problem(404, "unknown-index"),
        problem(406, "not-acceptable"),
        problem(422, "index-not-named"),
        problem(422, "invalid-request"),
        problem_error(Problem("Bad Gateway", 502)),
    ],
    ids=str,
)
def test_a_service_that_is_away_costs_no_attempt(queue: Queue, error: Exception) -> None:
    half = scoring(queue, fail(error))
    for _ in range(2 * ATTEMPTS):
        with pytest.raises(PeerAway):
            half.step()
    assert (queue.state().received, queue.state().refused) == (1, 0)
    (item,) = queue.claim("received")
    assert item.attempts == 0, "and it is due at once"


@pytest.mark.parametrize(
    "error",
    [
        TimedOut("late"),
        problem(504, "deadline"),
        ConnectionLost("the service died"),
        problem(503, "out-of-memory"),
    ],
    ids=str,
)
def test_a_photograph_that_the_service_does_not_survive_lets_the_others_go_first(
    queue: Queue, clock: Clock, error: Exception
) -> None:
    assert isinstance(error, TimedOut | DeadlinePassed | ConnectionLost | NotReady)
    half = scoring(queue, fail(error))
    for _ in range(2 * ATTEMPTS):
        assert half.step()
        assert not half.step()
        clock.now += 300
    assert (queue.state().received, queue.state().refused) == (1, 0), "never given up"


@pytest.mark.parametrize("error", [problem(500, "internal"), ProtocolError("nonsense")], ids=str)
def test_a_photograph_that_the_service_fails_at_is_given_up(
    queue: Queue, clock: Clock, tmp_path: Path, error: Exception
) -> None:
    half = scoring(queue, fail(error))
    for _ in range(ATTEMPTS):
        assert half.step()
        clock.now += 300
    assert not half.step()
    _, (refused,) = read_state(tmp_path)
    assert refused.peer == "service"
    assert refused.path.is_file()


@pytest.mark.parametrize(
    ("status", "kind"), [(415, "photo-unsupported"), (422, "not-a-fundus-photo"), (413, "photo-too-large")]
)
def test_a_refused_photograph_is_not_asked_for_again(queue: Queue, tmp_path: Path, status: int, kind: str) -> None:
    half = scoring(queue, fail(problem(status, kind)))
    assert half.step()
    assert not half.step()
    _, (refused,) = read_state(tmp_path)
    assert refused.reason == f"{status} {kind}"


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (lambda photo: [], "holds no object"),
        (lambda photo: result_objects(photo, study=uid_for("another")), "of another study"),
        (lambda photo: result_objects(photo)[:1] * 2, "the same UID"),
        (lambda photo: [b"no DICOM"], "no DICOM file"),
    ],
)
def test_an_answer_that_does_not_fit_the_photograph_is_not_sent(
    queue: Queue, clock: Clock, tmp_path: Path, answer: Callable[[bytes], list[bytes]], reason: str
) -> None:
    half = scoring(queue, answer)
    for _ in range(ATTEMPTS):
        half.step()
        clock.now += 300
    state, (refused,) = read_state(tmp_path)
    assert reason in refused.reason
    assert state.scored == 0


def test_only_the_chosen_kinds_are_sent(queue: Queue, clock: Clock) -> None:
    assert scoring(queue, result_objects, ("report",)).step()
    pacs = Pacs()
    assert sending(queue, pacs, clock).step()
    assert pacs.stored == [read_header(result_objects(photo_object(0))[1]).sop_instance]
    assert queue.state().scored == 0


def test_what_the_pacs_has_is_not_sent_again(queue: Queue, clock: Clock) -> None:
    scoring(queue, result_objects).step()
    pacs = Pacs()
    pacs.away_after = 2
    half = sending(queue, pacs, clock)
    with pytest.raises(PeerAway):
        half.step()
    pacs.away_after = 1000
    assert half.step()
    assert len(pacs.stored) == len(set(pacs.stored)) == 3
    assert not half.step()


def test_an_object_that_the_pacs_refuses_does_not_stop_the_others(
    queue: Queue, clock: Clock, tmp_path: Path
) -> None:
    queue.add(photo_object(1))
    for _ in range(2):
        scoring(queue, result_objects).step()
    pacs = Pacs()
    pacs.refusals = {0: "no presentation context was accepted"}
    half = sending(queue, pacs, clock)
    for _ in range(ATTEMPTS):
        assert half.step()
        clock.now += 300
    assert not half.step()
    assert len(pacs.stored) == 4
    state, refused = read_state(tmp_path)
    assert [photo.reason for photo in refused] == ["no presentation context was accepted"] * 2
    assert state.refused == 2


def test_a_photograph_whose_file_is_gone_is_given_up(queue: Queue, tmp_path: Path) -> None:
    for path in tmp_path.glob("objects/*.dcm"):
        path.unlink()
    assert scoring(queue, result_objects).step()
    _, (refused,) = read_state(tmp_path)
    assert "missing" in refused.reason
