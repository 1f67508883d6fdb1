"""The bar beside a map: which color is which distance, and above which findings begin."""

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from resad.map_colors import MapScale, Pixels, colorize, faded

GROUND: Final = (17, 17, 17)
QUIET: Final = (166, 166, 166)
PLAIN: Final = (240, 240, 240)
"""Luminance ratios to the ground: quiet text 7.7 : 1, plain text 16 : 1 (WCAG asks for 4.5 : 1)."""
_UNDER_BAR: Final = (128, 128, 128)
_FINDINGS: Final = "findings"
"""What the level is called, which is not the threshold of image scores."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Sizes in px that follow from the picture's own."""

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


def layout_for(photo: Pixels) -> Layout:
    """For a picture of a photo (H, W, 3)."""
    longer = max(photo.shape[:2])
    text = max(11, round(longer / 42))
    return Layout(ImageFont.load_default(size=text), text, max(6, round(text * 0.7)), max(1.0, longer / 420))


def write(
    draw: ImageDraw.ImageDraw,
    at: tuple[float, float],
    text: str,
    color: tuple[int, int, int],
    layout: Layout,
    room: float = math.inf,
) -> None:
    """One line, centered on the height `at`, shortened to `room` px."""
    shown = text
    while shown and draw.textlength(shown, layout.font) > room:
        text = text[:-1]
        shown = text.rstrip() + "..." if text else ""
    draw.text(at, shown, color, layout.font, anchor="lm")


def color_bar(scale: MapScale, height: int, layout: Layout) -> Image.Image:
    """The colors from `high` (top) to `low` as an overlay shows them, with distances and the threshold."""
    text, gap = layout.text, layout.gap
    top = round(2.4 * text)
    length = height - top - text
    marks = _marks(scale, row=1.5 * text / length * (scale.high - scale.low))
    wide = max(layout.font.getlength(part) for part in ("distance", _FINDINGS, *(mark.label for mark in marks)))
    picture = Image.new("RGB", (math.ceil(text + gap + wide + gap), height), GROUND)
    draw = ImageDraw.Draw(picture)
    write(draw, (0, 0.8 * text), "distance", QUIET, layout)
    distances = np.linspace(scale.high, scale.low, length, dtype=np.float32)
    strip = Image.fromarray(np.repeat(colorize(distances[:, None], scale), text, axis=1))
    # On mid-gray, because half-transparent colors on the dark ground would be darker than in the photo.
    picture.paste(_UNDER_BAR, (0, top, text, top + length))
    picture.paste(strip, (0, top), faded(strip))
    for mark in marks:
        y = top + (length - 1) * (scale.high - mark.distance) / (scale.high - scale.low)
        color = PLAIN if mark.threshold else QUIET
        start = 0 if mark.threshold else text
        draw.line((start, y, text + gap // 2, y), color, round(layout.line * (2 if mark.threshold else 1)))
        write(draw, (text + gap, y), mark.label, color, layout)
        if mark.threshold:
            # Toward the middle of the bar, where there is always room.
            side = 1 if y < height / 2 else -1
            write(draw, (text + gap, y + side * 1.1 * text), _FINDINGS, color, layout)
    return picture


def _marks(scale: MapScale, row: float) -> list[_Mark]:
    """The threshold, the two ends and round distances, without those within `row` of one before."""
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
        # The threshold's own label takes two rows.
        if all(abs(distance - mark.distance) >= row * (1 + mark.threshold) for mark in marks):
            marks.append(_Mark(distance, f"{distance:.{decimals}f}", threshold=False))
    return marks
