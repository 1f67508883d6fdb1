"""Photographs under their anomaly maps: overlay, panels and color bar, on the index's absolute scale.

A color means the same distance in every photograph.  Lines carry the colors, a light tint lies between them, and
the lesion stays visible: each finding is outlined in the color of its peak, with lines inside at fixed distances.
Coordinates are the given photo's own px; an outline's points are pixel indexes.  Distances are in feature units.
"""

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from resad_client.records import INTENDED_USE, Result
from resad_client.text import counted
from scipy import ndimage
from skimage.measure import find_contours

from resad.calibration import Calibration
from resad.pictures.png import png_parts

Pixels = NDArray[np.uint8]

_ANCHORS: Final = (0x2C1FB0, 0x2E3DF0, 0x2F6EFF, 0x2F9CFF, 0x46C6FF, 0x90EAFF)
"""Indigo to cyan, the lightness rising evenly.  A retina has no blue: vessels and blood are dark red, exudates and
the disc yellow, and blue against these is what every kind of color blindness leaves."""
_COLORS: Final = 256
_STRENGTH: Final = 0.25
"""Opacity of an overlay's strongest tint: three quarters of a lesion's contrast remain."""
_LINES_AT: Final = (0.5, 0.75)
"""Where on the scale of colors (0 to 1) lines are drawn inside findings."""
_LINES_SIDE: Final = 1024
"""Lines are followed on a raster of at most so many px a side."""


@dataclass(frozen=True, slots=True)
class MapScale:
    """Which distance gets which color; raises `ValueError` unless 0 <= low < high, all finite.

    Colors follow the square root of the distance above `low`, so that strengths just above the level of findings
    can be told apart as well as the highest ones.
    """

    low: float
    """Typical of a normal patch: transparent up to this distance."""
    threshold: float | None
    """Marked on the color bar, at the closer end if it lies beyond; None if there is none."""
    high: float
    """End of the colors: the strongest from this distance up."""

    def __post_init__(self) -> None:
        if not (0 <= self.low < self.high < math.inf):
            raise ValueError(f"map scale from {self.low} to {self.high}: must be 0 <= low < high, finite")
        if self.threshold is not None and not math.isfinite(self.threshold):
            raise ValueError(f"map scale's threshold {self.threshold}: must be finite")

    def position(self, distance: float) -> float:
        """Where on the colors a distance lies, from 0 (`low` and less) to 1 (`high` and more)."""
        return math.sqrt(min(max((distance - self.low) / (self.high - self.low), 0.0), 1.0))

    def distance(self, position: float) -> float:
        """The distance at a position from 0 to 1."""
        return self.low + (self.high - self.low) * position**2

    def color(self, distance: float) -> tuple[int, int, int]:
        """The color of a distance, RGB."""
        red, green, blue, _ = _color_table()[round(self.position(distance) * (_COLORS - 1))].tolist()
        return red, green, blue


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
    np.sqrt(position, out=position)
    position *= _COLORS - 1
    levels = Image.fromarray(np.rint(position, out=position).astype(np.uint8))
    # Pillow's lookup tables are several times faster than NumPy's indexing.
    return np.array(Image.merge("RGBA", [levels.point(channel.tolist()) for channel in _color_table().T]))


def faded(colors: Image.Image) -> Image.Image:
    """The alpha, L (H, W), of the tint over a photo: the lesion shows through even the strongest one."""
    return colors.getchannel("A").point([round(_STRENGTH * alpha) for alpha in range(256)])


