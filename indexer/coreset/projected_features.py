"""The greedy's points, shard by shard: held in memory, or read block by block from the stored features or a file.

All give the same values in blocks of the same shape, so that the greedy picks the same from each.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Final, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from indexer.prefetching import prefetch

BLOCK_ROWS: Final = 8192
"""Rows in one matrix product."""
_READ_AHEAD: Final = 2
"""Blocks of a file that are read ahead."""


class Points(Protocol):
    """The points (n, d) of one shard of the greedy."""

    @property
    def device(self) -> torch.device:
        """The device that computes with them."""

    @property
    def dtype(self) -> torch.dtype:
        """Type of their values."""

    def __len__(self) -> int: ...

    def blocks(self) -> Iterator[tuple[slice, Tensor]]:
        """All points in order, `BLOCK_ROWS` (or the block size of the constructor) at a time.

        A block is valid until the next one is requested.
        """

    def take(self, local: Tensor) -> Tensor:
        """Points (t, d) at rows `local` of the shard, int64 (t,)."""


class MemoryPoints:
    """Points in the memory of a device.  block: rows in a block; `BLOCK_ROWS` unless given."""

    def __init__(self, values: Tensor, block: int | None = None) -> None:
        self._values = values
        self._block = block or BLOCK_ROWS
        self.device, self.dtype = values.device, values.dtype

    def __len__(self) -> int:
        return len(self._values)

    def blocks(self) -> Iterator[tuple[slice, Tensor]]:
        """As `Points.blocks`."""
        for start in range(0, len(self), self._block):
            block = slice(start, start + self._block)
            yield block, self._values[block]

    def take(self, local: Tensor) -> Tensor:
        """As `Points.take`."""
        return self._values[local]


class DiskRows(Protocol):
    """Rows of float32 values on a disk."""

    def read(self, first: int, rows: Tensor) -> None:
        """Fill `rows` (n, d), on the CPU, with those from row `first` on; `OSError` if the file is too short."""

    def gather(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """The rows (n, d), in the given order."""


@dataclass(frozen=True, slots=True)
class FileRows:
    """A file of raw float32 values, `columns` a row."""

    path: Path
    columns: int

    def read(self, first: int, rows: Tensor) -> None:
        """As `DiskRows.read`."""
        with self.path.open("rb", buffering=0) as file:
            file.seek(first * self.columns * rows.element_size())
            if file.readinto(rows.numpy().data.cast("B")) != rows.nbytes:
                raise OSError(f"{self.path} was cut short while it was in use")

    def gather(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """As `DiskRows.gather`."""
        mapped = np.memmap(self.path, dtype=np.float32, mode="r").reshape(-1, self.columns)
        return np.asarray(mapped[rows])


class DiskPoints:
    """Points whose next block is read while the device computes with one.

    Args:
        rows: all points, not centered.
        first, count: the rows of this shard.
        mean: (d,) on the device; it is subtracted from every row.
        block: rows in a block; `BLOCK_ROWS` unless given.
        buffers: what blocks are read into on a CPU, from `read_buffers`; shards share them whose blocks are never
            read at the same time.
    """

    dtype = torch.float32

    def __init__(
        self,
        rows: DiskRows,
        first: int,
        count: int,
        mean: Tensor,
        block: int | None = None,
        buffers: Sequence[Tensor] = (),
    ) -> None:
        self.device = mean.device
        self._block = block or BLOCK_ROWS
        self._rows, self._first, self._count, self._mean = rows, first, count, mean
        self._buffers = buffers or read_buffers(mean, block)

    def __len__(self) -> int:
        return self._count

    def blocks(self) -> Iterator[tuple[slice, Tensor]]:
        """As `Points.blocks`."""
        slices = [slice(start, start + self._block) for start in range(0, self._count, self._block)]
        if self.device.type == "cpu":
            yield from zip(slices, self._in_two_buffers(slices), strict=True)
            return
        read = prefetch(slices, lambda block: self._read(block, self._pinned(block)), threads=1, most=_READ_AHEAD)
        blocks = (block.to(self.device, non_blocking=True) - self._mean for block in read)
        yield from zip(slices, blocks, strict=True)

    def take(self, local: Tensor) -> Tensor:
        """As `Points.take`."""
        values = torch.from_numpy(self._rows.gather(self._first + local.cpu().numpy()))
        return values.to(self.device) - self._mean

    def _in_two_buffers(self, slices: Sequence[slice]) -> Iterator[Tensor]:
        turns = zip(slices, cycle(self._buffers), strict=False)
        for block in prefetch(turns, lambda turn: self._read(*turn), threads=1, most=_READ_AHEAD):
            yield block.sub_(self._mean)

    def _pinned(self, rows: slice) -> Tensor:
        # Pinned, so that the copy to a GPU runs beside the computing; torch reuses it only after the copy.
        return torch.empty(rows.stop - rows.start, self._mean.numel(), pin_memory=True)

    def _read(self, rows: slice, buffer: Tensor) -> Tensor:
        """The rows, at the beginning of `buffer`."""
        block = buffer[: min(rows.stop, self._count) - rows.start]
        self._rows.read(self._first + rows.start, block)
        return block


def read_buffers(mean: Tensor, block: int | None = None) -> tuple[Tensor, ...]:
    """What the blocks of `DiskPoints` are read into in turn on a CPU: float32 (block, d) each; none for a GPU.

    Buffers that each shard made anew left holes in the heap, 2.7 GB of them in a build of 1,000 photographs.
    """
    count = _READ_AHEAD if mean.device.type == "cpu" else 0
    return tuple(torch.empty(block or BLOCK_ROWS, mean.numel()) for _ in range(count))


def points_in_memory(
    chunks: Iterable[Tensor],
    total: int,
    dimension: int,
    devices: Sequence[torch.device],
    rows: int,
    *,
    block: int | None = None,
) -> list[MemoryPoints]:
    """All points in memory, centered, as shards of `rows` rows that go to the devices in turn.

    Args:
        chunks: float32 (n, dimension), in order; `total` rows together.
        block: rows in a block; `BLOCK_ROWS` unless given.
    """
    shards = [
        torch.empty((min(rows, total - start), dimension), device=devices[number % len(devices)])
        for number, start in enumerate(range(0, total, rows))
    ]
    mean = _Mean(dimension, devices[0])
    for first, chunk in mean.over(chunks):
        for number in range(first // rows, (first + len(chunk) - 1) // rows + 1):
            low, high = max(first, number * rows), min(first + len(chunk), (number + 1) * rows)
            shards[number][low - number * rows : high - number * rows] = chunk[low - first : high - first]
    for shard in shards:
        shard -= mean.value.to(shard.device)
    return [MemoryPoints(shard, block) for shard in shards]


def points_in_file(
    chunks: Iterable[Tensor],
    total: int,
    dimension: int,
    devices: Sequence[torch.device],
    rows: int,
    path: Path,
    *,
    block: int | None = None,
) -> list[DiskPoints]:
    """The same shards in a file."""
    mean = _Mean(dimension, devices[0])
    with path.open("wb") as file:
        for _, chunk in mean.over(chunks):
            chunk.cpu().numpy().tofile(file)
    return _on_disk(FileRows(path, dimension), total, mean.value, devices, rows, block)


def points_in_store(
    store: DiskRows,
    chunks: Iterable[Tensor],
    devices: Sequence[torch.device],
    rows: int,
    *,
    block: int | None = None,
) -> list[DiskPoints]:
    """The same shards in the store of the features, where these are the points.

    Args:
        chunks: float32 (n, dimension), all rows of the store, for their mean.
    """
    mean: _Mean | None = None
    for chunk in chunks:
        mean = mean or _Mean(chunk.shape[1], devices[0])
        mean.add(chunk)
    if mean is None:
        return []
    return _on_disk(store, mean.count, mean.value, devices, rows, block)


def _on_disk(
    source: DiskRows, total: int, mean: Tensor, devices: Sequence[torch.device], rows: int, block: int | None
) -> list[DiskPoints]:
    buffers = read_buffers(mean, block)
    return [
        DiskPoints(
            source, start, min(rows, total - start), mean.to(devices[number % len(devices)]), block, buffers
        )
        for number, start in enumerate(range(0, total, rows))
    ]


class _Mean:
    """The mean of a stream of rows, summed in float64; the same in memory and in a file."""

    def __init__(self, dimension: int, device: torch.device) -> None:
        self._sum = torch.zeros(dimension, dtype=torch.float64, device=device)
        self.count = 0

    def over(self, chunks: Iterable[Tensor]) -> Iterator[tuple[int, Tensor]]:
        """Each chunk with its first row."""
        for chunk in chunks:
            yield self.count, chunk
            self.add(chunk)

    def add(self, chunk: Tensor) -> None:
        """Count the rows (n, dimension)."""
        self._sum += chunk.sum(dim=0, dtype=torch.float64)
        self.count += len(chunk)

    @property
    def value(self) -> Tensor:
        """float32 (d,)."""
        return (self._sum / self.count).float()
