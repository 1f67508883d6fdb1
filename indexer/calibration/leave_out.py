"""Each reference photo scored as if it were new: against the bank without its own group's memories."""

from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final, Protocol

import faiss
import numpy as np
import safetensors.numpy
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from torch import Tensor

from indexer.build.feature_store import FeatureStore
from indexer.prefetching import prefetch
from resad.calibration import Calibration, calibrate
from resad.config import MethodConfig
from resad.detector import score_map
from resad.device import full_float32
from resad.errors import IndexInvalid, SettingError
from resad.memory_bank import MemoryBank
from resad.neighbors import Neighbors, Search, direct_distances, nearer, nearest_first
from resad.search.flat import memories_on

LEFT_OUT_FILE: Final = "left_out.safetensors"


@dataclass(frozen=True, slots=True, eq=False)
class PatchDistances:
    """One photo: per patch the mean distance to its k nearest memories of others, float32 (N,), and where it lies.

    cells: int16 (N, 2), (y, x) on the grid, in reading order.  grid: (h, w).
    """

    distances: NDArray[np.float32]
    cells: NDArray[np.int16]
    grid: tuple[int, int]


def patch_distances_bytes(ids: Sequence[str], placed: Sequence[PatchDistances]) -> bytes:
    """The file of photographs with these ids."""
    grids = {}
    for photo, one in zip(ids, placed, strict=True):
        grids[photo] = np.full(one.grid, np.nan, dtype=np.float32)
        grids[photo][tuple(one.cells.T)] = one.distances
    return safetensors.numpy.save(grids)


def read_patch_distances(version: Path, ids: Sequence[str]) -> list[PatchDistances]:
    """The inverse, for a version's folder; raises `IndexInvalid` where it is missing or of other photographs."""
    path = version / LEFT_OUT_FILE
    try:
        grids = safetensors.numpy.load_file(path)
    except (OSError, SafetensorError) as error:
        raise IndexInvalid(f"{path} cannot be read: {error}") from error
    if set(grids) != set(ids):
        raise IndexInvalid(f"{path} is of other photographs than the index")
    return [_of(grids[photo]) for photo in ids]


def _of(values: NDArray[np.float32]) -> PatchDistances:
    there = ~np.isnan(values)
    return PatchDistances(values[there], np.argwhere(there).astype(np.int16), (values.shape[0], values.shape[1]))


_SPARE: Final = 8
"""Rows found beyond k, as `MemoryBank` does: the expanded form may confuse rows whose distances nearly agree."""
_VALUES: Final = 2**26
"""Of the (rows, M) product and of the (rows, k, D) differences that are held at a time: 256 MB each."""
_BLOCK: Final = 8192
"""Memories whose squares are taken at a time."""


