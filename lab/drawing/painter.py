"""Lesions painted into real healthy photographs, with exact masks.

The painted photographs teach a trunk what a lesion looks like (`lab.training`) and serve as an unlimited
validation set (`lab.evaluate`).  No diseased photograph takes part.  Sizes, numbers and contrasts follow the
ground truth of IDRiD (Porwal et al. 2018): half of its microaneurysms are darker than their surroundings by 5 % or
less in the green channel, and half of its hard exudates brighter by 8 % or less.  Kinds that no list names
(regions of any color, texture of another photograph) are painted too, so that a trunk does not only learn the
listed ones.  Normal variants are painted in `variants`.

Lengths are pixels of a photograph whose field of view is 512 px wide; `scale` converts them.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias, get_args

import numpy as np
import scipy.ndimage as ndi
from numpy.typing import NDArray

Pixels: TypeAlias = NDArray[np.float32]
Mask: TypeAlias = NDArray[np.bool_]

LesionKind = Literal["microaneurysm", "hemorrhage", "exudate", "cotton_wool_spot", "drusen", "region", "texture"]
KINDS: Final[tuple[LesionKind, ...]] = get_args(LesionKind)

DARK: Final[frozenset[LesionKind]] = frozenset({"microaneurysm", "hemorrhage"})
BRIGHT: Final[frozenset[LesionKind]] = frozenset({"exudate", "cotton_wool_spot", "drusen"})

_CORE: Final = 0.35
"""Cover above which a pixel belongs to the lesion's mask: about half of the lesion's contrast."""
_EDGE_OF_VIEW: Final = 3
"""Lesions keep this distance from the edge of the field of view, px."""


@dataclass(frozen=True, slots=True, eq=False)
class PaintedLesion:
    """One painted lesion.

    window: where it lies.  mask: bool, its pixels in the window.  contrast: largest change of the green or the red
    channel, in units of the photograph's own noise.
    """

    kind: LesionKind
    window: tuple[slice, slice]
    mask: Mask
    contrast: float

    @property
    def area(self) -> int:
        """Pixels of the mask."""
        return int(self.mask.sum())


@dataclass(frozen=True, slots=True, eq=False)
class PaintedPhoto:
    """A photograph with painted lesions.

    pixels: float32 (H, W, 3), RGB in [0, 1].  lesions: the visible ones.  faint: bool (H, W), pixels that paint
    changed but where no lesion became visible; they are neither healthy nor diseased.
    """

    pixels: Pixels
    lesions: tuple[PaintedLesion, ...]
    faint: Mask

    def mask(self, kinds: frozenset[LesionKind] | None = None) -> Mask:
        """bool (H, W): the pixels of the visible lesions, of all kinds or of `kinds`."""
        mask = np.zeros(self.faint.shape, np.bool_)
        for lesion in self.lesions:
            if kinds is None or lesion.kind in kinds:
                mask[lesion.window] |= lesion.mask
        return mask


def paint(
    rng: np.random.Generator,
    pixels: Pixels,
    field_of_view: Mask,
    donor: Pixels,
    *,
    kinds: Sequence[LesionKind] | None = None,
    scale: float = 1.0,
) -> PaintedPhoto:
    """Paint lesions into a copy of a healthy photograph.

    Args:
        pixels: float32 (H, W, 3), RGB in [0, 1].
        field_of_view: bool (H, W); nothing is painted outside.
        donor: float32 (H', W', 3), another photograph, for the kind `texture`.
        kinds: the kinds to paint; by default each is drawn with its own probability.
        scale: width of the field of view / 512 px.
    """
    allowed = ndi.binary_erosion(field_of_view, iterations=_EDGE_OF_VIEW, border_value=1)
    canvas = Canvas(rng, pixels.copy(), allowed, scale)
    if canvas.is_empty:
        return PaintedPhoto(canvas.pixels, (), np.zeros(allowed.shape, np.bool_))
    chosen = kinds if kinds is not None else [kind for kind in KINDS if rng.random() < _PROBABILITY[kind]]
    for kind in chosen:
        _paint_kind(canvas, kind, donor)
    visible = np.zeros(allowed.shape, np.bool_)
    for lesion in canvas.lesions:
        visible[lesion.window] |= lesion.mask
    return PaintedPhoto(canvas.pixels, tuple(canvas.lesions), canvas.touched & ~visible)


_PROBABILITY: Final[dict[LesionKind, float]] = {
    "microaneurysm": 0.45,
    "hemorrhage": 0.4,
    "exudate": 0.45,
    "cotton_wool_spot": 0.25,
    "drusen": 0.22,
    "region": 0.25,
    "texture": 0.2,
}


def noise_level(pixels: Pixels, field_of_view: Mask) -> float:
    """Standard deviation of the fine noise of the green channel, robust against vessels; at least 0.006."""
    green = pixels[..., 1]
    rest = green - ndi.uniform_filter(green, 5)
    values = rest[field_of_view]
    return max(0.006, 1.4826 * float(np.median(np.abs(values)))) if values.size else 0.006


class Canvas:
    """A photograph while lesions are painted into it."""

    def __init__(self, rng: np.random.Generator, pixels: Pixels, allowed: Mask, scale: float) -> None:
        self.rng = rng
        self.pixels = pixels
        self.allowed = allowed
        self.scale = scale
        self.touched = np.zeros(allowed.shape, np.bool_)
        self.lesions: list[PaintedLesion] = []
        self.noise = noise_level(pixels, allowed)
        self._places = np.flatnonzero(allowed)
        # The surroundings' mean color, for deposits that hide the retina under them.
        self.surroundings = ndi.uniform_filter(pixels, (31, 31, 0))

    @property
    def is_empty(self) -> bool:
        """Whether the field of view is too small to paint in."""
        return self._places.size < 100

    def place(self) -> tuple[float, float]:
        """A random point (x, y) inside the field of view."""
        y, x = divmod(int(self._places[self.rng.integers(self._places.size)]), self.allowed.shape[1])
        return x + self.rng.random(), y + self.rng.random()

    def window(self, x: float, y: float, reach: float) -> tuple[slice, slice] | None:
        """The square around (x, y), cut off at the photograph's edge; None where nothing is left."""
        height, width = self.allowed.shape
        rows = slice(max(0, int(y - reach)), min(height, int(y + reach) + 2))
        columns = slice(max(0, int(x - reach)), min(width, int(x + reach) + 2))
        return (rows, columns) if rows.stop > rows.start and columns.stop > columns.start else None

    def tint(self, window: tuple[slice, slice], cover: Pixels, factor: Pixels, flatness: float) -> None:
        """Multiply by `factor` (3,) where `cover` is 1; with flatness 1 the retina's own texture disappears."""
        before = self.pixels[window]
        base = before + flatness * (self.surroundings[window] - before) if flatness else before
        color = base * factor
        # A deposit on the optic disc stays a deposit: it never darkens what is brighter than the surroundings.
        self.blend(window, cover, np.maximum(color, before) if factor[1] > 1 and flatness else color)

    def blend(self, window: tuple[slice, slice], cover: Pixels, color: Pixels) -> None:
        """Blend towards `color`, (h, w, 3), by `cover`, (h, w) in [0, 1]."""
        weight = (cover * self.allowed[window])[..., None]
        before = self.pixels[window]
        self.pixels[window] = before + weight * (np.clip(color, 0, 1) - before)

    def register(self, kind: LesionKind, window: tuple[slice, slice], cover: Pixels, before: Pixels) -> None:
        """Note what has become visible since the window looked like `before`."""
        change = np.abs(self.pixels[window] - before)[..., :2].max(axis=-1)
        self.touched[window] |= change > 0.25 * self.noise
        mask = (cover > _CORE * cover.max()) & (change > 0.5 * self.noise) & self.allowed[window]
        area = int(mask.sum())
        if area == 0:
            return
        contrast = float(np.partition(change[mask], -max(1, area // 4))[-max(1, area // 4) :].mean() / self.noise)
        # A dot of a few pixels must stand out of the noise, a large region is seen at less.
        if contrast >= 0.7 + 3.0 / math.sqrt(area):
            self.lesions.append(PaintedLesion(kind, window, mask, contrast))


def _paint_kind(canvas: Canvas, kind: LesionKind, donor: Pixels) -> None:
    match kind:
        case "microaneurysm":
            _microaneurysms(canvas)
        case "hemorrhage":
            _hemorrhages(canvas)
        case "exudate":
            _exudates(canvas)
        case "cotton_wool_spot":
            _cotton_wool_spots(canvas)
        case "drusen":
            _drusen(canvas)
        case "region":
            _regions(canvas)
        case "texture":
            _textures(canvas, donor)


def _log_normal(rng: np.random.Generator, median: float, spread: float, low: float, high: float) -> float:
    return float(np.clip(median * math.exp(rng.normal(0, spread)), low, high))


def _factor(rng: np.random.Generator, depth: float, red: float, blue: float) -> Pixels:
    """Color factor (3,): the green channel changes by `depth`, red and blue by a share of it, with variation."""
    shares = np.array([red, 1.0, blue]) * np.exp(rng.normal(0, 0.3, 3))
    return np.clip(1 + depth * shares, 0.02, 8).astype(np.float32)


def _dark_depth(rng: np.random.Generator) -> float:
    """Change of the green channel of a red lesion: median -0.13 at its center, from -0.04 to -0.6."""
    return -_log_normal(rng, 0.13, 0.6, 0.04, 0.6)


def _bright_depth(rng: np.random.Generator) -> float:
    """Change of the green channel of a bright lesion: median +0.25 at its center, from +0.06 to +1.5."""
    return _log_normal(rng, 0.25, 0.75, 0.06, 1.5)


def soft_spot(
    canvas: Canvas, x: float, y: float, radius: float, edge: float, stretch: float = 1.0, ragged: float = 0.0
) -> tuple[tuple[slice, slice], Pixels] | None:
    """A roundish cover with a soft edge: (window, float32 (h, w) in [0, 1]), at a random angle."""
    return _turned_spot(canvas, x, y, radius, edge, stretch, ragged, canvas.rng.uniform(0, math.pi))


def _turned_spot(
    canvas: Canvas, x: float, y: float, radius: float, edge: float, stretch: float, ragged: float, angle: float
) -> tuple[tuple[slice, slice], Pixels] | None:
    """As `soft_spot`, its long axis at `angle`."""
    window = canvas.window(x, y, radius * math.sqrt(stretch) * (1 + ragged) + edge + 1)
    if window is None:
        return None
    dy = np.arange(window[0].start, window[0].stop, dtype=np.float32)[:, None] + 0.5 - y
    dx = np.arange(window[1].start, window[1].stop, dtype=np.float32)[None, :] + 0.5 - x
    cosine, sine, root = math.cos(angle), math.sin(angle), math.sqrt(stretch)
    along, across = (dx * cosine + dy * sine) / root, (dy * cosine - dx * sine) * root
    distance = np.hypot(along, across)
    if ragged > 0:
        direction = np.arctan2(across, along)
        for order in canvas.rng.integers(2, 7, 3):
            phase = canvas.rng.uniform(0, 2 * math.pi)
            distance = distance * (1 + ragged * np.sin(order * direction + phase) / 1.7)
    return window, np.clip((radius - distance) / max(edge, 0.3) + 0.5, 0, 1).astype(np.float32)


def smooth_noise(rng: np.random.Generator, shape: tuple[int, int], cell: float) -> Pixels:
    """Smooth random values, mean 0 and variance 1, that vary over about `cell` px: float32 (h, w)."""
    coarse = [max(2, math.ceil(length / cell) + 1) for length in shape]
    zoom = [length / small for length, small in zip(shape, coarse, strict=True)]
    values = ndi.zoom(rng.standard_normal(coarse).astype(np.float32), zoom, order=1)
    noise: Pixels = (values - values.mean()) / (values.std() + 1e-6)
    return noise


def _patch(
    canvas: Canvas, x: float, y: float, radius: float, edge: float
) -> tuple[tuple[slice, slice], Pixels] | None:
    """An irregular cover: a round one whose outline follows smooth noise."""
    window = canvas.window(x, y, 1.7 * radius + edge + 1)
    if window is None:
        return None
    dy = np.arange(window[0].start, window[0].stop, dtype=np.float32)[:, None] + 0.5 - y
    dx = np.arange(window[1].start, window[1].stop, dtype=np.float32)[None, :] + 0.5 - x
    shape = (window[0].stop - window[0].start, window[1].stop - window[1].start)
    distance = np.hypot(dx, dy) / radius + 0.3 * smooth_noise(canvas.rng, shape, max(2.0, 0.6 * radius))
    return window, np.clip((1 - distance) * radius / max(edge, 0.5) + 0.5, 0, 1).astype(np.float32)


def _paint_spot(
    canvas: Canvas,
    kind: LesionKind,
    spot: tuple[tuple[slice, slice], Pixels] | None,
    factor: Pixels,
    flatness: float,
) -> None:
    if spot is None:
        return
    window, cover = spot
    if cover.max() <= 0:
        return
    before = canvas.pixels[window].copy()
    canvas.tint(window, cover, factor, flatness)
    canvas.register(kind, window, cover, before)


def _microaneurysms(canvas: Canvas) -> None:
    """Small red dots: median radius 1.7 px, 5 to 95 % within 1.0 to 2.8."""
    rng, scale = canvas.rng, canvas.scale
    for _ in range(1 + int(16 * rng.random() ** 1.7)):
        radius = scale * _log_normal(rng, 1.7, 0.3, 0.9, 4.0)
        spot = soft_spot(canvas, *canvas.place(), radius, scale * rng.uniform(0.8, 1.8), rng.uniform(1, 1.5), 0.05)
        _paint_spot(canvas, "microaneurysm", spot, _factor(rng, _dark_depth(rng), 0.4, 1.2), 0.0)


def _hemorrhages(canvas: Canvas) -> None:
    """Red blots, and flames along a common direction: median radius 3.7 px, up to 25."""
    rng, scale = canvas.rng, canvas.scale
    flames, direction = rng.random() < 0.35, rng.uniform(0, math.pi)
    for _ in range(1 + int(10 * rng.random() ** 1.7)):
        radius = scale * _log_normal(rng, 3.9, 0.6, 1.8, 25.0)
        edge = scale * rng.uniform(0.8, 1.6) + rng.uniform(0, 0.5) * radius
        x, y = canvas.place()
        if flames:
            angle = direction + rng.normal(0, 0.3)
            spot = _turned_spot(canvas, x, y, radius, edge, rng.uniform(2, 5), 0.1, angle)
        elif radius > 5 * scale and rng.random() < 0.5:
            spot = _patch(canvas, x, y, radius, edge)
        else:
            spot = soft_spot(canvas, x, y, radius, edge, rng.uniform(1, 1.8), 0.15)
        _paint_spot(canvas, "hemorrhage", spot, _factor(rng, 1.3 * _dark_depth(rng), 0.45, 1.1), 0.0)


def _exudates(canvas: Canvas) -> None:
    """Clusters of bright flakes, scattered, in a ring or run together: median radius 1.6 px a flake."""
    rng, scale = canvas.rng, canvas.scale
    for _ in range(1 + int(4 * rng.random() ** 1.5)):
        x, y = canvas.place()
        depth, spread = _bright_depth(rng), scale * rng.uniform(2, 26)
        ring = rng.random() < 0.2
        factor = _factor(rng, depth, 0.35, 1.3)
        for _ in range(1 + int(40 * rng.random() ** 1.7)):
            if ring:
                angle, away = rng.uniform(0, 2 * math.pi), spread * rng.normal(1, 0.12)
                offset = away * math.cos(angle), away * math.sin(angle)
            else:
                offset = spread * rng.normal(), spread * rng.normal()
            radius = scale * _log_normal(rng, 1.7, 0.5, 0.8, 9.0)
            edge = scale * rng.uniform(0.7, 1.5)
            spot = soft_spot(canvas, x + offset[0], y + offset[1], radius, edge, rng.uniform(1, 2.2), 0.2)
            strength = 1 + (factor - 1) * np.float32(rng.uniform(0.4, 1.1))
            _paint_spot(canvas, "exudate", spot, strength, rng.uniform(0.2, 0.9))


def _cotton_wool_spots(canvas: Canvas) -> None:
    """Pale fluffy patches: median radius 7.6 px."""
    rng, scale = canvas.rng, canvas.scale
    for _ in range(1 + int(4 * rng.random() ** 1.5)):
        radius = scale * _log_normal(rng, 7.6, 0.35, 3.0, 20.0)
        factor = _factor(rng, _log_normal(rng, 0.22, 0.6, 0.06, 0.9), 0.35, 1.3)
        spot = _patch(canvas, *canvas.place(), radius, radius * rng.uniform(0.6, 1.3))
        _paint_spot(canvas, "cotton_wool_spot", spot, factor, rng.uniform(0, 0.8))


def _drusen(canvas: Canvas) -> None:
    """Groups of pale round spots with soft edges: median radius 3 px."""
    rng, scale = canvas.rng, canvas.scale
    x, y = canvas.place()
    spread, size = scale * rng.uniform(10, 60), _log_normal(rng, 3.0, 0.35, 1.5, 8.0)
    factor = _factor(rng, _log_normal(rng, 0.16, 0.6, 0.05, 0.8), 0.5, 0.9)
    for _ in range(2 + int(25 * rng.random() ** 1.5)):
        radius = scale * size * math.exp(rng.normal(0, 0.35))
        edge = scale * 0.8 + radius * rng.uniform(0.4, 1.0)
        place = x + spread * rng.normal(), y + spread * rng.normal()
        spot = soft_spot(canvas, *place, radius, edge, rng.uniform(1, 1.3), 0.07)
        strength = 1 + (factor - 1) * np.float32(rng.uniform(0.6, 1.1))
        _paint_spot(canvas, "drusen", spot, strength, rng.uniform(0, 0.6))


def _regions(canvas: Canvas) -> None:
    """Ragged regions of any color: brighter, darker, grayer, redder."""
    rng, scale = canvas.rng, canvas.scale
    for _ in range(int(rng.integers(1, 4))):
        radius = scale * _log_normal(rng, 10.0, 0.7, 3.0, 45.0)
        depth = _bright_depth(rng) if rng.random() < 0.5 else 1.3 * _dark_depth(rng)
        factor = np.clip((1 + depth) * np.exp(rng.normal(0, 0.12, 3)), 0.05, 6).astype(np.float32)
        spot = _patch(canvas, *canvas.place(), radius, scale + rng.uniform(0, 0.7) * radius)
        _paint_spot(canvas, "region", spot, factor, rng.uniform(0, 1))


def _textures(canvas: Canvas, donor: Pixels) -> None:
    """Pieces of another photograph, their mean color mostly adapted to the place."""
    rng, scale = canvas.rng, canvas.scale
    for _ in range(int(rng.integers(1, 3))):
        radius = scale * _log_normal(rng, 13.0, 0.5, 5.0, 45.0)
        spot = _patch(canvas, *canvas.place(), radius, scale * 1.5 + rng.uniform(0, 0.4) * radius)
        if spot is None:
            continue
        window, cover = spot
        height, width = cover.shape
        if height > donor.shape[0] or width > donor.shape[1] or cover.max() <= 0:
            continue
        top, left = rng.integers(donor.shape[0] - height + 1), rng.integers(donor.shape[1] - width + 1)
        piece = donor[top : top + height, left : left + width]
        if rng.random() < 0.75:
            piece = piece - piece.mean(axis=(0, 1)) + canvas.pixels[window].mean(axis=(0, 1))
        before = canvas.pixels[window].copy()
        canvas.blend(window, cover * np.float32(rng.uniform(0.5, 1)), piece)
        canvas.register("texture", window, cover, before)
