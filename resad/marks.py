"""Marks: what readers have said of regions of photographs, in a journal beside the index.

ROOT/NAME/MARKS/ holds one folder for each time that a photograph was marked.  A folder appears whole and is never
changed; to take a mark back another folder is added.  So two readers, or two services, lose nothing of each other.
The photograph itself is not kept: only the features of the patches that were marked, and, where the index keeps
pictures of its own photographs, the prepared square.

Nothing in the journal changes an answer.  `resad-indexer teach` makes a version of it.
"""

import json
import re
import secrets
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from pydantic import TypeAdapter, ValidationError
from resad_client.files import sync
from resad_client.records import Mark, MarkedPhoto

from resad.encoder import PatchFeatures
from resad.errors import IndexInvalid, SettingError, first_fault
from resad.index import tombstone, tombstones
from resad.manifest import Manifest
from resad.pictures.evidence import keeps_crops, square_jpeg
from resad.preparation import Frame, PreparedPhoto

MARKS: Final = "MARKS"
"""Folder of the journal, beside the versions."""
NORMAL_VARIANT: Final = "normal-variant"
ARTIFACT: Final = "artifact"
HEALTHY_LABELS: Final = (NORMAL_VARIANT, ARTIFACT)
"""What lies under such a mark is healthy: its patches count as variants."""
LESION_KINDS: Final = (
    "microaneurysm", "hemorrhage", "hard-exudate", "soft-exudate", "drusen", "neovascularization", "fibrosis",
    "laser-scar", "nevus", "atrophy", "macular-hole", "epiretinal-membrane", "retinal-detachment", "disc-swelling",
    "vein-occlusion",
)  # fmt: skip
"""Kinds of lesions to begin with; a site may use any other word."""
MOST_PATCHES: Final = 64
"""Of a mark: of more patches those are kept that differ most from one another."""
MOST_POINTS: Final = 2000
LABEL: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,39}")
_ENTRY: Final = re.compile(r"[0-9]{8}T[0-9]{12}Z-[0-9a-f]{8}")
_STAGING: Final = ".staging-"
_DESCRIPTION: Final = "marks.json"
_FEATURES: Final = "features.npz"
_SQUARE: Final = "square.jpg"
_PHOTO_ID: Final = re.compile(r"m-[0-9a-f]{8}")
_HASH: Final = re.compile(r"[0-9a-f]{64}")

Points = tuple[tuple[float, float], ...]


def check_label(label: str) -> str:
    """`label` if it is a word for a mark; raises `SettingError` otherwise."""
    if not LABEL.fullmatch(label):
        raise SettingError(
            f"{label[:60]!r} is no label of a mark: 1 to 40 of a-z, 0-9 and -, as {NORMAL_VARIANT}, {ARTIFACT}, "
            f"{LESION_KINDS[2]}"
        )
    return label


def label_of(name: str) -> str:
    """A label from a name of another program: `Hard exudate` -> `hard-exudate`; raises `SettingError`."""
    return check_label("-".join(name.lower().replace("_", " ").split()))


def is_healthy(mark: Mark) -> bool:
    """Whether the reader calls the region healthy."""
    return mark.label in HEALTHY_LABELS


_PHOTO: Final = TypeAdapter(MarkedPhoto)


@dataclass(frozen=True, slots=True, eq=False)
class MarkedPatches:
    """The kept patches of one photograph's marks.

    features: float32 (n, D).  mark: int32 (n,), number of the mark.  cell: int16 (n, 2), (y, x) on the patch grid.
    """

    features: NDArray[np.float32]
    mark: NDArray[np.int32]
    cell: NDArray[np.int16]


