"""Labeled photographs, one file per layout on disk; every reader gives a `Dataset`."""

from dataclasses import dataclass
from pathlib import Path

from indexer.photos.listing import LesionMask, Marked, ReferencePhoto
from resad.findings import Eye

__all__ = ["Dataset", "Eye", "LabeledPhoto", "LesionMask", "Marked"]


@dataclass(frozen=True, slots=True)
class LabeledPhoto:
    """A test photograph.

    kind: what is wrong with it, in the data set's own word; `good` if nothing is.
    masks: all of them together say where it is abnormal; none where that is unknown.
    """

    path: Path
    abnormal: bool
    kind: str
    masks: tuple[LesionMask, ...] = ()
    patient: str | None = None
    eye: Eye | None = None
    camera: str | None = None


@dataclass(frozen=True, slots=True)
class Dataset:
    """Normal photographs to build from, and labeled ones to test on.

    deviations: in what this copy differs from the one its makers publish.
    """

    name: str
    train: tuple[ReferencePhoto, ...]
    test: tuple[LabeledPhoto, ...]
    deviations: tuple[str, ...] = ()
