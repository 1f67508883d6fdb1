"""Reference photographs: read and checked, less their pixels, and their records."""

import os
import re
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from indexer.calibration.leave_out import LeftOut
from indexer.photos.listing import MIN_PHOTOS, Duplicate, NearDuplicate, ReferencePhoto, Skipped
from indexer.photos.near_duplicates import DuplicatePair, perceptual_hash
from indexer.prefetching import prefetch
from resad.config import PhotoLimits, PreparationConfig
from resad.errors import NotAFundusPhoto, PhotoError, PhotoUnreachable, SettingError
from resad.field_of_view import FieldOfView, looks_like_fundus
from resad.index import purged, tombstone
from resad.manifest import ReferenceRecord
from resad.preparation import Frame, PreparedPhoto, prepare
from resad.quality import QualityMeasures, measure_quality

_THREADS: Final = 8
"""At most; half the cores, since the network wants them, too."""
_AHEAD: Final = 4
"""Prepared photographs that wait: a batch."""


@dataclass(frozen=True, slots=True, eq=False)
class LoadedPhoto:
    """A photograph that will be in the index."""

    source: ReferencePhoto
    photo: PreparedPhoto


Screen = Callable[[ReferencePhoto, str], Skipped | Duplicate | None]
"""What becomes of a photograph with this content hash, by what is known of it beforehand; None for nothing."""


def _accept(source: ReferencePhoto, content_hash: str) -> None:
    return None


