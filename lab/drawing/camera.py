"""From the retina's reflectance to the camera's pixels: light, haze, focus, field of view, sensor."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy import ndimage

from lab.drawing.retina import Scene
from lab.drawing.texture import Texture, bell, enlarge, fineness, ramp


@dataclass(frozen=True, slots=True, eq=False)
class Shot:
    """The camera's settings for one photograph."""

    gains: Texture
    """Exposure times white balance, float32 (3,)."""
    falloff: float
    """Share of the light that is lost toward the rim."""
    aim: tuple[float, float]
    """Where the light is brightest, from the field's center, in field radii."""
    haze: float
    """Share of the contrast that a cloudy lens takes."""
    flare: float
    """Strength of the pale crescent of stray light at the rim."""
    flare_angle: float
    blur: float
    """Standard deviation of the focus blur, as a share of the height."""
    noise: float
    """Standard deviation of the sensor's noise, in levels of 255."""
    notch: bool
    """Whether two teeth at the upper right mark the field of view."""


def draw_shot(rng: np.random.Generator) -> Shot:
    """Settings as they vary within one clinic's photographs."""
    exposure = math.exp(rng.normal(0.22, 0.22))
    balance = np.exp(np.clip(rng.normal(0, 1, 3), -2, 1.4) * (0.03, 0.07, 0.3) + (0.0, -0.04, -0.15))
    turn, off = rng.uniform(0, 2 * math.pi), rng.uniform(0.0, 0.45)
    return Shot(
        gains=(exposure * balance).astype(np.float32),
        falloff=rng.uniform(0.15, 0.65),
        aim=(off * math.cos(turn), off * math.sin(turn)),
        haze=0.5 * rng.random() ** 2.5,
        flare=rng.uniform(0.03, 0.22) if rng.random() < 0.3 else 0.0,
        flare_angle=rng.uniform(0, 2 * math.pi),
        blur=rng.uniform(0.0009, 0.0022),
        noise=rng.uniform(1.0, 2.4),
        notch=rng.random() < 0.6,
    )


def photograph(rng: np.random.Generator, scene: Scene, color: Texture, reflectance: Texture) -> NDArray[np.uint8]:
    """Pixels uint8 (H, W, 3) of `reflectance` float32 (3, H, W), which is used up; black outside the field.

    `color` float32 (3,) is the reflectance of the plain background, the color of haze.  Away from a change of
    `reflectance` by more than the focus blur (4 deviations), no pixel changes.
    """
    shot = draw_shot(rng)
    light = _light(scene, shot)
    stray = _flare(scene, shot)
    field = field_of_view(scene, shot)
    # Sensor noise in gray and, weaker, between red and blue; it is there in the black surround too.
    amount = np.float32(shot.noise) * (field + np.float32(0.25))
    grain = rng.standard_normal(field.shape, dtype=np.float32) * amount
    tint = rng.standard_normal(field.shape, dtype=np.float32) * amount
    glow = rng.uniform(0.0, 3.0, 3)
    pixels = np.empty((scene.height, scene.width, 3), dtype=np.uint8)
    for channel, shift in enumerate((0.5, -0.2, -0.5)):
        channel_light = reflectance[channel]
        channel_light += np.float32(shot.haze) * (color[channel] - channel_light)
        channel_light = _shoulder((channel_light * light + stray) * shot.gains[channel])
        channel_light = _focus(channel_light, shot.blur * scene.height) * (field * np.float32(255))
        channel_light += grain + np.float32(shift) * tint + np.float32(glow[channel])
        pixels[..., channel] = np.clip(np.rint(channel_light, out=channel_light), 0, 255, out=channel_light)
    return pixels


def _focus(channel: Texture, deviation: float) -> Texture:
    return np.asarray(ndimage.gaussian_filter(channel, deviation, truncate=3.0), dtype=np.float32)


def _shoulder(value: Texture) -> Texture:
    """x / (1 + x^4)^(1/4): straight in the dark, saturating at 1, like a camera's tone curve."""
    fourth = np.square(np.square(value))
    return np.asarray(value / np.sqrt(np.sqrt(np.float32(1) + fourth)), dtype=np.float32)


def _field_axes(scene: Scene) -> tuple[Texture, Texture, tuple[int, int]]:
    """x and y from the field's center in field radii, on a coarse canvas, and the full shape."""
    rows = min(scene.height, 128)
    columns = round(rows * scene.width / scene.height)
    x = (
        (np.arange(columns, dtype=np.float32) + 0.5) * scene.width / columns - scene.field_cx
    ) / scene.field_radius
    y = ((np.arange(rows, dtype=np.float32) + 0.5) * scene.height / rows - scene.field_cy) / scene.field_radius
    return x[None, :].astype(np.float32), y[:, None].astype(np.float32), (scene.height, scene.width)


def _light(scene: Scene, shot: Shot) -> Texture:
    """Illumination, float32 (H, W): 1 where it is aimed, less toward the rim."""
    x, y, full = _field_axes(scene)
    distance = np.hypot(x - np.float32(shot.aim[0]), y - np.float32(shot.aim[1]))
    return enlarge(np.float32(1) - np.float32(shot.falloff) * ramp(0.1, 1.5, distance), full)


def _flare(scene: Scene, shot: Shot) -> Texture:
    """Stray light at one side of the rim, float32 (H, W)."""
    x, y, full = _field_axes(scene)
    side = x * np.float32(math.cos(shot.flare_angle)) + y * np.float32(math.sin(shot.flare_angle))
    crescent = bell(np.hypot(x, y) - np.float32(1.02), 0.13) * ramp(0.1, 0.9, side)
    return enlarge(np.float32(shot.flare) * crescent, full)


def field_of_view(scene: Scene, shot: Shot) -> Texture:
    """Coverage of the pixels by the field of view, 0 to 1: float32 (H, W), anti-aliased."""
    fine = fineness(scene.height)
    angles = np.linspace(-math.pi, math.pi, 2161)
    radius = np.full_like(angles, scene.field_radius)
    if shot.notch:
        for begin, end in ((-36.0, -33.0), (-32.0, -28.5)):
            tooth = (np.degrees(angles) > begin) & (np.degrees(angles) < end)
            radius[tooth] *= 1.042 - 0.03 * (np.degrees(angles[tooth]) - begin) / (end - begin)
    x = (scene.field_cx + radius * np.cos(angles)) * fine
    y = (scene.field_cy + radius * np.sin(angles)) * fine
    canvas = Image.new("L", (scene.width * fine, scene.height * fine))
    ImageDraw.Draw(canvas).polygon(np.stack([x, y], axis=1).ravel().tolist(), fill=255)
    disc = np.asarray(canvas.reduce(fine), dtype=np.float32) / np.float32(255)
    rows = np.arange(scene.height)
    band = np.clip(np.minimum(rows + 1, scene.bottom) - np.maximum(rows, scene.top), 0, 1)
    coverage: Texture = disc * band[:, None].astype(np.float32)
    return coverage