def color_stops() -> list[str]:
    """The colors of lines from low to high at even steps, as CSS."""
    table = _color_table()[:: _COLORS // 8]
    return [f"rgb({red},{green},{blue})" for red, green, blue, _ in table.tolist()]


def _color_table() -> Pixels:
    """(256, 4) RGBA from low to high."""
    position = np.linspace(0.0, 1.0, _COLORS)
    anchors = np.array([[color >> 16, color >> 8 & 255, color & 255] for color in _ANCHORS], dtype=np.float64)
    at = np.linspace(0.0, 1.0, len(_ANCHORS))
    channels = [np.interp(position, at, anchors[:, channel]) for channel in range(3)]
    table: Pixels = np.rint(np.stack([*channels, 255 * position], axis=-1)).astype(np.uint8)
    return table


GROUND: Final = (17, 17, 17)
QUIET: Final = (166, 166, 166)
PLAIN: Final = (240, 240, 240)
"""Luminance ratios to the ground: quiet text 7.7 : 1, plain text 16 : 1 (WCAG asks for 4.5 : 1)."""
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


def wrap(text: str, style: PanelStyle, room: float) -> list[str]:
    """The lines of `text`, broken at spaces, or inside a word that is wider than `room` px."""
    lines = []
    for paragraph in text.splitlines():
        line = ""
        for word in paragraph.split():
            rest = word
            if line and style.font.getlength(f"{line} {rest}") <= room:
                line = f"{line} {rest}"
                continue
            if line:
                lines.append(line)
            while style.font.getlength(rest) > room and len(rest) > 1:
                fits = next(
                    n for n in range(len(rest) - 1, 0, -1) if n == 1 or style.font.getlength(rest[:n]) <= room
                )
                lines.append(rest[:fits])
                rest = rest[fits:]
            line = rest
        if line:
            lines.append(line)
    return lines


def write(
    draw: ImageDraw.ImageDraw,
    at: tuple[float, float],
    text: str,
    color: tuple[int, int, int],
    style: PanelStyle,
) -> None:
    """Write a line of text, vertically centered on `at`."""
    draw.text(at, text, color, style.font, anchor="lm")


def color_bar(scale: MapScale, height: int, style: PanelStyle) -> Image.Image:
    """The colors from `high` (top) to `low` at even steps, with the distances of ends, lines and threshold."""
    text, gap = style.text, style.gap
    top = round(2.4 * text)
    length = height - top - text
    marks = _marks(scale, row=1.5 * text / length)
    text_width = max(
        style.font.getlength(part) for part in ("distance", _FINDINGS, *(mark.label for mark in marks))
    )
    picture = Image.new("RGB", (math.ceil(text + gap + text_width + gap), height), GROUND)
    draw = ImageDraw.Draw(picture)
    write(draw, (0, 0.8 * text), "distance", QUIET, style)
    rows = np.rint(np.linspace(_COLORS - 1, 0, length)).astype(int)
    picture.paste(Image.fromarray(np.repeat(_color_table()[rows, None, :3], text, axis=1)), (0, top))
    for mark in marks:
        y = top + (length - 1) * (1 - scale.position(mark.distance))
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
    """The threshold, the ends and the lines' distances; none within `row` of an earlier mark's position."""
    span = scale.high - scale.low
    decimals = max(0, 2 - math.floor(math.log10(span)))
    marks: list[_Mark] = []
    if scale.threshold is not None:
        place = min(max(scale.threshold, scale.low), scale.high)
        marks.append(_Mark(place, f"{scale.threshold:.{decimals}f}", threshold=True))
    for distance in (scale.high, scale.low, *(scale.distance(at) for at in (*_LINES_AT, 0.25))):
        near = (abs(scale.position(distance) - scale.position(mark.distance)) for mark in marks)
        # The threshold's label takes two rows.
        if all(apart >= row * (1 + mark.threshold) for apart, mark in zip(near, marks, strict=True)):
            marks.append(_Mark(distance, f"{distance:.{decimals}f}", threshold=False))
    return marks


Points = Sequence[tuple[int, int]]


@dataclass(frozen=True, slots=True)
class Outline:
    """A line around a finding.

    peak: the finding's, feature units; it gives the line its color, white if None.  doubtful: drawn dashed.
    """

    points: Points
    peak: float | None = None
    doubtful: bool = False


_LINE_DARK: Final = (0, 0, 0)
_LINE_BRIGHT: Final = (255, 255, 255)


def draw_overlay(
    photo: Pixels,
    anomaly_map: NDArray[np.float32],
    scale: MapScale,
    outlines: Sequence[Outline],
    *,
    title: str = "",
    foot: str = "",
) -> Image.Image:
    """The photo with the map's tint and lines, the findings outlined, and a color bar; an RGB picture.

    `photo` is uint8 (H, W, 3), `anomaly_map` float32 (H, W) in its frame.  The photo's px stay 1 : 1, at the
    left, between the lines of the title and the foot if there are any.  Raises `ValueError` where the shapes
    differ.
    """
    style = style_for(photo)
    panel = under_map(photo, anomaly_map, scale, outlines)
    return _compose([("", panel)], scale, title, foot, style)


def draw_panels(
    photo: Pixels,
    anomaly_map: NDArray[np.float32],
    scale: MapScale,
    outlines: Sequence[Outline],
    mask: NDArray[np.bool_] | None,
    title: str = "",
    foot: str = "",
) -> Image.Image:
    """Photo | overlay | photo with `mask` outlined, if given; one color bar.

    `mask` is bool (H, W): lesions marked by hand.  The other shapes, and errors, as in `draw_overlay`.
    """
    style = style_for(photo)
    panels = [
        ("photo", Image.fromarray(photo)),
        ("anomaly map", under_map(photo, anomaly_map, scale, outlines)),
    ]
    if mask is not None:
        panels.append(("marked by hand", _ringed(photo, mask, style.line)))
    return _compose(panels, scale, title, foot, style)


def under_map(
    photo: Pixels, anomaly_map: NDArray[np.float32], scale: MapScale, outlines: Sequence[Outline] = ()
) -> Image.Image:
    """The photo with the map's tint and lines, and the outlines; without outlines the threshold's line."""
    _check_shapes(photo, anomaly_map)
    picture, line = Image.fromarray(photo), style_for(photo).line
    colors = Image.fromarray(colorize(anomaly_map, scale))
    picture.paste(colors, (0, 0), faded(colors))
    least = scale.low if scale.threshold is None else scale.threshold
    distances = [scale.distance(at) for at in _LINES_AT] + ([] if outlines else [least])
    lines = [
        _Line(points, scale.color(distance), 0.7 * line)
        for distance in distances
        if least <= distance < float(anomaly_map.max())
        for points in _level_lines(anomaly_map, distance)
    ]
    for outline in outlines:
        # The first two points again, so that the closing corner is rounded like the others.
        points = [(x + 0.5, y + 0.5) for x, y in (*outline.points, *outline.points[:2])]
        color = _LINE_BRIGHT if outline.peak is None else scale.color(outline.peak)
        parts = _dashes(points, 3 * line) if outline.doubtful else [points]
        lines += [_Line(part, color, line) for part in parts]
    _draw_lines(picture, lines)
    return picture


@dataclass(frozen=True, slots=True)
class _Line:
    """points: (x, y), continuous px of the picture.  width: px."""

    points: Sequence[tuple[float, float]]
    color: tuple[int, int, int]
    width: float


def _level_lines(anomaly_map: NDArray[np.float32], distance: float) -> list[list[tuple[float, float]]]:
    """The lines along which the map has this distance."""
    step = math.ceil(max(anomaly_map.shape) / _LINES_SIDE)
    field = np.pad(anomaly_map[::step, ::step], 1)
    lines = find_contours(field, distance, fully_connected="high")  # type: ignore[no-untyped-call]
    return [[((x - 1) * step + 0.5, (y - 1) * step + 0.5) for y, x in line.tolist()] for line in lines]


def _dashes(points: Sequence[tuple[float, float]], length: float) -> list[list[tuple[float, float]]]:
    """Every second piece of `length` px of a line."""
    path = np.array(points)
    at = np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(path, axis=0).T))])
    starts = np.arange(0.0, at[-1], 2 * length)
    places = starts[:, None] + np.linspace(0.0, length, 4)
    xs, ys = (np.interp(places, at, path[:, axis]) for axis in (0, 1))
    return [list(zip(x, y, strict=True)) for x, y in zip(xs.tolist(), ys.tolist(), strict=True)]


