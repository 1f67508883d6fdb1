"""Painted lesions: where they lie, what their masks say, and that nothing else changes."""

from typing import get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lab.drawing.painter import (
    BRIGHT,
    DARK,
    KINDS,
    LesionKind,
    Mask,
    Pixels,
    noise_level,
    paint,
)

SIDE = 96


def healthy(seed: int, side: int = SIDE) -> Pixels:
    """A reddish disc with fine noise."""
    rng = np.random.default_rng(seed)
    base = np.array([0.6, 0.3, 0.15], np.float32) + rng.normal(0, 0.01, (side, side, 1)).astype(np.float32)
    return np.clip(base * disc(side)[..., None], 0, 1).astype(np.float32)


def disc(side: int = SIDE) -> Mask:
    y, x = np.mgrid[:side, :side] - (side - 1) / 2
    mask: Mask = np.hypot(x, y) < side / 2 - 2
    return mask


@given(seed=st.integers(0, 2**32), kind=st.sampled_from(KINDS))
@settings(max_examples=60, deadline=None)
def test_pixels_change_only_in_the_field_of_view_and_only_where_it_is_said(seed: int, kind: LesionKind) -> None:
    pixels = healthy(1)

    painted = paint(np.random.default_rng(seed), pixels, disc(), healthy(2), kinds=(kind,))

    change = np.abs(painted.pixels - pixels).max(axis=-1)
    assert not change[~disc()].any()
    assert painted.pixels.min() >= 0
    assert painted.pixels.max() <= 1
    marked = painted.mask() | painted.faint
    # Beyond masks and faint pixels nothing changes by more than a quarter of the noise.
    rest = np.abs(painted.pixels - pixels)[..., :2].max(axis=-1)[~marked]
    assert rest.max(initial=0) <= 0.25 * noise_level(pixels, disc()) + 1e-6 or len(painted.lesions) > 1
    assert not (painted.mask() & painted.faint).any()


@given(seed=st.integers(0, 2**32))
@settings(max_examples=40, deadline=None)
def test_every_lesion_can_be_seen(seed: int) -> None:
    pixels = healthy(3)

    painted = paint(np.random.default_rng(seed), pixels, disc(), healthy(4))

    for lesion in painted.lesions:
        assert lesion.area > 0
        assert lesion.contrast >= 0.7
        assert lesion.mask.shape == disc()[lesion.window].shape
        assert not (lesion.mask & ~disc()[lesion.window]).any()


@pytest.mark.parametrize(("kinds", "sign"), [(DARK, -1), (BRIGHT, 1)])
def test_dark_kinds_darken_and_bright_kinds_brighten(kinds: frozenset[LesionKind], sign: int) -> None:
    pixels = healthy(5)
    for kind in sorted(kinds):
        for seed in range(8):
            painted = paint(np.random.default_rng(seed), pixels, disc(), healthy(6), kinds=(kind,))
            for lesion in painted.lesions:
                before, after = pixels[lesion.window][lesion.mask], painted.pixels[lesion.window][lesion.mask]
                assert sign * (after - before)[:, 1].mean() > 0


def test_the_same_generator_paints_the_same() -> None:
    first, second = (paint(np.random.default_rng(7), healthy(7), disc(), healthy(8)) for _ in range(2))

    np.testing.assert_array_equal(first.pixels, second.pixels)
    np.testing.assert_array_equal(first.mask(), second.mask())


def test_masks_by_kind_part_the_whole_mask() -> None:
    painted = paint(np.random.default_rng(9), healthy(9), disc(), healthy(10), kinds=KINDS)

    assert set(KINDS) == set(get_args(LesionKind))
    parts = [painted.mask(frozenset({kind})) for kind in KINDS]
    np.testing.assert_array_equal(np.any(parts, axis=0), painted.mask())
    assert painted.mask().any()


def test_an_empty_field_of_view_stays_as_it_is() -> None:
    painted = paint(np.random.default_rng(11), healthy(11), np.zeros((SIDE, SIDE), np.bool_), healthy(12))

    np.testing.assert_array_equal(painted.pixels, healthy(11))
    assert painted.lesions == ()


@pytest.mark.parametrize("scale", [1.0, 2.0])
def test_sizes_follow_the_scale(scale: float) -> None:
    side = int(256 * scale)
    areas = []
    for seed in range(12):
        rng = np.random.default_rng(seed)
        painted = paint(
            rng, healthy(1, side), disc(side), healthy(2, side), kinds=("cotton_wool_spot",), scale=scale
        )
        areas += [lesion.area for lesion in painted.lesions]
    # Radius about 7.6 px of a photograph that is 512 px wide; the mask ends at about half of the contrast.
    assert 50 * scale**2 < np.median(areas) < 400 * scale**2
