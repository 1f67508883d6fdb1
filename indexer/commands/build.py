"""`resad-indexer build`."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Protocol

import typer

from indexer import tables
from indexer.build.build import BuildOrder, BuildReport, build, forecast_only
from indexer.build.forecast import Foretold, parse_size
from indexer.build.progress import Stages
from indexer.build.search_choice import SearchChoice
from indexer.commands import console
from indexer.commands.clustering import ClusterAddress, MostWorkers, Scratch, WorkerCpus, over_cluster
from indexer.commands.console import Device, Root
from indexer.settings import method, pick_devices
from resad import index, runtime
from resad.backbone import default_weights
from resad.config import Precision, Preset
from resad.errors import ResadError


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
            help="torchvision ResNet by name, or bundled (inside the package); wide_resnet50_2 unless given."
        ),
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option(
            help="imagenet1k_v1, a .safetensors or .pth file, or random:SEED; "
            "imagenet1k_v1 unless given, and the packaged ones for bundled."
        ),
    ] = None,
    coreset: Annotated[
        str | None, typer.Option(help="0.1 (share), 20000 (count) or radius:0.8; 0.1 unless given.")
    ] = None,
    size: Annotated[int | None, typer.Option(help="Side of the prepared square, px; 784 unless given.")] = None,
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
        typer.Option(help="flat or proved (exact; auto takes the faster), hnsw or ivf (exact image score only)."),
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
    resume: Annotated[bool, typer.Option(help="Go on with what an interrupted build has left.")] = False,
    max_memory: Annotated[
        str | None, typer.Option(help="Memory this build may hold, as in 8G; what is available unless given.")
    ] = None,
    only_forecast: Annotated[
        bool, typer.Option("--forecast-only", help="Say what the build would take, and end.")
    ] = False,
    cluster: ClusterAddress = None,
    worker_cpus: WorkerCpus = 4,
    most_workers: MostWorkers = None,
    scratch: Scratch = None,
) -> None:
    """Build an index from healthy photographs and make it live."""
    config = method(
        preset, backbone=backbone, size=size, coreset=coreset, precision=precision, seed=seed,
        settings=settings or (), leave_out=without or (),
    )  # fmt: skip
    weights = weights or default_weights(config.backbone.name)
    runtime.configure(config.precision)
    if weights.startswith("random:"):
        console.ERR.print(
            f"[bold yellow]The trunk is UNTRAINED ({weights}): the maps will mean next to nothing.[/]"
        )
    first, *more = pick_devices(device if cluster is None or device == "cpu" else "auto")
    order = BuildOrder(
        photos, root, name, config, weights, first, strict, keep_names, keep_crops, more_devices=tuple(more),
        resume=resume, search=search, keep_features=keep_features,
        max_memory=None if max_memory is None else parse_size(max_memory),
    )  # fmt: skip
    console.tell_overlooked(photos)
    if cluster is None:
        report = _run(order, partial(forecast_only, order) if only_forecast else None, build)
    else:
        commands = over_cluster()
        with commands.workers_at(cluster, device, cpus=worker_cpus, most=most_workers, scratch=scratch) as workers:
            size_of_each = f"{workers.count} workers of {worker_cpus} CPU cores"
            console.warn(f"{size_of_each}; forecasts are for each of them, and for the driver")
            foresee = partial(commands.forecast_only_on, workers, order) if only_forecast else None
            report = _run(order, foresee, partial(commands.build_on, workers))
    if report is None:
        return
    console.tell_left_aside(report.skipped, report.duplicates)
    console.tell_look_alikes(report.look_alikes)
    console.OUT.print(tables.build_table(report))


class _Builds(Protocol):
    def __call__(
        self, order: BuildOrder, stages: Stages, on_forecast: Callable[[Foretold], None]
    ) -> BuildReport: ...


def _run(order: BuildOrder, foresee: Callable[[], Foretold] | None, build: _Builds) -> BuildReport | None:
    """The report; None where only the forecast was asked for, which is said."""
    if foresee is None:
        return _build(order, build)
    with console.naming_left_aside():
        told = foresee()
    for line in told.lines():
        console.say(line)
    return None


def _build(order: BuildOrder, build: _Builds) -> BuildReport:
    """Build, and say what becomes of work that is left, from before or by this build."""
    left = order.root / order.name / index.WORK
    before = left.is_dir()
    if before and not order.resume:
        console.warn(f"begins again: what an interrupted build left in {left} goes (--resume would go on with it)")
    if order.resume and not before:
        console.warn(f"nothing to resume in {left.parent}: begins")
    try:
        with console.naming_left_aside():
            return build(order, Stages(console.ERR), _tell)
    except ResadError:
        raise
    except BaseException:
        if left.is_dir():
            console.warn(f"what is done so far stays in {left}: the same command with --resume goes on with it")
        raise


def _tell(forecast: Foretold) -> None:
    for line in forecast.lines():
        console.warn(line)
