"""What `resad-indexer score` is to do: how each photograph is judged and shown, and which files are written."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from resad.place import Eye
from resad.rendering import Layout, PictureKind
from resad.verdict import Rule

MapKind = Literal["png", "tiff"]
"""16 bits on the absolute scale, or float32 distances."""


@dataclass(frozen=True, slots=True)
class Order:
    """How each photograph is judged and shown.

    eye: of those whose source does not say.  require_quality: a photograph below the index's limits fails.
    """

    rule: Rule
    evidence: int
    eye: Eye | None = None
    require_quality: bool = False
    layout: Layout = "blend"
    overlay_kind: PictureKind = "png"
    map_kind: MapKind = "png"


@dataclass(frozen=True, slots=True)
class Job:
    """A photograph, what it is called, the place of its files below any folder, and the files to write, if any."""

    path: Path
    label: str
    place: str
    eye: Eye | None = None
    json: Path | None = None
    map: Path | None = None
    overlay: Path | None = None
    geojson: Path | None = None
    strips: Path | None = None

    @property
    def files(self) -> tuple[Path, ...]:
        """All of them."""
        paths = (self.json, self.map, self.overlay, self.geojson, self.strips)
        return tuple(path for path in paths if path is not None)
