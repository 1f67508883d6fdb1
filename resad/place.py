"""Where in a photograph a finding lies, in words.

Relative to the field of view, whose center need not be the fovea: photographs are centered on the macula, on the
optic disc, or elsewhere.  Photographs are taken to be upright, as fundus cameras give them: of a right eye the
nasal side is on the right of the photograph, of a left eye on the left.
"""

from math import hypot
from typing import Final, Literal

from resad.field_of_view import FieldOfView

Eye = Literal["left", "right"]

CENTRAL: Final = 0.25
"""Share of the field of view's radius within which a point is central: 6 % of the area."""


def place_in_words(x: float, y: float, field: FieldOfView, eye: Eye | None) -> str:
    """`central`, or the quadrant: `superior temporal`; `superior, left of the photo` where the eye is not known.

    Args:
        x, y: px of the photo.
        field: in px of the photo; where no disc was found, the frame stands in for it.
    """
    across, up = x - field.cx, field.cy - y
    radius = field.radius if field.found else min(field.right - field.left, field.bottom - field.top) / 2
    if hypot(across, up) <= CENTRAL * radius:
        return "central"
    vertical = "superior" if up > 0 else "inferior"
    side: Eye = "left" if across < 0 else "right"
    if eye is None:
        return f"{vertical}, {side} of the photo"
    return f"{vertical} {'nasal' if side == eye else 'temporal'}"
