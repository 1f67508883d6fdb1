"""Arteries and veins: four pairs of trunks leave the optic disc, branch, taper and spare the fovea.

They grow step by step in the eye's own axes (u temporal, v down from the optic disc, in units of the distance
from disc to fovea), so that one seed gives one tree at every size.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np
from PIL import Image, ImageDraw

from lab.drawing.retina import Scene
from lab.drawing.texture import Texture, fineness

Aim: TypeAlias = Callable[[float, float], float]
"""The heading (radians, from temporal toward down) that a vessel at (u, v) turns to."""

_STEP: Final = 0.018
_THINNEST: Final = 0.0048


@dataclass(frozen=True, slots=True)
class Point:
    """One step of a vessel; `width` is its full width in units."""

    u: float
    v: float
    heading: float
    width: float


@dataclass(frozen=True, slots=True)
class _Bud:
    """The start of a vessel and its direction."""

    start: Point
    aim: Aim
    length: float
    depth: int
    turn_rate: float
    """Share of the turn toward its aim that it makes in a step."""
    curvature_deviation: float
    """Deviation of the curvature per step: small vessels wind more."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """Where vessels may grow."""

    dip: float
    spared: float
    """Radius around the fovea without vessels."""
    center: tuple[float, float]
    """Of the field of view."""
    radius: float

    def allow(self, u: float, v: float) -> bool:
        """Whether (u, v) is in the field of view and off the fovea."""
        near = math.hypot(u - 1.0, v - self.dip) > self.spared
        return near and math.hypot(u - self.center[0], v - self.center[1]) < self.radius


def grow_tree(
    rng: np.random.Generator, bounds: Bounds, width: float, heights: tuple[float, float]
) -> list[list[Point]]:
    """All branches of one tree, thin ones first (so that thick ones are painted over them)."""
    buds = _trunks(rng, bounds, width, heights)
    branches = []
    while buds:
        bud = buds.pop()
        branch = _grow(rng, bud, bounds)
        branches.append(branch)
        if bud.depth < 3:
            buds.extend(_sprouts(rng, bud, branch, bounds))
    return sorted((branch for branch in branches if len(branch) > 2), key=lambda branch: branch[0].width)


def _trunks(rng: np.random.Generator, bounds: Bounds, width: float, heights: tuple[float, float]) -> list[_Bud]:
    """Upper and lower arcade, upper and lower nasal trunk, and small vessels straight to both sides."""
    buds = []
    for down, height in zip((-1.0, 1.0), heights, strict=True):
        root = (rng.uniform(-0.05, 0.0), -down * rng.uniform(0.0, 0.03))
        leave = down * math.radians(rng.uniform(72, 112))
        arcade = _along_arcade(down, height + rng.uniform(-0.1, 0.1), bounds.dip * 0.6)
        start = Point(*root, leave, width * rng.uniform(0.85, 1.0))
        buds.append(_Bud(start, arcade, 3.2, 0, 0.09, 0.016))
        away = down * math.radians(rng.uniform(112, 155))
        start = Point(*root, down * math.radians(rng.uniform(95, 125)), width * rng.uniform(0.5, 0.75))
        buds.append(_Bud(start, _straight(away), 2.0, 0, 0.055, 0.016))
    for _ in range(int(rng.integers(1, 4))):
        side = rng.uniform(-1, 1)
        start = Point(rng.uniform(0.0, 0.12), 0.12 * side, side * 0.9, width * rng.uniform(0.2, 0.34))
        aim = _toward(1.0 + rng.normal(0, 0.1), bounds.dip + 0.3 * side)
        buds.append(_Bud(start, aim, rng.uniform(0.5, 0.9), 1, 0.055, 0.03))
    for _ in range(int(rng.integers(2, 4))):
        away = math.pi + rng.uniform(-0.6, 0.6)
        start = Point(-0.06, rng.uniform(-0.06, 0.06), away, width * rng.uniform(0.22, 0.4))
        buds.append(_Bud(start, _straight(away + rng.uniform(-0.2, 0.2)), rng.uniform(0.5, 1.0), 1, 0.055, 0.022))
    return buds


def _along_arcade(down: float, height: float, level: float) -> Aim:
    """Along an ellipse around the macula, flatter beyond it; `down` is -1 for the upper arcade, 1 for the
    lower."""

    def aim(u: float, v: float) -> float:
        half = 1.15 if u < 1.05 else 2.3
        x, y = (u - 1.05) / half, (v - level) / height
        outward = math.atan2(y / height, x / half)
        short = 1.0 - (x * x + y * y)
        return outward - down * (math.pi / 2 - max(-0.8, min(0.8, 0.9 * short)))

    return aim


def _toward(u_goal: float, v_goal: float) -> Aim:
    return lambda u, v: math.atan2(v_goal - v, u_goal - u)


def _straight(heading: float) -> Aim:
    return lambda u, v: heading


def _grow(rng: np.random.Generator, bud: _Bud, bounds: Bounds) -> list[Point]:
    """The vessel's points, a step apart, until its length, its width or the bounds end it."""
    steps = int(bud.length / _STEP)
    kicks = rng.normal(0, bud.curvature_deviation, steps).tolist()
    point, branch, bend = bud.start, [bud.start], 0.0
    start, width = bud.start.width, bud.start.width
    for step, kick in enumerate(kicks):
        bend = 0.86 * bend + kick
        turn = math.remainder(bud.aim(point.u, point.v) - point.heading, 2 * math.pi)
        heading = point.heading + bud.turn_rate * turn + bend
        u, v = point.u + _STEP * math.cos(heading), point.v + _STEP * math.sin(heading)
        width = start * (1 - 0.72 * (step / steps) ** 1.3)
        if width < _THINNEST or not bounds.allow(u, v):
            break
        point = Point(u, v, heading, width)
        branch.append(point)
    return branch


