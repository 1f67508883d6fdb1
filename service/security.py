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
from service.keys import KeyRecord, Scope, read_keys, sha256_of
from service.problems import CALL_OFF, KEY_NEEDED, KEY_SCOPE, Kind, Refusal

_log: Final = logging.getLogger(__name__)
_LOOK_S: Final = 0.5
"""Between looks whether the file has changed."""
_UNKNOWN: Final = "the key that was sent is none of this service's: mistyped, perhaps, or removed"
REFUSED: Final[tuple[Kind, ...]] = (KEY_NEEDED, KEY_SCOPE)
"""What a call that needs a key may answer."""
_BEARER: Final = HTTPBearer(
    scheme_name="key",
    auto_error=False,
    description="A key made by `resad-keys`. A service that was started without a keys file asks for none.",
)
Given = Annotated[HTTPAuthorizationCredentials | None, Security(_BEARER)]


class KeyRing:
    """The keys as the file has them now; one that cannot be read leaves those that were known.

    Raises `SettingError` where the file cannot be used at the start.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stamp = self._look()  # first: what changes meanwhile is seen later
        self._records = read_keys(path)
        self._looked = time.monotonic()

    def holder(self, key: str) -> KeyRecord | None:
        """Whose key it is; takes as long whichever it is, or if it is none."""
        self._follow()
        given, found = sha256_of(key), None
        for record in self._records:
            if hmac.compare_digest(record.sha256, given):
                found = record
        return found

    def _follow(self) -> None:
        if time.monotonic() - self._looked < _LOOK_S:
            return
        self._looked = time.monotonic()
        stamp = self._look()
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            self._records = read_keys(self._path)
        except SettingError as error:
            _log.error("%s; the keys of before are still taken", error)
        else:
            _log.info("the keys file was read again: %d keys", len(self._records))

    def _look(self) -> tuple[int, int, int] | None:
        """What changes with the file, also where a link to it was moved."""
        try:
            status = self._path.stat()
        except OSError:
            return None
        return status.st_ino, status.st_size, status.st_mtime_ns


@dataclass(frozen=True, slots=True, eq=False)
class Guard:
    """Lets calls in.  ring: None without a keys file.  local: only this machine reaches the service.

    Without keys, scoring and its kind are open (`Settings` refuses that on a public address unless told so),
    evidence is open to this machine alone, and admins' calls are off.
    """

    ring: KeyRing | None
    local: bool

    def admit(self, key: str | None, scopes: tuple[Scope, ...]) -> KeyRecord | None:
        """Whose call it is, None without keys.  One of the scopes is enough.

        Raises `Refusal`: 401 without a known key, 403 where it lacks the scopes, or the call is off.
        """
        if self.ring is None:
            if scopes == ("admin",) or (scopes == ("evidence",) and not self.local):
                raise Refusal(CALL_OFF, CALL_OFF.example)
            return None
        holder = None if key is None else self.ring.holder(key)
        if holder is None:
            detail = KEY_NEEDED.example if key is None else _UNKNOWN
            raise Refusal(KEY_NEEDED, detail, {"WWW-Authenticate": "Bearer"})
        if not set(scopes) & set(holder.scopes):
            raise Refusal(KEY_SCOPE, f"the key lacks the scope {' or '.join(scopes)}")
        return holder


def needs(*scopes: Scope) -> Callable[[Request, Given], Awaitable[None]]:
    """A dependency that lets a call in whose key has one of the scopes, before anything of its body is read."""

    async def admitted(request: Request, given: Given) -> None:
        guard: Guard = request.app.state.house.guard
        holder = guard.admit(given.credentials if given else None, scopes)
        if holder is not None:
            request.scope["state"]["account"].key = holder.name

    return admitted
