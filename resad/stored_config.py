"""Settings as an index states them: read for what they meant when they were written, and their fingerprint."""

import hashlib
from typing import Annotated, Final

from pydantic import BeforeValidator, TypeAdapter

from resad.config import MethodConfig

_METHOD: Final = TypeAdapter(MethodConfig)


def _as_it_was_meant(stored: object) -> object:
    if isinstance(stored, dict) and isinstance(search := stored.get("search"), dict):
        return stored | {"search": {"mirrored": False} | search}
    return stored


StoredMethodConfig = Annotated[MethodConfig, BeforeValidator(_as_it_was_meant)]
"""Settings in a file.  `search.mirrored` is younger than some files: where it is missing it is false, whatever the
default is now, as nothing looked at mirror images then."""


def fingerprint(config: MethodConfig, weights_sha256: str, whitening_sha256: str | None) -> str:
    """`sha256:...` of everything that changes a patch's features or a score: settings, weights and whitening.

    `search.mirrored` is left out where it is false, so that what measures the same as before there was such a
    setting has the same fingerprint as then.
    """
    unwritten = None if config.search.mirrored else {"search": {"mirrored"}}
    return _hashed(_METHOD.dump_json(config, exclude=unwritten), weights_sha256, whitening_sha256)


def is_fingerprint(stated: str, config: MethodConfig, weights_sha256: str, whitening_sha256: str | None) -> bool:
    """Whether `stated` is the `fingerprint` of these, or the same with a false `search.mirrored` written out.

    The latter is in indexes from the first time of that setting.
    """
    whole = _hashed(_METHOD.dump_json(config), weights_sha256, whitening_sha256)
    return stated in {fingerprint(config, weights_sha256, whitening_sha256), whole}


def _hashed(settings: bytes, weights_sha256: str, whitening_sha256: str | None) -> str:
    text = settings + f"\n{weights_sha256}\n{whitening_sha256 or ''}".encode()
    return "sha256:" + hashlib.sha256(text).hexdigest()
