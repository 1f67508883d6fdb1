"""Ends a process before each file operation of a photograph's life in the queue, and says what the next start has.

    python queue_crashes.py FOLDER        prints a JSON list, an entry for each crash

A process of its own, because it forks.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

from resad_dicom.queue import Queue, QueueLimits

_EVENTS = ("open", "os.rename", "os.remove")
_LIMITS = QueueLimits(100, 10**9, 0)
PHOTO = b"photograph" * 1000
RESULTS = [b"map" * 1000, b"report" * 1000]


def life(folder: Path, acknowledge: Any) -> None:
    """A photograph's way through the queue; `acknowledge` records what was promised and done so far."""
    queue = Queue(folder, _LIMITS)
    queue.add(PHOTO)
    acknowledge("stored")
    (item,) = queue.claim("received")
    queue.add_results(item, RESULTS)
    queue.release(item)
    acknowledge("scored")
    (item,) = queue.claim("scored")
    for result in queue.unsent(item):
        queue.sent(result)
    acknowledge("sent")
    queue.finish(item)
    acknowledge("finished")


def crash(folder: Path, number: int) -> bool:
    """Live until before the file operation `number`; false if there are fewer."""
    child = os.fork()
    if child == 0:
        count = 0

        def before(event: str, args: tuple[Any, ...]) -> None:
            nonlocal count
            if event in _EVENTS and str(folder / "queue") in str(args[0]):
                count += 1
                if count == number:
                    os._exit(9)

        log = os.open(folder / "acknowledged", os.O_CREAT | os.O_WRONLY | os.O_APPEND)
        sys.addaudithook(before)
        life(folder / "queue", lambda word: os.write(log, f"{word}\n".encode()))
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9


def look(folder: Path) -> dict[str, Any]:
    """What was acknowledged before the crash, and what the next start has."""
    log = folder / "acknowledged"
    queue = Queue(folder / "queue", _LIMITS)
    state = queue.state()
    received, scored = queue.claim("received"), queue.claim("scored")
    answer = {
        "acknowledged": log.read_text().split() if log.exists() else [],
        "received": state.received,
        "scored": state.scored,
        "files": sum(1 for _ in (folder / "queue").rglob("*.dcm")),
        "strays": sum(1 for path in (folder / "queue").rglob(".*")),
        "whole": all(queue.photo(item) == PHOTO for item in (*received, *scored))
        and all(
            result.path.read_bytes() == RESULTS[result.number] for item in scored for result in queue.unsent(item)
        ),
    }
    queue.close()
    return answer


def main() -> None:
    """Crash everywhere."""
    answers = []
    number = 1
    while True:
        folder = Path(sys.argv[1]) / str(number)
        folder.mkdir()
        crashed = crash(folder, number)
        answers.append(look(folder))
        if not crashed:
            break
        number += 1
    print(json.dumps(answers))


if __name__ == "__main__":
    main()
