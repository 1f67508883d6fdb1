"""How a memory bank is searched, and what was measured when that was chosen."""

from typing import Annotated, Any, Final, Literal

from pydantic import ConfigDict, Field, model_validator
from pydantic.dataclasses import dataclass

from resad.errors import SettingError

_STRICT: Final = ConfigDict(extra="forbid")

SearchKind = Literal["flat", "proved", "ivf"]
_REMOVED: Final = ("links", "breadth")
"""Settings of `hnsw`, a kind that older plans may name."""


@dataclass(frozen=True, config=_STRICT)
class SearchPlan:
    """Which search, and its settings; settings of another kind than `kind` are ignored.

    `flat` and `proved` find the nearest memories.  `ivf` finds near ones, and the detector then makes the image
    score exact.
    """

    kind: SearchKind = "flat"
    width: Annotated[int, Field(ge=16, le=1040, multiple_of=16)] = 128
    """`proved`: numbers in a quantized vector."""
    limit: Annotated[float, Field(ge=0, le=1)] = 0.15
    """`proved`: a share, both of a block's memories and of the patches of a tile.  Where more patches have more
    candidates in a block, they are searched in it in full."""
    lists: Annotated[int, Field(ge=1)] = 1024
    """`ivf`: lists that the memories are divided into."""
    probes: Annotated[int, Field(ge=1)] = 8
    """`ivf`: lists that are searched for a patch."""

    @model_validator(mode="before")
    @classmethod
    def _from_stored(cls, stored: Any) -> Any:
        """Drop the settings of a kind that is gone; raises `SettingError` for a plan of that kind."""
        if not isinstance(stored, dict):
            return stored
        if stored.get("kind") == "hnsw":
            raise SettingError("hnsw is a search that this version no longer has (it has flat, proved and ivf)")
        return {name: value for name, value in stored.items() if name not in _REMOVED}

    @property
    def exact(self) -> bool:
        """Whether every patch's nearest memories are found."""
        return self.kind in ("flat", "proved")


@dataclass(frozen=True, config=_STRICT)
class SearchTrial:
    """The measurements of one plan on left-out reference photos.

    milliseconds: of a photo's search, with the exact step if there is one; median.
    image_score_ratio: to the flat search, the ratio farthest from 1.
    map_error: the largest deviation of a map from the flat search's, as a share of that map's peak.
    proved: share of pairs of patch and memory that needed no full search; 1 for other kinds than `proved`.
    """

    plan: SearchPlan
    milliseconds: float
    image_score_ratio: float
    map_error: float
    proved: float


@dataclass(frozen=True, config=_STRICT)
class SearchRecord:
    """The chosen plan and the trials it was chosen from.

    photos: reference photos that were measured, each against the others' memories; 0 where the bank is too small
    to measure or the search was named.
    """

    chosen: SearchPlan
    photos: int
    trials: tuple[SearchTrial, ...]
