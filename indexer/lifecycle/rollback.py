"""`resad-indexer rollback`: an earlier version becomes the live one again; both stay as they are."""

from pathlib import Path

from resad import index
from resad.errors import IndexInvalid
from resad.manifest import read_manifest


def version_before(place: Path) -> str:
    """The version of ROOT/NAME that the live one was made from; where that is gone or none, the next older one.

    Raises:
        IndexInvalid: there is none.
    """
    live = index.resolve(place)
    there = index.versions(place)
    made_from = read_manifest(live / index.MANIFEST).history[-1].from_version
    if made_from in there:
        return made_from
    older = [version for version in there if version < live.name]
    if not older:
        raise IndexInvalid(f"{place}: {live.name} is the oldest version there is")
    return older[-1]
