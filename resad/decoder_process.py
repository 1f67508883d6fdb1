"""A decoder: a process that turns files into pixels, within limits of processor time and memory.

`resad.decoder_pool` starts it.  Requests arrive on stdin and answers leave on stdout, as messages: the length of a
JSON header (4 bytes), the header, then as many bytes as its `body` says.  Nothing is pickled.

The kernel ends the process when a photograph takes too long: a library written in C cannot be interrupted in any
other way.  Memory beyond the limit is a `MemoryError`.  What libraries print is counted, not shown.
"""

import logging
import os
import resource
import signal
import traceback
import warnings
from dataclasses import dataclass, fields, replace
from typing import Any, BinaryIO, Final, get_type_hints

import numpy as np
from pydantic import TypeAdapter
from pydantic_core import from_json, to_json

from resad.config import PhotoLimits
from resad.errors import PhotoError
from resad.photo import Photo, read_photo, stored_size

_LENGTH_BYTES: Final = 4
_BASE_BYTES: Final = 600_000_000
_BYTES_PER_PIXEL: Final = 32
"""Of the largest photograph: the decoder's buffers, Pillow's pictures (decoded, RGB, upright), and the array."""
_WALL_PER_CPU: Final = 6.0
"""Seconds on a clock for each allowed second of processor time, for a process that is stuck without working."""
_MAX_PRINTED: Final = 16_000_000
"""Bytes that libraries may print about one photograph; more is not written."""
_STDERR: Final = 2


@dataclass(frozen=True, slots=True)
class Job:
    """What a decoder is asked for.

    work: `photo` (decode) or `size` (read the header).  cpu_s: most seconds of processor time.  body: bytes of
    the file that follow.
    """

    work: str
    limits: PhotoLimits
    shrink: int
    cpu_s: float
    body: int


@dataclass(frozen=True, slots=True)
class Answer:
    """What a decoder answers.

    error: name of a `PhotoError`, or `MEMORY` or `BUG`; None with a result.  text: its message.
    printed: lines that libraries printed.  size: width and height, of work `size`.  photo: the fields of a `Photo`
    but its pixels, whose shape is `shape` and whose bytes follow, of work `photo`.
    """

    error: str | None = None
    text: str = ""
    printed: int = 0
    size: tuple[int, int] | None = None
    photo: dict[str, Any] | None = None
    shape: tuple[int, ...] = ()
    body: int = 0


MEMORY: Final = "memory"
BUG: Final = "bug"
JOB: Final = TypeAdapter(Job)
ANSWER: Final = TypeAdapter(Answer)
_FIELDS: Final = {name: TypeAdapter(hint) for name, hint in get_type_hints(Photo).items() if name != "pixels"}


def write_message(stream: BinaryIO, header: object, body: bytes | memoryview = b"") -> None:
    """Send a message; raises `OSError` if nobody reads."""
    text = to_json(header)
    stream.write(len(text).to_bytes(_LENGTH_BYTES, "little") + text)
    stream.write(body)
    stream.flush()


def read_header(stream: BinaryIO) -> Any:
    """The header of the next message, parsed; raises `EOFError` if the sender has ended."""
    length = int.from_bytes(_read_exactly(stream, bytearray(_LENGTH_BYTES)), "little")
    return from_json(_read_exactly(stream, bytearray(length)))


def read_body(stream: BinaryIO, count: int) -> bytearray:
    """The `count` bytes after a header."""
    return _read_exactly(stream, bytearray(count))


def _read_exactly(stream: BinaryIO, buffer: bytearray) -> bytearray:
    view = memoryview(buffer)
    while view:
        count = stream.readinto(view)  # type: ignore[attr-defined]
        if not count:
            raise EOFError("the other process has ended")
        view = view[count:]
    return buffer


def photo_of(answer: Answer, body: bytearray) -> Photo:
    """The photograph of an answer."""
    assert answer.photo is not None
    values = {name: _FIELDS[name].validate_python(value) for name, value in answer.photo.items()}
    return Photo(pixels=np.frombuffer(body, np.uint8).reshape(answer.shape), **values)


class _Printed:
    """Counts the lines that libraries print, warn and log, instead of showing them."""

    def __init__(self) -> None:
        self._count = 0
        self._file = os.memfd_create("printed")
        os.dup2(self._file, _STDERR)
        warnings.simplefilter("always")
        warnings.showwarning = lambda *arguments, **options: self._add()
        handler = logging.Handler()
        handler.emit = lambda record: self._add()  # type: ignore[method-assign]
        logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)

    def _add(self) -> None:
        self._count += 1

    def take(self) -> int:
        """The lines since the last call."""
        lines, self._count = self._count, 0
        if os.fstat(self._file).st_size:
            lines += os.pread(self._file, _MAX_PRINTED, 0).count(b"\n")
            os.ftruncate(self._file, 0)
            os.lseek(self._file, 0, os.SEEK_SET)
        return lines


def main() -> None:
    """Answer requests until stdin ends."""
    requests = os.fdopen(os.dup(0), "rb")
    answers = os.fdopen(os.dup(1), "wb")
    # What a library prints must not end up among the answers.
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(null, 1)
    # A terminal or systemd signals all processes of a group.  The parent alone ends this one: by a kill, or by
    # closing stdin.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (_MAX_PRINTED, _MAX_PRINTED))
    printed = _Printed()
    write_message(answers, Answer())
    while _answer_next(requests, answers, printed):
        pass


def _answer_next(requests: BinaryIO, answers: BinaryIO, printed: _Printed) -> bool:
    """Answer one request, of which nothing is kept afterwards; False if there is none any more."""
    try:
        job = JOB.validate_python(read_header(requests))
        data = bytes(read_body(requests, job.body))
    except EOFError:
        return False
    answer, pixels = _answer(job, data)
    write_message(answers, replace(answer, printed=printed.take(), body=pixels.nbytes), pixels)
    return True


def _answer(job: Job, data: bytes) -> tuple[Answer, memoryview]:
    """The answer, and the photograph's pixels as bytes."""
    _start_limits(job)
    try:
        if job.work == "size":
            return Answer(size=stored_size(data, job.limits)), memoryview(b"")
        photo = read_photo(data, job.limits, shrink=job.shrink)
        pixels = np.ascontiguousarray(photo.pixels)
        facts = {field.name: getattr(photo, field.name) for field in fields(photo) if field.name != "pixels"}
        return Answer(photo=facts, shape=pixels.shape), pixels.reshape(-1).data
    except PhotoError as error:
        return Answer(type(error).__name__, str(error)), memoryview(b"")
    except MemoryError:
        return Answer(MEMORY), memoryview(b"")
    except Exception:
        return Answer(BUG, traceback.format_exc()), memoryview(b"")
    finally:
        _end_limits()


def _start_limits(job: Job) -> None:
    limit = _BASE_BYTES + _BYTES_PER_PIXEL * job.limits.max_pixels
    resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))
    # The default action of both signals ends the process, in the middle of a library's work if need be.
    signal.setitimer(signal.ITIMER_PROF, job.cpu_s)
    signal.setitimer(signal.ITIMER_REAL, _WALL_PER_CPU * job.cpu_s)


def _end_limits() -> None:
    signal.setitimer(signal.ITIMER_PROF, 0)
    signal.setitimer(signal.ITIMER_REAL, 0)
    resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


if __name__ == "__main__":
    main()
