"""State of a build on disk (ROOT/NAME/.work), with which an interrupted build continues.

It holds the features of the photographs that are done, a journal with a line of JSON for each, and the coreset's
checkpoint.  No file name is written: the journal knows a photograph by its place in the list and a digest.  The
state survives the process, however that ends; it is not secured against a power cut.  It is never served.
"""

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
from resad_client.files import write_atomically
from resad_client.text import counted

from indexer.build.feature_store import FeatureStore
from indexer.build.references import LoadedPhoto, PhotoFacts, Reference, photo_id, reference_of
from indexer.coreset.k_center import Checkpoint
from indexer.photos.listing import Duplicate, ReferencePhoto, Skipped
from resad import runtime
from resad.config import MethodConfig, PhotoLimits, StoredMethodConfig
from resad.encoder import PatchFeatures
from resad.errors import ResadError, SettingError
from resad.pictures.evidence import file_name, square_jpeg
from resad.runtime import PackageVersion

_STRICT: Final = ConfigDict(extra="forbid")


@dataclass(frozen=True, config=_STRICT)
class Inputs:
    """Everything that decides which features come out; a build continues only with the same inputs.

    device: its kind.  packages: everything that computes, this package included.  photos: for each listed
    photograph a digest of its path and of its row in the CSV.  crops: pictures of the photographs are kept.
    """

    config: StoredMethodConfig
    limits: PhotoLimits
    weights: str
    device: str
    packages: tuple[PackageVersion, ...]
    photos: tuple[str, ...]
    crops: bool = False


@dataclass(frozen=True, config=_STRICT)
class JournalEntry:
    """The outcome of a photograph.

    sha256: of its file; None if it could not be read.  stored: the facts, if its features are stored.
    skipped: the reason, if it was skipped.  With neither it is a copy of an earlier photograph.
    unreached: its file could not be read; it is tried again after all others.
    again: its number in the list, if it was tried again; otherwise that is the number of the line.
    """

    sha256: str | None
    stored: PhotoFacts | None = None
    skipped: str | None = None
    unreached: bool = False
    again: int | None = None


_MORE_PACKAGES: Final = ("resad", "scikit-learn")
"""Besides those of `runtime.packages` these decide a bank: the code that makes features, and the projection."""
_INPUTS_JSON: Final = TypeAdapter(Inputs)
_ENTRY_JSON: Final = TypeAdapter(JournalEntry)
_INPUTS: Final = "inputs.json"
_JOURNAL: Final = "photos.jsonl"
_COVERED: Final = "coreset.sha256"
"""A digest of the photographs, in order, whose patches the checkpoint is about."""


