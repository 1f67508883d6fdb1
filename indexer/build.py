"""photos -> encoder.encode -> coreset -> MemoryBank -> calibrate -> publish: the twin of `resad.detector`."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from indexer.extraction import batch_size, extract
from indexer.feature_store import FeatureStore
from indexer.forecast import Forecast
from indexer.foresight import Progressed, Sample, first_few, foresee
from indexer.intake import Taken, take_in
from indexer.journal import Inputs, digest
from indexer.leave_out import LeftOut, leave_out
from indexer.look_alikes import same_among
from indexer.photos import Duplicate, LookAlike, ReferencePhoto, Skipped, list_references
from indexer.progress import Stages
from indexer.publication import Built, publish_version
from indexer.references import Reference, photo_id
from indexer.scoring import write_whole
from indexer.search_choice import SearchChoice, choose_search
from indexer.selection import memory_count, select
from indexer.work import Work
from resad import index, runtime
from resad.backbone import Backbone, load_backbone
from resad.config import MethodConfig, PhotoLimits
from resad.encoder import Encoder, Trunk, whitening_of
from resad.errors import SettingError
from resad.field_of_view import field_of_view_mask
from resad.manifest import Manifest, PackageVersion, ReferenceRecord
from resad.memory_bank import MemoryBank
from resad.preparation import PreparedPhoto
from resad.whitening import FILE as WHITENING_FILE
from resad.whitening import Whitening

_FITTED: Final = 64
"""Photographs: half a million patches on the paper's grid settle a covariance."""
_FEW: Final = 4
"""The same for a forecast, whose numbers do not depend on it."""
_MORE_PACKAGES: Final = ("resad", "scikit-learn")
"""Beside those of `runtime.packages`, what decides a bank: the code that makes features, and the projection."""
_FEWEST: Final = 2
"""Photographs: with one, nothing is left to calibrate against."""


@dataclass(frozen=True, slots=True)
class BuildOrder:
    """What is to be built and where.

    photos: a folder or a CSV.  weights: as for `load_backbone`.  strict: refuse instead of skipping photographs.
    keep_names: write file names into the index.  keep_crops: keep the photographs' squares, for evidence.
    more_devices: they extract and select beside `device`, which alone searches.  resume: go on with what an
    interrupted build has left.  max_memory: bytes to hold at most.  search: `auto` takes the faster exact one.
    """

    photos: Path
    root: Path
    name: str
    config: MethodConfig
    weights: str
    device: torch.device
    strict: bool = False
    keep_names: bool = False
    keep_crops: bool = False
    search: SearchChoice = "auto"
    limits: PhotoLimits = PhotoLimits()
    more_devices: tuple[torch.device, ...] = ()
    resume: bool = False
    max_memory: int | None = None

    @property
    def devices(self) -> tuple[torch.device, ...]:
        """All of them."""
        return (self.device, *self.more_devices)


@dataclass(frozen=True, slots=True)
class BuildReport:
    """What came of it."""

    version: Path
    manifest: Manifest
    skipped: tuple[Skipped, ...]
    duplicates: tuple[Duplicate, ...]
    look_alikes: tuple[LookAlike, ...]


