"""Does the test set hold what the index was made from?  Same files, same pictures, same patients."""

from collections.abc import Sequence
from dataclasses import dataclass as plain_dataclass

from pydantic.dataclasses import dataclass

from lab.datasets import Dataset
from lab.evaluate.measured import Measured
from lab.evaluate.names import names_of
from resad.manifest import ReferenceRecord


@dataclass(frozen=True)
class SamePhoto:
    """A test photograph that is in the index as `reference`.

    bits: of 255 that differ; null for the same file.  mirrored: it is a mirror image of `reference`.
    """

    photo: str
    reference: str
    bits: int | None
    mirrored: bool

    @property
    def told(self) -> str:
        """Which is which, in words."""
        return f"{self.photo} is {'a mirror image of ' if self.mirrored else ''}{self.reference}"


@dataclass(frozen=True)
class Guard:
    """photos: in the index and tested on.  patients: of whom both are; null where that cannot be known, and `why`.

    Every figure flatters where one of the two is not empty.
    """

    photos: tuple[SamePhoto, ...]
    patients: tuple[str, ...] | None
    why: str | None


def guard(measured: Measured, dataset: Dataset, references: Sequence[ReferenceRecord]) -> Guard:
    """What was found while measuring, and whose photographs are on both sides."""
    names = names_of(measured.photos)
    photos = tuple(
        SamePhoto(names[one.photo], one.reference, one.bits, one.mirrored) for one in measured.in_the_index
    )
    found = _patients(dataset, references)
    return Guard(photos, found.both, found.why)


@plain_dataclass(frozen=True, slots=True)
class _Patients:
    both: tuple[str, ...] | None
    why: str | None


def _patients(dataset: Dataset, references: Sequence[ReferenceRecord]) -> _Patients:
    """Of the index, if it keeps names; of the data set's own training photographs in any case."""
    tested = {photo.patient for photo in dataset.test if photo.patient is not None}
    if not tested:
        return _Patients(None, "the data set names no patients")
    # Without --keep-names an index holds running numbers, which mean nothing outside it.
    kept = {record.patient for record in references if record.name is not None and record.patient is not None}
    listed = {photo.patient for photo in dataset.train if photo.patient is not None}
    both = tuple(sorted(tested & (kept | listed)))
    if kept or listed:
        return _Patients(
            both, None if kept else "compared with the data set's training photographs, not the index's"
        )
    if any(record.patient is not None for record in references):
        return _Patients(None, "the index numbers its patients; one built with --keep-names can be compared")
    return _Patients(None, "the index names no patients")
