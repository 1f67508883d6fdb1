"""Folders of drawn photographs in the layout of MVTec AD (Bergmann et al. 2019)."""

from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image

from lab.drawing.lesions import LESION_KINDS, LesionKind
from lab.drawing.photo import MIN_HEIGHT, draw_photo
from resad.errors import SettingError

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
