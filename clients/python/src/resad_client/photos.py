"""Which bytes are a photograph that the service takes, and which files of a folder are."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

from resad_client.errors import PhotoUnusable

PHOTO_SUFFIXES: Final = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp", ".webp")
"""What is looked for in a folder, in lower case; any case is taken."""

_SIGNATURES: Final = (
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"II*\0", "image/tiff"),
    (b"MM\0*", "image/tiff"),
    (b"II+\0", "image/tiff"),  # BigTIFF
    (b"MM\0+", "image/tiff"),
    (b"BM", "image/bmp"),
)


@dataclass(frozen=True, slots=True)
class Source:
    """A photograph to score, and what it is called in tables: its path below the folder that was asked for."""

    path: Path
    label: str


def media_type(data: bytes) -> str | None:
    """The media type that the first bytes of `data` tell; None if it is none that the service takes."""
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "image/webp"
    return next((kind for signature, kind in _SIGNATURES if data.startswith(signature)), None)


def sources(place: Path) -> tuple[Source, ...]:
    """The photographs below the folder `place`, sorted by their path; or `place` itself if it is no folder.

    Hidden files and folders are left out, links are followed, no folder is entered twice.  Raises
    `PhotoUnusable` if a folder holds none or cannot be listed.
    """
    if not place.is_dir():
        return (Source(place, place.name),)
    found = sorted((path.relative_to(place).as_posix(), path) for path in _walk(place))
    if not found:
        raise PhotoUnusable(f"{place}: no photographs in it (looked for {', '.join(PHOTO_SUFFIXES)})")
    return tuple(Source(path, label) for label, path in found)


def unique_places(labels: Sequence[str]) -> list[str]:
    """Each label without its ending, made unique in order, letter case aside: a/1.jpg, a/1.png -> a/1, a/1-2."""
    taken: set[str] = set()
    places = []
    for label in labels:
        stem = str(PurePosixPath(label).with_suffix(""))
        place, number = stem, 1
        while place.casefold() in taken:
            number += 1
            place = f"{stem}-{number}"
        taken.add(place.casefold())
        places.append(place)
    return places


def _walk(folder: Path) -> Iterator[Path]:
    entered: set[Path] = set()
    try:
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
    except OSError as error:
        raise PhotoUnusable(f"{error.filename}: cannot be listed ({error.strerror})") from error


def _is_photo(path: Path) -> bool:
    return path.suffix.lower() in PHOTO_SUFFIXES and not path.name.startswith(".") and path.is_file()


def _refuse(error: OSError) -> None:
    """Without this a folder that cannot be opened would count as empty."""
    raise error
