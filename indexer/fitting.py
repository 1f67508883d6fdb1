"""Trunks -> encoders, with a whitening fitted to some of the photographs where one is asked for."""

from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Final

from indexer.intake import Taken, take_in
from indexer.photos import Duplicate, ReferencePhoto, Skipped
from indexer.references import check_enough
from indexer.scoring import write_whole
from resad.config import PhotoLimits, PreparationConfig
from resad.encoder import Encoder, Trunk, whitening_of
from resad.preparation import PreparedPhoto
from resad.whitening import FILE as WHITENING_FILE
from resad.whitening import Whitening

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
            write_whole(file, whitening.to_bytes())
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
