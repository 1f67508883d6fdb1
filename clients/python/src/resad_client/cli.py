"""The command line `resad-client`: parse, call, print.

Exit codes: 0 done; 1 a bug; 2 an error that the user or the operator can mend, in one line; 130 interrupted.
"""

import sys
from typing import Annotated

import typer

from resad_client import options, tables
from resad_client.client import Client
from resad_client.errors import ResadClientError
from resad_client.http import DEFAULT_URL
from resad_client.options import ERR, OUT, say, warn
from resad_client.records import INTENDED_USE
from resad_client.report_command import report_command
from resad_client.score_command import score_command
from resad_client.terminal import version_option
from resad_client.text import counted
from resad_client.watch_command import watch_command

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
app.command("score")(score_command)
app.command("report")(report_command)
app.command("watch")(watch_command)


@app.callback()
def about(
    version: Annotated[bool, version_option("resad-client", package="resad-client")] = False,
) -> None:
    """Send fundus photographs to a ReSAD service. Research use only, not for diagnosis."""


@app.command("indexes")
def indexes_command(url: options.Url = DEFAULT_URL, key_file: options.KeyFile = None) -> None:
    """List the indexes of a service."""
    with Client(url, key=options.key_from(key_file), retries=2) as client:
        indexes = client.indexes()
    for index in indexes:
        if index.fault:
            warn(f"{index.name}: {index.fault}")
    OUT.print(tables.index_table(indexes, title=counted(len(indexes), "index", "indexes")))
    for line in tables.warning_lines(indexes):
        say(line)
    OUT.print(INTENDED_USE)


def main() -> None:
    """Entry point of `resad-client`."""
    try:
        app(standalone_mode=True)
    except (ResadClientError, OSError) as error:
        ERR.say(f"resad-client: {options.in_options(str(error))}", style="red")
        sys.exit(2)
