"""The command line `resad-service`.

Exit codes: 0 stopped when told to; 1 a bug; 2 the operator's to mend, with one line that says what.
"""

import logging
import signal
import socket
import sys
from pathlib import Path
from types import FrameType
from typing import Annotated, NoReturn

import typer
from prometheus_client import disable_created_metrics
from rich.console import Console

from resad import index as index_store
from resad import runtime
from resad.errors import ResadError, SettingError
from service import server
from service.app import create_app
from service.settings import Settings, read_settings
from service.state import House

cli = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
_log = logging.getLogger(__name__)
_out = Console()
_err = Console(stderr=True)


@cli.command()
def serve(
    root: Annotated[Path | None, typer.Option(help="Folder that holds the indexes.")] = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on; 127.0.0.1 unless given.")] = None,
    port: Annotated[int | None, typer.Option(help="Port; 0 takes a free one; 8000 unless given.")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda or cuda:N; auto unless given.")] = None,
    index: Annotated[str | None, typer.Option(help="Index that answers where a call names none.")] = None,
    hold: Annotated[int | None, typer.Option(help="Indexes in memory at a time; all unless given.")] = None,
    queue_size: Annotated[int | None, typer.Option(help="Photographs accepted at once; 64 unless given.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Photographs scored together; 4 unless given.")] = None,
    batch_wait_ms: Annotated[float | None, typer.Option(help="Wait of a batch for more; 0 unless given.")] = None,
    deadline_s: Annotated[float | None, typer.Option(help="Seconds for an answer; 30 unless given.")] = None,
    drain_s: Annotated[int | None, typer.Option(help="Seconds to finish in; 30 unless given.")] = None,
    decode_workers: Annotated[int | None, typer.Option(help="Decoding threads; 2 unless given.")] = None,
    threads: Annotated[int | None, typer.Option(help="Cores that torch computes on; all unless given.")] = None,
    max_bytes: Annotated[int | None, typer.Option(help="Of one photograph; 25000000 unless given.")] = None,
    max_pixels: Annotated[int | None, typer.Option(help="Of one photograph; 80000000 unless given.")] = None,
    max_photos: Annotated[int | None, typer.Option(help="In one request; 32 unless given.")] = None,
    max_held_bytes: Annotated[
        int | None, typer.Option(help="Of all uploads at once; 500000000 unless given.")
    ] = None,
    keys_file: Annotated[Path | None, typer.Option(help="Who may call, made by resad-keys.")] = None,
    allowed_origins: Annotated[
        str | None, typer.Option(help="Web pages of other addresses that may call, with commas between.")
    ] = None,
    docs: Annotated[bool, typer.Option("--docs/--no-docs", help="Serve /docs and /openapi.json.")] = True,
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Allow an address that others can reach without keys.")
    ] = False,
) -> None:
    """Serve the indexes under ROOT. Research use only, not for diagnosis.

    Every option is also a variable: --queue-size is RESAD_QUEUE_SIZE. More are in docs/operations.md.
    """
    settings = read_settings(
        root=root, host=host, port=port, device=device, index=index, hold=hold,
        queue_size=queue_size, batch_size=batch_size, batch_wait_ms=batch_wait_ms, deadline_s=deadline_s,
        drain_s=drain_s, decode_workers=decode_workers, threads=threads, max_bytes=max_bytes,
        max_pixels=max_pixels, max_photos=max_photos, max_held_bytes=max_held_bytes, keys_file=keys_file,
        allowed_origins=allowed_origins, docs=None if docs else False, insecure=insecure or None,
    )  # fmt: skip
    if not settings.root.is_dir():
        raise SettingError(f"{settings.root} is no folder; --root names the one that holds the indexes")
    if (settings.root / index_store.CURRENT).is_file():
        holder = settings.root.resolve().parent
        raise SettingError(f"{settings.root} is an index; --root names the folder that holds it: {holder}")
    _configure_process(settings)
    app = create_app(settings)
    with _listen(settings.host, settings.port) as listening:
        # uvicorn stops gracefully, then raises the signal again for whoever listened before.
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, _leave)
        docs_at = " (docs at /docs)" if settings.docs else ""
        _out.print(f"resad-service: {_address(listening)}{docs_at}", highlight=False, soft_wrap=True, markup=False)
        if not _holds_an_index(settings.root):
            _log.warning("no index under %s; one that is built there is served from then on", settings.root)
        house: House = app.state.house
        server.server_of(app, settings, house.draining.begin).run(sockets=[listening])


def _holds_an_index(root: Path) -> bool:
    return any((folder / index_store.CURRENT).is_file() for folder in root.iterdir())


def _leave(number: int, frame: FrameType | None) -> NoReturn:
    sys.exit(0)


def _configure_process(settings: Settings) -> None:
    runtime.configure("exact")
    runtime.use_threads(settings.threads)
    server.configure_logs(plain=sys.stderr.isatty())
    # They would add a series to each counter, which says when the process began.
    disable_created_metrics()  # type: ignore[no-untyped-call]


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        raise SettingError(f"cannot listen on {host}, port {port}: {error.strerror or error}") from error


def _address(listening: socket.socket) -> str:
    host, port = listening.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def main() -> None:
    """Entry point of `resad-service`."""
    try:
        cli(standalone_mode=True)
    except (ResadError, OSError) as error:
        _fail(error)


def _fail(error: Exception) -> NoReturn:
    _err.print(f"resad-service: {error}", style="red", highlight=False, soft_wrap=True, markup=False)
    sys.exit(2)
