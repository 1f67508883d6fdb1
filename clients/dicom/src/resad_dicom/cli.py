"""The command line `resad-dicom`: serve, check, queue.

Exit codes: 0 done, or stopped by a signal; 1 a bug, or a check that failed; 2 the operator can mend it, and one
line says how.
"""

import sys
import time
from pathlib import Path
from typing import Annotated

import typer
from resad_client.errors import ResadClientError
from resad_client.terminal import SafeConsole, version_option

from resad_dicom.settings import read_settings

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
_out = SafeConsole()
_err = SafeConsole(stderr=True)

QueueFolder = Annotated[Path | None, typer.Option("--queue", help="Folder of the queue, on a local disk.")]
DestinationOption = Annotated[
    str | None,
    typer.Option(
        "--destination",
        help="Where results go: dicom://AET@HOST:PORT, dicoms:// for TLS, or the address of a DICOMweb service.",
    ),
]
DestinationAuth = Annotated[
    Path | None,
    typer.Option("--destination-auth-file", help="File with the header Authorization for DICOMweb."),
]
ServiceOption = Annotated[str | None, typer.Option("--service", help="Address of the ReSAD service.")]
ServiceKey = Annotated[Path | None, typer.Option("--service-key-file", help="File with the service's key.")]
TitleOption = Annotated[str | None, typer.Option("--title", help="AE title of this node; default RESAD.")]
Certificate = Annotated[Path | None, typer.Option("--tls-certificate", help="Certificate of this node, PEM.")]
CertificateKey = Annotated[Path | None, typer.Option("--tls-key", help="Its private key, PEM.")]
Authorities = Annotated[
    Path | None,
    typer.Option("--tls-ca", help="Certificates that callers and the destination are verified by, PEM."),
]


@app.callback()
def about(
    version: Annotated[bool, version_option("resad-dicom", package="resad-dicom")] = False,
) -> None:
    """Have photographs of a PACS scored, and send the results back. Research use only, not for diagnosis.

    Every option is also a variable: --web-port is RESAD_DICOM_WEB_PORT. docs/dicom.md lists more.
    """


@app.command("serve")
def serve_command(
    queue: QueueFolder = None,
    destination: DestinationOption = None,
    destination_auth_file: DestinationAuth = None,
    service: ServiceOption = None,
    service_key_file: ServiceKey = None,
    index: Annotated[str | None, typer.Option(help="Index to score with; default the service's.")] = None,
    fpr: Annotated[
        float | None, typer.Option(help="False-positive rate of the verdict; default the service's.")
    ] = None,
    false_regions: Annotated[
        float | None,
        typer.Option(help="Findings that a healthy photograph shows on average; default the service's."),
    ] = None,
    title: TitleOption = None,
    caller: Annotated[
        list[str] | None, typer.Option(help="AE title that may send; may be repeated; default any.")
    ] = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on; default 127.0.0.1.")] = None,
    port: Annotated[int | None, typer.Option(help="Port for DICOM, 0 for a free one; default 11112.")] = None,
    web_port: Annotated[
        int | None, typer.Option(help="Port for STOW-RS and metrics, 0 for a free one; default 8104.")
    ] = None,
    web_key_file: Annotated[Path | None, typer.Option(help="File with the key of STOW-RS and metrics.")] = None,
    result: Annotated[
        list[str] | None,
        typer.Option(help="Object to send: map, segmentation, report, overlay; may be repeated; default all."),
    ] = None,
    tls_certificate: Certificate = None,
    tls_key: CertificateKey = None,
    tls_ca: Authorities = None,
    insecure: Annotated[bool, typer.Option("--insecure", help="Allow a public address to everybody.")] = False,
) -> None:
    """Receive photographs, have them scored, and send the results, until stopped."""
    from resad_dicom import node

    settings = read_settings(
        queue=queue, destination=destination, destination_auth_file=destination_auth_file, service=service,
        service_key_file=service_key_file, index=index, fpr=fpr, false_regions=false_regions, title=title,
        callers=_joined(caller), host=host, port=port, web_port=web_port, web_key_file=web_key_file,
        results=_joined(result), tls_certificate=tls_certificate, tls_key=tls_key, tls_ca=tls_ca,
        insecure=insecure or None,
    )  # fmt: skip

    def announce(running: node.Node) -> None:
        host = f"[{settings.host}]" if ":" in settings.host else settings.host
        web = "https" if settings.tls_certificate else "http"
        tls = " with TLS" if settings.tls_certificate else ""
        _out.say(
            f"resad-dicom: {settings.title} on {host}:{running.port}{tls}, {web}://{host}:{running.web_port}; "
            f"service {settings.service}, results to {settings.address}"
        )

    node.serve(settings, announce)


@app.command("check")
def check_command(
    queue: QueueFolder = None,
    destination: DestinationOption = None,
    destination_auth_file: DestinationAuth = None,
    service: ServiceOption = None,
    service_key_file: ServiceKey = None,
    title: TitleOption = None,
    tls_certificate: Certificate = None,
    tls_key: CertificateKey = None,
    tls_ca: Authorities = None,
) -> None:
    """Ask the service whether it is ready, and the PACS for an echo."""
    from resad_dicom import node, peers
    from resad_dicom.work import PeerAway

    node.silence_libraries()
    settings = read_settings(
        queue=queue, destination=destination, destination_auth_file=destination_auth_file, service=service,
        service_key_file=service_key_file, title=title, tls_certificate=tls_certificate, tls_key=tls_key,
        tls_ca=tls_ca,
    )  # fmt: skip
    failed = False
    scorer = peers.HttpService(settings)
    try:
        scorer.ready()
        _out.say(f"service {settings.service}: ready")
    except ResadClientError as error:
        failed = True
        _warn(f"service {settings.service}: {error}")
    finally:
        scorer.close()
    try:
        peers.destination(settings, settings.address).echo()
        _out.say(f"PACS {settings.address}: answers")
    except PeerAway as error:
        failed = True
        _warn(f"PACS {settings.address}: {error}")
    raise typer.Exit(int(failed))


@app.command("queue")
def queue_command(
    queue: Annotated[Path, typer.Option("--queue", envvar="RESAD_DICOM_QUEUE", help="Folder of the queue.")],
    retry: Annotated[bool, typer.Option("--retry", help="Let refused photographs be tried again.")] = False,
) -> None:
    """Show what waits and what was refused, and why; a node may be running."""
    from resad_dicom.queue import read_state, retry_refused

    if retry:
        _out.say(f"{retry_refused(queue)} refused photographs will be tried again")
    state, refused = read_state(queue)
    _out.say(f"to be scored: {state.received}, to be sent: {state.scored}, refused: {state.refused}")
    _out.say(f"{state.bytes / 1e6:.1f} MB; the oldest waits for {state.oldest_s:.0f} s")
    for photo in refused:
        received = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(photo.received))
        _out.say(f"{photo.number}  {received}  refused by the {photo.peer}: {photo.reason}  {photo.path}")


def _joined(words: list[str] | None) -> str | None:
    return ",".join(words) if words else None


def _warn(line: str) -> None:
    _err.say(line, style="red")


def main() -> None:
    """Entry point of `resad-dicom`."""
    try:
        app(standalone_mode=True)
    except (ResadClientError, OSError) as error:
        _warn(f"resad-dicom: {error}")
        sys.exit(2)
