"""The keys file: who may call what.  A key itself is nowhere in it, only its SHA-256."""

import hashlib
import os
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Final, Literal, get_args

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from resad.errors import SettingError

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
