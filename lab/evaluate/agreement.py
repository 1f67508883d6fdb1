"""Agreement of readers who marked the same photographs, and of an index with each of them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as model
from resad_client.records import INTENDED_USE, IndexReference
from rich.table import Table
from scipy import ndimage

from indexer.photos.listing import list_photos
from lab.evaluate.bootstrap import RESAMPLES, Figure, fresh_generator
from resad.config import PhotoLimits
from resad.engine import index_reference
from resad.errors import SettingError, first_fault, naming
from resad.loaded_index import LoadedIndex
from resad.marks import HEALTHY_LABELS, Region, polygon_region
from resad.preparation import PreparedPhoto, prepare

_RATES: Final = (0.25, 1.0, 4.0)
Floats = NDArray[np.float64]


@model(frozen=True)
class _ExportedMark:
    id: str
    label: str
    contour: tuple[tuple[float, float], ...]
    withdrawn: bool = False


@model(frozen=True)
class _ExportedPhoto:
    content_sha256: str
    reader: str
    marks: tuple[_ExportedMark, ...]


@model(frozen=True)
class _Exported:
    photos: tuple[_ExportedPhoto, ...]


_EXPORTED: Final = TypeAdapter(_Exported)


@dataclass(frozen=True, slots=True)
class ReadPhotos:
    """The marks of a file: reader -> content hash -> labels and contours, px of the photograph.

    without_contour: marks that came from masks and are left out.
    """

    readers: Mapping[str, Mapping[str, tuple[tuple[str, tuple[tuple[float, float], ...]], ...]]]
    without_contour: int


def read_export(file: Path) -> ReadPhotos:
    """The file that `resad-indexer marks export` writes; raises `SettingError` for any other."""
    try:
        exported = _EXPORTED.validate_json(file.read_bytes())
    except OSError as error:
        raise SettingError(f"{file} cannot be read: {error.strerror}") from error
    except ValidationError as error:
        fault = first_fault(error)
        raise SettingError(f"{file} is not what `resad-indexer marks export` writes: {fault}") from error
    readers: dict[str, dict[str, tuple[Any, ...]]] = {}
    left_out = 0
    for photo in exported.photos:
        marks = [mark for mark in photo.marks if not mark.withdrawn]
        left_out += sum(not mark.contour for mark in marks)
        kept = tuple((mark.label, mark.contour) for mark in marks if mark.contour)
        if kept:
            of_reader = readers.setdefault(photo.reader, {})
            of_reader[photo.content_sha256] = (*of_reader.get(photo.content_sha256, ()), *kept)
    if not readers:
        raise SettingError(f"{file} has no mark with a contour")
    return ReadPhotos(readers, left_out)


@model(frozen=True)
class PairAgreement:
    """Two readers, over the photographs that both marked.

    dice: of the areas marked as lesion, kinds together.  first_touched, second_touched: share of a reader's lesion
    regions that the other's touch.  same_kind: of regions that touch, the share of one kind.  disputes: regions
    that one calls healthy and that touch a lesion of the other.
    """

    first: str
    second: str
    photos: int
    dice: Figure | None
    first_touched: Figure | None
    second_touched: Figure | None
    same_kind: Figure | None
    disputes: int


@model(frozen=True)
class ReaderLevel:
    """An index against one reader, at its own level of a rate of false regions.

    touched: share of the reader's lesion regions above the level.  unmarked: regions a photograph that the reader
    did not mark as lesion.
    """

    reader: str
    rate: float
    photos: int
    lesions: int
    touched: Figure | None
    unmarked: Figure | None


@model(frozen=True)
class Agreement:
    """The figures of `evaluate --marks`, written as JSON."""

    index: IndexReference
    pairs: tuple[PairAgreement, ...]
    readers: tuple[ReaderLevel, ...]
    missing: tuple[str, ...]
    intended_use: str = INTENDED_USE


_AGREEMENT: Final = TypeAdapter(Agreement)


def agreement_json(agreement: Agreement) -> str:
    """`agreement` as indented JSON."""
    return _AGREEMENT.dump_json(agreement, indent=2).decode()


def measure_agreement(
    marks: ReadPhotos, photos: Path, loaded: LoadedIndex, limits: PhotoLimits, on_photo: Callable[[int], None]
) -> Agreement:
    """The agreement of readers with each other and with an index.

    Args:
        photos: folder or CSV in which the marked photographs are found by content.
        on_photo: counts marked photographs that are finished, also those that are not there.
    Raises:
        SettingError: none of the marked photographs is there, or a contour lies outside its photograph.
        PhotoError: a photograph cannot be read.
    """
    wanted = {content for reader in marks.readers.values() for content in reader}
    paths = _by_content(photos, wanted)
    if not paths:
        raise SettingError(f"{photos} holds none of the {len(wanted)} photographs that were marked")
    regions: dict[str, dict[str, list[Region]]] = {reader: {} for reader in marks.readers}
    maps: dict[str, NDArray[np.float32]] = {}
    for content in sorted(wanted):
        if content in paths:
            with naming(paths[content]):
                photo = prepare(paths[content], loaded.manifest.config.preparation, limits)
            maps[content] = loaded.detector.detect([photo])[0].anomaly_map
            for reader, of_reader in marks.readers.items():
                if content in of_reader:
                    regions[reader][content] = _regions(of_reader[content], photo)
        on_photo(1)
    levels = {level.rate: level.value for level in loaded.manifest.calibration.finding_levels}
    return Agreement(
        index=index_reference(loaded.manifest),
        pairs=tuple(
            _pair(first, second, regions[first], regions[second])
            for first, second in combinations(sorted(regions), 2)
            if regions[first].keys() & regions[second].keys()
        ),
        readers=tuple(
            _reader_level(reader, rate, value, regions[reader], maps)
            for reader in sorted(regions)
            if regions[reader]
            for rate in _RATES
            if (value := levels.get(rate)) is not None
        ),
        missing=tuple(sorted(wanted - paths.keys())),
    )


def _by_content(photos: Path, wanted: set[str]) -> dict[str, Path]:
    from indexer.build.state import file_sha256

    found = ((file_sha256(photo.path), photo.path) for photo in list_photos(photos))
    return {content: path for content, path in found if content in wanted}


def _regions(marks: Sequence[tuple[str, tuple[tuple[float, float], ...]]], photo: PreparedPhoto) -> list[Region]:
    return [polygon_region(label, contour, photo.frame) for label, contour in marks]


def _lesions(regions: Sequence[Region]) -> list[Region]:
    return [region for region in regions if region.label not in HEALTHY_LABELS]


def _union(regions: Sequence[Region]) -> NDArray[np.bool_] | None:
    return np.logical_or.reduce([region.mask for region in regions]) if regions else None


def _pair(
    first: str, second: str, of_first: Mapping[str, list[Region]], of_second: Mapping[str, list[Region]]
) -> PairAgreement:
    shared = sorted(of_first.keys() & of_second.keys())
    counts = np.array([photo_agreement(of_first[content], of_second[content]) for content in shared], np.float64)
    both, area, first_hit, first_all, second_hit, second_all, same, touching, disputes = counts.T
    return PairAgreement(
        first=first,
        second=second,
        photos=len(shared),
        dice=ratio(2 * both, area),
        first_touched=ratio(first_hit, first_all),
        second_touched=ratio(second_hit, second_all),
        same_kind=ratio(same, touching),
        disputes=int(disputes.sum()),
    )


def photo_agreement(first: Sequence[Region], second: Sequence[Region]) -> tuple[int, ...]:
    """Counts of one photograph: pixels that both mark as lesion; of the first and of the second together;
    lesion regions of the first that the second's touch, and all of them; the same of the second; pairs of regions
    that touch and have one kind, and all such pairs; regions that one calls healthy and that touch a lesion.
    """
    lesions = _lesions(first), _lesions(second)
    unions = [_union(part) for part in lesions]
    areas = [0 if union is None else int(union.sum()) for union in unions]
    both = 0 if unions[0] is None or unions[1] is None else int((unions[0] & unions[1]).sum())
    pairs = [(a, b) for a in lesions[0] for b in lesions[1] if (a.mask & b.mask).any()]
    hits = [len({id(pair[place]) for pair in pairs}) for place in (0, 1)]
    healthy = [
        region
        for regions, union in ((first, unions[1]), (second, unions[0]))
        for region in regions
        if region.label in HEALTHY_LABELS and union is not None and (region.mask & union).any()
    ]
    return (
        both, sum(areas), hits[0], len(lesions[0]), hits[1], len(lesions[1]),
        sum(a.label == b.label for a, b in pairs), len(pairs), len(healthy),
    )  # fmt: skip


def _reader_level(
    reader: str,
    rate: float,
    level: float,
    regions: Mapping[str, list[Region]],
    maps: Mapping[str, NDArray[np.float32]],
) -> ReaderLevel:
    touched, lesions, unmarked = [], [], []
    for content in sorted(regions):
        marked = _lesions(regions[content])
        above = maps[content].astype(np.float64) > level
        touched.append(sum(bool((above & region.mask).any()) for region in marked))
        lesions.append(len(marked))
        labels, count = ndimage.label(above, structure=np.ones((3, 3)))
        union = _union(marked)
        hit = set() if union is None else set(np.unique(labels[union]).tolist()) - {0}
        unmarked.append(count - len(hit))
    return ReaderLevel(
        reader=reader,
        rate=rate,
        photos=len(lesions),
        lesions=sum(lesions),
        touched=ratio(np.array(touched, np.float64), np.array(lesions, np.float64)),
        unmarked=ratio(np.array(unmarked, np.float64), np.ones(len(unmarked))),
    )


def ratio(numerators: Floats, denominators: Floats) -> Figure | None:
    """A ratio of sums over photographs with its 95 % interval; None where there is nothing to divide by."""
    total = float(denominators.sum())
    if not total:
        return None
    count = len(numerators)
    weights = fresh_generator().multinomial(count, np.full(count, 1 / count), size=RESAMPLES)
    below = weights @ denominators
    values = (weights @ numerators)[below > 0] / below[below > 0]
    low, high = np.percentile(values, (2.5, 97.5))
    return Figure(float(numerators.sum()) / total, float(low), float(high))


def agreement_tables(agreement: Agreement) -> list[Table]:
    """Both parts, as the command line prints them."""
    pairs = Table(title="Readers who marked the same photographs", title_justify="left")
    for heading in (
        "readers",
        "photos",
        "Dice",
        "regions of the first touched",
        "of the second",
        "same kind",
        "disputes",
    ):
        pairs.add_column(heading)
    for pair in agreement.pairs:
        cells = (_cell(figure) for figure in (pair.dice, pair.first_touched, pair.second_touched, pair.same_kind))
        pairs.add_row(f"{pair.first} / {pair.second}", str(pair.photos), *cells, str(pair.disputes))
    readers = Table(title="The index against each reader, at its own levels of findings", title_justify="left")
    for heading in ("reader", "false regions", "photos", "lesions", "touched", "unmarked regions a photo"):
        readers.add_column(heading)
    for row in agreement.readers:
        readers.add_row(
            row.reader, f"{row.rate:g}", str(row.photos), str(row.lesions), _cell(row.touched), _cell(row.unmarked)
        )
    return [table for table in (pairs, readers) if table.row_count]


def _cell(figure: Figure | None) -> str:
    return "-" if figure is None else f"{figure.value:.3f} ({figure.low:.3f} to {figure.high:.3f})"
