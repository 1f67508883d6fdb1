"""`python -m benchmarks.lifecycle`: an index that photographs came to or left, beside one built anew.

Every second healthy training photograph of IDRiD makes one half.  Coverage is measured over the patches of all
photographs that are in, beside what the manifest states.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import numpy as np
import torch
import typer
from rich.console import Console

from benchmarks import _idrid
from benchmarks._bench import Json, Quick, interval, print_header, print_table, shared_data, write_json
from benchmarks._idrid import Variant, config_of, data_set
from indexer.build.build import BuildOptions, build
from indexer.build.progress import Stages
from indexer.lifecycle.add import AddOptions, add
from indexer.lifecycle.choice import choose
from indexer.lifecycle.remove import RemoveOptions, remove
from lab.datasets import Dataset
from lab.datasets.layouts import read_mvtec
from lab.evaluate import Measurement, measure_dataset
from resad import index
from resad.config import PhotoLimits
from resad.detector import Detector
from resad.encoder import Encoder, PatchFeatures
from resad.loaded_index import LoadedIndex, load_index
from resad.preparation import PreparedPhoto, prepare

_CPU: Final = torch.device("cpu")
_STAGES: Final = Stages(Console(stderr=True))
_RATE: Final = 0.10
"""Of the threshold that is shown; half of the photographs support no lower usual one."""


@dataclass(frozen=True, slots=True)
class Row:
    """One index.

    seconds, cpu_seconds: of the operation that made it, on the clock and of all threads.
    radius: measured over all its photographs' patches.
    stated, covering, calibrated: as in the manifest.  features_mb: on disk.
    """

    name: str
    seconds: float
    cpu_seconds: float
    photos: int
    memories: int
    radius: float
    stated: float
    covering: str
    calibrated: str
    threshold: float | None
    features_mb: float


@dataclass(frozen=True, slots=True, eq=False)
class _TimedIndex:
    name: str
    seconds: float
    cpu_seconds: float
    index: LoadedIndex


class _Remembering(Encoder):
    """One that encodes a photograph once, by content; all indexes here encode alike."""

    def __init__(self, encoder: Encoder) -> None:
        self.__dict__.update(encoder.__dict__)
        self._encoded: dict[str, PatchFeatures] = {}

    def encode(self, photos: Sequence[PreparedPhoto]) -> list[PatchFeatures]:
        """As `Encoder`."""
        for photo in photos:
            if photo.content_hash not in self._encoded:
                (self._encoded[photo.content_hash],) = super().encode([photo])
        return [self._encoded[photo.content_hash] for photo in photos]

    def of(self, index: LoadedIndex) -> LoadedIndex:
        """The same index, encoding here."""
        return replace(index, detector=Detector(self, index.detector.bank))


def main(quick: Quick = False, json: Json = None) -> None:
    """Run everything and print the tables."""
    shared, size = shared_data(), 128 if quick else 512
    photos = sorted((data_set(shared) / "train/good").glob("*.jpg"))[: 8 if quick else None]
    print_header(
        "Photographs added and removed",
        f"ResNet-18 (ImageNet), size {size}, coreset {_idrid.CORESET}; {len(photos)} healthy photographs of "
        "IDRiD, every second one a half.",
    )
    dataset = read_mvtec(data_set(shared))
    if quick:
        dataset = Dataset(dataset.name, dataset.train, dataset.test[::6])
    with TemporaryDirectory() as folder:
        indexes = _build_indexes(photos, shared, size, Path(folder))
        encoder = _Remembering(indexes[0].index.detector.encoder)
        rows = [_row(timed, _encoded(encoder, photos)) for timed in indexes]
    _print_rows(rows)
    measured = [
        measure_dataset(encoder.of(timed.index), dataset, PhotoLimits(), lambda _: None) for timed in indexes
    ]
    _print_accuracy(indexes, measured)
    write_json(json, rows)


def _build_indexes(photos: Sequence[Path], shared: Path, size: int, folder: Path) -> list[_TimedIndex]:
    """The indexes, in the order in which one is made from another."""
    half, rest, whole = (_links(part, folder / name) for name, part in
                         (("half", photos[::2]), ("rest", photos[1::2]), ("whole", photos)))  # fmt: skip
    config = config_of(Variant("resad"), size)
    weights = str(shared / "weights/resnet18-imagenet1k_v1-trunk.safetensors")

    def built(source: Path, name: str, keep: bool) -> Path:
        order = BuildOptions(source, folder, name, config, weights, _CPU, keep_features=keep)
        return build(order, _STAGES).version

    def added(name: str) -> Path:
        return add(AddOptions(folder / name, rest, _CPU), _STAGES).derived.version

    def removed(name: str, again: Path | None = None) -> Path:
        chosen = choose(index.resolve(folder / name), [str(rest)], [])
        order = RemoveOptions(folder / name, chosen.hashes, _CPU, photos=again)
        return remove(order, _STAGES).derived.version

    return [
        _timed("all, built", lambda: built(whole, "plain-whole", False)),
        _timed("half, built", lambda: built(half, "plain", False)),
        _timed("half + half, added", lambda: added("plain")),
        _timed("half, built, features kept", lambda: built(half, "keeping", True)),
        _timed("half + half, added, features kept", lambda: added("keeping")),
        _timed("all, built, features kept", lambda: built(whole, "keeping-whole", True)),
        _timed("all - half, features kept", lambda: removed("keeping-whole")),
        _timed("all - half, photographs given", lambda: removed("plain-whole", half)),
        _timed("all - half, nothing given", lambda: _stale(folder / "plain-whole", removed)),
    ]


def _stale(place: Path, removed: Callable[[str], Path]) -> Path:
    """Remove from the version that was built, not from the live one, which was derived from it."""
    index.activate(place, index.versions(place)[0])
    return removed(place.name)


def _timed(name: str, make: Callable[[], Path]) -> _TimedIndex:
    began, cpu = time.perf_counter(), time.process_time()
    version = make()
    seconds, cpu_seconds = time.perf_counter() - began, time.process_time() - cpu
    return _TimedIndex(name, seconds, cpu_seconds, load_index(version, _CPU))


def _links(photos: Sequence[Path], folder: Path) -> Path:
    folder.mkdir()
    for photo in photos:
        (folder / photo.name).symlink_to(photo)
    return folder


def _encoded(encoder: Encoder, photos: Sequence[Path]) -> dict[str, PatchFeatures]:
    """By content hash."""
    prepared = (prepare(photo, encoder.config.preparation, PhotoLimits()) for photo in photos)
    return {photo.content_hash: encoder.encode([photo])[0] for photo in prepared}


def _row(timed: _TimedIndex, features: dict[str, PatchFeatures]) -> Row:
    bank, manifest = timed.index.detector.bank, timed.index.manifest
    encoded = (features[record.content_sha256].features for record in timed.index.photos)
    radius = max(float(bank.search(patches, 1).distances.max()) for patches in encoded)
    return Row(
        name=timed.name,
        seconds=timed.seconds,
        cpu_seconds=timed.cpu_seconds,
        photos=manifest.counts.photos,
        memories=len(bank),
        radius=radius,
        stated=manifest.quality.covering_radius,
        covering=manifest.quality.covering,
        calibrated=manifest.calibrated,
        threshold=_threshold(timed.index),
        features_mb=sum(file.bytes for file in manifest.files if file.name.startswith("features/")) / 1e6,
    )


def _threshold(loaded: LoadedIndex) -> float | None:
    thresholds = loaded.manifest.calibration.thresholds
    return next(threshold.value for threshold in thresholds if threshold.fpr == _RATE)


def _print_rows(rows: Sequence[Row]) -> None:
    print_table(
        "What it takes and what it covers",
        ("index", "seconds", "CPU, s", "photographs", "memories", "covering radius", "stated", "distances",
         "features, MB"),
        [
            (
                row.name, f"{row.seconds:.1f}", f"{row.cpu_seconds:.1f}", str(row.photos),
                f"{row.memories:,}", f"{row.radius:.4f}",
                f"{'at most ' if row.covering == 'bound' else ''}{row.stated:.4f}", row.calibrated,
                f"{row.features_mb:.0f}",
            )
            for row in rows
        ],
    )  # fmt: skip


def _print_accuracy(indexes: Sequence[_TimedIndex], measured: Sequence[Measurement]) -> None:
    all_photos = np.ones(len(measured[0].photos), dtype=bool)
    table = []
    for timed, measurement in zip(indexes, measured, strict=True):
        scores = _idrid.scores(measurement, all_photos)
        less = _idrid.cells(
            None if measurement is measured[0] else _idrid.difference(measurement, measured[0], all_photos)
        )
        threshold = _threshold(timed.index)
        above = "-" if threshold is None else str(int((measurement.scores[~measurement.labels] > threshold).sum()))
        shown = "-" if threshold is None else f"{threshold:.3f}"
        table.append((timed.name, interval(scores.image), interval(scores.fov), *less, shown, above))
    print_table(
        f"{_idrid.count_of(measured[0], all_photos)}; differences from all, built; threshold of {_RATE:.0%}",
        (
            "index",
            "image AUROC",
            "pixel AUROC",
            "image, less all",
            "pixel, less all",
            "threshold",
            "normals above",
        ),
        table,
    )


if __name__ == "__main__":
    typer.run(main)