def build(
    order: BuildOrder, stages: Stages, on_forecast: Callable[[Forecast], None] = lambda _: None
) -> BuildReport:
    """Build a version of an index and make it live; on any error no part of a version remains.

    What an interruption leaves to go on with, and when, is said in `indexer.work`.

    Args:
        on_forecast: told, after the first few photographs, what the whole will take.
    Raises:
        SettingError: settings or photographs from which no index can be made, or more than the host has.
        PhotoError: with `strict`, for the first photograph that cannot be used.
        ArtifactError: weights that are not to be had or do not fit.
    """
    listed, backbone, trunks = _start(order)
    place = order.root / order.name
    inputs, batch = _inputs(order, listed, backbone), batch_size(order.devices)
    with (
        index.writing(order.root, order.name) as scratch,
        Work(place / index.WORK, inputs, listed, resume=order.resume, batch=batch) as work,
    ):
        with stages.stage("whiten", 1, "fit") if order.config.resc.whitening is not None else nullcontext():
            encoders = _encoders(order, trunks, work, _FITTED)
        with stages.stage("encode", len(listed), "photos") as advance:
            advance(work.done)
            with closing(extract(encoders, order.limits, work, advance, strict=order.strict)) as extraction:
                points = _foreseen(order, backbone, work, first_few(extraction, len(encoders)), on_forecast)
                deque(extraction, maxlen=0)
        references, store = work.references, work.store
        _check_enough(references, work.left_aside, order)
        patches_in_all = int(store.first_rows[-1])
        wanted = memory_count(order.config.coreset, patches_in_all)
        with stages.stage("coreset", wanted or patches_in_all, "memories") as advance:
            selection = select(
                store, order.config.coreset, order.devices, advance, file=points, checkpoint=work.checkpoint()
            )
        bank = MemoryBank(selection.memories, selection.provenance, gpu=runtime.gpu_number(order.device))
        first_masks = [_mask(reference, order.config) for reference in references[:2]]
        bank, search = choose_search(bank, store, first_masks, order.config, order.search, stages)
        with stages.stage("calibrate", len(store), "photos") as advance:
            masks = (_mask(reference, order.config) for reference in references)
            patients = [reference.source.patient for reference in references]
            cameras = [reference.source.camera for reference in references]
            left_out = leave_out(store, masks, patients, bank, order.config, advance, cameras)
        records = _records(references, store, left_out, keep_names=order.keep_names)
        with stages.stage("publish", 1, "version") as advance:
            built = Built(
                backbone, encoders[0], bank, selection, left_out, records, store.photo(0).grid, search, work.crops
            )
            version, manifest = publish_version(built, scratch / "version", place, order.weights, stages.done)
            advance(1)
    return BuildReport(
        version,
        manifest,
        tuple(one for one in work.left_aside if isinstance(one, Skipped)),
        tuple(one for one in work.left_aside if isinstance(one, Duplicate)),
        _look_alikes(references),
    )


def forecast_only(order: BuildOrder) -> Forecast:
    """Encode the first few photographs and say what the whole would take; leaves nothing.  Raises as `build`."""
    listed, backbone, trunks = _start(order)
    inputs, batch = _inputs(order, listed, backbone), batch_size(order.devices)
    told: list[Forecast] = []
    with (
        index.writing(order.root, order.name) as scratch,
        Work(scratch / "work", inputs, listed, resume=False, batch=batch) as work,
    ):
        encoders = _encoders(order, trunks, work, _FEW)
        extracting = extract(encoders, order.limits, work, lambda _: None, strict=order.strict)
        with closing(extracting) as extraction:
            _foreseen(order, backbone, work, first_few(extraction, len(encoders)), told.append)
        if not told:
            _check_enough(work.references, work.left_aside, order)
    return told[0]


def _start(order: BuildOrder) -> tuple[tuple[ReferencePhoto, ...], Backbone, list[Trunk]]:
    listed = list_references(order.photos)
    backbone = load_backbone(order.config.backbone, order.weights)
    return listed, backbone, [Trunk(backbone, order.config, device) for device in order.devices]


def _encoders(order: BuildOrder, trunks: Sequence[Trunk], work: Work, fitted: int) -> list[Encoder]:
    """The trunks with a whitening fitted to at most so many photographs, or with the one that `work` has."""
    file = work.folder / WHITENING_FILE
    if order.config.resc.whitening is None or not file.is_file():
        whitening = whitening_of(trunks[0], _some(work.listed, order, fitted))
        if whitening is not None:
            write_whole(file, whitening.to_bytes())
    else:
        whitening = Whitening.load(file)
    return [Encoder(trunk, whitening) for trunk in trunks]


