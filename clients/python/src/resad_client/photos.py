"""The photographs of folders and CSV files, and the media types that the service supports."""

import csv
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Literal, TypeAlias

from resad_client.errors import PhotoUnusable
from resad_client.run_files import unique_labels

_SIGNATURES: Final = (
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"II*\0", "image/tiff"),
    (b"MM\0*", "image/tiff"),
    (b"II+\0", "image/tiff"),  # BigTIFF
    (b"MM\0+", "image/tiff"),
    (b"BM", "image/bmp"),
    (b"\0\0\0\x0cjP  \r\n\x87\n", "image/jp2"),
    (b"\xff\x4f\xff\x51", "image/jp2"),
    *((b"P%d%c" % (kind, space), "image/x-portable-anymap") for kind in range(1, 7) for space in b" \t\r\n#"),
)
SUPPORTED_TYPES: Final = "JPEG, PNG, TIFF, BMP, WebP, JPEG 2000, PNM and DICOM"
UNSUPPORTED_SIGNATURES: Final = (
    ("GIF", 0, b"GIF8"),
    ("PDF", 0, b"%PDF"),
    ("AVIF", 4, b"ftypavi"),
    ("HEIC", 4, b"ftyphe"),
    ("HEIF", 4, b"ftypmif"),
    ("JPEG XL", 0, b"\0\0\0\x0cJXL "),
    ("Photoshop", 0, b"8BPS"),
    ("ICO", 0, b"\0\0\1\0"),
    ("SVG", 0, b"<svg"),
    ("TGA", -18, b"TRUEVISION-XFILE"),
    ("PAM", 0, b"P7\n"),
)
"""Name, offset and first bytes of the file types that are refused by name."""


def media_type(data: bytes) -> str | None:
    """The media type by the first bytes of `data`; None if the service does not support it."""
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "image/webp"
    if data[128:132] == b"DICM":
        return "application/dicom"
    return next((kind for signature, kind in _SIGNATURES if data.startswith(signature)), None)


def unsupported_reason(data: bytes) -> str:
    """Why a file is not sent: its type, if it is known, and the supported types."""
    unsupported = "file type not supported (supported are JPEG, PNG, TIFF, BMP, WebP, DICOM)"
    for name, offset, signature in UNSUPPORTED_SIGNATURES:
        if data[offset:][: len(signature)] == signature:
            return f"the file is {name}: {unsupported}"
    return unsupported if data else "the file is empty"


Eye: TypeAlias = Literal["left", "right"]
"""Which eye a photograph is of; findings' places are then nasal or temporal."""
PHOTO_SUFFIXES: Final = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp", ".webp", ".dcm", ".dicom")
"""Suffixes of photographs in a folder, in lower case; letter case is ignored."""

_EYES: Final[dict[str, Eye | None]] = {
    "": None, "left": "left", "right": "right", "l": "left", "r": "right", "os": "left", "od": "right"
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class LabeledPhoto:
    """A photograph to score.

    label: its name in tables, the path below the folder that was given.  eye, patient, visit: from a CSV, if it has
    them; a visit is a date or a number.
    """

    path: Path
    label: str
    eye: Eye | None = None
    patient: str | None = None
    visit: str | None = None


def list_photos(place: Path) -> tuple[LabeledPhoto, ...]:
    """The photographs below a folder, sorted by path; those of a CSV; or a single photograph.

    In a folder hidden files and folders are skipped, links are followed, and no folder is entered twice.  A CSV
    has a column `path`, relative to its own folder, and optionally `eye`.  Raises `PhotoUnusable` if there is no
    photograph or the place cannot be read.
    """
    if place.suffix.lower() == ".csv" and place.is_file():
        return _rows(place)
    if not place.is_dir():
        return (LabeledPhoto(place, place.name),)
    paths = sorted((path.relative_to(place).as_posix(), path) for path in _walk(place))
    if not paths:
        raise PhotoUnusable(f"{place}: no photographs in it (looked for {', '.join(PHOTO_SUFFIXES)})")
    return tuple(LabeledPhoto(path, label) for label, path in paths)


def list_labeled(places: Sequence[Path]) -> tuple[list[LabeledPhoto], list[str]]:
    """The photographs of all `places`, each once and with a unique label; a message for each unusable place."""
    by_path: dict[str, LabeledPhoto] = {}
    unusable = []
    for place in places:
        try:
            for photo in list_photos(place):
                # abspath and not resolve: two links to one file are two photographs.
                by_path.setdefault(os.path.abspath(photo.path), photo)  # noqa: PTH100
        except PhotoUnusable as error:
            unusable.append(str(error))
    unique = list(by_path.values())
    labels = unique_labels([photo.label for photo in unique], [photo.path for photo in unique])
    return [replace(photo, label=label) for photo, label in zip(unique, labels, strict=True)], unusable


def walk(folder: Path) -> Iterator[Path]:
    """The photographs below `folder`, as `list_photos` finds them, in no order; raises `OSError` if it cannot."""
    entered: set[Path] = set()
    for name, folders, files in os.walk(folder, onerror=_raise, followlinks=True):
        here = Path(name)
        if here.resolve() in entered:
            folders.clear()
            continue
        entered.add(here.resolve())
        # Real folders before links to them, so that a photograph keeps its own path.
        folders[:] = sorted(f for f in folders if not f.startswith("."))
        folders.sort(key=lambda f: (here / f).is_symlink())
        yield from (here / file for file in files if _is_photo(here / file))


def _walk(folder: Path) -> Iterator[Path]:
    try:
        yield from walk(folder)
    except OSError as error:
        raise PhotoUnusable(f"{error.filename}: cannot be listed ({error.strerror})") from error


def _rows(place: Path) -> tuple[LabeledPhoto, ...]:
    try:
        with place.open(encoding="utf-8-sig", newline="") as file:
            rows = csv.DictReader(file, strict=True)
            names = {name.strip().lower(): name for name in rows.fieldnames or ()}
            if "path" not in names:
                raise PhotoUnusable(f"{place}: the first line must name a column path")
            eye, patient = names.get("eye", ""), names.get("patient", "")
            visit = names.get("visit", names.get("date", ""))
            photos = tuple(
                replace(
                    _row(place, row[names["path"]], row.get(eye), rows.line_num),
                    patient=(row.get(patient) or "").strip() or None,
                    visit=(row.get(visit) or "").strip() or None,
                )
                for row in rows
                if row[names["path"]]
            )
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise PhotoUnusable(f"{place}: cannot be read ({error})") from error
    if not photos:
        raise PhotoUnusable(f"{place}: no photographs in it")
    return photos


def _row(place: Path, cell: str, eye: str | None, line: int) -> LabeledPhoto:
    path, word = place.parent / cell.strip(), (eye or "").strip().lower()
    if word not in _EYES:
        raise PhotoUnusable(f"{place}, line {line}: eye {word!r} is none of {', '.join(filter(None, _EYES))}")
    below = path.is_relative_to(place.parent) and ".." not in path.parts
    return LabeledPhoto(path, path.relative_to(place.parent).as_posix() if below else path.name, _EYES[word])


def _is_photo(path: Path) -> bool:
    return path.suffix.lower() in PHOTO_SUFFIXES and not path.name.startswith(".") and path.is_file()


def _raise(error: OSError) -> None:
    """For `os.walk`, which otherwise skips folders that it cannot open."""
    raise error
