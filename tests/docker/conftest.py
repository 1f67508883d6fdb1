"""The engine's tests run only when asked for by name, and share the images and one set of containers."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.drawing import write_dataset
from tests.docker.engine import Stack, build_images, stack
from tests.docker.files import need


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what takes a Docker engine and minutes, unless `-m docker` asks for it."""
    if "docker" in config.option.markexpr:
        return
    deselected = [item for item in items if item.get_closest_marker("docker")]
    if deselected:
        config.hook.pytest_deselected(items=deselected)
        items[:] = [item for item in items if item not in deselected]


@pytest.fixture(scope="session")
def images() -> None:
    """Both targets, from the Dockerfile."""
    need("docker")
    build_images()


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Healthy photographs that every user may read: IDRiD's where RESAD_DATA is set, else drawn ones."""
    if "RESAD_DATA" in os.environ:
        return Path(os.environ["RESAD_DATA"]) / "data/idrid-512/train/good"
    folder = tmp_path_factory.mktemp("photos")
    write_dataset(folder, 0, train=12, good=0, diseased=0, height=512)
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o755)
    return folder / "train/good"


@pytest.fixture(scope="session")
def deployed(images: None, photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """An index `clinic` in the volume, built by the indexer's profile, and a healthy container of the service."""
    with stack(tmp_path_factory.mktemp("stack"), photos) as deployment:
        build_index(deployment, "0.01")
        deployment.up("service")
        yield deployment


def build_index(deployment: Stack, coreset: str) -> None:
    """A version that is live at once; small, as this is not about its quality."""
    deployment.indexer(
        "build", "/photos", "--root", "/indexes", "--name", "clinic", "--backbone", "bundled", "--size", "320",
        "--coreset", coreset, "--device", "cpu",
    )  # fmt: skip
