"""How many of the lesions that experts marked the findings touch, how many findings touch a lesion, and the maps.

Run as `python -m benchmarks.findings [--maps FILE]`; needs RESAD_DATA, and takes `--index` for an existing index.
Findings are taken as a caller gets them: their polygons, filled, in the photograph's own pixels.  `--maps` draws
photograph | anomaly map | marked lesions for five diseased photographs.
"""

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

import numpy as np
import typer
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from resad_client.records import Finding, Result, Timings
from scipy import ndimage

from benchmarks._bench import Json, Quick, interval, print_header, print_table, shared_data, write_json
from benchmarks._idrid import CORESET, Variant, build_index, data_set
from lab.datasets.dataset import read_mask
from lab.evaluate.bootstrap import Figure
from resad import runtime
from resad.calibration import DecisionRule, criterion
from resad.config import PhotoLimits
from resad.engine import ScoreOptions, assemble
from resad.field_of_view import field_of_view_mask
from resad.loaded_index import LoadedIndex, load_index
from resad.photo import read_photo
from resad.pictures.overlay import Outline, draw_panels, map_scale
from resad.preparation import prepare

_LESIONS: Final = {"MA": "microaneurysms", "HE": "hemorrhages", "EX": "hard exudates", "SE": "soft exudates"}
_RATES: Final = (0.25, 1.0, 4.0)
"""False regions per healthy photograph, by the index's own levels."""
_SAMPLES: Final = 2000
_LARGE: Final = 64
"""px at 512 x 512: a patch of the grid; smaller lesions are microaneurysms and dots."""

Mask = NDArray[np.bool_]
Index = Annotated[Path | None, typer.Option(help="ROOT/NAME of an index to measure; one is built unless given.")]


@dataclass(frozen=True, slots=True)
class Counts:
    """Lesions of one kind in one photograph.

    marked: connected regions of the mask.  touched: of these, those that some finding's polygon reaches.
    area, covered: px of the mask, and of these the ones inside findings.
    """

    marked: int
    touched: int
    area: int
    covered: int


@dataclass(frozen=True, slots=True)
class FindingCounts:
    """One photograph at one rate.

    lesions: by kind, and `large` (any kind, `_LARGE` px or more).  findings: their number.  on_lesion: findings
    that touch a lesion of any kind.  by_kind: findings that touch a lesion of that kind.  by_chance: findings that
    would touch a lesion if the masks were mirrored upside down, left to right, or both; the sum of the three.
    """

    photo: str
    diseased: bool
    rate: float
    lesions: dict[str, Counts]
    findings: int
    on_lesion: int
    by_kind: dict[str, int]
    by_chance: int


_PHOTOS: Final = ("IDRiD_02", "IDRiD_07", "IDRiD_14", "IDRiD_31", "IDRiD_48")
_IN_README: Final = 2
_CREDIT: Final = "Photographs: IDRiD (Porwal et al. 2018), CC BY 4.0"
_WIDTH: Final = 1400
_QUALITY: Final = 88
_STRIP: Final = 44
"""Height of the credit line, px."""
_BRIGHT: Final = 0.99

Maps = Annotated[
    Path | None, typer.Option("--maps", help="Write the picture here, as JPEG, and a shorter one beside it.")
]


@dataclass(frozen=True, slots=True)
class LitLesion:
    """One kind of lesion in one photograph.

    marked: connected regions of the mask.  bright: of these, those in which the map somewhere exceeds 99 % of
    normal patches.  above_level: in which it exceeds the level of findings.  bright_area: share of the marked
    area above 99 % of normal patches.
    """

    photo: str
    lesion: str
    marked: int
    bright: int
    above_level: int
    bright_area: float


@dataclass(frozen=True, slots=True)
class Background:
    """The same in the field of view outside every mask, as shares of its area."""

    photo: str
    image_score: float
    p_value: float | None
    findings: int
    bright: float
    above_level: float


@dataclass(frozen=True, slots=True, eq=False)
class MapPanel:
    """One photograph, measured and drawn."""

    picture: Image.Image
    lesions: tuple[LitLesion, ...]
    background: Background


