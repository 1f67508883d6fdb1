"""LRU cache of loaded indexes, for when not all fit into memory."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final

from resad.loaded_index import LoadedIndex
from service.problems import NOT_READY, Refusal
from service.registry import Registry

_RETRY_AFTER: Final = {"Retry-After": "5"}


class Shelf:
    """Lends indexes to those who score with them.  Used on the event loop alone.

    An index that is lent stays.  One that is to leave is lent no more, so that its last users end some time; those
    who ask for it then wait for it to come again, in the order in which they came.

    Args:
        bring: loads an index that rests, once another one has left (None where there is a place); says whether
            there was a place.  Called on a thread, one call at a time.
        places: indexes in memory at most; None for all of them.
        patience_s: seconds after which who waits for an index is told to come again; it is loaded all the same.
    """

    def __init__(
        self, registry: Registry, bring: Callable[[str, str | None], bool], places: int | None, patience_s: float
    ) -> None:
        self._registry = registry
        self._bring = bring
        self._places = places
        self._patience_s = patience_s
        self._users: Counter[str] = Counter()
        self._asked: dict[str, float] = {}
        """When each was last asked for, in seconds of the monotonic clock."""
        self._began = time.monotonic()
        self._waiting: dict[str, list[asyncio.Future[LoadedIndex]]] = {}
        self._leaving: str | None = None
        self._returned = asyncio.Event()
        self._moving: asyncio.Task[None] | None = None

    @asynccontextmanager
    async def lent(self, name: str) -> AsyncIterator[LoadedIndex]:
        """The index, which stays in memory meanwhile.

        Raises `Refusal`: 404 for an unknown name; 503 with Retry-After where it cannot be loaded, or not so soon.
        """
        self._asked[name] = time.monotonic()
        # No entry is bound here: it may hold a version that is to leave while this waits.
        if self._registry.get(name).at_rest is not None or name == self._leaving:
            loaded = await self._awaited(name)
        else:
            loaded = self._registry.find(name)
            self._users[name] += 1
        try:
            yield loaded
        finally:
            self._give_back(name)

    @property
    def held(self) -> tuple[str, ...]:
        """What is in memory, or will be before long; may be read on any thread."""
        there = {name for name, entry in self._registry.served.items() if entry.live is not None}
        return tuple(sorted((there | {*tuple(self._waiting)}) - {self._leaving}))

    @property
    def unasked_s(self) -> dict[str, float]:
        """For how many seconds nobody has asked for each of those; may be read on any thread."""
        now = time.monotonic()
        return {name: now - self._asked.get(name, self._began) for name in self.held}

    @property
    def room(self) -> bool:
        """Whether another index finds a place without one that leaves."""
        return self._places is None or len(self.held) < self._places

    async def _awaited(self, name: str) -> LoadedIndex:
        """The index once it is there, already counted as lent."""
        future: asyncio.Future[LoadedIndex] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(name, []).append(future)
        if self._moving is None or self._moving.done():
            self._moving = asyncio.create_task(self._move())
        try:
            async with asyncio.timeout(self._patience_s):
                return await future
        except TimeoutError:
            self._undo(name, future)
            raise Refusal(NOT_READY, f"{name}: loading", _RETRY_AFTER) from None
        except asyncio.CancelledError:
            self._undo(name, future)
            raise

    def _undo(self, name: str, future: "asyncio.Future[LoadedIndex]") -> None:
        """It may have come in the moment in which its caller went."""
        if future.done() and not future.cancelled() and future.exception() is None:
            self._give_back(name)

    def _give_back(self, name: str) -> None:
        self._users[name] -= 1
        self._returned.set()

    async def _move(self) -> None:
        """Bring what is waited for, one after the other."""
        while self._waiting:
            await self._bring_to_all(next(iter(self._waiting)))

    async def _bring_to_all(self, name: str) -> None:
        """A turn; what it binds ends with it, so that the next one finds the memory free."""
        loaded: LoadedIndex | Exception
        try:
            await self._make_present(name)
            loaded = self._registry.find(name)
        except Exception as error:
            loaded = error
        for future in self._waiting.pop(name):
            if future.done():  # its caller has gone
                continue
            if isinstance(loaded, Exception):
                future.set_exception(loaded)
            else:
                self._users[name] += 1
                future.set_result(loaded)

    async def _make_present(self, name: str) -> None:
        while self._registry.get(name).live is None:
            self._leaving = self._longest_unasked()
            try:
                while self._leaving is not None and self._users[self._leaving]:
                    self._returned.clear()
                    await self._returned.wait()
                if await asyncio.to_thread(self._bring, name, self._leaving):
                    return
            finally:
                self._leaving = None

    def _longest_unasked(self) -> str | None:
        """Who leaves; None where there is a place.  One that nobody uses goes before one to be waited for."""
        there = [name for name, entry in self._registry.served.items() if entry.live is not None]
        if self._places is None or len(there) < self._places:
            return None
        return min(there, key=lambda name: (self._users[name] > 0, self._asked.get(name, self._began)))
