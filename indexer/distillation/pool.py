"""The photographs to distil from, prepared: those of a folder, and drawn ones beside them."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Final

import numpy as np
from PIL import Image

from indexer.build.references import LoadedPhoto, load_photos
from indexer.distillation.views import Square
from indexer.photos.listing import ReferencePhoto, Skipped
from lab.drawing import LESION_KINDS, LesionKind, draw_photo
from resad.config import PhotoLimits, PreparationConfig
from resad.errors import SettingError
from resad.preparation import PreparedPhoto, prepare

_HELD_OUT: Final = 8
"""Every so many photographs one is kept for the evaluation at the end."""
_PHOTOGRAPHED: Final = 0.6
"""Of the crops, where photographs are drawn as well."""


@dataclass(frozen=True, slots=True, eq=False)
class Pool:
    """drawn: never held out.  skipped: photographs that could not be used."""

    photographed: tuple[Square, ...]
    held_out: tuple[Square, ...]
    drawn: tuple[Square, ...]
    skipped: tuple[Skipped, ...]

    @property
    def trained_on(self) -> tuple[Square, ...]:
        """All that are trained on, photographs so often that they make up their share of the crops."""
        if not self.drawn:
            return self.photographed
        wanted = len(self.drawn) * _PHOTOGRAPHED / (1 - _PHOTOGRAPHED)
        return self.photographed * max(1, round(wanted / len(self.photographed))) + self.drawn


def read_pool(
    listed: Sequence[ReferencePhoto], size: int, limits: PhotoLimits, on_photo: Callable[[int], None]
) -> Pool:
    """The usable photographs, each a square of `size` px, every eighth held out; none drawn yet.

    Raises:
        SettingError: fewer than two can be used.
    """
    squares, skipped = [], []
    for outcome in load_photos(listed, PreparationConfig(size=size), limits, strict=False):
        if isinstance(outcome, LoadedPhoto):
            squares.append(_square(outcome.photo))
        elif isinstance(outcome, Skipped):
            skipped.append(outcome)
        on_photo(1)
    if len(squares) < 2:
        raise SettingError(f"{len(squares)} usable photographs: distillation needs at least 2, one is held out")
    held_out = tuple(squares[::_HELD_OUT])
    trained = tuple(one for number, one in enumerate(squares) if number % _HELD_OUT)
    return Pool(trained, held_out, (), tuple(skipped))


def draw_squares(count: int, size: int, seed: int) -> Iterator[Square]:
    """`count` drawn photographs, every second one with lesions; by `seed` alone."""
    for number in range(count):
        rng = np.random.default_rng([seed, number])
        kinds: list[LesionKind] = [kind for kind in LESION_KINDS if number % 2 and rng.random() < 0.6]
        file = BytesIO()
        Image.fromarray(draw_photo(rng, height=size, lesions=kinds).pixels).save(file, "PNG", compress_level=1)
        yield _square(prepare(file.getvalue(), PreparationConfig(size=size), PhotoLimits()))


def _square(photo: PreparedPhoto) -> Square:
    return Square(photo.pixels, photo.mask)