def main(quick: Quick = False, json: Json = None, index: Index = None, maps: Maps = None) -> None:
    """Count findings against lesions on IDRiD's test photographs, then draw five diseased ones."""
    shared = shared_data()
    runtime.configure("exact")
    size = 256 if quick else 512
    with tempfile.TemporaryDirectory() as root:
        device = runtime.pick_device("auto")
        loaded = load_index(index, device) if index else build_index(Variant("resad"), size, shared, Path(root))
        config = loaded.manifest.config
        print_header(
            "Findings against lesions marked by hand, IDRiD",
            f"{loaded.manifest.counts.photos} healthy photographs, {config.backbone.name}, "
            f"size {config.preparation.size}, coreset {CORESET if index is None else 'of the index'}.",
        )
        folder = data_set(shared) / "test"
        diseased, healthy = (sorted((folder / kind).glob("*.jpg")) for kind in ("lesion", "good"))
        if quick:
            diseased, healthy = diseased[:2], healthy[:1]
        counts = [count for path in [*diseased, *healthy] for count in _count_findings(loaded, shared, path)]
        for rate in _RATES:
            _print_rate(rate, [count for count in counts if count.rate == rate])
        panels = [_draw_panel(loaded, data_set(shared), name) for name in _PHOTOS[: 1 if quick else None]]
    _print_lit(panels)
    if maps is not None:
        pictures = [panel.picture for panel in panels]
        _stacked(pictures).save(maps, quality=_QUALITY, optimize=True)
        _stacked(pictures[:_IN_README]).save(maps.with_stem(f"{maps.stem}-two"), quality=_QUALITY, optimize=True)
        print(f"Picture: {maps.name}, {maps.stat().st_size / 1e3:.0f} kB.\n")
    write_json(json, {"findings": counts, "maps": [(panel.lesions, panel.background) for panel in panels]})


def _count_findings(loaded: LoadedIndex, shared: Path, path: Path) -> list[FindingCounts]:
    """One photograph at every rate."""
    photo = prepare(path, loaded.manifest.config.preparation, PhotoLimits())
    detection = loaded.detector.detect([photo])[0]
    shape = (photo.frame.height, photo.frame.width)
    masks = {kind: _mask(shared, path.stem, kind, shape) for kind in _LESIONS}
    counts = []
    for rate in _RATES:
        result = assemble(
            photo,
            detection,
            loaded,
            ScoreOptions(DecisionRule(false_regions=rate), evidence=0),
            timings=Timings(0.0, 0.0),
        )
        areas = [_filled(finding, shape) for finding in result.findings]
        union = np.logical_or.reduce([np.zeros(shape, bool), *areas])
        any_lesion = np.logical_or.reduce(list(masks.values()))
        by_kind = {kind: sum(bool((area & mask).any()) for area in areas) for kind, mask in masks.items()}
        lesions = {kind: _counts(mask, union) for kind, mask in masks.items()}
        lesions["large"] = _counts(any_lesion, union, _LARGE)
        touching = sum(bool((area & any_lesion).any()) for area in areas)
        elsewhere = (any_lesion[::-1], any_lesion[:, ::-1], any_lesion[::-1, ::-1])
        chance = sum(bool((area & lesion).any()) for area in areas for lesion in elsewhere)
        diseased = bool(any_lesion.any())
        counts.append(FindingCounts(path.stem, diseased, rate, lesions, len(areas), touching, by_kind, chance))
    return counts


def _mask(shared: Path, name: str, kind: str, shape: tuple[int, int]) -> Mask:
    file = data_set(shared) / "ground_truth" / kind / f"{name}_{kind}.png"
    return read_mask(file, *shape) if file.is_file() else np.zeros(shape, bool)


def _filled(finding: Finding, shape: tuple[int, int]) -> Mask:
    """The pixels of a finding's polygon, its line included."""
    picture = Image.new("1", shape[::-1])
    ImageDraw.Draw(picture).polygon(list(finding.contour), fill=1, outline=1)
    return np.asarray(picture)


