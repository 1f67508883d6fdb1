"""The command line `resad-indexer`.

Exit codes: 0 done; 1 a bug; 2 the user's to mend, with one line that says what; 130 interrupted.
"""

import signal
import sys
from importlib import import_module
from types import FrameType, ModuleType
from typing import NoReturn

import typer

from indexer.commands import build, calibrate, console, distill, score, versions
from indexer.photos.remote import check_parts, is_address
from resad.errors import ResadError

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


@app.callback()
def about() -> None:
    """Build and use indexes of healthy fundus photographs. Research use only, not for diagnosis."""


def _lab(command: str) -> ModuleType:
    """The module of a research command: named, because nothing imports `lab`."""
    return import_module(f"lab.commands.{command}")


app.command("build")(build.build_command)
app.command("calibrate")(calibrate.calibrate_command)
app.command("audit")(_lab("audit").audit_command)
app.command("add")(versions.add_command)
app.command("remove")(versions.remove_command)
app.command("merge")(versions.merge_command)
app.command("diff")(versions.diff_command)
app.command("list")(versions.list_command)
app.command("inspect")(versions.inspect_command)
app.command("verify")(versions.verify_command)
app.command("activate")(versions.activate_command)
app.command("rollback")(versions.rollback_command)
app.command("gc")(versions.gc_command)
app.command("export")(versions.export_command)
app.command("import")(versions.import_command)
app.command("score")(score.score_command)
app.command("evaluate")(_lab("evaluate").evaluate_command)
app.command("ablation")(_lab("ablation").ablation_command)
app.add_typer(_lab("datasets").app, name="datasets")
app.command("draw")(_lab("draw").draw_command)
app.command("distill")(distill.distill_command)


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


def main() -> None:
    """Entry point of `resad-indexer`."""
    # A stopped container or job gets the same clean exit as Ctrl-C: nothing half-written stays behind.
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        for argument in filter(is_address, sys.argv[1:]):
            check_parts(argument)  # while it is a text: a path has lost such parts
        app(standalone_mode=True)
    except ResadError as error:
        _fail(str(error))
    except OSError as error:  # disk full, no permission, a read-only volume: the operator's to mend
        _fail(_plain(error))


def _plain(error: OSError) -> str:
    """Which file, and why, as the system says it: without its number."""
    if error.strerror is None:
        return str(error)
    if error.filename is None:
        return error.strerror
    return f"{error.filename} cannot be read or written: {error.strerror}"


def _fail(told: str) -> NoReturn:
    console.ERR.print(f"resad-indexer: {told}", style="red", highlight=False, soft_wrap=True, markup=False)
    sys.exit(2)
