"""Time, memory and disk that a build will take."""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from math import ceil, log10
from pathlib import Path
from shutil import disk_usage
from statistics import median
from tempfile import TemporaryFile
from typing import Final, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from resad_client.text import counted

from indexer.calibration.leave_out import LeftOutBanks
from indexer.coreset.k_center import Shard
from indexer.coreset.projected_features import BLOCK_ROWS, MemoryPoints
from indexer.coreset.selection import memory_count, projected_dimension, sample_size
from resad import runtime
from resad.backbone import Backbone
from resad.config import CoresetConfig, MethodConfig
from resad.detector import score_map
from resad.encoder import PatchFeatures
from resad.errors import SettingError
from resad.false_regions import region_heights
from resad.memory_bank import MemoryBank, Provenance
from resad.runtime import available_bytes

_PROC: Final = Path("/proc")


@dataclass(frozen=True, slots=True)
class HostResources:
    """Resources of this host, in bytes.

    resident, peak, memory: memory that the process holds, has held at most, and may hold.  limit_name: the reason
    for that limit, for messages.  disk: free.  gpu_peak, gpu: the same for a GPU's memory; 0 without a GPU.
    """

    resident: int
    peak: int
    memory: int
    limit_name: str
    disk: int
    gpu_peak: int = 0
    gpu: int = 0


def host_resources(place: Path, device: torch.device, max_memory: int | None) -> HostResources:
    """Measure the resources now.

    Args:
        place: a folder on the disk that is written to.
        device: the device that computes.
        max_memory: bytes that this process may hold, if limited.
    """
    resident = resident_bytes()
    available = resident + available_bytes()
    limited = max_memory is not None and max_memory < available
    gpu_peak, gpu = 0, 0
    if device.type == "cuda":
        gpu_peak = torch.cuda.max_memory_allocated(device)
        gpu = torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device)
    return HostResources(
        resident=resident,
        peak=runtime.peak_memory_bytes(),
        memory=max_memory if limited and max_memory is not None else available,
        limit_name="--max-memory" if limited else "what this machine has available",
        disk=disk_usage(place).free,
        gpu_peak=gpu_peak,
        gpu=gpu,
    )


