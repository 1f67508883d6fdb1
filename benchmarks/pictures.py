"""Photograph | anomaly map | lesions marked by hand, for five diseased test photographs of IDRiD, as one picture.

Run as `python -m benchmarks.pictures [--out FILE]`; takes RESAD_DATA.  A table says how many of the marked lesions
light up, and how much of the unmarked retina does.
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
from scipy import ndimage

from benchmarks._bench import Json, Quick, print_header, print_table, shared_data, write_json
from benchmarks._idrid import CORESET, Variant, build_index, data_set
from indexer.datasets.masks import read_mask
from resad import runtime
from resad.answer import assemble
from resad.calibration import threshold
from resad.config import PhotoLimits
from resad.field_of_view import field_of_view_mask
from resad.loaded_index import LoadedIndex
from resad.overlay import draw_panels
from resad.photo import read_photo
from resad.preparation import prepare
from resad.rendering import map_scale
from resad.result import Result, Timings
from resad.verdict import USUAL_RATE, Rule

_PHOTOS: Final = ("IDRiD_02", "IDRiD_07", "IDRiD_14", "IDRiD_31", "IDRiD_48")
_IN_README: Final = 2
_LESIONS: Final = {"MA": "microaneurysms", "HE": "hemorrhages", "EX": "hard exudates", "SE": "soft exudates"}
_CREDIT: Final = "Photographs: IDRiD (Porwal et al. 2018), CC BY 4.0"
_WIDTH: Final = 1400
_QUALITY: Final = 88
_STRIP: Final = 44
"""Height of the credit line, px."""
_BRIGHT: Final = 0.99

Mask = NDArray[np.bool_]
Out = Annotated[Path | None, typer.Option(help="Write the picture here, as JPEG, and a shorter one beside it.")]


@dataclass(frozen=True, slots=True)
class Seen:
    """One kind of lesion in one photograph.

    marked: connected regions of the mask.  bright: of these, those in which the map somewhere exceeds 99 % of
    normal patches.  found: in which it exceeds the level of findings.  bright_area: share of the marked area above
    99 % of normal patches.
    """

    photo: str
    lesion: str
    marked: int
    bright: int
    found: int
    bright_area: float


@dataclass(frozen=True, slots=True)
class Around:
    """The same in the field of view outside every mask, as shares of its area."""

    photo: str
    image_score: float
    p_value: float | None
    findings: int
    bright: float
    found: float


@dataclass(frozen=True, slots=True, eq=False)
class Shown:
    """One photograph, measured and drawn."""

    picture: Image.Image
    lesions: tuple[Seen, ...]
    around: Around


def main(quick: Quick = False, json: Json = None, out: Out = None) -> None:
    """Draw five diseased photographs of IDRiD with their maps."""
    shared = shared_data()
    runtime.configure("exact")
    size, names = (256, _PHOTOS[:1]) if quick else (512, _PHOTOS)
    print_header(
        "Maps of diseased photographs of IDRiD",
        f"preset resad, ResNet-18 (ImageNet), size {size}, coreset {CORESET}, false-positive rate {USUAL_RATE:g}.",
    )
    with tempfile.TemporaryDirectory() as root:
        loaded = build_index(Variant("resad"), size, shared, Path(root))
        shown = [_show(loaded, data_set(shared), name) for name in names]
    _print(shown)
    if out is not None:
        pictures = [one.picture for one in shown]
        _stacked(pictures).save(out, quality=_QUALITY, optimize=True)
        _stacked(pictures[:_IN_README]).save(out.with_stem(f"{out.stem}-two"), quality=_QUALITY, optimize=True)
        print(f"Picture: {out.name}, {out.stat().st_size / 1e3:.0f} kB.\n")
    write_json(json, [(one.lesions, one.around) for one in shown])


def _show(loaded: LoadedIndex, data: Path, name: str) -> Shown:
    path = data / "test" / "lesion" / f"{name}.jpg"
    photo = prepare(path, loaded.manifest.config.preparation, PhotoLimits())
    detection = loaded.detector.detect([photo])[0]
    result = assemble(photo, detection, loaded, rule=Rule(fpr=USUAL_RATE), evidence=0, timings=Timings(0.0, 0.0))
    in_photo = photo.frame.map_to_photo(detection.anomaly_map)
    calibration = loaded.manifest.calibration
    bright = next(quantile.value for quantile in calibration.patches if quantile.at == _BRIGHT)
    found = threshold(calibration.peaks, USUAL_RATE).value
    levels = (bright, np.inf if found is None else found)
    masks = dict(_masks(data / "ground_truth", name, in_photo.shape))
    any_lesion = np.logical_or.reduce(list(masks.values()))
    unmarked = field_of_view_mask(photo.field_of_view, *in_photo.shape) & ~any_lesion
    picture = draw_panels(
        read_photo(path, PhotoLimits()).pixels,
        in_photo,
        map_scale(calibration, found),
        [finding.contour for finding in result.findings],
        any_lesion,
        title=f"{name}: image score {result.image_score:#.4g} ({', '.join(masks)} marked)",
    )
    lesions = tuple(_seen(name, kind, mask, in_photo, levels) for kind, mask in masks.items())
    return Shown(picture, lesions, _around(name, result, in_photo[unmarked], levels))


def _masks(truth: Path, name: str, shape: tuple[int, ...]) -> Iterator[tuple[str, Mask]]:
    """Kind of lesion -> bool (H, W), for the kinds that are marked in this photograph."""
    for short, kind in _LESIONS.items():
        path = truth / short / f"{name}_{short}.png"
        if path.is_file() and (mask := read_mask(path, shape[0], shape[1])).any():
            yield kind, mask


def _seen(photo: str, kind: str, mask: Mask, values: NDArray[np.float32], levels: tuple[float, float]) -> Seen:
    regions, count = ndimage.label(mask, np.ones((3, 3)))
    peaks = np.asarray(ndimage.maximum(values, regions, np.arange(1, count + 1)))
    bright, found = (int((peaks > level).sum()) for level in levels)
    return Seen(photo, kind, int(count), bright, found, float((values[mask] > levels[0]).mean()))


def _around(photo: str, result: Result, values: NDArray[np.float32], levels: tuple[float, float]) -> Around:
    bright, found = (float((values > level).mean()) for level in levels)
    return Around(photo, result.image_score, result.p_value, len(result.findings), bright, found)


def _stacked(pictures: Sequence[Image.Image]) -> Image.Image:
    """One below the other on the first one's ground, the credit line last, `_WIDTH` px wide."""
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


def _print(shown: Sequence[Shown]) -> None:
    print_table(
        f"Lesions marked by hand that light up somewhere, {len(shown)} photographs",
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
                seen.photo,
                seen.lesion,
                f"{seen.marked}",
                f"{seen.bright}",
                f"{seen.bright_area:.0%}",
                f"{seen.found}",
            )
            for one in shown
            for seen in one.lesions
        ],
    )
    print_table(
        "And the field of view outside the marks, share of its area",
        ("photo", "image score", "p", "findings", "above 99 % of normal patches", "above the level of findings"),
        [
            (
                around.photo,
                f"{around.image_score:#.4g}",
                "-" if around.p_value is None else f"{around.p_value:.3f}",
                f"{around.findings}",
                f"{around.bright:.1%}",
                f"{around.found:.1%}",
            )
            for around in (one.around for one in shown)
        ],
    )


if __name__ == "__main__":
    typer.run(main)
