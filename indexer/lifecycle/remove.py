"""`resad-indexer remove`: photographs leave an index, with every memory, picture and record of theirs.

Patches that only their memories covered are covered again where features are there: those that the index keeps,
or those of the photographs that are given, which are encoded again.  Then every score is measured anew.  Elsewhere
the memories that are gone leave holes: the covering radius that is stated is then a bound, by the triangle
inequality, and the left-out distances that stay may be too small ("stale").
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from indexer.audit_pictures import find_places
from indexer.calibration_records import CalibrationRecord, calibration_records
from indexer.feature_store import FeatureStore
from indexer.lifecycle.base import Base, open_base, renumbered, store_of
from indexer.lifecycle.draft import Draft
from indexer.lifecycle.succession import Succession, succeed
from indexer.progress import Stages
from resad import index
from resad.calibration import RATES, normals_needed
from resad.config import PhotoLimits
from resad.errors import IndexInvalid, SettingError, naming
from resad.index_writing import writing
from resad.photo_records import PHOTOS_FILE, ReferenceRecord, read_records
from resad.preparation import prepare

Photo = ReferenceRecord | CalibrationRecord
Chosen = Callable[[Photo], bool]
"""Whether a photograph is to go."""


@dataclass(frozen=True, slots=True)
class RemoveOrder:
    """index: ROOT/NAME or ROOT/NAME/VERSION.  photos: where the photographs that stay are found by content, to be
    encoded again.  live: make the new version the live one.
    """

    index: Path
    chosen: Chosen
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

    made: Succession
    removed: tuple[str, ...]
    hashes: tuple[str, ...]
    lost: int
    fell_back: bool
    missing: tuple[str, ...]


def holds(version: Path, chosen: Chosen) -> bool:
    """Whether ROOT/NAME/VERSION has one of the chosen photographs."""
    there: list[Photo] = [*read_records(version / PHOTOS_FILE), *calibration_records(version)]
    return any(map(chosen, there))


def remove(order: RemoveOrder, stages: Stages) -> RemoveReport:
    """Write a version without the chosen photographs; on any error all is as it was.

    Raises:
        SettingError: none is chosen, too few are left, or somebody else writes to the index.
        IndexInvalid: the index cannot be used.
    """
    place = index.resolve(order.index).resolve().parent
    with writing(place.parent, place.name) as scratch:
        base = open_base(order.index, order.device)
        there: list[Photo] = [*base.photos, *base.calibrated_on]
        gone = [one for one in there if order.chosen(one)]
        if not gone:
            raise SettingError(f"{base.place} holds no such photograph")
        stay = [row for row, record in enumerate(base.photos) if not order.chosen(record)]
        draft = _draft(base, order, stay, scratch, stages)
        made = succeed(draft, place, scratch, stages, live=order.live)
    return RemoveReport(
        made,
        tuple(one.id for one in gone),
        tuple(one.content_sha256 for one in gone),
        len(base.loaded.detector.bank) - len(draft.bank),
        bool(base.calibrated_on) and not draft.calibrated_on,
        () if order.photos is None else _without_features(draft),
    )


def _without_features(draft: Draft) -> tuple[str, ...]:
    found = set(draft.numbers)
    return tuple(record.id for number, record in enumerate(draft.kept) if number not in found)


def _draft(base: Base, order: RemoveOrder, stay: Sequence[int], scratch: Path, stages: Stages) -> Draft:
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
    return Draft(
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
    base: Base, order: RemoveOrder, stay: Sequence[int], scratch: Path, stages: Stages
) -> tuple[FeatureStore, tuple[int, ...]]:
    """Of the photographs that stay, and their numbers among these: all where they are kept, else what is found."""
    if base.features is not None:
        return store_of(scratch / "whole", [(base.features, stay)]), tuple(range(len(stay)))
    store = FeatureStore(scratch / "again")
    if order.photos is None:
        return store, ()
    records = [base.photos[row] for row in stay]
    places = find_places(order.photos, records, order.limits)
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
