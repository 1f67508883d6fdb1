"""What a build will take, from counts and measured rates: pure arithmetic, so that it can be tested.

Times are for the machine as it was while the rates were measured; bytes are those of `indexer.footprint`.
"""

from dataclasses import dataclass, replace
from math import ceil, log10
from typing import Final, Protocol

from indexer.footprint import Task, bank_bytes, disk_bytes, gpu_bytes, memory_bytes, points_bytes
from indexer.room import Room
from resad.errors import SettingError

_ROUNDS: Final = 18.0
_PICKS_A_ROUND: Final = 500.0
"""Of the greedy: rounds at the start that accept few picks, and what later ones accept; seen on ReSC features."""
_WORTH_SAYING: Final = 600.0
"""Seconds of greedy and calibration from which a smaller coreset is proposed."""
_LEAST_COUNT: Final = 2_000


@dataclass(frozen=True, slots=True)
class Rates:
    """Seconds: to encode a photograph; to compare a point with a center, a row with another, to look at a point
    once a round, and to compare a patch with a memory.
    """

    photo: float
    update: float
    look: float
    search: float


class Foretold(Protocol):
    """What a build will take, on one machine or over a cluster."""

    def lines(self) -> list[str]:
        """For people to read."""


@dataclass(frozen=True, slots=True)
class Forecast:
    """Seconds per step, bytes at most, and whether the greedy's points lie on disk for want of memory.

    count: a coreset count that would take about as long as the encoding, where the one asked takes far longer.
    """

    task: Task
    room: Room
    encode: float
    coreset: float
    calibrate: float
    disk: int
    memory: int
    gpu: int
    points_on_disk: bool
    count: int | None

    def check(self) -> None:
        """Raises `SettingError` with the numbers, and what to change, where the host has too little."""
        needs = (
            ("memory", self.memory, self.room.memory, self.room.limit_name),
            ("disk", self.disk, self.room.disk, "free where the index goes"),
            ("GPU memory", self.gpu, self.room.gpu, "on the device"),
        )
        for name, need, there, whose in needs:
            if need > there:
                raise SettingError(
                    f"the build would take {size(need)} of {name}, and there are {size(there)} ({whose}): "
                    f"{_what_to_change(self.task, self.room, name)}"
                )

    def lines(self) -> list[str]:
        """For people to read."""
        task, on_disk = self.task, ", the greedy's points on disk" if self.points_on_disk else ""
        guessed = " (a guess: the radius decides)" if task.guessed else ""
        gpu = f", GPU memory {size(self.gpu)} of {size(self.room.gpu)}" if self.room.gpu else ""
        lines = [
            f"forecast: {task.photos:,} photographs, about {task.patches:,} patches, {task.memories:,} memories "
            f"of {task.dimension} dimensions{guessed}",
            f"forecast: encode {duration(self.encode)}, coreset {duration(self.coreset)}, "
            f"calibrate {duration(self.calibrate)}",
            f"forecast: memory {size(self.memory)} of {size(self.room.memory)}, "
            f"disk {size(self.disk)} of {size(self.room.disk)}{gpu}{on_disk}",
        ]
        if self.count is not None:
            lines.append(
                f"forecast: --coreset {self.count} would take coreset and calibration about as long as encode"
            )
        return lines


def forecast(task: Task, rates: Rates, room: Room) -> Forecast:
    """What `task` takes at these rates; the points go to disk if they do not fit otherwise."""
    held = points_bytes(task)
    gpu, gpu_less = gpu_bytes(task, room, held), gpu_bytes(task, room, 0)
    points_on_disk = memory_bytes(task, room, 0 if room.gpu else held) > room.memory or gpu > room.gpu
    calibrate = task.views * task.patches * task.memories * rates.search
    coreset = _greedy(task, rates)
    encode = task.to_encode * rates.photo
    return Forecast(
        task=task,
        room=room,
        encode=encode,
        coreset=coreset,
        calibrate=calibrate,
        disk=disk_bytes(task, held if points_on_disk else 0),
        memory=memory_bytes(task, room, 0 if points_on_disk or room.gpu else held),
        gpu=gpu_less if points_on_disk else gpu,
        points_on_disk=points_on_disk,
        count=_count(task, rates, coreset + calibrate),
    )


def size(count: int) -> str:
    """`6.0 GB`, in powers of ten."""
    return f"{count / 1e9:.1f} GB"


def duration(seconds: float) -> str:
    """`12 s`, `34 min`, `5.6 h`."""
    if seconds < 120:
        return f"{ceil(seconds)} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _greedy(task: Task, rates: Rates) -> float:
    """The projection costs what so many centers cost as the features have dimensions."""
    rounds = min(_ROUNDS + task.memories / _PICKS_A_ROUND, task.memories)
    projecting = task.dimension if task.projected < task.dimension else 0
    return task.sampled * ((task.memories + projecting) * rates.update + rounds * rates.look)


def _count(task: Task, rates: Rates, seconds: float) -> int | None:
    """Memories for which greedy and calibration take as long as encoding all photographs, two digits."""
    encoding = max(task.photos * rates.photo, _WORTH_SAYING / 4)
    if seconds < max(_WORTH_SAYING, 3 * encoding):
        return None
    wanted = max(task.memories * encoding / seconds, _LEAST_COUNT)
    unit = 10 ** max(int(log10(wanted)) - 1, 0)
    count = int(wanted // unit * unit)
    return count if count < task.memories else None


def _what_to_change(task: Task, room: Room, name: str) -> str:
    held = size(bank_bytes(task))
    bank = f"{task.memories:,} memories of {task.dimension} dimensions are {held}"
    if name == "disk":
        return f"fewer photographs, a smaller --size, or another --root; {bank}"
    without = memory_bytes(replace(task, memories=0), room, 0)
    if name == "memory" and without > room.memory:
        now = size(max(room.peak, room.resident))
        return (
            f"{size(without)} with an empty memory bank, {now} for the program and its network alone, so that no "
            f"coreset is small enough; give more memory, a smaller --size, or a trunk with fewer channels "
            f"(--backbone)"
        )
    return f"a smaller --coreset ({bank}), a smaller --size, or a trunk with fewer channels (--backbone)"
