"""The command line `resad-indexer`.

Exit codes: 0 done; 1 a bug; 2 the user's to mend, with one line that says what; 130 interrupted.
"""

import signal
import sys
from types import FrameType
from typing import NoReturn

import typer

from indexer.addresses import check_parts, is_address
from indexer.commands import (
    ablation,
    archive,
    audit,
    build,
    calibrate,
    console,
    datasets,
    distill,
    draw,
    evaluate,
    lifecycle,
    score,
    versions,
)  # fmt: skip
from resad.errors import ResadError

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


@app.callback()
def about() -> None:
    """Build and use indexes of healthy fundus photographs. Research use only, not for diagnosis."""


app.command("build")(build.build_command)
app.command("calibrate")(calibrate.calibrate_command)
app.command("audit")(audit.audit_command)
app.command("add")(lifecycle.add_command)
app.command("remove")(lifecycle.remove_command)
app.command("merge")(lifecycle.merge_command)
app.command("diff")(lifecycle.diff_command)
app.command("list")(versions.list_command)
app.command("inspect")(versions.inspect_command)
app.command("verify")(versions.verify_command)
app.command("activate")(versions.activate_command)
app.command("rollback")(lifecycle.rollback_command)
app.command("gc")(lifecycle.gc_command)
app.command("export")(archive.export_command)
app.command("import")(archive.import_command)
app.command("score")(score.score_command)
app.command("evaluate")(evaluate.evaluate_command)
app.command("ablation")(ablation.ablation_command)
app.add_typer(datasets.app, name="datasets")
app.command("draw")(draw.draw_command)
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
