"""`resad-indexer remove --purge`: what holds removed photographs is destroyed, and cannot come back.

First the photographs are barred (`resad.tombstones`), then every version that holds one is deleted, and with it
the features and pictures it keeps; then what interrupted builds have left, which may hold them.  The live version
holds none by then.  Stopped half-way, the same command goes on.
"""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from resad import index
from resad.errors import IndexInvalid
from resad.index_writing import clear_rubbish, delete_version, only_writer
from resad.tombstones import add_purged, content_hashes, purged, tombstone

BEYOND_REACH: Final = (
    "exports of this index (resad-indexer export), and what was imported from them elsewhere",
    "backups, snapshots and copies of the folder; blocks that the disk itself has not overwritten yet",
    "services until they have loaded the new version, and answers that they gave",
    "audit pages, reports and tables that were written to files",
)
"""What this program cannot know of."""


@dataclass(frozen=True, slots=True)
class PurgeReport:
    """versions: those that were deleted.  work: what an interrupted build had left is gone, too.

    elsewhere: versions of other indexes beside this one that hold purged photographs.
    """

    versions: tuple[str, ...]
    work: bool
    elsewhere: tuple[Path, ...]


def purge(place: Path, hashes: Sequence[str]) -> PurgeReport:
    """Destroy all that holds these photographs (content hashes) in ROOT/NAME, and bar them.

    Raises:
        IndexInvalid: the live version holds one: it is to be removed first.
        SettingError: somebody else writes to the index.
    """
    with only_writer(place):
        live = index.live_version(place)
        holding = [version for version in index.versions(place) if content_hashes(place / version) & set(hashes)]
        if live in holding:
            raise IndexInvalid(f"{place / live} is live and holds the photographs: remove them first")
        add_purged(place, hashes)
        clear_rubbish(place)
        for version in holding:
            delete_version(place, version)
        work = (place / index.WORK).exists()
        shutil.rmtree(place / index.WORK, ignore_errors=True)
    return PurgeReport(tuple(holding), work, _elsewhere(place))


def to_purge(place: Path, hashes: frozenset[str]) -> frozenset[str]:
    """Those of the content hashes that some version of ROOT/NAME holds, or that are barred from it already."""
    held = frozenset().union(*(content_hashes(place / version) for version in index.versions(place)))
    graves = purged(place)
    return (held & hashes) | {one for one in hashes if tombstone(one) in graves}


def _elsewhere(place: Path) -> tuple[Path, ...]:
    graves = purged(place)
    return tuple(
        folder / version
        for folder in sorted(place.parent.iterdir())
        if folder != place
        for version in index.versions(folder)
        if any(tombstone(one) in graves for one in content_hashes(folder / version))
    )
