"""`resad-indexer build`."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from resad_client.text import counted

from indexer.commands import console
from indexer.commands.checks import check_device, check_place, check_trunk
from indexer.commands.console import (
    AsideNames,
    AsideOutliers,
    ClusterAddress,
    Device,
    MostWorkers,
    Root,
    Scratch,
    WorkerCpus,
)
from indexer.photos.listing import check_listed, list_references
from indexer.photos.remote import starts_like_address
from indexer.settings import SearchChoice, method_config, parse_size, pick_devices
from resad import runtime
from resad.config import MethodConfig, Precision, Preset
from resad.errors import ResadError

if TYPE_CHECKING:
    from indexer.build.build import BuildOptions, BuildReport, BuildWorkers
    from indexer.build.forecast import AnyForecast


def build_command(
    photos: Annotated[
        Path, typer.Argument(help="Folder of healthy photographs, or CSV (path,patient,eye,camera,split).")
    ],
    root: Root,
    name: Annotated[str, typer.Option(help="Name of the index.")],
    preset: Annotated[Preset, typer.Option(help="Settings to start from.")] = "resad",
    backbone: Annotated[
        str | None,
        typer.Option(
            help="bundled (inside the package), or a ResNet of torchvision by name, as in wide_resnet50_2; "
            "bundled unless given, and wide_resnet50_2 for the presets paper and patchcore."
        ),
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option(
            help="imagenet1k_v1, a .safetensors or .pth file (also of `train`), or random:SEED; the packaged ones "
            "for bundled unless given, and imagenet1k_v1 for a ResNet."
        ),
    ] = None,
    coreset: Annotated[
        str | None, typer.Option(help="0.01 (share), 20000 (count) or radius:0.8; the preset's unless given.")
    ] = None,
    size: Annotated[
        int | None, typer.Option(help="Side of the prepared square, px; the preset's unless given.")
    ] = None,
    device: Device = "auto",
    precision: Annotated[Precision | None, typer.Option(help="exact or half; exact unless given.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of the projection and the first pick; 0 unless given.")] = None,
    without: Annotated[
        list[str] | None, typer.Option(help="Leave out a part of ReSC, as an ablation: region, spatial or resc.")
    ] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="Any setting: SECTION.FIELD=VALUE, as in search.neighbors=1.")
    ] = None,
    strict: Annotated[bool, typer.Option(help="Refuse instead of skipping unusable photographs.")] = False,
    search: Annotated[
        SearchChoice,
        typer.Option(help="flat or proved (exact; auto takes the faster), ivf (exact image score only)."),
    ] = "auto",
    keep_names: Annotated[bool, typer.Option(help="Store file names in the index.")] = False,
    keep_features: Annotated[
        bool,
        typer.Option(
            "--keep-features",
            help="Store all patch features (4 bytes a value), so that add and remove lose nothing.",
        ),
    ] = False,
    keep_crops: Annotated[
        bool,
        typer.Option(
            "--keep-crops",
            help="Store a picture of every reference photograph, for crops beside findings. PATIENT DATA: whoever "
            "has the index can see them.",
        ),
    ] = False,
    set_aside: AsideNames = None,
    set_aside_outliers: AsideOutliers = False,
    resume: Annotated[bool, typer.Option(help="Continue an interrupted build.")] = False,
    max_memory: Annotated[
        str | None, typer.Option(help="Memory this build may hold, as in 8G; what is available unless given.")
    ] = None,
    only_forecast: Annotated[
        bool, typer.Option("--forecast-only", help="Print what the build would take, and stop.")
    ] = False,
    cluster: ClusterAddress = None,
    worker_cpus: WorkerCpus = 4,
    most_workers: MostWorkers = None,
    scratch: Scratch = None,
) -> None:
    """Build an index from healthy photographs and make it live."""
    check_place(root, name)
    check_device(device)
    check_trunk(backbone, weights)
    config = method_config(
        preset, backbone=backbone, size=size, coreset=coreset, precision=precision, seed=seed,
        settings=settings or (), leave_out=without or (),
    )  # fmt: skip
    memory_limit = None if max_memory is None else parse_size(max_memory)
    _check_photos(photos, config)
    console.warn_unused(photos)

    from indexer import tables
    from indexer.build.build import BuildOptions
    from resad.backbone import default_weights

    weights = weights or default_weights(config.backbone.name)
    runtime.configure(config.precision)
    if weights.startswith("random:"):
        console.ERR.print(
            f"[bold yellow]The trunk is UNTRAINED ({weights}): the maps will mean next to nothing.[/]"
        )
    first, *more = pick_devices(device if cluster is None or device == "cpu" else "auto")
    options = BuildOptions(
        photos, root, name, config, weights, first, strict, keep_names, keep_crops, more_devices=tuple(more),
        resume=resume, search=search, keep_features=keep_features, max_memory=memory_limit,
        set_aside=_hashes(set_aside or (), root / name), set_aside_outliers=set_aside_outliers,
    )  # fmt: skip
    if cluster is None:
        report = _run(options, None, only_forecast=only_forecast)
    else:
        ray = console.cluster_commands()
        with ray.workers_at(cluster, device, cpus=worker_cpus, limit=most_workers, scratch=scratch) as pool:
            console.warn(
                f"{counted(pool.count, 'worker')} of {counted(worker_cpus, 'CPU core')}; forecasts are for each "
                "of them, and the driver"
            )
            report = _run(options, ray.ClusterWorkers(pool), only_forecast=only_forecast)
    if report is None:
        return
    console.warn_skipped(report.skipped, report.duplicates)
    console.warn_near_duplicates(report.near_duplicates)
    console.OUT.print(tables.build_table(report))
    console.tell_calibration(report.manifest.calibration, report.named)


def _hashes(names: Sequence[str], place: Path) -> frozenset[str]:
    """Content hashes of photographs to set aside; ids are those of the live version of ROOT/NAME."""
    from indexer.photos.naming import named_hashes
    from resad import index
    from resad.manifest import PHOTOS_FILE, read_records

    live = index.live_version(place)
    version = None if live is None else place / live
    records = () if version is None or not names else read_records(version / PHOTOS_FILE)
    return named_hashes("--set-aside", names, records, version)


def _check_photos(photos: Path, config: MethodConfig) -> None:
    """Refuse a list that cannot become an index before anything slow is loaded; addresses are listed later."""
    if not starts_like_address(str(photos)):
        check_listed(photos, list_references(photos), config)


def _run(options: "BuildOptions", workers: "BuildWorkers | None", *, only_forecast: bool) -> "BuildReport | None":
    """The report; None after a forecast alone, which is printed."""
    if not only_forecast:
        return _build(options, workers)
    from indexer.build.build import forecast_only

    with console.naming_skipped():
        lines = forecast_only(options, workers).lines()
    for line in lines:
        console.say(line)
    return None


def _build(options: "BuildOptions", workers: "BuildWorkers | None") -> "BuildReport":
    """Build, and say what happens to the unfinished state of an earlier build and of this one."""
    from indexer.build.build import build
    from indexer.build.progress import Stages
    from resad import index

    state = options.root / options.name / index.WORK
    unfinished = state.is_dir()
    if unfinished and not options.resume:
        console.warn(f"Starting over; discarding the unfinished build in {state} (use --resume to continue it).")
    if options.resume and not unfinished:
        console.warn(f"Nothing to resume in {state.parent}: starting.")
    try:
        with console.naming_skipped():
            return build(options, Stages(console.ERR), _print_forecast, workers)
    except ResadError:
        raise
    except BaseException:
        if state.is_dir():
            console.warn(f"The unfinished build stays in {state}: the same command with --resume continues it.")
        raise


def _print_forecast(forecast: "AnyForecast") -> None:
    for line in forecast.lines():
        console.warn(line)
