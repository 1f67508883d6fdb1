"""Photographs under their anomaly maps: overlay, panels and color bar, on the index's absolute scale.

A color means the same distance in every photograph.  Coordinates are the given photo's own px; an outline's points
are pixel indexes.  Distances are in feature units.
"""

import io
import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo
from resad_client.records import INTENDED_USE, Result
from scipy import ndimage

from resad.calibration import Calibration

Pixels = NDArray[np.uint8]

_VIRIDIS: Final = (0x31688E, 0x26828E, 0x1F9E89, 0x35B779, 0x6DCD59, 0xB4DE2C, 0xFDE725)
"""The upper two thirds of viridis (S. van der Walt and N. Smith, 2015, CC0) at equal steps.  A retina has no
blue or green, while inferno's red vanishes on it; viridis' own dark third would look like hemorrhages."""
_COLORS: Final = 256
_STRENGTH: Final = 0.8
"""Opacity of an overlay's strongest colors, so that the lesion still shows through."""


@dataclass(frozen=True, slots=True)
class MapScale:
    """Which distance gets which color; raises `ValueError` unless 0 <= low < high, all finite."""

    low: float
    """Typical of a normal patch: transparent up to this distance."""
    threshold: float | None
    """Marked on the color bar, at the closer end if it lies beyond; None if there is none."""
    high: float
    """End of the colors: opaque from this distance up."""

    def __post_init__(self) -> None:
        if not (0 <= self.low < self.high < math.inf):
            raise ValueError(f"map scale from {self.low} to {self.high}: must be 0 <= low < high, finite")
        if self.threshold is not None and not math.isfinite(self.threshold):
            raise ValueError(f"map scale's threshold {self.threshold}: must be finite")


def colorize(anomaly_map: NDArray[np.float32], scale: MapScale) -> Pixels:
    """float32 (H, W) distances -> uint8 (H, W, 4) RGBA, straight alpha; each pixel by its own distance alone.

    Alpha is 0 up to `scale.low` and 255 from `scale.high`; between them color and alpha only rise.  Raises
    `ValueError` if a distance is not finite.
    """
    if not np.isfinite(anomaly_map).all():
        raise ValueError("a map is finite")
    position = anomaly_map - scale.low
    position /= scale.high - scale.low
    np.clip(position, 0.0, 1.0, out=position)
    position *= _COLORS - 1
    levels = Image.fromarray(np.rint(position, out=position).astype(np.uint8))
    # Pillow's lookup tables are several times faster than NumPy's indexing.
    return np.array(Image.merge("RGBA", [levels.point(channel.tolist()) for channel in _color_table().T]))


def faded(colors: Image.Image) -> Image.Image:
    """The alpha, L (H, W), of the colors over a photo: the lesion shows through even the strongest ones."""
    return colors.getchannel("A").point([round(_STRENGTH * alpha) for alpha in range(256)])


