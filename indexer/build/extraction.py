"""Listed photographs -> features on disk: decoding, network and writing overlap, and nothing piles up between."""

import os
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from functools import partial
from typing import Final

import torch

from indexer.build.references import LoadedPhoto, Screen, load_photos
from indexer.build.state import BuildState
from indexer.photos.listing import Duplicate, Skipped
from indexer.prefetching import BackgroundWriter, delayed, round_robin
from resad.config import PhotoLimits
from resad.encoder import Encoder, Encoding, PatchFeatures

_GPU_BATCH: Final = 4
"""Photographs encoded together: bounds memory at 784 px with 1536 channels to a few GB."""

_MOST_THREADS: Final = 16
"""That prepare photographs for a GPU: as many as keep one busy."""

_Outcomes = list[LoadedPhoto | Skipped | Duplicate]


def batch_size(devices: Sequence[torch.device]) -> int:
    """Photographs in a batch: a CPU gains nothing from more than one."""
    return _GPU_BATCH if _on_gpu(devices) else 1


def extract(
    encoders: Sequence[Encoder],
    limits: PhotoLimits,
    work: BuildState,
    advance: Callable[[int], None],
    *,
    strict: bool,
    look_up: Screen,
) -> Generator[list[PatchFeatures], None, None]:
    """Encode and store what `work` does not have yet; yields the features of each batch.

    Threads prepare, the caller's thread encodes (with several encoders a thread each, batches dealt in turn), and
    a thread writes.  A GPU has its next batch before the last one is waited for.  Whatever fails in any of them is
    raised here.  Run the iterator to its end or close it.

    Raises as `load_photos`, which see for `look_up`.
    """
    preparation, devices = encoders[0].config.preparation, [encoder.device for encoder in encoders]
    outcomes = load_photos(
        work.todo, preparation, limits, strict=strict, seen=work.seen, look_up=look_up,
        threads=_threads(devices),
    )  # fmt: skip
    with BackgroundWriter() as writer, closing(outcomes):
        batches = _batches(outcomes, batch_size(devices))
        with closing(round_robin(batches, [partial(_begin, encoder) for encoder in encoders])) as begun:
            for some, encoding in delayed(begun, _on_gpu(devices)):
                features = [] if encoding is None else encoding.result()
                writer.do(partial(work.note, some, features))
                advance(len(some))
                yield features


def _on_gpu(devices: Sequence[torch.device]) -> bool:
    return any(device.type != "cpu" for device in devices)


def _threads(devices: Sequence[torch.device]) -> int | None:
    """That prepare photographs: nearly all cores where a GPU has the network."""
    return min(max(len(os.sched_getaffinity(0)) - 1, 1), _MOST_THREADS) if _on_gpu(devices) else None


def _begin(encoder: Encoder, outcomes: _Outcomes) -> Encoding | None:
    photos = [outcome.photo for outcome in outcomes if isinstance(outcome, LoadedPhoto)]
    return encoder.begin(photos) if photos else None


def _batches(outcomes: Iterator[LoadedPhoto | Skipped | Duplicate], size: int) -> Iterator[_Outcomes]:
    """Groups with `size` taken photographs each, and in the last one what is left."""
    batch: _Outcomes = []
    for outcome in outcomes:
        batch.append(outcome)
        if sum(isinstance(one, LoadedPhoto) for one in batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch
