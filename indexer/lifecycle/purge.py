"""`resad-indexer remove --purge`: deletes everything of photographs for good, and bars them.

The order makes the same command finish what a killed one began: the photographs are barred (`PURGED`), then a
version without them is live, then whatever holds them is deleted, all under the index's lock.  At the end it looks
whether anything is still there.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Final

from resad_client.files import sync

from indexer.build.progress import Stages
from indexer.lifecycle.choice import HeldPhoto, VersionPhotos, read_version, read_versions
from indexer.lifecycle.remove import RemoveOptions, RemoveReport, derive_without
from resad import index
from resad.errors import IndexInvalid
from resad.index import (
    add_tombstones,
    delete_folder,
    delete_version,
    leftovers,
    make_live,
    staging_folder,
    tombstone,
    tombstones,
)
from resad.marks import MARKS, doomed_entries, marked_hashes

BEYOND_REACH: Final = (
    "exports of this index (resad-indexer export), and indexes imported from them elsewhere",
    "backups, snapshots and copies of the folder; blocks that the disk itself has not overwritten yet",
    "services until they have loaded the new version, and answers that they sent",
    "audit pages, reports and tables that were written to files",
)
"""Copies that this program cannot know of."""


@dataclass(frozen=True, slots=True)
class DoomedVersion:
    """A version that a purge deletes.  photos: how many it has.  fault: why nobody can tell which it has."""

    version: str
    photos: int
    fault: str | None


@dataclass(frozen=True, slots=True)
class PurgePlan:
    """What a purge of ROOT/NAME deletes.

    hashes: content hashes of the photographs, also of those whose purge was begun before.
    photos: the photographs, each as the newest version that has it states it.  live: the live version has some.
    versions: all that hold one, or may hold one, the live one among them.
    beside: photographs that are only in versions that go.
    work: an unfinished build.  leftovers: what killed processes have left.  marks: entries of the journal of
    marks.
    """

    hashes: frozenset[str]
    photos: tuple[HeldPhoto, ...]
    live: bool
    versions: tuple[DoomedVersion, ...]
    beside: tuple[HeldPhoto, ...]
    work: bool
    leftovers: int
    marks: int

    @property
    def empty(self) -> bool:
        """Whether there is nothing to delete."""
        return not (self.live or self.versions or self.work or self.leftovers or self.marks)


def plan_purge(place: Path, hashes: Iterable[str]) -> PurgePlan:
    """What a purge of these photographs (content hashes) deletes from ROOT/NAME; changes nothing."""
    barred = tombstones(place)
    every = read_versions(place)
    contents = marked_hashes(place).union(*(version.hashes for version in every))
    doomed = frozenset(hashes) | {content for content in contents if tombstone(content) in barred}
    live = index.live_version(place)
    going = [
        version
        for version in every
        if version.hashes & doomed or (version.fault is not None and version.version != live)
    ]
    # All other photographs of the live version are in the one that takes its place.
    staying = frozenset().union(
        *(version.hashes for version in every if version not in going or version.version == live)
    )
    return PurgePlan(
        hashes=doomed,
        photos=_latest(every, doomed, live),
        live=any(version.hashes & doomed for version in every if version.version == live),
        versions=tuple(DoomedVersion(version.version, len(version.photos), version.fault) for version in going),
        beside=_latest(going, frozenset().union(*(version.hashes for version in going)) - staying - doomed, live),
        work=_exists(place / index.WORK),
        leftovers=len(_leftovers(place)),
        marks=len(doomed_entries(place, doomed)),
    )


def _latest(versions: Iterable[VersionPhotos], hashes: frozenset[str], live: str | None) -> tuple[HeldPhoto, ...]:
    """Each photograph as the live version states it, or else the newest; by id."""
    photos: dict[str, HeldPhoto] = {}
    for version in sorted(versions, key=lambda version: (version.version == live, version.version)):
        photos |= {photo.content_sha256: photo for photo in version.photos if photo.content_sha256 in hashes}
    return tuple(sorted(photos.values(), key=lambda photo: (photo.id[0] != "r", photo.id)))


@dataclass(frozen=True, slots=True)
class StillHeld:
    """Something that a purge could not delete, and why."""

    path: Path
    reason: str


@dataclass(frozen=True, slots=True)
class PurgeReport:
    """What a purge deleted, and what it could not delete.

    removal: the version without the photographs; None if the live version had none of them.
    versions: deleted versions.  work: an unfinished build was deleted, too.
    marks: deleted entries of the journal of marks.  remaining: what is still there.  elsewhere: versions of other
    indexes in the same root that hold purged photographs.  unknown: files and folders in ROOT/NAME that are no
    part of the index, and were not looked into.
    """

    removal: RemoveReport | None
    barred: int
    versions: tuple[str, ...]
    work: bool
    marks: int
    remaining: tuple[StillHeld, ...]
    elsewhere: tuple[StillHeld, ...]
    unknown: tuple[Path, ...]


def purge(
    options: RemoveOptions, stages: Stages, on_removal: Callable[[RemoveReport], None] = lambda _: None
) -> PurgeReport:
    """Bar the chosen photographs (content hashes) of ROOT/NAME, and delete everything that holds one of them.

    Args:
        on_removal: called once a version without them is live, before anything is deleted.
    Raises:
        SettingError: too few photographs would be left, or another process writes to the index.
        IndexInvalid: the live version cannot be used.
    """
    place = index.resolve(options.index).resolve().parent
    removal = None
    deleted: list[str] = []
    failures: dict[Path, str] = {}
    with staging_folder(place.parent, place.name) as scratch:
        plan = plan_purge(place, options.hashes)
        live = index.resolve(place)
        if (fault := read_version(live).fault) is not None:
            raise IndexInvalid(f"{live} is live and damaged ({fault}): activate a version that is not")
        if plan.live:
            removal = derive_without(replace(options, hashes=plan.hashes, index=live), scratch, stages, live=False)
        if plan.hashes:
            add_tombstones(place, plan.hashes)
        if removal is not None:
            make_live(place, removal.derived.version.name)
            on_removal(removal)
        for version in plan.versions:
            if _delete(place / version.version, failures, partial(delete_version, place, version.version)):
                deleted.append(version.version)  # noqa: PERF401 (each may fail)
        entries = doomed_entries(place, plan.hashes) if plan.hashes else []
        for folder in (*_leftovers(place), place / index.WORK, *entries):
            if folder != scratch and _exists(folder):
                _delete(folder, failures, partial(delete_folder, folder))
        sync(place)
    return PurgeReport(
        removal,
        len(plan.hashes),
        tuple(deleted),
        plan.work and not _exists(place / index.WORK),
        sum(not _exists(folder) for folder in entries),
        tuple(_remaining(place, plan.hashes, failures)),
        tuple(_elsewhere(place)),
        tuple(_unknown(place)),
    )


def _delete(path: Path, failures: dict[Path, str], delete: Callable[[], None]) -> bool:
    """Whether it was deleted; a failure is noted with its reason."""
    try:
        delete()
    except (OSError, IndexInvalid) as error:
        failures[path] = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        return False
    return True


def _leftovers(place: Path) -> list[Path]:
    """As `index.leftovers`, and versions without a manifest: a part of them was deleted by hand."""
    parts = [
        entry
        for entry in place.iterdir()
        if index.VERSION.fullmatch(entry.name) and not (entry / index.MANIFEST).is_file()
    ]
    return [*leftovers(place), *sorted(parts)]


def _remaining(place: Path, hashes: frozenset[str], failures: Mapping[Path, str]) -> Iterable[StillHeld]:
    """What is still there after the purge, by looking, with the reason where deleting it has failed."""
    entries = doomed_entries(place, hashes) if hashes else []
    for folder in (*_leftovers(place), place / index.WORK, *entries):
        if _exists(folder):
            # A version is renamed before it is deleted.
            yield StillHeld(folder, failures.get(folder) or "; ".join(failures.values()) or "it came back")
    for version in read_versions(place):
        if version.fault or version.hashes & hashes:
            path = place / version.version
            yield StillHeld(path, failures.get(path) or version.fault or "it was written meanwhile")


def _elsewhere(place: Path) -> Iterable[StillHeld]:
    if not (barred := tombstones(place)):
        return
    for folder in sorted(path for path in place.parent.iterdir() if path.is_dir()):
        if folder.resolve() == place.resolve():
            continue
        try:
            versions = read_versions(folder)
        except OSError as error:
            yield StillHeld(folder, f"cannot be looked into ({error.strerror})")
            continue
        for version in versions:
            if version.fault is not None:
                yield StillHeld(folder / version.version, f"may hold some of them ({version.fault})")
            elif any(tombstone(content) in barred for content in version.hashes):
                yield StillHeld(folder / version.version, "holds some of them")


def _unknown(place: Path) -> Iterable[Path]:
    names = {index.CURRENT, index.PURGED, index.WORK, index.LOCK, MARKS, *index.versions(place)}
    names |= {folder.name for folder in _leftovers(place)}
    return sorted(entry for entry in place.iterdir() if entry.name not in names)


def _exists(path: Path) -> bool:
    return path.exists() or path.is_symlink()
