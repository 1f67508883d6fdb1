"""Callers that keep asking until they are told to stop, and remember every answer."""

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import httpx

JPEG = {"Content-Type": "image/jpeg"}


@dataclass(slots=True)
class Load:
    """What came back: status, or the name of what went wrong on the way."""

    outcomes: Counter[str] = field(default_factory=Counter)
    versions: set[str] = field(default_factory=set)

    @property
    def answered(self) -> int:
        return self.outcomes["200"]

    @property
    def failed(self) -> dict[str, int]:
        """Everything but a score."""
        return {outcome: count for outcome, count in self.outcomes.items() if outcome != "200"}


@contextmanager
def load(client: Callable[[], httpx.Client], photo: bytes, callers: int = 3) -> Iterator[Load]:
    """`callers` threads that post `photo`, each a next one as soon as the last is answered."""
    traffic, stop, lock = Load(), threading.Event(), threading.Lock()

    def ask() -> None:
        with client() as session:
            while not stop.is_set():
                try:
                    answer = session.post("/v1/score", content=photo, headers=JPEG)
                except httpx.HTTPError as error:
                    outcome, version = type(error).__name__, None
                else:
                    outcome = str(answer.status_code)
                    version = answer.json()["index"]["version"] if answer.status_code == 200 else None
                with lock:
                    traffic.outcomes[outcome] += 1
                    if version:
                        traffic.versions.add(version)

    threads = [threading.Thread(target=ask) for _ in range(callers)]
    for thread in threads:
        thread.start()
    try:
        yield traffic
    finally:
        stop.set()
        for thread in threads:
            thread.join(120)
