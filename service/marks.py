"""The calls on readers' marks: add, list, take back.  Nothing here changes an answer; `teach` does, offline."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Final

from pydantic import TypeAdapter, ValidationError
from resad_client.records import MarkedPhoto, MarkList

from resad.detector import Detection
from resad.errors import SettingError
from resad.loaded_index import LoadedIndex
from resad.marks import (
    HEALTHY_LABELS,
    LESION_KINDS,
    mark_photo,
    polygon_region,
    read_entries,
    valid_marks,
    withdraw,
)
from resad.preparation import PreparedPhoto
from service.problems import INVALID_REQUEST, READ_ONLY, UNKNOWN_MARK, Refusal, faults
from service.schemas import NewMarks

_NEW: Final = TypeAdapter(NewMarks)
_ANYBODY: Final = "without a key"


def parse_marks(body: bytes) -> NewMarks:
    """The part `marks`; raises `Refusal` (422)."""
    try:
        return _NEW.validate_json(body)
    except ValidationError as error:
        raise Refusal(INVALID_REQUEST, f"marks: {faults(error.errors(include_url=False))}") from error


def reader_of(key: str | None, stated: str | None) -> str:
    """Who marked: the key's owner, and who says so."""
    return ", ".join(part for part in (key or _ANYBODY, stated) if part)


def write_marks(
    place: Path, marks: NewMarks, key: str | None, loaded: LoadedIndex, photo: PreparedPhoto, detection: Detection
) -> MarkedPhoto:
    """Add the marks to the journal of ROOT/NAME; raises `Refusal` (409, 422)."""
    with _refusing():
        regions = [polygon_region(mark.label, mark.contour, photo.frame) for mark in marks.marks]
        return mark_photo(
            place, loaded.manifest, photo, detection.patches, detection.patch_distances, regions,
            reader_of(key, marks.reader),
        )  # fmt: skip


def list_marks(place: Path) -> MarkList:
    """The journal of ROOT/NAME without what was taken back, and the labels to choose from."""
    entries = read_entries(place)
    valid = {mark.id for _, _, mark in valid_marks(entries)}
    photos = []
    for entry in entries:
        marks = tuple(mark for mark in entry.photo.marks if mark.id in valid)
        if marks:
            photos.append(replace(entry.photo, marks=marks))
    used = sorted({mark.label for photo in photos for mark in photo.marks})
    return MarkList(tuple(dict.fromkeys((*HEALTHY_LABELS, *LESION_KINDS, *used))), tuple(photos))


def withdraw_mark(place: Path, mark: str, key: str | None) -> None:
    """Take a mark back; raises `Refusal` (404, 409)."""
    try:
        with _refusing():
            withdraw(place, [mark], reader_of(key, None))
    except Refusal as error:
        if error.kind is INVALID_REQUEST:
            raise Refusal(UNKNOWN_MARK, f"the journal of {place.name} has no such mark") from error
        raise


@contextmanager
def _refusing() -> Iterator[None]:
    try:
        yield
    except SettingError as error:
        raise Refusal(INVALID_REQUEST, str(error)) from error
    except OSError as error:
        if error.errno not in (errno.EROFS, errno.EACCES, errno.EPERM):
            raise
        raise Refusal(READ_ONLY, "the journal of marks cannot be written here") from error