def _counts(mask: Mask, findings: Mask, least: int = 1) -> Counts:
    """Counts over the mask's regions of at least `least` px."""
    labels, count = ndimage.label(mask, structure=np.ones((3, 3)))
    sizes = np.bincount(labels.ravel(), minlength=count + 1)
    counted = [label for label in range(1, count + 1) if sizes[label] >= least]
    touched = set(np.unique(labels[findings])) - {0}
    inside = np.isin(labels, counted)
    covered = int((inside & findings).sum())
    return Counts(len(counted), sum(label in touched for label in counted), int(inside.sum()), covered)


def _share(top: Sequence[int], bottom: Sequence[int]) -> Figure | None:
    """sum(top) / sum(bottom) over photographs, 95 % by a bootstrap over photographs; None for nothing."""
    above, below = np.array(top, float), np.array(bottom, float)
    if not below.sum():
        return None
    rng = np.random.default_rng(0)
    drawn = rng.integers(0, len(below), (_SAMPLES, len(below)))
    sums = below[drawn].sum(axis=1)
    shares = above[drawn].sum(axis=1)[sums > 0] / sums[sums > 0]
    low, high = np.quantile(shares, (0.025, 0.975))
    return Figure(float(above.sum() / below.sum()), float(low), float(high))


def _cell(figure: Figure | None) -> str:
    return "-" if figure is None else interval(figure)


def _print_rate(rate: float, photos: Sequence[FindingCounts]) -> None:
    diseased, healthy = ([photo for photo in photos if photo.diseased == label] for label in (True, False))
    rows = []
    for kind, name in (*_LESIONS.items(), ("large", f"any of {_LARGE} px or more")):
        with_lesion = [photo for photo in diseased if photo.lesions[kind].marked]
        counts = [photo.lesions[kind] for photo in with_lesion]
        touching = [photo.by_kind.get(kind, photo.on_lesion) for photo in diseased]
        rows.append(
            (
                name,
                f"{len(with_lesion)}",
                f"{sum(count.marked for count in counts)}",
                _cell(_share([c.touched for c in counts], [c.marked for c in counts])),
                _cell(_share([c.covered for c in counts], [c.area for c in counts])),
                _cell(_share([min(c.touched, 1) for c in counts], [1] * len(counts))),
                _cell(_share(touching, [photo.findings for photo in diseased])) if kind in _LESIONS else "-",
            )
        )
    print_table(
        f"Findings at {rate:g} stated false regions per healthy photograph, {len(diseased)} diseased photographs",
        (
            "lesion",
            "photographs with it",
            "marked regions",
            "recall: touched by a finding",
            "recall of their area",
            "photographs with one touched",
            "findings that touch one",
        ),
        rows,
    )
    findings = [photo.findings for photo in diseased]
    precision = _share([photo.on_lesion for photo in diseased], findings)
    chance = _share([photo.by_chance for photo in diseased], [3 * count for count in findings])
    false = [photo.findings for photo in healthy if photo.findings]
    print(f"Precision: {_cell(precision)} of {sum(findings)} findings touch a lesion of some kind.\\")
    print(f"The same findings mirrored: {_cell(chance)}.\\")
    print(
        f"Healthy photographs: {len(false)} of {len(healthy)} have a finding, {sum(false)} in all.\n", flush=True
    )


