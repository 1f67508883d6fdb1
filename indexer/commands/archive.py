"""`resad-indexer export` and `import`: a version as one file."""

from pathlib import Path
from typing import Annotated

import typer

from indexer.commands import console
from indexer.commands.console import Index, Live, Root
from indexer.lifecycle.archive import export_version, import_version


def export_command(
    index: Index,
    file: Annotated[Path, typer.Argument(help="Archive to be made (.tar).")],
    sign: Annotated[Path | None, typer.Option(help="Private Ed25519 key, PEM, to sign with.")] = None,
) -> None:
    """Write a version to one file, with the hashes of all it holds."""
    manifest = export_version(index, file, key=sign)
    kept = ", with all patch features" if manifest.keeps_features else ""
    signed = "signed" if sign else "not signed"
    console.say(
        f"{manifest.name} {manifest.version} is in {file} ({signed}{kept}); a later purge does not reach it"
    )


def import_command(
    file: Annotated[Path, typer.Argument(help="Archive that export made.")],
    root: Root,
    verify: Annotated[
        Path | None,
        typer.Option(help="Public Ed25519 key, PEM; refuses what its private half has not signed."),
    ] = None,
    activate: Live = True,
) -> None:
    """Bring an exported version to its place below a root, its hashes checked."""
    imported = import_version(file, root, live=activate, key=verify)
    if verify is None:
        told = "its signature was not checked (--verify KEY)" if imported.signed else "it is not signed"
        console.warn(f"{file}: {told}; take indexes from people you trust alone")
    console.say(f"{imported.version} is {'live' if activate else 'written; activate it to use it'}")
