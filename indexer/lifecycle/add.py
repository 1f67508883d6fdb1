"""`resad-indexer add`: adds healthy photographs to an index without encoding its photographs again.

The greedy continues from the existing memories: a new patch enters if it is farther from all of them than the
covering radius that the index was built with.  The new photographs are scored left out of the new bank, as are the
photographs of the index if their features are kept; otherwise their distances stay as upper bounds.
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
    unused_summary,
)
from indexer.build.state import BuildState, build_inputs
from indexer.lifecycle.derive import (
    NewVersion,
    SourceVersion,
    VersionSpec,
    combine_stores,
    derive_version,
    open_source,
)
from indexer.photos.listing import Duplicate, NearDuplicate, ReferencePhoto, Skipped, list_references
from resad import index
from resad.config import PhotoLimits
from resad.index import staging_folder
from resad.near_duplicates import match_near_duplicates, near_duplicate_pairs
from resad.pictures.evidence import file_name, keeps_crops


@dataclass(frozen=True, slots=True)
class AddOptions:
    """What to add, and to which index.

    index: ROOT/NAME or ROOT/NAME/VERSION.  photos: a folder or a CSV.  strict: refuse instead of skipping
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
    """The new version and the photographs that were added or not used.

    strangers: patients counted as new who may be among the index's own, which it knows by number only.
    """

    derived: NewVersion
    added: int
    skipped: tuple[Skipped, ...]
    duplicates: tuple[Duplicate, ...]
    near_duplicates: tuple[NearDuplicate, ...]
    strangers: int


def add(options: AddOptions, stages: Stages) -> AddReport:
    """Write a version with more photographs; after any error the index is unchanged.

    Raises:
        TooFewPhotos: none of the photographs can be added.
        SettingError: another process writes to the index.
        PhotoError: with `strict`, for the first photograph that cannot be used.
        IndexInvalid: the index cannot be used.
    """
    listed = list_references(options.photos)
    place = index.resolve(options.index).resolve().parent
    with staging_folder(place.parent, place.name) as scratch:
        source = open_source(options.index, options.device)
        config = source.manifest.config
        inputs = build_inputs(
            config, options.limits, source.manifest.weights_sha256, options.device.type, listed,
            crops=keeps_crops(source.manifest),
        )  # fmt: skip
        batch = batch_size([options.device])
        with BuildState(scratch / "work", inputs, listed, resume=False, batch=batch) as state:
            with stages.stage("encode", len(listed), "photos") as advance:
                extracting = extract(
                    [source.loaded.detector.encoder], options.limits, state, advance, strict=options.strict,
                    screen=_screen(source),
                )  # fmt: skip
                with closing(extracting) as extraction:
                    deque(extraction, maxlen=0)
            if not state.references:
                message = f"{options.photos} adds nothing: {unused_summary(state.unused)}"
                raise TooFewPhotos(message, state.unused)
            derived = derive_version(_spec(source, state, scratch), place, scratch, stages, live=options.live)
    return AddReport(
        derived,
        len(state.references),
        tuple(photo for photo in state.unused if isinstance(photo, Skipped)),
        tuple(photo for photo in state.unused if isinstance(photo, Duplicate)),
        (
            *_near_duplicates_in_index(source, state.references),
            *near_duplicates_of(state.references, near_duplicate_pairs(state.references)),
        ),
        _strangers(source, state.references),
    )


def _spec(source: SourceVersion, state: BuildState, scratch: Path) -> VersionSpec:
    photos, additions = len(source.photos), len(state.references)
    stores = [] if source.features is None else [(source.features, range(photos))]
    patients = [reference.source.patient for reference in state.references]
    index_patients = [record.patient for record in source.photos]
    return VersionSpec(
        source=source,
        operation="add",
        bank=source.loaded.detector.bank,
        records=source.photos,
        additions=tuple(state.references),
        patients=tuple(patients if source.keeps_names else number_patients(patients, index_patients)),
        store=combine_stores(scratch / "whole", [*stores, (state.store, range(additions))]),
        numbers=tuple(range(0 if stores else photos, photos + additions)),
        keep_features=source.features is not None,
        distances={} if stores else dict(enumerate(source.distances)),
        standing="measured",
        covering_radius=source.manifest.quality.covering_radius,
        kept_radius=source.manifest.quality.radius_to_keep,
        last_number=source.last_number,
        calibrated_on=source.calibrated_on,
        set_aside=source.manifest.calibration.set_aside,
        pictures=source.pictures({record.id: record.id for record in source.photos})
        | source.example_pictures(source.loaded.examples)
        | _pictures(source, state),
        examples=source.loaded.examples,
    )


def _pictures(source: SourceVersion, state: BuildState) -> dict[str, Path]:
    """Pictures of the new photographs, if the index keeps pictures."""
    return {
        file_name(photo_id(source.last_number + number)): picture
        for number in range(1, len(state.references) + 1)
        if (picture := state.folder / file_name(photo_id(number))).is_file()
    }


def _screen(source: SourceVersion) -> Screen:
    """Skips photographs that are in the index, were purged from it, or that it was calibrated on."""
    ids = {record.content_sha256: record.id for record in source.photos}
    normals = {record.content_sha256: record.id for record in source.calibrated_on}
    screen_tombstones = screen_purged(source.folder.parent)

    def screen(photo: ReferencePhoto, content_hash: str) -> Skipped | Duplicate | None:
        if content_hash in ids:
            return Duplicate(photo.path, f"{ids[content_hash]} of the index")
        if content_hash in normals:
            return Skipped(photo.path, f"the index is calibrated on it ({normals[content_hash]})")
        return screen_tombstones(photo, content_hash)

    return screen


def _near_duplicates_in_index(source: SourceVersion, references: Sequence[Reference]) -> tuple[NearDuplicate, ...]:
    ids = [f"{record.id} of the index" for record in source.photos]
    return tuple(
        NearDuplicate(references[pair.first].source.path, ids[pair.second], pair.bits or 0, pair.mirrored)
        for pair in match_near_duplicates(references, source.photos)
    )


def _strangers(source: SourceVersion, references: Sequence[Reference]) -> int:
    """Patients of the new photographs that the index may know by another name: its own are numbered."""
    numbered = {record.patient for record in source.photos} - {None}
    if source.keeps_names or not numbered:
        return 0
    return len({reference.source.patient for reference in references} - numbered - {None})
