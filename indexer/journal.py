"""What a build has done so far, one line of JSON a photograph, and whether it may go on with it.

No name of a file is written: a photograph is known by its place in the list and a digest.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, Final

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from indexer.photos import ReferencePhoto
from resad import runtime
from resad.config import MethodConfig, PhotoLimits
from resad.errors import SettingError
from resad.field_of_view import FieldOfView
from resad.manifest import PackageVersion
from resad.preparation import Frame
from resad.quality import QualityMeasures
from resad.stored_config import StoredMethodConfig

_STRICT: Final = ConfigDict(extra="forbid")


@dataclass(frozen=True, config=_STRICT)
class Inputs:
    """Everything that decides which features come out; work goes on with the same inputs alone.

    device: its kind.  packages: what computes, this package among it.  photos: a digest of each listed
    photograph's path and what a CSV file said of it.  crops: the photographs' squares are kept, too.
    """

    config: StoredMethodConfig
    limits: PhotoLimits
    weights: str
    device: str
    packages: tuple[PackageVersion, ...]
    photos: tuple[str, ...]
    crops: bool = False


@dataclass(frozen=True, config=_STRICT)
class Stored:
    """What is known of a photograph whose features are stored.

    patches: their number.  grid: (h, w) cells.  checksum: of both files, `indexer.feature_store.checksum`.
    """

    perceptual_hash: str
    frame: Frame
    field_of_view: FieldOfView
    quality: QualityMeasures
    patches: int
    grid: tuple[int, int]
    checksum: int


@dataclass(frozen=True, config=_STRICT)
class Line:
    """A photograph's outcome.  sha256: of its file; none where that could not be read.

    stored: it was taken.  skipped: the reason.  Neither: its bytes are those of an earlier one.
    unreached: it was skipped because its file could not be read: it is tried again after all others.
    again: its number in the list, where it was; otherwise that is the number of the line.
    """

    sha256: str | None
    stored: Stored | None = None
    skipped: str | None = None
    unreached: bool = False
    again: int | None = None


_MORE_PACKAGES: Final = ("resad", "scikit-learn")
"""Beside those of `runtime.packages`, what decides a bank: the code that makes features, and the projection."""
_INPUTS: Final = TypeAdapter(Inputs)
_LINE: Final = TypeAdapter(Line)


def inputs_of(
    config: MethodConfig,
    limits: PhotoLimits,
    weights_sha256: str,
    device: str,
    listed: Sequence[ReferencePhoto],
    *,
    crops: bool,
) -> Inputs:
    """Those of a build now."""
    more = (PackageVersion(name, metadata.version(name)) for name in _MORE_PACKAGES)
    photos = tuple(map(digest, listed))
    return Inputs(config, limits, weights_sha256, device, (*runtime.packages(), *more), photos, crops)


def digest(photo: ReferencePhoto) -> str:
    """Of a listed photograph's path and what was said of it, not of its content."""
    told = (str(photo.path.absolute()), photo.patient, photo.eye, photo.camera)
    return hashlib.sha256(repr(told).encode()).hexdigest()[:16]


def file_sha256(path: Path) -> str | None:
    """Of a file's bytes, hexadecimal; None where they cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None


def inputs_json(inputs: Inputs) -> bytes:
    """`inputs` as JSON."""
    return _INPUTS.dump_json(inputs, indent=2)


def check_inputs(path: Path, now: Inputs, listed: Sequence[ReferencePhoto]) -> None:
    """Raises `SettingError`, naming the first thing that differs between those in `path` and `now`."""
    try:
        there = _INPUTS.validate_json(path.read_bytes())
    except (ValidationError, OSError) as error:
        raise SettingError(_refusal(f"{path} cannot be read")) from error
    if there.photos != now.photos:
        raise SettingError(_refusal(_photos_differ(there.photos, now.photos, listed)))
    before, after = (
        dict(_leaves(_INPUTS.dump_python(one, mode="json", exclude={"photos"}))) for one in (there, now)
    )
    for name in before | after:
        if before.get(name) != after.get(name):
            raise SettingError(_refusal(f"{name} was {before.get(name)}, now it is {after.get(name)}"))


def check_content(lines: Sequence[Line], listed: Sequence[ReferencePhoto]) -> None:
    """Raises `SettingError` for the first photograph whose file is not what it was."""
    for number, line in enumerate(lines):
        photo = listed[number if line.again is None else line.again]
        if line.unreached:
            continue
        content = file_sha256(photo.path)
        if content is None and line.sha256 is not None:
            raise SettingError(f"cannot resume: {photo.path} cannot be read now; try again")
        if content != line.sha256:
            raise SettingError(_refusal(f"{photo.path} has changed since"))


def line_json(line: Line) -> bytes:
    """One line of the journal."""
    return _LINE.dump_json(line) + b"\n"


def read_lines(path: Path) -> list[Line]:
    """The lines that are whole: the last one may have been cut short."""
    lines = []
    for text in path.read_bytes().splitlines(keepends=True) if path.is_file() else ():
        try:
            lines.append(_LINE.validate_json(text))
        except ValidationError:
            break
    return lines


def _refusal(reason: str) -> str:
    return f"cannot resume: {reason}; build without --resume to begin again"


def _photos_differ(before: tuple[str, ...], now: tuple[str, ...], listed: Sequence[ReferencePhoto]) -> str:
    if len(before) != len(now):
        return f"{len(before)} photographs were listed, now there are {len(now)}"
    number = next(number for number, (a, b) in enumerate(zip(before, now, strict=True)) if a != b)
    return f"photograph {number + 1} of the list was another one, or told otherwise, than {listed[number].path}"


def _leaves(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """`config.coreset.share` -> its value, as JSON, for every field."""
    if not isinstance(value, dict):
        yield path, json.dumps(value)
        return
    for key, below in value.items():
        yield from _leaves(below, f"{path}.{key}" if path else key)
