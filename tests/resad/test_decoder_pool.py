"""Decoder processes: the same pixels and errors as without them, and an end for work that has none."""

import io
import itertools
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks._costly_files import bmp_of_runs, tiff_with_warnings
from resad.config import PhotoLimits, PreparationConfig
from resad.decoder_pool import DecoderPool, DecodingStopped
from resad.errors import PhotoError, PhotoTooLarge, SettingError
from resad.photo import read_photo, stored_size
from resad.preparation import prepare

LIMITS = PhotoLimits()
COSTLY = bmp_of_runs(8900)
"""Seconds of work, and allowed."""


@pytest.fixture(scope="module")
def pool() -> Iterator[DecoderPool]:
    pool = DecoderPool(2, 60.0)
    yield pool
    pool.close()


def encoded(kind: str, mode: str = "RGB") -> bytes:
    file = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 255, (90, 130, 3), np.uint8)
    Image.fromarray(pixels).convert(mode).save(file, kind)
    return file.getvalue()


@pytest.mark.parametrize("shrink", [1, 4])
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "BMP", "WEBP"])
def test_a_process_gives_what_this_process_gives(pool: DecoderPool, kind: str, shrink: int) -> None:
    data = encoded(kind)
    photo, expected = pool.read_photo(data, LIMITS, shrink=shrink), read_photo(data, LIMITS, shrink=shrink)
    np.testing.assert_array_equal(photo.pixels, expected.pixels)
    assert photo.pixels.flags.writeable
    assert (photo.width, photo.height, photo.content_hash) == (130, 90, expected.content_hash)
    assert pool.stored_size(data, LIMITS) == stored_size(data, LIMITS) == (130, 90)


def test_a_prepared_photograph_is_the_same(pool: DecoderPool) -> None:
    data, config = encoded("JPEG"), PreparationConfig(size=64)
    here, there = prepare(data, config, LIMITS), prepare(data, config, LIMITS, decoder=pool)
    np.testing.assert_array_equal(there.pixels, here.pixels)
    np.testing.assert_array_equal(there.mask, here.mask)
    assert (there.frame, there.field_of_view, there.content_hash) == (
        here.frame, here.field_of_view, here.content_hash,
    )  # fmt: skip


@pytest.mark.parametrize(
    "data", [b"", b"text", encoded("JPEG")[:900], encoded("GIF", "P"), bytes(30_000_000), encoded("PNG")[:80]]
)
def test_errors_are_the_same(pool: DecoderPool, data: bytes) -> None:
    with pytest.raises(PhotoError) as expected:
        read_photo(data, LIMITS)
    with pytest.raises(PhotoError) as error:
        pool.read_photo(data, LIMITS)
    assert (type(error.value), str(error.value)) == (type(expected.value), str(expected.value))
    with pytest.raises(SettingError):
        pool.read_photo(data, LIMITS, shrink=3)


def test_work_beyond_the_limit_of_time_is_ended_and_the_next_photograph_decoded() -> None:
    with closing(DecoderPool(1, 0.3)) as pool:
        with pytest.raises(PhotoTooLarge, match=r"takes more than 0\.3 s of processor time; save it again"):
            pool.read_photo(COSTLY, LIMITS)
        assert pool.read_photo(encoded("PNG"), LIMITS).pixels.shape == (90, 130, 3)


