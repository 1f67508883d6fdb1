"""Agreement of readers who marked the same photographs, with each other and with the index.

What a reader marked on a photograph with one kind of lesion is drawn as one mask of the photograph's pixels.  A
region is a connected region of such a mask; pixels that touch at a corner connect.  Two regions touch if they have
a pixel in common.  A reader counts for a photograph with at least one mark there: without any the photograph may
be healthy to the reader, or never have been shown.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass as plain_dataclass
from dataclasses import field
from hashlib import sha256
from itertools import combinations
from pathlib import Path
from typing import Annotated, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from pydantic import Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass
from resad_client.text import counted
from scipy import ndimage

from lab.evaluate import bootstrap
from lab.evaluate.bootstrap import RESAMPLES, Figure, Floats, Labels, Pool
from lab.evaluate.froc import FrocPoint, LesionRegions, PhotoSummary, froc, summarize
from lab.evaluate.measuring import IndexMatch, IndexPhoto, match_index
from resad.config import PhotoLimits
from resad.errors import PhotoError, SettingError, naming
from resad.false_regions import FindingLevel
from resad.loaded_index import LoadedIndex
from resad.marks import HEALTHY_LABELS, MOST_POINTS, check_label
from resad.photo import read_bytes
from resad.preparation import Frame, prepare

RATES: Final = (0.25, 1.0, 4.0)
"""False regions per healthy photograph at whose levels the index is compared with readers."""
NO_NAME: Final = "(no name)"
"""The reader of marks without a name."""
_FEW: Final = 5
"""Photographs below which an interval says little."""
_CORNERS: Final = np.ones((3, 3))

_Coordinate = Annotated[float, Field(ge=-1e6, le=1e6, allow_inf_nan=False)]
_Side = Annotated[int, Field(gt=0)]


@dataclass(frozen=True)
class ReaderMark:
    """A mark of the file.  contour: polygon, pixel indexes of the photograph; empty where a mask was read."""

    label: str
    contour: Annotated[tuple[tuple[_Coordinate, _Coordinate], ...], Field(max_length=MOST_POINTS)]
    withdrawn: bool = False


@dataclass(frozen=True)
class _FileEntry:
    """What a reader marked on a photograph at one time."""

    content_sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    width: _Side
    height: _Side
    reader: str
    marks: tuple[ReaderMark, ...]


@dataclass(frozen=True)
class _File:
    photos: tuple[_FileEntry, ...]


_FILE: Final = TypeAdapter(_File)


@plain_dataclass(frozen=True, slots=True)
class PhotoMarks:
    """A photograph and each reader's marks on it, without those that were taken back or have no contour."""

    content_sha256: str
    width: int
    height: int
    readers: Mapping[str, tuple[ReaderMark, ...]]


@plain_dataclass(frozen=True, slots=True)
class ReadersMarks:
    """The marks of a file.  readers: in the order of their names.  without_contour: marks that were left out."""

    photos: tuple[PhotoMarks, ...]
    readers: tuple[str, ...]
    without_contour: int


def read_readers_marks(path: Path, limits: PhotoLimits) -> ReadersMarks:
    """The marks in a file that `resad-indexer marks export` wrote.

    Raises `SettingError` for a file that cannot be read, is none of these, or has no mark that counts.
    """
    try:
        entries = _FILE.validate_json(path.read_bytes()).photos
    except OSError as error:
        raise SettingError(f"{path} cannot be read: {error.strerror}") from error
    except ValidationError as error:
        fault = error.errors(include_url=False, include_context=False, include_input=False)[0]
        where = ".".join(str(part) for part in fault["loc"])
        reason = f"{where}: {fault['msg']}" if where else fault["msg"]
        raise SettingError(f"{path} is no file of `resad-indexer marks export`: {reason}") from error
    sizes: dict[str, tuple[int, int]] = {}
    marks: dict[str, dict[str, list[ReaderMark]]] = {}
    without_contour = 0
    for number, entry in enumerate(entries, start=1):
        where = f"{path}, entry {number}"
        _check_size(entry, sizes.setdefault(entry.content_sha256, (entry.width, entry.height)), limits, where)
        for mark in entry.marks:
            if mark.withdrawn:
                continue
            _check_mark(mark, where)
            if mark.contour:
                reader = entry.reader.strip() or NO_NAME
                marks.setdefault(entry.content_sha256, {}).setdefault(reader, []).append(mark)
            else:
                without_contour += 1
    if not marks:
        reason = f" ({counted(without_contour, 'mark')} without a contour left out)" if without_contour else ""
        raise SettingError(f"{path} has no mark with a contour that was not taken back{reason}")
    photos = tuple(
        PhotoMarks(content, *sizes[content], {reader: tuple(of_reader[reader]) for reader in sorted(of_reader)})
        for content, of_reader in marks.items()
    )
    readers = sorted({name for photo in photos for name in photo.readers})
    return ReadersMarks(photos, tuple(readers), without_contour)


