"""What is ordered of a build, and what is reported of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from indexer.look_alikes import Likeness
from indexer.people import People
from indexer.photos import Duplicate, LookAlike, Skipped
from indexer.references import Reference, look_alikes
from indexer.search_choice import SearchChoice
from resad.config import MethodConfig, PhotoLimits
from resad.manifest import Manifest


@dataclass(frozen=True, slots=True)
class BuildOrder:
    """What is to be built and where.

    photos: a folder or a CSV.  weights: as for `load_backbone`.  strict: refuse instead of skipping photographs.
    keep_names: write file names into the index.  keep_crops: keep the photographs' squares, for evidence.
    more_devices: they extract and select beside `device`, which alone searches.  resume: go on with what an
    interrupted build has left.  max_memory: bytes to hold at most.  search: `auto` takes the faster exact one.
    keep_features: all patch features stay in the index, so that adding and removing photographs loses nothing.
    """

    photos: Path
    root: Path
    name: str
    config: MethodConfig
    weights: str
    device: torch.device
    strict: bool = False
    keep_names: bool = False
    keep_crops: bool = False
    search: SearchChoice = "auto"
    limits: PhotoLimits = PhotoLimits()
    more_devices: tuple[torch.device, ...] = ()
    resume: bool = False
    max_memory: int | None = None
    keep_features: bool = False

    @property
    def devices(self) -> tuple[torch.device, ...]:
        """All of them."""
        return (self.device, *self.more_devices)


@dataclass(frozen=True, slots=True)
class BuildReport:
    """What came of it."""

    version: Path
    manifest: Manifest
    skipped: tuple[Skipped, ...]
    duplicates: tuple[Duplicate, ...]
    look_alikes: tuple[LookAlike, ...]
    people: People

    @classmethod
    def of(
        cls,
        version: Path,
        manifest: Manifest,
        references: Sequence[Reference],
        left_aside: Sequence[Skipped | Duplicate],
        alike: Sequence[Likeness],
    ) -> "BuildReport":
        """What became of the listed photographs, those that were left aside told apart."""
        return cls(
            version,
            manifest,
            tuple(one for one in left_aside if isinstance(one, Skipped)),
            tuple(one for one in left_aside if isinstance(one, Duplicate)),
            look_alikes(references, alike),
            People.of(reference.source.patient for reference in references),
        )