def color_stops() -> list[str]:
    """The colors from low to high at even steps as CSS, over a transparent start."""
    table = _color_table()[:: _COLORS // 8]
    return [f"rgba({red},{green},{blue},{alpha / 255:.2f})" for red, green, blue, alpha in table.tolist()]


def _color_table() -> Pixels:
    """(256, 4) RGBA from low to high."""
    position = np.linspace(0.0, 1.0, _COLORS)
    anchors = np.array([[color >> 16, color >> 8 & 255, color & 255] for color in _VIRIDIS], dtype=np.float64)
    at = np.linspace(0.0, 1.0, len(_VIRIDIS))
    channels = [np.interp(position, at, anchors[:, channel]) for channel in range(3)]
    table: Pixels = np.rint(np.stack([*channels, 255 * position], axis=-1)).astype(np.uint8)
    return table


GROUND: Final = (17, 17, 17)
QUIET: Final = (166, 166, 166)
PLAIN: Final = (240, 240, 240)
"""Luminance ratios to the ground: quiet text 7.7 : 1, plain text 16 : 1 (WCAG asks for 4.5 : 1)."""
_UNDER_BAR: Final = (128, 128, 128)
_FINDINGS: Final = "findings"
"""Label of the findings' level, which is not the threshold of image scores."""


@dataclass(frozen=True, slots=True)
class PanelStyle:
    """Font and sizes in px, by the size of the picture."""

    font: ImageFont.FreeTypeFont | ImageFont.ImageFont
    text: int
    gap: int
    line: float


@dataclass(frozen=True, slots=True)
class _Mark:
    """One number beside the color bar."""

    distance: float
    label: str
    threshold: bool


def style_for(photo: Pixels) -> PanelStyle:
    """The style for a photo (H, W, 3)."""
    longer = max(photo.shape[:2])
    text = max(11, round(longer / 42))
    return PanelStyle(ImageFont.load_default(size=text), text, max(6, round(text * 0.7)), max(1.0, longer / 420))


def write(
    draw: ImageDraw.ImageDraw,
    at: tuple[float, float],
    text: str,
    color: tuple[int, int, int],
    style: PanelStyle,
    room: float = math.inf,
) -> None:
    """Write a line of text, vertically centered on `at`, shortened to `room` px."""
    shown = text
    while shown and draw.textlength(shown, style.font) > room:
        text = text[:-1]
        shown = text.rstrip() + "..." if text else ""
    draw.text(at, shown, color, style.font, anchor="lm")


def color_bar(scale: MapScale, height: int, style: PanelStyle) -> Image.Image:
    """The colors from `high` (top) to `low` as an overlay shows them, with distances and the threshold."""
    text, gap = style.text, style.gap
    top = round(2.4 * text)
    length = height - top - text
    marks = _marks(scale, row=1.5 * text / length * (scale.high - scale.low))
    text_width = max(
        style.font.getlength(part) for part in ("distance", _FINDINGS, *(mark.label for mark in marks))
    )
    picture = Image.new("RGB", (math.ceil(text + gap + text_width + gap), height), GROUND)
    draw = ImageDraw.Draw(picture)
    write(draw, (0, 0.8 * text), "distance", QUIET, style)
    distances = np.linspace(scale.high, scale.low, length, dtype=np.float32)
    strip = Image.fromarray(np.repeat(colorize(distances[:, None], scale), text, axis=1))
    # On mid-gray: half-transparent colors on the dark ground would be darker than in the photo.
    picture.paste(_UNDER_BAR, (0, top, text, top + length))
    picture.paste(strip, (0, top), faded(strip))
    for mark in marks:
        y = top + (length - 1) * (scale.high - mark.distance) / (scale.high - scale.low)
        color = PLAIN if mark.threshold else QUIET
        start = 0 if mark.threshold else text
        draw.line((start, y, text + gap // 2, y), color, round(style.line * (2 if mark.threshold else 1)))
        write(draw, (text + gap, y), mark.label, color, style)
        if mark.threshold:
            # Toward the middle of the bar, where there is always space.
            side = 1 if y < height / 2 else -1
            write(draw, (text + gap, y + side * 1.1 * text), _FINDINGS, color, style)
    return picture


def _marks(scale: MapScale, row: float) -> list[_Mark]:
    """The threshold, the two ends and round distances, without those within `row` of an earlier mark."""
    span = scale.high - scale.low
    decimals = max(0, 2 - math.floor(math.log10(span)))
    power = 10.0 ** math.floor(math.log10(span / 4))
    step = power * max(factor for factor in (1, 2, 5) if factor * power <= span / 4)
    round_distances = [step * n for n in range(math.ceil(scale.low / step), math.floor(scale.high / step) + 1)]
    marks: list[_Mark] = []
    if scale.threshold is not None:
        place = min(max(scale.threshold, scale.low), scale.high)
        marks.append(_Mark(place, f"{scale.threshold:.{decimals}f}", threshold=True))
    for distance in (scale.high, scale.low, *round_distances):
        # The threshold's label takes two rows.
        if all(abs(distance - mark.distance) >= row * (1 + mark.threshold) for mark in marks):
            marks.append(_Mark(distance, f"{distance:.{decimals}f}", threshold=False))
    return marks


Outline = Sequence[tuple[int, int]]

_LINE_DARK: Final = (0, 0, 0)
_LINE_BRIGHT: Final = (255, 255, 255)


def draw_overlay(
    photo: Pixels,
    anomaly_map: NDArray[np.float32],
    scale: MapScale,
    outlines: Sequence[Outline],
    *,
    title: str = "",
) -> Image.Image:
    """The photo under the map's colors, the findings outlined, and a color bar on the right; an RGB picture.

    `photo` is uint8 (H, W, 3), `anomaly_map` float32 (H, W) in its frame.  The photo's px stay 1 : 1, at the
    left, below the title if there is one.  Raises `ValueError` where the shapes differ.
    """
    style = style_for(photo)
    panel = _overlaid(photo, anomaly_map, scale, outlines, style)
    return _compose([("", panel)], scale, title, style)


def draw_panels(
    photo: Pixels,
    anomaly_map: NDArray[np.float32],
    scale: MapScale,
    outlines: Sequence[Outline],
    mask: NDArray[np.bool_] | None,
    title: str = "",
) -> Image.Image:
    """Photo | overlay | photo with `mask` outlined, if given; one color bar.

    `mask` is bool (H, W): lesions marked by hand.  The other shapes, and errors, as in `draw_overlay`.
    """
    style = style_for(photo)
    panels = [
        ("photo", Image.fromarray(photo)),
        ("anomaly map", _overlaid(photo, anomaly_map, scale, outlines, style)),
    ]
    if mask is not None:
        panels.append(("marked by hand", _ringed(photo, mask, style.line)))
    return _compose(panels, scale, title, style)


def _overlaid(
    photo: Pixels,
    anomaly_map: NDArray[np.float32],
    scale: MapScale,
    outlines: Sequence[Outline],
    style: PanelStyle,
) -> Image.Image:
    _check_shapes(photo, anomaly_map)
    picture = Image.fromarray(photo)
    colors = Image.fromarray(colorize(anomaly_map, scale))
    picture.paste(colors, (0, 0), faded(colors))
    _draw_outlines(picture, outlines, style.line)
    return picture


def _draw_outlines(picture: Image.Image, outlines: Sequence[Outline], line: float) -> None:
    """A dark line under a bright one, drawn enlarged and then reduced, because Pillow's lines are jagged."""
    enlarge = max(1, min(4, 2048 // max(picture.size)))
    for width, color in ((3 * line, _LINE_DARK), (line, _LINE_BRIGHT)):
        layer = Image.new("L", (picture.width * enlarge, picture.height * enlarge))
        draw = ImageDraw.Draw(layer)
        for outline in outlines:
            points = [((x + 0.5) * enlarge, (y + 0.5) * enlarge) for x, y in outline]
            # The first two points again, so that the closing corner is rounded like the others.
            draw.line([*points, *points[:2]], fill=255, width=max(1, round(width * enlarge)), joint="curve")
        picture.paste(color, (0, 0), layer.reduce(enlarge) if enlarge > 1 else layer)


def _ringed(photo: Pixels, mask: NDArray[np.bool_], line: float) -> Image.Image:
    """The photo with a ring outside every part of the mask, which leaves the lesion uncovered."""
    _check_shapes(photo, mask)
    picture = Image.fromarray(photo)
    if mask.any():
        distance = ndimage.distance_transform_edt(~mask)
        for width, color in ((2 * line, _LINE_DARK), (line, _LINE_BRIGHT)):
            cover = np.where(mask, 0.0, np.clip(width + 1.0 - distance, 0.0, 1.0))
            picture.paste(color, (0, 0), Image.fromarray(np.rint(255 * cover).astype(np.uint8)))
    return picture


def _check_shapes(photo: Pixels, raster: NDArray[np.float32] | NDArray[np.bool_]) -> None:
    if photo.ndim != 3 or photo.shape[2] != 3 or photo.shape[:2] != raster.shape:
        raise ValueError(f"photo {photo.shape} and map {raster.shape}: must be (H, W, 3) and (H, W)")


def _compose(
    panels: Sequence[tuple[str, Image.Image]], scale: MapScale, title: str, style: PanelStyle
) -> Image.Image:
    """The panels in a row under their captions and the title, the color bar behind the last."""
    width, height = panels[0][1].size
    title = " ".join(title.split())
    bar = color_bar(scale, max(height, 9 * style.text), style)
    line = 2 * style.text
    caption_top = line if title else 0
    top = caption_top + (line if any(caption for caption, _ in panels) else 0)
    row = len(panels) * (width + style.gap)
    canvas = Image.new("RGB", (row + bar.width, top + bar.height), GROUND)
    draw = ImageDraw.Draw(canvas)
    write(draw, (style.gap, line // 2), title, PLAIN, style, canvas.width - 2 * style.gap)
    for place, (caption, picture) in enumerate(panels):
        left = place * (width + style.gap)
        canvas.paste(picture, (left, top))
        write(draw, (left + style.gap, caption_top + line // 2), caption, QUIET, style, width - style.gap)
    canvas.paste(bar, (row, top))
    return canvas


Layout = Literal["blend", "side"]
"""`blend`: the map over the photo.  `side`: the photo alone, beside that."""
PictureKind = Literal["png", "jpeg"]

_JPEG_QUALITY: Final = 90
"""JPEG quality: a sixth of the PNG's bytes in a twentieth of its time."""


def map_scale(calibration: Calibration, level: float | None) -> MapScale:
    """The scale of an index's pictures; its threshold is the level of findings, if any."""
    low, high = calibration.shown
    return MapScale(low, level, high)


def overlay_picture(
    pixels: NDArray[np.uint8],
    anomaly_map: NDArray[np.float32],
    result: Result,
    calibration: Calibration,
    layout: Layout = "blend",
) -> Image.Image:
    """The photo with its map and findings, and the color bar beside it.

    Args:
        pixels: uint8 (H, W, 3), the photo at its own size.
        anomaly_map: float32 (H, W), the map in the photo's frame.
    """
    scale = map_scale(calibration, result.normals.finding_level)
    outlines = [finding.contour for finding in result.findings]
    title = f"image score {result.image_score:#.4g}"
    if layout == "side":
        return draw_panels(pixels, anomaly_map, scale, outlines, None, title)
    return draw_overlay(pixels, anomaly_map, scale, outlines, title=title)


def picture_file(picture: Image.Image, kind: PictureKind) -> bytes:
    """A picture as a file: lossless PNG, or JPEG in less time and space.

    PNG is compressed by run lengths only: a photograph is a little smaller than at Pillow's default level, in a
    sixth of the time.  The file states its intended use, as text `resad:intended_use` or as JPEG's comment;
    `resad-client watch` recognizes overlays by that text.
    """
    file = io.BytesIO()
    if kind == "png":
        entries = PngInfo()
        entries.add_text("resad:intended_use", INTENDED_USE)
        picture.save(file, "PNG", pnginfo=entries, compress_level=1, compress_type=zlib.Z_RLE)
    else:
        picture.save(file, "JPEG", quality=_JPEG_QUALITY, comment=INTENDED_USE)
    return file.getvalue()
