"""Painted lesions found on healthy photographs that were held out: by kind, size and contrast."""

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Final, Literal, TypeAlias, overload

import numpy as np
from numpy.typing import NDArray
from resad_client.text import counted
from rich.table import Table

from lab.drawing.painter import KINDS, LesionKind, PaintedLesion, paint
from lab.evaluate.measuring import IndexMatch, IndexPhoto, match_index
from resad.anomaly_map import check_field_of_view
from resad.config import PhotoLimits, PreparationConfig
from resad.errors import naming
from resad.false_regions import FindingLevel, finding_levels, region_heights
from resad.loaded_index import LoadedIndex
from resad.preparation import PreparedPhoto, prepare

Map: TypeAlias = NDArray[np.float32]
Size = Literal["below 16 px", "16 to 63 px", "64 px and more"]
Contrast = Literal["faint", "plain"]

_SMALL, _LARGE = 16, 64
"""Areas that part the sizes, px of a photograph whose side is 512 px."""
_PLAIN: Final = 4.0
"""Contrast from which a lesion is plain, in units of the photograph's own noise."""
_SPECIFICITY: Final = 0.95
_RATES: Final = (0.25, 1.0, 4.0)


@dataclass(frozen=True, slots=True)
class PaintedGroup:
    """Painted lesions of one kind, size and contrast, and how many of them the map shows.

    touched: how many rise above the level of each rate of false regions; 0 where a rate has no level.
    """

    kind: LesionKind
    size: Size
    contrast: Contrast
    lesions: int
    found: int
    touched: tuple[int, ...]

    @property
    def sensitivity(self) -> float:
        """Share of the lesions that are found."""
        return self.found / self.lesions


@dataclass(frozen=True, slots=True)
class PaintedResults:
    """level: 95 % of the healthy photographs' highest values lie at or below it; a lesion is found above it.

    photos: how many photographs were painted.  rates: levels at 0.25, 1 and 4 false regions per photograph, on the
    same photographs unpainted.
    """

    level: float
    photos: int
    groups: tuple[PaintedGroup, ...]
    rates: tuple[FindingLevel, ...]

    def shares(self, groups: Sequence[PaintedGroup]) -> tuple[float | None, ...]:
        """Share of these groups' lesions that are found, then at each rate; none where a rate has no level."""
        lesions = sum(group.lesions for group in groups)
        touched = [sum(group.touched[number] for group in groups) for number in range(len(self.rates))]
        by_rate = (
            None if rate.value is None else count / lesions
            for rate, count in zip(self.rates, touched, strict=True)
        )
        return sum(group.found for group in groups) / lesions, *by_rate

    def sensitivity(self, kind: LesionKind | None = None) -> float:
        """Share of the lesions found, of all kinds or of one; nan without lesions."""
        chosen = [group for group in self.groups if kind in (None, group.kind)]
        lesions = sum(group.lesions for group in chosen)
        return sum(group.found for group in chosen) / lesions if lesions else float("nan")


def measure_painted(
    photos: Sequence[PreparedPhoto],
    anomaly_map: Callable[[PreparedPhoto], Map],
    *,
    repeats: int = 4,
    seed: int = 0,
    on_photo: Callable[[int], None] = lambda _: None,
) -> PaintedResults:
    """Paint every kind into each photograph and count which lesions the map shows.

    Args:
        photos: healthy, and unknown to the method that is measured.
        anomaly_map: photograph -> float32 (S, S), 0 outside the field of view.
        repeats: times that each kind is painted into each photograph.
        on_photo: counts photographs that are finished.
    """
    highest, rates = _healthy_levels(photos, anomaly_map)
    values = [math.inf if rate.value is None else rate.value for rate in rates]
    lesions: Counter[tuple[LesionKind, Size, Contrast]] = Counter()
    detected: Counter[tuple[LesionKind, Size, Contrast]] = Counter()
    touched: Counter[tuple[LesionKind, Size, Contrast, int]] = Counter()
    for number, photo in enumerate(photos):
        donor = photos[(number + 1) % len(photos)]
        for kind in KINDS:
            for repeat in range(repeats):
                rng = np.random.default_rng([seed, number, KINDS.index(kind), repeat])
                for lesion, peak in _painted(rng, photo, donor, kind, anomaly_map):
                    group = kind, _size(lesion, photo), _contrast(lesion)
                    lesions[group] += 1
                    detected[group] += peak > highest
                    touched.update((*group, number) for number, value in enumerate(values) if peak > value)
        on_photo(1)
    groups = (
        PaintedGroup(
            *group, count, detected[group], tuple(touched[*group, number] for number in range(len(rates)))
        )
        for group, count in sorted(lesions.items())
    )
    return PaintedResults(highest, len(photos), tuple(groups), rates)


def _healthy_levels(
    photos: Sequence[PreparedPhoto], anomaly_map: Callable[[PreparedPhoto], Map]
) -> tuple[float, tuple[FindingLevel, ...]]:
    """The level of the highest values, and those of the rates, of photographs without painted lesions."""
    highest, regions = [], []
    for photo in photos:
        values = anomaly_map(photo)[photo.mask]
        highest.append(float(values.max()))
        regions.append(region_heights(values, np.argwhere(photo.mask).astype(np.int16), photo.mask.shape))
    level = float(np.quantile(highest, _SPECIFICITY, method="higher"))
    return level, tuple(rate for rate in finding_levels(regions) if rate.rate in _RATES)


