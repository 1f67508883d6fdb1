"""Threads whose torch and FAISS calls run on that thread alone."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from typing import TypeVar

import torch
from threadpoolctl import ThreadpoolController

Part = TypeVar("Part")
Each = Callable[[Callable[[Part], None], Sequence[Part]], None]
"""Does something to every part and raises what was raised there."""


@contextmanager
def lone_threads(device: torch.device) -> Iterator[Each]:  # type: ignore[type-arg]
    """As many threads as torch uses on a CPU; on another device the calling thread alone.

    How many threads OpenMP starts is kept by each thread for itself, so that the process' own setting stays.
    """
    count = torch.get_num_threads() if device.type == "cpu" else 1
    if count == 1:
        yield lambda work, parts: [work(part) for part in parts] and None
        return
    with ThreadPoolExecutor(count, "search", initializer=_alone) as pool:
        yield lambda work, parts: [None for _ in pool.map(work, parts)] and None


def _alone() -> None:
    torch.get_num_threads()  # torch writes its own number over a thread's at the first call there
    for library in _libraries():
        library.set_num_threads(1)


@cache
def _libraries() -> tuple[object, ...]:
    found = ThreadpoolController().select(user_api="openmp")
    return tuple(found.lib_controllers)
