"""Photographs under their anomaly maps, as pictures.

Coordinates are the given photo's own px; an outline's points are pixel indexes.  Distances: feature units.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy import ndimage

from resad.color_bar import GROUND, PLAIN, QUIET, Layout, color_bar, layout_for, write
from resad.map_colors import MapScale, Pixels, colorize, faded

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
    layout = layout_for(photo)
    panel = _overlaid(photo, anomaly_map, scale, outlines, layout)
    return _compose([("", panel)], scale, title, layout)


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
    layout = layout_for(photo)
    panels = [
        ("photo", Image.fromarray(photo)),
        ("anomaly map", _overlaid(photo, anomaly_map, scale, outlines, layout)),
    ]
    if mask is not None:
        panels.append(("marked by hand", _ringed(photo, mask, layout.line)))
    return _compose(panels, scale, title, layout)


def _overlaid(
    photo: Pixels,
    anomaly_map: NDArray[np.float32],
    scale: MapScale,
    outlines: Sequence[Outline],
    layout: Layout,
) -> Image.Image:
    _check_shapes(photo, anomaly_map)
    picture = Image.fromarray(photo)
    colors = Image.fromarray(colorize(anomaly_map, scale))
    picture.paste(colors, (0, 0), faded(colors))
    _draw_outlines(picture, outlines, layout.line)
    return picture


def _draw_outlines(picture: Image.Image, outlines: Sequence[Outline], line: float) -> None:
    """A dark line under a bright one, drawn enlarged and reduced, as Pillow's own lines are jagged."""
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
    """The photo with a ring around every part of the mask, outside it, so that the lesion stays uncovered."""
    _check_shapes(photo, mask)
    picture = Image.fromarray(photo)
    if mask.any():
        away = ndimage.distance_transform_edt(~mask)
        for width, color in ((2 * line, _LINE_DARK), (line, _LINE_BRIGHT)):
            cover = np.where(mask, 0.0, np.clip(width + 1.0 - away, 0.0, 1.0))
            picture.paste(color, (0, 0), Image.fromarray(np.rint(255 * cover).astype(np.uint8)))
    return picture


def _check_shapes(photo: Pixels, other: NDArray[np.float32] | NDArray[np.bool_]) -> None:
    if photo.ndim != 3 or photo.shape[2] != 3 or photo.shape[:2] != other.shape:
        raise ValueError(f"photo {photo.shape} and map {other.shape}: must be (H, W, 3) and (H, W)")


def _compose(
    panels: Sequence[tuple[str, Image.Image]], scale: MapScale, title: str, layout: Layout
) -> Image.Image:
    """The panels in a row under their captions and the title, the color bar behind the last."""
    width, height = panels[0][1].size
    title = " ".join(title.split())
    bar = color_bar(scale, max(height, 9 * layout.text), layout)
    line = 2 * layout.text
    caption_top = line if title else 0
    top = caption_top + (line if any(caption for caption, _ in panels) else 0)
    row = len(panels) * (width + layout.gap)
    canvas = Image.new("RGB", (row + bar.width, top + bar.height), GROUND)
    draw = ImageDraw.Draw(canvas)
    write(draw, (layout.gap, line // 2), title, PLAIN, layout, canvas.width - 2 * layout.gap)
    for place, (caption, picture) in enumerate(panels):
        left = place * (width + layout.gap)
        canvas.paste(picture, (left, top))
        write(draw, (left + layout.gap, caption_top + line // 2), caption, QUIET, layout, width - layout.gap)
    canvas.paste(bar, (row, top))
    return canvas
