"""Small indexes of drawn photographs on the bundled trunk, and what the tests of their life ask of them.

They search mirror images, which the preset does not: so the tests cover both kinds of features.
"""

import shutil
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from scipy.spatial.distance import cdist

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


_encoded: dict[tuple[str, bytes], tuple[PatchFeatures, NDArray[np.bool_]]] = {}


def encode_photo(index: LoadedIndex, photo: Path) -> tuple[PatchFeatures, NDArray[np.bool_]]:
    """As the index encodes it, and its field of view; once for all indexes of the same features."""
    key = index.manifest.fingerprint, photo.read_bytes()
    if key not in _encoded:
        prepared = prepare(photo, CONFIG.preparation, PhotoLimits())
        _encoded[key] = index.detector.encoder.encode([prepared])[0], prepared.mask
    return _encoded[key]


def score(index: LoadedIndex, photo: Path) -> float:
    prepared = prepare(photo, CONFIG.preparation, PhotoLimits())
    return index.detector.detect([prepared])[0].image_score


def covering_radius(index: LoadedIndex, photos: Iterable[Path]) -> float:
    """The obvious way: every patch against every memory."""
    memories = index.detector.bank.memories
    patches = np.concatenate([encode_photo(index, photo)[0].features for photo in photos])
    return float(cdist(patches.astype(np.float64), memories).min(axis=1).max())


class Needles:
    """Patterns that are looked for all at once, at any byte, by one window of eight bytes of each."""

    def __init__(self, patterns: Iterable[bytes]) -> None:
        self._short: list[bytes] = []
        self._by_window: dict[int, list[tuple[int, bytes]]] = defaultdict(list)
        self._begins_one = np.zeros(2**16, dtype=bool)
        for pattern in patterns:
            if len(pattern) < 8:
                self._short.append(pattern)
                continue
            # Of many different bytes, which few other places have.
            starts = range(0, len(pattern) - 7, 8)
            start = next((start for start in starts if len(set(pattern[start : start + 8])) > 5), 0)
            window = int.from_bytes(pattern[start : start + 8], "little")
            self._by_window[window].append((start, pattern))
            self._begins_one[window % 2**16] = True

    def any_in(self, content: bytes) -> bool:
        """Whether one of them is somewhere in `content`."""
        if any(pattern in content for pattern in self._short):
            return True
        for shift in range(min(8, len(content) - 7)):
            values = np.frombuffer(content, "<u8", (len(content) - shift) // 8, shift)
            for place in np.flatnonzero(self._begins_one[values.view("<u2")[::4]]).tolist():
                position = shift + 8 * place
                for start, pattern in self._by_window.get(int(values[place]), ()):
                    if position >= start and content.startswith(pattern, position - start):
                        return True
        return False


def files_with(folder: Path, needles: Iterable[bytes]) -> list[str]:
    """Files below `folder` with one of these bytes in them, or in their names."""
    patterns = Needles(needles)
    return [
        path.relative_to(folder).as_posix()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and (patterns.any_in(path.read_bytes()) or patterns.any_in(path.name.encode()))
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
