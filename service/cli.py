"""The command line `resad-service`: reads the settings, refuses what cannot be served, then loads the server.

Exit codes: 0 stopped by a signal; 1 a bug; 2 the operator can mend it, and one line says how.
"""

import ctypes
import socket
import sys
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from resad_client.terminal import SafeConsole, version_option

from resad import index as index_store
from resad.errors import ResadError, SettingError
from resad.runtime import wait_passively
from service.keys import read_keys
from service.settings import Settings, read_settings
from service.tracing import tracing_requested

cli = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
_out = SafeConsole()
_err = SafeConsole(stderr=True)


@cli.command()
def serve(
    root: Annotated[Path | None, typer.Option(help="Folder that holds the indexes.")] = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on; default 127.0.0.1.")] = None,
    port: Annotated[int | None, typer.Option(help="Port, 0 for a free one; default 8000.")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda or cuda:N; default auto.")] = None,
    index: Annotated[str | None, typer.Option(help="Index for requests that name none.")] = None,
    hold: Annotated[int | None, typer.Option(help="Most indexes in memory; default all.")] = None,
    queue_size: Annotated[int | None, typer.Option(help="Most photographs in the queue; default 64.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Most photographs in a batch; default 4.")] = None,
    deadline_s: Annotated[float | None, typer.Option(help="Seconds to answer in; default 30.")] = None,
    drain_s: Annotated[
        int | None, typer.Option(help="Seconds to finish accepted requests when stopped; default 30.")
    ] = None,
    decode_workers: Annotated[
        int | None, typer.Option(help="Processes that decode photographs; default 2.")
    ] = None,
    decode_s: Annotated[
        float | None, typer.Option(help="Most seconds of processor time to decode a photograph; default 10.")
    ] = None,
    threads: Annotated[int | None, typer.Option(help="Cores for torch and FAISS; default all.")] = None,
    max_bytes: Annotated[int | None, typer.Option(help="Most bytes of a photograph; default 80000000.")] = None,
    max_pixels: Annotated[int | None, typer.Option(help="Most pixels of a photograph; default 80000000.")] = None,
    max_photos: Annotated[int | None, typer.Option(help="Most photographs in a request; default 32.")] = None,
    max_held_bytes: Annotated[
        int | None, typer.Option(help="Most bytes of all uploads and answers; default 500000000.")
    ] = None,
    keys_file: Annotated[Path | None, typer.Option(help="Keys of the callers, made by resad-keys.")] = None,
    allowed_origins: Annotated[
        str | None, typer.Option(help="Origins of other web pages that may call, separated by commas.")
    ] = None,
    allowed_hosts: Annotated[
        str | None, typer.Option(help="Names of this service beside localhost, separated by commas; * for any.")
    ] = None,
    root_path: Annotated[
        str | None, typer.Option(help="Prefix that a proxy serves this under and takes away, as /resad.")
    ] = None,
    docs: Annotated[bool, typer.Option("--docs/--no-docs", help="Serve /docs and /openapi.json.")] = True,
    insecure: Annotated[bool, typer.Option("--insecure", help="Allow a public address without keys.")] = False,
    version: Annotated[bool, version_option("resad-service", package="resad")] = False,
) -> None:
    """Serve the indexes under ROOT over HTTP. Research use only, not for diagnosis.

    Every option is also a variable: --queue-size is RESAD_QUEUE_SIZE. docs/operations.md lists more.
    """
    settings = read_settings(
        root=root, host=host, port=port, device=device, index=index, hold=hold,
        queue_size=queue_size, batch_size=batch_size, deadline_s=deadline_s,
        drain_s=drain_s, decode_workers=decode_workers, decode_s=decode_s, threads=threads, max_bytes=max_bytes,
        max_pixels=max_pixels, max_photos=max_photos, max_held_bytes=max_held_bytes, keys_file=keys_file,
        allowed_origins=allowed_origins, allowed_hosts=allowed_hosts,
        root_path=root_path, docs=None if docs else False, insecure=insecure or None,
    )  # fmt: skip
    _check(settings)
    with _bind(settings.host, settings.port) as listener:
        # Only now: torch and FAISS take seconds to load, and read the environment when they do.
        wait_passively()
        from service import server

        server.run(settings, listener, lambda: _announce(settings, listener))


def _check(settings: Settings) -> None:
    """Raise `SettingError` for whatever would stop the server at its start."""
    if not settings.root.is_dir():
        raise SettingError(f"{settings.root} is not a folder; --root names the folder that holds the indexes")
    if (settings.root / index_store.CURRENT).is_file():
        parent = settings.root.resolve().parent
        raise SettingError(f"{settings.root} is an index; --root names the folder that holds it: {parent}")
    if settings.keys_file:
        read_keys(settings.keys_file)
    if settings.device.startswith("cuda") and not _has_cuda_driver():
        raise SettingError(f"device {settings.device!r} is not here: this machine has no CUDA driver; use cpu")
    tracing_requested()


def _has_cuda_driver() -> bool:
    try:
        ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return False
    return True


def _bind(host: str, port: int) -> socket.socket:
    """A bound socket that does not listen yet, so that no caller connects before the server is loaded."""
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise SettingError(f"cannot listen on {host}, port {port}: {error.strerror or error}") from error
    return listener


def _announce(settings: Settings, listener: socket.socket) -> None:
    host, port = listener.getsockname()[:2]
    address = f"http://{f'[{host}]' if ':' in host else host}:{port}"
    docs = " (docs at /docs)" if settings.docs else ""
    _out.say(f"resad-service: {address}{docs}")


def main() -> None:
    """Entry point of `resad-service`."""
    try:
        cli(standalone_mode=True)
    except (ResadError, OSError) as error:
        _fail(error)


def _fail(error: Exception) -> NoReturn:
    _err.say(f"resad-service: {error}", style="red")
    sys.exit(2)