def _check_size(entry: _FileEntry, size: tuple[int, int], limits: PhotoLimits, where: str) -> None:
    if (entry.width, entry.height) != size:
        raise SettingError(
            f"{where}: the photograph is {entry.width} x {entry.height} px, in an entry before it "
            f"{size[0]} x {size[1]}"
        )
    if entry.width * entry.height > limits.max_pixels:
        raise SettingError(
            f"{where}: the photograph is {entry.width} x {entry.height} px; at most {limits.max_pixels:,} are read"
        )


def _check_mark(mark: ReaderMark, where: str) -> None:
    try:
        check_label(mark.label)
    except SettingError as error:
        raise SettingError(f"{where}: {error}") from error
    if len(mark.contour) in (1, 2):
        points = counted(len(mark.contour), "point")
        raise SettingError(f"{where}: a region of {mark.label} has {points}; at least 3 are needed")


def find_marked_photos(paths: Iterable[Path], hashes: Iterable[str], limits: PhotoLimits) -> dict[str, Path]:
    """The first file of each content hash, where there is one; files that are no photographs are passed over."""
    wanted, files = set(hashes), dict[str, Path]()
    for path in paths:
        if len(files) == len(wanted):
            break
        with suppress(PhotoError):
            content = sha256(read_bytes(path, limits)).hexdigest()
            if content in wanted:
                files.setdefault(content, path)
    return files


@plain_dataclass(frozen=True, slots=True, eq=False)
class KindRegions:
    """What a reader marked with one kind of lesion.

    mask: bool (H, W).  pixel: places of its pixels in the flattened mask, (n,).  region: number of each one's
    region, (n,), from 0.  count: regions.
    """

    mask: Labels
    pixel: NDArray[np.intp]
    region: NDArray[np.intp]
    count: int

    def touching(self, mask: Labels) -> Labels:
        """bool (count,): the regions that have a pixel of `mask`, bool (H, W)."""
        touches = np.zeros(self.count, np.bool_)
        touches[self.region[mask.ravel()[self.pixel]]] = True
        return touches


@plain_dataclass(frozen=True, slots=True, eq=False)
class DrawnMarks:
    """A reader's marks on a photograph.  lesion, healthy: bool (H, W), of all kinds and of all healthy labels."""

    kinds: Mapping[str, KindRegions]
    lesion: Labels
    healthy: Labels


def draw_marks(marks: Sequence[ReaderMark], width: int, height: int) -> DrawnMarks:
    """The marks as masks: the pixels inside their polygons and on the outlines."""
    masks = {label: _mask(marks, label, width, height) for label in sorted({mark.label for mark in marks})}
    nothing = np.zeros((height, width), np.bool_)
    kinds = {label: _regions(mask) for label, mask in masks.items() if label not in HEALTHY_LABELS}
    return DrawnMarks(
        kinds,
        np.logical_or.reduce([nothing, *(kind.mask for kind in kinds.values())]),
        np.logical_or.reduce([nothing, *(masks[label] for label in HEALTHY_LABELS if label in masks)]),
    )


def _mask(marks: Sequence[ReaderMark], label: str, width: int, height: int) -> Labels:
    image = Image.new("1", (width, height))
    draw = ImageDraw.Draw(image)
    for mark in marks:
        if mark.label == label:
            draw.polygon(list(mark.contour), fill=1, outline=1)
    return np.array(image, dtype=np.bool_)


def _regions(mask: Labels) -> KindRegions:
    labels, count = ndimage.label(mask, _CORNERS)
    pixel = np.flatnonzero(mask)
    return KindRegions(mask, pixel, labels.ravel()[pixel].astype(np.intp) - 1, count)


