"""One running service for the tests that change nothing of it, and photographs with their offline answers."""

import io
import logging
import sys
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest
import torch
from PIL import Image

from resad.calibration import DecisionRule
from resad.engine import Engine, ScoredPhoto, ScoreOptions
from resad.loaded_index import LoadedIndex, load_index
from tests.service.running import Served, served

ANYIO_OPEN_FILE = anyio.open_file
"""Here and not when it is first needed: pytest rewrites it, and a server's thread that does so may meet another
that parses.
"""


@pytest.fixture(scope="session")
def root(small_index: Path) -> Path:
    return small_index.parent


@pytest.fixture(scope="session")
def running(root: Path) -> Iterator[Served]:
    with served(root) as service:
        yield service


@pytest.fixture(scope="session")
def photos(drawn: Path) -> tuple[bytes, ...]:
    """Healthy ones first."""
    return tuple(
        path.read_bytes() for kind in ("good", "lesion") for path in sorted(drawn.glob(f"test/{kind}/*.jpg"))
    )


@pytest.fixture(scope="session")
def photo(photos: tuple[bytes, ...]) -> bytes:
    """One with lesions."""
    return photos[-1]


@pytest.fixture(scope="session")
def loaded(small_index: Path) -> LoadedIndex:
    return load_index(small_index, torch.device("cpu"))


def score_offline(
    loaded: LoadedIndex, data: bytes, fpr: float = 0.9, false_regions: float | None = None
) -> ScoredPhoto:
    """As `resad-indexer score` does it."""
    return Engine(loaded).score(data, ScoreOptions(DecisionRule(fpr=fpr, false_regions=false_regions), evidence=3))


@pytest.fixture(scope="session")
def offline(loaded: LoadedIndex, photo: bytes) -> ScoredPhoto:
    return score_offline(loaded, photo, false_regions=2.0)


@pytest.fixture(scope="session")
def command() -> Path:
    return Path(sys.executable).with_name("resad-service")


def encoded(size: tuple[int, int], kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.new("RGB", size, (90, 40, 20)).save(file, kind)
    return file.getvalue()


@pytest.fixture(autouse=True)
def log_of_this_test() -> Iterator[None]:
    """A test may run the command in this process, which sends the log to a stream that ends with the test."""
    before = logging.root.handlers[:]
    yield
    for handler in logging.root.handlers[:]:
        if handler not in before:
            logging.root.removeHandler(handler)
