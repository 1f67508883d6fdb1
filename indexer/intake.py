"""Listed reference photographs -> prepared ones; what cannot be used is named, not fatal."""

import os
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from indexer.photos import Duplicate, ReferencePhoto, Skipped
from indexer.pipeline import ahead
from resad.config import PhotoLimits, PreparationConfig
from resad.errors import NotAFundusPhoto, PhotoError, PhotoUnreachable, SettingError
from resad.field_of_view import looks_like_fundus
from resad.preparation import PreparedPhoto, prepare
from resad.tombstones import purged, tombstone

_THREADS: Final = 8
"""At most; half the cores, since the network wants them, too."""
_AHEAD: Final = 4
"""Prepared photographs that wait: a batch."""


@dataclass(frozen=True, slots=True, eq=False)
class Taken:
    """A photograph that will be in the index."""

    source: ReferencePhoto
    photo: PreparedPhoto


LookUp = Callable[[ReferencePhoto, str], Skipped | Duplicate | None]
"""What becomes of a photograph with this content hash, by what is known of it beforehand; None for nothing."""


def _unknown(source: ReferencePhoto, content_hash: str) -> None:
    return None


def take_in(
    listed: Sequence[ReferencePhoto],
    preparation: PreparationConfig,
    limits: PhotoLimits,
    *,
    strict: bool,
    seen: Mapping[str, ReferencePhoto] | None = None,
    look_up: LookUp = _unknown,
    threads: int | None = None,
) -> Generator[Taken | Skipped | Duplicate, None, None]:
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
    look = partial(_look, preparation=preparation, limits=limits)
    with closing(ahead(listed, look, threads=threads, most=threads + _AHEAD)) as looked:
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
            yield Taken(source, photo) if first is source else Duplicate(source.path, first.path)


def without_purged(place: Path) -> LookUp:
    """Skips what was purged from `place`, ROOT/NAME."""
    graves = purged(place)

    def look_up(source: ReferencePhoto, content_hash: str) -> Skipped | None:
        if graves and tombstone(content_hash) in graves:
            return Skipped(source.path, "it was purged from this index")
        return None

    return look_up


def _look(
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
