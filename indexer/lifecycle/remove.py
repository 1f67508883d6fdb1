"""`resad-indexer remove`: photographs leave an index, with every memory, picture and record of theirs.

Patches that only their memories covered are covered again where features are there: those that the index keeps,
or those of the photographs that are given, which are encoded again.  Then every score is measured anew.  Elsewhere
the memories that are gone leave holes: the covering radius that is stated is then a bound, by the triangle
inequality, and the left-out distances that stay may be too small ("stale").
"""

import hashlib
import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch

from indexer.build.feature_store import FeatureStore
from indexer.build.progress import Stages
from indexer.build.state import file_sha256
from indexer.calibration.calibrate import CalibrationRecord, calibration_records
from indexer.lifecycle.derive import (
    NewVersion,
    SourceVersion,
    VersionSpec,
    derive_version,
    open_source,
    renumbered,
    store_of,
)
from indexer.photos.listing import list_photos
from resad import index
from resad.calibration import RATES, normals_needed
from resad.config import PhotoLimits
from resad.errors import IndexInvalid, SettingError, naming
from resad.index import (
    add_purged,
    clear_rubbish,
    content_hashes,
    delete_version,
    only_writer,
    purged,
    tombstone,
    writing,
)
from resad.manifest import PHOTOS_FILE, ReferenceRecord, read_records
from resad.preparation import prepare

_ID: Final = re.compile(r"[rc]-\d{5,}")
_HASH: Final = re.compile(r"(?:sha256:)?([0-9a-f]{64})")
_GROUPS: Final = ("patient", "camera")


@dataclass(frozen=True, slots=True)
class Choice:
    """ids, hashes: of single photographs.  groups: (`patient` or `camera`, its value); a camera's without case.

    A patient is one of the reference photos: those that an index was calibrated on have numbers of their own.
    """

    ids: frozenset[str]
    hashes: frozenset[str]
    groups: frozenset[tuple[str, str]]

    def __call__(self, one: ReferenceRecord | CalibrationRecord) -> bool:
        """Whether a photograph is meant."""
        camera = None if one.camera is None else one.camera.casefold()
        return (
            one.id in self.ids
            or one.content_sha256 in self.hashes
            or (isinstance(one, ReferenceRecord) and ("patient", one.patient) in self.groups)
            or ("camera", camera) in self.groups
        )


def choose(photos: Sequence[str], groups: Sequence[str]) -> Choice:
    """What was typed.

    Args:
        photos: ids (r-00041), content hashes, files, folders or CSVs.
        groups: `patient=p-00003` or `camera=Topcon`.
    Raises:
        SettingError: one of them is none of these, or there are none.
    """
    ids, hashes, chosen = set(), set(), set()
    for text in photos:
        if _ID.fullmatch(text):
            ids.add(text)
        elif found := _HASH.fullmatch(text.lower()):
            hashes.add(found[1])
        else:
            hashes |= _of_files(text)
    for text in groups:
        kind, equals, value = text.partition("=")
        if kind not in _GROUPS or not equals or not value:
            raise SettingError(f"--group {text!r}: expected patient=ID or camera=NAME")
        chosen.add((kind, value.casefold() if kind == "camera" else value))
    if not (ids or hashes or chosen):
        raise SettingError("nothing is named: give --photo or --group")
    return Choice(frozenset(ids), frozenset(hashes), frozenset(chosen))


def _of_files(text: str) -> set[str]:
    path = Path(text)
    if not path.exists():
        raise SettingError(f"--photo {text!r} is no id (as r-00041), no content hash (64 hex digits), and no file")
    return {content for photo in list_photos(path) if (content := file_sha256(photo.path)) is not None}


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


def hashes_to_purge(place: Path, hashes: frozenset[str]) -> frozenset[str]:
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


Photo = ReferenceRecord | CalibrationRecord
PhotoFilter = Callable[[Photo], bool]
"""Whether a photograph is to go."""


@dataclass(frozen=True, slots=True)
class RemoveOptions:
    """index: ROOT/NAME or ROOT/NAME/VERSION.  photos: where the photographs that stay are found by content, to be
    encoded again.  live: make the new version the live one.
    """

    index: Path
    chosen: PhotoFilter
    device: torch.device
    photos: Path | None = None
    live: bool = True
    limits: PhotoLimits = PhotoLimits()


@dataclass(frozen=True, slots=True)
class RemoveReport:
    """What came of it.

    removed: ids, of references and of photographs that it was calibrated on.  hashes: content hashes of these.
    lost: memories that are gone.  fell_back: so few were left of those that it was calibrated on that it is
    calibrated on the reference photos now.  missing: ids that stay, and were not where they were to be found.
    """

    made: NewVersion
    removed: tuple[str, ...]
    hashes: tuple[str, ...]
    lost: int
    fell_back: bool
    missing: tuple[str, ...]


