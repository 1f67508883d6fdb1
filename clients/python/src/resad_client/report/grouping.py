"""Which photographs belong on one report: patient, eye and visit, from the columns of a CSV or from the names."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Final

from resad_client.photos import Eye, LabeledPhoto
from resad_client.run_files import unique_places

_EYES: Final[dict[str, Eye]] = {
    "left": "left", "l": "left", "os": "left", "le": "left",
    "right": "right", "r": "right", "od": "right", "re": "right",
}  # fmt: skip
"""Words of names, in lower case (os, od: oculus sinister, dexter)."""
_EYE_ORDER: Final = {"right": 0, "left": 1, None: 2}
"""Right eye first, as the reader faces the patient."""
_TIME: Final = r"(?:[-_T ]?(?:[01]\d|2[0-3])[-_.:]?[0-5]\d[-_.:]?[0-5]\d)?(?!\d)"
"""Of a day, behind a date; photographs of one visit differ in it."""
_DATE: Final = re.compile(r"(?<!\d)((?:19|20)\d\d)([-_.]?)(0[1-9]|1[0-2])\2(0[1-9]|[12]\d|3[01])" + _TIME)
_DAY_FIRST: Final = re.compile(r"(?<!\d)(0[1-9]|[12]\d|3[01])([-_.])(0[1-9]|1[0-2])\2((?:19|20)\d\d)" + _TIME)
_VISIT: Final = re.compile(
    r"(?:visit|v)[-_ .]?(\d{1,3})|(baseline)|(?:follow[-_ ]?up)[-_ .]?(\d{0,3})", re.IGNORECASE
)
_WORD: Final = re.compile(r"[^\W_]+")


@dataclass(frozen=True, slots=True)
class ReportGroup:
    """The photographs of one report.

    title: the patient, or the photograph's label.  place: of the report's files, without suffix.
    rows: photographs beside each other; None where an eye has no photograph.
    """

    title: str
    place: str
    rows: tuple[tuple[LabeledPhoto | None, ...], ...]

    @property
    def photos(self) -> tuple[LabeledPhoto, ...]:
        """All photographs, in the order of the rows."""
        return tuple(photo for row in self.rows for photo in row if photo is not None)


def group_photos(photos: Sequence[LabeledPhoto], *, together: bool = True) -> tuple[ReportGroup, ...]:
    """The groups in the order of their first photographs; eye and visit are filled in where names say them.

    Photographs belong together if the CSV names the same patient, or if their names differ in nothing but words
    for the eye (left, right, l, r, os, od), a date, or a visit.

    Args:
        together: False gives each photograph a group of its own.
    """
    groups: dict[str, list[LabeledPhoto]] = {}
    titles: dict[str, str] = {}
    for photo in photos:
        parts = read_name(photo.label)
        named = replace(photo, eye=photo.eye or parts.eye, visit=photo.visit or parts.visit)
        if photo.patient is not None:
            key, title = f"patient {photo.patient}", photo.patient
        elif named.eye or named.visit:
            key, title = f"name {parts.rest.casefold()}", parts.rest or photo.path.resolve().parent.name
        else:
            key, title = f"label {photo.label}", photo.label
        if not together:
            key = f"{key} {photo.label}"
        groups.setdefault(key, []).append(named)
        titles.setdefault(key, title)
    stated = {(photo.path, photo.label): photo.eye for photo in photos}
    members = [_without_guesses(group, stated) for group in groups.values()]
    shown = [
        titles[key] if len(group) > 1 or group[0].patient is not None else group[0].label
        for key, group in zip(groups, members, strict=True)
    ]
    places = unique_places([_file_name(title) for title in shown])
    return tuple(
        ReportGroup(title, place, _rows(group)) for title, place, group in zip(shown, places, members, strict=True)
    )


@dataclass(frozen=True, slots=True)
class NameParts:
    """What a label says.  rest: its words without eye, date and visit."""

    rest: str
    eye: Eye | None
    visit: str | None


def read_name(label: str) -> NameParts:
    """Eye and visit in a label, such as `P005/2024-03-01_OD.jpg`; folders count like parts of the name."""
    text, visit = str(PurePosixPath(label).with_suffix("")), None
    if match := _DATE.search(text):
        visit, text = f"{match[1]}-{match[3]}-{match[4]}", _cut(text, match)
    elif match := _DAY_FIRST.search(text):
        visit, text = f"{match[4]}-{match[3]}-{match[1]}", _cut(text, match)
    words, eyes = [], []
    for match in _WORD.finditer(text):
        word = match[0]
        if (eye := _EYES.get(word.casefold())) is not None:
            eyes.append(eye)
        else:
            words.append(word)
    rest = " ".join(words)
    if visit is None and (parts := _visit(rest)):
        visit, rest = parts
    # Two words for different eyes say nothing.
    return NameParts(rest, eyes[-1] if len(set(eyes)) == 1 else None, visit)


def _visit(words: str) -> tuple[str, str] | None:
    """The visit, and the words without it."""
    for match in _VISIT.finditer(words):
        before, after = words[: match.start()], words[match.end() :]
        if (not before or not before[-1].isalnum()) and (not after or not after[0].isalnum()):
            number = match[1] or match[3]
            visit = (
                f"visit {int(number)}" if match[1] else "baseline" if match[2] else f"follow-up {number}".strip()
            )
            return visit, " ".join(f"{before} {after}".split())
    return None


def _cut(text: str, match: re.Match[str]) -> str:
    return f"{text[: match.start()]} {text[match.end() :]}"


def _without_guesses(
    group: list[LabeledPhoto], stated: Mapping[tuple[Path, str], Eye | None]
) -> list[LabeledPhoto]:
    """Of a single photograph an eye of one letter or two counts only if a CSV states it: they may mean others.

    stated: path and label -> the eye as the CSV has it.
    """
    if len(group) > 1:
        return group
    (photo,) = group
    eye = stated[photo.path, photo.label]
    spelled = {word.casefold() for word in _WORD.findall(photo.label)} & {"left", "right"}
    return [replace(photo, eye=eye if eye or not spelled else photo.eye)]


def _rows(group: Sequence[LabeledPhoto]) -> tuple[tuple[LabeledPhoto | None, ...], ...]:
    """A row for each visit, right eye before left; if there is one eye only, two visits beside each other."""
    ordered = sorted(group, key=lambda photo: (_visit_order(photo.visit), _EYE_ORDER[photo.eye], photo.label))
    if {photo.eye for photo in ordered} != {"left", "right"}:
        return tuple(tuple(ordered[start : start + 2]) for start in range(0, len(ordered), 2))
    rows: list[tuple[LabeledPhoto | None, ...]] = []
    for visit in dict.fromkeys(photo.visit for photo in ordered):
        right = [photo for photo in ordered if photo.visit == visit and photo.eye == "right"]
        left = [photo for photo in ordered if photo.visit == visit and photo.eye == "left"]
        rows += [
            (right[n] if n < len(right) else None, left[n] if n < len(left) else None)
            for n in range(max(len(right), len(left)))
        ]
    return tuple(rows)


def _visit_order(visit: str | None) -> tuple[int, list[int | str]]:
    """Dates and numbers by value; the first visit, `baseline`, before others; unknown ones last."""
    if visit is None:
        return 2, []
    parts = re.findall(r"\d+|\D+", visit)
    return (0 if visit == "baseline" else 1), [int(part) if part.isdigit() else part for part in parts]


def _file_name(title: str) -> str:
    """A title as the name of a file: no folders above, no characters that some disks refuse; `unique_places` cuts.

    Suffixes are kept out of the way: `unique_places` removes one.
    """
    parts = [re.sub(r'[<>:"\\|?*\x00-\x1f\x7f]', "_", part).strip(" .") for part in title.split("/")]
    kept = [part for part in parts if part]
    name = "/".join(kept) or "report"
    return name if PurePosixPath(name).suffix.lower() in _SUFFIXES else f"{name}.jpg"


_SUFFIXES: Final = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp", ".webp", ".dcm", ".dicom", ".jp2", ".ppm")
