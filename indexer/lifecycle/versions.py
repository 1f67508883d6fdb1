"""Compare versions (`diff`), delete old ones (`gc`), and find the one before (`rollback`)."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

from pydantic import TypeAdapter

from resad import index
from resad.errors import IndexInvalid, SettingError
from resad.index import check_files, delete_leftovers, delete_version, write_lock
from resad.manifest import PHOTOS_FILE, Manifest, ReferenceRecord, read_manifest, read_records
from resad.memory_bank import Provenance
from resad.result import INTENDED_USE


@dataclass(frozen=True, slots=True)
class ScoreChange:
    """A reference photo's left-out score in both.  id: in the second, content hashes being equal."""

    id: str
    before: float
    after: float


@dataclass(frozen=True, slots=True)
class Diff:
    """From `before` to `after`.

    left, entered: ids of photographs that only one has, each by its own index's ids.  same: how many both have.
    memories_left, memories_entered, memories_same: by photograph and cell; None where not `comparable`.
    scores: of the photographs that both have, the largest change first; none where not `comparable`.
    """

    before: Manifest
    after: Manifest
    left: tuple[str, ...]
    entered: tuple[str, ...]
    same: int
    memories_left: int | None
    memories_entered: int | None
    memories_same: int | None
    scores: tuple[ScoreChange, ...]
    intended_use: str = INTENDED_USE

    @property
    def comparable(self) -> bool:
        """Whether cells and distances of the two mean the same."""
        return self.before.fingerprint == self.after.fingerprint

    @property
    def median_change(self) -> float | None:
        """Of the scores, feature units; None where there are none."""
        return median(one.after - one.before for one in self.scores) if self.scores else None


def diff(before: Path, after: Path) -> Diff:
    """Compare ROOT/NAME (its live version) or ROOT/NAME/VERSION with another; no photograph is looked at.

    Raises:
        IndexInvalid: one of them cannot be read.
    """
    one, other = (_Read.of(index.resolve(path)) for path in (before, after))
    ours, theirs = ({record.content_sha256: record for record in read.records} for read in (one, other))
    both = [record for record in other.records if record.content_sha256 in ours]
    found = Diff(
        before=one.manifest,
        after=other.manifest,
        left=tuple(record.id for record in one.records if record.content_sha256 not in theirs),
        entered=tuple(record.id for record in other.records if record.content_sha256 not in ours),
        same=len(both),
        memories_left=None,
        memories_entered=None,
        memories_same=None,
        scores=(),
    )
    if not found.comparable:
        return found
    scores = [ScoreChange(record.id, ours[record.content_sha256].score, record.score) for record in both]
    return replace(
        found,
        memories_left=len(one.memories - other.memories),
        memories_entered=len(other.memories - one.memories),
        memories_same=len(one.memories & other.memories),
        scores=tuple(sorted(scores, key=lambda one: (-abs(one.after - one.before), one.id))),
    )


def diff_json(found: Diff) -> str:
    """`found` as indented JSON."""
    return TypeAdapter(Diff).dump_json(found, indent=2).decode()


@dataclass(frozen=True, slots=True)
class _Read:
    """memories: (content hash, y, x)."""

    manifest: Manifest
    records: tuple[ReferenceRecord, ...]
    memories: frozenset[tuple[str, int, int]]

    @classmethod
    def of(cls, version: Path) -> "_Read":
        manifest = check_files(version, skip_hash=("features/", "evidence/"))
        records = read_records(version / PHOTOS_FILE)
        return cls(manifest, records, _memories(records, Provenance.load(version)))


def _memories(records: Sequence[ReferenceRecord], origin: Provenance) -> frozenset[tuple[str, int, int]]:
    hashes = [records[row].content_sha256 for row in origin.photo.tolist()]
    return frozenset((content, y, x) for content, (y, x) in zip(hashes, origin.cell.tolist(), strict=True))


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
    with write_lock(place):
        others = [version for version in index.versions(place) if version != live]
        deleted = others[: max(len(others) - (keep - 1), 0)]
        if not only_say:
            delete_leftovers(place)
            for version in deleted:
                delete_version(place, version)
            if with_work:
                shutil.rmtree(place / index.WORK, ignore_errors=True)
        kept = tuple(version for version in (*others, live) if version not in deleted)
    return GcReport(tuple(deleted), tuple(sorted(kept)), (place / index.WORK).exists())


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
