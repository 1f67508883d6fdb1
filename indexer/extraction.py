"""Listed photographs -> features on disk: decoding, network and writing overlap, and nothing piles up between."""

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from functools import partial
from typing import Final

import torch

from indexer.intake import LookUp, Taken, take_in
from indexer.photos import Duplicate, Skipped
from indexer.pipeline import Behind, in_turn
from indexer.work import Work
from resad.config import PhotoLimits
from resad.encoder import Encoder, PatchFeatures

_GPU_BATCH: Final = 4
"""Photographs encoded together: bounds memory at 784 px with 1536 channels to a few GB."""

_Outcomes = list[Taken | Skipped | Duplicate]


def batch_size(devices: Sequence[torch.device]) -> int:
    """Photographs in a batch: a CPU gains nothing from more than one."""
    return 1 if all(device.type == "cpu" for device in devices) else _GPU_BATCH


def extract(
    encoders: Sequence[Encoder],
    limits: PhotoLimits,
    work: Work,
    advance: Callable[[int], None],
    *,
    strict: bool,
    look_up: LookUp,
) -> Generator[list[PatchFeatures], None, None]:
    """Encode and store what `work` does not have yet; yields the features of each batch.

    Threads prepare, the caller's thread encodes (with several encoders a thread each, batches dealt in turn), and
    a thread writes.  Whatever fails in any of them is raised here.  Run the iterator to its end or close it.

    Raises as `take_in`, which see for `look_up`.
    """
    preparation = encoders[0].config.preparation
    outcomes = take_in(
        work.listed[work.done :], preparation, limits, strict=strict, seen=work.seen, look_up=look_up
    )
    with Behind() as writer, closing(outcomes):
        batches = _batches(outcomes, batch_size([encoder.device for encoder in encoders]))
        with closing(in_turn(batches, [partial(_encode, encoder) for encoder in encoders])) as encoded:
            for some, features in encoded:
                writer.do(partial(work.note, some, features))
                advance(len(some))
                yield features


def _encode(encoder: Encoder, outcomes: _Outcomes) -> list[PatchFeatures]:
    photos = [outcome.photo for outcome in outcomes if isinstance(outcome, Taken)]
    return encoder.encode(photos) if photos else []


def _batches(outcomes: Iterator[Taken | Skipped | Duplicate], size: int) -> Iterator[_Outcomes]:
    """Groups with `size` taken photographs each, and in the last one what is left."""
    batch: _Outcomes = []
    for outcome in outcomes:
        batch.append(outcome)
        if sum(isinstance(one, Taken) for one in batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch
