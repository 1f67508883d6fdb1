"""multipart/related bodies of DICOM files (PS3.18, 8.6.1): read from a request or an answer, and written."""

import secrets
from collections.abc import Sequence
from typing import Final

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

DICOM: Final = "application/dicom"
RELATED: Final = f'multipart/related; type="{DICOM}"'


class MultipartError(Exception):
    """A body that is no complete multipart/related body of DICOM files."""


class DicomParts:
    """Collects the files of a body that arrives in pieces.

    Args:
        content_type: the body's, with its boundary.
    Raises:
        MultipartError: it is not of DICOM files, in `__init__`; or the body is malformed, in `feed` and `finish`.
    """

    def __init__(self, content_type: str) -> None:
        media_type, options = parse_options_header(content_type)
        boundary = options.get(b"boundary")
        if media_type != b"multipart/related" or options.get(b"type", b"").decode("latin-1") != DICOM:
            raise MultipartError(f"the body is no {RELATED}")
        if not boundary:
            raise MultipartError("the content type names no boundary")
        self._files: list[bytes] = []
        self._file = bytearray()
        self._ended = False
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._begin,
                "on_part_data": self._add,
                "on_part_end": self._end,
                "on_end": self._finish,
            },
        )

    def feed(self, data: bytes) -> None:
        """The next piece of the body."""
        try:
            self._parser.write(data)
        except FormParserError:
            # Its message quotes the body.
            raise MultipartError("the body is malformed") from None

    def finish(self) -> list[bytes]:
        """The files, in order."""
        if not self._ended:
            raise MultipartError("the body ends before its last boundary")
        return self._files

    def _begin(self) -> None:
        self._file = bytearray()

    def _add(self, data: bytes, start: int, end: int) -> None:
        self._file += data[start:end]

    def _end(self) -> None:
        self._files.append(bytes(self._file))

    def _finish(self) -> None:
        self._ended = True


def read_parts(content_type: str, body: bytes) -> list[bytes]:
    """The files of a whole body; raises `MultipartError`."""
    parts = DicomParts(content_type)
    parts.feed(body)
    return parts.finish()


def write_parts(files: Sequence[bytes]) -> tuple[str, bytes]:
    """Content type and body of some DICOM files."""
    # 128 random bits: no file holds them.
    boundary = secrets.token_hex(16)
    head = f"--{boundary}\r\nContent-Type: {DICOM}\r\n\r\n".encode()
    body = b"".join(head + data + b"\r\n" for data in files) + f"--{boundary}--\r\n".encode()
    return f"{RELATED}; boundary={boundary}", body
