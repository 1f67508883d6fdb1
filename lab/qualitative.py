"""The paper's figure 2: photograph, marks, map without ReSC, map with ReSC, one line per photograph."""

from collections.abc import Sequence
from typing import Final

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from lab.datasets import Dataset, LabeledPhoto
from lab.datasets.masks import read_lesions
from resad.calibration import USUAL_RATE, threshold
from resad.config import PhotoLimits
from resad.errors import SettingError, naming
from resad.loaded_index import LoadedIndex
from resad.photo import read_photo
from resad.pictures.overlay import colorize, faded, map_scale
from resad.preparation import prepare
from resad.result import INTENDED_USE

_CELL: Final = 320
_GAP: Final = 8
_HEAD: Final = 34
_GROUND, _INK = (255, 255, 255), (29, 36, 48)
_TITLES: Final = ("photograph", "marked by hand", "map without ReSC", "map with ReSC")


def qualitative(
    dataset: Dataset, without_resc: LoadedIndex, with_resc: LoadedIndex, limits: PhotoLimits, count: int = 4
) -> Image.Image:
    """`count` of the marked test photographs, evenly chosen, RGB; each index's maps on its own absolute scale.

    Raises `SettingError` if none is marked.
    """
    marked = [photo for photo in dataset.test if photo.masks]
    if not marked:
        raise SettingError(f"data set {dataset.name} has no marked photographs to draw")
    places = np.unique(np.linspace(0, len(marked) - 1, min(count, len(marked))).round().astype(int))
    rows = [_row(marked[place], without_resc, with_resc, limits) for place in places]
    return _composed(rows)


def _row(
    labeled: LabeledPhoto, without_resc: LoadedIndex, with_resc: LoadedIndex, limits: PhotoLimits
) -> list[Image.Image]:
    with naming(labeled.path):
        pixels = read_photo(labeled.path, limits).pixels
    height = round(_CELL * pixels.shape[0] / pixels.shape[1])
    photo = Image.fromarray(pixels).resize((_CELL, height), Image.Resampling.LANCZOS)
    lesions = read_lesions(labeled.masks, pixels.shape[0], pixels.shape[1])
    mask = Image.fromarray(np.logical_or.reduce(list(lesions.values()))).convert("L")
    small = mask.resize((_CELL, height), Image.Resampling.BOX).point(lambda share: min(255, 3 * share))
    maps = [_under_map(labeled, photo, loaded, limits) for loaded in (without_resc, with_resc)]
    return [photo, small.convert("RGB"), *maps]


def _under_map(labeled: LabeledPhoto, photo: Image.Image, loaded: LoadedIndex, limits: PhotoLimits) -> Image.Image:
    with naming(labeled.path):
        prepared = prepare(labeled.path, loaded.manifest.config.preparation, limits)
    dense = loaded.detector.detect([prepared])[0].anomaly_map
    values = prepared.frame.map_to_photo(dense, photo.width, photo.height)
    calibration = loaded.manifest.calibration
    level = threshold(calibration.peaks, USUAL_RATE).value
    colors = Image.fromarray(colorize(values, map_scale(calibration, level)))
    picture = photo.convert("L").convert("RGB")  # gray: the map's colors are then the only ones
    picture.paste(colors, (0, 0), faded(colors))
    return picture


def _composed(rows: Sequence[Sequence[Image.Image]]) -> Image.Image:
    height = sum(row[0].height + _GAP for row in rows)
    width = len(_TITLES) * (_CELL + _GAP) + _GAP
    canvas = Image.new("RGB", (width, height + 2 * _HEAD), _GROUND)
    draw = ImageDraw.Draw(canvas)
    font = ImageFont.load_default(size=17)
    for place, title in enumerate(_TITLES):
        middle = _GAP + place * (_CELL + _GAP) + _CELL / 2
        draw.text((middle, _HEAD / 2), title, _INK, font, anchor="mm")
    top = _HEAD
    for row in rows:
        for place, picture in enumerate(row):
            canvas.paste(picture, (_GAP + place * (_CELL + _GAP), top))
        top += row[0].height + _GAP
    note = (
        f"Each map on its own index's scale, from healthy patches' level to the highest of theirs. {INTENDED_USE}"
    )
    draw.text((_GAP, top + _HEAD / 2 - _GAP), note, _INK, ImageFont.load_default(size=14), anchor="lm")
    return canvas
