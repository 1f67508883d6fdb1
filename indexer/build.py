"""photos -> encoder.encode -> coreset -> MemoryBank -> calibrate -> publish: the twin of `resad.detector`."""

from collections import deque
from collections.abc import Callable
from contextlib import closing, nullcontext
from pathlib import Path
from typing import Final

from indexer.build_order import BuildOrder, BuildReport
from indexer.extraction import batch_size, extract
from indexer.fitting import FITTED, fitted_encoders
from indexer.forecast import Forecast
from indexer.foresight import Progressed, Sample, check_count, first_few, foresee
from indexer.intake import without_purged
from indexer.journal import Inputs, inputs_of
from indexer.leave_out import leave_out
from indexer.left_out_groups import groups_of
from indexer.look_alikes import same_among
from indexer.photos import ReferencePhoto, list_references
from indexer.progress import Stages
from indexer.publication import Built, publish_version
from indexer.records import new_records, number_patients
from indexer.references import check_enough, check_listed
from indexer.search_choice import choose_search
from indexer.selection import memory_count, select
from indexer.work import Work
from resad import index, runtime
from resad.backbone import Backbone, load_backbone
from resad.encoder import Encoder, Trunk
from resad.index_writing import writing
from resad.memory_bank import MemoryBank
from resad.preparation import mask_of

_FEW: Final = 4
"""Photographs that a whitening is fitted to for a forecast, whose numbers do not depend on it."""


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
        writing(order.root, order.name) as scratch,
        Work(place / index.WORK, inputs, listed, resume=order.resume, batch=batch) as work,
    ):
        with stages.stage("whiten", 1, "fit") if order.config.resc.whitening is not None else nullcontext():
            encoders = _fitted(order, trunks, work, FITTED)
        with stages.stage("encode", len(listed), "photos") as advance:
            advance(work.done)
            extracting = extract(
                encoders, order.limits, work, advance, strict=order.strict, look_up=without_purged(place)
            )
            with closing(extracting) as extraction:
                points = _foreseen(order, backbone, work, first_few(extraction, len(encoders)), on_forecast)
                deque(extraction, maxlen=0)
        references, store = work.references, work.store
        patients, alike = [one.source.patient for one in references], same_among(references)
        groups = groups_of(patients, alike)
        check_enough(order.photos, groups, work.left_aside)
        patches_in_all = int(store.first_rows[-1])
        wanted = memory_count(order.config.coreset, patches_in_all)
        with stages.stage("coreset", wanted or patches_in_all, "memories") as advance:
            selection = select(
                store, order.config.coreset, order.devices, advance, file=points, checkpoint=work.checkpoint()
            )
        bank = MemoryBank(selection.memories, selection.provenance, gpu=runtime.gpu_number(order.device))
        preparation = order.config.preparation
        first_masks = [mask_of(one.frame, one.field_of_view, preparation) for one in references[:2]]
        bank, search = choose_search(bank, store, first_masks, order.config, order.search, stages)
        with stages.stage("calibrate", len(store), "photos") as advance:
            masks = (mask_of(one.frame, one.field_of_view, preparation) for one in references)
            cameras = [one.source.camera for one in references]
            left_out = leave_out(store, masks, groups, bank, order.config, advance, cameras)
        known = patients if order.keep_names else number_patients(patients)
        records = new_records(references, left_out, known, keep_names=order.keep_names)
        with stages.stage("publish", 1, "version") as advance:
            kept = store if order.keep_features else None
            grid = store.photo(0).grid
            built = Built(
                backbone, encoders[0], bank, selection, left_out, records, grid, search, kept, work.crops
            )
            version, manifest = publish_version(built, scratch / "version", place, order.weights, stages.done)
            advance(1)
    return BuildReport.of(version, manifest, references, work.left_aside, alike)


def forecast_only(order: BuildOrder) -> Forecast:
    """Encode the first few photographs and say what the whole would take; leaves nothing.  Raises as `build`."""
    listed, backbone, trunks = _start(order)
    inputs, batch = _inputs(order, listed, backbone), batch_size(order.devices)
    told: list[Forecast] = []
    with (
        writing(order.root, order.name) as scratch,
        Work(scratch / "work", inputs, listed, resume=False, batch=batch) as work,
    ):
        encoders = _fitted(order, trunks, work, _FEW)
        extracting = extract(
            encoders, order.limits, work, lambda _: None, strict=order.strict,
            look_up=without_purged(order.root / order.name),
        )  # fmt: skip
        with closing(extracting) as extraction:
            _foreseen(order, backbone, work, first_few(extraction, len(encoders)), told.append)
        if not told:
            check_enough(order.photos, (), work.left_aside)
    return told[0]


def _start(order: BuildOrder) -> tuple[tuple[ReferencePhoto, ...], Backbone, list[Trunk]]:
    listed = list_references(order.photos)
    check_listed(order.photos, listed, order.config)
    backbone = load_backbone(order.config.backbone, order.weights)
    return listed, backbone, [Trunk(backbone, order.config, device) for device in order.devices]


def _fitted(order: BuildOrder, trunks: list[Trunk], work: Work, most: int) -> list[Encoder]:
    return fitted_encoders(trunks, order.photos, work.listed, order.limits, work.folder, most, strict=order.strict)


def _inputs(order: BuildOrder, listed: tuple[ReferencePhoto, ...], backbone: Backbone) -> Inputs:
    weights, device = backbone.weights_sha256, order.device.type
    return inputs_of(order.config, order.limits, weights, device, listed, crops=order.keep_crops)


def _foreseen(
    order: BuildOrder, backbone: Backbone, work: Work, sample: Sample, on_forecast: Callable[[Forecast], None]
) -> Path | None:
    """Tell the forecast, refuse what is too much, and say in which file the points lie if they must."""
    if not sample.features and len(work.store):
        sample = Sample(0.0, (work.store.photo(0),))
    if not sample.features:
        return None
    check_count(order.config.coreset, len(work.listed), sample.features[0].grid)
    progressed = Progressed(len(work.listed), len(work.references), len(work.left_aside))
    told = foresee(order.config, backbone, order.devices, work.folder, order.max_memory, sample, progressed)
    on_forecast(told)
    told.check()
    return work.points if told.points_on_disk else None
