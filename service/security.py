"""Who may call: keys as `Authorization: Bearer KEY`, each with the scopes that it opens."""

import hmac
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

from fastapi import Request, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from resad.errors import SettingError
from service.hosts import from_this_machine
from service.keys import KeyRecord, Scope, read_keys, sha256_of
from service.problems import CALL_OFF, KEY_NEEDED, KEY_SCOPE, Kind, Refusal

_log: Final = logging.getLogger(__name__)
_CHECK_S: Final = 0.5
"""Seconds between checks whether the keys file has changed."""
_UNKNOWN_KEY: Final = "the key that was sent is none of this service's: mistyped, perhaps, or removed"
REFUSED: Final[tuple[Kind, ...]] = (KEY_NEEDED, KEY_SCOPE)
"""The problems that any call with a required scope may answer."""
_BEARER: Final = HTTPBearer(
    scheme_name="key",
    auto_error=False,
    description="A key made by `resad-keys`. A service that was started without a keys file asks for none.",
)
Credentials = Annotated[HTTPAuthorizationCredentials | None, Security(_BEARER)]


class KeyRing:
    """The keys of the keys file, read again when it changes; while it cannot be read, the last keys stay valid.

    Raises `SettingError` if the file cannot be read at the start.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stamp = self._file_stamp()  # before reading, so that a change meanwhile is noticed later
        self._records = read_keys(path)
        self._checked = time.monotonic()

    def holder(self, key: str) -> KeyRecord | None:
        """The record of `key`, None if it is unknown; takes equally long in every case."""
        self._reload_if_changed()
        digest, holder = sha256_of(key), None
        for record in self._records:
            if hmac.compare_digest(record.sha256, digest):
                holder = record
        return holder

    def _reload_if_changed(self) -> None:
        if time.monotonic() - self._checked < _CHECK_S:
            return
        self._checked = time.monotonic()
        stamp = self._file_stamp()
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            self._records = read_keys(self._path)
        except SettingError as error:
            _log.error("%s; the last keys stay valid", error)
        else:
            _log.info("the keys file was read again: %d keys", len(self._records))

    def _file_stamp(self) -> tuple[int, int, int] | None:
        """Changes with the file, and with a link to it."""
        try:
            status = self._path.stat()
        except OSError:
            return None
        return status.st_ino, status.st_size, status.st_mtime_ns


@dataclass(frozen=True, slots=True, eq=False)
class Guard:
    """Decides who may call.

    Without keys, scoring is open to everybody (`Settings` refuses a public address then, unless told otherwise),
    evidence and marks to programs on this machine that call it as such, and administration to nobody.

    Args:
        ring: None without a keys file.
        local: whether only this machine can reach the service.
    """

    ring: KeyRing | None
    local: bool

    def admit(self, key: str | None, scopes: tuple[Scope, ...], *, direct: bool = False) -> KeyRecord | None:
        """The record of a caller that has at least one of the scopes; None without keys.

        direct: whether the request is `from_this_machine`.
        Raises `Refusal`: 401 without a known key, 403 if it lacks the scopes or the call is switched off.
        """
        if self.ring is None:
            near = self.local and direct
            if scopes == ("admin",) or (scopes in (("evidence",), ("teach",)) and not near):
                raise Refusal(CALL_OFF, CALL_OFF.example)
            return None
        holder = None if key is None else self.ring.holder(key)
        if holder is None:
            detail = KEY_NEEDED.example if key is None else _UNKNOWN_KEY
            raise Refusal(KEY_NEEDED, detail, {"WWW-Authenticate": "Bearer"})
        if not set(scopes) & set(holder.scopes):
            raise Refusal(KEY_SCOPE, f"the key lacks the scope {' or '.join(scopes)}")
        return holder


def require_scope(*scopes: Scope) -> Callable[[Request, Credentials], Awaitable[None]]:
    """A dependency that admits callers with one of the scopes, before the body is read."""

    async def admit(request: Request, credentials: Credentials) -> None:
        guard: Guard = request.app.state.app_state.guard
        holder = guard.admit(
            credentials.credentials if credentials else None, scopes, direct=from_this_machine(request.headers)
        )
        if holder is not None:
            request.scope["state"]["trace"].key = holder.name

    return admit
