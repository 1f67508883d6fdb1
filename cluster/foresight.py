"""What a build over a cluster will take: each worker's share, since they all work at once, and the driver."""

from dataclasses import dataclass
from math import ceil
from typing import Final

from cluster.crew import Ask, Crew
from indexer.build.forecast import Forecast, HostResources, bank_bytes, format_bytes
from resad.errors import SettingError

AFTER: Final = 2
"""Pieces for each worker, until there is something to say."""
_PER_PATCH: Final = 20
"""Bytes that the driver holds of each patch at most: its left-out distance and its cell (8); beside them all
distances and their copy while quantiles are taken (8), or the distances on their grids and the file made of these
(8, and half as much again for cells without a patch).
"""
_BANKS: Final = 3
"""Of the memories: as they came, what FAISS made of them, and for the workers in the cluster's object store."""


@dataclass(frozen=True, slots=True)
class ClusterForecast:
    """share: of one worker; they are about alike.  room: of the driver.  patches: of all photographs."""

    share: Forecast
    room: HostResources
    patches: int

    @property
    def memory(self) -> int:
        """Bytes that the driver holds at most; the picks' points, with it during the greedy alone, are fewer."""
        grows = self.patches * _PER_PATCH + _BANKS * bank_bytes(self.share.task)
        return max(self.room.peak, self.room.resident + grows)

    @property
    def points_on_disk(self) -> bool:
        """Whether the greedy's points stay on the workers' disks."""
        return self.share.points_on_disk

    def check(self) -> None:
        """Raises `SettingError` with the numbers, and what to change, where anybody has too little."""
        self.share.check()
        if self.memory > self.room.memory:
            task = self.share.task
            raise SettingError(
                f"the driver would take {format_bytes(self.memory)} of memory, and there are {format_bytes(self.room.memory)} "
                f"({self.room.limit_name}): {self.patches:,} patches of {_PER_PATCH} bytes and {_BANKS} times "
                f"{task.memories:,} memories of {task.dimension} dimensions; run it on a larger machine, or with "
                "a smaller --coreset, fewer photographs or a smaller --size"
            )

    def lines(self) -> list[str]:
        """For people to read."""
        driver = f"driver: memory {format_bytes(self.memory)} of {format_bytes(self.room.memory)}, {self.patches:,} patches in all"
        return [*self.share.lines(), f"forecast: {driver}"]


def foresee_on(crew: Crew, listed: int, max_memory: int | None, room: HostResources) -> ClusterForecast | None:
    """The forecast; None where no photograph could be used so far.

    Args:
        listed: all photographs.
        max_memory: bytes for each worker, where it was said.
        room: of the driver.
    """
    for member in tuple(crew.members):
        # Not all of them may have begun: those that have tell how they are spread.
        here = sum(other.hello.node == member.hello.node for other in crew.members)
        neighbors = ceil(crew.count * here / len(crew.members))
        ask = Ask(member, 0, "foresee", (ceil(listed / crew.count), listed, neighbors, max_memory))
        for answer in crew.ask([ask]):
            if answer.value is not None:
                share: Forecast = answer.value
                return ClusterForecast(share, room, round(share.task.patches / share.task.photos * listed))
    return None
