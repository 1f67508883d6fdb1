"""Pictures of evidence: crops of healthy patches, and strips that show a finding beside its nearest ones.

An index keeps them only if it was built with `--keep-crops`: they are pictures of patients.  It keeps each
reference photo's prepared square once, in a file named after its id, so that deleting that file erases all its
crops.
"""

import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont, ImageOps
from resad_client.records import INTENDED_USE, Evidence, Finding
from resad_client.text import counted

from resad.errors import IndexInvalid
from resad.manifest import FileRecord, Manifest
from resad.pictures.overlay import GROUND, PLAIN, QUIET
from resad.preparation import PreparedPhoto

FOLDER: Final = "evidence"
CONTEXT: Final = 96
"""Side of a crop, px of the prepared square: about the receptive field of a ResNet's third stage."""
ENLARGED: Final = 2
"""Crop px per prepared px."""
_QUALITY: Final = 90
"""JPEG quality; a square of 512 px takes about 50 kB."""
_PADDING: Final = 4
"""Between the cell and the frame that marks it, px of the prepared square."""
_DARK: Final = (0, 0, 0)
_BRIGHT: Final = (255, 255, 255)

Pixels = NDArray[np.uint8]
Cell = tuple[int, int]
"""(y, x) on the patch grid."""


def file_name(photo: str) -> str:
    """The file, relative to the version's folder, of the square of the reference photo with the id `photo`."""
    return f"{FOLDER}/{photo}.jpg"


def kept_squares(manifest: Manifest) -> tuple[FileRecord, ...]:
    """The prepared squares that a version keeps."""
    return tuple(record for record in manifest.files if record.name.startswith(f"{FOLDER}/"))


def keeps_crops(manifest: Manifest) -> bool:
    """Whether a version keeps prepared squares."""
    return bool(kept_squares(manifest))


def square_jpeg(square: Pixels) -> bytes:
    """The file of a prepared square, uint8 (S, S, 3)."""
    return jpeg(Image.fromarray(square))


def read_square(version: Path, manifest: Manifest, photo: str) -> Pixels | None:
    """The square that `version` keeps of the reference photo `photo`, uint8 (S, S, 3); None if it keeps none.

    Only files that the manifest names are opened.  Raises `IndexInvalid` if the file is missing or damaged.
    """
    name = file_name(photo)
    if all(record.name != name for record in manifest.files):
        return None
    try:
        with Image.open(version / name, formats=["JPEG"]) as image:
            square = np.array(image.convert("RGB"))
    except (OSError, SyntaxError) as error:
        raise IndexInvalid(f"{version}: {name} cannot be read") from error
    side = manifest.config.preparation.size
    if square.shape != (side, side, 3):
        raise IndexInvalid(f"{version}: {name} has {square.shape[1]} x {square.shape[0]} px, not {side} x {side}")
    return square


def cell_under(x: float, y: float, side: int, grid: Cell) -> Cell:
    """The cell of the grid (h, w) under the point (x, y) of a square of `side` px; outside, the nearest cell."""
    rows, columns = grid
    return min(max(int(y * rows / side), 0), rows - 1), min(max(int(x * columns / side), 0), columns - 1)


def crop_around(square: Pixels, cell: Cell, grid: Cell) -> Image.Image:
    """A crop of `square`, uint8 (S, S, 3), around a cell of the grid (h, w), the cell framed in the middle.

    RGB, `CONTEXT` prepared px a side, enlarged `ENLARGED` times; black beyond the square.  Raises `ValueError`
    for a cell outside the grid.
    """
    (rows, columns), (y, x) = grid, cell
    if not (0 <= y < rows and 0 <= x < columns):
        raise ValueError(f"cell {cell}: the grid has {grid}")
    height, width = square.shape[:2]
    top, left = (y + 0.5) * height / rows, (x + 0.5) * width / columns
    corner = round(left - CONTEXT / 2), round(top - CONTEXT / 2)
    # Pillow fills the part of a crop beyond the picture with black.
    part = Image.fromarray(square).crop((*corner, corner[0] + CONTEXT, corner[1] + CONTEXT))
    picture = part.resize((CONTEXT * ENLARGED, CONTEXT * ENLARGED), Image.Resampling.BICUBIC)
    box = (
        x * width / columns - corner[0] - _PADDING,
        y * height / rows - corner[1] - _PADDING,
        (x + 1) * width / columns - corner[0] + _PADDING,
        (y + 1) * height / rows - corner[1] + _PADDING,
    )
    _frame(picture, box)
    return picture


