"""Reference photographs and what was measured on them -> their records, numbered."""

import re
from collections.abc import Iterable, Sequence
from typing import Final

from indexer.references import Reference
from resad.manifest import ReferenceRecord

_NUMBERED: Final = re.compile(r"p-(\d{5,})")


def new_records(
    references: Sequence[Reference],
    patches: Sequence[int],
    scores: Sequence[float],
    peaks: Sequence[float],
    patients: Sequence[str | None],
    *,
    after: int = 0,
    keep_names: bool,
) -> tuple[ReferenceRecord, ...]:
    """A record for each photograph; ids go on after the number `after`.

    Args:
        patches, scores, peaks, patients: of the same photographs; scores and peaks are left-out ones.
    """
    return tuple(
        ReferenceRecord(
            id=f"r-{after + place + 1:05d}",
            content_sha256=reference.content_sha256,
            perceptual_hash=reference.perceptual_hash,
            width=reference.frame.width,
            height=reference.frame.height,
            field_of_view=reference.field_of_view,
            patches=patches[place],
            score=scores[place],
            peak=peaks[place],
            quality=reference.quality,
            patient=patients[place],
            eye=reference.source.eye,
            camera=reference.source.camera,
            name=reference.source.path.name if keep_names else None,
        )
        for place, reference in enumerate(references)
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
