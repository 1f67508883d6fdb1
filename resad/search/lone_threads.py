"""Threads whose torch and FAISS calls run on that thread alone."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from typing import Any, TypeVar

import torch
from threadpoolctl import ThreadpoolController

Part = TypeVar("Part")
Answer = TypeVar("Answer")


@contextmanager
def lone_threads(device: torch.device) -> Iterator[Executor | None]:
    """As many threads as torch uses on a CPU; none on another device or where it uses one.

    How many threads OpenMP starts is kept by each thread for itself, so that the process' own setting stays.
    """
    count = torch.get_num_threads() if device.type == "cpu" else 1
    if count == 1:
        yield None
        return
    with ThreadPoolExecutor(count, "search", initializer=_alone) as pool:
        yield pool


def for_each(pool: Executor | None, work: Callable[[Part], Answer], parts: Sequence[Part]) -> list[Answer]:
    """What `work` says of every part, on the pool's threads if there is one; raises what was raised there."""
    return list(map(work, parts) if pool is None else pool.map(work, parts))


def _alone() -> None:
    torch.get_num_threads()  # torch writes its own number over a thread's at the first call there
    for library in _libraries():
        library.set_num_threads(1)


@cache
def _libraries() -> tuple[Any, ...]:
    return tuple(ThreadpoolController().select(user_api="openmp").lib_controllers)
