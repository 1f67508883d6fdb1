"""Reference photographs and what was measured on them -> their records, numbered."""

import re
from collections.abc import Iterable, Sequence
from typing import Final

from indexer.leave_out import LeftOut
from indexer.references import Reference, photo_id
from resad.photo_records import ReferenceRecord

_NUMBERED: Final = re.compile(r"p-(\d{5,})")


def new_records(
    references: Sequence[Reference],
    left_out: LeftOut,
    patients: Sequence[str | None],
    *,
    row: int = 0,
    after: int = 0,
    keep_names: bool,
) -> tuple[ReferenceRecord, ...]:
    """A record for each photograph; ids go on after the number `after`.

    Args:
        patients: of the same photographs.
        row: where they begin in `left_out`.
    """
    rows = range(row, row + len(references))
    return tuple(
        ReferenceRecord(
            id=photo_id(number),
            content_sha256=reference.content_sha256,
            perceptual_hash=reference.perceptual_hash,
            width=reference.frame.width,
            height=reference.frame.height,
            field_of_view=reference.field_of_view,
            patches=len(left_out.placed[own].cells),
            score=left_out.scores[own],
            peak=left_out.peaks[own],
            quality=reference.quality,
            patient=patient,
            eye=reference.source.eye,
            camera=reference.source.camera,
            name=reference.source.path.name if keep_names else None,
        )
        for number, (reference, patient, own) in enumerate(zip(references, patients, rows, strict=True), after + 1)
    )


def number_patients(names: Sequence[str | None], known: Iterable[str | None] = ()) -> list[str | None]:
    """Who belongs together, without saying who it is: p-00001 for the first patient met.

    Args:
        known: patients of photographs that are in the index; one of `names` that is among them is meant, and the
            numbers go on after theirs.
    """
    there = set(known)
    taken = [int(found[1]) for one in there if one and (found := _NUMBERED.fullmatch(one))]
    first = max(taken, default=0) + 1
    numbers: dict[str, str] = {}
    return [
        name if name is None or name in there else numbers.setdefault(name, f"p-{first + len(numbers):05d}")
        for name in names
    ]
