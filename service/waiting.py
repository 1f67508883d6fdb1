"""Waiting for work on threads: until its deadline, and only while its caller is there."""

import asyncio
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from contextlib import ExitStack
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect, Request

from service.problems import DEADLINE, Refusal

Answer = TypeVar("Answer")


async def in_time(
    request: Request, places: ExitStack, work: Callable[[], Coroutine[Any, Any, Answer]], deadline_s: float
) -> Answer:
    """`work`, until the deadline, while its caller is there; else it is dropped.

    The work takes the places over: what has begun on a thread ends later than the answer that it missed.

    Raises `Refusal` (504), and `ClientDisconnect` once nobody waits.
    """
    task, gone = asyncio.create_task(work()), asyncio.create_task(_disconnected(request))
    held = places.pop_all()
    task.add_done_callback(lambda _: held.close())
    try:
        await asyncio.wait({task, gone}, timeout=deadline_s, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        if gone.done():
            raise ClientDisconnect
        raise Refusal(DEADLINE, f"no answer within {deadline_s:g} s")
    finally:
        task.cancel()
        gone.cancel()


async def ended(work: Future[Answer]) -> Answer:
    """What `work` returns.  Cancelled, it is dropped or, once begun, waited for: a thread cannot be stopped."""
    end = asyncio.wrap_future(work)
    try:
        return await asyncio.shield(end)
    except asyncio.CancelledError:
        if not work.cancel():
            await asyncio.wait({end})
        raise


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
