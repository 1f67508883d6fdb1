"""Whitening against its definition: mean gone, covariance raised to a power; and files that come back."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as nnf
from torch import Tensor

from resad import whitening
from resad.errors import IndexInvalid, SettingError
from resad.whitening import Whitening, fit_whitening


def unit_rows(rng: np.random.Generator, count: int, channels: int) -> Tensor:
    """Unit vectors around a mean, varying by very different amounts along directions that are no axes."""
    turn = np.linalg.qr(rng.normal(size=(channels, channels)))[0]
    points = rng.normal(size=(count, channels)) * np.linspace(0.1, 1.0, channels) @ turn + rng.normal(
        size=channels
    )
    return nnf.normalize(torch.from_numpy(points.astype(np.float32)), dim=1)


def as_map(rows: Tensor) -> Tensor:
    """(N, C) -> (1, C, N, 1)."""
    return rows.T[None, :, :, None].contiguous()


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0])
def test_covariances_become_their_own_power(rng: np.random.Generator, power: float) -> None:
    photos = [[unit_rows(rng, 400, 6), unit_rows(rng, 300, 3)] for _ in range(3)]
    fitted = fit_whitening(photos, power)
    for number in range(2):
        rows = torch.cat([stages[number] for stages in photos]).double()
        mean, covariance = rows.mean(dim=0), torch.cov(rows.T, correction=0)
        torch.testing.assert_close(fitted.means[number].double(), mean, rtol=1e-6, atol=1e-7)
        values, vectors = np.linalg.eigh(covariance.numpy())
        # The definition, with the floor that keeps noise from being raised.
        floored = values / values[-1] + whitening._FLOOR
        expected = sum(v[:, None] * v * f ** (-power / 2) for f, v in zip(floored, vectors.T, strict=True))
        np.testing.assert_allclose(fitted.matrices[number].numpy(), expected, rtol=2e-4, atol=2e-5)


def test_what_comes_out_is_centered_before_it_is_scaled(rng: np.random.Generator) -> None:
    rows = unit_rows(rng, 500, 5)
    fitted = fit_whitening([[rows]], 0.5)
    out = fitted.of(0, as_map(rows))
    literal = (rows - fitted.means[0]) @ fitted.matrices[0]
    assert float(literal.mean(dim=0).abs().max()) < 1e-6
    torch.testing.assert_close(out, as_map(nnf.normalize(literal, dim=1)), rtol=1e-4, atol=1e-5)


def test_directions_vary_more_alike(rng: np.random.Generator) -> None:
    rows = unit_rows(rng, 2000, 8)
    ratios = []
    for power in (0.0, 0.5, 1.0):
        white = fit_whitening([[rows]], power).of(0, as_map(rows))[0, :, :, 0]
        values = torch.linalg.eigvalsh(torch.cov(white))
        ratios.append(float(values[0] / values[-1]))
    assert ratios[0] < 0.5 * ratios[1] < 0.25 * ratios[2]


def test_one_direction_that_does_not_vary_is_no_division_by_zero() -> None:
    rows = torch.zeros(10, 3)
    rows[:, 0] = 1
    fitted = fit_whitening([[rows]], 1.0)
    assert all(bool(tensor.isfinite().all()) for tensor in (*fitted.means, *fitted.matrices))


def test_it_comes_back_from_its_file_as_it_was(rng: np.random.Generator, tmp_path: Path) -> None:
    fitted = fit_whitening([[unit_rows(rng, 50, 6), unit_rows(rng, 50, 3)]], 0.5)
    (tmp_path / whitening.FILE).write_bytes(fitted.to_bytes())
    again = Whitening.load(tmp_path / whitening.FILE)
    assert again.sha256 == fitted.sha256
    for ours, theirs in zip(again.matrices, fitted.matrices, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0)
    other = fit_whitening([[unit_rows(rng, 50, 6), unit_rows(rng, 50, 3)]], 0.5)
    assert other.sha256 != fitted.sha256


def test_a_file_of_another_kind_is_named(tmp_path: Path) -> None:
    file = tmp_path / whitening.FILE
    with pytest.raises(IndexInvalid, match=whitening.FILE):
        Whitening.load(file)
    file.write_bytes(b"no tensors")
    with pytest.raises(IndexInvalid, match=whitening.FILE):
        Whitening.load(file)


@pytest.mark.parametrize("photos", [[], [[torch.empty(0, 4)]]])
def test_nothing_to_fit_to_is_refused(photos: list[list[Tensor]]) -> None:
    with pytest.raises(SettingError, match="none to fit it to"):
        fit_whitening(photos, 0.5)
