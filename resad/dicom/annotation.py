"""Text burned into a photograph's field of view: it would be scored as lesions."""

from dataclasses import dataclass, replace
from math import ceil
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from resad.dicom.header import text_of
from resad.errors import PhotoUnsupported

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

    from resad.field_of_view import FieldOfView


@dataclass(frozen=True, slots=True)
class StrokeLevels:
    """What counts as strokes of text.

    pure: levels of 255 from the end of the range, up to which a channel is as graphics are drawn.  step: levels,
    least, between a stroke and what is beside it.  most: share of the field of view that strokes may cover.
    """

    pure: int
    step: int
    most: float


ANNOUNCED: Final = StrokeLevels(70, 70, 1e-3)
"""Where the header says that there is text: only whether it lies in the field is open."""
UNANNOUNCED: Final = StrokeLevels(20, 90, 1e-2)
"""Where the header says nothing: reflections and black notches must not be taken for text."""
_INSIDE: Final = 0.95
"""Share of the field of view's radius that is searched: cameras put notches and labels at the rim."""
_SEARCH_SIDE: Final = 1536
"""Longer side of the copy that is searched, px, at most."""


def demand_no_text(pixels: NDArray[np.uint8], dataset: "Dataset") -> None:
    """Raise `PhotoUnsupported` if text covers part of the field of view, unless the header rules that out.

    Args:
        pixels: uint8 (H, W, 3), RGB.
    """
    announced = text_of(dataset, "BurnedInAnnotation").upper()
    if announced == "NO":
        return
    from resad.field_of_view import find_field_of_view

    field = find_field_of_view(pixels)
    if announced != "YES" and not field.found:
        return  # what is no disc on a dark surround may have any colors
    levels = ANNOUNCED if announced == "YES" else UNANNOUNCED
    share = stroke_share(pixels, field, levels)
    if share > levels.most:
        raise PhotoUnsupported(
            f"text or drawings are burned into {share:.2%} of the field of view, the limit is {levels.most:.2%}; "
            "export the photograph without annotations"
        )


def stroke_share(pixels: NDArray[np.uint8], field: "FieldOfView", levels: StrokeLevels) -> float:
    """The share of the field of view that strokes of pure color with hard edges cover, 0 to 1.

    White, black and every pure color but red count: bright retinas come near to red, and to no other.

    Args:
        pixels: uint8 (H, W, 3), RGB.
        field: the field of view, px.
    """
    from scipy import ndimage

    from resad.field_of_view import field_of_view_mask

    inner = replace(field, radius=field.radius * _INSIDE)
    step = ceil(max(pixels.shape) / _SEARCH_SIDE)
    # Without smoothing, which would make strokes gray.
    sample = pixels[::step, ::step]
    height, width = pixels.shape[:2]
    mask = field_of_view_mask(inner, sample.shape[0], sample.shape[1], (0.0, 0.0, width, height))
    low, high = sample <= levels.pure, sample >= 255 - levels.pure
    red = high[..., 0] & ~high[..., 1] & ~high[..., 2]
    pure = (low | high).all(axis=2) & ~red
    # Whole strokes inside the field: the surround and a camera's notch reach beyond it.
    labels, count = ndimage.label(pure, np.ones((3, 3)))
    within = np.ones(count + 1, np.bool_)
    within[0] = False
    within[labels[~mask]] = False
    pure = within[labels]
    area = max(int(mask.sum()), 1)
    if pure.sum() <= levels.most * area:
        return float(pure.sum() / area)
    size = 2 * max(2, round(field.radius / step / 100)) + 1
    darker = sample - ndimage.minimum_filter(sample, (size, size, 1)) >= levels.step
    brighter = ndimage.maximum_filter(sample, (size, size, 1)) - sample >= levels.step
    white = (high & darker).all(axis=2)
    black = low.all(axis=2) & brighter.any(axis=2)
    colored = high.any(axis=2) & low.any(axis=2) & ((high & darker) | (low & brighter)).any(axis=2)
    return float(((white | black | colored) & pure).sum() / area)
