"""A reference photograph less its pixels: what is kept of it while an index is built."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Final

from indexer.intake import Taken
from indexer.left_out_groups import groups_of
from indexer.look_alikes import Likeness, perceptual_hash
from indexer.photos import Duplicate, LookAlike, ReferencePhoto, Skipped
from resad.config import MethodConfig
from resad.errors import SettingError
from resad.field_of_view import FieldOfView
from resad.preparation import Frame
from resad.quality import QualityMeasures, measure_quality

FEWEST: Final = 2
"""Photographs of an index: with one, nothing is left to calibrate against."""


@dataclass(frozen=True, slots=True)
class Reference:
    """A photograph whose features are in the store."""

    source: ReferencePhoto
    content_sha256: str
    perceptual_hash: str
    frame: Frame
    field_of_view: FieldOfView
    quality: QualityMeasures


def photo_id(number: int) -> str:
    """The opaque id of the `number`-th photograph of an index, from 1."""
    return f"r-{number:05d}"


def without_pixels(taken: Taken) -> Reference:
    """`taken`, less its pixels."""
    photo = taken.photo
    return Reference(
        source=taken.source,
        content_sha256=photo.content_hash,
        perceptual_hash=perceptual_hash(photo.pixels),
        frame=photo.frame,
        field_of_view=photo.field_of_view,
        quality=measure_quality(photo),
    )


def look_alikes(references: Sequence[Reference], alike: Sequence[Likeness]) -> tuple[LookAlike, ...]:
    """Photographs that are taken, but show what an earlier one shows.  alike: `same_among` them."""
    return tuple(
        LookAlike(
            references[pair.second].source.path, references[pair.first].source.path, pair.bits or 0, pair.mirrored
        )
        for pair in alike
    )


def check_listed(source: Path, listed: Sequence[ReferencePhoto], config: MethodConfig) -> None:
    """Raise `SettingError` where the list alone says that no index can be made, before anything is encoded.

    What is unusable, or a copy, is not known yet; both only leave fewer.
    """
    people = len(set(groups_of([photo.patient for photo in listed])))
    if people < FEWEST:
        alone = len(listed) == 1
        held = "1 photograph, an" if alone else f"{len(listed)} photographs of 1 patient, an"
        of = "" if alone else " patients"
        raise SettingError(f"{source} holds {held} index needs at least {FEWEST}{of}")
    count, neighbors = config.coreset.count, config.search.neighbors
    if count is None:
        return
    # However the memories are spread, somebody holds as large a part of them as this.
    left = count - ceil(count / people)
    if left < neighbors:
        raise SettingError(
            f"--coreset {count}: calibration leaves each photo out (its patient's, too), and at most {left} "
            f"memories would remain, fewer than the {neighbors} neighbors asked (search.neighbors); it takes at "
            f"least {ceil(neighbors * people / (people - 1))}"
        )


class TooFewTaken(SettingError):
    """Too few of the listed photographs were taken.  skipped, duplicates: those that were not, to be named."""

    def __init__(self, told: str, left_aside: Sequence[Skipped | Duplicate]) -> None:
        super().__init__(told)
        self.skipped = tuple(one for one in left_aside if isinstance(one, Skipped))
        self.duplicates = tuple(one for one in left_aside if isinstance(one, Duplicate))


def check_enough(
    source: Path, groups: Sequence[frozenset[int]], left_aside: Sequence[Skipped | Duplicate]
) -> None:
    """Raise `TooFewTaken` where `source` gave too few photographs for an index, by what is left out together."""
    count, photos = len(set(groups)), len(groups)
    if count >= FEWEST:
        return
    told = f"{source} holds {photos} usable photographs"
    if count < photos:
        told += f", all of one patient or copies of each other: an index needs at least {FEWEST} that are not"
    else:
        told += f", an index needs at least {FEWEST}"
    raise TooFewTaken(f"{told}; {told_aside(left_aside)}", left_aside)


def told_aside(left_aside: Sequence[Skipped | Duplicate]) -> str:
    """`3 were left aside; first reason: ...`."""
    reasons = [f"; first reason: {one.reason}" for one in left_aside if isinstance(one, Skipped)]
    return f"{len(left_aside)} were left aside{reasons[0] if reasons else ''}"
