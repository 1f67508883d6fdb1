"""How many lesions of a kind there are, where, how large and in which form.

Sizes are shares of the field of view's radius; they and the numbers follow the ground truth of IDRiD
(Porwal et al. 2018) where it has the kind.
"""

import math

import numpy as np

from lab.drawing.spots import Blob, Layer, Place, log_normal, places, stamp
from lab.drawing.texture import noise, ramp


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
