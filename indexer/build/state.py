"""State of a build on disk (ROOT/NAME/.work), with which an interrupted build goes on."""

import hashlib
import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from types import TracebackType
from typing import Any, Final

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from indexer.build.feature_store import FeatureStore, checksum
from indexer.build.references import LoadedPhoto, Reference, photo_id, reference_of
from indexer.coreset.k_center import Checkpoint
from indexer.photos.listing import Duplicate, ReferencePhoto, Skipped
from resad import runtime
from resad.config import MethodConfig, PhotoLimits, StoredMethodConfig
from resad.encoder import PatchFeatures
from resad.errors import ResadError, SettingError
from resad.field_of_view import FieldOfView
from resad.files import write_atomically
from resad.pictures.evidence import file_name, square_jpeg
from resad.preparation import Frame
from resad.quality import QualityMeasures
from resad.runtime import PackageVersion

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
class PhotoFacts:
    """What is known of a photograph whose features are stored.

    patches: their number.  grid: (h, w) cells.  checksum: of both files, `indexer.build.feature_store.checksum`.
    """

    perceptual_hash: str
    frame: Frame
    field_of_view: FieldOfView
    quality: QualityMeasures
    patches: int
    grid: tuple[int, int]
    checksum: int


@dataclass(frozen=True, config=_STRICT)
class JournalEntry:
    """A photograph's outcome.  sha256: of its file; none where that could not be read.

    stored: it was taken.  skipped: the reason.  Neither: its bytes are those of an earlier one.
    unreached: it was skipped because its file could not be read: it is tried again after all others.
    again: its number in the list, where it was; otherwise that is the number of the line.
    """

    sha256: str | None
    stored: PhotoFacts | None = None
    skipped: str | None = None
    unreached: bool = False
    again: int | None = None


_MORE_PACKAGES: Final = ("resad", "scikit-learn")
"""Beside those of `runtime.packages`, what decides a bank: the code that makes features, and the projection."""
_INPUTS_JSON: Final = TypeAdapter(Inputs)
_LINE_JSON: Final = TypeAdapter(JournalEntry)


