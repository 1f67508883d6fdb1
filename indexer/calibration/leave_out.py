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
from indexer.calibration.normals import Normal, NormalUse, calibrate_normals
from indexer.prefetching import prefetch
from resad.calibration import Calibration, TrainedOn
from resad.config import MethodConfig
from resad.detector import score_map
from resad.device import full_float32
from resad.errors import IndexInvalid, SettingError
from resad.false_regions import region_heights
from resad.memory_bank import MemoryBank
from resad.neighbors import Neighbors, Search, direct_distances, nearer, nearest_first
from resad.search.flat import memories_on

LEFT_OUT_FILE: Final = "left_out.safetensors"
"""By photo id float32 (h, w) on the patch grid, NaN without a patch: scores and calibration can be made again from
these distances, for other photographs, without features."""


@dataclass(frozen=True, slots=True, eq=False)
class PatchDistances:
    """A photo's left-out distances: per patch the mean distance to its k nearest memories of other photos.

    distances: float32 (N,).  cells: int16 (N, 2), (y, x) on the grid, in reading order.  grid: (h, w).
    """

    distances: NDArray[np.float32]
    cells: NDArray[np.int16]
    grid: tuple[int, int]


def patch_distances_bytes(ids: Sequence[str], photos: Sequence[PatchDistances]) -> bytes:
    """The content of `LEFT_OUT_FILE` for photographs with these ids."""
    grids = {}
    for photo_id, photo in zip(ids, photos, strict=True):
        grids[photo_id] = np.full(photo.grid, np.nan, dtype=np.float32)
        grids[photo_id][tuple(photo.cells.T)] = photo.distances
    return safetensors.numpy.save(grids)


def read_patch_distances(version: Path, ids: Sequence[str]) -> list[PatchDistances]:
    """The distances of a version; raises `IndexInvalid` if the file is missing or of other photographs."""
    path = version / LEFT_OUT_FILE
    try:
        grids = safetensors.numpy.load_file(path)
    except (OSError, SafetensorError) as error:
        raise IndexInvalid(f"{path} cannot be read: {error}") from error
    if set(grids) != set(ids):
        raise IndexInvalid(f"{path} is of other photographs than the index")
    return [_from_grid(grids[photo_id]) for photo_id in ids]


def _from_grid(values: NDArray[np.float32]) -> PatchDistances:
    has_patch = ~np.isnan(values)
    cells = np.argwhere(has_patch).astype(np.int16)
    return PatchDistances(values[has_patch], cells, (values.shape[0], values.shape[1]))


_SPARE: Final = 8
"""Rows searched beyond k, as in `MemoryBank`: the expanded form may confuse rows whose distances nearly agree."""
_VALUES: Final = 2**26
"""Values of the (rows, M) product and of the (rows, k, D) differences at a time: 256 MB each."""
_BLOCK: Final = 8192
"""Memories whose squares are taken at a time."""


class DevicePart:
    """Searches part of a memory bank by matrix products on any device, which holds the bank once.

    Memories that are left out get an infinite distance in the product, which costs nothing beside the product and
    needs no copy of the rest.  Nothing waits for the device until the neighbors are copied back.

    Args:
        memories: float32 (M, D), on the device.
        values: of products and differences at a time; changes memory, never a result.
    """

    @torch.inference_mode()
    def __init__(self, memories: Tensor, values: int = _VALUES) -> None:
        self._memories = memories
        self._values = values
        # Half the squared distance to the center, for |q - b|^2 / 2 = |b - c|^2 / 2 - (q - c) b + what is the same
        # for all b: less cancels than without a center, and no centered copy is held.
        self._center = memories.mean(dim=0)
        squares = [(block - self._center).square().sum(dim=1) for block in torch.split(memories, _BLOCK)]
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
        queries = torch.from_numpy(np.require(features, dtype=np.float32, requirements=("C", "W"))).to(device)
        block_rows = max(self._values // max(len(memories), (k + _SPARE) * memories.shape[1]), 1)
        distances, places = [], []
        for block in torch.split(queries, block_rows):
            product = torch.addmm(half_squares, block - self._center, memories.T, alpha=-1)
            near = product.topk(min(k + _SPARE, count), dim=1, largest=False).indices
            del product
            exact = (block[:, None] - memories[near]).square_().sum(dim=2).sqrt_()
            nearest, order = exact.sort(dim=1, stable=True)
            distances.append(nearest[:, :k])
            places.append(near.gather(1, order[:, :k]))
        place = torch.cat(places)
        bank_rows = place if rows is None else rows[place]
        return Neighbors(torch.cat(distances).cpu().numpy(), bank_rows.cpu().numpy())


@dataclass(frozen=True, slots=True, eq=False)
class LeftOutBank:
    """The memory bank for a photograph that is left out with its group.

    search: finds a patch's k nearest among the memories of all other photographs.  count: of these memories.
    search_group: the same among the group's memories, if it has any.
    """

    search: Search
    search_group: Search | None
    count: int


class Part(Protocol):
    """Exact search in part of a bank's memories."""

    def search(self, chosen: NDArray[np.bool_], features: NDArray[np.float32], k: int) -> Neighbors:
        """As `MemoryBank.search`, among the memories `chosen`, bool (M,); rows are those of the whole bank."""


class LeftOutBanks:
    """A memory bank without the memories of any photographs, and without a copy of the rest.

    Memories lie photo by photo, so that leaving out a few photographs leaves a few stretches of rows, which FAISS
    searches in place on the CPU.  On a GPU, where FAISS takes no part of a bank, `DevicePart` searches.

    Args:
        part: the search; by the bank's device unless given.
    Raises:
        SettingError: the memories do not fit into the GPU's memory beside the search of the whole bank.
    """

    def __init__(self, bank: MemoryBank, part: Part | None = None) -> None:
        self._photos = bank.provenance.photo
        self._part = part or _part(bank)

    def without(self, photos: Iterable[int]) -> LeftOutBank:
        """The bank without the memories of `photos`."""
        group = np.isin(self._photos, np.fromiter(photos, dtype=np.int32))
        search_group = partial(self._part.search, group) if group.any() else None
        return LeftOutBank(partial(self._part.search, ~group), search_group, int((~group).sum()))


def _part(bank: MemoryBank) -> Part:
    if bank.gpu is None:
        return CpuPart(bank.memories)
    return DevicePart(memories_on(bank.memories, torch.device("cuda", bank.gpu)))


class CpuPart:
    """Searches part of a memory bank on the CPU, stretch by stretch.

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
        stretches = borders.reshape(-1, 2).tolist()
        parts = [self._in_stretch(features, k, start, stop) for start, stop in stretches]
        distances = np.concatenate([part.distances for part in parts], axis=1)
        rows = np.concatenate([part.rows for part in parts], axis=1)
        return nearest_first(distances, rows, k)

    def _in_stretch(self, features: NDArray[np.float32], k: int, start: int, stop: int) -> Neighbors:
        memories = self._memories[start:stop]
        _, rows = faiss.knn(features, memories, min(k, stop - start))
        return Neighbors(direct_distances(features, memories, rows), rows + start)


@dataclass(frozen=True, slots=True)
class LeftOut:
    """Image score and peak of each reference photo, and the calibration that they make.

    scores, peaks: as measured; a calibration may count them higher, or not at all (`NormalUse`).
    patch_distances: of each photo; scores, peaks and calibration come from them.
    covering_radius: the largest distance from any patch to its nearest memory in the whole bank, feature units.
    """

    scores: tuple[float, ...]
    peaks: tuple[float, ...]
    calibration: Calibration
    patch_distances: tuple[PatchDistances, ...]
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
        cameras: of each photo, if known; each camera gets a calibration of its own.
    Raises:
        SettingError: too few memories are left without some group.
    """
    distances, radius = left_out_distances(store, groups, bank, config.search.neighbors, on_photo)
    return score_left_out(distances, radius, masks, config, cameras)


def left_out_distances(
    store: FeatureStore,
    groups: Sequence[frozenset[int]],
    bank: MemoryBank,
    neighbors: int,
    on_photo: Callable[[int], None],
    *,
    part: Part | None = None,
) -> tuple[tuple[PatchDistances, ...], float]:
    """Each photo's patch distances to the memories of other photos, and the covering radius of the whole bank.

    Args:
        groups: per photo of the store, as `bank` numbers them, the photos that are left out with it.
        part: as for `LeftOutBanks`.
    Raises `SettingError` as `leave_out`.
    """
    photos, radius, banks = [], 0.0, LeftOutBanks(bank, part)
    # The next photograph is read while a GPU searches; a CPU has no time to spare, and this holds less memory.
    most = 1 if bank.gpu is None else 2
    with closing(prefetch(range(len(store)), store.photo, threads=1, most=most)) as features:
        for patches, group in zip(features, groups, strict=True):
            left_out = banks.without(group)
            check_enough_left(left_out.count, bank, neighbors)
            upright = left_out.search(patches.features, neighbors)
            nearest = upright
            if patches.mirrored is not None:
                nearest = nearer(upright, left_out.search(patches.mirrored, neighbors))
            photos.append(PatchDistances(nearest.distances.mean(axis=1), patches.cells, patches.grid))
            radius = max(radius, _farthest(patches.features, upright.distances[:, 0], left_out))
            on_photo(1)
    return tuple(photos), radius


def score_left_out(
    photos: Sequence[PatchDistances],
    covering_radius: float,
    masks: Iterable[NDArray[np.bool_]],
    config: MethodConfig,
    cameras: Sequence[str | None] = (),
    *,
    ids: Sequence[str] = (),
    use: NormalUse | None = None,
    set_aside: Sequence[str] = (),
) -> LeftOut:
    """Left-out distances -> scores and calibration; arguments per photo, as for `leave_out`.

    Args:
        ids: of the photos; running numbers unless given.
        use: which of the photos calibrate; all unless given.
        set_aside: ids of photographs that are not among them on request.
    """
    rows = range(len(photos))
    ids = ids or [str(row) for row in rows]
    cameras = cameras or [None] * len(photos)
    use = use or NormalUse(tuple(rows), (1.0,) * len(photos), TrainedOn(0, "none"))
    normals = []
    for photo, mask, photo_id, camera in zip(photos, masks, ids, cameras, strict=True):
        detection = score_map(photo.distances, photo.cells, photo.grid, mask, config.score)
        regions = region_heights(photo.distances, photo.cells, photo.grid)
        score, peak = detection.image_score, detection.peak
        normals.append(Normal(photo_id, score, peak, photo.distances, regions, camera))
    return LeftOut(
        tuple(normal.score for normal in normals),
        tuple(normal.peak for normal in normals),
        calibrate_normals(normals, use, source="left-out", set_aside=set_aside),
        tuple(photos),
        covering_radius,
    )


def check_enough_left(remaining: int, bank: MemoryBank, neighbors: int) -> None:
    """Raise `SettingError` if fewer memories are left than a patch has neighbors.

    Args:
        remaining: memories of `bank` without those of a photo and its group.
    """
    if remaining < neighbors:
        raise SettingError(
            f"calibration leaves each photo out (its patient's and copies, too), and of {len(bank)} memories "
            f"{remaining} remain, fewer than the {neighbors} neighbors asked; give more photographs or a larger "
            "--coreset"
        )


def _farthest(features: NDArray[np.float32], distances: NDArray[np.float32], bank: LeftOutBank) -> float:
    """The largest distance to the nearest memory of the whole bank.

    distances: to the nearest memory of other photographs, (N,).
    """
    if bank.search_group is None:
        return float(distances.max())
    return float(np.minimum(distances, bank.search_group(features, 1).distances[:, 0]).max())
