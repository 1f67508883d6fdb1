"""Every error the project raises on purpose.

    ResadError
    ├── PhotoError          the caller's fault: this photograph cannot be used (HTTP 4xx)
    │   ├── PhotoUnreadable     not an image, or a damaged one
    │   │   └── PhotoUnreachable    the file cannot be read now; a retry may succeed
    │   ├── PhotoTooLarge       more bytes or pixels than allowed
    │   ├── PhotoUnsupported    an image of a type that is not supported
    │   ├── NotAFundusPhoto     an image, but not of a retina
    │   └── PhotoPoor           below the index's limits of quality, where the caller requires them
    ├── ArtifactError       the operator's fault: an index or weights that do not fit (no start, exit 2)
    │   ├── IndexInvalid        damaged, incomplete, of another format or fingerprint
    │   ├── WeightsUnavailable  not on this machine, and no download possible
    │   └── WeightsMismatch     of another network
    └── SettingError        a value that cannot be used, on the command line or in a configuration (exit 2)

Any other exception is a bug: exit 1, or 500 with an id.  Every message states the value, the limit and what to do.
No message names a patient's file beyond what the caller passed in.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pydantic import ValidationError
from resad_client.errors import ResadError as ResadError

REBUILD = "rebuild the index: resad-indexer build PHOTOS --root ROOT --name NAME"
"""What to do about an index that this version does not read."""


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Put the photograph's path before the text of a `PhotoError` that the block raises."""
    try:
        yield
    except PhotoError as error:
        raise type(error)(f"{path}: {error}") from error


class PhotoError(ResadError):
    """A photograph that cannot be used."""


class PhotoUnreadable(PhotoError):
    """Not an image, or a damaged one."""


class PhotoUnreachable(PhotoUnreadable):
    """The file does not exist or cannot be read now; a retry may succeed."""


class PhotoTooLarge(PhotoError):
    """More bytes or pixels than the limits allow."""


class PhotoUnsupported(PhotoError):
    """An image of a type that is not supported."""


class NotAFundusPhoto(PhotoError):
    """An image, but not of a retina."""


class PhotoPoor(PhotoError):
    """A photograph below the index's limits of quality, where the caller requires them."""


class ArtifactError(ResadError):
    """An index or weights that do not fit."""


class IndexInvalid(ArtifactError):
    """An index that is damaged, incomplete, or of another format or fingerprint."""


class WeightsUnavailable(ArtifactError):
    """Weights that are not on this machine and cannot be downloaded."""


class WeightsMismatch(ArtifactError):
    """Weights of another network."""


class SettingError(ResadError):
    """A setting whose value cannot be used."""


def first_fault(error: ValidationError) -> str:
    """The first error of a failed validation: where, what, and the given value."""
    fault = error.errors(include_url=False, include_context=False)[0]
    where = ".".join(str(part) for part in fault["loc"]) or "value"
    problem = "unknown to this version" if fault["type"] == "unexpected_keyword_argument" else fault["msg"]
    return f"{where}: {problem} (given: {fault['input']!r})"
