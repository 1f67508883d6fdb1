"""Where things are in a drawn photograph: the field of view, the optic disc and the fovea."""

from dataclasses import dataclass
from typing import Final, Literal

import numpy as np

from lab.drawing.texture import Mask, Texture

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
    drawn: Eye = "left" if rng.random() < 0.5 else "right"
    side = eye or drawn
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
