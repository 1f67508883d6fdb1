"""How a memory bank is searched, and what was measured of that when the index was built."""

from typing import Annotated, Final, Literal

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

_STRICT: Final = ConfigDict(extra="forbid")

SearchKind = Literal["flat", "proved", "hnsw", "ivf"]


@dataclass(frozen=True, config=_STRICT)
class SearchPlan:
    """`flat` and `proved` find the nearest memories; `hnsw` and `ivf` find near ones, and the detector then makes
    the image score exact.  A field of another kind than `kind` is not read.
    """

    kind: SearchKind = "flat"
    width: Annotated[int, Field(ge=16, le=1040, multiple_of=16)] = 128
    """`proved`: numbers in a shadow."""
    limit: Annotated[float, Field(ge=0, le=1)] = 0.15
    """`proved`: share of a block of memories, and of the patches at hand: where more patches have more candidates
    there, they are searched there in full."""
    links: Annotated[int, Field(ge=4, le=128)] = 32
    """`hnsw`: links of a memory."""
    breadth: Annotated[int, Field(ge=1)] = 64
    """`hnsw`: memories that a search keeps in view (FAISS's efSearch)."""
    lists: Annotated[int, Field(ge=1)] = 1024
    """`ivf`: lists that the memories are in."""
    probes: Annotated[int, Field(ge=1)] = 8
    """`ivf`: lists that are searched for a patch."""

    @property
    def exact(self) -> bool:
        """Whether every patch's nearest memories are found."""
        return self.kind in ("flat", "proved")


@dataclass(frozen=True, config=_STRICT)
class SearchTrial:
    """A plan tried on left-out reference photos.

    milliseconds: of a photo's search, and the exact step where there is one; median.
    image_score_ratio: to the flat search, the one farthest from 1.
    map_error: the largest deviation of a map from the flat search's, as a share of that one's peak.
    proved: share of patches and memories that no full search was needed for; 1 where nothing is proved.
    """

    plan: SearchPlan
    milliseconds: float
    image_score_ratio: float
    map_error: float
    proved: float


@dataclass(frozen=True, config=_STRICT)
class SearchRecord:
    """What was chosen and what it was chosen from.

    photos: reference photos that it was measured on, each against the others' memories; 0 where the bank is too
    small to measure or the search was named.
    """

    chosen: SearchPlan
    photos: int
    trials: tuple[SearchTrial, ...]
