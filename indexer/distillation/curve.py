"""The loss of every step, as CSV and as a small picture."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image, ImageDraw

_WIDTH, _HEIGHT, _MARGIN = 640, 360, 40
_POINTS: Final = 200


def write_curve(losses: Sequence[float], csv_file: Path, picture: Path) -> None:
    """`step,loss` in `csv_file`; in `picture` the means over stretches of steps, on a logarithmic scale."""
    with csv_file.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("step", "loss"))
        writer.writerows(enumerate(losses, start=1))
    _picture(losses).save(picture)


def _picture(losses: Sequence[float]) -> Image.Image:
    means = np.array([part.mean() for part in np.array_split(np.asarray(losses), min(_POINTS, len(losses)))])
    low, high = float(means.min()), float(means.max())
    spread = max(np.log(high / low), 1e-9)
    across = np.linspace(_MARGIN, _WIDTH - _MARGIN, len(means))
    down = _MARGIN + np.log(high / means) / spread * (_HEIGHT - 2 * _MARGIN)
    image = Image.new("RGB", (_WIDTH, _HEIGHT), "white")
    pen = ImageDraw.Draw(image)
    pen.line(
        [(_MARGIN, _MARGIN), (_MARGIN, _HEIGHT - _MARGIN), (_WIDTH - _MARGIN, _HEIGHT - _MARGIN)], fill="gray"
    )
    pen.line(list(zip(across.tolist(), down.tolist(), strict=True)), fill="black", width=2)
    for text, y in ((f"{high:.4g}", _MARGIN), (f"{low:.4g}", _HEIGHT - _MARGIN)):
        pen.text((2, y - 6), text, fill="black")
    pen.text((_WIDTH - _MARGIN - 60, _HEIGHT - _MARGIN + 8), f"{len(losses)} steps", fill="black")
    return image
