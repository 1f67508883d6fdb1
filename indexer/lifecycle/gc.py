"""`resad-indexer gc`: old versions go, and what killed processes have left."""

import shutil
from dataclasses import dataclass
from pathlib import Path

from resad import index
from resad.errors import SettingError
from resad.index_writing import clear_rubbish, delete_version, only_writer


@dataclass(frozen=True, slots=True)
class GcReport:
    """deleted, kept: versions, oldest first.  work: whether what an interrupted build left is still there."""

    deleted: tuple[str, ...]
    kept: tuple[str, ...]
    work: bool


def collect(place: Path, keep: int, *, with_work: bool = False, only_say: bool = False) -> GcReport:
    """Delete all but the live and the newest other versions of ROOT/NAME, `keep` in all, and rubbish.

    Args:
        with_work: also what an interrupted build has left to go on with.
        only_say: delete nothing.
    Raises:
        SettingError: `keep` is not positive, or somebody else writes to the index.
        IndexInvalid: no version is live.
    """
    if keep < 1:
        raise SettingError(f"--keep {keep}: the live version always stays, so 1 is the least")
    live = index.resolve(place).name
    with only_writer(place):
        others = [version for version in index.versions(place) if version != live]
        deleted = others[: max(len(others) - (keep - 1), 0)]
        if not only_say:
            clear_rubbish(place)
            for version in deleted:
                delete_version(place, version)
            if with_work:
                shutil.rmtree(place / index.WORK, ignore_errors=True)
        kept = tuple(version for version in (*others, live) if version not in deleted)
    return GcReport(tuple(deleted), tuple(sorted(kept)), (place / index.WORK).exists())
