"""Fixtures that many tests share, and the rule that CI skips nothing that could be had there."""

import os
import signal
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as resad.runtime: read when torch loads

import numpy as np
import pytest
from numpy.typing import NDArray

from lab.drawing import write_dataset
from resad.field_of_view import FieldOfView
from resad.preparation import Frame, PreparedPhoto
from tests.indexes import build_small, without_levels

GPU_REASON = "needs a GPU"
DATA_REASON = "RESAD_DATA is not set"
CLUSTER_REASONS = ("Ray is not installed", "needs a network namespace")
"""`make test` has no extra `cluster`, `make cluster-test` has; a container may still not allow namespaces."""


BUILDING_FIXTURES = frozenset({"shared", "drawn", "small_index"})
"""Fixtures that need real photographs, or draw photographs and build an index from them."""
NOT_QUICK = ("slow", "long", "docker", "gpu")


class SkipReport:
    """Reasons of what was skipped, in all processes; in CI an avoidable one fails the run."""

    def __init__(self) -> None:
        self.reasons: list[str] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.skipped and isinstance(report.longrepr, tuple):
            self.reasons.append(report.longrepr[2].removeprefix("Skipped: "))

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        for reason in sorted(set(self.reasons)):
            terminalreporter.write_line(f"{self.reasons.count(reason)} skipped: {reason}")

    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        """In CI everything but a GPU, the data and a cluster can be had: others hide a missing install step."""
        avoidable = set(self.reasons) - {GPU_REASON, DATA_REASON, *CLUSTER_REASONS}
        if os.environ.get("CI") and avoidable and exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(SkipReport())
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # A shell's background job is deaf to Ctrl-C, and so are the commands that tests start and interrupt.
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip tests of a missing GPU, mark those of `make quick`, leave out long ones unless `-m long` asks."""
    import torch

    if "long" not in config.option.markexpr:
        config.hook.pytest_deselected(items=[item for item in items if item.get_closest_marker("long")])
        items[:] = [item for item in items if not item.get_closest_marker("long")]

    gpu = torch.cuda.is_available()
    for item in items:
        if item.get_closest_marker("gpu") and not gpu:
            item.add_marker(pytest.mark.skip(reason=GPU_REASON))
        fixtures = set(getattr(item, "fixturenames", ()))
        if not fixtures & BUILDING_FIXTURES and not any(item.get_closest_marker(name) for name in NOT_QUICK):
            item.add_marker(pytest.mark.quick)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real photographs and weights."""
    if "RESAD_DATA" not in os.environ:
        pytest.skip(DATA_REASON)
    return Path(os.environ["RESAD_DATA"])


class Outcome(NamedTuple):
    """What a command came to: its exit code and both streams."""

    code: int
    out: str
    err: str


Run = Callable[..., Outcome]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """`resad-indexer` with the arguments that are given, in this process."""
    from indexer import cli

    def call(*arguments: object) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["resad-indexer", *map(str, arguments)])
        with pytest.raises(SystemExit) as caught:
            cli.main()
        out, err = capsys.readouterr()
        return Outcome(int(caught.value.code or 0), out, err)

    return call


def prepared(pixels: NDArray[np.uint8], mask: NDArray[np.bool_] | None = None) -> PreparedPhoto:
    """A prepared photo whose own pixels are the prepared ones."""
    side = len(pixels)
    frame = Frame(side, side, 0.0, 0.0, float(side), float(side), side)
    full = np.ones((side, side), dtype=bool)
    field = FieldOfView(side / 2, side / 2, side, 0.0, 0.0, float(side), float(side), found=False)
    return PreparedPhoto(pixels, full if mask is None else mask, frame, field, "0" * 64)


def mirror_image(photo: PreparedPhoto) -> PreparedPhoto:
    """Left and right changed."""
    pixels: NDArray[np.uint8] = np.ascontiguousarray(photo.pixels[:, ::-1])
    mask: NDArray[np.bool_] = np.ascontiguousarray(photo.mask[:, ::-1])
    return replace(photo, pixels=pixels, mask=mask)


@pytest.fixture(scope="session")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Drawn photographs in the MVTec layout: 8 to build from, 2 healthy and 3 diseased to test on."""
    folder = tmp_path_factory.mktemp("drawn")
    write_dataset(folder, 0, train=8, good=2, diseased=3, height=160)
    return folder


@pytest.fixture(scope="session")
def small_index(drawn: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ROOT/NAME of an index over the drawn healthy photographs; not to be changed."""
    root = tmp_path_factory.mktemp("root")
    build_small(drawn / "train/good", root)
    return root / "drawn"


@pytest.fixture(scope="session")
def older_index(small_index: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ROOT/NAME of that index as an earlier version wrote it: it states no levels of findings by rate."""
    folder = tmp_path_factory.mktemp("older") / "drawn"
    without_levels(small_index, folder)
    return folder
