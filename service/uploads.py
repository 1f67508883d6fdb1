"""A request's body -> the bytes of photographs, within limits on size and time that are checked as it arrives.

Everything stays in memory; nothing is written to disk, and file names are not read.
"""

import asyncio
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Final

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from resad_client.text import counted
from starlette.requests import Request

from service.admission import ByteReservation
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

PHOTO_TYPES: Final = (
    "image/jpeg", "image/png", "image/tiff", "image/bmp", "image/webp", "image/jp2", "image/x-portable-anymap",
    "application/dicom", "application/octet-stream",
)  # fmt: skip
"""Media types of photographs.  Whatever is stated, the bytes tell what a photograph is."""
_ALIASES: Final = frozenset((
    "image/jpg", "image/pjpeg", "image/jfif", "image/x-png", "image/tif", "image/x-tif", "image/x-tiff",
    "image/x-bmp", "image/x-ms-bmp", "image/x-windows-bmp", "image/jpx", "image/j2k", "image/jpeg2000",
    "image/x-jp2", "image/x-portable-pixmap", "image/x-portable-graymap", "image/x-portable-bitmap",
    "application/x-dicom", "binary/octet-stream",
))  # fmt: skip
"""Names of the same types in older software."""
_PLAIN_NAME: Final = re.compile(r"files?|images?|uploads?|pictures?|photos|fundus|data|img|media|attachment")
_CURL_DEFAULT: Final = "application/x-www-form-urlencoded"
MULTIPART: Final = "multipart/form-data"
PART: Final = "photo"
MARKS_PART: Final = "marks"
"""Of `POST /v1/marks`: JSON beside the photograph."""
_MAX_MARKS_BYTES: Final = 1_000_000
_MAX_HEADERS: Final = 16
_MAX_HEADER_BYTES: Final = 8192
"""Of a part: the parser reads them byte by byte."""


@dataclass(frozen=True, slots=True)
class Upload:
    """A request's photographs.

    photos: bytes, or the refusal of one of several.  several: whether the answer is a list.  reservation: of the
    bytes, until the work on them ends.
    """

    photos: tuple[bytes | Refusal, ...]
    several: bool
    reservation: ByteReservation

    def only(self) -> bytes:
        """The photograph that was sent by itself."""
        (photo,) = self.photos
        if isinstance(photo, Refusal):
            raise photo
        return photo