def jpeg(picture: Image.Image) -> bytes:
    """A picture as JPEG."""
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=_QUALITY)
    return file.getvalue()


def _frame(picture: Image.Image, box: tuple[float, float, float, float]) -> None:
    """A bright line around `box` (px of the crop before enlargement), with a dark line on either side."""
    left, top, right, bottom = (round(ENLARGED * edge) for edge in box)
    draw = ImageDraw.Draw(picture)
    for out, color in ((-1, _DARK), (1, _DARK), (0, _BRIGHT)):
        draw.rectangle((left - out, top - out, right + out, bottom + out), outline=color)


MAX_STRIPS: Final = 20
"""Most findings that are drawn, strongest first."""
_SIDE: Final = CONTEXT * ENLARGED
_GAP: Final = 8
_TEXT: Final = 13
_LINE: Final = 20

Squares = Callable[[str], Pixels | None]
"""Id of a reference photo -> its prepared square, uint8 (S, S, 3), if it is kept."""


def draw_strips(photo: PreparedPhoto, findings: Sequence[Finding], squares: Squares, grid: Cell) -> Image.Image:
    """A row for each finding: its crop, then those of its evidence, nearest first, with distances.

    An RGB picture.  Crops are centered on the patch under the finding's peak and on the healthy patches, all at
    one scale; without a kept square the place is left blank.  Evidence for the mirror image is flipped,
    so that the compared patches look alike.
    """
    shown = findings[:MAX_STRIPS]
    columns = 1 + max((len(finding.evidence) for finding in shown), default=0)
    width = _GAP + max(columns, 3) * (_SIDE + _GAP)
    row = 2 * _LINE + _SIDE + _GAP
    picture = Image.new("RGB", (width, _LINE + _GAP + len(shown) * row + _LINE), GROUND)
    limited = f", the strongest {len(shown)} shown" if len(shown) < len(findings) else ""
    _write(
        picture,
        _GAP,
        0,
        f"{counted(len(findings), 'finding')}{limited}, beside the nearest healthy patches; distances in feature "
        "units",
        QUIET,
    )
    for number, finding in enumerate(shown):
        _draw_strip(picture, _LINE + _GAP + number * row, photo, finding, squares, grid)
    _write(picture, _GAP, picture.height - _LINE, INTENDED_USE, QUIET)
    return picture


def _draw_strip(
    picture: Image.Image, top: int, photo: PreparedPhoto, finding: Finding, squares: Squares, grid: Cell
) -> None:
    title = f"finding {finding.rank}, peak {finding.peak:#.4g}, p {finding.p_value:.4f}"
    _write(picture, _GAP, top, f"{title}, {finding.place}" if finding.place else title, PLAIN)
    at = photo.frame.to_prepared(finding.x + 0.5, finding.y + 0.5)
    crop = crop_around(photo.pixels, cell_under(*at, photo.frame.side, grid), grid)
    _put(picture, 0, top + _LINE, crop, "this photograph")
    for column, healthy in enumerate(finding.evidence, start=1):
        _put(picture, column, top + _LINE, _healthy(healthy, squares, grid), _caption(healthy))


def _healthy(healthy: Evidence, squares: Squares, grid: Cell) -> Image.Image | None:
    square = squares(healthy.photo)
    if square is None:
        return None
    crop = crop_around(square, (healthy.y, healthy.x), grid)
    return ImageOps.mirror(crop) if healthy.mirrored else crop


def _caption(healthy: Evidence) -> str:
    return f"{healthy.distance:#.4g}, {healthy.photo}{', mirrored' if healthy.mirrored else ''}"


def _put(picture: Image.Image, column: int, top: int, crop: Image.Image | None, caption: str) -> None:
    left = _GAP + column * (_SIDE + _GAP)
    if crop is not None:
        picture.paste(crop, (left, top))
    _write(picture, left, top + _SIDE, caption, QUIET)


def _write(picture: Image.Image, left: int, top: int, text: str, color: tuple[int, int, int]) -> None:
    font = ImageFont.load_default(size=_TEXT)
    ImageDraw.Draw(picture).text((left, top + _LINE // 2), text, color, font, anchor="lm")
