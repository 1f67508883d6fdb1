"""What photographs are called in tables, and where the files about them go: below the folder asked for.

The offline command has the same file; a test keeps the two alike.
"""

import os
from collections.abc import Collection, Sequence
from pathlib import Path, PurePosixPath


def unique_labels(short: Sequence[str], paths: Sequence[Path]) -> list[str]:
    """What each photograph is called: its short name, its path below the folder that was asked for.

    Where two would be called alike, as in several folders, all are named below the folder that holds them.

    Args:
        paths: of the photographs, none twice.
    """
    if len({name.casefold() for name in short}) == len(short):
        return list(short)
    # abspath and not resolve: a link is called what it is called, not what it leads to.
    whole = [Path(os.path.abspath(path)) for path in paths]  # noqa: PTH100
    top = Path(os.path.commonpath([path.parent for path in whole]))
    return [path.relative_to(top).as_posix() for path in whole]


def unique_places(labels: Sequence[str], taken: Collection[str] = ()) -> list[str]:
    """Each label without its ending, made unique in order, letter case aside: a/1.jpg, a/1.png -> a/1, a/1-2.

    Args:
        taken: places that are given away already.
    """
    known = {place.casefold() for place in taken}
    places = []
    for label in labels:
        stem = str(PurePosixPath(label).with_suffix(""))
        place, number = stem, 1
        while place.casefold() in known:
            number += 1
            place = f"{stem}-{number}"
        known.add(place.casefold())
        places.append(place)
    return places