@plain_dataclass(frozen=True, slots=True)
class RegionCounts:
    """One reader's regions of lesions on a photograph, against another reader's marks there.

    touched: by a region of the other reader's lesions.  same_kind: by one of the same kind.  called_healthy: by a
    healthy mark, and by no lesion.
    """

    regions: int
    touched: int
    same_kind: int
    called_healthy: int


@plain_dataclass(frozen=True, slots=True)
class Comparison:
    """Two readers' marks on a photograph.  common, areas: px marked as lesion by both, and by each."""

    common: int
    areas: tuple[int, int]
    first: RegionCounts
    second: RegionCounts


def compare(first: DrawnMarks, second: DrawnMarks) -> Comparison:
    """Compare two readers' marks on the same photograph."""
    return Comparison(
        int((first.lesion & second.lesion).sum()),
        (int(first.lesion.sum()), int(second.lesion.sum())),
        _count(first, second),
        _count(second, first),
    )


def _count(marks: DrawnMarks, against: DrawnMarks) -> RegionCounts:
    regions = touched = same_kind = called_healthy = 0
    for kind, of_kind in marks.kinds.items():
        by_lesion, by_healthy = of_kind.touching(against.lesion), of_kind.touching(against.healthy)
        regions += of_kind.count
        touched += int(by_lesion.sum())
        called_healthy += int((by_healthy & ~by_lesion).sum())
        if kind in against.kinds:
            same_kind += int(of_kind.touching(against.kinds[kind].mask).sum())
    return RegionCounts(regions, touched, same_kind, called_healthy)


@dataclass(frozen=True)
class RegionAgreement:
    """One reader's regions of lesions, against another reader's marks.

    touched: share that a region of the other reader's lesions touches; null without regions.  called_healthy:
    number that a healthy mark touches, and no lesion.
    """

    regions: int
    touched: Figure | None
    called_healthy: int


@dataclass(frozen=True)
class PairAgreement:
    """Two readers on the photographs that both marked.

    dice: of the area marked as lesion, mean over photographs where either marked any; null without such.
    of_first, of_second: regions of either.  same_kind: of the regions of both that touch one of the other's, the
    share that touches one of the same kind; null without such.
    """

    first: str
    second: str
    photos: int
    dice: Figure | None
    of_first: RegionAgreement
    of_second: RegionAgreement
    same_kind: Figure | None


def pair_agreement(first: str, second: str, photos: Sequence[Comparison]) -> PairAgreement:
    """The agreement of two readers, with intervals over the photographs that both marked."""
    common = np.array([photo.common for photo in photos], np.float64)
    areas = np.array([sum(photo.areas) for photo in photos], np.float64)
    both = [(photo.first, photo.second) for photo in photos]
    return PairAgreement(
        first,
        second,
        len(photos),
        ratio(2 * common / np.maximum(areas, 1), (areas > 0).astype(np.float64)),
        _region_agreement([photo.first for photo in photos]),
        _region_agreement([photo.second for photo in photos]),
        ratio(
            np.array([a.same_kind + b.same_kind for a, b in both], np.float64),
            np.array([a.touched + b.touched for a, b in both], np.float64),
        ),
    )


def _region_agreement(photos: Sequence[RegionCounts]) -> RegionAgreement:
    regions = np.array([photo.regions for photo in photos], np.float64)
    touched = np.array([photo.touched for photo in photos], np.float64)
    called_healthy = sum(photo.called_healthy for photo in photos)
    return RegionAgreement(int(regions.sum()), ratio(touched, regions), called_healthy)


def ratio(top: Floats, bottom: Floats) -> Figure | None:
    """Sum of `top` over sum of `bottom`, (n,) of n photographs, with its interval; None where the latter is 0."""
    return _ratio(top, bottom) if bottom.any() else None


def _ratio(top: Floats, bottom: Floats) -> Figure:
    nothing = np.zeros((len(bottom), 0))
    pool = Pool(nothing, nothing, np.ones(len(bottom), np.bool_), bottom > 0)
    return bootstrap.figure(
        float(top.sum() / bottom.sum()),
        lambda weights: np.asarray((weights @ top) / (weights @ bottom)),
        pool,
        bootstrap.fresh_generator(),
        RESAMPLES,
    )


@dataclass(frozen=True)
class ReaderFroc:
    """The index against one reader, on the photographs with a file that this reader marked.

    points: at the index's own levels; empty without lesions in the field of view, or without levels.
    """

    reader: str
    photos: int
    points: tuple[FrocPoint, ...]


