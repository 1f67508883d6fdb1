"""One drawn fundus photograph from one random generator."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from lab.drawing.camera import photograph
from lab.drawing.lesions import LESION_KINDS, LesionKind, LesionMask, draw_lesions
from lab.drawing.retina import draw_background, draw_disc, draw_pigment
from lab.drawing.scene import Eye, Scene, draw_scene
from lab.drawing.texture import Mask
from lab.drawing.vessels import draw_vessels
from resad.errors import SettingError

MIN_HEIGHT: Final = 64
"""Rows below which a photograph is refused everywhere (`PhotoLimits.min_side`)."""


@dataclass(frozen=True, slots=True, eq=False)
class DrawnPhoto:
    """A drawn fundus photograph, its lesions and its anatomy."""

    pixels: NDArray[np.uint8]
    """RGB, uint8 (H, W, 3), W = 1.5 H; black outside the field of view."""
    lesion_masks: tuple[LesionMask, ...]
    """One per kind that was asked for, in the order of LESION_KINDS."""
    scene: Scene
    """Where field of view, optic disc and fovea are."""

    @property
    def eye(self) -> Eye:
        """Left (optic disc on the left of the photograph) or right."""
        return self.scene.eye

    @property
    def optic_disc(self) -> tuple[float, float, float]:
        """(cx, cy, radius) in px."""
        return self.scene.disc_cx, self.scene.disc_cy, self.scene.disc_radius

    @property
    def mask(self) -> Mask:
        """All lesions together: bool (H, W)."""
        union = np.zeros(self.pixels.shape[:2], dtype=np.bool_)
        for lesion in self.lesion_masks:
            union |= lesion.mask
        return union


def draw_photo(
    rng: np.random.Generator,
    *,
    height: int = 512,
    lesions: Sequence[LesionKind] = (),
    eye: Eye | None = None,
) -> DrawnPhoto:
    """Draw a photograph of `height` px and 1.5 times that width, with the given kinds of lesions.

    The same state of `rng` gives the same pixels; without lesions or with others it gives the same retina
    under the same light, and at another height the same view (noise and grain aside).  Raises `SettingError`
    for a height below 64 px, an unknown kind of lesion or an unknown eye.
    """
    if height < MIN_HEIGHT:
        raise SettingError(f"height {height} px: a drawn photograph has at least {MIN_HEIGHT}")
    if unknown := [kind for kind in lesions if kind not in LESION_KINDS]:
        raise SettingError(f"lesion {unknown[0]!r}: the kinds are {', '.join(LESION_KINDS)}")
    if eye not in (None, "left", "right"):
        raise SettingError(f"eye {eye!r}: left or right")
    # A generator per layer, so that no layer depends on how many numbers another one takes.
    where, complexion, background, disc, tree, damage, camera = rng.spawn(7)
    scene = draw_scene(where, height, eye)
    pigment = draw_pigment(complexion)
    reflectance = draw_background(background, scene, pigment)
    draw_disc(disc, scene, pigment, reflectance)
    draw_vessels(tree, scene, reflectance)
    masks = draw_lesions(damage, scene, pigment.color, reflectance, lesions)
    return DrawnPhoto(photograph(camera, scene, pigment.color, reflectance), masks, scene)
