"""ReSC, the Region-and-Spatial-Aware feature Combination of the paper (section 3.2, equations 2 to 5).

    F = stages on one grid (equation 2)     R = region filter of F (equation 3)
    P = attention over the whole photo (equation 4)     C = P + R (equation 5)

Equation 4 as printed multiplies an hw x hw matrix element by element with an hw x c one; it is read here as
softmax(scale F F^T) F.  Positions outside the field of view take no part: they are zero on the way in and out,
no weight falls on them and no position attends to them.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as nnf
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from resad.config import PAPER_GRID, ReSCConfig
from resad.device import to_device

_ATTENTION_ROWS = 1024
"""Rows of the hw x hw attention matrix that exist at a time: 40 MB of float32 on the paper's grid."""
_REGION_CHANNELS = 256
"""Channels that are in the frequency domain at a time: 17 MB of complex64 on the paper's grid."""


def combine(
    stages: Sequence[Tensor],
    valid: Tensor,
    config: ReSCConfig,
    *,
    product: torch.dtype = torch.float32,
    positions: Sequence[Tensor] | None = None,
) -> Tensor:
    """C of equation 5.

    Args:
        stages: float (B, C_i, h_i, w_i), finest first.
        valid: bool (B, h, w) on the finest stage's grid, the positions that touch the field of view.
        product: as for `spatial_filter`.
        positions: per photo the valid positions, as for `spatial_filter`.
    Returns:
        float32 (B, D, h, w), D the sum of the C_i; 0 where not valid.  F itself where both parts are off.
    """
    if config.levels:
        return _combine_levels(stages, valid, config, product)
    features = torch.cat(on_one_grid(stages, config), dim=1) * valid[:, None]  # F of equation 2
    parts = []
    if config.region:
        parts.append(region_filter(features, valid, grid_radius(config.region_radius, valid.shape[-1])))
    if config.spatial != "none":
        cells: Sequence[Tensor | None] = [None] * len(features) if positions is None else positions
        per_photo = zip(features, valid, cells, strict=True)
        parts.append(torch.stack([spatial_filter(f, v, config, product, at) for f, v, at in per_photo]))
    return sum(parts[1:], start=parts[0]) if parts else features


def _combine_levels(stages: Sequence[Tensor], valid: Tensor, config: ReSCConfig, product: torch.dtype) -> Tensor:
    """Each stage combined on its own grid, weighted, and resized to the finest grid."""
    maps = []
    for stage, level in zip(stages, config.levels, strict=True):
        inside = nnf.adaptive_max_pool2d(valid[:, None].float(), stage.shape[-2:])[:, 0] > 0
        x = stage.float()
        x = (nnf.normalize(x, dim=1) if level.scale == "unit" else x) * inside[:, None]
        parts = []
        if level.region:
            parts.append(region_filter(x, inside, grid_radius(config.region_radius, inside.shape[-1])))
        if level.spatial:
            per_photo = zip(x, inside, strict=True)
            parts.append(torch.stack([spatial_filter(f, v, config, product) for f, v in per_photo]))
        # Channels last from here on: interpolating takes a third of the time, and a patch's numbers lie together.
        combined = (sum(parts[1:], start=parts[0]) if parts else x) * math.sqrt(level.weight)
        combined = combined.contiguous(memory_format=torch.channels_last)
        if combined.shape[-2:] != valid.shape[-2:]:
            combined = nnf.interpolate(combined, valid.shape[-2:], mode="bilinear", align_corners=False)
        maps.append(combined)
    return torch.cat(maps, dim=1).mul_(valid[:, None])


