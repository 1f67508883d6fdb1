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


class IndexCache:
    """Leases loaded indexes to requests, and evicts the least recently requested one for another.

    A leased index stays in memory.  An index that is to be evicted gets no new leases, so that its last lease
    ends; requests for it wait in line until it is loaded again.  Used on the event loop only.

    Args:
        load: loads a resting index after evicting another (None if there is room); returns whether there was room.
            Called on a thread, one call at a time.
        capacity: most indexes in memory; None for no limit.
        patience_s: seconds after which a waiting request is refused with Retry-After; loading goes on.
    """

    def __init__(
        self,
        registry: Registry,
        load: Callable[[str, str | None], bool],
        capacity: int | None,
        patience_s: float,
    ) -> None:
        self._registry = registry
        self._load = load
        self._capacity = capacity
        self._patience_s = patience_s
        self._leases: Counter[str] = Counter()
        self._last_request: dict[str, float] = {}
        """Of each index, in seconds of the monotonic clock."""
        self._started = time.monotonic()
        self._waiting: dict[str, list[asyncio.Future[LoadedIndex]]] = {}
        self._evicting: str | None = None
        self._lease_ended = asyncio.Event()
        self._loading: asyncio.Task[None] | None = None

    @asynccontextmanager
    async def lease(self, name: str) -> AsyncIterator[LoadedIndex]:
        """The loaded index, kept in memory until the end of the `async with` block.

        Raises `Refusal`: 404 for an unknown name; 503 with Retry-After if it cannot be loaded, or not in time.
        """
        self._last_request[name] = time.monotonic()
        # No entry is bound to a name here: it could keep a version in memory that is to be evicted.
        if self._registry.get(name).resting is not None or name == self._evicting:
            loaded = await self._wait(name)
        else:
            loaded = self._registry.find(name)
            self._leases[name] += 1
        try:
            yield loaded
        finally:
            self._end_lease(name)

    @property
    def loaded(self) -> tuple[str, ...]:
        """Names of the indexes that are in memory or waited for; may be read on any thread."""
        live = {name for name, entry in self._registry.entries.items() if entry.live is not None}
        return tuple(sorted((live | {*tuple(self._waiting)}) - {self._evicting}))

    @property
    def idle_s(self) -> dict[str, float]:
        """Seconds since the last request for each of the loaded indexes; may be read on any thread."""
        now = time.monotonic()
        return {name: now - self._last_request.get(name, self._started) for name in self.loaded}

    @property
    def has_room(self) -> bool:
        """Whether another index fits without an eviction."""
        return self._capacity is None or len(self.loaded) < self._capacity

    async def _wait(self, name: str) -> LoadedIndex:
        """Wait until the index is loaded; its lease is counted already."""
        future: asyncio.Future[LoadedIndex] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(name, []).append(future)
        if self._loading is None or self._loading.done():
            self._loading = asyncio.create_task(self._load_waiting())
        try:
            async with asyncio.timeout(self._patience_s):
                return await future
        except TimeoutError:
            self._abandon(name, future)
            raise Refusal(NOT_READY, f"{name}: loading", _RETRY_AFTER) from None
        except asyncio.CancelledError:
            self._abandon(name, future)
            raise

    def _abandon(self, name: str, future: "asyncio.Future[LoadedIndex]") -> None:
        """End the lease of a request that gave up at the moment in which the index was loaded."""
        if future.done() and not future.cancelled() and future.exception() is None:
            self._end_lease(name)

    def _end_lease(self, name: str) -> None:
        self._leases[name] -= 1
        self._lease_ended.set()

    async def _load_waiting(self) -> None:
        """Load every index that is waited for, one after the other."""
        while self._waiting:
            await self._load_for_all(next(iter(self._waiting)))

    async def _load_for_all(self, name: str) -> None:
        """Load one index; no name of this frame outlives it, so that the next load finds the memory free."""
        loaded: LoadedIndex | Exception
        try:
            await self._make_live(name)
            loaded = self._registry.find(name)
        except Exception as error:
            loaded = error
        for future in self._waiting.pop(name):
            if future.done():  # the request has gone
                continue
            if isinstance(loaded, Exception):
                future.set_exception(loaded)
            else:
                self._leases[name] += 1
                future.set_result(loaded)

    async def _make_live(self, name: str) -> None:
        while self._registry.get(name).live is None:
            self._evicting = self._least_recently_requested()
            try:
                while self._evicting is not None and self._leases[self._evicting]:
                    self._lease_ended.clear()
                    await self._lease_ended.wait()
                if await asyncio.to_thread(self._load, name, self._evicting):
                    return
            finally:
                self._evicting = None

    def _least_recently_requested(self) -> str | None:
        """The index to evict, if possible one without leases; None if there is room."""
        live = [name for name, entry in self._registry.entries.items() if entry.live is not None]
        if self._capacity is None or len(live) < self._capacity:
            return None
        return min(live, key=lambda name: (self._leases[name] > 0, self._last_request.get(name, self._started)))
