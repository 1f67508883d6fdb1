"""Listed photographs -> features on disk: decoding, network and writing overlap, and nothing piles up between."""

import os
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Final

import torch

from indexer.build.references import LookUp, Taken, check_enough, take_in
from indexer.build.state import Work
from indexer.photos.listing import Duplicate, ReferencePhoto, Skipped
from indexer.prefetching import Behind, in_turn, late
from resad.config import PhotoLimits, PreparationConfig
from resad.encoder import Encoder, Encoding, PatchFeatures, Trunk, whitening_of
from resad.files import write_atomically
from resad.preparation import PreparedPhoto
from resad.whitening import FILE as WHITENING_FILE
from resad.whitening import Whitening

_GPU_BATCH: Final = 4
"""Photographs encoded together: bounds memory at 784 px with 1536 channels to a few GB."""

_MOST_THREADS: Final = 16
"""That prepare photographs for a GPU: as many as keep one busy."""

_Outcomes = list[Taken | Skipped | Duplicate]


def batch_size(devices: Sequence[torch.device]) -> int:
    """Photographs in a batch: a CPU gains nothing from more than one."""
    return _GPU_BATCH if _on_gpu(devices) else 1


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
    a thread writes.  A GPU has its next batch before the last one is waited for.  Whatever fails in any of them is
    raised here.  Run the iterator to its end or close it.

    Raises as `take_in`, which see for `look_up`.
    """
    preparation, devices = encoders[0].config.preparation, [encoder.device for encoder in encoders]
    outcomes = take_in(
        work.todo, preparation, limits, strict=strict, seen=work.seen, look_up=look_up,
        threads=_threads(devices),
    )  # fmt: skip
    with Behind() as writer, closing(outcomes):
        batches = _batches(outcomes, batch_size(devices))
        with closing(in_turn(batches, [partial(_begin, encoder) for encoder in encoders])) as begun:
            for some, encoding in late(begun, _on_gpu(devices)):
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
    photos = [outcome.photo for outcome in outcomes if isinstance(outcome, Taken)]
    return encoder.begin(photos) if photos else None


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


FITTED: Final = 64
"""Photographs: half a million patches on the paper's grid settle a covariance."""


def fitted_encoders(
    trunks: Sequence[Trunk],
    source: Path,
    listed: Sequence[ReferencePhoto],
    limits: PhotoLimits,
    folder: Path,
    most: int,
    *,
    strict: bool,
) -> list[Encoder]:
    """The trunks with a whitening fitted to at most so many photographs, or with the one that lies in `folder`.

    Args:
        source: what `listed` comes from, for messages.

    Raises:
        SettingError: none of the photographs can be used.
        PhotoError: with `strict`, for the first one met that cannot be used.
    """
    file = folder / WHITENING_FILE
    if trunks[0].config.resc.whitening is None or not file.is_file():
        some = evenly(source, listed, trunks[0].config.preparation, limits, most, strict=strict)
        whitening = whitening_of(trunks[0], some)
        if whitening is not None:
            write_atomically(file, whitening.to_bytes())
    else:
        whitening = Whitening.load(file)
    return [Encoder(trunk, whitening) for trunk in trunks]


def evenly(
    source: Path,
    listed: Sequence[ReferencePhoto],
    preparation: PreparationConfig,
    limits: PhotoLimits,
    most: int,
    *,
    strict: bool,
) -> Iterator[PreparedPhoto]:
    """At most so many of the usable photographs, evenly over the list.

    Every step-th; for those that cannot be used their neighbors, then theirs, until there are as many.
    Raises `SettingError` where none can be used.
    """
    step = -(-len(listed) // most)
    wanted = len(listed[::step])
    spread = [photo for offset in range(step) for photo in listed[offset::step]]
    left_aside: list[Skipped | Duplicate] = []
    with closing(take_in(spread, preparation, limits, strict=strict)) as outcomes:
        for outcome in outcomes:
            if not isinstance(outcome, Taken):
                left_aside.append(outcome)
                continue
            yield outcome.photo
            wanted -= 1
            if not wanted:
                return
    if len(left_aside) == len(listed):
        check_enough(source, [], left_aside)
