"""A request's body -> the bytes of photographs, within limits on size and time that are checked as it arrives.

Everything stays in memory; nothing is written to disk, and file names are not read.
"""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Final

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import Request

from service.admission import Held
from service.problems import (
    INVALID_REQUEST,
    MALFORMED_UPLOAD,
    PHOTO_TOO_LARGE,
    UNSUPPORTED,
    UPLOAD_SLOW,
    UPLOAD_TOO_LARGE,
    Kind,
    Refusal,
)
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


PHOTO_TYPES: Final = ("image/jpeg", "image/png", "image/tiff", "image/bmp", "image/webp")
MULTIPART: Final = "multipart/form-data"
PART: Final = "photo"
_UNNAMED: Final = ("", "application/octet-stream")
"""What clients call a part whose type they do not know; its bytes tell."""


@dataclass(frozen=True, slots=True)
class Upload:
    """photos: bytes, or why one of several is not taken.  several: whether the answer is a list."""

    photos: tuple[bytes | Refusal, ...]
    several: bool

    def only(self) -> bytes:
        """The photograph that came alone."""
        (photo,) = self.photos
        if isinstance(photo, Refusal):
            raise photo
        return photo


async def read_upload(request: Request, settings: Settings, held: Held, *, several: bool) -> Upload:
    """The request's photographs; `several` says whether it may be a multipart, `held` counts its bytes.

    Raises `Refusal`: 400 for a body that is empty or no multipart, 408 for one that does not arrive, 413 for
    too many bytes or photographs, 415 for a type that is not taken, 422 for a part not called `photo`, 429 where
    all uploads together are too many bytes.
    """
    media_type, options = parse_options_header(request.headers.get("content-type"))
    if several and media_type == MULTIPART.encode():
        body = read_limited(request, settings.max_request_bytes, UPLOAD_TOO_LARGE, settings, held)
        return await _read_parts(body, options.get(b"boundary", b""), settings)
    if media_type.decode("latin-1") in PHOTO_TYPES:
        photo = await gathered(read_limited(request, settings.max_bytes, PHOTO_TOO_LARGE, settings, held))
        if not photo:
            raise Refusal(MALFORMED_UPLOAD, "the body is empty")
        return Upload((photo,), several=False)
    taken = (*PHOTO_TYPES, MULTIPART) if several else PHOTO_TYPES
    raise Refusal(UNSUPPORTED, _not_taken("Content-Type", media_type.decode("latin-1"), taken))


async def _read_parts(body: AsyncIterator[bytes], boundary: bytes, settings: Settings) -> Upload:
    parts = _Parts(settings)
    try:
        parser = MultipartParser(
            boundary,
            {
                "on_part_begin": parts.begin,
                "on_header_field": parts.header_field,
                "on_header_value": parts.header_value,
                "on_header_end": parts.header_end,
                "on_headers_finished": parts.headers_finished,
                "on_part_data": parts.data,
                "on_part_end": parts.end,
                "on_end": parts.finish,
            },
        )
        async for chunk in body:
            parser.write(chunk)
    except FormParserError as error:
        raise Refusal(MALFORMED_UPLOAD, "the body is no multipart/form-data, or has another boundary") from error
    if not parts.finished:
        raise Refusal(MALFORMED_UPLOAD, "the body ends before its last boundary")
    if not parts.photos:
        raise Refusal(MALFORMED_UPLOAD, f"there is no part named {PART}")
    return Upload(tuple(parts.photos), several=True)


class _Parts:
    """Takes the parts as the parser comes upon them."""

    def __init__(self, settings: Settings) -> None:
        self.photos: list[bytes | Refusal] = []
        self.finished = False
        self._limit = settings.max_bytes
        self._most = settings.photos_at_once
        self._name, self._value = bytearray(), bytearray()
        self._headers: dict[bytes, bytes] = {}
        self._body = bytearray()
        self._refused: Refusal | None = None

    def begin(self) -> None:
        if len(self.photos) == self._most:
            raise Refusal(UPLOAD_TOO_LARGE, f"more than {self._most} photographs in one request")
        self._headers, self._body, self._refused = {}, bytearray(), None

    def header_field(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def header_end(self) -> None:
        self._headers[bytes(self._name).lower()] = bytes(self._value)
        self._name, self._value = bytearray(), bytearray()

    def headers_finished(self) -> None:
        _, options = parse_options_header(self._headers.get(b"content-disposition"))
        if options.get(b"name") != PART.encode():
            raise Refusal(INVALID_REQUEST, f"a part that is not named {PART}")
        media_type, _ = parse_options_header(self._headers.get(b"content-type"))
        named = media_type.decode("latin-1")
        if named not in (*PHOTO_TYPES, *_UNNAMED):
            self._refused = Refusal(UNSUPPORTED, _not_taken("the part's Content-Type", named, PHOTO_TYPES))

    def data(self, data: bytes, start: int, end: int) -> None:
        if self._refused:
            return
        self._body += data[start:end]
        if len(self._body) > self._limit:
            self._refused = Refusal(PHOTO_TOO_LARGE, too_large(len(self._body), self._limit, "or more"))
            self._body = bytearray()

    def end(self) -> None:
        self.photos.append(self._refused or bytes(self._body))
        self._body = bytearray()

    def finish(self) -> None:
        self.finished = True


def _not_taken(what: str, media_type: str, taken: tuple[str, ...]) -> str:
    return f"{what} {media_type[:64]!r} is not taken; {', '.join(taken)} are"
