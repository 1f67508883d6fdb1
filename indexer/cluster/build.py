"""The offline sentence over a cluster: the steps of `indexer.build`, with the same names."""

import secrets
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from indexer import points
from indexer.build import FITTED, BuildOrder, BuildReport, without_purged
from indexer.checkpoint import Checkpoint
from indexer.cluster.calibration import leave_out_on
from indexer.cluster.connection import Cluster, WorkerSize
from indexer.cluster.crew import Crew
from indexer.cluster.features import ClusterFeatures
from indexer.cluster.foresight import AFTER, ClusterForecast, foresee_on
from indexer.cluster.messages import Made, Task
from indexer.cluster.pieces import cut
from indexer.cluster.shards import RemoteShards
from indexer.cluster.worker import Worker
from indexer.extraction import batch_size
from indexer.feature_store import FeatureStore
from indexer.fitting import fitted_encoders
from indexer.forecast import Room
from indexer.journal import Inputs, inputs_of
from indexer.photos import ReferencePhoto, list_references
from indexer.progress import Advance, Stages
from indexer.publication import Built, publish_version
from indexer.records import new_records, number_patients
from indexer.references import check_enough
from indexer.room import room
from indexer.scoring import write_whole
from indexer.search_choice import choose_search
from indexer.selection import Selection, memory_count, run_greedy, sample_of, selection_of
from indexer.work import Work
from resad import index, runtime
from resad.backbone import Backbone, load_backbone, save_backbone
from resad.config import CoresetConfig
from resad.encoder import Encoder, Trunk
from resad.errors import SettingError
from resad.loaded_index import BACKBONE_FILE
from resad.memory_bank import MemoryBank
from resad.preparation import mask_of

_RUN = "cluster-run"
"""The file in the work folder that names the workers' folders."""


@dataclass(frozen=True, slots=True)
class Workers:
    """What works on a build.  most: of them; as many as fit unless given.

    scratch: a folder on each machine's own disk; the system's temporary one unless given.
    """

    cluster: Cluster
    size: WorkerSize
    most: int | None = None
    scratch: Path | None = None

    @property
    def count(self) -> int:
        """Of all of them."""
        fitting = self.cluster.workers(self.size)
        return fitting if self.most is None else min(fitting, self.most)

    @property
    def kind(self) -> str:
        """Of the device that they compute on."""
        return "cuda" if self.size.gpus else "cpu"


def build_on(
    workers: Workers,
    order: BuildOrder,
    stages: Stages,
    on_forecast: Callable[[ClusterForecast], None] = lambda _: None,
    on_shards: Callable[[RemoteShards], None] = lambda _: None,
) -> BuildReport:
    """As `indexer.build.build`, over a cluster: the same version, whatever becomes of the workers.

    Args:
        on_forecast: told what each worker's share will take, and the driver.
        on_shards: given the greedy's shards before it begins, to be watched.
    Raises:
        SettingError: also where no worker begins, too many are lost, or machines do not compute alike.
    """
    if order.keep_features or order.keep_crops:
        raise SettingError(
            f"--keep-{'features' if order.keep_features else 'crops'}: over a cluster features and pictures stay "
            "on the workers' disks and go with them"
        )
    listed = list_references(order.photos)
    backbone = load_backbone(order.config.backbone, order.weights)
    inputs, batch = _inputs(workers, order, listed, backbone), _batch(workers)
    place, pieces = order.root / order.name, cut(listed, workers.count, batch)
    with (
        index.writing(order.root, order.name) as scratch,
        Work(place / index.WORK, inputs, listed, resume=order.resume, batch=batch) as work,
    ):
        with stages.stage("whiten", 1, "fit") if order.config.resc.whitening is not None else nullcontext():
            encoder = _encoder(order, backbone, work)
        with Crew(workers.cluster, Worker, _task(workers, order, work, inputs, backbone, encoder), workers.size,
                  min(workers.count, len(pieces))) as crew:  # fmt: skip
            features = ClusterFeatures(crew, pieces, strict=order.strict, look_up=without_purged(place))
            with stages.stage("encode", len(listed), "photos") as advance:
                on_disk = _extract(features, order, work, advance, on_forecast)
            features.settle()
            references = work.references = features.references
            work.left_aside = features.left_aside
            check_enough(order.photos, references, features.left_aside)
            patches_in_all = int(features.first_rows[-1])
            wanted = memory_count(order.config.coreset, patches_in_all)
            with stages.stage("coreset", wanted or patches_in_all, "memories") as advance:
                selection = _select(
                    features,
                    order.config.coreset,
                    advance,
                    on_shards,
                    on_disk=on_disk,
                    checkpoint=work.checkpoint(),
                )
            bank = MemoryBank(selection.memories, selection.provenance, gpu=runtime.gpu_number(order.device))
            preparation = order.config.preparation
            first_masks = [mask_of(one.frame, one.field_of_view, preparation) for one in references[:2]]
            first_two = FeatureStore(scratch / "first-two")
            for patches in features.first_few(2):
                first_two.append(patches)
            bank, search = choose_search(bank, first_two, first_masks, order.config, order.search, stages)
            patients = [reference.source.patient for reference in references]
            with stages.stage("calibrate", len(references), "photos") as advance:
                cameras = [one.source.camera for one in references]
                left_out = leave_out_on(features, patients, bank, order.config, advance, cameras)
            known = patients if order.keep_names else number_patients(patients)
            records = new_records(references, left_out, known, keep_names=order.keep_names)
        with stages.stage("publish", 1, "version") as advance:
            built = Built(backbone, encoder, bank, selection, left_out, records, features.grid, search)
            version, manifest = publish_version(built, scratch / "version", place, order.weights, stages.done)
            advance(1)
    return BuildReport.of(version, manifest, references, features.left_aside)