@dataclass(frozen=True)
class UnmarkedRegions:
    """Regions of the index above one of its levels, per photograph with a file.

    unmarked: those that touch no mark of any reader.  called_healthy: those that touch a healthy mark, and no
    reader's lesion.
    """

    rate: float
    level: float
    unmarked: Figure
    called_healthy: Figure


@dataclass(frozen=True)
class Agreement:
    """Agreement of readers with each other, and of the index with each of them.

    photos: that were marked.  with_file: of these, those that were found and scored.  without_contour: marks left
    out.  taught: marked photographs whose marks this version of the index has learned.  notes: what limits the
    figures, in words.
    """

    readers: tuple[str, ...]
    photos: int
    with_file: int
    without_contour: int
    taught: int
    pairs: tuple[PairAgreement, ...]
    index: tuple[ReaderFroc, ...]
    unmarked: tuple[UnmarkedRegions, ...]
    notes: tuple[str, ...]


@plain_dataclass(frozen=True, slots=True, eq=False)
class ScoredMarks:
    """A photograph's regions of the index.  readers: against the lesions of each reader who marked it.

    lesion, any_mark: against all readers' lesions, and against all their marks.
    """

    readers: Mapping[str, PhotoSummary]
    lesion: PhotoSummary
    any_mark: PhotoSummary


def summarize_marks(
    values: NDArray[np.float32],
    scored: Labels,
    frame: Frame,
    drawn: Mapping[str, DrawnMarks],
    kinds: Mapping[str, Sequence[str]],
) -> ScoredMarks:
    """The regions of an anomaly map against readers' marks.

    Args:
        values, scored, frame: as of `froc.summarize`.
        drawn: the marks of each reader of this photograph.
        kinds: the kinds of lesions of each reader, on any photograph.
    """
    readers = {}
    for reader, marks in drawn.items():
        lesions: dict[str | None, Labels] = {kind: regions.mask for kind, regions in marks.kinds.items()}
        readers[reader] = summarize(values, scored, frame, lesions, kinds[reader])
    lesion = np.logical_or.reduce([marks.lesion for marks in drawn.values()])
    any_mark = np.logical_or.reduce([lesion, *(marks.healthy for marks in drawn.values())])
    return ScoredMarks(
        readers,
        summarize(values, scored, frame, {None: lesion}, ()),
        summarize(values, scored, frame, {None: any_mark}, ()),
    )


def reader_froc(
    reader: str, photos: Sequence[PhotoSummary], kinds: Sequence[str], levels: Sequence[FindingLevel]
) -> ReaderFroc:
    """The index against one reader at `levels`."""
    # No photograph counts as healthy: what a reader left unmarked was perhaps not looked at.
    diseased = np.ones(len(photos), np.bool_)
    curve = froc(LesionRegions(tuple(photos), tuple(kinds)), diseased, levels) if photos else None
    return ReaderFroc(reader, len(photos), () if curve is None else curve.index_levels)


def unmarked_regions(photos: Sequence[ScoredMarks], rate: float, level: float) -> UnmarkedRegions:
    """Regions above `level` that no reader marked, and those called healthy, per photograph of one or more."""
    unmarked = np.array([photo.any_mark.regions.count(level) for photo in photos], np.float64)
    no_lesion = np.array([photo.lesion.regions.count(level) for photo in photos], np.float64)
    each = np.ones(len(photos))
    return UnmarkedRegions(rate, level, _ratio(unmarked, each), _ratio(no_lesion - unmarked, each))


@plain_dataclass(slots=True, eq=False)
class _Counts:
    """What has been counted of the photographs so far."""

    pairs: dict[tuple[str, str], list[Comparison]] = field(default_factory=lambda: defaultdict(list))
    scored: list[ScoredMarks] = field(default_factory=list)
    matches: list[IndexMatch] = field(default_factory=list)


