"""The command line `resad-indexer`: parse, call, print.

Exit codes: 0 done; 1 a bug; 2 the user's to mend, with one line that says what; 130 interrupted.
"""

import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Annotated, NoReturn

import typer
from rich.console import Console

from indexer import tables
from indexer.build import BuildOrder, build
from indexer.datasets.mvtec import read_mvtec
from indexer.distill import DistillOrder, distill
from indexer.distillation.training import TrainingConfig
from indexer.evaluate import figures, figures_json, measure_dataset
from indexer.options import method
from indexer.progress import Stages
from indexer.scoring import Failed, score_photos, write_whole
from indexer.synthetic import write_dataset
from resad import index as index_store
from resad import runtime
from resad.backbone import default_weights
from resad.config import PhotoLimits, Precision, Preset
from resad.errors import IndexInvalid, ResadError, SettingError
from resad.loaded_index import LoadedIndex, check_probe, load_index
from resad.manifest import read_manifest
from resad.result import INTENDED_USE

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
_out = Console()
_err = Console(stderr=True)

Index = Annotated[Path, typer.Argument(help="ROOT/NAME (its live version) or ROOT/NAME/VERSION.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]
Rate = Annotated[float, typer.Option(help="False-positive rate of the verdict, between 0 and 1.")]
Root = Annotated[Path, typer.Option(help="Folder that holds the indexes.")]


@app.callback()
def about() -> None:
    """Build and use indexes of healthy fundus photographs. Research use only, not for diagnosis."""


@app.command("build")
def build_command(
    photos: Annotated[
        Path, typer.Argument(help="Folder of healthy photographs, or CSV (path,patient,eye,camera).")
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
    keep_names: Annotated[bool, typer.Option(help="Store file names in the index.")] = False,
) -> None:
    """Build an index from healthy photographs and make it live."""
    config = method(
        preset, backbone=backbone, size=size, coreset=coreset, precision=precision, seed=seed,
        settings=settings or (), leave_out=without or (),
    )  # fmt: skip
    weights = weights or default_weights(config.backbone.name)
    runtime.configure(config.precision)
    if weights.startswith("random:"):
        _err.print(f"[bold yellow]The trunk is UNTRAINED ({weights}): the maps will mean next to nothing.[/]")
    order = BuildOrder(photos, root, name, config, weights, runtime.pick_device(device), strict, keep_names)
    report = build(order, Stages(_err))
    for skipped in report.skipped:
        _warn(f"skipped {skipped.path}: {skipped.reason}")
    for double in report.duplicates:
        _warn(f"dropped {double.path}: same file as {double.same_as}")
    _out.print(tables.build_table(report))


@app.command("list")
def list_command(root: Root) -> None:
    """List the indexes and their versions."""
    if not root.is_dir():
        raise SettingError(f"{root} is no folder")
    for folder in sorted(path for path in root.iterdir() if index_store.versions(path)):
        live = index_store.live_version(folder)
        for version in index_store.versions(folder):
            mark = "live" if version == live else "    "
            _say(f"{folder.name} {version} {mark} {_contents(folder / version)}")


@app.command("inspect")
def inspect_command(index: Index) -> None:
    """Show what an index says of itself."""
    version = index_store.resolve(index)
    live = index_store.live_version(version.parent) == version.name
    manifest = read_manifest(version / index_store.MANIFEST)
    _out.print(tables.index_table(version, manifest, live=live))


@app.command("verify")
def verify_command(index: Index, device: Device = "auto") -> None:
    """Check an index: hashes, fingerprint, and the probe photograph's score."""
    loaded = _load(index, device)
    deviation = check_probe(loaded, index)
    manifest = loaded.manifest
    checked = f"{len(manifest.files)} files as written, fingerprint fits, probe scores as built"
    _say(f"{manifest.name} {manifest.version}: {checked} (relative deviation {deviation:.1e})")


@app.command("activate")
def activate_command(
    index: Annotated[Path, typer.Argument(help="ROOT/NAME.")],
    version: Annotated[str, typer.Argument(help="One of `resad-indexer list`.")],
    device: Device = "auto",
) -> None:
    """Verify a version, then make it the live one."""
    if version not in index_store.versions(index):
        index_store.activate(index, version)  # refuses, naming the versions there are
    check_probe(_load(index / version, device), index / version)
    index_store.activate(index, version)
    _say(f"{index.name}: {version} is live")


@app.command("score")
def score_command(
    index: Index,
    photos: Annotated[list[Path], typer.Argument(help="Photographs, folders or CSVs.")],
    out: Annotated[Path, typer.Option(help="Folder for NAME.json, NAME_map.png and NAME_overlay.png.")],
    fpr: Rate = 0.05,
    evidence: Annotated[int, typer.Option(min=0, max=50, help="Healthy patches listed per finding.")] = 3,
    device: Device = "auto",
) -> None:
    """Score photographs against an index."""
    _check_rate(fpr)
    loaded = _load(index, device)
    scored, failed = [], []
    for outcome in score_photos(loaded, photos, out, PhotoLimits(), fpr=fpr, evidence=evidence):
        if isinstance(outcome, Failed):
            failed.append(outcome)
            _warn(f"{outcome.path}: {outcome.reason}")
        else:
            scored.append(outcome)
    _out.print(tables.score_table(scored, title=f"{len(scored)} photographs, files in {out}"))
    _out.print(INTENDED_USE)
    if failed:
        raise SettingError(f"{len(failed)} of {len(failed) + len(scored)} photographs could not be scored")


@app.command("evaluate")
def evaluate_command(
    index: Index,
    data: Annotated[Path, typer.Option(help="Folder of the data set.")],
    dataset: Annotated[str, typer.Option(help="Layout of the data set: mvtec.")] = "mvtec",
    json: Annotated[Path | None, typer.Option(help="Write the figures here as JSON.")] = None,
    device: Device = "auto",
) -> None:
    """Measure an index on labeled photographs, with 95 % intervals over photographs."""
    if dataset != "mvtec":
        raise SettingError(f"data set layout {dataset!r} is not known; there is: mvtec")
    labeled = read_mvtec(data)
    if json is not None and not json.parent.is_dir():
        raise SettingError(f"--json {json}: {json.parent} is no folder")
    loaded = _load(index, device)
    with Stages(_err).stage("score", len(labeled.test), "photos") as advance:
        measured = measure_dataset(loaded, labeled, PhotoLimits(), advance)
    result = figures(measured, loaded, labeled)
    if result.photos.in_the_index:
        _err.print(f"[yellow]{result.photos.in_the_index} test photographs are in the index: "
                   "the figures flatter.[/]")  # fmt: skip
    _out.print(tables.figures_table(result))
    for reason in result.missing:
        _warn(reason)
    if json is not None:
        write_whole(json, figures_json(result).encode() + b"\n")


@app.command("draw")
def draw_command(
    folder: Annotated[Path, typer.Argument(help="Empty or new folder; gets the MVTec layout.")],
    train: Annotated[int, typer.Option(min=0, help="Healthy photographs to build from.")] = 40,
    good: Annotated[int, typer.Option(min=0, help="Healthy test photographs.")] = 6,
    diseased: Annotated[int, typer.Option(min=0, help="Test photographs with lesions and masks.")] = 6,
    height: Annotated[int, typer.Option(help="Height, px; the width is 3/2 of it.")] = 512,
    seed: Annotated[int, typer.Option(min=0, help="The same seed draws the same photographs.")] = 0,
) -> None:
    """Draw believable fundus photographs, for trying things out and for tests."""
    write_dataset(folder, seed, train=train, good=good, diseased=diseased, height=height)
    _say(f"{train} + {good} healthy and {diseased} diseased photographs drawn into {folder}")


def _contents(version: Path) -> str:
    try:
        counts = read_manifest(version / index_store.MANIFEST).counts
    except IndexInvalid as error:
        return f"cannot be read: {error}"
    return f"{counts.photos} photos, {counts.memories} memories"


@app.command("distill")
def distill_command(
    photos: Annotated[Path, typer.Option(help="Folder of healthy photographs, or CSV (path,...).")],
    out: Annotated[
        Path, typer.Option(help="FILE.safetensors for --weights; loss curve and evaluation are written beside it.")
    ],
    teacher: Annotated[str, typer.Option(help="torchvision ResNet by name.")] = "wide_resnet50_2",
    teacher_weights: Annotated[str | None, typer.Option(help="Of the teacher, as --weights of build.")] = None,
    steps: Annotated[int, typer.Option(help="Training steps in all.")] = 4000,
    batch: Annotated[int, typer.Option(help="Crops a step.")] = 8,
    size: Annotated[int, typer.Option(help="Side of the squares that crops are taken from, px.")] = 512,
    drawn: Annotated[int, typer.Option(help="Photographs drawn beside the given ones.")] = 160,
    seed: Annotated[int, typer.Option(help="Of everything that is drawn at random.")] = 0,
    resume: Annotated[bool, typer.Option(help="Go on from the checkpoint that a stopped run has left.")] = False,
    device: Device = "auto",
) -> None:
    """Train a trunk like the packaged one from your photographs and any teacher."""
    training = TrainingConfig(steps, seed, batch)
    weights = teacher_weights or default_weights(teacher)
    chosen = runtime.pick_device(device)
    runtime.configure("exact")
    order = DistillOrder(photos, teacher, weights, out, training, chosen, size=size, drawn=drawn, resume=resume)
    report = distill(order, Stages(_err))
    for skipped in report.pool.skipped:
        _warn(f"skipped {skipped.path}: {skipped.reason}")
    _out.print(tables.agreement_table(report))
    _say(f"use it: resad-indexer build --backbone bundled --weights {out}")


def _load(index: Path, device: str) -> LoadedIndex:
    loaded = load_index(index, runtime.pick_device(device))
    runtime.configure(loaded.manifest.config.precision)
    return loaded


def _check_rate(fpr: float) -> None:
    if not 0 < fpr < 1:
        raise SettingError(f"--fpr {fpr:g}: a rate lies between 0 and 1")


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


def main() -> None:
    """Entry point of `resad-indexer`."""
    # A stopped container or job gets the same clean exit as Ctrl-C: nothing half-written stays behind.
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        app(standalone_mode=True)
    except ResadError as error:
        _fail(error)
    except OSError as error:  # disk full, no permission, a read-only volume: the operator's to mend
        _fail(error)


def _say(line: str) -> None:
    _out.print(line, highlight=False, soft_wrap=True, markup=False)


def _warn(line: str) -> None:
    _err.print(line, highlight=False, soft_wrap=True, markup=False)


def _fail(error: Exception) -> NoReturn:
    _err.print(f"resad-indexer: {error}", style="red", highlight=False, soft_wrap=True, markup=False)
    sys.exit(2)
