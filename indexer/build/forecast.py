"""Time, memory and disk that a build will take."""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from math import ceil, log10
from pathlib import Path
from shutil import disk_usage
from statistics import median
from typing import Final, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from indexer.calibration.leave_out import LeftOutBanks
from indexer.coreset.k_center import Shard
from indexer.coreset.projected_features import BLOCK_ROWS, MemoryPoints
from indexer.coreset.selection import memory_count, projected_dimension, sample_size
from resad import runtime
from resad.backbone import Backbone
from resad.config import CoresetConfig, MethodConfig
from resad.encoder import PatchFeatures
from resad.errors import SettingError
from resad.memory_bank import MemoryBank, Provenance
from resad.runtime import available_bytes

_PROC: Final = Path("/proc")


@dataclass(frozen=True, slots=True)
class HostResources:
    """Bytes: memory the process holds, has held at most, and may hold; free disk; the same for a GPU, 0 without.

    limit_name: what sets the limit of memory, for messages.
    """

    resident: int
    peak: int
    memory: int
    limit_name: str
    disk: int
    gpu_peak: int = 0
    gpu: int = 0


def host_resources(place: Path, device: torch.device, max_memory: int | None) -> HostResources:
    """As it is now.

    Args:
        place: a folder on the disk that is written to.
        device: that computes.
        max_memory: bytes this process may hold, where it was said.
    """
    resident = resident_bytes()
    there = resident + available_bytes()
    limited = max_memory is not None and max_memory < there
    gpu_peak, gpu = 0, 0
    if device.type == "cuda":
        gpu_peak = torch.cuda.max_memory_allocated(device)
        gpu = torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device)
    return HostResources(
        resident=resident,
        peak=runtime.peak_memory_bytes(),
        memory=max_memory if limited and max_memory is not None else there,
        limit_name="--max-memory" if limited else "what this machine has available",
        disk=disk_usage(place).free,
        gpu_peak=gpu_peak,
        gpu=gpu,
    )


