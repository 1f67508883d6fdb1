"""Decode photographs in processes that can be ended: by limits of time and memory, or by the caller.

A damaged or hostile file can keep a decoder busy for minutes, or crash it.  Here that costs one process, which is
replaced.  `resad.decoder_process` is the other side.
"""

import atexit
import fcntl
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import BinaryIO, Final

from resad.config import PhotoLimits
from resad.decoder_process import ANSWER, BUG, MEMORY, Answer, Job, photo_of, read_body, read_header, write_message
from resad.errors import PhotoError, PhotoTooLarge, PhotoUnreadable, SettingError
from resad.photo import SHRINKS, Photo, read_bytes
from resad.photo_work import REMEDY

_log: Final = logging.getLogger(__name__)
_CPU_S: Final = 60.0
"""Seconds for a photograph of `build` and `score`; the slowest sound ones need about ten."""
_MODULE: Final = "resad.decoder_process"
_PIPE_BYTES: Final = 1_048_576
"""Of a pipe's buffer; with the usual 64 KiB a large photograph takes some more milliseconds."""


class DecodingStopped(Exception):
    """The caller has stopped the decoding, or the pool was closed."""


class DecoderPool:
    """A fixed number of decoder processes; safe to use on any thread.

    Args:
        count: most processes; each starts when it is first needed, or by `start`.
        cpu_s: most seconds of processor time for a photograph.
    """

    def __init__(self, count: int, cpu_s: float) -> None:
        self.count = count
        self.cpu_s = cpu_s
        self._changed = threading.Condition()
        self._idle: list[_Process] = []
        self._working: set[_Process] = set()
        self._running = 0
        """Processes that are idle, at work, or starting."""
        self._progressed = time.monotonic()
        self.closed = False

    def start(self) -> None:
        """Start all processes, in the background."""
        with self._changed:
            missing, self._running = self.count - self._running, self.count
        for _ in range(missing):
            self._start_in_background()

    def close(self) -> None:
        """End all processes, also those at work; their callers get `DecodingStopped`."""
        with self._changed:
            self.closed = True
            idle, self._idle = self._idle, []
            for process in self._working:
                process.kill()
            self._changed.notify_all()
        for process in idle:
            process.end()

    @property
    def free(self) -> int:
        """Processes that wait for work, and those that would be started for it."""
        return len(self._idle) + self.count - self._running

    @property
    def stalled_s(self) -> float:
        """Seconds for which no process has been free; 0 while one is."""
        return 0.0 if self.free else time.monotonic() - self._progressed

    def decoding(self) -> "Decoding":
        """The decoding of one photograph, which may be stopped."""
        return Decoding(self)

    def stored_size(self, data: bytes, limits: PhotoLimits) -> tuple[int, int]:
        """As `resad.photo.stored_size`, in a process."""
        return self.decoding().stored_size(data, limits)

    def read_photo(self, source: bytes | Path, limits: PhotoLimits, *, shrink: int = 1) -> Photo:
        """As `resad.photo.read_photo`, in a process."""
        return self.decoding().read_photo(source, limits, shrink=shrink)

    def take(self, decoding: "Decoding") -> "_Process":
        """A process that is not at work; waits for one.  Raises `DecodingStopped`."""
        with self._changed:
            while not (self.closed or decoding.stopped):
                if self._idle:
                    process = self._idle.pop()
                    if process.is_alive():
                        self._working.add(process)
                        return process
                    process.end()  # it was killed while it waited
                    self._running -= 1
                if self._running < self.count:
                    self._running += 1
                    break
                self._changed.wait()
            else:
                raise DecodingStopped
        try:
            process = _Process()
        except BaseException:
            self._lose()
            raise
        with self._changed:
            self._working.add(process)
        return process

    def give(self, process: "_Process") -> None:
        """Take back a process that has answered."""
        with self._changed:
            self._progressed = time.monotonic()
            self._working.discard(process)
            if not self.closed:
                self._idle.append(process)
                self._changed.notify()
                return
        process.end()

    def replace(self, process: "_Process") -> None:
        """Start another process for one that has ended."""
        process.end()
        with self._changed:
            self._progressed = time.monotonic()
            self._working.discard(process)
            if self.closed:
                return
        self._start_in_background()

    def _start_in_background(self) -> None:
        threading.Thread(target=self._start_one, name="decoder-start", daemon=True).start()

    def _start_one(self) -> None:
        try:
            process = _Process()
        except Exception:
            _log.exception("a decoder did not start")
            self._lose()  # the next photograph tries again
        else:
            self.give(process)

    def _lose(self) -> None:
        with self._changed:
            self._running -= 1
            self._changed.notify()

    def wake(self) -> None:
        """Let those who wait for a process look whether they were stopped."""
        with self._changed:
            self._changed.notify_all()


