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

    seen: Counter[str] = field(default_factory=Counter)
    versions: set[str] = field(default_factory=set)

    @property
    def answered(self) -> int:
        return self.seen["200"]

    @property
    def failed(self) -> dict[str, int]:
        """Everything but a score."""
        return {what: count for what, count in self.seen.items() if what != "200"}


@contextmanager
def load(client: Callable[[], httpx.Client], photo: bytes, callers: int = 3) -> Iterator[Load]:
    """`callers` threads that post `photo`, each a next one as soon as the last is answered."""
    told, stop, lock = Load(), threading.Event(), threading.Lock()

    def ask() -> None:
        with client() as one:
            while not stop.is_set():
                try:
                    answer = one.post("/v1/score", content=photo, headers=JPEG)
                except httpx.HTTPError as error:
                    what, version = type(error).__name__, None
                else:
                    what = str(answer.status_code)
                    version = answer.json()["index"]["version"] if answer.status_code == 200 else None
                with lock:
                    told.seen[what] += 1
                    if version:
                        told.versions.add(version)

    threads = [threading.Thread(target=ask) for _ in range(callers)]
    for thread in threads:
        thread.start()
    try:
        yield told
    finally:
        stop.set()
        for thread in threads:
            thread.join(120)
