"""What test photographs are called in answers: their paths below the folder they share."""

import os
from collections.abc import Sequence
from pathlib import Path

from lab.datasets import LabeledPhoto


def names_of(photos: Sequence[LabeledPhoto]) -> list[str]:
    """`test/good/a.jpg`, shortened by the folders that all share; nothing of the machine's own is told."""
    shared = Path(os.path.commonpath([photo.path.parent for photo in photos]))
    return [photo.path.relative_to(shared).as_posix() for photo in photos]
