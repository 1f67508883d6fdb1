"""The keys file, and the command `resad-keys` that edits it.

The file holds the SHA-256 of each key, never the key.

Exit codes of the command: 0 done; 1 a bug; 2 the operator can mend it, and one line says how.
"""

import hashlib
import os
import secrets
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Final, Literal, get_args

import typer
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass
from resad_client.files import locked, replacing
from resad_client.terminal import SafeConsole, version_option

from resad.errors import ResadError, SettingError

Scope = Literal["score", "evidence", "teach", "admin", "metrics"]
SCOPES: Final[tuple[Scope, ...]] = get_args(Scope)
_CONFIG: Final = ConfigDict(extra="forbid")
_PREFIX: Final = "resad_"
"""Lets scanners for leaked secrets recognize a key."""
_KEY_BYTES: Final = 32


@dataclass(frozen=True, config=_CONFIG)
class KeyRecord:
    """A key.  name: its owner.  sha256: of the key, hexadecimal.  scopes: the calls it allows."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    scopes: Annotated[tuple[Scope, ...], Field(min_length=1)]


@dataclass(frozen=True, config=_CONFIG)
class _KeysFile:
    keys: tuple[KeyRecord, ...]


_FILE: Final = TypeAdapter(_KeysFile)


def new_key() -> str:
    """A key of 256 random bits, in characters that any HTTP header allows."""
    return _PREFIX + secrets.token_urlsafe(_KEY_BYTES)


def sha256_of(key: str) -> str:
    """The digest that the file holds.  256 random bits need no slow hash."""
    return hashlib.sha256(key.encode()).hexdigest()


def read_keys(path: Path) -> tuple[KeyRecord, ...]:
    """The records in `path`; raises `SettingError`, which repeats none of the file's values."""
    try:
        content = _FILE.validate_json(path.read_bytes())
    except OSError as error:
        raise SettingError(f"the keys file {path} cannot be read: {error.strerror}") from error
    except ValidationError as error:
        fault = error.errors(include_url=False, include_context=False, include_input=False)[0]
        place = ".".join(map(str, fault["loc"])) or "file"
        raise SettingError(f"the keys file {path}: {place}: {fault['msg']}") from None
    names = [record.name for record in content.keys]
    if len(set(names)) != len(names):
        raise SettingError(f"the keys file {path} has the same name twice")
    return content.keys


def write_keys(path: Path, keys: Sequence[KeyRecord]) -> None:
    """Replace `path` atomically; only its owner may read it."""
    with (
        replacing(path) as temporary,
        os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file,
    ):
        file.write(_FILE.dump_json(_KeysFile(tuple(keys)), indent=2) + b"\n")
        file.flush()
        os.fsync(file.fileno())


cli: Final = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
_err: Final = SafeConsole(stderr=True)

File = Annotated[Path, typer.Argument(help="The keys file; resad-service reads it as --keys-file.")]
Name = Annotated[str, typer.Argument(help="The key's owner: letters, digits, . - and _.")]


@cli.callback()
def about(
    version: Annotated[bool, version_option("resad-keys", package="resad")] = False,
) -> None:
    """Make, list and remove the keys of a service's callers; a running service applies every change."""


@cli.command()
def add(
    file: File,
    name: Name,
    scope: Annotated[
        list[str], typer.Option(help=f"A scope of the key; repeat for several: {', '.join(SCOPES)}.")
    ],
) -> None:
    """Make a key and print it.  It is printed only once: the file holds its SHA-256."""
    key = new_key()
    record = _record(name, key, scope)
    with _locked(file):
        keys = read_keys(file) if file.exists() else ()
        if name in (record.name for record in keys):
            raise SettingError(f"{file} has a key {name!r} already; remove it first, or choose another name")
        write_keys(file, (*keys, record))
    typer.echo(key)


@cli.command("list")
def list_keys(file: File) -> None:
    """Print names and scopes."""
    for record in read_keys(file):
        typer.echo(f"{record.name}\t{' '.join(record.scopes)}")


@cli.command()
def remove(file: File, name: Name) -> None:
    """Remove a key; it is refused from now on."""
    read_keys(file)  # refuses a missing file before a lock is made for it
    with _locked(file):
        keys = read_keys(file)
        remaining = tuple(record for record in keys if record.name != name)
        if len(remaining) == len(keys):
            names = ", ".join(record.name for record in keys) or "none"
            raise SettingError(f"{file} has no key {name!r}; there is: {names}")
        write_keys(file, remaining)


@contextmanager
def _locked(file: Path) -> Iterator[None]:
    """Nobody else changes the keys meanwhile: of two who read the same keys, the second would drop the first's."""
    file.parent.mkdir(parents=True, exist_ok=True)
    lock = file.with_name(f".{file.name}.lock")
    with locked(lock, wait=True):
        try:
            yield
        finally:
            lock.unlink(missing_ok=True)


def _record(name: str, key: str, scopes: list[str]) -> KeyRecord:
    unknown = [scope for scope in scopes if scope not in SCOPES]
    if unknown:
        raise SettingError(f"--scope {unknown[0]!r} is none of {', '.join(SCOPES)}")
    ordered: tuple[Scope, ...] = tuple(scope for scope in SCOPES if scope in scopes)
    try:
        return KeyRecord(name, sha256_of(key), ordered)
    except ValidationError as error:
        raise SettingError(f"{name!r} cannot name a key: 1 to 64 letters, digits, . - and _") from error


def main() -> None:
    """Entry point of `resad-keys`."""
    try:
        cli(standalone_mode=True)
    except (ResadError, OSError) as error:
        _err.say(f"resad-keys: {error}", style="red")
        sys.exit(2)
