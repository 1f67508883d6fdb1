"""A request's body -> the bytes of photographs, within limits that are kept while it arrives.

Everything stays in memory and nothing is written anywhere; names of files are not even read.
"""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Final

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import Request

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


async def read_upload(request: Request, settings: Settings, *, several: bool) -> Upload:
    """The request's photographs; `several` says whether it may be a multipart.

    Raises `Refusal`: 400 for a body that is empty or no multipart, 408 for one that does not arrive, 413 for
    too many bytes or photographs, 415 for a type that is not taken, 422 for a part not called `photo`.
    """
    media_type, options = parse_options_header(request.headers.get("content-type"))
    try:
        async with asyncio.timeout(settings.upload_s):
            if several and media_type == MULTIPART.encode():
                return await _read_parts(request, options.get(b"boundary", b""), settings)
            if media_type.decode("latin-1") in PHOTO_TYPES:
                return Upload((await _read_photo(request, settings),), several=False)
    except TimeoutError as error:
        raise Refusal(UPLOAD_SLOW, f"the body did not arrive within {settings.upload_s:g} s") from error
    taken = (*PHOTO_TYPES, MULTIPART) if several else PHOTO_TYPES
    raise Refusal(UNSUPPORTED, _not_taken("Content-Type", media_type.decode("latin-1"), taken))


async def read_body(request: Request, limit: int, kind: Kind) -> bytes:
    """The whole body, at most `limit` bytes; raises `Refusal` (413 of this kind, 415 where it is compressed)."""
    body = bytearray()
    async for chunk in _limited(request, limit, kind):
        body += chunk
    return bytes(body)


async def _read_photo(request: Request, settings: Settings) -> bytes:
    photo = await read_body(request, settings.max_bytes, PHOTO_TOO_LARGE)
    if not photo:
        raise Refusal(MALFORMED_UPLOAD, "the body is empty")
    return photo


async def _read_parts(request: Request, boundary: bytes, settings: Settings) -> Upload:
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
        async for chunk in _limited(request, settings.max_request_bytes, UPLOAD_TOO_LARGE):
            parser.write(chunk)
    except FormParserError as error:
        raise Refusal(MALFORMED_UPLOAD, "the body is no multipart/form-data, or has another boundary") from error
    if not parts.finished:
        raise Refusal(MALFORMED_UPLOAD, "the body ends before its last boundary")
    if not parts.photos:
        raise Refusal(MALFORMED_UPLOAD, f"there is no part named {PART}")
    return Upload(tuple(parts.photos), several=True)


async def _limited(request: Request, limit: int, kind: Kind) -> AsyncIterator[bytes]:
    encoding = request.headers.get("content-encoding", "identity")
    if encoding.lower() != "identity":
        raise Refusal(UNSUPPORTED, f"Content-Encoding {encoding[:32]!r}: bodies are taken as they are")
    stated = request.headers.get("content-length", "")
    if stated.isdecimal() and int(stated) > limit:
        raise Refusal(kind, _too_large(int(stated), limit))
    arrived = 0
    async for chunk in request.stream():
        arrived += len(chunk)
        if arrived > limit:
            raise Refusal(kind, _too_large(arrived, limit, "or more"))
        yield chunk


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
            self._refused = Refusal(PHOTO_TOO_LARGE, _too_large(len(self._body), self._limit, "or more"))
            self._body = bytearray()

    def end(self) -> None:
        self.photos.append(self._refused or bytes(self._body))
        self._body = bytearray()

    def finish(self) -> None:
        self.finished = True


def _not_taken(what: str, media_type: str, taken: tuple[str, ...]) -> str:
    return f"{what} {media_type[:64]!r} is not taken; {', '.join(taken)} are"


def _too_large(count: int, limit: int, more: str = "") -> str:
    unit, name = (1e6, "MB") if limit >= 1e6 else (1e3, "kB")
    return " ".join(filter(None, (f"{count / unit:.1f} {name}", more))) + f", the limit is {limit / unit:g} {name}"