class BuildState:
    """A build's state in a folder.

    At the end of a `with` block the folder is deleted, unless the block failed with an error that may not come
    again (any but a `ResadError`) after some photograph was done.  A state that was resumed stays after any error.

    Args:
        folder: to be made; the state of an interrupted build there is resumed or deleted.
        inputs: of this build.
        listed: all photographs, in order.
        resume: continue the state that is there, if any.
        batch: photographs that are encoded together; only whole batches are resumed.
    Raises:
        SettingError: the state that is there is of other inputs; it stays.
    """

    def __init__(
        self, folder: Path, inputs: Inputs, listed: Sequence[ReferencePhoto], *, resume: bool, batch: int
    ) -> None:
        self.folder, self.listed = folder, listed
        self._keeps_crops = inputs.crops
        self.resumed = resume and folder.is_dir()
        entries: list[JournalEntry] = []
        if self.resumed:
            check_inputs(folder / _INPUTS, inputs, listed)
            entries = read_journal(folder / _JOURNAL)
            check_content(entries, listed)
        else:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            write_atomically(folder / _INPUTS, inputs_json(inputs))
        self.store = FeatureStore(folder / "features")
        self.references: list[Reference] = []
        self.unused: list[Skipped | Duplicate] = []
        self.by_content: dict[str, ReferencePhoto] = {}
        """Content hash -> photograph, of those whose features are stored."""
        unreached = self._resume(entries, batch)
        self._numbers = (*range(self.done + len(unreached), len(listed)), *unreached)
        self._recorded, self._first_retry = 0, len(self._numbers) - len(unreached)

    def __enter__(self) -> "BuildState":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        would_fail_again = isinstance(error, ResadError) and not self.resumed
        if error is None or would_fail_again or not self.done:
            shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def done(self) -> int:
        """Listed photographs that have an outcome."""
        return len(self.references) + len(self.unused)

    @property
    def todo(self) -> list[ReferencePhoto]:
        """Photographs without an outcome at the start: the rest of the list, then those that could not be read."""
        return [self.listed[number] for number in self._numbers]

    @property
    def points(self) -> Path:
        """The file for the greedy's points, if they do not fit into memory."""
        return self.folder / "points"

    def checkpoint(self) -> Checkpoint:
        """The greedy's checkpoint for the present references; a checkpoint for others is deleted."""
        file, digest_file = self.folder / "coreset.npz", self.folder / _COVERED
        hashes = "".join(reference.content_sha256 for reference in self.references)
        digest = hashlib.sha256(hashes.encode()).hexdigest()
        if not digest_file.is_file() or digest_file.read_text() != digest:
            file.unlink(missing_ok=True)
            write_atomically(digest_file, digest)
        return Checkpoint(file)

    @property
    def crops(self) -> Path | None:
        """The folder in which `evidence/` holds the photographs' squares, if they are kept."""
        return self.folder if self._keeps_crops else None

    def record(
        self, outcomes: Sequence[LoadedPhoto | Skipped | Duplicate], features: Sequence[PatchFeatures]
    ) -> None:
        """Store the next outcomes of `todo`; `features` are those of the photographs that were loaded."""
        patches = iter(features)
        for outcome in outcomes:
            if isinstance(outcome, LoadedPhoto):
                self._keep_square(outcome)
                self._store(outcome, next(patches))
            else:
                reason = outcome.reason if isinstance(outcome, Skipped) else None
                unreached = isinstance(outcome, Skipped) and outcome.unreached
                # A file that could not be read is not hashed: it might be readable by now.
                content = None if unreached else file_sha256(outcome.path)
                self._write(JournalEntry(content, skipped=reason, unreached=unreached))
                self.unused.append(outcome)

    def _keep_square(self, loaded: LoadedPhoto) -> None:
        if self.crops is not None:
            square = self.crops / file_name(photo_id(len(self.references) + 1))
            write_atomically(square, square_jpeg(loaded.photo.pixels))

    def _store(self, loaded: LoadedPhoto, patches: PatchFeatures) -> None:
        self.store.append(patches)
        reference = reference_of(loaded, patches)
        self._write(JournalEntry(reference.content_sha256, stored=reference.facts))
        self._add(reference)

    def _add(self, reference: Reference) -> None:
        self.by_content[reference.content_sha256] = reference.source
        self.references.append(reference)

    def _write(self, entry: JournalEntry) -> None:
        if self._recorded >= self._first_retry:
            entry = replace(entry, again=self._numbers[self._recorded])
        self._recorded += 1
        with (self.folder / _JOURNAL).open("ab") as file:
            file.write(entry_json(entry))

    def _resume(self, entries: Sequence[JournalEntry], batch: int) -> list[int]:
        """Take the outcomes up to the last whole batch whose features are intact, and drop the rest.

        Returns the numbers of the listed photographs that could not be read.
        """
        facts = [entry.stored for entry in entries if entry.stored is not None]
        intact = self.store.recall(
            [photo.grid for photo in facts],
            [photo.patches for photo in facts],
            [photo.checksum for photo in facts],
        )
        partial_batch = len(entries) < len(self.listed) or intact < len(facts)
        end = intact - (intact % batch if partial_batch else 0)
        self.store.truncate(end)
        resumed: list[JournalEntry] = []
        unreached: set[int] = set()
        for entry in entries:
            if entry.stored is not None and len(self.references) == end:
                break
            number = len(resumed) if entry.again is None else entry.again
            resumed.append(entry)
            if entry.unreached:
                unreached.add(number)
                continue
            unreached.discard(number)
            self._resume_photo(entry, self.listed[number])
        write_atomically(self.folder / _JOURNAL, b"".join(map(entry_json, resumed)))
        return sorted(unreached)

    def _resume_photo(self, entry: JournalEntry, source: ReferencePhoto) -> None:
        if entry.stored is not None and entry.sha256 is not None:
            self._add(Reference(source, entry.sha256, entry.stored))
        elif entry.skipped is not None:
            self.unused.append(Skipped(source.path, entry.skipped))
        else:
            first = self.by_content[entry.sha256 or ""]
            self.unused.append(Duplicate(source.path, first.path))


