"""The keys file, and the command `resad-keys` that edits it.  The file holds the SHA-256 of each key, never the key.

Exit codes of the command: 0 done; 1 a bug; 2 the operator can mend it, and one line says how.
"""

import hashlib
import os
import secrets
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Final, Literal, get_args

import typer
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass
from rich.console import Console

from resad.errors import ResadError, SettingError

Scope = Literal["score", "evidence", "admin", "metrics"]
SCOPES: Final[tuple[Scope, ...]] = get_args(Scope)
_CONFIG: Final = ConfigDict(extra="forbid")
_PREFIX: Final = "resad_"
"""By which those who look for leaked secrets know one."""
_KEY_BYTES: Final = 32


@dataclass(frozen=True, config=_CONFIG)
class KeyRecord:
    """A key.  name: whose.  sha256: of the key, hex.  scopes: what it opens."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    scopes: Annotated[tuple[Scope, ...], Field(min_length=1)]


@dataclass(frozen=True, config=_CONFIG)
class _File:
    keys: tuple[KeyRecord, ...]


_FILE: Final = TypeAdapter(_File)


def new_key() -> str:
    """256 random bits, as letters that any header takes."""
    return _PREFIX + secrets.token_urlsafe(_KEY_BYTES)


def sha256_of(key: str) -> str:
    """What the file has of a key.  So many random bits need no slow hash."""
    return hashlib.sha256(key.encode()).hexdigest()


def read_keys(path: Path) -> tuple[KeyRecord, ...]:
    """The records in `path`; raises `SettingError`, which repeats nothing of the file's values."""
    try:
        found = _FILE.validate_json(path.read_bytes())
    except OSError as error:
        raise SettingError(f"the keys file {path} cannot be read: {error.strerror}") from error
    except ValidationError as error:
        fault = error.errors(include_url=False, include_context=False, include_input=False)[0]
        place = ".".join(map(str, fault["loc"])) or "file"
        raise SettingError(f"the keys file {path}: {place}: {fault['msg']}") from None
    names = [record.name for record in found.keys]
    if len(set(names)) != len(names):
        raise SettingError(f"the keys file {path} has the same name twice")
    return found.keys


def write_keys(path: Path, keys: Sequence[KeyRecord]) -> None:
    """Replace `path` in one step; only its owner may read it."""
    fresh = path.with_name(f".{path.name}-{secrets.token_hex(4)}")
    try:
        with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(_FILE.dump_json(_File(tuple(keys)), indent=2) + b"\n")
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
    finally:
        fresh.unlink(missing_ok=True)


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
