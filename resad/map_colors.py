"""The colors of anomaly maps, on the absolute scale: a color means the same distance in every photograph."""

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Pixels = NDArray[np.uint8]

_VIRIDIS: Final = (0x31688E, 0x26828E, 0x1F9E89, 0x35B779, 0x6DCD59, 0xB4DE2C, 0xFDE725)
"""The upper two thirds of viridis (S. van der Walt and N. Smith, 2015, CC0) at equal steps.  A retina has no
blue or green, while inferno's red vanishes on it; viridis' own dark third would look like hemorrhages."""
_COLORS: Final = 256
_STRENGTH: Final = 0.8
"""Share of the colors in an overlay where they are opaque, so that the lesion still shows through."""


@dataclass(frozen=True, slots=True)
class MapScale:
    """Which distance gets which color; raises `ValueError` unless 0 <= low < high, all finite."""

    low: float
    """Typical of a normal patch: transparent from here down."""
    threshold: float | None
    """Marked on the color bar, at its nearer end if it lies beyond; None where none is calibrated."""
    high: float
    """End of the colors: opaque from here up."""

    def __post_init__(self) -> None:
        if not (0 <= self.low < self.high < math.inf):
            raise ValueError(f"map scale from {self.low} to {self.high}: must be 0 <= low < high, finite")
        if self.threshold is not None and not math.isfinite(self.threshold):
            raise ValueError(f"map scale's threshold {self.threshold}: must be finite")


def colorize(anomaly_map: NDArray[np.float32], scale: MapScale) -> Pixels:
    """float32 (H, W) distances -> uint8 (H, W, 4) RGBA, straight alpha; each pixel by its own distance alone.

    Alpha is 0 up to `scale.low` and 255 from `scale.high`; between them color and alpha only rise.  Raises
    `ValueError` if a distance is not finite.
    """
    if not np.isfinite(anomaly_map).all():
        raise ValueError("a map is finite")
    position = np.clip((anomaly_map - scale.low) / (scale.high - scale.low), 0.0, 1.0)
    steps = np.rint(position * (_COLORS - 1)).astype(np.uint8)
    # Four bytes looked up as one number: a third of the time.
    colors: Pixels = _color_table().view(np.uint32)[:, 0][steps].view(np.uint8).reshape(*steps.shape, 4)
    return colors


def faded(colors: Image.Image) -> Image.Image:
    """The alpha, L (H, W), with which colors cover a photo: where opaque, the lesion still shows through."""
    return colors.getchannel("A").point([round(_STRENGTH * alpha) for alpha in range(256)])


def color_stops() -> list[str]:
    """The colors from low to high at even steps as CSS, over a transparent start."""
    table = _color_table()[:: _COLORS // 8]
    return [f"rgba({red},{green},{blue},{alpha / 255:.2f})" for red, green, blue, alpha in table.tolist()]


def _color_table() -> Pixels:
    """(256, 4) RGBA from low to high."""
    position = np.linspace(0.0, 1.0, _COLORS)
    anchors = np.array([[color >> 16, color >> 8 & 255, color & 255] for color in _VIRIDIS], dtype=np.float64)
    at = np.linspace(0.0, 1.0, len(_VIRIDIS))
    channels = [np.interp(position, at, anchors[:, channel]) for channel in range(3)]
    table: Pixels = np.rint(np.stack([*channels, 255 * position], axis=-1)).astype(np.uint8)
    return table
