"""Shared by the commands: output streams, common options, warnings, and loading an index.

Modules that take long to import are imported by the functions that need them, so that help and refusals are quick.
"""

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Annotated, Final

import typer
from resad_client.terminal import SafeConsole

from resad import runtime
from resad.errors import SettingError

if TYPE_CHECKING:
    from indexer.photos.listing import Duplicate, NearDuplicate, Skipped
    from resad.calibration import Calibration
    from resad.loaded_index import LoadedIndex
    from resad.manifest import Manifest

OUT: Final = SafeConsole()
ERR: Final = SafeConsole(stderr=True)

Index = Annotated[Path, typer.Argument(help="ROOT/NAME (its live version) or ROOT/NAME/VERSION.")]
OneIndex = Annotated[Path, typer.Argument(help="ROOT/NAME.")]
Root = Annotated[Path, typer.Option(help="Folder that holds the indexes.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]
AsideNames = Annotated[
    list[str] | None,
    typer.Option(
        "--set-aside",
        help="Leave out this photograph: id (of the version there is), content hash, or the file itself.",
    ),
]
AsideOutliers = Annotated[
    bool, typer.Option("--set-aside-outliers", help="Leave out photographs whose scores lie far above the rest.")
]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask: for scripts, which have no terminal.")]
Live = Annotated[bool, typer.Option("--activate/--no-activate", help="Make the new version the live one.")]
ClusterAddress = Annotated[
    str | None,
    typer.Option(
        "--cluster",
        help="Work on a Ray cluster: auto (the cluster this machine belongs to), HOST:PORT of its head, or local "
        "(for this command alone). Needs the extra cluster.",
    ),
]
WorkerCpus = Annotated[
    int,
    typer.Option("--worker-cpus", min=1, help="CPU cores of each worker of a cluster; with GPUs also one GPU."),
]
MostWorkers = Annotated[
    int | None, typer.Option("--workers", min=1, help="Workers at most; as many as fit unless given.")
]
Scratch = Annotated[
    Path | None,
    typer.Option(help="Folder on each node's own disk for features; the system's temporary folder unless given."),
]


def cluster_commands() -> ModuleType:
    """The Ray add-on, imported by name because nothing may import `cluster`."""
    return import_module("cluster.commands")


def say(line: str) -> None:
    """Print a line of the answer, without markup."""
    OUT.say(line)


def warn(line: str) -> None:
    """Print a line to standard error, without markup."""
    ERR.say(line)


def confirm(question: str, otherwise: str, *, yes: bool) -> None:
    """Ask at a terminal; raises `SettingError` without one, and `typer.Abort` for a no.

    Args:
        otherwise: what does not happen unless the answer is yes.
        yes: it was answered before, by --yes.
    """
    if yes:
        return
    if not sys.stdin.isatty():
        raise SettingError(f"{otherwise}: no terminal to ask at. If it is meant, repeat the command with --yes")
    typer.confirm(question, abort=True, err=True)


def load(index: Path, device: str) -> "LoadedIndex":
    """Load an index and set this process's precision as its settings ask."""
    from resad.loaded_index import load_index

    loaded = load_index(index, runtime.pick_device(device))
    runtime.configure(loaded.manifest.config.precision)
    return loaded


def warn_unused(photos: Path) -> None:
    """Warn of columns and rows of a CSV, and of files of a folder, that are not used."""
    from indexer.photos.listing import unused_rows_and_columns

    for line in unused_rows_and_columns(photos):
        warn(line)
    warn_left_out((photos,))


def warn_left_out(sources: Iterable[Path]) -> None:
    """Say in one line which files of the folders among `sources` are no photographs."""
    from indexer.photos.listing import left_out

    if line := left_out(sources):
        warn(line)


def warn_skipped(skipped: Iterable["Skipped"], duplicates: Iterable["Duplicate"]) -> None:
    """Warn of each photograph that was not used."""
    for photo in skipped:
        warn(f"skipped {photo.path}: {photo.reason}")
    for duplicate in duplicates:
        warn(f"dropped {duplicate.path}: same file as {duplicate.same_as}")


@contextmanager
def naming_skipped() -> Iterator[None]:
    """Warn of each photograph that was not used also if too few are left: the error states only their number."""
    from indexer.build.references import TooFewPhotos

    try:
        yield
    except TooFewPhotos as error:
        warn_skipped(error.skipped, error.duplicates)
        raise


def warn_near_duplicates(pairs: Sequence["NearDuplicate"]) -> None:
    """Warn of each photograph that was used although it shows the same as another one."""
    for pair in pairs:
        how = "is a mirror image of" if pair.mirrored else "shows the same as"
        warn(f"kept {pair.path}, though it {how} {pair.like} ({pair.bits} of 255 bits differ)")
    if pairs:
        warn("photographs that show the same are left out together in the calibration; one of each would do")


def tell_calibration(calibration: "Calibration", named: Mapping[str, Path] | None = None) -> None:
    """Say whether the trunk was trained on the normals and which were set aside, and warn of outliers.

    named: id -> file, where it is known.
    """
    from indexer.calibration.lines import outlier_lines, set_aside_line, trained_on_line

    say(trained_on_line(calibration))
    if line := set_aside_line(calibration, named or {}):
        say(line)
    for line in outlier_lines(calibration, named or {}):
        warn(line)


def warn_stale(manifest: "Manifest") -> None:
    """Warn if p-values of the index may be too low, and say what mends them."""
    from resad.index_warnings import index_warnings

    for warning in index_warnings(manifest):
        if warning.code == "stale":
            warn(f"STALE: {warning.text}")
