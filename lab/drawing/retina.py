"""The eye and its background: where disc, fovea and field of view lie; pigment, choroid, macula, disc and cup."""

import math
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np

from lab.drawing.texture import Mask, Texture, bell, enlarge, noise, polar_noise, ramp

Eye = Literal["left", "right"]

ASPECT: Final = 1.5
"""Width over height, as fundus cameras with a 3:2 sensor deliver."""


@dataclass(frozen=True, slots=True)
class Scene:
    """The geometry of one photograph, in px of the photograph (x to the right, y down)."""

    height: int
    width: int
    eye: Eye
    field_cx: float
    field_cy: float
    field_radius: float
    top: float
    """First row of the field of view, which the camera clips straight."""
    bottom: float
    disc_cx: float
    disc_cy: float
    disc_radius: float
    fovea_x: float
    fovea_y: float

    @property
    def temporal(self) -> float:
        """+1 where temporal is to the right (left eye), -1 where it is to the left (right eye)."""
        return 1.0 if self.eye == "left" else -1.0

    @property
    def unit(self) -> float:
        """Horizontal distance from optic disc to fovea, px: about 2.5 disc diameters."""
        return abs(self.fovea_x - self.disc_cx)

    @property
    def dip(self) -> float:
        """How far the fovea lies below the optic disc, in units."""
        return (self.fovea_y - self.disc_cy) / self.unit

    def eye_axes(self, shape: tuple[int, int]) -> tuple[Texture, Texture]:
        """(u, v) at the pixel centers of a `shape` = (H, W) canvas that covers the photograph.

        u temporal and v down from the optic disc, both in units, float32, of shapes (1, W) and (H, 1).
        """
        rows, columns = shape
        x = (np.arange(columns, dtype=np.float32) + 0.5) * np.float32(self.width / columns)
        y = (np.arange(rows, dtype=np.float32) + 0.5) * np.float32(self.height / rows)
        u = (x - np.float32(self.disc_cx)) * np.float32(self.temporal / self.unit)
        v = (y - np.float32(self.disc_cy)) * np.float32(1 / self.unit)
        return u[None, :], v[:, None]

    def inside(self, margin: float = 0.0) -> Mask:
        """The field of view without its notch and without a rim of `margin` px: bool (H, W)."""
        x = np.arange(self.width, dtype=np.float32)[None, :] + np.float32(0.5)
        y = np.arange(self.height, dtype=np.float32)[:, None] + np.float32(0.5)
        reach = np.float32(max(self.field_radius - margin, 0.0) ** 2)
        disc = (x - np.float32(self.field_cx)) ** 2 + (y - np.float32(self.field_cy)) ** 2 <= reach
        band: Mask = disc & (y >= self.top + margin) & (y <= self.bottom - margin)
        return band


def draw_scene(rng: np.random.Generator, height: int, eye: Eye | None) -> Scene:
    """A view of a left or right eye: most centered between disc and fovea, some on the disc.

    A given `eye` changes the side and nothing else: the other numbers come from `rng` all the same.
    """
    random_eye: Eye = "left" if rng.random() < 0.5 else "right"
    side = eye or random_eye
    temporal = 1.0 if side == "left" else -1.0
    clipped = rng.random() < 0.8
    radius = height * (rng.uniform(0.575, 0.645) if clipped else rng.uniform(0.455, 0.485))
    slack = height * rng.uniform(0.0, 0.02) if clipped else 0.0
    width = round(height * ASPECT)
    cx, cy = width / 2 + height * rng.uniform(-0.05, 0.03), height / 2 + slack * rng.uniform(-0.5, 0.5)
    unit, dip = radius * rng.uniform(0.68, 0.78), rng.uniform(0.02, 0.2)
    on_disc = rng.random() < 0.1
    nasal = radius * (rng.uniform(-0.1, 0.25) if on_disc else rng.uniform(0.56, 0.8))
    fovea_y = cy + radius * float(np.clip(rng.normal(0.03, 0.08), -0.15, 0.2))
    disc_cx = cx - temporal * nasal
    return Scene(
        height=height,
        width=width,
        eye=side,
        field_cx=cx,
        field_cy=cy,
        field_radius=radius,
        top=slack,
        bottom=height - slack,
        disc_cx=disc_cx,
        disc_cy=fovea_y - dip * unit,
        disc_radius=radius * rng.uniform(0.128, 0.155),
        fovea_x=disc_cx + temporal * unit,
        fovea_y=fovea_y,
    )