def measure_index_painted(
    loaded: LoadedIndex,
    paths: Sequence[Path],
    limits: PhotoLimits,
    on_photo: Callable[[int], None],
    *,
    calibrated_on: Sequence[IndexPhoto] = (),
    strict: bool = False,
) -> tuple[PaintedResults, tuple[IndexMatch, ...]]:
    """`measure_painted` with the anomaly map of an index, and which of the photographs are in the index.

    Args:
        paths: healthy photographs; two of them are in memory at a time.
        calibrated_on: photographs that the index's calibration rests on beside its own.
    Raises:
        PhotoError: a photograph cannot be read or has no field of view.
        SettingError: with `strict`, a photograph is in the index.
    """
    photos = _PreparedPhotos(paths, loaded.manifest.config.preparation, limits)
    references = (*loaded.photos, *calibrated_on)
    matches: list[IndexMatch] = []
    for number, photo in enumerate(photos):
        with naming(paths[number]):
            check_field_of_view(photo.mask)
        matches += match_index(number, paths[number], photo, references, strict=strict)
    results = measure_painted(photos, lambda photo: loaded.detector.detect([photo])[0].anomaly_map,
                              on_photo=on_photo)  # fmt: skip
    return results, tuple(matches)


class _PreparedPhotos(Sequence[PreparedPhoto]):
    """Photographs that are prepared when asked for; the last two are kept."""

    def __init__(self, paths: Sequence[Path], preparation: PreparationConfig, limits: PhotoLimits) -> None:
        self._count = len(paths)

        @lru_cache(maxsize=2)
        def load(number: int) -> PreparedPhoto:
            with naming(paths[number]):
                return prepare(paths[number], preparation, limits)

        self._load = load

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, number: int) -> PreparedPhoto: ...

    @overload
    def __getitem__(self, number: slice) -> Sequence[PreparedPhoto]: ...

    def __getitem__(self, number: int | slice) -> PreparedPhoto | Sequence[PreparedPhoto]:
        chosen = range(self._count)[number]
        return self._load(chosen) if isinstance(chosen, int) else [self._load(place) for place in chosen]


def _painted(
    rng: np.random.Generator,
    photo: PreparedPhoto,
    donor: PreparedPhoto,
    kind: LesionKind,
    anomaly_map: Callable[[PreparedPhoto], Map],
) -> Iterator[tuple[PaintedLesion, float]]:
    """The lesions of one painting, each with the map's highest value in it."""
    pixels = photo.pixels.astype(np.float32) / np.float32(255)
    texture = donor.pixels.astype(np.float32) / np.float32(255)
    painted = paint(rng, pixels, photo.mask, texture, kinds=(kind,), scale=photo.frame.side / 512)
    if painted.lesions:
        values = anomaly_map(replace(photo, pixels=np.round(painted.pixels * 255).astype(np.uint8)))
        for lesion in painted.lesions:
            yield lesion, float(values[lesion.window][lesion.mask].max())


def _size(lesion: PaintedLesion, photo: PreparedPhoto) -> Size:
    area = lesion.area * (512 / photo.frame.side) ** 2
    if area < _SMALL:
        return "below 16 px"
    return "16 to 63 px" if area < _LARGE else "64 px and more"


def _contrast(lesion: PaintedLesion) -> Contrast:
    return "faint" if lesion.contrast < _PLAIN else "plain"


def painted_table(results: PaintedResults) -> Table:
    """Sensitivity by kind, size and contrast, as the command line prints it."""
    title = (
        f"Painted lesions found on {counted(results.photos, 'photograph')} held out (level {results.level:.3g}), "
        "and touched at 0.25, 1 and 4 false regions a photograph"
    )
    table = Table(title=title, title_justify="left")
    for heading in painted_headings(results):
        table.add_column(heading, justify="left" if heading in ("kind", "size", "contrast") else "right")
    for row in painted_rows(results):
        table.add_row(*row)
    return table


def painted_headings(results: PaintedResults) -> tuple[str, ...]:
    """Headings of the columns of `painted_rows`."""
    return ("kind", "size", "contrast", "lesions", "found", *(f"at {rate.rate:g}" for rate in results.rates))


def painted_rows(results: PaintedResults) -> Iterator[tuple[str, ...]]:
    """Rows of the groups and of all: kind, size, contrast, lesions, share found, share touched at each rate."""
    parts: list[tuple[tuple[str, str, str], list[PaintedGroup]]] = [
        ((group.kind.replace("_", " "), group.size, group.contrast), [group]) for group in results.groups
    ]
    if results.groups:
        parts.append((("all", "", ""), list(results.groups)))
    for names, groups in parts:
        shares = ("-" if share is None else f"{share:.0%}" for share in results.shares(groups))
        yield *names, str(sum(group.lesions for group in groups)), *shares