def test_memory_beyond_the_limit_is_an_error_and_not_taken() -> None:
    code = (
        "from resad import decoder_process as d; from resad.config import PhotoLimits\n"
        "d._start_limits(d.Job('photo', PhotoLimits(max_pixels=1), 1, 60.0, 0))\n"
        "bytearray(100_000_000)\n"
        "try: bytearray(1_000_000_000)\n"
        "except MemoryError: print('refused')"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "refused"


def test_a_decoding_can_be_stopped() -> None:
    with closing(DecoderPool(1, 60.0)) as pool:
        pool.read_photo(encoded("PNG"), LIMITS)
        decoding, waiting = pool.decoding(), pool.decoding()
        outcomes: list[BaseException] = []

        def decode(work: object) -> None:
            try:
                work.read_photo(COSTLY, LIMITS)  # type: ignore[attr-defined]
            except BaseException as error:
                outcomes.append(error)

        threads = [threading.Thread(target=decode, args=(work,)) for work in (decoding, waiting)]
        for thread in threads:
            thread.start()
        until_busy(pool)
        assert pool.stalled_s >= 0
        for work in (waiting, decoding):  # one waits for the process, the other is at work
            work.stop()
        for thread in threads:
            thread.join(30)
        assert [type(outcome) for outcome in outcomes] == [DecodingStopped] * 2
        assert pool.read_photo(encoded("PNG"), LIMITS).pixels.shape == (90, 130, 3)
        assert pool.free == 1
        assert pool.stalled_s == 0


def test_a_process_that_dies_at_work_costs_its_photograph_alone() -> None:
    before = children_of(os.getpid())
    with closing(DecoderPool(1, 60.0)) as pool, ThreadPoolExecutor(1) as threads:
        pool.read_photo(encoded("PNG"), LIMITS)
        (child,) = children_of(os.getpid()) - before
        idle = processor_s(child)
        work = threads.submit(pool.read_photo, COSTLY, LIMITS)
        # Before it has the photograph it would only be replaced.
        while processor_s(child) < idle + 0.1:
            assert not work.done()
            time.sleep(0.01)
        os.kill(child, signal.SIGKILL)
        with pytest.raises(MemoryError, match="killed"):  # as the system kills where memory is full
            work.result(60)
        assert pool.read_photo(encoded("PNG"), LIMITS).pixels.shape == (90, 130, 3)


def test_a_closed_pool_leaves_no_process_and_nobody_waiting() -> None:
    before = children_of(os.getpid())
    pool = DecoderPool(2, 60.0)
    pool.start()
    outcomes: list[BaseException] = []

    def decode() -> None:
        try:
            pool.read_photo(COSTLY, LIMITS)
        except BaseException as error:
            outcomes.append(error)

    threads = [threading.Thread(target=decode) for _ in range(3)]
    for thread in threads:
        thread.start()
    until_busy(pool)
    pool.close()
    for thread in threads:
        thread.join(30)
    assert [type(outcome) for outcome in outcomes] == [DecodingStopped] * 3
    deadline = time.monotonic() + 30
    while children_of(os.getpid()) - before:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_lines_of_libraries_are_counted_and_not_printed(
    pool: DecoderPool, capfd: pytest.CaptureFixture[str]
) -> None:
    decoding = pool.decoding()
    decoding.read_photo(tiff_with_warnings(), LIMITS)
    assert decoding.printed > 2
    assert capfd.readouterr().err == ""


def test_a_decoder_is_small() -> None:
    """It starts in a moment, and there are several."""
    code = "import resad.decoder_process, sys; print(*{'torch', 'scipy', 'skimage', 'faiss'} & set(sys.modules))"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == ""


def test_a_decoder_that_was_killed_while_it_waited_costs_no_photograph() -> None:
    data, before = encoded("PNG"), children_of(os.getpid())
    with closing(DecoderPool(1, 60.0)) as pool:
        expected = pool.read_photo(data, LIMITS).pixels
        (child,) = children_of(os.getpid()) - before
        os.kill(child, signal.SIGKILL)
        os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
        np.testing.assert_array_equal(pool.read_photo(data, LIMITS).pixels, expected)


def test_a_signal_to_the_whole_group_ends_no_decoder() -> None:
    """As from a terminal, or from systemd, while the service still answers what it has accepted."""
    data, before = encoded("PNG"), children_of(os.getpid())
    with closing(DecoderPool(1, 60.0)) as pool:
        pool.read_photo(data, LIMITS)
        children = children_of(os.getpid()) - before
        for child, number in itertools.product(children, (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)):
            os.kill(child, number)
        assert pool.read_photo(data, LIMITS).pixels.shape == (90, 130, 3)
        assert children_of(os.getpid()) - before == children != set()


def until_busy(pool: DecoderPool) -> None:
    deadline = time.monotonic() + 60
    while pool.free:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def processor_s(pid: int) -> float:
    """Processor time of a process, seconds."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def children_of(pid: int) -> set[int]:
    listed = subprocess.run(["ps", "--ppid", str(pid), "-o", "pid=,args="], capture_output=True, text=True)
    lines = [line.split(maxsplit=1) for line in listed.stdout.splitlines()]
    return {int(number) for number, command in lines if "resad.decoder_process" in command}
