"""The command line `resad-indexer`: a table of commands, each loaded when it is called.

Exit codes: 0 done; 1 a bug; 2 an error that the user can mend, with a line that says what; 130 interrupted.
"""

import signal
import sys
from collections.abc import Mapping
from importlib import import_module
from types import FrameType
from typing import Annotated, Any, Final, NoReturn

import typer
from resad_client.terminal import version_option
from typer.core import TyperCommand, TyperGroup

from resad.errors import ResadError
from resad.runtime import wait_passively

COMMANDS: Final[Mapping[str, tuple[str, str]]] = {
    "build": ("indexer.commands.build:build_command", "Build an index from healthy photographs and make it live."),
    "calibrate": (
        "indexer.commands.calibrate:calibrate_command",
        "Calibrate an index on other normal photographs: p-values, thresholds, scale and quality limits.",
    ),
    "audit": (
        "lab.commands.audit:audit_command",
        "Rank the photographs of an index, least healthy-looking first, to find diseased ones among them.",
    ),
    "add": ("indexer.commands.versions:add_command", "Add healthy photographs to an index, as a new version."),
    "remove": (
        "indexer.commands.remove:remove_command",
        "Remove photographs from an index, with everything made of them, as a new version.",
    ),
    "teach": (
        "indexer.commands.teach:teach_command",
        "Make a version that has learned what readers marked: normal variants, artifacts, known lesions.",
    ),
    "marks": ("indexer.commands.marks:app", "List, export, import and take back readers' marks."),
    "examples": ("lab.commands.examples:app", "Take labeled photographs as examples of known lesions."),
    "merge": (
        "indexer.commands.versions:merge_command",
        "Merge two indexes with the same settings and weights into a new one.",
    ),
    "diff": (
        "indexer.commands.versions:diff_command",
        "Compare two versions or two indexes: photographs, memories, coverage, scores of the references.",
    ),
    "list": ("indexer.commands.versions:list_command", "List the indexes and their versions."),
    "inspect": (
        "indexer.commands.versions:inspect_command",
        "Show settings, counts and calibration of an index, or which number is whose.",
    ),
    "verify": (
        "indexer.commands.versions:verify_command",
        "Check an index: hashes, fingerprint, and the probe photograph's score.",
    ),
    "activate": ("indexer.commands.versions:activate_command", "Verify a version, then make it the live one."),
    "rollback": (
        "indexer.commands.versions:rollback_command",
        "Verify an earlier version and make it the live one again; the later one stays.",
    ),
    "gc": (
        "indexer.commands.versions:gc_command",
        "Delete old versions, never the live one, and what killed processes have left.",
    ),
    "export": (
        "indexer.commands.versions:export_command",
        "Write a version to one file, with the hashes of all it holds.",
    ),
    "import": (
        "indexer.commands.versions:import_command",
        "Put an exported version into place below a root, its hashes checked.",
    ),
    "score": ("indexer.commands.score:score_command", "Score photographs against an index."),
    "evaluate": (
        "lab.commands.evaluate:evaluate_command",
        "Measure an index on labeled photographs, painted lesions or readers' marks, with 95 % intervals.",
    ),
    "ablation": (
        "lab.commands.ablation:ablation_command",
        "Repeat the paper's table 3 and figure 2: parts of ReSC left out, and fewer normals.",
    ),
    "datasets": (
        "lab.commands.datasets:app",
        "List the data sets that are known by name, or export the split of one as CSV.",
    ),
    "draw": (
        "lab.commands.draw:draw_command",
        "Draw believable fundus photographs, for trying things out and for tests.",
    ),
    "train": (
        "lab.commands.train:train_command",
        "Train the bundled trunk on your healthy photographs, with lesions painted into them.",
    ),
}
"""Command -> "module:attribute" that implements it, and its line of help.

The research commands (`lab`) are named and never imported from here: nothing imports `lab`.
"""


class _Commands(TyperGroup):
    """Lists the commands of the table without importing them; imports the command that is called."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        for name, (_, help_line) in COMMANDS.items():
            self.add_command(TyperCommand(name, help=help_line))

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        """The command that was typed, loaded, and the rest of the arguments; a usage error for an unknown one."""
        name, _, rest = super().resolve_command(ctx, args)
        return name, None if name is None else load_command(name), rest


def load_command(name: str) -> Any:
    """Import a command of the table."""
    module, _, attribute = COMMANDS[name][0].partition(":")
    target = getattr(import_module(module), attribute)
    if not isinstance(target, typer.Typer):
        single = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
        single.command(name)(target)
        target = single
    command = typer.main.get_command(target)
    command.name = name
    return command


app = typer.Typer(cls=_Commands, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


@app.callback()
def about(
    version: Annotated[bool, version_option("resad-indexer", package="resad")] = False,
) -> None:
    """Build and use indexes of healthy fundus photographs. Research use only, not for diagnosis."""


def main() -> None:
    """Entry point of `resad-indexer`."""
    wait_passively()  # before anything loads torch or FAISS, which read it once
    # A stopped container or job exits as cleanly as after Ctrl-C: nothing half-written stays behind.
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        _check_addresses(sys.argv[1:])
        app(standalone_mode=True)
    except ResadError as error:
        _fail(str(error))
    except OSError as error:  # disk full, no permission, a read-only volume: the operator can mend it
        _fail(_describe(error))


def _check_addresses(arguments: list[str]) -> None:
    """Refuse secrets and parts that a `Path` would lose in addresses while they are text."""
    values = [argument.partition("=")[2] if argument.startswith("--") else argument for argument in arguments]
    addresses = [value for value in values if "://" in value]
    if addresses:
        from indexer.photos.remote import check_parts, is_address, refuse_secrets

        for address in filter(is_address, addresses):
            refuse_secrets(address)
            check_parts(address)


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


def _describe(error: OSError) -> str:
    """The file and the system's reason, without the error number."""
    if error.strerror is None:
        return str(error)
    if error.filename is None:
        return error.strerror
    return f"{error.filename} cannot be read or written: {error.strerror}"


def _fail(message: str) -> NoReturn:
    from indexer.commands import console

    console.ERR.say(f"resad-indexer: {message}", style="red")
    sys.exit(2)
