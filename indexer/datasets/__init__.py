"""Labeled photographs, one file per layout on disk; every reader gives a `Dataset`."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class LabeledPhoto:
    """A test photograph; `mask` says where it is abnormal, None where that is empty or unknown."""

    path: Path
    abnormal: bool
    kind: str
    """What is wrong with it, in the data set's own word; `good` if nothing is."""
    mask: Path | None


@dataclass(frozen=True, slots=True)
class Dataset:
    """Normal photographs to build from, and labeled ones to test on."""

    name: str
    train: tuple[Path, ...]
    test: tuple[LabeledPhoto, ...]
