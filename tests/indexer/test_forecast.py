"""The arithmetic of the forecast, what it refuses, and how near it comes to a small build."""

import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from indexer.build.forecast import (
    BuildSize,
    Forecast,
    HostResources,
    Rates,
    forecast,
    format_seconds,
    resident_bytes,
    with_file_rates,
)
from indexer.settings import parse_size
from resad import runtime
from resad.errors import SettingError
from resad.runtime import available_bytes
from tests.conftest import Run

TASK = BuildSize(photos=134, to_encode=134, patches=1_286_936, sampled=1_286_936, dimension=1536, projected=347,
            memories=128_694, guessed=False, weights=100_000_000)  # fmt: skip
RATES = Rates(photo=2.0, update=5e-9, scan=1e-8, search=3e-8)
ROOM = HostResources(resident=10**9, peak=2 * 10**9, memory=64 * 10**9, limit_name="--max-memory", disk=10**12)


def _figures(estimate: Forecast) -> tuple[float, ...]:
    return estimate.encode, estimate.coreset, estimate.calibrate, estimate.disk, estimate.memory


@given(field=st.sampled_from(["patches", "memories", "dimension", "to_encode"]), more=st.integers(1, 10**6),
       room=st.integers(1, 10**12), projected=st.integers(1, 1536))  # fmt: skip
def test_more_work_never_takes_less(field: str, more: int, room: int, projected: int) -> None:
    """While the points stay where they are."""
    task = replace(TASK, projected=projected)
    larger = replace(task, **{field: getattr(task, field) + more})
    if field == "patches":
        larger = replace(larger, sampled=larger.patches)
    less, greater = (forecast(size, RATES, replace(ROOM, memory=room)) for size in (task, larger))
    if less.points_on_disk == greater.points_on_disk:
        assert all(a <= b for a, b in zip(_figures(less), _figures(greater), strict=True))
    assert greater.points_on_disk >= less.points_on_disk


@given(memory=st.integers(10**8, 10**11))
def test_points_are_held_where_they_fit_and_else_lie_on_disk(memory: int) -> None:
    estimate = forecast(TASK, RATES, replace(ROOM, memory=memory))
    points = TASK.sampled * TASK.projected * 4
    roomy = forecast(TASK, RATES, replace(ROOM, memory=10**13))
    assert roomy.memory >= ROOM.resident + points
    assert estimate.points_on_disk == (roomy.memory > memory)
    assert estimate.disk - roomy.disk == (points if estimate.points_on_disk else 0)
    assert estimate.memory <= roomy.memory


@pytest.mark.parametrize(
    ("room", "message"),
    [
        (replace(ROOM, memory=25 * 10**8), r"memory, and there are 2\.5 GB \(--max-memory\): a smaller --coreset"),
        (replace(ROOM, memory=19 * 10**8), r"2\.0 GB with an empty memory bank, 2\.0 GB for the program"),
        (
            replace(ROOM, memory=10**9, peak=10**9, resident=9 * 10**8),
            r"1\.3 GB with an .* 1\.0 GB for .*; give more",
        ),
        (replace(ROOM, disk=10**9), r"of disk, and there are 1\.0 GB.*fewer photographs"),
        (replace(ROOM, gpu=10**9), r"of GPU memory, and there are 1\.0 GB.*128,694 memories"),
    ],
)
def test_what_does_not_fit_is_refused_with_the_numbers(room: HostResources, message: str) -> None:
    with pytest.raises(SettingError, match=message):
        forecast(TASK, RATES, room).check()
    forecast(TASK, RATES, ROOM).check()


def test_points_on_disk_take_the_time_of_writing_and_reading_them(tmp_path: Path) -> None:
    roomy, small = (replace(ROOM, memory=memory) for memory in (10**13, 25 * 10**8))
    assert with_file_rates(RATES, TASK, roomy, tmp_path) == RATES
    rates = with_file_rates(RATES, TASK, small, tmp_path)
    assert rates.write > 0
    assert rates.read > 0
    assert not list(tmp_path.iterdir())
    points = TASK.sampled * TASK.projected * 4
    slow = replace(RATES, write=1e-6, read=1e-9)
    more = forecast(TASK, slow, small).coreset - forecast(TASK, RATES, small).coreset
    assert points * 1e-6 < more < points * 1.5e-6
    assert forecast(TASK, slow, roomy) == forecast(TASK, RATES, roomy)
    stored = forecast(replace(TASK, points_file=False), slow, small)
    assert stored.coreset - forecast(TASK, RATES, small).coreset < points * 5e-7
    assert stored.disk == forecast(TASK, slow, roomy).disk


def test_each_photograph_is_scored_once() -> None:
    more = forecast(TASK, replace(RATES, score=0.5), ROOM).calibrate - forecast(TASK, RATES, ROOM).calibrate
    assert more == pytest.approx(0.5 * TASK.photos)


