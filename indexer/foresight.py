"""The first few photographs -> a forecast of the whole build: measures what the arithmetic of `forecast` needs."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from indexer.footprint import Task
from indexer.forecast import Forecast, Rates, forecast
from indexer.left_out_bank import LeftOutBanks
from indexer.points import BLOCK_ROWS, HeldPoints
from indexer.room import room
from indexer.selection import memory_count, projected_dimension, sample_size
from indexer.shards import Shard
from resad import runtime
from resad.backbone import Backbone
from resad.config import CoresetConfig, MethodConfig
from resad.encoder import PatchFeatures
from resad.errors import SettingError
from resad.memory_bank import MemoryBank
from resad.provenance import Provenance

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
class Progressed:
    """listed: all photographs.  taken: those whose features are stored.  left_aside: those that were not taken."""

    listed: int
    taken: int
    left_aside: int


def first_few(extraction: Iterator[Sequence[PatchFeatures]], encoders: int) -> Sample:
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


def foresee(
    config: MethodConfig,
    backbone: Backbone,
    devices: Sequence[torch.device],
    place: Path,
    max_memory: int | None,
    sample: Sample,
    progressed: Progressed,
) -> Forecast:
    """What the whole build takes, from its first photographs.

    Args:
        place: a folder on the disk that is written to.
        max_memory: bytes, where it was said.
        sample: at least one photograph.
    """
    task, rates = measured(config, backbone, devices[0], sample, progressed)
    return forecast(task, rates, room(place, devices[0], max_memory))


def measured(
    config: MethodConfig, backbone: Backbone, device: torch.device, sample: Sample, progressed: Progressed
) -> tuple[Task, Rates]:
    """What is to be done, and how fast this process does it.  sample: at least one photograph."""
    task = _task(config, backbone, sample, progressed)
    features = np.concatenate([one.features for one in sample.features])
    update, look = _greedy_rates(task.projected, device)
    search = _search_rate(features, config.search.neighbors, device)
    return task, Rates(sample.seconds, update, look, search)


def _task(config: MethodConfig, backbone: Backbone, sample: Sample, progressed: Progressed) -> Task:
    done = progressed.taken + progressed.left_aside
    usable = progressed.taken / done if done else 1.0
    to_encode = round((progressed.listed - done) * usable)
    photos = progressed.taken + to_encode
    patches = round(photos * float(np.mean([len(one.cells) for one in sample.features])))
    dimension, sampled = sample.features[0].features.shape[1], sample_size(config.coreset, patches)
    # A count beyond the estimate is judged when the patches are counted.
    counted = config.coreset.count is not None
    wanted = config.coreset.count if counted else memory_count(config.coreset, patches)
    return Task(
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
    shard, rows = Shard(HeldPoints(points), 0), torch.arange(_CENTERS, device=device)

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
