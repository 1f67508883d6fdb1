"""Places in words: the quadrant that a reader would name, in the photo's own frame."""

from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resad.config import Eye
from resad.field_of_view import FieldOfView
from resad.findings import CENTRAL, place_in_words

FIELD = FieldOfView(2100.0, 1400.0, 1600.0, 500.0, 0.0, 3700.0, 2800.0, found=True)
EYES = get_args(Eye)


@pytest.mark.parametrize(
    ("x", "y", "unknown", "right", "left"),
    [
        (3300, 600, "superior, right of the photo", "superior nasal", "superior temporal"),
        (900, 600, "superior, left of the photo", "superior temporal", "superior nasal"),
        (3300, 2200, "inferior, right of the photo", "inferior nasal", "inferior temporal"),
        (900, 2200, "inferior, left of the photo", "inferior temporal", "inferior nasal"),
        (2250, 1300, "central", "central", "central"),
    ],
)
def test_the_quadrants(x: float, y: float, unknown: str, right: str, left: str) -> None:
    """In a photograph of a right eye the optic disc, and so the nose, is on the right."""
    assert place_in_words(x, y, FIELD, None) == unknown
    assert place_in_words(x, y, FIELD, "right") == right
    assert place_in_words(x, y, FIELD, "left") == left


@given(st.floats(0, 4000), st.floats(0, 2800), st.sampled_from([None, *EYES]), st.floats(0.1, 10))
def test_a_place_does_not_depend_on_the_photos_size(x: float, y: float, eye: Eye | None, scale: float) -> None:
    ring = ((x - FIELD.cx) ** 2 + (y - FIELD.cy) ** 2) ** 0.5 / FIELD.radius
    if abs(ring - CENTRAL) > 1e-6 and min(abs(x - FIELD.cx), abs(y - FIELD.cy)) > 1e-6:
        scaled = place_in_words(x * scale, y * scale, FIELD.scaled(scale, scale), eye)
        assert scaled == place_in_words(x, y, FIELD, eye)


@given(st.floats(500, 3700), st.floats(0, 2800))
def test_the_mirrored_eye_has_the_mirrored_place(x: float, y: float) -> None:
    """A left eye's photograph is a right eye's in the mirror: the words stay."""
    if abs(x - FIELD.cx) > 1e-6:
        assert place_in_words(x, y, FIELD, "right") == place_in_words(2 * FIELD.cx - x, y, FIELD, "left")


def test_without_a_disc_the_frame_stands_in() -> None:
    """The circle then goes around the frame: a quarter of its radius would be most of a narrow one."""
    strip = FieldOfView(1000.0, 100.0, 1005.0, 0.0, 0.0, 2000.0, 200.0, found=False)
    assert place_in_words(1020, 100, strip, None) == "central"
    assert place_in_words(1200, 90, strip, None) == "superior, right of the photo"