def build_inputs(
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
    return _INPUTS_JSON.dump_json(inputs, indent=2)


def check_inputs(path: Path, now: Inputs, listed: Sequence[ReferencePhoto]) -> None:
    """Raises `SettingError`, naming the first thing that differs between those in `path` and `now`."""
    try:
        there = _INPUTS_JSON.validate_json(path.read_bytes())
    except (ValidationError, OSError) as error:
        raise SettingError(_refusal(f"{path} cannot be read")) from error
    if there.photos != now.photos:
        raise SettingError(_refusal(_photos_differ(there.photos, now.photos, listed)))
    before, after = (
        dict(_leaves(_INPUTS_JSON.dump_python(one, mode="json", exclude={"photos"}))) for one in (there, now)
    )
    for name in before | after:
        if before.get(name) != after.get(name):
            raise SettingError(_refusal(f"{name} was {before.get(name)}, now it is {after.get(name)}"))


def check_content(lines: Sequence[JournalEntry], listed: Sequence[ReferencePhoto]) -> None:
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


def entry_json(line: JournalEntry) -> bytes:
    """One line of the journal."""
    return _LINE_JSON.dump_json(line) + b"\n"


def read_journal(path: Path) -> list[JournalEntry]:
    """The lines that are whole: the last one may have been cut short."""
    lines = []
    for text in path.read_bytes().splitlines(keepends=True) if path.is_file() else ():
        try:
            lines.append(_LINE_JSON.validate_json(text))
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


_INPUTS: Final = "inputs.json"
_JOURNAL: Final = "photos.jsonl"
_COVERED: Final = "coreset.sha256"
"""A digest of the photographs, in order, whose patches the greedy picks from."""


class BuildState:
    """The state of a build in a folder.

    Left without an error the folder is deleted; so it is after an error that would come again (a `ResadError`),
    unless the work was taken up from before, and where nothing is stored yet.  Otherwise it stays, to be resumed.

    Args:
        folder: to be made; what an interrupted build left there goes on, or is deleted.
        inputs: of this build.
        listed: all photographs, in order.
        resume: go on where there is something to go on with.
        batch: photographs that are encoded together; only whole batches are taken up.
    Raises:
        SettingError: the work that is there is of other inputs; it stays.
    """

    def __init__(
        self, folder: Path, inputs: Inputs, listed: Sequence[ReferencePhoto], *, resume: bool, batch: int
    ) -> None:
        self.folder, self.listed = folder, listed
        self._keeps_crops = inputs.crops
        self.resumed = resume and folder.is_dir()
        lines: list[JournalEntry] = []
        if self.resumed:
            check_inputs(folder / _INPUTS, inputs, listed)
            lines = read_journal(folder / _JOURNAL)
            check_content(lines, listed)
        else:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            write_atomically(folder / _INPUTS, inputs_json(inputs))
        self.store = FeatureStore(folder / "features")
        self.references: list[Reference] = []
        self.seen: dict[str, ReferencePhoto] = {}
        """Content hash -> the photograph that was taken."""
        self.left_aside: list[Skipped | Duplicate] = []
        unreached = self._recall(lines, batch)
        self._numbers = (*range(self.done + len(unreached), len(listed)), *unreached)
        self._noted, self._first_again = 0, len(self._numbers) - len(unreached)

    def __enter__(self) -> "BuildState":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        again = isinstance(error, ResadError) and not self.resumed
        if error is None or again or not self.done:
            shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def done(self) -> int:
        """How many of the listed photographs have an outcome."""
        return len(self.references) + len(self.left_aside)

    @property
    def todo(self) -> list[ReferencePhoto]:
        """What had no outcome when it was taken up: the rest of the list, then what could not be read before."""
        return [self.listed[number] for number in self._numbers]

    @property
    def points(self) -> Path:
        """Where the greedy's points may lie."""
        return self.folder / "points"

    def stored(self) -> list[PhotoFacts]:
        """What is written down of each photograph in the store."""
        return [line.stored for line in read_journal(self.folder / _JOURNAL) if line.stored is not None]

    def checkpoint(self) -> Checkpoint:
        """Of the greedy over the references that there are now: what was written of one over others is deleted."""
        file, of_whom = self.folder / "coreset.npz", self.folder / _COVERED
        now = hashlib.sha256("".join(one.content_sha256 for one in self.references).encode()).hexdigest()
        if not of_whom.is_file() or of_whom.read_text() != now:
            file.unlink(missing_ok=True)
            write_atomically(of_whom, now.encode())
        return Checkpoint(file)

    @property
    def crops(self) -> Path | None:
        """The folder in which `evidence/` holds the photographs' squares, if they are kept."""
        return self.folder if self._keeps_crops else None

    def note(
        self, outcomes: Sequence[LoadedPhoto | Skipped | Duplicate], features: Sequence[PatchFeatures]
    ) -> None:
        """Write down the next outcomes of `todo`; `features` are those of the photographs taken among them."""
        patches = iter(features)
        for outcome in outcomes:
            if isinstance(outcome, LoadedPhoto):
                self._keep_square(outcome)
                self._keep(reference_of(outcome), next(patches))
            else:
                reason = outcome.reason if isinstance(outcome, Skipped) else None
                unreached = isinstance(outcome, Skipped) and outcome.unreached
                # What could not be read is not asked for its bytes, which might be there by now.
                content = None if unreached else file_sha256(outcome.path)
                self._write(JournalEntry(content, skipped=reason, unreached=unreached))
                self.left_aside.append(outcome)

    def _keep_square(self, taken: LoadedPhoto) -> None:
        if self.crops is not None:
            square = self.crops / file_name(photo_id(len(self.references) + 1))
            square.parent.mkdir(exist_ok=True)
            write_atomically(square, square_jpeg(taken.photo.pixels))

    def _keep(self, reference: Reference, patches: PatchFeatures) -> None:
        self.store.append(patches)
        stored = PhotoFacts(
            perceptual_hash=reference.perceptual_hash,
            frame=reference.frame,
            field_of_view=reference.field_of_view,
            quality=reference.quality,
            patches=len(patches.cells),
            grid=patches.grid,
            checksum=checksum(patches),
        )
        self._write(JournalEntry(reference.content_sha256, stored=stored))
        self._take(reference)

    def _take(self, reference: Reference) -> None:
        self.seen[reference.content_sha256] = reference.source
        self.references.append(reference)

    def _write(self, line: JournalEntry) -> None:
        if self._noted >= self._first_again:
            line = replace(line, again=self._numbers[self._noted])
        self._noted += 1
        with (self.folder / _JOURNAL).open("ab") as file:
            file.write(entry_json(line))

    def _recall(self, lines: Sequence[JournalEntry], batch: int) -> list[int]:
        """Take up the outcomes up to the last whole batch whose features are whole, and forget the rest.

        Returns which of the listed photographs they say could not be read.
        """
        stored = [line.stored for line in lines if line.stored is not None]
        whole = self.store.recall(
            [one.grid for one in stored], [one.patches for one in stored], [one.checksum for one in stored]
        )
        ended = whole - (whole % batch if len(lines) < len(self.listed) or whole < len(stored) else 0)
        self.store.forget(ended)
        kept: list[JournalEntry] = []
        unreached: set[int] = set()
        for line in lines:
            if line.stored is not None and len(self.references) == ended:
                break
            number = len(kept) if line.again is None else line.again
            kept.append(line)
            if line.unreached:
                unreached.add(number)
                continue
            unreached.discard(number)
            self._remember(line, self.listed[number])
        write_atomically(self.folder / _JOURNAL, b"".join(map(entry_json, kept)))
        return sorted(unreached)

    def _remember(self, line: JournalEntry, source: ReferencePhoto) -> None:
        if line.stored is not None and line.sha256 is not None:
            one = line.stored
            self._take(
                Reference(source, line.sha256, one.perceptual_hash, one.frame, one.field_of_view, one.quality)
            )
        elif line.skipped is not None:
            self.left_aside.append(Skipped(source.path, line.skipped))
        else:
            first = self.seen[line.sha256 or ""]
            self.left_aside.append(Duplicate(source.path, first.path))