def _sprouts(rng: np.random.Generator, bud: _Bud, branch: list[Point], bounds: Bounds) -> list[_Bud]:
    """Where `branch` divides: to alternating sides, at 30 to 75 degrees, thinner than itself."""
    buds: list[_Bud] = []
    gap = (0.2, 0.15, 0.13, 0.13)[bud.depth]
    side = 1.0 if rng.random() < 0.5 else -1.0
    at = 0.24 if bud.depth == 0 else 0.06
    while True:
        at += gap * rng.uniform(0.35, 1.6)
        index = int(at / _STEP)
        if index >= len(branch) - 2:
            return buds
        point = branch[index]
        side = -side if rng.random() < 0.75 else side
        heading = point.heading + side * math.radians(rng.uniform(28, 72))
        width = point.width * rng.uniform(0.34, 0.72)
        if width < 1.25 * _THINNEST:
            continue
        length = min(rng.uniform(0.25, 0.75) + 26 * width, 1.3)
        start = Point(point.u, point.v, heading, width)
        buds.append(
            _Bud(start, _branch_aim(rng, start, bounds), length, bud.depth + 1, 0.055, rng.uniform(0.025, 0.055))
        )


def _branch_aim(rng: np.random.Generator, start: Point, bounds: Bounds) -> Aim:
    """A branch that sets out toward the fovea goes on to it; any other keeps its direction, more or less."""
    to_fovea = math.atan2(bounds.dip - start.v, 1.0 - start.u)
    if start.u > 0.1 and abs(math.remainder(to_fovea - start.heading, 2 * math.pi)) < 1.2:
        return _toward(1.0 + rng.normal(0, 0.22), bounds.dip + rng.normal(0, 0.12))
    return _straight(start.heading + rng.normal(0, 0.35))


def draw_vessels(rng: np.random.Generator, scene: Scene, reflectance: Texture) -> None:
    """Darken `reflectance`, float32 (3, H, W), along veins and arteries (in place)."""
    center = (
        (scene.field_cx - scene.disc_cx) * scene.temporal / scene.unit,
        (scene.field_cy - scene.disc_cy) / scene.unit,
    )
    reach = 1.05 * scene.field_radius / scene.unit
    bounds = Bounds(scene.dip, rng.uniform(0.17, 0.24), center, reach)
    heights = (rng.uniform(0.68, 0.92), rng.uniform(0.68, 0.92))
    strength = rng.uniform(0.75, 1.1)
    veins, arteries = rng.spawn(2)
    for tree, width, loss, reflex in (
        (arteries, rng.uniform(0.022, 0.028), (0.07, 0.36, 0.4), (0.1, 0.26, 0.24)),
        (veins, rng.uniform(0.032, 0.039), (0.17, 0.5, 0.5), (0.04, 0.06, 0.05)),
    ):
        branches = grow_tree(tree, bounds, width, heights)
        body, core = _paint(scene, branches, 1.0), _paint(scene, branches, 0.62)
        light = _paint(scene, [branch for branch in branches if branch[0].width > 0.35 * width], 0.24)
        density = (body + core) * np.float32(0.5 * strength)
        for channel in range(3):
            reflectance[channel] *= np.float32(1) - np.float32(loss[channel]) * density
            reflectance[channel] *= np.float32(1) + np.float32(reflex[channel]) * light


def _paint(scene: Scene, branches: list[list[Point]], share: float) -> Texture:
    """Coverage 0 to 1, float32 (H, W), of the middle `share` of every vessel's width; thin vessels are fainter."""
    fine = fineness(scene.height)
    canvas = Image.new("L", (scene.width * fine, scene.height * fine))
    draw = ImageDraw.Draw(canvas)
    for branch in branches:
        row = np.array([(point.u, point.v, point.heading, point.width) for point in branch])
        side = np.stack([-np.sin(row[:, 2]), np.cos(row[:, 2])], axis=1) * (0.5 * share * row[:, 3:])
        edges = np.stack([row[:, :2] + side, row[:, :2] - side], axis=1) * (scene.unit * fine)
        edges[..., 0] = edges[..., 0] * scene.temporal + scene.disc_cx * fine
        edges[..., 1] += scene.disc_cy * fine
        shades = (255 * np.clip(0.3 + 0.7 * np.sqrt(row[:, 3] / 0.026), 0, 1)).astype(int).tolist()
        corners = np.concatenate([edges[:-1], edges[1:, ::-1]], axis=1).reshape(-1, 8).tolist()
        for corner, shade in zip(corners, shades[1:], strict=True):
            draw.polygon(corner, fill=shade)
    return np.asarray(canvas.reduce(fine), dtype=np.float32) / np.float32(255)