def measure_agreement(
    loaded: LoadedIndex,
    marks: ReadersMarks,
    files: Mapping[str, Path],
    limits: PhotoLimits,
    on_photo: Callable[[int], None],
    *,
    calibrated_on: Sequence[IndexPhoto] = (),
    strict: bool = False,
) -> tuple[Agreement, tuple[IndexMatch, ...]]:
    """Agreement of readers, and which of the photographs in `files`, in its order, are in the index.

    Args:
        files: of the photographs by content hash, as `find_marked_photos`; those without are not scored.
        calibrated_on: photographs that the index's calibration rests on beside its own.
    Raises:
        PhotoError: a photograph cannot be read.
        SettingError: a photograph has another size than its marks say; with `strict`, it is in the index.
    """
    kinds = {reader: _lesion_kinds(marks.photos, reader) for reader in marks.readers}
    numbers = {content: number for number, content in enumerate(files)}
    counts = _Counts()
    for marked in marks.photos:
        drawn = {name: draw_marks(of, marked.width, marked.height) for name, of in marked.readers.items()}
        for pair in combinations(sorted(drawn), 2):
            counts.pairs[pair].append(compare(drawn[pair[0]], drawn[pair[1]]))
        if (path := files.get(marked.content_sha256)) is not None:
            with naming(path):
                photo = prepare(path, loaded.manifest.config.preparation, limits)
            if (photo.frame.width, photo.frame.height) != (marked.width, marked.height):
                raise SettingError(
                    f"{path} is {photo.frame.width} x {photo.frame.height} px, its marks are of "
                    f"{marked.width} x {marked.height}"
                )
            number = numbers[marked.content_sha256]
            references = (*loaded.photos, *calibrated_on)
            counts.matches += match_index(number, path, photo, references, strict=strict)
            (detection,) = loaded.detector.detect([photo])
            counts.scored.append(
                summarize_marks(detection.anomaly_map, detection.scored, photo.frame, drawn, kinds)
            )
        on_photo(1)
    return _agreement(loaded, marks, kinds, counts), tuple(counts.matches)


def _lesion_kinds(photos: Sequence[PhotoMarks], reader: str) -> list[str]:
    labels = {mark.label for photo in photos for mark in photo.readers.get(reader, ())}
    return sorted(labels.difference(HEALTHY_LABELS))


def _agreement(
    loaded: LoadedIndex, marks: ReadersMarks, kinds: Mapping[str, Sequence[str]], counts: _Counts
) -> Agreement:
    levels = [level for level in loaded.manifest.calibration.finding_levels if level.rate in RATES]
    stated = [(level.rate, level.value) for level in levels if level.value is not None]
    without_level = [rate for rate in RATES if rate not in dict(stated)]
    learned = {record.content_sha256 for record in loaded.examples.records}
    pairs = tuple(pair_agreement(*pair, photos) for pair, photos in sorted(counts.pairs.items()))
    by_reader = {
        reader: [photo.readers[reader] for photo in counts.scored if reader in photo.readers]
        for reader in marks.readers
    }
    taught = sum(photo.content_sha256 in learned for photo in marks.photos)
    return Agreement(
        marks.readers,
        len(marks.photos),
        len(counts.scored),
        marks.without_contour,
        taught,
        pairs,
        tuple(reader_froc(reader, photos, kinds[reader], levels) for reader, photos in by_reader.items()),
        tuple(unmarked_regions(counts.scored, rate, level) for rate, level in stated) if counts.scored else (),
        tuple(_notes(marks, len(counts.scored), taught, pairs, without_level)),
    )


def _notes(
    marks: ReadersMarks,
    with_file: int,
    taught: int,
    pairs: Sequence[PairAgreement],
    without_level: Sequence[float],
) -> list[str]:
    notes = []
    if len(marks.readers) == 1:
        notes.append(f"one reader only ({marks.readers[0]}): there is no agreement of readers to measure")
    elif not pairs:
        notes.append("no photograph was marked by two readers: there is no agreement of readers to measure")
    if (few := min((pair.photos for pair in pairs), default=_FEW)) < _FEW:
        notes.append(f"two readers share {counted(few, 'photograph')} only: intervals over so few are too narrow")
    if NO_NAME in marks.readers:
        notes.append("marks without a name are taken as those of one reader")
    if marks.without_contour:
        notes.append(f"{counted(marks.without_contour, 'mark')} without a contour left out")
    if missing := len(marks.photos) - with_file:
        files = counted(missing, "marked photograph has", "marked photographs have")
        notes.append(f"{files} no file with its hash: compared between readers, not with the index")
    if taught:
        photos = counted(taught, "marked photograph")
        notes.append(f"this version of the index has learned marks of {photos}: its figures flatter; "
                     "measure the version before")  # fmt: skip
    if without_level:
        rates = ", ".join(f"{rate:g}" for rate in without_level)
        notes.append(f"the index states no level of findings for {rates} false regions: left out")
    return notes
