"""`resad-indexer add`: more healthy photographs for an index; the old ones are not encoded again.

The greedy goes on from the memories there are: a new patch enters if it is farther from all of them than the
covering radius that the index was built with.  The new photographs are scored left out of the new bank.  The old
ones are, too, where their features are kept; otherwise their distances stay, and bound what they would be now.
"""

from collections import deque
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import torch

from indexer.build.extraction import batch_size, extract
from indexer.build.progress import Stages
from indexer.build.references import (
    Reference,
    Screen,
    TooFewPhotos,
    near_duplicates_of,
    number_patients,
    photo_id,
    screen_purged,
    skipped_summary,
)
from indexer.build.state import BuildState, build_inputs
from indexer.lifecycle.derive import NewVersion, SourceVersion, VersionSpec, derive_version, open_source, store_of
from indexer.photos.listing import Duplicate, NearDuplicate, ReferencePhoto, Skipped, list_references
from indexer.photos.near_duplicates import match_near_duplicates, near_duplicate_pairs
from resad import index
from resad.config import PhotoLimits
from resad.index import writing
from resad.pictures.evidence import file_name, keeps_crops


@dataclass(frozen=True, slots=True)
class AddOptions:
    """index: ROOT/NAME or ROOT/NAME/VERSION.  photos: a folder or a CSV.  strict: refuse instead of skipping
    photographs.  live: make the new version the live one.
    """

    index: Path
    photos: Path
    device: torch.device
    strict: bool = False
    live: bool = True
    limits: PhotoLimits = PhotoLimits()


@dataclass(frozen=True, slots=True)
class AddReport:
    """What came of it.  strangers: new patients who may be among those of before, who are known by number."""

    made: NewVersion
    added: int
    skipped: tuple[Skipped, ...]
    duplicates: tuple[Duplicate, ...]
    near_duplicates: tuple[NearDuplicate, ...]
    strangers: int


def add(order: AddOptions, stages: Stages) -> AddReport:
    """Write a version with more photographs; on any error all is as it was.

    Raises:
        TooFewTaken: nothing is to be added.
        SettingError: somebody else writes to the index.
        PhotoError: with `strict`, for the first photograph that cannot be used.
        IndexInvalid: the index cannot be used.
    """
    listed = list_references(order.photos)
    place = index.resolve(order.index).resolve().parent
    with writing(place.parent, place.name) as scratch:
        base = open_source(order.index, order.device)
        config = base.manifest.config
        inputs = build_inputs(
            config, order.limits, base.manifest.weights_sha256, order.device.type, listed,
            crops=keeps_crops(base.manifest),
        )  # fmt: skip
        batch = batch_size([order.device])
        with BuildState(scratch / "work", inputs, listed, resume=False, batch=batch) as work:
            with stages.stage("encode", len(listed), "photos") as advance:
                extracting = extract(
                    [base.loaded.detector.encoder], order.limits, work, advance, strict=order.strict,
                    look_up=_look_up(base),
                )  # fmt: skip
                with closing(extracting) as extraction:
                    deque(extraction, maxlen=0)
            if not work.references:
                told = f"{order.photos} adds nothing: {skipped_summary(work.left_aside)}"
                raise TooFewPhotos(told, work.left_aside)
            made = derive_version(_draft(base, work, scratch), place, scratch, stages, live=order.live)
    return AddReport(
        made,
        len(work.references),
        tuple(one for one in work.left_aside if isinstance(one, Skipped)),
        tuple(one for one in work.left_aside if isinstance(one, Duplicate)),
        (
            *_near_duplicates_in_index(base, work.references),
            *near_duplicates_of(work.references, near_duplicate_pairs(work.references)),
        ),
        _strangers(base, work.references),
    )


def _draft(base: SourceVersion, work: BuildState, scratch: Path) -> VersionSpec:
    old, new = len(base.photos), len(work.references)
    kept = [] if base.features is None else [(base.features, range(old))]
    patients = [reference.source.patient for reference in work.references]
    known = [record.patient for record in base.photos]
    return VersionSpec(
        base=base,
        operation="add",
        bank=base.loaded.detector.bank,
        kept=base.photos,
        new=tuple(work.references),
        patients=tuple(patients if base.keeps_names else number_patients(patients, known)),
        store=store_of(scratch / "whole", [*kept, (work.store, range(new))]),
        numbers=tuple(range(0 if kept else old, old + new)),
        keep_features=base.features is not None,
        placed={} if kept else dict(enumerate(base.placed)),
        others="measured",
        covering=base.manifest.quality.covering_radius,
        radius=base.manifest.quality.radius_to_keep,
        numbered=base.numbered,
        calibrated_on=base.calibrated_on,
        pictures=base.pictures({record.id: record.id for record in base.photos}) | _pictures(base, work),
    )


def _pictures(base: SourceVersion, work: BuildState) -> dict[str, Path]:
    """Of the new photographs, where such are kept."""
    return {
        file_name(photo_id(base.numbered + number)): picture
        for number in range(1, len(work.references) + 1)
        if (picture := work.folder / file_name(photo_id(number))).is_file()
    }


def _look_up(base: SourceVersion) -> Screen:
    """Leaves aside what is in the index, or was purged from it, or is what it was calibrated on."""
    ids = {record.content_sha256: record.id for record in base.photos}
    normals = {record.content_sha256: record.id for record in base.calibrated_on}
    purged = screen_purged(base.place.parent)

    def look_up(source: ReferencePhoto, content_hash: str) -> Skipped | Duplicate | None:
        if content_hash in ids:
            return Duplicate(source.path, f"{ids[content_hash]} of the index")
        if content_hash in normals:
            return Skipped(source.path, f"the index is calibrated on it ({normals[content_hash]})")
        return purged(source, content_hash)

    return look_up


def _near_duplicates_in_index(base: SourceVersion, references: Sequence[Reference]) -> tuple[NearDuplicate, ...]:
    ids = [f"{record.id} of the index" for record in base.photos]
    return tuple(
        NearDuplicate(references[pair.first].source.path, ids[pair.second], pair.bits or 0, pair.mirrored)
        for pair in match_near_duplicates(references, base.photos)
    )


def _strangers(base: SourceVersion, references: Sequence[Reference]) -> int:
    known = {record.patient for record in base.photos} - {None}
    if base.keeps_names or not known:
        return 0
    return len({reference.source.patient for reference in references} - known - {None})