def load_photos(
    listed: Sequence[ReferencePhoto],
    preparation: PreparationConfig,
    limits: PhotoLimits,
    *,
    strict: bool,
    seen: Mapping[str, ReferencePhoto] | None = None,
    look_up: Screen = _accept,
    threads: int | None = None,
) -> Generator[LoadedPhoto | Skipped | Duplicate, None, None]:
    """Each listed photograph's outcome, in order; threads prepare the next ones meanwhile.

    Run the iterator to its end or close it.

    Args:
        seen: content hash -> photograph, of those that were taken before.
        threads: that prepare; unless given so many that the network has cores, too.
    Raises:
        PhotoError: with `strict`, for the first photograph that cannot be used.
        SettingError: with `strict`, for the first one that `look_up` says is to be skipped.
    """
    taken = dict(seen or {})
    threads = threads or min(max(len(os.sched_getaffinity(0)) // 2, 1), _THREADS)
    look = partial(_load, preparation=preparation, limits=limits)
    with closing(prefetch(listed, look, threads=threads, most=threads + _AHEAD)) as looked:
        for source, photo in zip(listed, looked, strict=True):
            if isinstance(photo, PhotoError):
                if strict:
                    raise type(photo)(f"{source.path}: {photo}") from photo
                yield Skipped(source.path, str(photo), isinstance(photo, PhotoUnreachable))
                continue
            known = look_up(source, photo.content_hash)
            if known is not None:
                if strict and isinstance(known, Skipped):
                    raise SettingError(f"{source.path}: {known.reason}")
                yield known
                continue
            first = taken.setdefault(photo.content_hash, source)
            yield LoadedPhoto(source, photo) if first is source else Duplicate(source.path, first.path)


def screen_purged(place: Path) -> Screen:
    """Skips what was purged from `place`, ROOT/NAME."""
    graves = purged(place)

    def look_up(source: ReferencePhoto, content_hash: str) -> Skipped | None:
        if graves and tombstone(content_hash) in graves:
            return Skipped(source.path, "it was purged from this index")
        return None

    return look_up


def _load(
    source: ReferencePhoto, preparation: PreparationConfig, limits: PhotoLimits
) -> PreparedPhoto | PhotoError:
    try:
        photo = prepare(source.path, preparation, limits)
        _check_retina(photo)
    except PhotoError as error:
        return error
    return photo


def _check_retina(photo: PreparedPhoto) -> None:
    reason = looks_like_fundus(photo.pixels, photo.field_of_view)
    if reason is not None:
        raise NotAFundusPhoto(reason)


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


def reference_of(taken: LoadedPhoto) -> Reference:
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


def near_duplicates_of(
    references: Sequence[Reference], alike: Sequence[DuplicatePair]
) -> tuple[NearDuplicate, ...]:
    """Photographs that are taken, but show what an earlier one shows.  alike: `same_among` them."""
    return tuple(
        NearDuplicate(
            references[pair.second].source.path, references[pair.first].source.path, pair.bits or 0, pair.mirrored
        )
        for pair in alike
    )


class TooFewPhotos(SettingError):
    """Too few of the listed photographs were taken.  skipped, duplicates: those that were not, to be named."""

    def __init__(self, told: str, left_aside: Sequence[Skipped | Duplicate]) -> None:
        super().__init__(told)
        self.skipped = tuple(one for one in left_aside if isinstance(one, Skipped))
        self.duplicates = tuple(one for one in left_aside if isinstance(one, Duplicate))


def check_enough(
    source: Path, groups: Sequence[frozenset[int]], left_aside: Sequence[Skipped | Duplicate]
) -> None:
    """Raise `TooFewPhotos` where `source` gave too few photographs for an index, by what is left out together."""
    count, photos = len(set(groups)), len(groups)
    if count >= MIN_PHOTOS:
        return
    told = f"{source} holds {photos} usable photographs"
    if count < photos:
        told += f", all of one patient or copies of each other: an index needs at least {MIN_PHOTOS} that are not"
    else:
        told += f", an index needs at least {MIN_PHOTOS}"
    raise TooFewPhotos(f"{told}; {skipped_summary(left_aside)}", left_aside)


def skipped_summary(left_aside: Sequence[Skipped | Duplicate]) -> str:
    """`3 were left aside; first reason: ...`."""
    reasons = [f"; first reason: {one.reason}" for one in left_aside if isinstance(one, Skipped)]
    return f"{len(left_aside)} were left aside{reasons[0] if reasons else ''}"


_NUMBERED: Final = re.compile(r"p-(\d{5,})")


def new_records(
    references: Sequence[Reference],
    left_out: LeftOut,
    patients: Sequence[str | None],
    *,
    row: int = 0,
    after: int = 0,
    keep_names: bool,
) -> tuple[ReferenceRecord, ...]:
    """A record for each photograph; ids go on after the number `after`.

    Args:
        patients: of the same photographs.
        row: where they begin in `left_out`.
    """
    rows = range(row, row + len(references))
    return tuple(
        ReferenceRecord(
            id=photo_id(number),
            content_sha256=reference.content_sha256,
            perceptual_hash=reference.perceptual_hash,
            width=reference.frame.width,
            height=reference.frame.height,
            field_of_view=reference.field_of_view,
            patches=len(left_out.placed[own].cells),
            score=left_out.scores[own],
            peak=left_out.peaks[own],
            quality=reference.quality,
            patient=patient,
            eye=reference.source.eye,
            camera=reference.source.camera,
            name=reference.source.path.name if keep_names else None,
        )
        for number, (reference, patient, own) in enumerate(zip(references, patients, rows, strict=True), after + 1)
    )


def number_patients(names: Sequence[str | None], known: Iterable[str | None] = ()) -> list[str | None]:
    """Who belongs together, without saying who it is: p-00001 for the first patient met.

    Args:
        known: patients of photographs that are in the index; one of `names` that is among them is meant, and the
            numbers go on after theirs.
    """
    there = set(known)
    taken = [int(found[1]) for one in there if one and (found := _NUMBERED.fullmatch(one))]
    first = max(taken, default=0) + 1
    numbers: dict[str, str] = {}
    return [
        name if name is None or name in there else numbers.setdefault(name, f"p-{first + len(numbers):05d}")
        for name in names
    ]