def resident_bytes(proc: Path = _PROC) -> int:
    """Memory that this process holds."""
    return int((proc / "self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


_VALUE: Final = 4
"""Bytes of a float32."""
_SLACK: Final = 320 * 10**6
"""Bytes that do not grow: blocks of products, the candidates' distances, buffers of FAISS and the maps."""
_PER_PATCH: Final = 32
"""Bytes per patch, at most: its cell, read twice while memories are gathered (8); the greedy's distances and norms
(8), its search for the farthest (6), the checkpoint (4); later all patch distances, twice."""
_ON_GPU: Final = 4
"""Copies of the memories on a GPU at a time: the bank, the bank without a photograph for the trial of searches,
and those of two searches during that trial."""
_GPU_SCRATCH: Final = 2 * 10**9
"""Bytes on a GPU besides points, memories and encoding: FAISS's own and blocks of products."""


@dataclass(frozen=True, slots=True)
class BuildSize:
    """Size of a build.

    photos: all photographs.  to_encode: photographs without features so far.  patches: of all photographs.
    sampled: patches that the greedy picks from.  dimension: of the features, D.  projected: of the greedy's
    points, d.  memories: M.  guessed: M is a guess because a radius decides.  weights: bytes of the trunk.
    views: searches per photograph, 2 with its mirror image.  points_file: points on disk are a file of their own;
    else they are the stored features.
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
    points_file: bool = True


def points_bytes(task: BuildSize) -> int:
    """Bytes of the greedy's points."""
    return task.sampled * task.projected * _VALUE


def bank_bytes(task: BuildSize) -> int:
    """Bytes of the memory bank's vectors."""
    return task.memories * task.dimension * _VALUE


def disk_bytes(task: BuildSize, points: int) -> int:
    """Bytes written to the disk of the index, `points` of them by the greedy."""
    patch = (task.views * task.dimension + 1) * _VALUE
    features = task.to_encode * ceil(task.patches / max(task.photos, 1)) * patch
    bank = task.memories * (task.dimension + 4) * _VALUE
    return features + points + bank + task.sampled * _VALUE + task.weights


def memory_bytes(task: BuildSize, room: HostResources, points: int) -> int:
    """Most bytes of memory that this process holds, `points` of them for the greedy.

    An upper bound: at most 32 bytes per patch, the greedy's points unless they lie on disk, and two copies of the
    memories while they move into FAISS.
    """
    bank = bank_bytes(task)
    growth = task.patches * _PER_PATCH + _SLACK
    return max(room.peak, room.resident + growth + max(points + bank, 2 * bank))


def gpu_bytes(task: BuildSize, room: HostResources, points: int) -> int:
    """Most bytes of GPU memory, `points` of them for the greedy; 0 without a GPU."""
    if not room.gpu:
        return 0
    return room.gpu_peak + points + task.sampled * _PER_PATCH + _ON_GPU * bank_bytes(task) + _GPU_SCRATCH


_ROUNDS: Final = 18.0
_PICKS_A_ROUND: Final = 500.0
"""Rounds of the greedy at the start that accept few picks, and picks of a later round; seen on ReSC features."""
_LONG: Final = 600.0
"""Seconds of greedy and calibration from which a smaller coreset is proposed."""
_MIN_COUNT: Final = 2_000


@dataclass(frozen=True, slots=True)
class Rates:
    """Seconds on this machine.

    photo: to encode a photograph.  update: to compare a point of the greedy with a center.  scan: to read a point
    once in a round.  search: to compare a patch with a memory.  score: to make a photograph's map, score and
    regions.  write, read: a byte of the greedy's points on disk; 0 where they are in memory.
    """

    photo: float
    update: float
    scan: float
    search: float
    score: float = 0.0
    write: float = 0.0
    read: float = 0.0


class AnyForecast(Protocol):
    """Forecast of a build, on one machine or over a cluster."""

    def lines(self) -> list[str]:
        """The forecast in words, a line each."""


@dataclass(frozen=True, slots=True)
class Forecast:
    """Forecast of a build: seconds per step, and most bytes.

    points_on_disk: memory is too small for the greedy's points, which are read from a disk in every round.
    count: a coreset count with which greedy and calibration take about as long as the encoding, if the requested
    one takes far longer.
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
        """Raise `SettingError` with the numbers and the remedy if the host has too little."""
        needs = (
            ("memory", self.memory, self.room.memory, self.room.limit_name),
            ("disk", self.disk, self.room.disk, "free where the index goes"),
            ("GPU memory", self.gpu, self.room.gpu, "on the device"),
        )
        for name, need, available, limit in needs:
            if need > available:
                raise SettingError(
                    f"the build would take {format_bytes(need)} of {name}, and there are "
                    f"{format_bytes(available)} ({limit}): {_remedy(self.task, self.room, name)}"
                )

    def lines(self) -> list[str]:
        """The forecast in words, a line each."""
        task, on_disk = self.task, ", the greedy's points on disk" if self.points_on_disk else ""
        guessed = " (a guess: the radius decides)" if task.guessed else ""
        gpu = f", GPU memory {format_bytes(self.gpu)} of {format_bytes(self.room.gpu)}" if self.room.gpu else ""
        lines = [
            f"forecast: {counted(task.photos, 'photograph')}, about {task.patches:,} patches, "
            f"{task.memories:,} memories of {task.dimension} dimensions{guessed}",
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
    """The forecast for a build of this size; the greedy's points go to disk if they do not fit into memory."""
    points = points_bytes(task)
    gpu, gpu_without_points = gpu_bytes(task, room, points), gpu_bytes(task, room, 0)
    points_on_disk = lie_on_disk(task, room)
    calibrate = task.views * task.patches * task.memories * rates.search + task.photos * rates.score
    coreset = _greedy(task, rates)
    file_bytes = points if points_on_disk and task.points_file else 0
    if points_on_disk:
        coreset += file_bytes * rates.write + points * (1 + _rounds(task)) * rates.read
    encode = task.to_encode * rates.photo
    return Forecast(
        task=task,
        room=room,
        encode=encode,
        coreset=coreset,
        calibrate=calibrate,
        disk=disk_bytes(task, file_bytes),
        memory=memory_bytes(task, room, 0 if points_on_disk or room.gpu else points),
        gpu=gpu_without_points if points_on_disk else gpu,
        points_on_disk=points_on_disk,
        count=_count(task, rates, coreset + calibrate),
    )


def lie_on_disk(task: BuildSize, room: HostResources) -> bool:
    """Whether the greedy's points do not fit into memory."""
    points = points_bytes(task)
    gpu = gpu_bytes(task, room, points)
    return memory_bytes(task, room, 0 if room.gpu else points) > room.memory or gpu > room.gpu


def format_bytes(count: int) -> str:
    """`6.0 GB`, in powers of ten."""
    return f"{count / 1e9:.1f} GB"


def format_seconds(seconds: float) -> str:
    """`12 s`, `34 min`, `5.6 h`."""
    if seconds < 120:
        return f"{ceil(seconds)} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _greedy(task: BuildSize, rates: Rates) -> float:
    """Seconds of the greedy in memory; the projection costs as much as D more centers."""
    projecting = task.dimension if task.projected < task.dimension else 0
    return task.sampled * ((task.memories + projecting) * rates.update + _rounds(task) * rates.scan)


def _rounds(task: BuildSize) -> float:
    return min(_ROUNDS + task.memories / _PICKS_A_ROUND, task.memories)


def _count(task: BuildSize, rates: Rates, seconds: float) -> int | None:
    """Memories for which greedy and calibration take as long as encoding all photographs, two digits."""
    encoding = max(task.photos * rates.photo, _LONG / 4)
    if seconds < max(_LONG, 3 * encoding):
        return None
    exact = max(task.memories * encoding / seconds, _MIN_COUNT)
    unit = 10 ** max(int(log10(exact)) - 1, 0)
    count = int(exact // unit * unit)
    return count if count < task.memories else None


def _remedy(task: BuildSize, room: HostResources, name: str) -> str:
    bank = f"{task.memories:,} memories of {task.dimension} dimensions are {format_bytes(bank_bytes(task))}"
    if name == "disk":
        return f"fewer photographs, a smaller --size, or another --root; {bank}"
    without_bank = memory_bytes(replace(task, memories=0), room, 0)
    if name == "memory" and without_bank > room.memory:
        program = format_bytes(max(room.peak, room.resident))
        return (
            f"{format_bytes(without_bank)} with an empty memory bank, {program} for the program and its network "
            f"alone, so that no coreset is small enough; give more memory, a smaller --size, or a trunk with "
            "fewer channels (--backbone)"
        )
    return f"a smaller --coreset ({bank}), a smaller --size, or a trunk with fewer channels (--backbone)"


_CENTERS: Final = 256
"""Centers of the trial product, about as many as a round accepts."""
_MEMORIES: Final = 8192
_QUERIES: Final = 1024
"""Memories and patches of the trial search."""
_TRIAL_BYTES: Final = 2**25
"""Of the file that is written and read to learn how fast the disk is."""
_GUESS: Final = 0.1
"""Memories as a share of the patches, if a radius decides their number."""


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """The first encoded photographs: seconds per photograph (0 with too few to tell) and their features."""

    seconds: float
    features: tuple[PatchFeatures, ...]


@dataclass(frozen=True, slots=True)
class PhotoCounts:
    """Photographs of a build so far.

    listed: all photographs.  stored: those whose features are stored.  unused: skipped ones and duplicates.
    """

    listed: int
    stored: int
    unused: int


def encode_sample(extraction: Iterator[Sequence[PatchFeatures]], encoders: int) -> Sample:
    """Run the first batches of `extraction`: one to warm up and two more for every encoder."""
    ends: list[float] = []
    sizes: list[int] = []
    features: list[PatchFeatures] = []
    for batch in extraction:
        ends.append(time.perf_counter())
        sizes.append(len(batch))
        features += batch
        if len(ends) == 3 * encoders:
            break
    photos = sum(sizes[encoders:])
    return Sample((ends[-1] - ends[encoders - 1]) / photos if photos else 0.0, tuple(features))


def check_count(config: CoresetConfig, listed: int, grid: tuple[int, int]) -> None:
    """Raise `SettingError` for a coreset count above the number of patches that these photographs can have.

    Args:
        grid: patch grid of the photographs; none has more patches than the grid has cells.
    """
    most = listed * grid[0] * grid[1]
    if config.count is not None and config.count > most:
        raise SettingError(
            f"a coreset of {config.count} memories asked of {counted(listed, 'photograph')}, which have at most "
            f"{most} patches; 1.0 keeps them all"
        )


def forecast_build(
    config: MethodConfig,
    backbone: Backbone,
    devices: Sequence[torch.device],
    place: Path,
    max_memory: int | None,
    sample: Sample,
    counts: PhotoCounts,
) -> Forecast:
    """Forecast the whole build from its first photographs.

    Args:
        place: a folder on the disk that is written to.
        max_memory: bytes, if limited.
        sample: at least one photograph.
    """
    task, rates = measure_rates(config, backbone, devices[0], sample, counts)
    room = host_resources(place, devices[0], max_memory)
    return forecast(task, with_file_rates(rates, task, room, place), room)


def measure_rates(
    config: MethodConfig, backbone: Backbone, device: torch.device, sample: Sample, counts: PhotoCounts
) -> tuple[BuildSize, Rates]:
    """The size of the build, and this process's rates.  sample: at least one photograph."""
    task = _build_size(config, backbone, sample, counts)
    features = np.concatenate([patches.features for patches in sample.features])
    update, scan = _greedy_rates(task.projected, device)
    search = _search_rate(features, config.search.neighbors, device)
    return task, Rates(sample.seconds, update, scan, search, _score_seconds(sample.features[0], config))


def with_file_rates(rates: Rates, task: BuildSize, room: HostResources, place: Path) -> Rates:
    """The rates with those of the disk of `place`, a folder, if the greedy's points will lie there."""
    if not lie_on_disk(task, room):
        return rates
    write, read = _file_rates(place)
    return replace(rates, write=write, read=read)


def _build_size(config: MethodConfig, backbone: Backbone, sample: Sample, counts: PhotoCounts) -> BuildSize:
    done = counts.stored + counts.unused
    usable = counts.stored / done if done else 1.0
    to_encode = round((counts.listed - done) * usable)
    photos = counts.stored + to_encode
    patches = round(photos * float(np.mean([len(photo.cells) for photo in sample.features])))
    dimension, sampled = sample.features[0].features.shape[1], sample_size(config.coreset, patches)
    # A count above the estimate is checked when the patches are counted.
    has_count = config.coreset.count is not None
    memories = config.coreset.count if has_count else memory_count(config.coreset, patches)
    projected = projected_dimension(config.coreset, sampled, dimension)
    return BuildSize(
        photos=photos,
        to_encode=to_encode,
        patches=patches,
        sampled=sampled,
        dimension=dimension,
        projected=projected,
        memories=min(memories or round(_GUESS * patches), patches),
        guessed=memories is None,
        weights=sum(tensor.nbytes for tensor in backbone.net.state_dict().values()),
        views=2 if config.search.mirrored else 1,
        points_file=projected < dimension or sampled < patches,
    )


def _greedy_rates(dimension: int, device: torch.device) -> tuple[float, float]:
    """Seconds a point and center, and seconds a point and round."""
    generator = torch.Generator().manual_seed(0)
    points = torch.randn(BLOCK_ROWS, dimension, generator=generator).to(device)
    shard, rows = Shard(MemoryPoints(points), 0), torch.arange(_CENTERS, device=device)

    def update() -> None:
        shard.update(rows, points[:_CENTERS])
        float(shard.squared[0])  # waits for the device

    def scan() -> None:
        """A round that finds one center: it reads all points all the same."""
        shard.farthest(_CENTERS)
        shard.update(rows[:1], points[:1])
        float(shard.squared[0])

    return _seconds(update) / (len(points) * _CENTERS), _seconds(scan) / len(points)


def _search_rate(features: NDArray[np.float32], neighbors: int, device: torch.device) -> float:
    """Seconds a patch and memory, on features as they come, searched as the calibration searches."""
    memories, queries = features[-_MEMORIES:], features[:_QUERIES]
    neighbors = min(neighbors, len(memories))
    nowhere = np.zeros(len(memories), dtype=np.int32)
    origin = Provenance(nowhere, np.zeros((len(memories), 2), dtype=np.int16), nowhere)
    bank = LeftOutBanks(MemoryBank(memories, origin, gpu=runtime.gpu_number(device))).without([1])
    return _seconds(lambda: bank.search(queries, neighbors)) / (len(queries) * len(memories))


def _score_seconds(patches: PatchFeatures, config: MethodConfig) -> float:
    """Seconds to make a map, its score and its regions."""
    distances = np.random.default_rng(0).random(len(patches.cells), dtype=np.float32)
    everywhere = np.ones((config.preparation.size,) * 2, np.bool_)

    def score() -> None:
        score_map(distances, patches.cells, patches.grid, everywhere, config.score)
        region_heights(distances, patches.cells, patches.grid)

    return _seconds(score)


def _file_rates(place: Path) -> tuple[float, float]:
    """Seconds to write a byte to the disk of `place`, and to read one that was written a moment ago."""
    block = bytearray(_TRIAL_BYTES)
    with TemporaryFile(dir=place, buffering=0) as file:

        def write() -> None:
            file.seek(0)
            file.write(block)
            os.fsync(file.fileno())

        def read() -> None:
            file.seek(0)
            file.readinto(block)

        return _seconds(write) / len(block), _seconds(read) / len(block)


def _seconds(call: Callable[[], object], times: int = 2) -> float:
    """Median duration, after one call to warm up."""
    call()
    durations = []
    for _ in range(times):
        start = time.perf_counter()
        call()
        durations.append(time.perf_counter() - start)
    return median(durations)