@dataclass(slots=True, eq=False)
class BodyReader:
    """Reads request bodies within the limits of the settings.

    grace_s: seconds before a body's rate is checked, because connections start slowly and some clients wait before
    they send.
    """

    settings: Settings
    grace_s: float = 5.0

    async def read_upload(self, request: Request, reservation: ByteReservation, *, several: bool) -> Upload:
        """The photographs of a request.

        Args:
            reservation: grows with the bytes that arrive.
            several: whether a multipart body is allowed.
        Raises:
            Refusal: 400 for an empty body or a malformed multipart, 408 for one that arrives too slowly, 413 for
                too many bytes or photographs, 415 for an unsupported type, 422 for a part not called `photo`, 429
                if all uploads together are too many bytes.
        """
        settings = self.settings
        media_type, options = parse_options_header(request.headers.get("content-type"))
        if several and media_type == MULTIPART.encode():
            body = self.chunks(request, settings.max_request_bytes, UPLOAD_TOO_LARGE, reservation)
            parts = _Parts(settings)
            await parts.read(body, options.get(b"boundary", b""))
            return Upload(tuple(parts.photos), several=True, reservation=reservation)
        if _is_photo_type(media_type):
            photo = await join(self.chunks(request, settings.max_bytes, PHOTO_TOO_LARGE, reservation))
            if not photo:
                raise Refusal(MALFORMED_UPLOAD, "the body is empty")
            return Upload((photo,), several=False, reservation=reservation)
        supported = (*PHOTO_TYPES, MULTIPART) if several else PHOTO_TYPES
        raise Refusal(UNSUPPORTED, _unsupported("Content-Type", media_type.decode("latin-1"), supported))

    async def read_marked(self, request: Request, reservation: ByteReservation) -> tuple[bytes, bytes]:
        """A photograph and the JSON of its marks: parts named `photo` and `marks`, in any order.

        Raises `Refusal` as `read_upload`, and 400 where one of the parts is missing or comes twice.
        """
        media_type, options = parse_options_header(request.headers.get("content-type"))
        if media_type != MULTIPART.encode():
            raise Refusal(UNSUPPORTED, _unsupported("Content-Type", media_type.decode("latin-1"), (MULTIPART,)))
        body = self.chunks(request, self.settings.max_request_bytes, UPLOAD_TOO_LARGE, reservation)
        parts = _Parts(self.settings, with_marks=True)
        await parts.read(body, options.get(b"boundary", b""))
        if len(parts.photos) != 1 or parts.marks is None:
            raise Refusal(MALFORMED_UPLOAD, f"one part named {PART} and one named {MARKS_PART} are needed")
        return Upload(tuple(parts.photos), several=False, reservation=reservation).only(), parts.marks

    async def chunks(
        self, request: Request, limit: int, kind: Kind, reservation: ByteReservation | None = None
    ) -> AsyncIterator[bytes]:
        """The body's chunks as they arrive.

        Args:
            limit: most bytes; more, announced or arrived, are refused as `kind`.
            reservation: grows to the announced size first, then with what arrives.
        Raises:
            Refusal: 413 as above, 415 for a compressed body, 408 for one that arrives too slowly, 429 if all
                uploads together are too many bytes.
        """
        encoding = request.headers.get("content-encoding", "identity")
        if encoding.lower() != "identity":
            raise Refusal(UNSUPPORTED, f"Content-Encoding {encoding[:32]!r}: bodies are taken as they are")
        announced = request.headers.get("content-length", "")
        size = int(announced) if announced.isdecimal() else 0
        if size > limit:
            raise Refusal(kind, _too_large(size, limit))
        if reservation:
            reservation.grow_to(size)
        # At least what the announced size needs to arrive in time.
        rate = max(self.settings.min_upload_rate, size / self.settings.upload_s)
        arrived, began = 0, asyncio.get_running_loop().time()
        stream = aiter(request.stream())
        while (chunk := await self._next(stream, began, arrived, rate)) is not None:
            arrived += len(chunk)
            if arrived > limit:
                raise Refusal(kind, _too_large(arrived, limit, "or more"))
            if reservation:
                reservation.grow_to(arrived)
            yield chunk

    async def _next(self, stream: AsyncIterator[bytes], began: float, arrived: int, rate: float) -> bytes | None:
        """The next chunk, None after the last; refused (408) if it comes too late or the body is too slow."""
        settings = self.settings
        body_end = began + settings.upload_s
        rate_end = began + self.grace_s + arrived / rate if rate else body_end
        try:
            async with asyncio.timeout_at(min(body_end, rate_end)):
                return await anext(stream, None)
        except TimeoutError as error:
            if rate_end < body_end:
                detail = f"the body comes at less than {rate:g} bytes a second"
            else:
                detail = f"the body did not arrive within {settings.upload_s:g} s"
            raise Refusal(UPLOAD_SLOW, detail) from error


async def join(chunks: AsyncIterator[bytes]) -> bytes:
    """The whole body."""
    body = bytearray()
    async for chunk in chunks:
        body += chunk
    return bytes(body)


