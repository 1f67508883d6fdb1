"""Which texts are addresses, and which of them are not taken."""

import re
from typing import Final

from resad.errors import SettingError

_ADDRESS: Final = re.compile(r"([a-z][a-z0-9+.-]+):/+(?=[^/])")
_WEB: Final = ("http", "https")
_HERE: Final = ("file", "local")
"""Whose addresses are paths."""


def begins_as_address(text: str) -> bool:
    """Whether `text`, perhaps as a path tells it (`s3:/bucket`), begins as an address does."""
    return _ADDRESS.match(text) is not None


def is_address(text: str) -> bool:
    """Whether a text as it was given is an address, and no path."""
    return "://" in text and begins_as_address(text)


def check_parts(text: str) -> None:
    """Raise `SettingError` for an address as it was given that would be another one as a path."""
    scheme, _, rest = text.partition("://")
    if scheme not in _HERE:
        refuse_parts(rest.lstrip("/").removesuffix("/"), text)


def refuse_parts(key: str, address: str) -> None:
    """Raise `SettingError` for a key with a part that a path loses: `a//b.jpg`, `a/./b.jpg`."""
    if any(part in ("", ".") for part in key.split("/")):
        raise SettingError(
            f"{address}: a key with an empty part (//) or a part . is not taken, since as a path it would be "
            "another one: copy the object to a key without it"
        )


def refuse_secrets(text: str) -> None:
    """Raise `SettingError`, without telling it, for an address that may hold a password or a signature.

    Tables and journals name photographs by their addresses.
    """
    scheme, _, rest = text.partition("://")
    user, at, host = rest.partition("/")[0].rpartition("@")
    web = scheme in _WEB
    if at and (web or ":" in user):
        what, shown = "a user's name or password", f"{scheme}://...@{host}"
    elif web and "?" in text:
        what, shown = "a query", text.partition("?")[0] + "?..."
    else:
        return
    raise SettingError(
        f"{shown}: an address with {what} is not taken, since results name photographs by their addresses; give "
        "keys to fsspec by ~/.config/fsspec or the environment, or copy the photographs to files"
    )
