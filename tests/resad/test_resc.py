"""ReSC against literal twins of equations 2 to 5, written as loops over positions."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from resad import resc
from resad.config import ReSCConfig

Grid = np.ndarray


def literal_region(features: Grid, valid: Grid, radius: int) -> Grid:
    """Equation 3, position by position: (D, h, w)."""
    out = np.zeros_like(features)
    for y, x in zip(*np.nonzero(valid), strict=True):
        total, weight_sum = np.zeros(len(features)), 0.0
        for v, u in zip(*np.nonzero(valid), strict=True):
            weight = max(0.0, 1 - np.hypot(v - y, u - x) / (radius + 1))
            # The window is the kernel's square, which the circle of positive weights lies in.
            total += weight * features[:, v, u]
            weight_sum += weight
        out[:, y, x] = total / weight_sum
    return out


def literal_spatial(features: Grid, valid: Grid, scale: float) -> Grid:
    """Equation 4 with the whole hw x hw matrix: (D, h, w)."""
    x = features[:, valid].T.astype(np.float64)  # (N, D)
    logits = scale * x @ x.T
    attention = np.exp(logits - logits.max(axis=1, keepdims=True))
    attention /= attention.sum(axis=1, keepdims=True)
    out = np.zeros_like(features)
    out[:, valid] = (attention @ x).T
    return out


@pytest.fixture
def field(rng: np.random.Generator) -> tuple[Grid, Grid]:
    valid = np.hypot(*np.mgrid[-5:6, -4:5]) < 5
    features = rng.normal(size=(6, 11, 9)).astype(np.float32) * valid
    return features, valid


@pytest.mark.parametrize("radius", [1, 3, 12])
def test_region_filter_is_the_literal_weighted_mean(field: tuple[Grid, Grid], radius: int) -> None:
    features, valid = field
    result = resc.region_filter(torch.from_numpy(features)[None], torch.from_numpy(valid)[None], radius)
    np.testing.assert_allclose(result[0].numpy(), literal_region(features, valid, radius), atol=2e-6)


@pytest.mark.parametrize("product", [torch.float32, torch.float64])
@pytest.mark.parametrize("scale", [0.2, 1.0, 20.0])
def test_spatial_filter_is_the_literal_matrix_product(
    field: tuple[Grid, Grid], product: torch.dtype, scale: float
) -> None:
    """By torch's kernel, and in rows of the matrix (several chunks, the last one short)."""
    features, valid = field
    inputs = torch.from_numpy(features), torch.from_numpy(valid), ReSCConfig(attention_scale=scale), product
    result = resc.spatial_filter(*inputs, rows_at_once=7)
    np.testing.assert_allclose(result.numpy(), literal_spatial(features, valid, scale), atol=1e-5, rtol=1e-4)


def test_half_precision_products_stay_within_their_bound(rng: np.random.Generator) -> None:
    stages = torch.from_numpy(rng.normal(size=(2, 24, 12, 12)).astype(np.float32))
    unit = torch.cat([stage / stage.norm(dim=0) for stage in stages])  # two stages of length 1
    valid = torch.ones(12, 12, dtype=torch.bool)
    config = ReSCConfig()
    exact = resc.spatial_filter(unit, valid, config)
    half = resc.spatial_filter(unit, valid, config, torch.float16)
    deviation = ((half - exact).norm(dim=0) / exact.norm(dim=0)).max()
    assert 0 < deviation < 0.01


def test_combination_is_the_sum_of_its_parts(field: tuple[Grid, Grid]) -> None:
    features, valid = (torch.from_numpy(part)[None] for part in field)
    config = ReSCConfig(normalize=False, region_radius=98)
    region, spatial = (
        ReSCConfig(normalize=False, region_radius=98, spatial="none"),
        ReSCConfig(normalize=False, region=False),
    )
    total = resc.combine([features], valid, config)
    parts = resc.combine([features], valid, region) + resc.combine([features], valid, spatial)
    torch.testing.assert_close(total, parts)
    plain = resc.combine([features], valid, ReSCConfig(normalize=False, region=False, spatial="none"))
    torch.testing.assert_close(plain, features)


@given(st.integers(1, 30))
def test_kernel_is_a_normalized_cone(radius: int) -> None:
    kernel = resc.region_kernel(radius).double().numpy()
    assert kernel.shape == (2 * radius + 1, 2 * radius + 1)
    assert kernel.sum() == pytest.approx(1, abs=1e-5)
    cone = kernel / kernel[radius, radius]
    for steps in range(radius + 1):
        assert cone[radius, radius + steps] == pytest.approx(1 - steps / (radius + 1), abs=1e-5)
    np.testing.assert_allclose(kernel, kernel.T)
    np.testing.assert_allclose(kernel, kernel[::-1])


def test_radius_follows_the_grid() -> None:
    assert [resc.grid_radius(12, grid) for grid in (98, 64, 32, 4)] == [12, 8, 4, 1]


@settings(deadline=None, max_examples=20)
@given(st.floats(-3, 3), st.integers(1, 20))
def test_region_filter_keeps_a_constant_up_to_the_rim(constant: float, radius: int) -> None:
    valid = torch.from_numpy(np.hypot(*np.mgrid[-8:9, -8:9]) < 7)[None]
    features = torch.full((1, 2, 17, 17), constant) * valid[:, None]
    out = resc.region_filter(features, valid, radius)
    torch.testing.assert_close(out, features, atol=1e-5, rtol=1e-5)


def test_stages_are_normalized_and_resized_to_the_finest() -> None:
    fine, coarse = torch.rand(2, 5, 8, 8), 40 * torch.rand(2, 7, 4, 4)
    out = torch.cat(resc.on_one_grid([fine, coarse], ReSCConfig()), dim=1)
    assert out.shape == (2, 12, 8, 8)
    torch.testing.assert_close(out[:, :5].norm(dim=1), torch.ones(2, 8, 8))
    torch.testing.assert_close(out[:, 5:].norm(dim=1), torch.ones(2, 8, 8))
    raw = resc.on_one_grid([fine, coarse], ReSCConfig(normalize=False))
    torch.testing.assert_close(raw[0], fine)


def test_pooling_is_the_mean_of_the_neighborhood() -> None:
    stage = torch.arange(25.0).reshape(1, 1, 5, 5)
    (out,) = resc.on_one_grid([stage], ReSCConfig(normalize=False, pool=3))
    assert out[0, 0, 2, 2] == stage[0, 0, 1:4, 1:4].mean()


def _attend(side: int) -> None:
    torch.set_num_threads(1)
    resc.spatial_filter(torch.rand(8, side, side), torch.ones(side, side, dtype=torch.bool), ReSCConfig())


def _peaks_of_attention(*sides: int) -> list[int]:
    """Peak resident bytes after each, rising, of a process that does nothing else."""
    print_peak = "print(peak_memory_bytes())"
    code = "; ".join(f"_attend({side}); {print_peak}" for side in sides)
    imports = "from tests.resad.test_resc import _attend; from resad.runtime import peak_memory_bytes"
    process = subprocess.run(
        (sys.executable, "-c", f"{imports}; {code}"), capture_output=True, text=True, check=True
    )
    return [int(line) for line in process.stdout.split()]


@pytest.mark.long
def test_attention_never_holds_the_whole_matrix() -> None:
    """13,456 positions: the matrix alone would be 724 MB of float32."""
    whole = 116**4 * 4
    small, large = _peaks_of_attention(8, 116)
    assert large - small < whole / 2