class Decoding:
    """The decoding of one photograph in a process of a pool.

    printed: lines that libraries printed about the photograph.
    """

    def __init__(self, pool: DecoderPool) -> None:
        self.stopped = False
        self.printed = 0
        self._pool = pool
        self._lock = threading.Lock()
        self._process: _Process | None = None

    def stop(self) -> None:
        """End the work, at once; whoever waits for it gets `DecodingStopped`.  May be called on any thread."""
        with self._lock:
            self.stopped = True
            if self._process is not None:
                self._process.kill()
        self._pool.wake()

    def stored_size(self, data: bytes, limits: PhotoLimits) -> tuple[int, int]:
        """As `resad.photo.stored_size`."""
        answer, _ = self._ask("size", data, limits, 1)
        assert answer.size is not None
        return answer.size

    def read_photo(self, source: bytes | Path, limits: PhotoLimits, *, shrink: int = 1) -> Photo:
        """As `resad.photo.read_photo`; raises `PhotoTooLarge` beyond the limits on time and memory, too."""
        if shrink not in SHRINKS:
            raise SettingError(f"shrink is {shrink}, it must be one of {', '.join(map(str, SHRINKS))}")
        return photo_of(*self._ask("photo", read_bytes(source, limits), limits, shrink))

    def _ask(self, work: str, data: bytes, limits: PhotoLimits, shrink: int) -> tuple[Answer, bytearray]:
        job = Job(work, limits, shrink, self._pool.cpu_s, len(data))
        with self._leased() as process:
            answer, body = process.ask(job, data)
        self.printed += answer.printed
        if answer.error is not None:
            raise _error(answer)
        return answer, body

    @contextmanager
    def _leased(self) -> "Iterator[_Process]":
        process = self._pool.take(self)
        with self._lock:
            self._process = process
        try:
            if self.stopped or self._pool.closed:
                raise DecodingStopped
            yield process
        except (EOFError, OSError) as error:
            self._release(process, ended=True)
            if self.stopped or self._pool.closed:
                raise DecodingStopped from error
            raise process.death(self._pool.cpu_s) from error
        except BaseException:
            self._release(process, ended=True)
            raise
        else:
            self._release(process, ended=False)

    def _release(self, process: "_Process", *, ended: bool) -> None:
        with self._lock:
            self._process = None
            ended = ended or self.stopped  # it may have been killed after its answer
        if ended:
            self._pool.replace(process)
        else:
            self._pool.give(process)


class _Process:
    """A decoder that has said that it is ready."""

    def __init__(self) -> None:
        # Each decodes one photograph: threads of numerical libraries would only take memory.
        variables = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1"}
        self._process = subprocess.Popen(
            [sys.executable, "-m", _MODULE],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=os.environ | variables,
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._jobs: BinaryIO = self._process.stdin  # type: ignore[assignment]
        self._answers: BinaryIO = self._process.stdout  # type: ignore[assignment]
        for stream in (self._jobs, self._answers):
            with suppress(OSError):  # more than this user may have
                fcntl.fcntl(stream, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        try:
            read_header(self._answers)
        except BaseException:
            self.end()
            raise

    def ask(self, job: Job, data: bytes) -> tuple[Answer, bytearray]:
        """The answer; raises `EOFError` or `OSError` if the process ends before."""
        write_message(self._jobs, job, data)
        answer = ANSWER.validate_python(read_header(self._answers))
        return answer, read_body(self._answers, answer.body)

    def is_alive(self) -> bool:
        """Whether the process has not ended."""
        return self._process.poll() is None

    def kill(self) -> None:
        """End the process's work; `end` collects what is left of it."""
        self._process.kill()

    def end(self) -> None:
        """Kill the process and wait for its end."""
        self._process.kill()
        for stream in (self._jobs, self._answers):
            with suppress(OSError):  # bytes that the process did not take
                stream.close()
        self._process.wait()

    def death(self, cpu_s: float) -> Exception:
        """Why the process, which `end` was called for, ended during its work."""
        number = -self._process.returncode
        if number in (signal.SIGPROF, signal.SIGALRM):
            return PhotoTooLarge(f"decoding it takes more than {cpu_s:g} s of processor time; {REMEDY}")
        if number == signal.SIGKILL:  # as the system does when memory is full
            return MemoryError("the decoder was killed")
        return PhotoUnreadable(f"the decoder crashed (signal {number}): a damaged image")


def _error(answer: Answer) -> Exception:
    if answer.error == MEMORY:
        return PhotoTooLarge(f"decoding it takes more memory than is allowed; {REMEDY}")
    if answer.error == BUG:
        return RuntimeError(f"the decoder failed\n{answer.text}")
    return next(kind for kind in _kinds(PhotoError) if kind.__name__ == answer.error)(answer.text)


def _kinds(kind: type[PhotoError]) -> Iterator[type[PhotoError]]:
    yield kind
    for narrower in kind.__subclasses__():
        yield from _kinds(narrower)


def shared_pool() -> DecoderPool:
    """The pool of this process, for commands; its decoders start when they are needed."""
    return _pool_of(os.getpid())


@cache
def _pool_of(pid: int) -> DecoderPool:
    """pid: a forked process must not share the pipes of its parent."""
    pool = DecoderPool(max(len(os.sched_getaffinity(0)), 4), _CPU_S)
    atexit.register(pool.close)
    return pool
