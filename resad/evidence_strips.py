"""Findings beside the healthy patches that come nearest to them: one strip per finding, on one picture."""

from collections.abc import Callable, Sequence
from typing import Final

from PIL import Image, ImageDraw, ImageFont, ImageOps

from resad.color_bar import GROUND, PLAIN, QUIET
from resad.evidence_crops import CONTEXT, ENLARGED, Cell, Pixels, cell_under, crop_around
from resad.preparation import PreparedPhoto
from resad.result import INTENDED_USE, Evidence, Finding

MOST_STRIPS: Final = 20
"""Findings that are drawn, strongest first."""
_SIDE: Final = CONTEXT * ENLARGED
_GAP: Final = 8
_TEXT: Final = 13
_LINE: Final = 20

Squares = Callable[[str], Pixels | None]
"""Id of a reference photo -> its prepared square, uint8 (S, S, 3), where it is kept."""


def draw_strips(photo: PreparedPhoto, findings: Sequence[Finding], squares: Squares, grid: Cell) -> Image.Image:
    """A row for each finding: its own crop, then those of its evidence, nearest first, with their distances.

    An RGB picture.  Crops are centered on the patch under the finding's peak and on the healthy patches, and all
    at one scale; a reference photo of which no square is kept is left blank.  Evidence that is near to the mirror
    image is turned left to right, so that what was compared looks alike.
    """
    shown = findings[:MOST_STRIPS]
    columns = 1 + max((len(finding.evidence) for finding in shown), default=0)
    width = _GAP + max(columns, 3) * (_SIDE + _GAP)
    row = 2 * _LINE + _SIDE + _GAP
    picture = Image.new("RGB", (width, _LINE + _GAP + len(shown) * row + _LINE), GROUND)
    left_out = f", the strongest {len(shown)} shown" if len(shown) < len(findings) else ""
    _write(
        picture,
        _GAP,
        0,
        f"{len(findings)} findings{left_out}, beside the nearest healthy patches; distances in feature units",
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
    own = crop_around(photo.pixels, cell_under(*at, photo.frame.side, grid), grid)
    _put(picture, 0, top + _LINE, own, "this photograph")
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
