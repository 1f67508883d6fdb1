"""The command line `resad-client`: parse, call, print.

Exit codes: 0 done; 1 a bug; 2 the user's or the service's to mend, with one line that says what; 130 interrupted.
"""

import sys

import typer
from rich.markup import escape

from resad_client import options, tables
from resad_client.client import Client
from resad_client.errors import ResadClientError
from resad_client.exchange import DEFAULT_URL
from resad_client.models import INTENDED_USE
from resad_client.options import ERR, OUT, warn
from resad_client.score_command import score_command
from resad_client.watch_command import watch_command

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
app.command("score")(score_command)
app.command("watch")(watch_command)


@app.callback()
def about() -> None:
    """Send fundus photographs to a ReSAD service. Research use only, not for diagnosis."""


@app.command("indexes")
def indexes_command(url: options.Url = DEFAULT_URL, key_file: options.KeyFile = None) -> None:
    """List the indexes that a service has."""
    with Client(url, key=options.key_from(key_file), retries=2) as client:
        served = client.indexes()
    for index in served:
        if index.fault:
            warn(f"{index.name}: {index.fault}")
    OUT.print(tables.index_table(served, title=f"{len(served)} indexes"))
    OUT.print(INTENDED_USE)


def main() -> None:
    """Entry point of `resad-client`."""
    try:
        app(standalone_mode=True)
    except (ResadClientError, OSError) as error:
        told = escape(options.in_options(str(error)))
        ERR.print(f"resad-client: {told}", style="red", highlight=False, soft_wrap=True)
        sys.exit(2)
