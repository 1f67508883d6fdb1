"""A drawn photograph, and folders of them in the layout of MVTec AD (Bergmann et al. 2019)."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lab.drawing.camera import photograph
from lab.drawing.lesions import LESION_KINDS, LesionKind, LesionMask, draw_lesions
from lab.drawing.retina import Eye, Scene, draw_background, draw_disc, draw_pigment, draw_scene
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


_QUALITY: Final = 90
_TRAIN, _GOOD, _DISEASED = range(3)


def write_dataset(folder: Path, rng_seed: int, *, train: int, good: int, diseased: int, height: int) -> None:
    """Write train/good/*.jpg, test/good/*.jpg, test/lesion/*.jpg and ground_truth/lesion/*_mask.png (0 or 255).

    A photograph depends on `rng_seed`, its own folder and its number, not on how many there are.  Raises
    `SettingError` for a folder that has something in it, a negative number, or a height below 64 px.
    """
    _check(folder, rng_seed, (train, good, diseased), height)
    for group, count, name in ((_TRAIN, train, "train/good"), (_GOOD, good, "test/good")):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            photo = draw_photo(_generator(rng_seed, group, number), height=height)
            Image.fromarray(photo.pixels).save(folder / name / _stem(number, ".jpg"), quality=_QUALITY)
    photos, masks = folder / "test/lesion", folder / "ground_truth/lesion"
    photos.mkdir(parents=True, exist_ok=True)
    masks.mkdir(parents=True, exist_ok=True)
    for number in range(diseased):
        rng = _generator(rng_seed, _DISEASED, number)
        photo = draw_photo(rng, height=height, lesions=_choose_kinds(rng))
        Image.fromarray(photo.pixels).save(photos / _stem(number, ".jpg"), quality=_QUALITY)
        Image.fromarray(photo.mask).convert("L").save(masks / _stem(number, "_mask.png"))


def _check(folder: Path, rng_seed: int, counts: tuple[int, int, int], height: int) -> None:
    if min(rng_seed, *counts) < 0:
        raise SettingError(f"seed {rng_seed}, counts {counts}: none may be negative")
    if height < MIN_HEIGHT:
        raise SettingError(f"height {height} px: a drawn photograph has at least {MIN_HEIGHT}")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise SettingError(f"{folder}: not an empty folder; name a new one")


def _generator(rng_seed: int, group: int, number: int) -> np.random.Generator:
    return np.random.default_rng(np.random.SeedSequence(rng_seed, spawn_key=(group, number)))


def _choose_kinds(rng: np.random.Generator) -> tuple[LesionKind, ...]:
    """What a patient has: diabetic lesions in company, or drusen."""
    if rng.random() < 0.15:
        return ("drusen",)
    kinds: list[LesionKind] = ["microaneurysm"]
    kinds += [kind for kind in LESION_KINDS if kind == "hemorrhage" and rng.random() < 0.8]
    kinds += [kind for kind in LESION_KINDS if kind == "exudate" and rng.random() < 0.75]
    kinds += [kind for kind in LESION_KINDS if kind == "cotton_wool_spot" and rng.random() < 0.3]
    return tuple(kinds)


def _stem(number: int, ending: str) -> str:
    return f"drawn_{number:04d}{ending}"
