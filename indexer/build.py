"""photos -> encoder.encode -> coreset -> MemoryBank -> calibrate -> publish: the twin of `resad.detector`."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from indexer.feature_store import FeatureStore
from indexer.intake import Taken, perceptual_hash, take_in
from indexer.leave_out import LeftOut, leave_out
from indexer.photos import Duplicate, ReferencePhoto, Skipped, list_photos
from indexer.progress import Stages
from indexer.publication import Built, publish_version
from indexer.search_choice import SearchChoice, choose_search
from indexer.selection import memory_count, select
from resad import index, runtime
from resad.backbone import load_backbone
from resad.config import MethodConfig, PhotoLimits
from resad.encoder import Encoder
from resad.errors import SettingError
from resad.field_of_view import FieldOfView, field_of_view_mask
from resad.manifest import Manifest, ReferenceRecord
from resad.memory_bank import MemoryBank
from resad.preparation import Frame

_BATCH: Final = 4
"""Photographs encoded together: bounds memory at 784 px with 1536 channels to a few GB."""
_FEWEST: Final = 2
"""Photographs: with one, nothing is left to calibrate against."""


@dataclass(frozen=True, slots=True)
class BuildOrder:
    """What is to be built and where.

    photos: a folder or a CSV.  weights: as for `load_backbone`.  strict: refuse instead of skipping photographs.
    keep_names: write file names into the index.  search: `auto` takes the faster exact one.
    """

    photos: Path
    root: Path
    name: str
    config: MethodConfig
    weights: str
    device: torch.device
    strict: bool = False
    keep_names: bool = False
    search: SearchChoice = "auto"
    limits: PhotoLimits = PhotoLimits()


@dataclass(frozen=True, slots=True)
class BuildReport:
    """What came of it."""

    version: Path
    manifest: Manifest
    skipped: tuple[Skipped, ...]
    duplicates: tuple[Duplicate, ...]


@dataclass(frozen=True, slots=True)
class _Reference:
    """A photograph in the store, less its pixels."""

    source: ReferencePhoto
    content_hash: str
    perceptual_hash: str
    frame: Frame
    field_of_view: FieldOfView


def build(order: BuildOrder, stages: Stages) -> BuildReport:
    """Build a version of an index and make it live; on any error nothing of it remains.

    Raises:
        SettingError: settings or photographs from which no index can be made.
        PhotoError: with `strict`, for the first photograph that cannot be used.
        ArtifactError: weights that are not to be had or do not fit.
    """
    listed = list_photos(order.photos)
    backbone = load_backbone(order.config.backbone, order.weights)
    encoder = Encoder(backbone, order.config, order.device)
    with index.writing(order.root, order.name) as scratch, FeatureStore(scratch / "features") as store:
        with stages.stage("encode", len(listed), "photos") as advance:
            left_aside: list[Skipped | Duplicate] = []
            references: list[_Reference] = []
            for some in _batches(_noted(order, listed, left_aside, advance)):
                for taken, patches in zip(some, encoder.encode([one.photo for one in some]), strict=True):
                    store.append(patches)
                    references.append(_without_pixels(taken))
        _check_enough(references, left_aside, order)
        patches_in_all = int(store.first_rows[-1])
        wanted = memory_count(order.config.coreset, patches_in_all)
        with stages.stage("coreset", wanted or patches_in_all, "memories") as advance:
            selection = select(store, order.config.coreset, order.device, advance)
        bank = MemoryBank(selection.memories, selection.provenance, gpu=runtime.gpu_number(order.device))
        first_masks = [_mask(reference, order.config) for reference in references[:2]]
        bank, search = choose_search(bank, store, first_masks, order.config, order.search, stages)
        with stages.stage("calibrate", len(store), "photos") as advance:
            masks = (_mask(reference, order.config) for reference in references)
            patients = [reference.source.patient for reference in references]
            left_out = leave_out(store, masks, patients, bank, order.config, advance)
        records = _records(references, store, left_out, keep_names=order.keep_names)
        with stages.stage("publish", 1, "version") as advance:
            built = Built(backbone, encoder, bank, selection, left_out, records, store.photo(0).grid, search)
            version, manifest = publish_version(
                built, scratch / "version", order.root / order.name, order.weights, stages.done
            )
            advance(1)
    return BuildReport(
        version,
        manifest,
        tuple(one for one in left_aside if isinstance(one, Skipped)),
        tuple(one for one in left_aside if isinstance(one, Duplicate)),
    )


def _noted(
    order: BuildOrder,
    listed: Sequence[ReferencePhoto],
    left_aside: list[Skipped | Duplicate],
    advance: Callable[[int], None],
) -> Iterator[Taken]:
    """The photographs that are taken; the others go to `left_aside`."""
    for outcome in take_in(listed, order.config.preparation, order.limits, strict=order.strict):
        advance(1)
        if isinstance(outcome, Taken):
            yield outcome
        else:
            left_aside.append(outcome)


def _batches(taken: Iterator[Taken]) -> Iterator[list[Taken]]:
    batch: list[Taken] = []
    for one in taken:
        batch.append(one)
        if len(batch) == _BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


def _without_pixels(taken: Taken) -> _Reference:
    photo = taken.photo
    return _Reference(
        taken.source, photo.content_hash, perceptual_hash(photo.pixels), photo.frame, photo.field_of_view
    )


def _mask(reference: _Reference, config: MethodConfig) -> NDArray[np.bool_]:
    """The field of view on the prepared square again, as `prepare` makes it: bool (S, S)."""
    side = config.preparation.size
    if config.preparation.crop == "none":
        return np.ones((side, side), dtype=bool)
    return field_of_view_mask(reference.field_of_view, side, side, reference.frame.extent)


def _check_enough(references: list[_Reference], left_aside: list[Skipped | Duplicate], order: BuildOrder) -> None:
    people = {reference.source.patient or reference.content_hash for reference in references}
    if len(people) < _FEWEST:
        reasons = [f"; first reason: {one.reason}" for one in left_aside if isinstance(one, Skipped)]
        raise SettingError(
            f"{order.photos} holds {len(people)} usable photographs (of different patients), an index needs "
            f"at least {_FEWEST}; {len(left_aside)} were left aside{reasons[0] if reasons else ''}"
        )


def _records(
    references: Sequence[_Reference], store: FeatureStore, left_out: LeftOut, *, keep_names: bool
) -> tuple[ReferenceRecord, ...]:
    patches = np.diff(store.first_rows).tolist()
    names = [reference.source.patient for reference in references]
    patients = names if keep_names else _numbered(names)
    return tuple(
        ReferenceRecord(
            id=f"r-{number:05d}",
            content_sha256=reference.content_hash,
            perceptual_hash=reference.perceptual_hash,
            width=reference.frame.width,
            height=reference.frame.height,
            field_of_view=reference.field_of_view,
            patches=patches[number - 1],
            score=left_out.scores[number - 1],
            peak=left_out.peaks[number - 1],
            patient=patients[number - 1],
            eye=reference.source.eye,
            camera=reference.source.camera,
            name=reference.source.path.name if keep_names else None,
        )
        for number, reference in enumerate(references, start=1)
    )


def _numbered(names: Sequence[str | None]) -> list[str | None]:
    """Who belongs together, without saying who it is: p-00001 for the first patient met."""
    numbers: dict[str, str] = {}
    return [name and numbers.setdefault(name, f"p-{len(numbers) + 1:05d}") for name in names]