class _Parts:
    """Collects the parts; the multipart parser calls its methods.

    with_marks: a part named `marks` is allowed beside the photographs.
    """

    def __init__(self, settings: Settings, *, with_marks: bool = False) -> None:
        self.photos: list[bytes | Refusal] = []
        self.marks: bytes | None = None
        self.finished = False
        self._with_marks = with_marks
        self._is_marks = False
        self._max_bytes = settings.max_bytes
        self._max_photos = settings.photos_per_request
        self._name, self._value = bytearray(), bytearray()
        self._headers: dict[bytes, bytes] = {}
        self._body = bytearray()
        self._refused: Refusal | None = None

    async def read(self, body: AsyncIterator[bytes], boundary: bytes) -> None:
        """Read all parts; raises `Refusal` (400, 413, 422) for a body that holds no photograph."""
        try:
            parser = MultipartParser(
                boundary,
                {
                    "on_part_begin": self.begin,
                    "on_header_field": self.header_field,
                    "on_header_value": self.header_value,
                    "on_header_end": self.header_end,
                    "on_headers_finished": self.headers_finished,
                    "on_part_data": self.data,
                    "on_part_end": self.end,
                    "on_end": self.finish,
                },
            )
            async for chunk in body:
                parser.write(chunk)
        except FormParserError as error:
            detail = "the body is no multipart/form-data, or has another boundary"
            raise Refusal(MALFORMED_UPLOAD, detail) from error
        if not self.finished:
            raise Refusal(MALFORMED_UPLOAD, "the body ends before its last boundary")
        if not self.photos:
            raise Refusal(MALFORMED_UPLOAD, f"there is no part named {PART}")

    def begin(self) -> None:
        self._headers, self._body, self._refused = {}, bytearray(), None

    def header_field(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]
        self._check_head()

    def header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]
        self._check_head()

    def _check_head(self) -> None:
        if len(self._name) + len(self._value) > _MAX_HEADER_BYTES or len(self._headers) > _MAX_HEADERS:
            raise Refusal(MALFORMED_UPLOAD, "a part has more headers than any client sends")

    def header_end(self) -> None:
        self._headers[bytes(self._name).lower()] = bytes(self._value)
        self._name, self._value = bytearray(), bytearray()

    def headers_finished(self) -> None:
        _, options = parse_options_header(self._headers.get(b"content-disposition"))
        self._is_marks = self._with_marks and options.get(b"name") == MARKS_PART.encode()
        if self._is_marks:
            if self.marks is not None:
                raise Refusal(MALFORMED_UPLOAD, f"there are two parts named {MARKS_PART}")
            return
        if options.get(b"name") != PART.encode():
            raise Refusal(INVALID_REQUEST, _misnamed(options.get(b"name")))
        if len(self.photos) == self._max_photos:
            raise Refusal(UPLOAD_TOO_LARGE, f"more than {counted(self._max_photos, 'photograph')} in one request")
        media_type, _ = parse_options_header(self._headers.get(b"content-type"))
        name = media_type.decode("latin-1")
        if media_type and not _is_photo_type(media_type):  # a part may state none
            self._refused = Refusal(UNSUPPORTED, _unsupported("the part's Content-Type", name, PHOTO_TYPES))

    def data(self, data: bytes, start: int, end: int) -> None:
        if self._refused:
            return
        self._body += data[start:end]
        if self._is_marks:
            if len(self._body) > _MAX_MARKS_BYTES:
                raise Refusal(UPLOAD_TOO_LARGE, _too_large(len(self._body), _MAX_MARKS_BYTES, "or more"))
        elif len(self._body) > self._max_bytes:
            self._refused = Refusal(PHOTO_TOO_LARGE, _too_large(len(self._body), self._max_bytes, "or more"))
            self._body = bytearray()

    def end(self) -> None:
        if self._is_marks:
            self.marks = bytes(self._body)
        else:
            self.photos.append(self._refused or bytes(self._body))
        self._body = bytearray()

    def finish(self) -> None:
        self.finished = True


def _too_large(count: int, limit: int, suffix: str = "") -> str:
    """The size and the limit, in a unit that suits the limit."""
    unit, name = (1e6, "MB") if limit >= 1e6 else (1e3, "kB")
    size = " ".join(filter(None, (f"{count / unit:.1f} {name}", suffix)))
    return f"{size}, the limit is {limit / unit:g} {name}"


def _is_photo_type(media_type: bytes) -> bool:
    name = media_type.decode("latin-1").lower()
    return name in PHOTO_TYPES or name in _ALIASES


def _misnamed(name: bytes | None) -> str:
    """Why a part is refused for its name, which is repeated if it is a plain word and so no name of a patient."""
    plain = _PLAIN_NAME.fullmatch(name.decode("latin-1")) if name else None
    part = f"a part is named {plain[0]}" if plain else "a part has another name, or none"
    return f"{part}; each photograph is a part named {PART}, as in curl -F {PART}=@a.jpg"


def _unsupported(header: str, media_type: str, supported: tuple[str, ...]) -> str:
    if media_type.lower() == _CURL_DEFAULT:
        hint = "curl --data-binary sends it by itself: add -H 'Content-Type: image/jpeg'"
        return f"{header} {media_type} is no photograph's type ({hint}); supported are {', '.join(supported)}"
    return f"{header} {media_type[:64]!r} is not supported; supported are {', '.join(supported)}"