def _some(listed: Sequence[ReferencePhoto], order: BuildOrder, most: int) -> Iterator[PreparedPhoto]:
    """At most so many of the usable photographs, evenly over the list.

    Every step-th; for those that cannot be used their neighbors, then theirs, until there are as many.
    Raises `SettingError` where none can be used.
    """
    step = -(-len(listed) // most)
    wanted = len(listed[::step])
    spread = [photo for offset in range(step) for photo in listed[offset::step]]
    left_aside: list[Skipped | Duplicate] = []
    with closing(take_in(spread, order.config.preparation, order.limits, strict=order.strict)) as outcomes:
        for outcome in outcomes:
            if not isinstance(outcome, Taken):
                left_aside.append(outcome)
                continue
            yield outcome.photo
            wanted -= 1
            if not wanted:
                return
    if len(left_aside) == len(listed):
        _check_enough([], left_aside, order)


def _inputs(order: BuildOrder, listed: Sequence[ReferencePhoto], backbone: Backbone) -> Inputs:
    return Inputs(
        config=order.config,
        limits=order.limits,
        weights=backbone.weights_sha256,
        device=order.device.type,
        packages=(*runtime.packages(), *map(_version, _MORE_PACKAGES)),
        photos=tuple(map(digest, listed)),
        crops=order.keep_crops,
    )


def _version(package: str) -> PackageVersion:
    return PackageVersion(package, metadata.version(package))


def _foreseen(
    order: BuildOrder, backbone: Backbone, work: Work, sample: Sample, on_forecast: Callable[[Forecast], None]
) -> Path | None:
    """Tell the forecast, refuse what is too much, and say in which file the points lie if they must."""
    if not sample.features and len(work.store):
        sample = Sample(0.0, (work.store.photo(0),))
    if not sample.features:
        return None
    progressed = Progressed(len(work.listed), len(work.references), len(work.left_aside))
    told = foresee(order.config, backbone, order.devices, work.folder, order.max_memory, sample, progressed)
    on_forecast(told)
    told.check()
    return work.points if told.points_on_disk else None


def _mask(reference: Reference, config: MethodConfig) -> NDArray[np.bool_]:
    """The field of view on the prepared square again, as `prepare` makes it: bool (S, S)."""
    side = config.preparation.size
    if config.preparation.crop == "none":
        return np.ones((side, side), dtype=bool)
    return field_of_view_mask(reference.field_of_view, side, side, reference.frame.extent)


def _check_enough(references: list[Reference], left_aside: list[Skipped | Duplicate], order: BuildOrder) -> None:
    people = {reference.source.patient or reference.content_sha256 for reference in references}
    if len(people) < _FEWEST:
        reasons = [f"; first reason: {one.reason}" for one in left_aside if isinstance(one, Skipped)]
        raise SettingError(
            f"{order.photos} holds {len(people)} usable photographs (of different patients), an index needs "
            f"at least {_FEWEST}; {len(left_aside)} were left aside{reasons[0] if reasons else ''}"
        )


def _look_alikes(references: Sequence[Reference]) -> tuple[LookAlike, ...]:
    """Photographs that are taken, but show what an earlier one shows."""
    return tuple(
        LookAlike(references[pair.second].source.path, references[pair.first].source.path, pair.bits or 0)
        for pair in same_among(references)
    )


def _records(
    references: Sequence[Reference], store: FeatureStore, left_out: LeftOut, *, keep_names: bool
) -> tuple[ReferenceRecord, ...]:
    patches = np.diff(store.first_rows).tolist()
    names = [reference.source.patient for reference in references]
    patients = names if keep_names else _numbered(names)
    return tuple(
        ReferenceRecord(
            id=photo_id(number),
            content_sha256=reference.content_sha256,
            perceptual_hash=reference.perceptual_hash,
            width=reference.frame.width,
            height=reference.frame.height,
            field_of_view=reference.field_of_view,
            patches=patches[number - 1],
            score=left_out.scores[number - 1],
            peak=left_out.peaks[number - 1],
            quality=reference.quality,
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
