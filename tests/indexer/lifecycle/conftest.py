"""Indexes to start from; copies of them may be changed."""

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.indexer.lifecycle.small import build_index, copy_photos

KEPT = {False: "without features", True: "with features"}


@pytest.fixture(scope="session")
def photos(drawn: Path) -> list[Path]:
    """Eight healthy ones: an index begins with the first five."""
    return sorted((drawn / "train/good").iterdir())


@pytest.fixture(scope="session")
def files(photos: list[Path]) -> Callable[[str], Path]:
    """Content hash -> photograph."""
    by_content = {hashlib.sha256(photo.read_bytes()).hexdigest(): photo for photo in photos}
    return by_content.__getitem__


@pytest.fixture(scope="session")
def _first_versions(photos: list[Path], tmp_path_factory: pytest.TempPathFactory) -> dict[bool, Path]:
    folder = tmp_path_factory.mktemp("begun")
    first = copy_photos(photos[:5], folder / "photos")
    return {keep: build_index(first, folder / f"root-{keep}", keep_features=keep) for keep in (False, True)}


@pytest.fixture(params=[False, True], ids=KEPT.__getitem__)
def place(request: pytest.FixtureRequest, _first_versions: dict[bool, Path], tmp_path: Path) -> Path:
    """ROOT/NAME, once without and once with features."""
    return Path(shutil.copytree(_first_versions[request.param], tmp_path / "root/eyes"))


@pytest.fixture
def plain(_first_versions: dict[bool, Path], tmp_path: Path) -> Path:
    """ROOT/NAME without features."""
    return Path(shutil.copytree(_first_versions[False], tmp_path / "root/eyes"))


@pytest.fixture
def keeping(_first_versions: dict[bool, Path], tmp_path: Path) -> Path:
    """ROOT/NAME with features."""
    return Path(shutil.copytree(_first_versions[True], tmp_path / "keeping/eyes"))


@pytest.fixture
def more(photos: list[Path], tmp_path: Path) -> Path:
    """A folder of the three photographs that the index does not have."""
    return copy_photos(photos[5:], tmp_path / "more")