def build_inputs(
    config: MethodConfig,
    limits: PhotoLimits,
    weights_sha256: str,
    device: str,
    listed: Sequence[ReferencePhoto],
    *,
    crops: bool,
) -> Inputs:
    """The inputs of a build that starts now."""
    more = (PackageVersion(name, metadata.version(name)) for name in _MORE_PACKAGES)
    photos = tuple(map(photo_digest, listed))
    return Inputs(config, limits, weights_sha256, device, (*runtime.packages(), *more), photos, crops)


def photo_digest(photo: ReferencePhoto) -> str:
    """Digest of a listed photograph's path, patient, eye and camera, not of its content."""
    description = (str(photo.path.absolute()), photo.patient, photo.eye, photo.camera)
    return hashlib.sha256(repr(description).encode()).hexdigest()[:16]


def file_sha256(path: Path) -> str | None:
    """SHA-256 of a file, hexadecimal; None if it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None


def inputs_json(inputs: Inputs) -> bytes:
    """`inputs` as JSON."""
    return _INPUTS_JSON.dump_json(inputs, indent=2)


def check_inputs(path: Path, inputs: Inputs, listed: Sequence[ReferencePhoto]) -> None:
    """Raise `SettingError` naming the first difference between the stored inputs in `path` and `inputs`."""
    try:
        stored = _INPUTS_JSON.validate_json(path.read_bytes())
    except (ValidationError, OSError) as error:
        raise SettingError(_refusal(f"{path} cannot be read")) from error
    if stored.photos != inputs.photos:
        raise SettingError(_refusal(_list_difference(stored.photos, inputs.photos, listed)))
    before, after = (
        dict(_leaves(_INPUTS_JSON.dump_python(each, mode="json", exclude={"photos"}))) for each in (stored, inputs)
    )
    for name in before | after:
        if before.get(name) != after.get(name):
            raise SettingError(_refusal(f"{name} was {before.get(name)}, now it is {after.get(name)}"))


def check_content(entries: Sequence[JournalEntry], listed: Sequence[ReferencePhoto]) -> None:
    """Raise `SettingError` for the first photograph whose file has changed."""
    for number, entry in enumerate(entries):
        photo = listed[number if entry.again is None else entry.again]
        if entry.unreached:
            continue
        content = file_sha256(photo.path)
        if content is None and entry.sha256 is not None:
            raise SettingError(f"cannot resume: {photo.path} cannot be read now; try again")
        if content != entry.sha256:
            raise SettingError(_refusal(f"{photo.path} has changed since"))


def entry_json(entry: JournalEntry) -> bytes:
    """A line of the journal."""
    return _ENTRY_JSON.dump_json(entry) + b"\n"


def read_journal(path: Path) -> list[JournalEntry]:
    """The complete lines of a journal: the last one may have been cut short."""
    entries = []
    for line in path.read_bytes().splitlines(keepends=True) if path.is_file() else ():
        try:
            entries.append(_ENTRY_JSON.validate_json(line))
        except ValidationError:
            break
    return entries


def _refusal(reason: str) -> str:
    return f"cannot resume: {reason}; build without --resume to start over"


def _list_difference(before: tuple[str, ...], after: tuple[str, ...], listed: Sequence[ReferencePhoto]) -> str:
    if len(before) != len(after):
        return f"listed were {counted(len(before), 'photograph')}, now there are {len(after)}"
    number = next(number for number, (a, b) in enumerate(zip(before, after, strict=True)) if a != b)
    return (
        f"photograph {number + 1} has changed: the interrupted build had a different path, patient, eye or camera "
        f"than {listed[number].path}"
    )


def _leaves(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """`config.coreset.share` -> its value, as JSON, for every field."""
    if not isinstance(value, dict):
        yield path, json.dumps(value)
        return
    for key, below in value.items():
        yield from _leaves(below, f"{path}.{key}" if path else key)
