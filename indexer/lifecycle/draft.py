"""What a new version is to be made of: `add`, `remove` and `merge` each write one, `succession` carries it out."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, get_args

from indexer.calibration_records import CalibrationRecord
from indexer.feature_store import FeatureStore
from indexer.lifecycle.base import Base
from indexer.placed import Placed
from indexer.references import FEWEST, Reference
from resad.errors import SettingError
from resad.memory_bank import MemoryBank
from resad.photo_records import ReferenceRecord, Standing

_WORST: Final[tuple[Standing, ...]] = get_args(Standing)


@dataclass(frozen=True, slots=True, eq=False)
class Draft:
    """What a new version is to be made of; photographs are counted `kept` first, then `new`.

    base: whose settings, trunk, probe and history it has.  also_from: the second of a merge, NAME/VERSION.
    bank: the memories there are before any enters.
    kept: records of earlier versions.  new, patients: photographs that have none yet, and whose they are.
    store, numbers: the features that are there, and whose they are, ascending.
    keep_features: they are those of all photographs, and stay.
    placed: the left-out distances of the other ones, by number.  others: what these are worth in `bank`.
    covering: bounds the distance of these photographs' patches to their nearest memory in `bank`.
    radius: the covering radius to keep.  numbered: the highest number of an id so far.
    calibrated_on: the photographs outside the bank that it is calibrated on; none for the reference photos.
    pictures: of reference photos: name -> where each lies.
    """

    base: Base
    operation: str
    bank: MemoryBank
    kept: tuple[ReferenceRecord, ...]
    new: tuple[Reference, ...]
    patients: tuple[str | None, ...]
    store: FeatureStore
    numbers: tuple[int, ...]
    keep_features: bool
    placed: Mapping[int, Placed]
    others: Standing
    covering: float
    radius: float
    numbered: int
    calibrated_on: tuple[CalibrationRecord, ...]
    pictures: Mapping[str, Path]
    also_from: str | None = None


def worst(standings: Iterable[Standing]) -> Standing:
    """The one that promises least."""
    return max(standings, key=_WORST.index, default="measured")


def check_people(groups: Sequence[frozenset[int]]) -> None:
    """Raise `SettingError` where too few photographs are left for an index, by what is left out together."""
    if (count := len(set(groups))) < FEWEST:
        raise SettingError(
            f"{count} photographs (of different patients, copies counted once) would be left, an index needs "
            f"at least {FEWEST}"
        )