def holds(version: Path, chosen: PhotoFilter) -> bool:
    """Whether ROOT/NAME/VERSION has one of the chosen photographs."""
    there: list[Photo] = [*read_records(version / PHOTOS_FILE), *calibration_records(version)]
    return any(map(chosen, there))


def remove(order: RemoveOptions, stages: Stages) -> RemoveReport:
    """Write a version without the chosen photographs; on any error all is as it was.

    Raises:
        SettingError: none is chosen, too few are left, or somebody else writes to the index.
        IndexInvalid: the index cannot be used.
    """
    place = index.resolve(order.index).resolve().parent
    with writing(place.parent, place.name) as scratch:
        base = open_source(order.index, order.device)
        there: list[Photo] = [*base.photos, *base.calibrated_on]
        gone = [one for one in there if order.chosen(one)]
        if not gone:
            raise SettingError(f"{base.place} holds no such photograph")
        stay = [row for row, record in enumerate(base.photos) if not order.chosen(record)]
        draft = _draft(base, order, stay, scratch, stages)
        made = derive_version(draft, place, scratch, stages, live=order.live)
    return RemoveReport(
        made,
        tuple(one.id for one in gone),
        tuple(one.content_sha256 for one in gone),
        len(base.loaded.detector.bank) - len(draft.bank),
        bool(base.calibrated_on) and not draft.calibrated_on,
        () if order.photos is None else _without_features(draft),
    )


def _without_features(draft: VersionSpec) -> tuple[str, ...]:
    found = set(draft.numbers)
    return tuple(record.id for number, record in enumerate(draft.kept) if number not in found)


def _draft(
    base: SourceVersion, order: RemoveOptions, stay: Sequence[int], scratch: Path, stages: Stages
) -> VersionSpec:
    bank, neighbors = base.loaded.detector.bank, base.manifest.config.search.neighbors
    lost = ~np.isin(bank.provenance.photo, stay)
    if (count := int((~lost).sum())) < neighbors:
        raise SettingError(
            f"{count} memories would be left, fewer than the {neighbors} neighbors that are searched"
        )
    left = renumbered(bank, stay)
    features, numbers = _features(base, order, stay, scratch, stages)
    normals = tuple(one for one in base.calibrated_on if not order.chosen(one))
    covering = base.manifest.quality.covering_radius
    if lost.any():
        covering += float(left.search(bank.memories[lost], 1).distances.max())
    return VersionSpec(
        base=base,
        operation="remove",
        bank=left,
        kept=tuple(base.photos[row] for row in stay),
        new=(),
        patients=(),
        store=features,
        numbers=numbers,
        keep_features=base.features is not None,
        placed={number: base.placed[row] for number, row in enumerate(stay)},
        others="stale" if lost.any() else "measured",
        covering=covering,
        radius=base.manifest.quality.radius_to_keep,
        numbered=base.numbered,
        calibrated_on=normals if len(normals) >= normals_needed(max(RATES)) else (),
        pictures=base.pictures({base.photos[row].id: base.photos[row].id for row in stay}),
    )


def _features(
    base: SourceVersion, order: RemoveOptions, stay: Sequence[int], scratch: Path, stages: Stages
) -> tuple[FeatureStore, tuple[int, ...]]:
    """Of the photographs that stay, and their numbers among these: all where they are kept, else what is found."""
    if base.features is not None:
        return store_of(scratch / "whole", [(base.features, stay)]), tuple(range(len(stay)))
    store = FeatureStore(scratch / "again")
    if order.photos is None:
        return store, ()
    records = [base.photos[row] for row in stay]
    places = reference_files(order.photos, records, order.limits)
    numbers = tuple(number for number, record in enumerate(records) if record.content_sha256 in places)
    encoder = base.loaded.detector.encoder
    with stages.stage("encode", len(numbers), "photos") as advance:
        for number in numbers:
            path = places[records[number].content_sha256]
            with naming(path):
                photo = prepare(path, encoder.config.preparation, order.limits)
            (patches,) = encoder.encode([photo])
            had = records[number].patches
            if len(patches.cells) != had:
                raise IndexInvalid(
                    f"{path} gives {len(patches.cells)} patches and gave {had} when the index was built: "
                    "another version of this program finds another field of view"
                )
            store.append(patches)
            advance(1)
    return store, numbers


def reference_files(source: Path, records: Sequence[ReferenceRecord], limits: PhotoLimits) -> dict[str, Path]:
    """Where the reference photographs lie in `source` (a folder tree or a CSV), by content hash.

    Files that are none of them are passed over, whatever they hold.
    Raises `SettingError` where nothing is to be listed.
    """
    wanted = {record.content_sha256 for record in records}
    places: dict[str, Path] = {}
    for photo in list_photos(source):
        if photo.path.stat().st_size > limits.max_bytes:
            continue
        with photo.path.open("rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
        if content in wanted:
            places.setdefault(content, photo.path)
    return places
