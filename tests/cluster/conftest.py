"""One Ray cluster on this machine for all tests of a cluster, and the photographs that they build from."""

import importlib.util
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from cluster.worker_pool import Cluster, connected
from tests.conftest import CLUSTER_REASONS

RAY_REASON, NAMESPACE_REASON = CLUSTER_REASONS


def need_ray() -> None:
    """Skip without Ray, which is not loaded: a cluster on this machine alone has to be asked for before that."""
    if importlib.util.find_spec("ray") is None:
        pytest.skip(RAY_REASON)


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """Two worker processes' worth of cores, loopback only."""
    need_ray()
    with connected("local", cpus=2) as connection:
        yield connection


@pytest.fixture
def one_thread() -> Iterator[None]:
    """As the workers compute: how many threads share a small product can change how it rounds."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def photo_folder(drawn: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """26 files: 24 usable ones, a duplicate of an early one far behind it, and one that is no photograph."""
    folder = tmp_path_factory.mktemp("many")
    for copy in range(24):  # different bytes, so that none is a duplicate
        data = (drawn / f"train/good/drawn_{copy % 8:04d}.jpg").read_bytes()
        (folder / f"{copy:02d}.jpg").write_bytes(data + bytes([copy]))
    shutil.copy(folder / "01.jpg", folder / "20a.jpg")
    (folder / "09a.jpg").write_text("call the clinic")
    return folder
