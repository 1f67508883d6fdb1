"""The command line `resad-client`: parse, call, print.

Exit codes: 0 done; 1 a bug; 2 the user's or the service's to mend, with one line that says what; 130 interrupted.
"""

import asyncio
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress

from resad_client import tables
from resad_client.async_client import AsyncClient
from resad_client.batch import Failed, Job, Order, Report, Scored, score_photos
from resad_client.client import Client
from resad_client.errors import PhotoUnusable, ResadClientError, SettingError
from resad_client.exchange import DEFAULT_URL
from resad_client.models import INTENDED_USE
from resad_client.photos import Source, sources, unique_places

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
_RETRIES: Final = 20
_MAX_WAIT_S: Final = 300.0
"""Of one photograph at a busy service: a batch had rather wait than leave photographs out."""
_out = Console()
_err = Console(stderr=True)

Url = Annotated[str, typer.Option(help="Address of the service.")]
KeyFile = Annotated[
    Path | None,
    typer.Option(help="File that holds the API key; without it the variable RESAD_KEY is taken, if it is set."),
]


@app.callback()
def about() -> None:
    """Send fundus photographs to a ReSAD service. Research use only, not for diagnosis."""


@app.command("score")
def score_command(
    photos: Annotated[list[Path], typer.Argument(help="Photographs, or folders of them.")],
    url: Url = DEFAULT_URL,
    index: Annotated[str | None, typer.Option(help="Name of the index (else the service's choice).")] = None,
    fpr: Annotated[
        float | None,
        typer.Option(help="False-positive rate of the verdict, between 0 and 1 (else the service's choice)."),
    ] = None,
    key_file: KeyFile = None,
    overlay: Annotated[
        Path | None, typer.Option(help="Write the photograph under its map here, as PNG (one photograph).")
    ] = None,
    overlays: Annotated[Path | None, typer.Option(help="Folder for a NAME_overlay.png each.")] = None,
    json: Annotated[Path | None, typer.Option(help="Folder for a NAME.json each.")] = None,
    concurrency: Annotated[int, typer.Option(min=1, max=64, help="Photographs sent at a time.")] = 4,
) -> None:
    """Score photographs."""
    if fpr is not None and not 0 < fpr < 1:
        raise SettingError(f"--fpr {fpr:g}: a rate lies between 0 and 1")
    found, missed = _list(photos)
    jobs = _jobs(found, overlay=overlay, overlays=overlays, json=json)
    report = asyncio.run(_score(url, _key(key_file), jobs, Order(index, fpr, concurrency)))
    failed = [*missed, *(one for one in report.outcomes if isinstance(one, Failed))]
    scored = [one for one in report.outcomes if isinstance(one, Scored)]
    _warn_of(scored, failed)
    if scored:
        _out.print(tables.score_table(scored, title=f"{len(scored)} photographs"))
    _out.print(INTENDED_USE)
    if report.stopped:
        raise SettingError(f"stopped after {len(scored)} of {len(jobs)} photographs: {report.stopped}")
    if failed:
        raise SettingError(f"{len(failed)} of {len(failed) + len(scored)} photographs could not be scored")


@app.command("indexes")
def indexes_command(url: Url = DEFAULT_URL, key_file: KeyFile = None) -> None:
    """List the indexes that a service has."""
    with Client(url, key=_key(key_file), retries=2) as client:
        served = client.indexes()
    for index in served:
        if index.fault:
            _warn(f"{index.name}: {index.fault}")
    _out.print(tables.index_table(served, title=f"{len(served)} indexes"))
    _out.print(INTENDED_USE)


def _key(file: Path | None) -> str | None:
    """Never an argument itself: every user of the machine sees those."""
    if file is None:
        return os.environ.get("RESAD_KEY")
    try:
        return file.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise SettingError(f"--key-file {file} cannot be read") from error


def _list(places: Sequence[Path]) -> tuple[list[Source], list[Failed]]:
    found: list[Source] = []
    missed: list[Failed] = []
    for place in places:
        try:
            found += sources(place)
        except PhotoUnusable as error:
            missed.append(Failed(str(error)))
    return found, missed


def _jobs(found: Sequence[Source], *, overlay: Path | None, overlays: Path | None, json: Path | None) -> list[Job]:
    """The photographs with the files to write: below a folder they keep their places in it."""
    if overlay and overlays:
        raise SettingError("--overlay and --overlays: one of them")
    if overlay and len(found) != 1:
        raise SettingError(f"--overlay is for one photograph, there are {len(found)}: use --overlays FOLDER")
    places = unique_places([source.label for source in found])
    return [
        Job(
            source,
            json=json / f"{place}.json" if json else None,
            overlay=overlays / f"{place}_overlay.png" if overlays else overlay,
        )
        for source, place in zip(found, places, strict=True)
    ]


async def _score(url: str, key: str | None, jobs: Sequence[Job], order: Order) -> Report:
    shown = _err.is_terminal
    async with AsyncClient(url, key=key, retries=_RETRIES, max_wait_s=_MAX_WAIT_S) as client:
        with Progress(console=_err, transient=True, disable=not shown) as progress:
            task = progress.add_task("score", total=len(jobs))
            return await score_photos(client, jobs, order, lambda: progress.advance(task))


def _warn_of(scored: Sequence[Scored], failed: Sequence[Failed]) -> None:
    for bad in failed:
        _warn(bad.line)
    for one in scored:
        if not one.result.quality.acceptable:
            _warn(f"{one.label}: the score may not be trusted ({', '.join(one.result.quality.reasons)})")
    for reason in dict.fromkeys(one.result.reason for one in scored):
        if reason:
            _warn(f"no verdict: {reason}")


def main() -> None:
    """Entry point of `resad-client`."""
    try:
        app(standalone_mode=True)
    except (ResadClientError, OSError) as error:
        _err.print(f"resad-client: {escape(str(error))}", style="red", highlight=False, soft_wrap=True)
        sys.exit(2)


def _warn(line: str) -> None:
    _err.print(line, highlight=False, soft_wrap=True, markup=False)
