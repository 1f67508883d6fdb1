"""Small indexes of drawn photographs on the bundled trunk, and what the tests of their life ask of them.

They search mirror images, which the preset does not: so the tests cover both kinds of features.
"""

import shutil
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console

from indexer.build.build import BuildOptions, build
from indexer.build.progress import Stages
from indexer.lifecycle.add import AddOptions, AddReport, add
from indexer.lifecycle.choice import choose
from indexer.lifecycle.purge import PurgeReport, purge
from indexer.lifecycle.remove import RemoveOptions, RemoveReport, remove
from indexer.settings import method_config
from resad import index
from resad.config import MethodConfig, PhotoLimits
from resad.encoder import PatchFeatures
from resad.loaded_index import LoadedIndex, load_index
from resad.preparation import prepare

CPU = torch.device("cpu")
CONFIG = method_config(
    "resad",
    backbone="bundled",
    size=64,
    coreset="0.1",
    settings=["search.neighbors=2", "search.mirrored=true"],
)


def quiet() -> Stages:
    return Stages(Console(quiet=True))


def build_index(
    photos: Path, root: Path, *, name: str = "eyes", keep_features: bool = False, config: MethodConfig = CONFIG
) -> Path:
    """ROOT/NAME of a new index, whose photographs' names are not stored."""
    build(BuildOptions(photos, root, name, config, "bundled", CPU, keep_features=keep_features), quiet())
    return root / name


def copy_photos(photos: Sequence[Path], folder: Path) -> Path:
    """A folder of these photographs."""
    folder.mkdir(parents=True)
    for photo in photos:
        shutil.copy(photo, folder / photo.name)
    return folder


def add_photos(place: Path, photos: Path) -> AddReport:
    return add(AddOptions(place, photos, CPU), quiet())


def remove_photos(
    place: Path, names: Sequence[str] = (), photos: Path | None = None, groups: Sequence[str] = ()
) -> RemoveReport:
    choice = choose(index.resolve(place), names, groups)
    return remove(RemoveOptions(place, choice.hashes, CPU, photos=photos), quiet())


def purge_photos(place: Path, hashes: Iterable[str]) -> PurgeReport:
    return purge(RemoveOptions(place, frozenset(hashes), CPU), quiet())


def load_on_cpu(path: Path) -> LoadedIndex:
    return load_index(path, CPU)


def encode_photo(index: LoadedIndex, photo: Path) -> tuple[PatchFeatures, NDArray[np.bool_]]:
    """As the index encodes it, and its field of view."""
    prepared = prepare(photo, CONFIG.preparation, PhotoLimits())
    return index.detector.encoder.encode([prepared])[0], prepared.mask


def score(index: LoadedIndex, photo: Path) -> float:
    prepared = prepare(photo, CONFIG.preparation, PhotoLimits())
    return index.detector.detect([prepared])[0].image_score


def covering_radius(index: LoadedIndex, photos: Iterable[Path]) -> float:
    """The obvious way: every patch against every memory."""
    memories = index.detector.bank.memories
    patches = np.concatenate([encode_photo(index, photo)[0].features for photo in photos])
    distances = np.linalg.norm(patches[:, None].astype(np.float64) - memories[None], axis=2)
    return float(distances.min(axis=1).max())


def files_with(folder: Path, needles: Iterable[bytes]) -> list[str]:
    """Files below `folder` with one of these bytes in them, or in their names."""
    patterns = list(needles)
    return [
        path.relative_to(folder).as_posix()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
        and any(pattern in content for content in (path.read_bytes(), path.name.encode()) for pattern in patterns)
    ]


def traces(index: LoadedIndex, rows: Iterable[int], files: Callable[[str], Path]) -> list[bytes]:
    """What would betray that these photographs were in an index: hashes, id, scores, features.

    Args:
        files: content hash -> the photograph.
    """
    needles: list[bytes] = []
    for row in rows:
        record = index.photos[row]
        needles += [record.content_sha256.encode(), record.perceptual_hash.encode(), record.id.encode()]
        needles += [
            repr(record.score).encode(),
            repr(record.peak).encode(),
            repr(record.quality.sharpness).encode(),
        ]
        patches = encode_photo(index, files(record.content_sha256))[0]
        needles += [patch.tobytes() for patch in patches.features]
        needles += [] if patches.mirrored is None else [patch.tobytes() for patch in patches.mirrored]
    return needles