def forecast_only_on(workers: Workers, order: BuildOrder) -> ClusterForecast:
    """As `indexer.build.forecast_only`: what each worker's share would take, and the driver."""
    listed = list_references(order.photos)
    backbone = load_backbone(order.config.backbone, order.weights)
    inputs, batch = _inputs(workers, order, listed, backbone), _batch(workers)
    few = cut(listed, workers.count, batch)[: AFTER * workers.count]
    with (
        index.writing(order.root, order.name) as scratch,
        Work(scratch / "work", inputs, listed, resume=False, batch=batch) as work,
    ):
        task = _task(workers, order, work, inputs, backbone, _encoder(order, backbone, work))
        with Crew(workers.cluster, Worker, task, workers.size, min(workers.count, len(few))) as crew:
            look_up = without_purged(order.root / order.name)
            features = ClusterFeatures(crew, few, strict=order.strict, look_up=look_up)
            features.extract(lambda _: None)
            told = foresee_on(crew, len(listed), order.max_memory, _room(order))
            if told is None:
                features.settle()
                check_enough(order.photos, [], features.left_aside)
    if told is None:
        raise SettingError(f"{order.photos}: none of the first photographs can be used")
    return told


def _extract(
    features: ClusterFeatures,
    order: BuildOrder,
    work: Work,
    advance: Advance,
    on_forecast: Callable[[ClusterForecast], None],
) -> bool:
    """Have all features made, telling the forecast on the way; whether the greedy's points stay on disk."""
    told: list[ClusterForecast] = []
    made_so_far = 0
    soon = min(AFTER * features.crew.count, len(features.pieces))

    def on_made(made: Made) -> None:
        nonlocal made_so_far
        made_so_far += 1
        work.references.extend(made.references)  # from here on there is something to go on with
        if not told and made_so_far >= soon:
            forecast = foresee_on(features.crew, len(work.listed), order.max_memory, _room(order))
            if forecast is not None:
                told.append(forecast)
                on_forecast(forecast)
                forecast.check()

    features.extract(advance, on_made)
    return bool(told and told[0].points_on_disk)


def _select(
    features: ClusterFeatures,
    config: CoresetConfig,
    advance: Advance,
    on_shards: Callable[[RemoteShards], None],
    *,
    on_disk: bool,
    checkpoint: Checkpoint,
) -> Selection:
    patches = int(features.first_rows[-1])
    sample = sample_of(config, patches)
    shards = RemoteShards(features, config, sample, on_disk=on_disk)
    on_shards(shards)
    coreset = run_greedy(shards, config, patches, advance, checkpoint)
    shards.let_go()
    return selection_of(coreset, sample, features, config)


def _room(order: BuildOrder) -> Room:
    """Of this process, which computes next to nothing."""
    return room(order.root, torch.device("cpu"), order.max_memory)


def _inputs(workers: Workers, order: BuildOrder, listed: Sequence[ReferencePhoto], backbone: Backbone) -> Inputs:
    return inputs_of(order.config, order.limits, backbone.weights_sha256, workers.kind, listed, crops=False)


def _batch(workers: Workers) -> int:
    return batch_size([torch.device(workers.kind)])


def _encoder(order: BuildOrder, backbone: Backbone, work: Work) -> Encoder:
    trunk = Trunk(backbone, order.config, order.device)
    (encoder,) = fitted_encoders(
        [trunk], order.photos, work.listed, order.limits, work.folder, FITTED, strict=order.strict
    )
    return encoder


def _task(
    workers: Workers, order: BuildOrder, work: Work, inputs: Inputs, backbone: Backbone, encoder: Encoder
) -> Task:
    place = (order.root / order.name).absolute()
    file = work.folder / _RUN
    if not file.is_file():
        write_whole(file, secrets.token_hex(4).encode())
    with TemporaryDirectory() as folder:
        save_backbone(backbone, Path(folder) / BACKBONE_FILE)
        weights = (Path(folder) / BACKBONE_FILE).read_bytes()
    return Task(
        inputs=inputs,
        backbone=weights,
        whitening=encoder.whitening.to_bytes() if encoder.whitening else None,
        index=sha256(str(place).encode()).hexdigest()[:12],
        run=file.read_text(),
        scratch=workers.scratch,
        threads=workers.size.cpus,
        block_rows=points.BLOCK_ROWS,
    )