def _draw_lines(picture: Image.Image, lines: Sequence[_Line]) -> None:
    """Dark lines under colored ones, drawn enlarged and then reduced, because Pillow's lines are jagged."""
    if not lines:
        return
    enlarge = max(1, min(4, 2048 // max(picture.size)))
    size = picture.width * enlarge, picture.height * enlarge
    dark, bright, colors = Image.new("L", size), Image.new("L", size), Image.new("RGB", size)
    for layer, wider, more in ((dark, 2.4, 0), (bright, 1, 0), (colors, 1, 2 * enlarge)):
        draw = ImageDraw.Draw(layer)
        for line in lines:
            points = [(x * enlarge, y * enlarge) for x, y in line.points]
            width = max(1, round(wider * line.width * enlarge)) + more
            draw.line(points, fill=line.color if layer is colors else 255, width=width, joint="curve")
    picture.paste(_LINE_DARK, (0, 0), dark.reduce(enlarge) if enlarge > 1 else dark)
    # The colors reach further than their lines: reducing mixes none of the ground into them.
    cover = bright.reduce(enlarge) if enlarge > 1 else bright
    picture.paste(colors.reduce(enlarge) if enlarge > 1 else colors, (0, 0), cover)


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
    panels: Sequence[tuple[str, Image.Image]], scale: MapScale, title: str, foot: str, style: PanelStyle
) -> Image.Image:
    """The panels in a row under their captions and the title, the color bar behind the last, the foot below."""
    width, height = panels[0][1].size
    bar = color_bar(scale, max(height, 9 * style.text), style)
    line, row = 2 * style.text, len(panels) * (width + style.gap)
    room = row + bar.width - 2 * style.gap
    above, below = wrap(title, style, room), wrap(foot, style, room)
    pitch = round(1.5 * style.text)
    caption_top = len(above) * pitch + (style.gap if above else 0)
    top = caption_top + (line if any(caption for caption, _ in panels) else 0)
    under = len(below) * pitch + (style.gap if below else 0)
    canvas = Image.new("RGB", (row + bar.width, top + bar.height + under), GROUND)
    draw = ImageDraw.Draw(canvas)
    for start, texts in ((style.gap // 2, above), (top + bar.height + style.gap // 2, below)):
        for number, text in enumerate(texts):
            write(draw, (style.gap, start + (number + 0.5) * pitch), text, PLAIN, style)
    for place, (caption, picture) in enumerate(panels):
        left = place * (width + style.gap)
        canvas.paste(picture, (left, top))
        write(draw, (left + style.gap, caption_top + line // 2), caption, QUIET, style)
    canvas.paste(bar, (row, top))
    return canvas


Layout = Literal["blend", "side"]
"""`blend`: the map over the photo.  `side`: the photo alone, beside that."""
PictureKind = Literal["png", "jpeg"]

_JPEG_QUALITY: Final = 90
"""JPEG quality: a sixth of the PNG's bytes."""
_ROWS_PER_STEP: Final = 64
"""Rows of a PNG that are compressed together."""


def map_scale(calibration: Calibration, level: float | None) -> MapScale:
    """The scale of an index's pictures; its threshold is the level of findings, if any.

    It ends where that of encoded maps does, at twice the highest normal patch: lesions differ from each other.
    """
    return MapScale(calibration.shown[0], level, calibration.full_scale)


def overlay_picture(
    pixels: NDArray[np.uint8],
    anomaly_map: NDArray[np.float32],
    result: Result,
    calibration: Calibration,
    layout: Layout = "blend",
    *,
    name: str = "",
) -> Image.Image:
    """The photo with its map and findings, and the color bar beside it; the picture says what it shows.

    Args:
        pixels: uint8 (H, W, 3), the photo at its own size.
        anomaly_map: float32 (H, W), the map in the photo's frame.
        name: of the photo, where it is known: the service is told none.
    """
    scale = map_scale(calibration, result.normals.finding_level)
    outlines = [Outline(finding.contour, finding.peak, bool(finding.doubts)) for finding in result.findings]
    title, foot = "\n".join([name, *caption(result)]), result.intended_use
    if layout == "side":
        return draw_panels(pixels, anomaly_map, scale, outlines, None, title, foot)
    return draw_overlay(pixels, anomaly_map, scale, outlines, title=title, foot=foot)


def caption(result: Result) -> list[str]:
    """What a picture says of a photo: verdict, score and p-value; findings; index and version."""
    verdict = {True: "abnormal", False: "normal", None: "no verdict"}[result.abnormal]
    if not result.quality.acceptable:
        verdict += f" (doubtful: {', '.join(result.quality.reasons).replace('-', ' ')})"
    p_value = "" if result.p_value is None else f", p {result.p_value:.4f}"
    compared = f"compared with {counted(result.normals.photos, 'healthy photograph')}"
    findings = counted(len(result.findings), "finding")
    if doubtful := sum(bool(finding.doubts) for finding in result.findings):
        findings += f", {doubtful} of them doubtful (dashed)"
    lines = [f"{verdict}, image score {result.image_score:#.4g}{p_value}, {compared}; {findings}"]
    lines.append(f"index {result.index.name}, version {result.index.version}")
    return lines + [f"index: {warning.text}" for warning in result.index.warnings]


def picture_file(picture: Image.Image, kind: PictureKind) -> bytes:
    """A picture as a file: lossless PNG, or JPEG in less time and space.

    The file states its intended use, as text `resad:intended_use` or as JPEG's comment; `resad-client watch`
    recognizes overlays by that text.
    """
    if kind == "png":
        rows = np.asarray(picture.convert("RGB"))
        bands = (rows[start : start + _ROWS_PER_STEP] for start in range(0, len(rows), _ROWS_PER_STEP))
        return b"".join(png_parts(bands, picture.size, "rgb", {"resad:intended_use": INTENDED_USE}))
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=_JPEG_QUALITY, comment=INTENDED_USE)
    return file.getvalue()
