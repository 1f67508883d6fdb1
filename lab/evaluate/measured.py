"""What was measured on test photographs, per photograph."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from lab.datasets import LabeledPhoto
from lab.evaluate.bootstrap import Floats, Labels
from lab.evaluate.metrics import Rows, ScoreHistogram


@dataclass(frozen=True, slots=True)
class InTheIndex:
    """A test photograph that is among the reference photos.

    photo: its number among the test photographs.  reference: the id of the other.  bits: how many differ of their
    perceptual hashes; None for the same file.  mirrored: those of the one and of the mirror image of the other.
    """

    photo: int
    reference: str
    bits: int | None
    mirrored: bool


@dataclass(frozen=True, slots=True, eq=False)
class LesionCounts:
    """One kind of lesion inside the field of view: pixels, and regions as for AUPRO."""

    kind: str
    pixels: Rows
    regions: Rows


@dataclass(frozen=True, slots=True, eq=False)
class Measured:
    """Per test photograph, for paired comparisons.

    scores: float64 (n,).  labels: bool (n,), True abnormal.  fov, whole: pixels per bin of `edges`.
    fov_regions, whole_regions: as `metrics.count_regions`.
    """

    photos: tuple[LabeledPhoto, ...]
    scores: Floats
    labels: Labels
    in_the_index: tuple[InTheIndex, ...]
    fov: ScoreHistogram
    whole: ScoreHistogram
    fov_regions: Rows
    whole_regions: Rows
    lesions: tuple[LesionCounts, ...]
    edges: NDArray[np.float32]

    def only(self, chosen: Labels) -> "Measured":
        """The same of the `chosen` photographs, bool (n,), alone; `in_the_index` is not carried over."""
        return replace(
            self,
            photos=tuple(photo for photo, taken in zip(self.photos, chosen, strict=True) if taken),
            scores=self.scores[chosen],
            labels=self.labels[chosen],
            in_the_index=(),
            fov=self.fov.only(chosen),
            whole=self.whole.only(chosen),
            fov_regions=self.fov_regions.only(chosen),
            whole_regions=self.whole_regions.only(chosen),
            lesions=tuple(
                LesionCounts(one.kind, one.pixels.only(chosen), one.regions.only(chosen)) for one in self.lesions
            ),
        )
