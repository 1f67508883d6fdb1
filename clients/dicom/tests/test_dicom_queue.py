import json
import subprocess
import sys
from pathlib import Path

import pytest
from resad_client.errors import SettingError

from resad_dicom.queue import Item, Queue, QueueLimits, read_state, retry_refused

LIMITS = QueueLimits(items=100, bytes=10**6, free_bytes=0)


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def claimed(queue: Queue, state: str = "received") -> Item:
    (item,) = queue.claim("scored" if state == "scored" else "received")
    return item


def test_a_crash_before_any_file_operation_loses_nothing(tmp_path: Path) -> None:
    script = Path(__file__).with_name("queue_crashes.py")
    process = subprocess.run([sys.executable, script, tmp_path], capture_output=True, text=True, timeout=600)
    assert process.returncode == 0, process.stderr
    answers = json.loads(process.stdout)
    assert len(answers) > 12
    for answer in answers:
        acknowledged = answer["acknowledged"]
        there = (answer["received"], answer["scored"])
        assert answer["whole"]
        assert answer["strays"] == 0
        if "stored" in acknowledged and "sent" not in acknowledged:
            assert sum(there) == 1, answer
        if "scored" in acknowledged:
            assert answer["received"] == 0, "scored twice"
        if "finished" in acknowledged:
            assert there == (0, 0)
        # A file for the photograph, and two for its results; nothing that no row names.
        assert answer["files"] == answer["received"] + 3 * answer["scored"], answer
    assert answers[-1]["acknowledged"] == ["stored", "scored", "sent", "finished"]
    assert {tuple(answer["acknowledged"]) for answer in answers} >= {(), ("stored",), ("stored", "scored", "sent")}


def test_the_same_bytes_wait_once(tmp_path: Path) -> None:
    queue = Queue(tmp_path, LIMITS)
    assert queue.add(b"one")
    assert not queue.add(b"one")
    assert queue.add(b"two")
    item = claimed(queue)
    queue.add_results(item, [])
    assert not queue.add(b"one"), "until its results are sent"
    queue.finish(item)
    queue.release(item)
    assert queue.add(b"one"), "afterwards it is scored again"
    queue.close()


def test_the_oldest_that_is_due_comes_first_and_to_one_worker_only(tmp_path: Path) -> None:
    clock = Clock()
    queue = Queue(tmp_path, LIMITS, clock=clock)
    for data in (b"a", b"b", b"c"):
        queue.add(data)
    first, second = claimed(queue), claimed(queue)
    assert (queue.photo(first), queue.photo(second)) == (b"a", b"b")
    assert queue.postpone(first) == 1.0
    queue.release(first)
    assert queue.photo(claimed(queue)) == b"c"
    assert queue.claim("received") == []
    clock.now += 1.0
    again = claimed(queue)
    assert (queue.photo(again), again.attempts) == (b"a", 1)
    assert queue.postpone(again) == 2.0
    queue.close()


def test_waits_double_and_end_at_five_minutes(tmp_path: Path) -> None:
    clock = Clock()
    queue = Queue(tmp_path, LIMITS, clock=clock)
    queue.add(b"a")
    waits = []
    for _ in range(12):
        item = claimed(queue)
        waits.append(queue.postpone(item))
        queue.release(item)
        clock.now += waits[-1]
    assert waits[:4] == [1, 2, 4, 8]
    assert waits[-1] == 300
    queue.close()


@pytest.mark.parametrize(
    ("limits", "free", "reason"),
    [
        (QueueLimits(2, 10**6, 0), 10**9, "items"),
        (QueueLimits(100, 20, 0), 10**9, "bytes"),
        (QueueLimits(100, 10**6, 1000), 999, "disk"),
        (QueueLimits(100, 10**6, 1000), 1000, None),
    ],
)
def test_it_says_which_limit_is_reached(
    tmp_path: Path, limits: QueueLimits, free: int, reason: str | None
) -> None:
    queue = Queue(tmp_path, limits, disk=lambda folder: free)
    queue.add(b"0123456789")
    queue.add(b"9876543210")
    assert queue.full() == reason
    if reason in ("items", "bytes"):
        for item in queue.claim("received", 2):
            queue.refuse(item, "service", "no photograph")
        assert queue.full() is None, "refused photographs take no room from the others"
    queue.close()


def test_results_count_as_bytes_of_the_queue(tmp_path: Path) -> None:
    queue = Queue(tmp_path, QueueLimits(100, 1000, 0))
    queue.add(b"x" * 100)
    queue.add_results(claimed(queue), [b"y" * 400, b"z" * 600])
    assert queue.full() == "bytes"
    assert queue.state().bytes == 1100
    queue.close()


def test_refused_photographs_are_kept_shown_and_retried(tmp_path: Path) -> None:
    queue = Queue(tmp_path, LIMITS, clock=Clock())
    queue.add(b"a")
    queue.add(b"b")
    first, second = queue.claim("received", 2)
    queue.refuse(first, "service", "422 not-a-fundus-photo")
    queue.add_results(second, [b"result"])
    queue.refuse(second, "pacs", "C-STORE status 0xC000")
    for item in (first, second):
        queue.release(item)
    state, refused = read_state(tmp_path)
    assert (state.received, state.scored, state.refused) == (0, 0, 2)
    assert [(photo.peer, photo.reason) for photo in refused] == [
        ("service", "422 not-a-fundus-photo"), ("pacs", "C-STORE status 0xC000"),
    ]  # fmt: skip
    assert refused[0].path.read_bytes() == b"a"
    assert retry_refused(tmp_path) == 2
    assert queue.photo(claimed(queue)) == b"a"
    (result,) = queue.unsent(claimed(queue, "scored"))
    assert result.path.read_bytes() == b"result"
    queue.close()


def test_a_refused_photograph_that_comes_again_is_tried_again(tmp_path: Path) -> None:
    queue = Queue(tmp_path, LIMITS)
    queue.add(b"a")
    item = claimed(queue)
    queue.refuse(item, "service", "no photograph")
    queue.release(item)
    assert queue.add(b"a")
    assert (queue.state().received, queue.state().refused) == (1, 0)
    assert len(list(tmp_path.rglob("*.dcm"))) == 1
    queue.close()


def test_the_oldest_refused_photographs_go_when_they_take_a_tenth(tmp_path: Path) -> None:
    queue = Queue(tmp_path, QueueLimits(100, 1000, 0))
    for number in range(5):
        queue.add(b"%d" % number * 40)
        item = claimed(queue)
        queue.refuse(item, "service", "no photograph")
        queue.release(item)
    _, refused = read_state(tmp_path)
    assert [photo.path.read_bytes()[:1] for photo in refused] == [b"3", b"4"]
    assert len(list(tmp_path.rglob("*.dcm"))) == 2
    queue.close()


def test_one_node_uses_a_queue(tmp_path: Path) -> None:
    queue = Queue(tmp_path, LIMITS)
    with pytest.raises(SettingError, match="another node uses the queue"):
        Queue(tmp_path, LIMITS)
    queue.close()
    Queue(tmp_path, LIMITS).close()


def test_only_its_owner_may_look_into_it(tmp_path: Path) -> None:
    queue = Queue(tmp_path / "queue", LIMITS)
    queue.add(b"a")
    assert (tmp_path / "queue").stat().st_mode & 0o077 == 0
    queue.close()


def test_a_folder_without_a_queue_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="holds no queue"):
        read_state(tmp_path)
    with pytest.raises(SettingError, match="holds no queue"):
        retry_refused(tmp_path)
    assert not list(tmp_path.iterdir())
