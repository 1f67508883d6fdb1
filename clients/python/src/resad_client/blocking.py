"""The port of the blocking client: coroutines over it run through in one go, without an event loop."""

import random
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

import httpx

from resad_client import exchange
from resad_client.exchange import Call, Port
from resad_client.retries import RetryPolicy

T = TypeVar("T")


class BlockingPort(Port):
    """Does everything on the spot."""

    def __init__(
        self, http: httpx.Client, sleep: Callable[[float], None], policy: RetryPolicy, rng: random.Random
    ) -> None:
        super().__init__(policy, rng)
        self._http = http
        self._sleep = sleep

    async def read(self, path: Path) -> bytes:
        """At once."""
        return path.read_bytes()

    async def send(self, call: Call) -> httpx.Response:
        """Blocks until the answer is there."""
        return self._http.send(exchange.request(self._http, call))

    async def pause(self, seconds: float) -> None:
        """Blocks for so long."""
        self._sleep(seconds)


def finish(call: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine over a `BlockingPort`: it never suspends, so its first step is its last."""
    try:
        call.send(None)
    except StopIteration as done:
        result: T = done.value
        return result
    raise RuntimeError("a blocking call suspended")
