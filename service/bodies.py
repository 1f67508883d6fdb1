"""A request's body, chunk by chunk, within bounds of size and time that are kept while it arrives."""

import asyncio
from collections.abc import AsyncIterator
from typing import Final

from starlette.requests import Request

from service.admission import Held
from service.problems import UNSUPPORTED, UPLOAD_SLOW, Kind, Refusal
from service.settings import Settings

_GRACE_S: Final = 5.0
"""Before a body's rate is looked at: connections start slowly, and some clients wait before they begin."""


async def gathered(chunks: AsyncIterator[bytes]) -> bytes:
    """The whole body."""
    body = bytearray()
    async for chunk in chunks:
        body += chunk
    return bytes(body)


async def read_limited(
    request: Request, limit: int, kind: Kind, settings: Settings, held: Held | None = None
) -> AsyncIterator[bytes]:
    """The body's chunks as they arrive.

    Args:
        limit: bytes, refused as `kind` where more are announced or arrive.
        held: counts them, announced ones before they arrive.
    Raises:
        Refusal: 413 as said, 415 for a compressed body, 408 where it takes too long or comes too slowly, 429 where
            all uploads together are too many bytes.
    """
    encoding = request.headers.get("content-encoding", "identity")
    if encoding.lower() != "identity":
        raise Refusal(UNSUPPORTED, f"Content-Encoding {encoding[:32]!r}: bodies are taken as they are")
    stated = request.headers.get("content-length", "")
    if stated.isdecimal():
        if int(stated) > limit:
            raise Refusal(kind, too_large(int(stated), limit))
        if held:
            held.grow_to(int(stated))
    arrived, began = 0, asyncio.get_running_loop().time()
    chunks = aiter(request.stream())
    while (chunk := await _next(chunks, began, arrived, settings)) is not None:
        arrived += len(chunk)
        if arrived > limit:
            raise Refusal(kind, too_large(arrived, limit, "or more"))
        if held:
            held.grow_to(arrived)
        yield chunk


async def _next(chunks: AsyncIterator[bytes], began: float, arrived: int, settings: Settings) -> bytes | None:
    """The next chunk, None after the last; refused once it comes too late, or the whole is too slow."""
    whole = began + settings.upload_s
    rate = settings.min_upload_rate
    slow = began + _GRACE_S + arrived / rate if rate else whole
    try:
        async with asyncio.timeout_at(min(whole, slow)):
            return await anext(chunks, None)
    except TimeoutError as error:
        if slow < whole:
            why = f"the body comes at less than {rate:g} bytes a second"
        else:
            why = f"the body did not arrive within {settings.upload_s:g} s"
        raise Refusal(UPLOAD_SLOW, why) from error


def too_large(count: int, limit: int, more: str = "") -> str:
    """Both numbers, in a unit that suits the limit."""
    unit, name = (1e6, "MB") if limit >= 1e6 else (1e3, "kB")
    return " ".join(filter(None, (f"{count / unit:.1f} {name}", more))) + f", the limit is {limit / unit:g} {name}"
