"""Spots: where they may lie, and how one is drawn together with its mask."""

import math
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from lab.drawing.scene import Scene
from lab.drawing.texture import Mask, Texture, ramp

Place: TypeAlias = tuple[float, float]


@dataclass(frozen=True, slots=True, eq=False)
class Layer:
    """What is drawn of one kind: how much of the healthy retina it covers, and its mask."""

    scene: Scene
    cover: Texture
    mask: Mask


@dataclass(frozen=True, slots=True)
class Blob:
    """A roundish spot; lengths in px."""

    x: float
    y: float
    radius: float
    edge: float
    """Width over which it fades."""
    opacity: float
    stretch: float = 1.0
    """Length over width."""
    angle: float = 0.0
    ragged: float = 0.12


def places(rng: np.random.Generator, scene: Scene, count: int, near: Place, spread: float) -> list[Place]:
    """`count` places in the field of view and off the optic disc, px.

    They gather around `near` (eye axes, in units) with a standard deviation of `spread` units.
    """
    pitch = 0.03 * scene.field_radius
    y, x = np.mgrid[pitch / 2 : scene.height : pitch, pitch / 2 : scene.width : pitch]
    off_center = np.hypot(x - scene.field_cx, y - scene.field_cy)
    free = (off_center < 0.92 * scene.field_radius) & (y > scene.top + 2 * pitch) & (y < scene.bottom - 2 * pitch)
    free &= np.hypot(x - scene.disc_cx, y - scene.disc_cy) > 1.3 * scene.disc_radius + 2 * pitch
    u = (x - scene.disc_cx) * scene.temporal / scene.unit - near[0]
    v = (y - scene.disc_cy) / scene.unit - near[1]
    weight = free * (np.exp(-(u * u + v * v) / (2 * spread * spread)) + 1e-9)
    chosen = rng.choice(weight.size, size=count, p=(weight / weight.sum()).ravel())
    shift = rng.uniform(-pitch / 2, pitch / 2, size=(count, 2))
    return [(float(x.flat[i] + dx), float(y.flat[i] + dy)) for i, (dx, dy) in zip(chosen, shift, strict=True)]


def stamp(rng: np.random.Generator, layer: Layer, blob: Blob) -> None:
    """Draw `blob`; its mask is where it covers at least a third of its opacity."""
    radius = max(blob.radius, 0.9)
    reach = radius * blob.stretch * 1.5 + blob.edge
    height, width = layer.cover.shape
    rows = slice(max(0, math.floor(blob.y - reach)), min(height, math.ceil(blob.y + reach)))
    columns = slice(max(0, math.floor(blob.x - reach)), min(width, math.ceil(blob.x + reach)))
    phases = rng.uniform(0, 2 * math.pi, 4)
    sizes = rng.uniform(-blob.ragged, blob.ragged, 4)
    if rows.start >= rows.stop or columns.start >= columns.stop:
        return
    y = np.arange(rows.start, rows.stop)[:, None] + 0.5 - blob.y
    x = np.arange(columns.start, columns.stop)[None, :] + 0.5 - blob.x
    along = (x * math.cos(blob.angle) + y * math.sin(blob.angle)) / blob.stretch
    across = y * math.cos(blob.angle) - x * math.sin(blob.angle)
    turn, off = np.arctan2(across, along), np.hypot(along, across)
    rim = 1 + sum(s * np.cos(k * turn + p) for k, s, p in zip((2, 3, 5, 8), sizes, phases, strict=True))
    # Distance to the rim in px: a stretched spot's would otherwise be stretched at its tips too.
    slope = np.hypot(along / blob.stretch, across) / np.maximum(off, 1e-6)
    depth = (rim * radius - off) / np.maximum(slope, 1 / blob.stretch) / max(blob.edge, 0.8)
    cover = ramp(-0.5, 0.5, depth.astype(np.float32))
    layer.mask[rows, columns] |= cover > 1 / 3
    np.maximum(layer.cover[rows, columns], cover * np.float32(blob.opacity), out=layer.cover[rows, columns])


def log_normal(rng: np.random.Generator, median: float, spread: float, most: float) -> float:
    """A size: `median` times e to the normal deviation `spread`, at most `most`."""
    return min(float(median * math.exp(rng.normal(0, spread))), most)