_SMOOTH_ROWS: Final = 356
"""Rows of the canvas for what has no sharp edge; it is enlarged afterwards."""


@dataclass(frozen=True, slots=True, eq=False)
class Pigment:
    """Colors and pigment that differ between retinas."""

    color: Texture
    """Reflectance of the plain background, float32 (3,)."""
    tessellation: float
    """How strongly the choroid's vessels shine through, 0 to 1."""
    macula: float
    """How dark the macula is, 0 to 1."""
    sheen: float
    """How visible the nerve fibers are, 0 to 1 (they fade with age)."""


def draw_pigment(rng: np.random.Generator) -> Pigment:
    """The pigment of a random retina."""
    red = rng.uniform(0.56, 0.66)
    green = red * rng.uniform(0.37, 0.5)
    color = np.array([red, green, green * rng.uniform(0.14, 0.45)], dtype=np.float32)
    tessellation = rng.uniform(0.0, 1.0) ** 2.5
    return Pigment(color, tessellation, macula=rng.uniform(0.3, 0.62), sheen=rng.uniform(0.0, 1.0) ** 1.5)


def draw_background(rng: np.random.Generator, scene: Scene, pigment: Pigment) -> Texture:
    """Everything behind the optic disc and the vessels: reflectance, float32 (3, H, W)."""
    rows = min(scene.height, _SMOOTH_ROWS)
    shape = (rows, round(rows * scene.width / scene.height))
    u, v = scene.eye_axes(shape)
    layers = (
        _mottle(rng, shape),
        _choroid(rng, u, v - np.float32(scene.dip), pigment),
        _nerve_fibers(rng, u, v, pigment),
        _macula(rng, u, v, scene, pigment),
    )
    smooth = np.prod(np.stack(layers), axis=0)
    full = (scene.height, scene.width)
    grain = np.float32(1) + np.float32(0.014) * noise(rng, full, 170) + np.float32(0.014) * noise(rng, full, 80)
    return np.stack([enlarge(smooth[..., c], full) * (grain * pigment.color[c]) for c in range(3)])


def _tint(amount: Texture, red: float, green: float, blue: float) -> Texture:
    """The factor 1 + amount * (red, green, blue): float32 (h, w, 3)."""
    factor: Texture = np.float32(1) + amount[..., None] * np.array([red, green, blue], dtype=np.float32)
    return factor


def _mottle(rng: np.random.Generator, shape: tuple[int, int]) -> Texture:
    """Uneven pigment: broad clouds, patches and specks, and a drift of the hue."""
    clouds = 0.05 * noise(rng, shape, 3) + 0.035 * noise(rng, shape, 8)
    specks = 0.022 * noise(rng, shape, 22) + 0.018 * noise(rng, shape, 48)
    drift = noise(rng, shape, 4)
    light = _tint((clouds + specks).astype(np.float32), 0.8, 1.2, 1.2)
    factor: Texture = light * _tint(drift, -0.01, 0.045, 0.08)
    return factor


def _choroid(rng: np.random.Generator, u: Texture, v: Texture, pigment: Pigment) -> Texture:
    """The choroid's broad orange vessels, which fan out from the posterior pole and spare the macula."""
    around_fovea = u - np.float32(0.8)
    first = polar_noise(rng, around_fovea, v, spokes=64, rings=2.0, sway=1.2)
    second = polar_noise(rng, around_fovea, v, spokes=110, rings=2.6, sway=1.9)
    ribbons = np.maximum(ramp(0.0, 1.0, first), np.float32(0.8) * ramp(0.1, 1.1, second))
    patches = ramp(-0.9, 1.1, noise(rng, (v.shape[0], u.shape[1]), 3))
    visibility = patches * ramp(0.15, 0.95, np.hypot(around_fovea, v)) * np.float32(pigment.tessellation)
    return _tint(visibility * (ribbons - np.float32(0.35)), 0.26, 0.36, 0.12)


