"""Which photographs are meant on the command line: by id, by content hash, by the file itself, or by group."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from indexer.calibration_records import CalibrationRecord
from indexer.journal import file_sha256
from indexer.photos import list_photos
from resad.errors import SettingError
from resad.photo_records import ReferenceRecord

_ID: Final = re.compile(r"[rc]-\d{5,}")
_HASH: Final = re.compile(r"(?:sha256:)?([0-9a-f]{64})")
_GROUPS: Final = ("patient", "camera")


@dataclass(frozen=True, slots=True)
class Choice:
    """ids, hashes: of single photographs.  groups: (`patient` or `camera`, its value); a camera's without case.

    A patient is one of the reference photos: those that an index was calibrated on have numbers of their own.
    """

    ids: frozenset[str]
    hashes: frozenset[str]
    groups: frozenset[tuple[str, str]]

    def __call__(self, one: ReferenceRecord | CalibrationRecord) -> bool:
        """Whether a photograph is meant."""
        camera = None if one.camera is None else one.camera.casefold()
        return (
            one.id in self.ids
            or one.content_sha256 in self.hashes
            or (isinstance(one, ReferenceRecord) and ("patient", one.patient) in self.groups)
            or ("camera", camera) in self.groups
        )


def choose(photos: Sequence[str], groups: Sequence[str]) -> Choice:
    """What was typed.

    Args:
        photos: ids (r-00041), content hashes, files, folders or CSVs.
        groups: `patient=p-00003` or `camera=Topcon`.
    Raises:
        SettingError: one of them is none of these, or there are none.
    """
    ids, hashes, chosen = set(), set(), set()
    for text in photos:
        if _ID.fullmatch(text):
            ids.add(text)
        elif found := _HASH.fullmatch(text.lower()):
            hashes.add(found[1])
        else:
            hashes |= _of_files(text)
    for text in groups:
        kind, equals, value = text.partition("=")
        if kind not in _GROUPS or not equals or not value:
            raise SettingError(f"--group {text!r}: expected patient=ID or camera=NAME")
        chosen.add((kind, value.casefold() if kind == "camera" else value))
    if not (ids or hashes or chosen):
        raise SettingError("nothing is named: give --photo or --group")
    return Choice(frozenset(ids), frozenset(hashes), frozenset(chosen))


def _of_files(text: str) -> set[str]:
    path = Path(text)
    if not path.exists():
        raise SettingError(f"--photo {text!r} is no id (as r-00041), no content hash (64 hex digits), and no file")
    return {content for photo in list_photos(path) if (content := file_sha256(photo.path)) is not None}