def on_one_grid(stages: Sequence[Tensor], config: ReSCConfig) -> list[Tensor]:
    """The maps that equation 2 concatenates: pooled, on the finest grid, normalized: (B, C_i, h, w) each."""
    grid = stages[0].shape[-2:]
    maps = []
    for stage in stages:
        x = stage.float()
        if config.pool > 1:
            x = nnf.avg_pool2d(x, config.pool, stride=1, padding=config.pool // 2)
        x = nnf.interpolate(x, grid, mode="bilinear", align_corners=False)
        maps.append(nnf.normalize(x, dim=1) if config.normalize else x)
    return maps


def grid_radius(paper_radius: int, grid: int) -> int:
    """The radius in cells of a grid `grid` wide, for one given in cells of the paper's grid; at least 1."""
    return max(1, round(paper_radius * grid / PAPER_GRID))


def region_kernel(radius: int) -> Tensor:
    """psi_r of equation 3: float32 (2r + 1, 2r + 1), max(0, 1 - d / (r + 1)), d the distance in cells; sum 1."""
    steps = torch.arange(-radius, radius + 1, dtype=torch.float64)
    distance = torch.hypot(steps[:, None], steps[None, :])
    weights = (1 - distance / (radius + 1)).clamp(min=0)
    return (weights / weights.sum()).float()


def region_filter(features: Tensor, valid: Tensor, radius: int) -> Tensor:
    """R of equation 3: the kernel's weighted mean over the valid cells around each cell.

    One fixed kernel for all channels, so the product in the frequency domain is several times faster than a
    depthwise convolution.  float32 throughout: half precision does not carry an FFT.

    Args:
        features: float32 (B, D, h, w), 0 where not valid.
        valid: bool (B, h, w).
    """
    h, w = valid.shape[-2:]
    # Padded by the radius, so that the circular product never wraps into the map.
    shape = (_fast_length(h + radius), _fast_length(w + radius))
    spectrum = torch.fft.rfft2(_centered(to_device(region_kernel(radius), features.device), shape))
    out = torch.empty_like(features)
    weight = _convolve(valid[:, None].float(), spectrum, shape).clamp(min=torch.finfo(torch.float32).tiny)
    for start in range(0, features.shape[1], _REGION_CHANNELS):
        part = slice(start, start + _REGION_CHANNELS)
        out[:, part] = _convolve(features[:, part], spectrum, shape)[..., :h, :w] / weight[..., :h, :w]
    return out * valid[:, None]


def _convolve(x: Tensor, spectrum: Tensor, shape: tuple[int, int]) -> Tensor:
    product: Tensor = torch.fft.irfft2(torch.fft.rfft2(x, s=shape) * spectrum, s=shape)
    return product


def _centered(kernel: Tensor, shape: tuple[int, int]) -> Tensor:
    """`kernel` on a raster of `shape` with its center at (0, 0), wrapped around the edges."""
    radius = kernel.shape[0] // 2
    raster = nnf.pad(kernel, (0, shape[1] - kernel.shape[1], 0, shape[0] - kernel.shape[0]))
    return raster.roll((-radius, -radius), dims=(0, 1))


def _fast_length(at_least: int) -> int:
    """The next length whose only prime factors are 2, 3 and 5."""
    length = at_least
    while math.gcd(length, 30**12) != length:
        length += 1
    return length


def spatial_filter(
    features: Tensor,
    valid: Tensor,
    config: ReSCConfig,
    product: torch.dtype = torch.float32,
    positions: Tensor | None = None,
    *,
    rows_at_once: int = _ATTENTION_ROWS,
) -> Tensor:
    """P of equation 4 for one photograph; the hw x hw matrix is never in memory as a whole.

    Args:
        features: float32 (D, h, w), 0 where not valid.
        valid: bool (h, w).
        product: type of the two matrix products' factors.  With float16, scale 20 and unit stages, P differs
            by less than 1 % of a position's length.
        positions: int64 (N,), the valid positions, in reading order, on the features' device.  Without them they
            are taken from `valid`, which waits for a GPU.
        rows_at_once: of the matrix, where torch's own kernel is not used.
    """
    positions = valid.flatten().nonzero()[:, 0] if positions is None else positions
    flat = features.flatten(1)
    x = flat.index_select(1, positions).T.contiguous()  # (N, D)
    by_kernel = x.device.type == "cpu" and product == torch.float32 and len(x)
    attended = (
        _attend(x, config.attention_scale) if by_kernel else _attend_by_rows(x, config, product, rows_at_once)
    )
    return torch.zeros_like(flat).index_copy_(1, positions, attended.T).reshape(features.shape)


def _attend(x: Tensor, scale: float) -> Tensor:
    """softmax(scale x x^T) x by torch's flash kernel for CPUs: a fifth faster, a little more exact, less memory.

    On a GPU that kernel ends at head dimension 256, and its replacement may hold the whole matrix.
    """
    q = x[None, None]
    with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
        return nnf.scaled_dot_product_attention(q, q, q, scale=scale)[0, 0]


def _attend_by_rows(x: Tensor, config: ReSCConfig, product: torch.dtype, step: int) -> Tensor:
    """The same, (N, D), `step` rows of the matrix at a time."""
    values = x.to(product)
    attended = torch.empty_like(x)
    for start in range(0, len(x), step):
        rows = slice(start, start + step)
        logits = (values[rows] @ values.T).float().mul_(config.attention_scale)  # (rows, N)
        attended[rows] = (torch.softmax(logits, dim=1).to(product) @ values).float()
    return attended