def _nerve_fibers(rng: np.random.Generator, u: Texture, v: Texture, pigment: Pigment) -> Texture:
    """The pale striated sheen of the nerve fibers, strongest above and below the optic disc."""
    distance = np.hypot(u, v)
    poles = np.square(v) / (np.square(distance) + np.float32(0.02))
    lean = ramp(-0.6, 0.5, u) * poles + np.float32(0.25)
    strands = np.float32(1) + np.float32(0.25) * polar_noise(rng, u, v, spokes=220, rings=1.5, sway=2.0)
    sheen = lean * bell(distance, 0.62) * strands * np.float32(pigment.sheen)
    return _tint(sheen, 0.1, 0.32, 0.55)


def _macula(rng: np.random.Generator, u: Texture, v: Texture, scene: Scene, pigment: Pigment) -> Texture:
    """The dark macula around the fovea; in some eyes the foveola shines red."""
    distance = np.hypot(u - np.float32(1), v - np.float32(scene.dip))
    ragged = distance * (np.float32(1) + np.float32(0.08) * noise(rng, (v.shape[0], u.shape[1]), 14))
    broad = bell(ragged, rng.uniform(0.3, 0.42)) * np.float32(0.45 * pigment.macula)
    deep = bell(ragged, rng.uniform(0.12, 0.17)) * np.float32(0.6 * pigment.macula)
    foveola = bell(distance, 0.035) * np.float32(rng.uniform(0.0, 0.35) * (rng.random() < 0.5))
    factor: Texture = _tint(-broad, 0.75, 1.0, 0.9) * _tint(-deep, 0.75, 1.0, 0.7) * _tint(foveola, 1.0, 0.6, 0.2)
    return factor


def draw_disc(rng: np.random.Generator, scene: Scene, pigment: Pigment, reflectance: Texture) -> None:
    """Draw the optic disc with its cup, and the halo around it, into `reflectance` (3, H, W), in place."""
    reach = 2.2 * scene.disc_radius
    rows = slice(max(0, math.floor(scene.disc_cy - reach)), math.ceil(scene.disc_cy + reach))
    columns = slice(max(0, math.floor(scene.disc_cx - reach)), math.ceil(scene.disc_cx + reach))
    u, v = scene.eye_axes((scene.height, scene.width))
    scale = np.float32(scene.unit / scene.disc_radius)
    u, v = u[:, columns] * scale, v[rows] * scale
    patch = np.moveaxis(reflectance[:, rows, columns], 0, -1)
    distance, angle = np.hypot(u * np.float32(rng.uniform(1.02, 1.16)), v), np.arctan2(v, u)
    for wave in (2, 3, 4):
        distance = distance * (1 + rng.uniform(0, 0.03) * np.cos(wave * angle + rng.uniform(0, 6.3)))
    distance = distance.astype(np.float32)
    halo = bell(distance - np.float32(0.9), rng.uniform(0.25, 0.6)) * np.float32(rng.uniform(0.0, 0.35))
    crescent = halo * ramp(-0.6, 1.0, u / (distance + np.float32(0.1)))
    glow = patch * _tint(halo + crescent, 0.25, 0.45, 0.4)
    soft = rng.uniform(0.05, 0.14)
    cover = ramp(1.0 + soft, 1.0 - soft, distance)[..., None]
    patch[...] = glow + cover * (_disc_color(rng, u, v, distance, pigment) - glow)


def _disc_color(rng: np.random.Generator, u: Texture, v: Texture, distance: Texture, pigment: Pigment) -> Texture:
    """Reflectance of the disc's face: pink rim, brighter toward the temporal side, pale cup."""
    pale = np.array([1.28, 0.7, 0.2], dtype=np.float32) * np.float32(rng.uniform(0.9, 1.15))
    face = pale * np.float32(0.75) + pigment.color * np.array([0.25, 0.45, 1.1], dtype=np.float32)
    size = rng.uniform(0.25, 0.55)
    off = np.hypot(u - np.float32(rng.uniform(0.02, 0.18)), v - np.float32(rng.uniform(-0.08, 0.08)))
    cup = ramp(size + 0.22, size - 0.1, off) * np.float32(rng.uniform(0.35, 1.0))
    side = np.clip(u, -1, 1) * np.float32(0.12) - ramp(0.6, 1.0, distance) * np.float32(0.14)
    texture = side + np.float32(0.03) * noise(rng, (distance.shape[0], distance.shape[1]), 12)
    color: Texture = face * _tint(texture, 0.7, 1.0, 0.8) * _tint(cup, 0.14, 0.34, 0.6)
    return color