@dataclass(frozen=True, slots=True, eq=False)
class Entry:
    """An entry of the journal and its folder."""

    folder: Path
    photo: MarkedPhoto

    def patches(self) -> MarkedPatches:
        """The kept patches; raises `IndexInvalid` for a damaged file."""
        path = self.folder / _FEATURES
        if not self.photo.marks:
            return MarkedPatches(np.zeros((0, 0), np.float32), np.zeros(0, np.int32), np.zeros((0, 2), np.int16))
        try:
            with np.load(path, allow_pickle=False) as arrays:
                patches = MarkedPatches(arrays["features"], arrays["mark"], arrays["cell"])
        except Exception as error:  # NumPy and its zip reader raise about ten types for a damaged file
            raise IndexInvalid(f"{path} cannot be read") from error
        count = len(patches.mark)
        if (
            patches.features.dtype != np.float32
            or patches.features.shape[:1] != (count,)
            or patches.cell.shape != (count, 2)
            or np.bincount(patches.mark, minlength=1).tolist() != [mark.patches for mark in self.photo.marks]
            or not np.isfinite(patches.features).all()
        ):
            raise IndexInvalid(f"{path} does not hold the patches of its marks")
        return patches

    @property
    def square(self) -> Path | None:
        """The prepared square as JPEG, if it was kept."""
        path = self.folder / _SQUARE
        return path if path.is_file() else None


@dataclass(frozen=True, slots=True, eq=False)
class Region:
    """A region that a reader marks.  mask: bool (S, S), on the prepared square.  contour: px of the photograph."""

    label: str
    mask: NDArray[np.bool_]
    contour: Points = ()


def polygon_region(label: str, contour: Sequence[tuple[float, float]], frame: Frame) -> Region:
    """The region inside a polygon of the photograph, its outline included.

    Raises `SettingError` for fewer than three points, for too many, and for a polygon outside the scored square.
    """
    check_label(label)
    if not 3 <= len(contour) <= MOST_POINTS:
        raise SettingError(f"a region has {len(contour)} points; 3 to {MOST_POINTS} are allowed")
    # Pixel (0, 0) covers [0, 1): a contour of pixel indexes goes through their centers.
    points = [frame.to_prepared(x + 0.5, y + 0.5) for x, y in contour]
    image = Image.new("1", (frame.side, frame.side))
    ImageDraw.Draw(image).polygon([(x - 0.5, y - 0.5) for x, y in points], fill=1, outline=1)
    mask = np.asarray(image, dtype=np.bool_)
    if not mask.any():
        raise SettingError("a region lies outside the part of the photograph that is scored")
    return Region(label, mask, tuple((float(x), float(y)) for x, y in contour))


def mark_patches(
    regions: Sequence[Region], patches: PatchFeatures, distances: NDArray[np.float32], photo_id: str
) -> tuple[tuple[Mark, ...], MarkedPatches]:
    """The marks of these regions and the patches that they keep.

    Args:
        distances: float32 (N,), of the photograph's patches to the healthy ones.
    Raises:
        SettingError: a region lies outside the field of view.
    """
    marks, rows, numbers = [], [], []
    for number, region in enumerate(regions):
        inside = np.flatnonzero(_cells(region.mask, patches.grid)[tuple(patches.cells.T)])
        if not inside.size:
            raise SettingError(f"the region marked {region.label} lies outside the field of view")
        kept = inside[spread(patches.features[inside], distances[inside], MOST_PATCHES)]
        identity = f"{photo_id}-{number + 1}"
        marks.append(Mark(identity, region.label, region.contour, len(kept), float(distances[inside].max())))
        rows.append(kept)
        numbers.append(np.full(len(kept), number, np.int32))
    chosen = np.concatenate(rows) if rows else np.zeros(0, np.intp)
    mark = np.concatenate(numbers) if numbers else np.zeros(0, np.int32)
    return tuple(marks), MarkedPatches(patches.features[chosen], mark, patches.cells[chosen])