class DevicePart:
    """As `indexer.calibration.leave_out.Part`, by matrix products on any device.

    Args:
        memories: float32 (M, D), on the device.
        values: of products and differences that are held at a time; changes memory, never a result.
    """

    @torch.inference_mode()
    def __init__(self, memories: Tensor, values: int = _VALUES) -> None:
        self._memories = memories
        self._values = values
        # Half the squared distance to the center, for |q - b|^2 / 2 = |b - c|^2 / 2 - (q - c) b + what is the same
        # for all b: less cancels than without a center, and no centered copy is held.
        self._center = memories.mean(dim=0)
        squares = [(some - self._center).square().sum(dim=1) for some in torch.split(memories, _BLOCK)]
        self._half_squares = torch.cat(squares) / 2

    @torch.inference_mode()
    @full_float32()
    def search(self, chosen: NDArray[np.bool_], features: NDArray[np.float32], k: int) -> Neighbors:
        """As `Part.search`."""
        count = int(chosen.sum())
        if k > count:
            raise IndexInvalid(f"{k} neighbors asked of {count} memories")
        device = self._memories.device
        memories, half_squares, rows = self._memories, self._half_squares, None
        if 2 * count < len(chosen):
            rows = torch.from_numpy(np.flatnonzero(chosen)).to(device)
            memories, half_squares = memories[rows], half_squares[rows]
        else:
            half_squares = half_squares.masked_fill(torch.from_numpy(~chosen).to(device), torch.inf)
        # Writable, because torch warns of an array that is mapped for reading only.
        asked = torch.from_numpy(np.require(features, dtype=np.float32, requirements=("C", "W"))).to(device)
        at_once = max(self._values // max(len(memories), (k + _SPARE) * memories.shape[1]), 1)
        distances, places = [], []
        for some in torch.split(asked, at_once):
            found = torch.addmm(half_squares, some - self._center, memories.T, alpha=-1)
            near = found.topk(min(k + _SPARE, count), dim=1, largest=False).indices
            del found
            apart = (some[:, None] - memories[near]).square_().sum(dim=2).sqrt_()
            nearest, order = apart.sort(dim=1, stable=True)
            distances.append(nearest[:, :k])
            places.append(near.gather(1, order[:, :k]))
        place = torch.cat(places)
        found_rows = place if rows is None else rows[place]
        return Neighbors(torch.cat(distances).cpu().numpy(), found_rows.cpu().numpy())


@dataclass(frozen=True, slots=True, eq=False)
class LeftOutBank:
    """What is searched for a photograph that is left out.

    others: the memories of all other photographs.  own: those of the group.  Each finds a patch's k nearest.
    count: how many memories the others have.
    """

    others: Search
    own: Search | None
    count: int


class Part(Protocol):
    """Searches a part of a bank's memories, exactly."""

    def search(self, chosen: NDArray[np.bool_], features: NDArray[np.float32], k: int) -> Neighbors:
        """As `MemoryBank.search`, among the memories `chosen`, bool (M,); the rows found are the whole bank's."""


class LeftOutBanks:
    """One bank, less the memories of any photographs; what it takes is set up once.

    Raises:
        SettingError: the memories do not fit into the GPU's memory beside what searches the whole bank.
    """

    def __init__(self, bank: MemoryBank) -> None:
        self._photos = bank.provenance.photo
        self._part: Part = CpuPart(bank.memories)
        if bank.gpu is not None:
            self._part = DevicePart(memories_on(bank.memories, torch.device("cuda", bank.gpu)))

    def without(self, photos: Iterable[int]) -> LeftOutBank:
        """The bank less the memories of `photos`, and these alone."""
        inside = np.isin(self._photos, np.fromiter(photos, dtype=np.int32))
        own = partial(self._part.search, inside) if inside.any() else None
        return LeftOutBank(partial(self._part.search, ~inside), own, int((~inside).sum()))


class CpuPart:
    """As `Part`, stretch by stretch on the CPU.

    Args:
        memories: float32 (M, D).
    """

    def __init__(self, memories: NDArray[np.float32]) -> None:
        self._memories = memories

    def search(self, chosen: NDArray[np.bool_], features: NDArray[np.float32], k: int) -> Neighbors:
        """As `Part.search`; see `MemoryBank.search` for why distances are computed again."""
        if k > (count := int(chosen.sum())):
            raise IndexInvalid(f"{k} neighbors asked of {count} memories")
        borders = np.flatnonzero(np.diff(chosen, prepend=False, append=False))
        found = [self._in_stretch(features, k, start, stop) for start, stop in borders.reshape(-1, 2).tolist()]
        distances = np.concatenate([part.distances for part in found], axis=1)
        rows = np.concatenate([part.rows for part in found], axis=1)
        return nearest_first(distances, rows, k)

    def _in_stretch(self, features: NDArray[np.float32], k: int, start: int, stop: int) -> Neighbors:
        memories = self._memories[start:stop]
        _, rows = faiss.knn(features, memories, min(k, stop - start))
        return Neighbors(direct_distances(features, memories, rows), rows + start)


@dataclass(frozen=True, slots=True)
class LeftOut:
    """Per reference photo its image score and peak; together the calibration.

    placed: per photo the distances that all of this comes from.
    covering_radius: the largest distance from any patch to its nearest memory in the whole bank, feature units.
    """

    scores: tuple[float, ...]
    peaks: tuple[float, ...]
    calibration: Calibration
    placed: tuple[PatchDistances, ...]
    covering_radius: float


def leave_out(
    store: FeatureStore,
    masks: Iterable[NDArray[np.bool_]],
    groups: Sequence[frozenset[int]],
    bank: MemoryBank,
    config: MethodConfig,
    on_photo: Callable[[int], None],
    cameras: Sequence[str | None] = (),
) -> LeftOut:
    """Score each of the store's photographs against the others.

    Args:
        masks: bool (S, S), the field of view of each photo on its prepared square.
        groups: per photo, as `bank` numbers them, the photos that are left out with it.
        cameras: with which it was taken, where known; each camera gets a calibration of its own.
    Raises:
        SettingError: too little is left of the bank without some group.
    """
    placed, radius = left_out_distances(store, groups, bank, config.search.neighbors, on_photo)
    return score_left_out(placed, radius, masks, config, cameras)


def left_out_distances(
    store: FeatureStore,
    groups: Sequence[frozenset[int]],
    bank: MemoryBank,
    neighbors: int,
    on_photo: Callable[[int], None],
) -> tuple[tuple[PatchDistances, ...], float]:
    """Per photo of the store its patches' mean distances to the others' memories; and the covering radius.

    Args:
        groups: per photo of the store, as `bank` numbers them, the photos that are left out with it.
    Raises `SettingError` as `leave_out`.
    """
    placed, radius, banks = [], 0.0, LeftOutBanks(bank)
    # The next photograph is read while a GPU searches; a CPU has no time to spare, and less memory is held.
    at_once = 1 if bank.gpu is None else 2
    with closing(prefetch(range(len(store)), store.photo, threads=1, most=at_once)) as photos:
        for patches, group in zip(photos, groups, strict=True):
            others = banks.without(group)
            check_enough_left(others.count, bank, neighbors)
            found = others.others(patches.features, neighbors)
            nearest = found
            if patches.mirrored is not None:
                nearest = nearer(found, others.others(patches.mirrored, neighbors))
            placed.append(PatchDistances(nearest.distances.mean(axis=1), patches.cells, patches.grid))
            radius = max(radius, _farthest(patches.features, found.distances[:, 0], others))
            on_photo(1)
    return tuple(placed), radius


def score_left_out(
    placed: Sequence[PatchDistances],
    covering_radius: float,
    masks: Iterable[NDArray[np.bool_]],
    config: MethodConfig,
    cameras: Sequence[str | None] = (),
) -> LeftOut:
    """Left-out distances -> scores and calibration; arguments per photo, as for `leave_out`."""
    scores, peaks = [], []
    for one, mask in zip(placed, masks, strict=True):
        scored = score_map(one.distances, one.cells, one.grid, mask, config.score)
        scores.append(scored.image_score)
        peaks.append(scored.peak)
    # Exact quantiles want every patch's distance at once: 4 bytes a patch, and as much again while they are taken.
    calibration = calibrate(scores, peaks, np.concatenate([one.distances for one in placed]), cameras=cameras)
    return LeftOut(tuple(scores), tuple(peaks), calibration, tuple(placed), covering_radius)


def check_enough_left(left: int, bank: MemoryBank, neighbors: int) -> None:
    """Raise `SettingError` where fewer memories are left than a patch has neighbors.

    Args:
        left: memories of `bank` without those of a photo and of what is left out with it.
    """
    if left < neighbors:
        raise SettingError(
            f"calibration leaves each photo out (its patient's and copies, too), and of {len(bank)} memories "
            f"{left} remain, fewer than the {neighbors} neighbors asked; give more photographs or a larger "
            "--coreset"
        )


def _farthest(features: NDArray[np.float32], nearest_other: NDArray[np.float32], others: LeftOutBank) -> float:
    """The largest distance to the nearest memory of the whole bank, others' and the group's own."""
    if others.own is None:
        return float(nearest_other.max())
    return float(np.minimum(nearest_other, others.own(features, 1).distances[:, 0]).max())
