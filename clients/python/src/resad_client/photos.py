"""Which files of a folder or a CSV are photographs to score, and what they are called."""

import csv
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from resad_client.errors import PhotoUnusable
from resad_client.places import unique_labels
from resad_client.protocol import Eye

PHOTO_SUFFIXES: Final = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp", ".webp")
"""What is looked for in a folder, in lower case; any case is taken."""

_EYES: Final[dict[str, Eye | None]] = {
    "": None, "left": "left", "right": "right", "l": "left", "r": "right", "os": "left", "od": "right"
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Source:
    """A photograph to score.

    label: what it is called in tables, its path below the folder that was asked for.  eye: which one, if a CSV
    says so.
    """

    path: Path
    label: str
    eye: Eye | None = None


def sources(place: Path) -> tuple[Source, ...]:
    """The photographs below the folder `place`, sorted by their path; those of a CSV; or `place` itself.

    Of a folder, hidden files and folders are left out, links are followed, no folder is entered twice.  A CSV has
    a column `path`, relative to its own folder, and perhaps `eye`.  Raises `PhotoUnusable` if there is none in it
    or it cannot be read.
    """
    if place.suffix.lower() == ".csv" and place.is_file():
        return _rows(place)
    if not place.is_dir():
        return (Source(place, place.name),)
    found = sorted((path.relative_to(place).as_posix(), path) for path in _walk(place))
    if not found:
        raise PhotoUnusable(f"{place}: no photographs in it (looked for {', '.join(PHOTO_SUFFIXES)})")
    return tuple(Source(path, label) for label, path in found)


def gather(places: Sequence[Path]) -> tuple[list[Source], list[str]]:
    """The photographs of all `places`, each once and with a label of its own; and what was no use, in lines."""
    found: dict[str, Source] = {}
    missed = []
    for place in places:
        try:
            for source in sources(place):
                # abspath and not resolve: two links to one file are two photographs.
                found.setdefault(os.path.abspath(source.path), source)  # noqa: PTH100
        except PhotoUnusable as error:
            missed.append(str(error))
    once = list(found.values())
    labels = unique_labels([source.label for source in once], [source.path for source in once])
    return [replace(source, label=label) for source, label in zip(once, labels, strict=True)], missed


def walk(folder: Path) -> Iterator[Path]:
    """The photographs below `folder`, as `sources` finds them, in no order; raises `OSError` if it cannot."""
    entered: set[Path] = set()
    for name, folders, files in os.walk(folder, onerror=_refuse, followlinks=True):
        here = Path(name)
        if here.resolve() in entered:
            folders.clear()
            continue
        entered.add(here.resolve())
        # Real folders before links to them, so that a photograph goes by its own path where there are two.
        folders[:] = sorted(f for f in folders if not f.startswith("."))
        folders.sort(key=lambda f: (here / f).is_symlink())
        yield from (here / file for file in files if _is_photo(here / file))


def _walk(folder: Path) -> Iterator[Path]:
    try:
        yield from walk(folder)
    except OSError as error:
        raise PhotoUnusable(f"{error.filename}: cannot be listed ({error.strerror})") from error


def _rows(place: Path) -> tuple[Source, ...]:
    try:
        with place.open(encoding="utf-8-sig", newline="") as file:
            rows = csv.DictReader(file, strict=True)
            names = {name.strip().lower(): name for name in rows.fieldnames or ()}
            if "path" not in names:
                raise PhotoUnusable(f"{place}: the first line must name a column path")
            eye = names.get("eye", "")
            found = tuple(
                _row(place, row[names["path"]], row.get(eye), rows.line_num) for row in rows if row[names["path"]]
            )
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise PhotoUnusable(f"{place}: cannot be read ({error})") from error
    if not found:
        raise PhotoUnusable(f"{place}: no photographs in it")
    return found


def _row(place: Path, cell: str, eye: str | None, line: int) -> Source:
    path, word = place.parent / cell.strip(), (eye or "").strip().lower()
    if word not in _EYES:
        raise PhotoUnusable(f"{place}, line {line}: eye {word!r} is none of {', '.join(filter(None, _EYES))}")
    below = path.is_relative_to(place.parent) and ".." not in path.parts
    return Source(path, path.relative_to(place.parent).as_posix() if below else path.name, _EYES[word])


def _is_photo(path: Path) -> bool:
    return path.suffix.lower() in PHOTO_SUFFIXES and not path.name.startswith(".") and path.is_file()


def _refuse(error: OSError) -> None:
    """Without this a folder that cannot be opened would count as empty."""
    raise error
