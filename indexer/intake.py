"""Listed reference photographs -> prepared ones; what cannot be used is named, not fatal."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from indexer.photos import Duplicate, ReferencePhoto, Skipped
from resad.config import PhotoLimits, PreparationConfig
from resad.errors import NotAFundusPhoto, PhotoError
from resad.field_of_view import looks_like_fundus
from resad.preparation import PreparedPhoto, prepare


@dataclass(frozen=True, slots=True, eq=False)
class Taken:
    """A photograph that will be in the index."""

    source: ReferencePhoto
    photo: PreparedPhoto


def take_in(
    listed: Sequence[ReferencePhoto], preparation: PreparationConfig, limits: PhotoLimits, *, strict: bool
) -> Iterator[Taken | Skipped | Duplicate]:
    """Each listed photograph's outcome, in order.

    Raises:
        PhotoError: with `strict`, for the first photograph that cannot be used.
    """
    seen: dict[str, ReferencePhoto] = {}
    for source in listed:
        try:
            photo = prepare(source.path, preparation, limits)
            _check_retina(photo)
        except PhotoError as error:
            if strict:
                raise type(error)(f"{source.path}: {error}") from error
            yield Skipped(source.path, str(error))
            continue
        first = seen.setdefault(photo.content_hash, source)
        yield Taken(source, photo) if first is source else Duplicate(source.path, first.path)


def _check_retina(photo: PreparedPhoto) -> None:
    reason = looks_like_fundus(photo.pixels, photo.field_of_view)
    if reason is not None:
        raise NotAFundusPhoto(reason)