def _cells(mask: NDArray[np.bool_], grid: tuple[int, int]) -> NDArray[np.bool_]:
    """bool (h, w): the cells that have a pixel of the mask, bool (S, S)."""
    y, x = np.nonzero(mask)
    cells = np.zeros(grid, np.bool_)
    cells[y * grid[0] // mask.shape[0], x * grid[1] // mask.shape[1]] = True
    return cells


def spread(features: NDArray[np.float32], distances: NDArray[np.float32], count: int) -> NDArray[np.intp]:
    """At most `count` rows that cover the others best: the greedy k-center, from the largest of `distances` on."""
    if len(features) <= count:
        return np.arange(len(features))
    chosen = [int(distances.argmax())]
    away = np.full(len(features), np.inf)
    while len(chosen) < count:
        away = np.minimum(away, np.linalg.norm(features - features[chosen[-1]], axis=1))
        chosen.append(int(away.argmax()))
    return np.sort(np.array(chosen))


def new_photo_id() -> str:
    """An id for a marked photograph."""
    return f"m-{secrets.token_hex(4)}"


def now() -> str:
    """The present time, ISO 8601, UTC."""
    return f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"


def write_entry(
    place: Path, photo: MarkedPhoto, patches: MarkedPatches | None, square: bytes | None = None
) -> Path:
    """Add an entry to the journal of ROOT/NAME, whole or not at all, and returns its folder.

    Raises `SettingError` for a photograph that was purged from the index.
    """
    refuse_purged(place, photo.content_sha256)
    journal = place / MARKS
    journal.mkdir(exist_ok=True)
    staging = journal / f"{_STAGING}{secrets.token_hex(4)}"
    staging.mkdir()
    target = journal / f"{datetime.now(UTC):%Y%m%dT%H%M%S%fZ}-{secrets.token_hex(4)}"
    try:
        (staging / _DESCRIPTION).write_bytes(_PHOTO.dump_json(photo, indent=2) + b"\n")
        if patches is not None:
            np.savez(staging / _FEATURES, features=patches.features, mark=patches.mark, cell=patches.cell)
        if square is not None:
            (staging / _SQUARE).write_bytes(square)
        for path in (*staging.iterdir(), staging):
            sync(path)
        staging.rename(target)
        sync(journal)
        # A purge that began meanwhile has not seen this entry.
        refuse_purged(place, photo.content_sha256)
    except BaseException:
        shutil.rmtree(target, ignore_errors=True)
        raise
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return target


def mark_photo(
    place: Path,
    manifest: Manifest,
    photo: PreparedPhoto,
    patches: PatchFeatures,
    distances: NDArray[np.float32],
    regions: Sequence[Region],
    reader: str,
) -> MarkedPhoto:
    """Add a photograph's marks to the journal of ROOT/NAME; its pixels only where the index keeps such pictures.

    Args:
        patches, distances: of the photograph, as the index's detector gives them.
    Raises:
        SettingError: there is no region, one lies outside the field of view, or the photograph was purged.
    """
    if not regions:
        raise SettingError("no region is marked")
    photo_id = new_photo_id()
    marks, kept = mark_patches(regions, patches, distances, photo_id)
    marked = MarkedPhoto(
        photo_id, photo.content_hash, photo.frame.width, photo.frame.height, reader, now(), manifest.version,
        manifest.fingerprint, marks,
    )  # fmt: skip
    write_entry(place, marked, kept, square_jpeg(photo.pixels) if keeps_crops(manifest) else None)
    return marked


def refuse_purged(place: Path, content_sha256: str) -> None:
    """Raise `SettingError` for a photograph that was purged from ROOT/NAME."""
    if tombstone(content_sha256) in tombstones(place):
        raise SettingError(f"this photograph was purged from {place.name}: it cannot be marked")


def read_entries(place: Path) -> tuple[Entry, ...]:
    """The journal of ROOT/NAME, oldest entry first; raises `IndexInvalid` for a damaged one."""
    return tuple(_read(folder) for folder in entry_folders(place))


def _read(folder: Path) -> Entry:
    try:
        photo = _PHOTO.validate_json((folder / _DESCRIPTION).read_bytes())
        if not _PHOTO_ID.fullmatch(photo.id) or not _HASH.fullmatch(photo.content_sha256):
            raise IndexInvalid(f"{folder / _DESCRIPTION}: no journal has such an id")
        for number, mark in enumerate(photo.marks, start=1):
            if mark.id != f"{photo.id}-{number}" or not 1 <= mark.patches <= MOST_PATCHES:
                raise IndexInvalid(f"{folder / _DESCRIPTION}: mark {number} is none that was written")
            check_label(mark.label)
        return Entry(folder, photo)
    except SettingError as error:
        raise IndexInvalid(f"{folder / _DESCRIPTION}: {error}") from error
    except ValidationError as error:
        raise IndexInvalid(f"{folder / _DESCRIPTION}: {first_fault(error)}") from error
    except OSError as error:
        raise IndexInvalid(f"{folder / _DESCRIPTION} cannot be read: {error.strerror}") from error


def entry_folders(place: Path) -> list[Path]:
    """Folders of the journal's entries, oldest first."""
    journal = place / MARKS
    return sorted(path for path in journal.iterdir() if _ENTRY.fullmatch(path.name)) if journal.is_dir() else []


def valid_marks(entries: Iterable[Entry]) -> Iterator[tuple[Entry, int, Mark]]:
    """The marks that were not taken back: entry, number of the mark in it, mark."""
    entries = tuple(entries)
    withdrawn = {name for entry in entries for name in entry.photo.withdrawn}
    for entry in entries:
        for number, mark in enumerate(entry.photo.marks):
            if mark.id not in withdrawn:
                yield entry, number, mark


def withdraw(place: Path, ids: Sequence[str], reader: str) -> tuple[str, ...]:
    """Take marks back by id, and returns the ids.

    Raises `SettingError` for an id that is of no mark, or of one that was taken back before.
    """
    marked = {mark.id: entry for entry, _, mark in valid_marks(read_entries(place))}
    missing = [name for name in ids if name not in marked]
    if missing or not ids:
        raise SettingError(f"{place.name} has no mark {', '.join(missing) or 'without an id'}")
    for name in dict.fromkeys(ids):
        photo = marked[name].photo
        entry = MarkedPhoto(
            new_photo_id(), photo.content_sha256, photo.width, photo.height, reader, now(), photo.version,
            photo.fingerprint, (), (name,),
        )  # fmt: skip
        write_entry(place, entry, None)
    return tuple(dict.fromkeys(ids))


def doomed_entries(place: Path, hashes: frozenset[str]) -> list[Path]:
    """Folders of the journal that a purge of these photographs deletes: theirs, damaged ones, and leftovers."""
    journal = place / MARKS
    folders = list(journal.glob(f"{_STAGING}*")) if journal.is_dir() else []
    for folder in entry_folders(place):
        try:
            if _read(folder).photo.content_sha256 in hashes:
                folders.append(folder)
        except IndexInvalid:
            folders.append(folder)  # nobody can tell whose marks it holds
    return folders


def marked_hashes(place: Path) -> frozenset[str]:
    """Content hashes of the photographs in the journal of ROOT/NAME; damaged entries are passed over."""
    hashes = set()
    for folder in entry_folders(place):
        with suppress(IndexInvalid):
            hashes.add(_read(folder).photo.content_sha256)
    return frozenset(hashes)


def journal_json(entries: Iterable[Entry]) -> str:
    """All marks as JSON, with those that were taken back marked as such."""
    entries = tuple(entries)
    valid = {mark.id for _, _, mark in valid_marks(entries)}
    photos = []
    for entry in entries:
        if not entry.photo.marks:
            continue
        document: dict[str, Any] = _PHOTO.dump_python(entry.photo, mode="json")
        del document["withdrawn"]
        for mark in document["marks"]:
            mark["withdrawn"] = mark["id"] not in valid
        photos.append(document)
    return json.dumps({"photos": photos}, indent=2) + "\n"
