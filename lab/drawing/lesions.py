"""Lesions drawn onto a healthy retina, each kind with the mask of what was drawn."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias, get_args

import numpy as np

from lab.drawing.lesion_shapes import (
    draw_cotton_wool_spots,
    draw_drusen,
    draw_exudates,
    draw_hemorrhages,
    draw_microaneurysms,
)
from lab.drawing.scene import Scene
from lab.drawing.spots import Layer
from lab.drawing.texture import Mask, Texture

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
    for kind, own in zip(LESION_KINDS, rng.spawn(len(LESION_KINDS)), strict=True):
        if kind in kinds:
            shape = (scene.height, scene.width)
            layer = Layer(scene, np.zeros(shape, dtype=np.float32), np.zeros(shape, dtype=np.bool_))
            _PAINTERS[kind](own, layer)
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
