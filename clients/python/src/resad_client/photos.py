"""The photographs of folders and CSV files, and the media types that the service supports."""

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path, PurePath
from typing import Final, Literal, TypeAlias

from resad_client.csv_text import CSV_SUFFIXES, known, locate, read_table
from resad_client.errors import PhotoUnusable, SettingError
from resad_client.run_files import unique_labels
from resad_client.text import counted, printable

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
    unsupported = f"file type not supported (supported are {SUPPORTED_TYPES})"
    for name, offset, signature in UNSUPPORTED_SIGNATURES:
        if data[offset:][: len(signature)] == signature:
            return f"the file is {name}: {unsupported}"
    return unsupported if data else "the file is empty"


Eye: TypeAlias = Literal["left", "right"]
"""Which eye a photograph is of; findings' places are then nasal or temporal."""
PHOTO_SUFFIXES: Final = (
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".tif", ".tiff", ".bmp", ".dib", ".webp", ".jp2", ".j2k", ".ppm",
    ".pgm", ".pnm", ".dcm", ".dicom",
)  # fmt: skip
"""Suffixes of photographs in a folder, in lower case; letter case is ignored."""

_EYES: Final[dict[str, Eye | None]] = {
    "": None, "left": "left", "right": "right", "l": "left", "r": "right", "os": "left", "od": "right"
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class LabeledPhoto:
    """A photograph to score.

    label: its name in tables, the path below the folder that was given.  eye, patient, visit: from a CSV, if it
    has them; a visit is a date or a number.
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
    if place.suffix.lower() in CSV_SUFFIXES and place.is_file():
        return _rows(place)
    if not place.is_dir():
        return (LabeledPhoto(place, printable(place.name)),)
    scan = _scan(place)
    paths = sorted((path.relative_to(place).as_posix(), path) for path in scan.photos)
    if not paths:
        line = left_out_line(entry.kind for entry in scan.left_out)
        rest = f"; {line}" if line else ""
        raise PhotoUnusable(f"{place}: no photographs in it (looked for {', '.join(PHOTO_SUFFIXES)}){rest}")
    return tuple(LabeledPhoto(path, printable(label)) for label, path in paths)


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


@dataclass(frozen=True, slots=True)
class LeftOut:
    """An entry of a folder that is not read.  kind: its suffix, or `broken link` and the like."""

    path: Path
    kind: str


@dataclass(frozen=True, slots=True)
class FolderScan:
    """The photographs below a folder, in no order, and what else is there."""

    photos: tuple[Path, ...]
    left_out: tuple[LeftOut, ...]


def scan_folder(folder: Path) -> FolderScan:
    """The photographs below `folder`, as `list_photos` lists them; raises `OSError` if one cannot be opened."""
    entered: set[Path] = set()
    photos: list[Path] = []
    left_out: list[LeftOut] = []
    for name, folders, files in os.walk(folder, onerror=_raise, followlinks=True):
        here = Path(name)
        if here.resolve() in entered:
            folders.clear()
            continue
        entered.add(here.resolve())
        left_out += [LeftOut(here / f, HIDDEN_FOLDER) for f in folders if f.startswith(".")]
        # Real folders before links to them, so that a photograph keeps its own path.
        folders[:] = sorted(f for f in folders if not f.startswith("."))
        folders.sort(key=lambda f: (here / f).is_symlink())
        for file in files:
            path = here / file
            kind = left_out_kind(path, exists=path.is_file())
            if kind is None:
                photos.append(path)
            elif kind:
                left_out.append(LeftOut(path, kind))
    return FolderScan(tuple(photos), tuple(left_out))


HIDDEN_FOLDER: Final = "hidden folder"
_MOST_KINDS: Final = 8
_LONGEST_SUFFIX: Final = 12


def left_out_kind(path: PurePath, *, exists: bool = True) -> str | None:
    """The kind of a file that is not read; None for a photograph, empty for hidden files that are none.

    exists: whether it is a file, and no broken link or device.
    """
    suffix = path.suffix.lower()
    photo = suffix in PHOTO_SUFFIXES
    if path.name.startswith("."):
        return "hidden photograph" if photo else ""
    if not exists:
        return "broken link" if isinstance(path, Path) and path.is_symlink() else "special file"
    if photo:
        return None
    return printable(suffix) if 1 < len(suffix) <= _LONGEST_SUFFIX else "without a suffix"


def left_out_line(kinds: Iterable[str]) -> str | None:
    """What was passed over: `8 files left out: 3 .dcm, 2 .gif, 1 broken link`; None where nothing was."""
    counts = sorted(Counter(kinds).items(), key=lambda item: (-item[1], item[0]))
    if not counts:
        return None
    parts = [f"{count:,} {kind}{'s' if count > 1 and _counts_in_words(kind) else ''}" for kind, count in counts]
    if len(parts) > _MOST_KINDS:
        rest = sum(count for _, count in counts[_MOST_KINDS:])
        parts = [*parts[:_MOST_KINDS], f"{rest:,} of {len(counts) - _MOST_KINDS} more kinds"]
    return f"{counted(sum(count for _, count in counts), 'file')} left out: {', '.join(parts)}"


def folders_left_out(places: Iterable[Path]) -> str | None:
    """`left_out_line` of those of `places` that are folders and can be listed."""
    kinds: list[str] = []
    for place in places:
        if place.is_dir():
            with suppress(OSError):  # told by `list_labeled`
                kinds += [entry.kind for entry in scan_folder(place).left_out]
    return left_out_line(kinds)


def _counts_in_words(kind: str) -> bool:
    return not kind.startswith(".") and kind != "without a suffix"


def _scan(folder: Path) -> FolderScan:
    try:
        return scan_folder(folder)
    except OSError as error:
        raise PhotoUnusable(f"{error.filename}: cannot be listed ({error.strerror})") from error


def _rows(place: Path) -> tuple[LabeledPhoto, ...]:
    try:
        table = read_table(place)
    except SettingError as error:
        raise PhotoUnusable(str(error)) from error
    header = [name.lower() for name in table.columns]
    if "path" not in header:
        raise PhotoUnusable(f"{place}: the first line must name a column path")
    rows = (dict(zip(header, line.cells, strict=False)) | {"": str(line.number)} for line in table.lines)
    photos = tuple(_row(place, row) for row in rows if row.get("path"))
    if not photos:
        raise PhotoUnusable(f"{place}: no photographs in it")
    return photos


def _row(place: Path, row: Mapping[str, str]) -> LabeledPhoto:
    """A photograph of a row: column -> cell, and the number of the line under an empty name."""
    path = locate(place.parent, row["path"])
    word = (known(row.get("eye")) or "").lower()
    if word not in _EYES:
        raise PhotoUnusable(f"{place}, line {row['']}: eye {word!r} is none of {', '.join(filter(None, _EYES))}")
    below = path.is_relative_to(place.parent) and ".." not in path.parts
    label = path.relative_to(place.parent).as_posix() if below else path.name
    visit = known(row.get("visit")) or known(row.get("date"))
    return LabeledPhoto(path, printable(label), _EYES[word], known(row.get("patient")), visit)


def _raise(error: OSError) -> None:
    """For `os.walk`, which otherwise skips folders that it cannot open."""
    raise error
