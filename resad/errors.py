"""Every error the project raises on purpose.

    ResadError
    ├── PhotoError          the caller's fault: this photograph cannot be used (HTTP 4xx)
    │   ├── PhotoUnreadable     not an image, or a damaged one
    │   │   └── PhotoUnreachable    its file could not be read, which may pass
    │   ├── PhotoTooLarge       more bytes or pixels than allowed
    │   ├── PhotoUnsupported    an image, but of a type that is not taken
    │   ├── NotAFundusPhoto     an image, but not one of a retina
    │   └── PhotoPoor           below the index's limits of quality, where these are binding
    ├── ArtifactError       the operator's fault: an index or weights that do not fit (no start, exit 2)
    │   ├── IndexInvalid        damaged, incomplete, of another format or fingerprint
    │   ├── WeightsUnavailable  not here and not to be had
    │   └── WeightsMismatch     here, but of another network
    └── SettingError        a value that cannot be used, on the command line or in a configuration (exit 2)

Anything else that escapes is a bug: exit 1, or 500 with an id.  Every message names the value, the limit
and what to do; none names a patient's file beyond what the caller passed in.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pydantic import ValidationError

REBUILD = "rebuild the index: resad-indexer build PHOTOS --root ROOT --name NAME"
"""What to do about an index that this version does not read."""


class ResadError(Exception):
    """Base of all errors raised on purpose."""


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Raise a `PhotoError` of the block as the same kind with the photograph's path before its text."""
    try:
        yield
    except PhotoError as error:
        raise type(error)(f"{path}: {error}") from error


class PhotoError(ResadError):
    """A photograph that cannot be used."""


class PhotoUnreadable(PhotoError):
    """Not an image, or a damaged one."""


class PhotoUnreachable(PhotoUnreadable):
    """Its file could not be read, or is not there, which may pass."""


class PhotoTooLarge(PhotoError):
    """More bytes or pixels than the limits allow."""


class PhotoUnsupported(PhotoError):
    """An image of a type that is not taken."""


class NotAFundusPhoto(PhotoError):
    """An image, but not one of a retina."""


class PhotoPoor(PhotoError):
    """A photograph below the index's limits of quality, where these are binding."""


class ArtifactError(ResadError):
    """An index or weights that do not fit."""


class IndexInvalid(ArtifactError):
    """An index that is damaged, incomplete, or of another format or fingerprint."""


class WeightsUnavailable(ArtifactError):
    """Weights that are not here and cannot be had."""


class WeightsMismatch(ArtifactError):
    """Weights of another network than the one they were offered for."""


class SettingError(ResadError):
    """A setting whose value cannot be used."""


def first_fault(error: ValidationError) -> str:
    """The first fault of a failed validation: where, what, and the value that was given."""
    fault = error.errors(include_url=False, include_context=False)[0]
    where = ".".join(str(part) for part in fault["loc"]) or "value"
    told = "unknown to this version" if fault["type"] == "unexpected_keyword_argument" else fault["msg"]
    return f"{where}: {told} (given: {fault['input']!r})"
