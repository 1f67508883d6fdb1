"""The command line `resad-keys`: the keys that a service takes.

Exit codes: 0 done; 1 a bug; 2 the operator's to mend, with one line that says what.
"""

import sys
from pathlib import Path
from typing import Annotated, Final

import typer
from pydantic import ValidationError
from rich.console import Console

from resad.errors import ResadError, SettingError
from service.key_file import SCOPES, KeyRecord, Scope, new_key, read_keys, sha256_of, write_keys

cli: Final = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
_err: Final = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)

File = Annotated[Path, typer.Argument(help="The keys file, which resad-service reads as --keys-file.")]
Name = Annotated[str, typer.Argument(help="Whose key: letters, digits, . - and _.")]


@cli.callback()
def about() -> None:
    """Keys for callers of resad-service; a service that runs takes up every change."""


@cli.command()
def add(
    file: File,
    name: Name,
    scope: Annotated[list[str], typer.Option(help=f"What it opens, once for each: {', '.join(SCOPES)}.")],
) -> None:
    """Make a key and print it, this once: the file keeps its SHA-256 alone."""
    keys = read_keys(file) if file.exists() else ()
    if name in (record.name for record in keys):
        raise SettingError(f"{file} has a key {name!r} already; remove it first, or take another name")
    key = new_key()
    write_keys(file, (*keys, _record(name, key, scope)))
    typer.echo(key)


@cli.command("list")
def list_keys(file: File) -> None:
    """Names and scopes."""
    for record in read_keys(file):
        typer.echo(f"{record.name}\t{' '.join(record.scopes)}")


@cli.command()
def remove(file: File, name: Name) -> None:
    """From now on that key opens nothing."""
    keys = read_keys(file)
    kept = tuple(record for record in keys if record.name != name)
    if len(kept) == len(keys):
        there = ", ".join(record.name for record in keys) or "none"
        raise SettingError(f"{file} has no key {name!r}; there is: {there}")
    write_keys(file, kept)


def _record(name: str, key: str, scopes: list[str]) -> KeyRecord:
    wrong = [scope for scope in scopes if scope not in SCOPES]
    if wrong:
        raise SettingError(f"--scope {wrong[0]!r} is none of {', '.join(SCOPES)}")
    held: tuple[Scope, ...] = tuple(scope for scope in SCOPES if scope in scopes)
    try:
        return KeyRecord(name, sha256_of(key), held)
    except ValidationError as error:
        raise SettingError(f"{name!r} cannot name a key: 1 to 64 letters, digits, . - and _") from error


def main() -> None:
    """Entry point of `resad-keys`."""
    try:
        cli(standalone_mode=True)
    except (ResadError, OSError) as error:
        _err.print(f"resad-keys: {error}", style="red")
        sys.exit(2)