def test_points_that_do_not_fit_the_gpu_lie_on_disk() -> None:
    estimate = forecast(TASK, RATES, replace(ROOM, gpu=6 * 10**9))
    assert estimate.points_on_disk
    assert estimate.gpu <= 6 * 10**9 < forecast(TASK, RATES, replace(ROOM, gpu=10**12)).gpu


def test_an_absurd_share_gets_a_count_proposed() -> None:
    estimate = forecast(TASK, RATES, ROOM)
    assert estimate.coreset + estimate.calibrate > 3 * estimate.encode
    assert estimate.count is not None
    smaller = forecast(replace(TASK, memories=estimate.count), RATES, ROOM)
    assert smaller.count is None
    assert smaller.coreset + smaller.calibrate < estimate.coreset + estimate.calibrate
    assert f"--coreset {estimate.count}" in estimate.lines()[-1]
    quick = replace(RATES, update=5e-12, scan=1e-11, search=3e-12)
    assert forecast(TASK, quick, ROOM).count is None


def test_a_resumed_build_encodes_and_stores_the_rest_alone() -> None:
    half = forecast(replace(TASK, to_encode=67), RATES, ROOM)
    whole = forecast(TASK, RATES, ROOM)
    assert half.encode == pytest.approx(whole.encode / 2)
    assert half.disk < whole.disk


def test_durations_are_for_people() -> None:
    assert [format_seconds(seconds) for seconds in (0.2, 90, 600, 9000)] == ["1 s", "90 s", "10 min", "2.5 h"]


@pytest.mark.parametrize(("text", "size"), [("8G", 8 * 10**9), ("500m", 5 * 10**8), ("1.5GiB", 3 * 2**29),
                                            ("12345", 12345), ("6 GB", 6 * 10**9)])  # fmt: skip
def test_sizes_are_read(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "many", "8X", "-1G", "0", "G"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(SettingError, match="--max-memory"):
        parse_size(text)


def test_the_nearest_limit_counts(tmp_path: Path) -> None:
    (tmp_path / "meminfo").write_text("MemTotal: 9000 kB\nMemAvailable: 5000 kB\n")
    group = tmp_path / "cgroup"
    group.mkdir()
    assert available_bytes(tmp_path, group) == 5000 * 1024
    for name, value in (("max", "max\n"), ("current", "3000000\n"), ("stat", "anon 1\ninactive_file 500000\n")):
        (group / f"memory.{name}").write_text(value)
    assert available_bytes(tmp_path, group) == 5000 * 1024
    (group / "memory.max").write_text("4000000\n")
    assert available_bytes(tmp_path, group) == 1_500_000
    older = group / "memory"
    older.mkdir()
    for name, value in (("limit_in_bytes", "1200000"), ("usage_in_bytes", "900000"), ("stat", "cache 1\n")):
        (older / f"memory.{name}").write_text(value)
    assert available_bytes(tmp_path, group) == 300_000


def test_what_is_resident_is_at_most_the_peak() -> None:
    assert 10**7 < resident_bytes() <= 1.01 * runtime.peak_memory_bytes()


def test_a_program_does_not_inherit_the_peak_of_what_started_it() -> None:
    buffer = bytearray(500 * 10**6)
    buffer[::4096] = b"1" * len(buffer[::4096])
    code = "from resad.runtime import peak_memory_bytes; print(peak_memory_bytes())"
    child_peak = int(subprocess.run((sys.executable, "-c", code), capture_output=True, check=True).stdout)
    assert child_peak < runtime.peak_memory_bytes() - len(buffer) // 2


def test_the_command_refuses_early_and_leaves_nothing(run: Run, drawn: Path, tmp_path: Path) -> None:
    order = (drawn / "train/good", "--root", tmp_path / "root", "--name", "eyes", "--backbone", "bundled",
             "--size", "64", "--device", "cpu")  # fmt: skip
    code, _, err = run("build", *order, "--max-memory", "50M")
    assert code == 2
    assert "forecast: encode" in err
    assert re.search(r"there are 0\.1 GB \(--max-memory\): \d\.\d GB with an empty memory bank", err)
    assert "a smaller --coreset" not in err
    assert not (tmp_path / "root").exists()


def test_only_the_forecast(run: Run, drawn: Path, tmp_path: Path) -> None:
    order = (drawn / "train/good", "--root", tmp_path / "root", "--name", "eyes", "--backbone", "bundled",
             "--size", "64", "--device", "cpu", "--forecast-only")  # fmt: skip
    code, out, _ = run("build", *order, "--coreset", "radius:0.5")
    assert code == 0
    assert "forecast: 8 photographs, about 1,6" in out
    assert "a guess: the radius decides" in out
    assert not (tmp_path / "root").exists()