def _draw_panel(loaded: LoadedIndex, data: Path, name: str) -> MapPanel:
    path = data / "test" / "lesion" / f"{name}.jpg"
    photo = prepare(path, loaded.manifest.config.preparation, PhotoLimits())
    detection = loaded.detector.detect([photo])[0]
    result = assemble(
        photo, detection, loaded, ScoreOptions(DecisionRule(), evidence=0), timings=Timings(0.0, 0.0)
    )
    in_photo = photo.frame.map_to_photo(detection.anomaly_map)
    calibration = loaded.manifest.calibration
    bright = next(quantile.value for quantile in calibration.patches if quantile.at == _BRIGHT)
    finding_level = criterion(calibration, DecisionRule()).level
    levels = (bright, np.inf if finding_level is None else finding_level)
    masks = dict(_masks(data / "ground_truth", name, in_photo.shape))
    any_lesion = np.logical_or.reduce(list(masks.values()))
    unmarked = field_of_view_mask(photo.field_of_view, *in_photo.shape) & ~any_lesion
    picture = draw_panels(
        read_photo(path, PhotoLimits()).pixels,
        in_photo,
        map_scale(calibration, finding_level),
        [Outline(finding.contour, finding.peak, bool(finding.doubts)) for finding in result.findings],
        any_lesion,
        title=f"{name}: image score {result.image_score:#.4g} ({', '.join(masks)} marked)",
    )
    lesions = tuple(_lit_lesion(name, kind, mask, in_photo, levels) for kind, mask in masks.items())
    return MapPanel(picture, lesions, _background(name, result, in_photo[unmarked], levels))


def _masks(truth: Path, name: str, shape: tuple[int, ...]) -> Iterator[tuple[str, Mask]]:
    """Kind of lesion -> bool (H, W), for the kinds that are marked in this photograph."""
    for short, kind in _LESIONS.items():
        path = truth / short / f"{name}_{short}.png"
        if path.is_file() and (mask := read_mask(path, shape[0], shape[1])).any():
            yield kind, mask


def _lit_lesion(
    photo: str, kind: str, mask: Mask, values: NDArray[np.float32], levels: tuple[float, float]
) -> LitLesion:
    regions, count = ndimage.label(mask, np.ones((3, 3)))
    peaks = np.asarray(ndimage.maximum(values, regions, np.arange(1, count + 1)))
    bright, above_level = (int((peaks > level).sum()) for level in levels)
    return LitLesion(photo, kind, int(count), bright, above_level, float((values[mask] > levels[0]).mean()))


def _background(
    photo: str, result: Result, values: NDArray[np.float32], levels: tuple[float, float]
) -> Background:
    bright, above_level = (float((values > level).mean()) for level in levels)
    return Background(photo, result.image_score, result.p_value, len(result.findings), bright, above_level)


def _stacked(pictures: Sequence[Image.Image]) -> Image.Image:
    """The pictures below each other on the first picture's background, then the credit line; `_WIDTH` px wide."""
    ground = pictures[0].getpixel((0, 0))
    width, height = max(picture.width for picture in pictures), sum(picture.height for picture in pictures)
    whole = Image.new("RGB", (width, height), ground)
    top = 0
    for picture in pictures:
        whole.paste(picture, (0, top))
        top += picture.height
    reduced = whole.resize((_WIDTH, round(height * _WIDTH / width)), Image.Resampling.LANCZOS)
    final = Image.new("RGB", (_WIDTH, reduced.height + _STRIP), ground)
    final.paste(reduced)
    font = ImageFont.load_default(size=18)
    at = (12, reduced.height + _STRIP // 2)
    ImageDraw.Draw(final).text(at, _CREDIT, (200, 200, 200), font, anchor="lm")
    return final


def _print_lit(panels: Sequence[MapPanel]) -> None:
    print_table(
        f"Lesions marked by hand that light up somewhere, {len(panels)} photographs",
        (
            "photo",
            "lesion",
            "marked regions",
            "above 99 % of normal patches",
            "share of their area",
            "above the level of findings",
        ),
        [
            (
                lesion.photo,
                lesion.lesion,
                f"{lesion.marked}",
                f"{lesion.bright}",
                f"{lesion.bright_area:.0%}",
                f"{lesion.above_level}",
            )
            for panel in panels
            for lesion in panel.lesions
        ],
    )
    print_table(
        "And the field of view outside the marks, share of its area",
        ("photo", "image score", "p", "findings", "above 99 % of normal patches", "above the level of findings"),
        [
            (
                background.photo,
                f"{background.image_score:#.4g}",
                "-" if background.p_value is None else f"{background.p_value:.3f}",
                f"{background.findings}",
                f"{background.bright:.1%}",
                f"{background.above_level:.1%}",
            )
            for background in (panel.background for panel in panels)
        ],
    )


if __name__ == "__main__":
    typer.run(main)
