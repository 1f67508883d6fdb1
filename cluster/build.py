"""The offline sentence over a cluster: the steps of `indexer.build.build`, with the same names."""

from collections.abc import Callable

from cluster.calibration import leave_out_on
from cluster.crew import Crew
from cluster.features import ClusterFeatures
from cluster.foresight import AFTER, ClusterForecast, foresee_on
from cluster.messages import Made
from cluster.orders import Workers, batch_of, inputs_for, room_of, task_for
from cluster.pieces import cut
from cluster.shards import RemoteShards
from cluster.worker import Worker
from indexer.build.build import BuildOptions, BuildReport
from indexer.build.feature_store import FeatureStore
from indexer.build.progress import Advance, Stages
from indexer.build.publication import VersionContent, publish_version
from indexer.build.references import check_enough, new_records, number_patients, screen_purged
from indexer.build.search_choice import choose_search
from indexer.build.state import BuildState
from indexer.coreset.k_center import Checkpoint
from indexer.coreset.selection import Selection, memory_count, run_greedy, sample_of, selection_of
from indexer.photos.listing import check_listed, list_references
from indexer.photos.near_duplicates import group_photos, near_duplicate_pairs
from resad import index, runtime
from resad.backbone import load_backbone
from resad.config import CoresetConfig
from resad.encoder import Encoder, Trunk
from resad.errors import SettingError
from resad.index import writing
from resad.memory_bank import MemoryBank
from resad.preparation import mask_of


def build_on(
    workers: Workers,
    order: BuildOptions,
    stages: Stages,
    on_forecast: Callable[[ClusterForecast], None] = lambda _: None,
    on_shards: Callable[[RemoteShards], None] = lambda _: None,
) -> BuildReport:
    """As `indexer.build.build.build`, over a cluster: the same version, whatever becomes of the workers.

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
    check_listed(order.photos, listed, order.config)
    backbone = load_backbone(order.config.backbone, order.weights)
    inputs, batch = inputs_for(workers, order, listed, backbone), batch_of(workers)
    place, pieces = order.root / order.name, cut(listed, workers.count, batch)
    with (
        writing(order.root, order.name) as scratch,
        BuildState(place / index.WORK, inputs, listed, resume=order.resume, batch=batch) as work,
    ):
        encoder = Encoder(Trunk(backbone, order.config, order.device))
        with Crew(workers.cluster, Worker, task_for(workers, order, work, inputs, backbone), workers.size,
                  min(workers.count, len(pieces))) as crew:  # fmt: skip
            features = ClusterFeatures(crew, pieces, strict=order.strict, look_up=screen_purged(place))
            with stages.stage("encode", len(listed), "photos") as advance:
                on_disk = _extract(features, order, work, advance, on_forecast)
            features.settle()
            references = work.references = features.references
            work.left_aside = features.left_aside
            patients, alike = [one.source.patient for one in references], near_duplicate_pairs(references)
            groups = group_photos(patients, alike)
            check_enough(order.photos, groups, features.left_aside)
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
            with stages.stage("calibrate", len(references), "photos") as advance:
                cameras = [one.source.camera for one in references]
                left_out = leave_out_on(features, groups, bank, order.config, advance, cameras)
            known = patients if order.keep_names else number_patients(patients)
            records = new_records(references, left_out, known, keep_names=order.keep_names)
        with stages.stage("publish", 1, "version") as advance:
            built = VersionContent(backbone, encoder, bank, selection, left_out, records, features.grid, search)
            version, manifest = publish_version(built, scratch / "version", place, order.weights, stages.done)
            advance(1)
    return BuildReport.of(version, manifest, references, features.left_aside, alike)


def forecast_only_on(workers: Workers, order: BuildOptions) -> ClusterForecast:
    """As `indexer.build.build.forecast_only`: what each worker's share would take, and the driver."""
    listed = list_references(order.photos)
    check_listed(order.photos, listed, order.config)
    backbone = load_backbone(order.config.backbone, order.weights)
    inputs, batch = inputs_for(workers, order, listed, backbone), batch_of(workers)
    few = cut(listed, workers.count, batch)[: AFTER * workers.count]
    with (
        writing(order.root, order.name) as scratch,
        BuildState(scratch / "work", inputs, listed, resume=False, batch=batch) as work,
    ):
        task = task_for(workers, order, work, inputs, backbone)
        with Crew(workers.cluster, Worker, task, workers.size, min(workers.count, len(few))) as crew:
            look_up = screen_purged(order.root / order.name)
            features = ClusterFeatures(crew, few, strict=order.strict, look_up=look_up)
            features.extract(lambda _: None)
            told = foresee_on(crew, len(listed), order.max_memory, room_of(order))
            if told is None:
                features.settle()
                check_enough(order.photos, [], features.left_aside)
    if told is None:
        raise SettingError(f"{order.photos}: none of the first photographs can be used")
    return told


def _extract(
    features: ClusterFeatures,
    order: BuildOptions,
    work: BuildState,
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
            forecast = foresee_on(features.crew, len(work.listed), order.max_memory, room_of(order))
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
