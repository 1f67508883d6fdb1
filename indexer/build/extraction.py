"""Extracts and stores patch features: loading, network and writing overlap, with bounded queues between them."""

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
from resad import runtime
from resad.config import PhotoLimits
from resad.encoder import Encoder, Encoding, PatchFeatures

_GPU_BATCH: Final = 4
"""Photographs encoded together: bounds memory at 784 px with 1536 channels to a few GB."""

_MAX_THREADS: Final = 16
"""Threads that prepare photographs for a GPU: as many as keep it busy."""
_BATCHES_A_RETURN: Final = 16
"""Batches after which freed memory goes back to the system: without that holes of 1 GB were left on busy cores."""

_Batch = list[LoadedPhoto | Skipped | Duplicate]


def batch_size(devices: Sequence[torch.device]) -> int:
    """Photographs in a batch: a CPU gains nothing from more than one."""
    return _GPU_BATCH if _has_gpu(devices) else 1


def extract(
    encoders: Sequence[Encoder],
    limits: PhotoLimits,
    state: BuildState,
    advance: Callable[[int], None],
    *,
    strict: bool,
    screen: Screen,
) -> Generator[list[PatchFeatures], None, None]:
    """Encode and store the photographs that `state` does not have yet; yields the features of each batch.

    Threads prepare, the caller's thread encodes (with several encoders a thread each, batches in turn), and a
    thread writes.  A GPU gets its next batch before the previous one is waited for.  An error of any thread is
    raised here.  Run the iterator to its end or close it.

    Args and Raises: as of `load_photos`.
    """
    preparation, devices = encoders[0].config.preparation, [encoder.device for encoder in encoders]
    outcomes = load_photos(
        state.todo, preparation, limits, strict=strict, used=state.by_content, screen=screen,
        threads=_threads(devices),
    )  # fmt: skip
    with BackgroundWriter() as writer, closing(outcomes):
        batches = _batches(outcomes, batch_size(devices))
        with closing(round_robin(batches, [partial(_start, encoder) for encoder in encoders])) as encodings:
            for number, (batch, encoding) in enumerate(delayed(encodings, _has_gpu(devices)), start=1):
                features = [] if encoding is None else encoding.result()
                writer.do(partial(state.record, batch, features))
                advance(len(batch))
                yield features
                if number % _BATCHES_A_RETURN == 0:
                    runtime.return_free_memory()


def _has_gpu(devices: Sequence[torch.device]) -> bool:
    return any(device.type != "cpu" for device in devices)


def _threads(devices: Sequence[torch.device]) -> int | None:
    """Threads that prepare photographs: nearly all cores if a GPU runs the network."""
    return min(max(len(os.sched_getaffinity(0)) - 1, 1), _MAX_THREADS) if _has_gpu(devices) else None


def _start(encoder: Encoder, batch: _Batch) -> Encoding | None:
    photos = [outcome.photo for outcome in batch if isinstance(outcome, LoadedPhoto)]
    return encoder.begin(photos) if photos else None


def _batches(outcomes: Iterator[LoadedPhoto | Skipped | Duplicate], size: int) -> Iterator[_Batch]:
    """Batches with `size` loaded photographs each; the last one has the rest."""
    batch: _Batch = []
    for outcome in outcomes:
        batch.append(outcome)
        if sum(isinstance(member, LoadedPhoto) for member in batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch
