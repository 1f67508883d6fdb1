"""Normal variants: they change the photograph inside its field of view alone, and as their kind says."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lab.drawing.painter import Mask, Pixels
from lab.drawing.variants import paint_choroidal_vessels, paint_reflexes, paint_winding_vessels
from tests.lab.test_painter import SIDE, disc, healthy

VARIANTS = (paint_winding_vessels, paint_choroidal_vessels, paint_reflexes)
Variant = Callable[[np.random.Generator, Pixels, Mask], Pixels]


@given(seed=st.integers(0, 2**32), variant=st.sampled_from(VARIANTS), scale=st.sampled_from((0.5, 1.0, 2.0)))
@settings(max_examples=60, deadline=None)
def test_a_variant_stays_in_the_field_of_view_and_leaves_its_input_alone(
    seed: int, variant: Callable[..., Pixels], scale: float
) -> None:
    pixels = healthy(1)

    painted = variant(np.random.default_rng(seed), pixels, disc(), scale=scale)

    np.testing.assert_array_equal(pixels, healthy(1))
    assert painted.dtype == np.float32
    assert painted.shape == pixels.shape
    assert not np.abs(painted - pixels)[~disc()].any()
    assert painted.min() >= 0
    assert painted.max() <= 1


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_variant_can_be_seen_and_is_drawn_anew_from_the_same_generator(variant: Variant) -> None:
    pixels = healthy(2)
    for seed in range(6):
        painted = variant(np.random.default_rng(seed), pixels, disc())
        assert np.abs(painted - pixels)[disc()].max() > 0.005
        np.testing.assert_array_equal(painted, variant(np.random.default_rng(seed), pixels, disc()))


@pytest.mark.parametrize(("variant", "sign"), [(paint_winding_vessels, -1), (paint_reflexes, 1)])
def test_vessels_darken_and_reflexes_brighten(variant: Variant, sign: int) -> None:
    pixels = healthy(3)
    for seed in range(6):
        change = sign * (variant(np.random.default_rng(seed), pixels, disc()) - pixels)
        assert change.min() >= -1e-6


def test_an_empty_field_of_view_stays_as_it_is() -> None:
    for variant in VARIANTS:
        painted = variant(np.random.default_rng(4), healthy(4), np.zeros((SIDE, SIDE), np.bool_))
        np.testing.assert_array_equal(painted, healthy(4))
