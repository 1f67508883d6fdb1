"""Five kinds of lesion, each with its mask.

Sizes are shares of the field of view's radius; sizes and counts follow the ground truth of IDRiD (Porwal et al.
2018) where it has the kind.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias, get_args

import numpy as np

from lab.drawing.retina import Scene
from lab.drawing.texture import Mask, Texture, noise, ramp

Place: TypeAlias = tuple[float, float]


@dataclass(frozen=True, slots=True, eq=False)
class Layer:
    """The lesions of one kind: their opacity over the healthy retina, and their mask."""

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
    cells = rng.choice(weight.size, size=count, p=(weight / weight.sum()).ravel())
    shift = rng.uniform(-pitch / 2, pitch / 2, size=(count, 2))
    return [(float(x.flat[i] + dx), float(y.flat[i] + dy)) for i, (dx, dy) in zip(cells, shift, strict=True)]


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


def draw_exudates(rng: np.random.Generator, layer: Layer) -> None:
    """Clusters of small sharp flakes: scattered, in a ring, or run together to a plaque."""
    scene = layer.scene
    clusters = 1 + int(8 * rng.random() ** 1.6)
    opacity = rng.uniform(0.75, 1.0)
    for x, y in places(rng, scene, clusters, (1.0, scene.dip), 0.42):
        for dx, dy, size in _cluster(rng):
            radius = size * scene.field_radius
            flake = Blob(
                x + dx * scene.field_radius,
                y + dy * scene.field_radius,
                radius,
                edge=0.004 * scene.field_radius,
                opacity=opacity * rng.uniform(0.55, 1.0),
                stretch=rng.uniform(1.0, 1.9),
                angle=rng.uniform(0, math.pi),
                ragged=0.2,
            )
            stamp(rng, layer, flake)


def _cluster(rng: np.random.Generator) -> list[tuple[float, float, float]]:
    """(dx, dy, radius) of one cluster's flakes, as shares of the field of view's radius; one is at its center."""
    form = rng.choice(["scatter", "ring", "plaque"], p=[0.62, 0.16, 0.22])
    count = int(rng.integers(6, 46))
    wide, tall = rng.uniform(0.02, 0.085, 2)
    flakes = [(0.0, 0.0, log_normal(rng, 0.009, 0.4, 0.03))]
    if form == "ring":
        ring, begin, sweep = rng.uniform(0.06, 0.14), rng.uniform(0, 6.3), rng.uniform(3.0, 6.0)
        angles = begin + np.linspace(0, sweep, 2 * count) + rng.normal(0, 0.08, 2 * count)
        off = ring * rng.normal(1.0, 0.1, 2 * count)
        spots = np.stack([off * np.cos(angles), off * np.sin(angles)], axis=1)
    else:
        spots = rng.normal(0, 1, (count, 2)) * (wide, tall)
    flakes += [(float(dx), float(dy), log_normal(rng, 0.0052, 0.5, 0.024)) for dx, dy in spots]
    if form == "plaque":
        heart = rng.normal(0, 0.35, (count // 2, 2)) * (wide, tall)
        flakes += [(float(dx), float(dy), log_normal(rng, 0.0105, 0.45, 0.035)) for dx, dy in heart]
    return flakes


def draw_hemorrhages(rng: np.random.Generator, layer: Layer) -> None:
    """Dark blots of all sizes, and flames that lie along the nerve fibers."""
    scene = layer.scene
    count = 2 + int(26 * rng.random() ** 2)
    flames = rng.uniform(0, 0.5)
    for x, y in places(rng, scene, count, (0.9, scene.dip), 0.75):
        size = log_normal(rng, 0.0145, 0.5, 0.055) * scene.field_radius
        opacity = rng.uniform(0.6, 1.0)
        if rng.random() < flames:
            _flame(rng, layer, (x, y), 1.2 * size, opacity)
        else:
            stretch, angle = rng.uniform(1.0, 1.5), rng.uniform(0, math.pi)
            edge = 0.006 * scene.field_radius + 0.35 * size
            stamp(rng, layer, Blob(x, y, size, edge, opacity, stretch, angle, ragged=0.1))


def _flame(rng: np.random.Generator, layer: Layer, place: Place, size: float, opacity: float) -> None:
    """A bundle of slender strands of unequal length, pointing away from the optic disc."""
    x, y = place
    scene = layer.scene
    angle = math.atan2(y - scene.disc_cy, x - scene.disc_cx) + rng.normal(0, 0.15)
    for _ in range(int(rng.integers(4, 8))):
        along, across = rng.normal(0, 0.7 * size), rng.normal(0, 0.5 * size)
        spot = (
            x + along * math.cos(angle) - across * math.sin(angle),
            y + along * math.sin(angle) + across * math.cos(angle),
        )
        strand = Blob(
            *spot,
            radius=size * rng.uniform(0.2, 0.42),
            edge=0.006 * scene.field_radius,
            opacity=opacity * rng.uniform(0.75, 1.0),
            stretch=rng.uniform(3.0, 5.5),
            angle=angle + rng.normal(0, 0.06),
            ragged=0.06,
        )
        stamp(rng, layer, strand)


def draw_microaneurysms(rng: np.random.Generator, layer: Layer) -> None:
    """Tiny dark red dots."""
    scene = layer.scene
    count = 3 + int(65 * rng.random() ** 2)
    for x, y in places(rng, scene, count, (0.95, scene.dip), 0.6):
        radius = log_normal(rng, 0.0058, 0.22, 0.011) * scene.field_radius
        opacity = rng.uniform(0.5, 1.0)
        stamp(
            rng,
            layer,
            Blob(x, y, radius, 0.006 * scene.field_radius, opacity, rng.uniform(1.0, 1.3), ragged=0.05),
        )


def draw_drusen(rng: np.random.Generator, layer: Layer) -> None:
    """Pale soft rounds around the macula, from specks to large ones that touch."""
    scene = layer.scene
    count = 8 + int(70 * rng.random() ** 1.5)
    median = rng.uniform(0.006, 0.014)
    spread = rng.uniform(0.14, 0.32)
    for x, y in places(rng, scene, count, (1.0, scene.dip), spread):
        radius = log_normal(rng, median, 0.4, 0.035) * scene.field_radius
        edge = 0.006 * scene.field_radius + 0.7 * radius
        stamp(
            rng,
            layer,
            Blob(x, y, radius, edge, rng.uniform(0.5, 1.0), rng.uniform(1.0, 1.25), rng.uniform(0, 3.1), 0.07),
        )


def draw_cotton_wool_spots(rng: np.random.Generator, layer: Layer) -> None:
    """White fluffy patches in the nerve fibers, near the disc and the arcades."""
    scene = layer.scene
    count = 1 + int(7 * rng.random() ** 1.8)
    for x, y in places(rng, scene, count, (0.45, scene.dip), 0.55):
        size = log_normal(rng, 0.026, 0.35, 0.05) * scene.field_radius
        angle = math.atan2(y - scene.disc_cy, x - scene.disc_cx) + math.pi / 2 + rng.normal(0, 0.4)
        for lobe in range(int(rng.integers(3, 7))):
            far = 0.0 if lobe == 0 else 0.6 * size
            spot = (x + rng.normal(0, 1) * far, y + rng.normal(0, 1) * far)
            opacity = rng.uniform(0.7, 1.0)
            stamp(
                rng,
                layer,
                Blob(*spot, size * rng.uniform(0.5, 0.9), 0.9 * size, opacity, rng.uniform(1.0, 1.7), angle, 0.15),
            )
    fluff = ramp(-1.8, 0.9, noise(rng, (scene.height, scene.width), 90))
    layer.cover[...] *= np.float32(0.65) + np.float32(0.35) * fluff


LesionKind = Literal["exudate", "hemorrhage", "microaneurysm", "drusen", "cotton_wool_spot"]

LESION_KINDS: Final[tuple[LesionKind, ...]] = get_args(LesionKind)


@dataclass(frozen=True, slots=True, eq=False)
class LesionMask:
    """Where one kind of lesion was drawn."""

    kind: LesionKind
    mask: Mask
    """bool (H, W)."""


_Painter: TypeAlias = Callable[[np.random.Generator, Layer], None]


def draw_lesions(
    rng: np.random.Generator,
    scene: Scene,
    color: Texture,
    reflectance: Texture,
    kinds: Sequence[LesionKind],
) -> tuple[LesionMask, ...]:
    """Draw `kinds` into `reflectance`, float32 (3, H, W), in place; their masks, in the order of LESION_KINDS.

    `color` is the reflectance of the plain background, float32 (3,).  Every kind has its own generator: what
    is drawn of it does not depend on the other kinds.
    """
    allowed = scene.inside(0.012 * scene.field_radius) & ~_near_disc(scene)
    masks = []
    for kind, kind_rng in zip(LESION_KINDS, rng.spawn(len(LESION_KINDS)), strict=True):
        if kind in kinds:
            shape = (scene.height, scene.width)
            layer = Layer(scene, np.zeros(shape, dtype=np.float32), np.zeros(shape, dtype=np.bool_))
            _PAINTERS[kind](kind_rng, layer)
            _blend(reflectance, color, layer.cover * allowed, kind)
            masks.append(LesionMask(kind, layer.mask & allowed))
    return tuple(masks)


def _blend(reflectance: Texture, color: Texture, cover: Texture, kind: LesionKind) -> None:
    """Bright lesions cover the retina with their own color, dark ones filter it."""
    where = np.flatnonzero(cover)
    share = cover.ravel()[where]
    flat = reflectance.reshape(3, -1)
    for plane, factor, plain in zip(flat, _COLORS[kind], color, strict=True):
        healthy = plane[where]
        if kind in ("hemorrhage", "microaneurysm"):
            full = healthy * np.float32(factor)
        else:
            full = np.maximum(np.float32(factor) * plain, np.float32(1.15) * healthy)
        plane[where] = healthy + share * (full - healthy)


def _near_disc(scene: Scene) -> Mask:
    """The optic disc with a rim around it: bool (H, W)."""
    u, v = scene.eye_axes((scene.height, scene.width))
    near: Mask = np.hypot(u, v) * np.float32(scene.unit) < 1.22 * scene.disc_radius
    return near


_PAINTERS: Final[dict[LesionKind, _Painter]] = {
    "exudate": draw_exudates,
    "hemorrhage": draw_hemorrhages,
    "microaneurysm": draw_microaneurysms,
    "drusen": draw_drusen,
    "cotton_wool_spot": draw_cotton_wool_spots,
}
_COLORS: Final[dict[LesionKind, tuple[float, float, float]]] = {
    "exudate": (1.55, 2.5, 1.8),
    "hemorrhage": (0.72, 0.5, 0.55),
    "microaneurysm": (0.8, 0.6, 0.55),
    "drusen": (1.16, 1.45, 1.3),
    "cotton_wool_spot": (1.3, 1.95, 4.0),
}
"""Per channel: of bright lesions times the plain background's color, of dark ones times the healthy retina."""