def resident_bytes(proc: Path = _PROC) -> int:
    """Of this process."""
    return int((proc / "self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


_VALUE: Final = 4
"""Bytes of a float32."""
_SLACK: Final = 320 * 10**6
"""Bytes of what does not grow: blocks of products, the candidates' distances, buffers of FAISS and the maps."""
_PER_PATCH: Final = 32
"""Bytes per patch, at most: its cell, read twice while memories are gathered (8); the greedy's distances and norms
(8), what looks for the farthest (6), the checkpoint (4); later all patch distances, twice."""
_ON_GPU: Final = 4
"""Copies of the memories on a GPU at a time: the bank, the one without a photograph that searches are tried on,
and what two of them hold while the faster is looked for."""
_GPU_SCRATCH: Final = 2 * 10**9
"""Bytes on a GPU beside points, memories and what encoding takes: FAISS's own and blocks of products."""


@dataclass(frozen=True, slots=True)
class BuildSize:
    """What is to be done.

    photos: all of them.  to_encode: those that have no features yet.  patches: of all photographs.
    sampled: the patches the greedy looks at.  dimension: of the features, D.  projected: of where the greedy
    measures, d.  memories: M.  guessed: M is a guess, a radius decides.  weights: bytes of the trunk.
    views: of each photograph, 2 where its mirror image is looked at, too.
    """

    photos: int
    to_encode: int
    patches: int
    sampled: int
    dimension: int
    projected: int
    memories: int
    guessed: bool
    weights: int
    views: int = 1


def points_bytes(task: BuildSize) -> int:
    """Of what the greedy measures between, projected."""
    return task.sampled * task.projected * _VALUE


def bank_bytes(task: BuildSize) -> int:
    """Of the memory bank's vectors."""
    return task.memories * task.dimension * _VALUE


def disk_bytes(task: BuildSize, points: int) -> int:
    """What is written where the index goes, `points` of it by the greedy."""
    patch = (task.views * task.dimension + 1) * _VALUE
    features = task.to_encode * ceil(task.patches / max(task.photos, 1)) * patch
    bank = task.memories * (task.dimension + 4) * _VALUE
    return features + points + bank + task.sampled * _VALUE + task.weights


def memory_bytes(task: BuildSize, room: HostResources, points: int) -> int:
    """What this process holds at most, `points` of it for the greedy."""
    bank = bank_bytes(task)
    grows = task.patches * _PER_PATCH + _SLACK
    return max(room.peak, room.resident + grows + max(points + bank, 2 * bank))


def gpu_bytes(task: BuildSize, room: HostResources, points: int) -> int:
    """What the GPU holds at most, `points` of it for the greedy; 0 without a GPU."""
    if not room.gpu:
        return 0
    return room.gpu_peak + points + task.sampled * _PER_PATCH + _ON_GPU * bank_bytes(task) + _GPU_SCRATCH


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


class AnyForecast(Protocol):
    """What a build will take, on one machine or over a cluster."""

    def lines(self) -> list[str]:
        """For people to read."""


@dataclass(frozen=True, slots=True)
class Forecast:
    """Seconds per step, bytes at most, and whether the greedy's points lie on disk for want of memory.

    count: a coreset count that would take about as long as the encoding, where the one asked takes far longer.
    """

    task: BuildSize
    room: HostResources
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
                    f"the build would take {format_bytes(need)} of {name}, and there are {format_bytes(there)} ({whose}): "
                    f"{_what_to_change(self.task, self.room, name)}"
                )

    def lines(self) -> list[str]:
        """For people to read."""
        task, on_disk = self.task, ", the greedy's points on disk" if self.points_on_disk else ""
        guessed = " (a guess: the radius decides)" if task.guessed else ""
        gpu = f", GPU memory {format_bytes(self.gpu)} of {format_bytes(self.room.gpu)}" if self.room.gpu else ""
        lines = [
            f"forecast: {task.photos:,} photographs, about {task.patches:,} patches, {task.memories:,} memories "
            f"of {task.dimension} dimensions{guessed}",
            f"forecast: encode {format_seconds(self.encode)}, coreset {format_seconds(self.coreset)}, "
            f"calibrate {format_seconds(self.calibrate)}",
            f"forecast: memory {format_bytes(self.memory)} of {format_bytes(self.room.memory)}, "
            f"disk {format_bytes(self.disk)} of {format_bytes(self.room.disk)}{gpu}{on_disk}",
        ]
        if self.count is not None:
            lines.append(
                f"forecast: --coreset {self.count} would take coreset and calibration about as long as encode"
            )
        return lines


def forecast(task: BuildSize, rates: Rates, room: HostResources) -> Forecast:
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


def format_bytes(count: int) -> str:
    """`6.0 GB`, in powers of ten."""
    return f"{count / 1e9:.1f} GB"


def format_seconds(seconds: float) -> str:
    """`12 s`, `34 min`, `5.6 h`."""
    if seconds < 120:
        return f"{ceil(seconds)} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _greedy(task: BuildSize, rates: Rates) -> float:
    """The projection costs what so many centers cost as the features have dimensions."""
    rounds = min(_ROUNDS + task.memories / _PICKS_A_ROUND, task.memories)
    projecting = task.dimension if task.projected < task.dimension else 0
    return task.sampled * ((task.memories + projecting) * rates.update + rounds * rates.look)


def _count(task: BuildSize, rates: Rates, seconds: float) -> int | None:
    """Memories for which greedy and calibration take as long as encoding all photographs, two digits."""
    encoding = max(task.photos * rates.photo, _WORTH_SAYING / 4)
    if seconds < max(_WORTH_SAYING, 3 * encoding):
        return None
    wanted = max(task.memories * encoding / seconds, _LEAST_COUNT)
    unit = 10 ** max(int(log10(wanted)) - 1, 0)
    count = int(wanted // unit * unit)
    return count if count < task.memories else None


def _what_to_change(task: BuildSize, room: HostResources, name: str) -> str:
    held = format_bytes(bank_bytes(task))
    bank = f"{task.memories:,} memories of {task.dimension} dimensions are {held}"
    if name == "disk":
        return f"fewer photographs, a smaller --size, or another --root; {bank}"
    without = memory_bytes(replace(task, memories=0), room, 0)
    if name == "memory" and without > room.memory:
        now = format_bytes(max(room.peak, room.resident))
        return (
            f"{format_bytes(without)} with an empty memory bank, {now} for the program and its network alone, so that no "
            f"coreset is small enough; give more memory, a smaller --size, or a trunk with fewer channels "
            f"(--backbone)"
        )
    return f"a smaller --coreset ({bank}), a smaller --size, or a trunk with fewer channels (--backbone)"


_CENTERS: Final = 256
"""Of the trial product, about as many as a round accepts."""
_MEMORIES: Final = 8192
_QUERIES: Final = 1024
"""Of the trial search."""
_GUESS: Final = 0.1
"""Memories as a share of the patches, where a radius decides how many there will be."""


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """The first photographs that were encoded: seconds for each once running, 0 where too few; their features."""

    seconds: float
    features: tuple[PatchFeatures, ...]


@dataclass(frozen=True, slots=True)
class PhotoCounts:
    """listed: all photographs.  taken: those whose features are stored.  left_aside: those that were not taken."""

    listed: int
    taken: int
    left_aside: int


def encode_sample(extraction: Iterator[Sequence[PatchFeatures]], encoders: int) -> Sample:
    """Let `extraction` do its first batches: one to warm up and two more for every encoder."""
    ends: list[float] = []
    taken: list[int] = []
    features: list[PatchFeatures] = []
    for batch in extraction:
        ends.append(time.perf_counter())
        taken.append(len(batch))
        features += batch
        if len(ends) == 3 * encoders:
            break
    later = sum(taken[encoders:])
    return Sample((ends[-1] - ends[encoders - 1]) / later if later else 0.0, tuple(features))


def check_count(config: CoresetConfig, listed: int, grid: tuple[int, int]) -> None:
    """Raise `SettingError` where more memories are asked than so many photographs can have patches.

    Args:
        grid: of the first one; no photograph has more patches than that has cells.
    """
    most = listed * grid[0] * grid[1]
    if config.count is not None and config.count > most:
        raise SettingError(
            f"a coreset of {config.count} memories asked of {listed} photographs, which have at most {most} "
            "patches; 1.0 keeps them all"
        )


def forecast_build(
    config: MethodConfig,
    backbone: Backbone,
    devices: Sequence[torch.device],
    place: Path,
    max_memory: int | None,
    sample: Sample,
    progressed: PhotoCounts,
) -> Forecast:
    """What the whole build takes, from its first photographs.

    Args:
        place: a folder on the disk that is written to.
        max_memory: bytes, where it was said.
        sample: at least one photograph.
    """
    task, rates = measure_rates(config, backbone, devices[0], sample, progressed)
    return forecast(task, rates, host_resources(place, devices[0], max_memory))


def measure_rates(
    config: MethodConfig, backbone: Backbone, device: torch.device, sample: Sample, progressed: PhotoCounts
) -> tuple[BuildSize, Rates]:
    """What is to be done, and how fast this process does it.  sample: at least one photograph."""
    task = _task(config, backbone, sample, progressed)
    features = np.concatenate([one.features for one in sample.features])
    update, look = _greedy_rates(task.projected, device)
    search = _search_rate(features, config.search.neighbors, device)
    return task, Rates(sample.seconds, update, look, search)


def _task(config: MethodConfig, backbone: Backbone, sample: Sample, progressed: PhotoCounts) -> BuildSize:
    done = progressed.taken + progressed.left_aside
    usable = progressed.taken / done if done else 1.0
    to_encode = round((progressed.listed - done) * usable)
    photos = progressed.taken + to_encode
    patches = round(photos * float(np.mean([len(one.cells) for one in sample.features])))
    dimension, sampled = sample.features[0].features.shape[1], sample_size(config.coreset, patches)
    # A count beyond the estimate is judged when the patches are counted.
    counted = config.coreset.count is not None
    wanted = config.coreset.count if counted else memory_count(config.coreset, patches)
    return BuildSize(
        photos=photos,
        to_encode=to_encode,
        patches=patches,
        sampled=sampled,
        dimension=dimension,
        projected=projected_dimension(config.coreset, sampled, dimension),
        memories=min(wanted or round(_GUESS * patches), patches),
        guessed=wanted is None,
        weights=sum(tensor.nbytes for tensor in backbone.net.state_dict().values()),
        views=2 if config.search.mirrored else 1,
    )


def _greedy_rates(dimension: int, device: torch.device) -> tuple[float, float]:
    """Seconds a point and center, and seconds a point and round."""
    generator = torch.Generator().manual_seed(0)
    points = torch.randn(BLOCK_ROWS, dimension, generator=generator).to(device)
    shard, rows = Shard(MemoryPoints(points), 0), torch.arange(_CENTERS, device=device)

    def update() -> None:
        shard.update(rows, points[:_CENTERS])
        float(shard.squared[0])  # waits for the device

    def look() -> None:
        """A round that finds one center: it reads everything all the same."""
        shard.farthest(_CENTERS)
        shard.update(rows[:1], points[:1])
        float(shard.squared[0])

    return _seconds(update) / (len(points) * _CENTERS), _seconds(look) / len(points)


def _search_rate(features: NDArray[np.float32], neighbors: int, device: torch.device) -> float:
    """Seconds a patch and memory, on features as they come, searched as the calibration searches."""
    memories, queries = features[-_MEMORIES:], features[:_QUERIES]
    neighbors = min(neighbors, len(memories))
    nowhere = np.zeros(len(memories), dtype=np.int32)
    origin = Provenance(nowhere, np.zeros((len(memories), 2), dtype=np.int16), nowhere)
    bank = LeftOutBanks(MemoryBank(memories, origin, gpu=runtime.gpu_number(device))).without([1])
    return _seconds(lambda: bank.others(queries, neighbors)) / (len(queries) * len(memories))


def _seconds(call: Callable[[], object], times: int = 2) -> float:
    """The median, after one to warm up."""
    call()
    taken = []
    for _ in range(times):
        began = time.perf_counter()
        call()
        taken.append(time.perf_counter() - began)
    return median(taken)
