"""Compare versions (`diff`), delete old versions (`gc`), and find the previous version (`rollback`)."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

from pydantic import TypeAdapter
from resad_client.records import INTENDED_USE

from resad import index
from resad.errors import IndexInvalid, SettingError
from resad.examples import read_example_records
from resad.index import check_files, delete_folder, delete_leftovers, delete_version, leftovers, write_lock
from resad.manifest import PHOTOS_FILE, Manifest, ReferenceRecord, read_manifest, read_records
from resad.memory_bank import Provenance


@dataclass(frozen=True, slots=True)
class ScoreChange:
    """The left-out score of a reference photo in both versions.  id: in the second version."""

    id: str
    before: float
    after: float


@dataclass(frozen=True, slots=True)
class Diff:
    """The difference between two versions.

    left, entered: photographs that only `before` or only `after` has, by its ids.  same: photographs in both.
    memories_left, memories_entered, memories_same: by photograph and cell; None if not `comparable`.
    marks_removed, marks_added: ids of marks that only `before` or only `after` has learned.
    scores: of the photographs in both, the largest change first; empty if not `comparable`.
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
    marks_removed: tuple[str, ...] = ()
    marks_added: tuple[str, ...] = ()
    intended_use: str = INTENDED_USE

    @property
    def comparable(self) -> bool:
        """Whether cells and distances mean the same in both: their fingerprints are equal."""
        return self.before.fingerprint == self.after.fingerprint

    @property
    def median_change(self) -> float | None:
        """Median change of the scores, feature units; None without scores."""
        return median(change.after - change.before for change in self.scores) if self.scores else None


def diff(before: Path, after: Path) -> Diff:
    """Compare two versions, each ROOT/NAME (its live version) or ROOT/NAME/VERSION, without any photograph.

    Raises:
        IndexInvalid: a version cannot be read.
    """
    first, second = (_VersionContent.read(index.resolve(path)) for path in (before, after))
    in_first, in_second = (
        {record.content_sha256: record for record in version.records} for version in (first, second)
    )
    shared = [record for record in second.records if record.content_sha256 in in_first]
    difference = Diff(
        before=first.manifest,
        after=second.manifest,
        left=tuple(record.id for record in first.records if record.content_sha256 not in in_second),
        entered=tuple(record.id for record in second.records if record.content_sha256 not in in_first),
        same=len(shared),
        memories_left=None,
        memories_entered=None,
        memories_same=None,
        scores=(),
        marks_removed=tuple(sorted(first.marks - second.marks)),
        marks_added=tuple(sorted(second.marks - first.marks)),
    )
    if not difference.comparable:
        return difference
    scores = [ScoreChange(record.id, in_first[record.content_sha256].score, record.score) for record in shared]
    return replace(
        difference,
        memories_left=len(first.memories - second.memories),
        memories_entered=len(second.memories - first.memories),
        memories_same=len(first.memories & second.memories),
        scores=tuple(sorted(scores, key=lambda change: (-abs(change.after - change.before), change.id))),
    )


def diff_json(difference: Diff) -> str:
    """`difference` as indented JSON."""
    return TypeAdapter(Diff).dump_json(difference, indent=2).decode()


@dataclass(frozen=True, slots=True)
class _VersionContent:
    """A version's manifest, records, memories (content hash, y, x), and ids of the marks that it has learned."""

    manifest: Manifest
    records: tuple[ReferenceRecord, ...]
    memories: frozenset[tuple[str, int, int]]
    marks: frozenset[str]

    @classmethod
    def read(cls, version: Path) -> "_VersionContent":
        manifest = check_files(version, skip_hash=("features/", "evidence/"))
        records = read_records(version / PHOTOS_FILE)
        marks = frozenset(record.id for record in read_example_records(version))
        return cls(manifest, records, _memories(records, Provenance.load(version)), marks)


def _memories(records: Sequence[ReferenceRecord], origin: Provenance) -> frozenset[tuple[str, int, int]]:
    hashes = [records[row].content_sha256 for row in origin.photo.tolist()]
    return frozenset((content, y, x) for content, (y, x) in zip(hashes, origin.cell.tolist(), strict=True))


@dataclass(frozen=True, slots=True)
class GcReport:
    """deleted, kept: versions, oldest first.  work: whether an unfinished build is still there.

    leftovers: what killed processes have left and could not be deleted.
    """

    deleted: tuple[str, ...]
    kept: tuple[str, ...]
    work: bool
    leftovers: tuple[Path, ...] = ()


def collect(place: Path, keep: int, *, with_work: bool = False, only_say: bool = False) -> GcReport:
    """Delete all but the live and the newest other versions of ROOT/NAME, `keep` in all, and leftover files.

    Args:
        with_work: delete an unfinished build, too.
        only_say: delete nothing.
    Raises:
        SettingError: `keep` is not positive, or another process writes to the index.
        IndexInvalid: no version is live.
        OSError: a version or the unfinished build cannot be deleted.
    """
    if keep < 1:
        raise SettingError(f"--keep {keep}: at least 1, since the live version always stays")
    live = index.resolve(place).name
    with write_lock(place):
        not_live = [version for version in index.versions(place) if version != live]
        deleted = not_live[: max(len(not_live) - (keep - 1), 0)]
        if not only_say:
            delete_leftovers(place)
            for version in deleted:
                delete_version(place, version)
            if with_work and (place / index.WORK).exists():
                delete_folder(place / index.WORK)
        remaining = tuple(version for version in (*not_live, live) if version not in deleted)
        undeleted = () if only_say else tuple(leftovers(place))
    return GcReport(tuple(deleted), tuple(sorted(remaining)), (place / index.WORK).exists(), undeleted)


def version_before(place: Path) -> str:
    """The version that the live version of ROOT/NAME was made from; without that, the next older version.

    Raises:
        IndexInvalid: there is no older version.
    """
    live = index.resolve(place)
    versions = index.versions(place)
    source = read_manifest(live / index.MANIFEST).history[-1].from_version
    if source in versions:
        return source
    older = [version for version in versions if version < live.name]
    if not older:
        raise IndexInvalid(f"{place}: {live.name} is the oldest version")
    return older[-1]
