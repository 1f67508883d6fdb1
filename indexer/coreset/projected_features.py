"""The greedy's points, shard by shard: held in memory, or in a file that is read block by block.

Both give the same values in blocks of the same shape, so that the greedy picks the same from either.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import cycle
from mmap import mmap
from pathlib import Path
from typing import Final, Protocol

import numpy as np
import torch
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


class FilePoints:
    """Rows of a file of raw float32 values; the next block is read while the device computes with one.

    Args:
        first, count: the rows of this shard.
        mean: (d,) on the device; it is subtracted from every row.
        block: rows in a block; `BLOCK_ROWS` unless given.
    """

    dtype = torch.float32

    def __init__(self, path: Path, first: int, count: int, mean: Tensor, block: int | None = None) -> None:
        self.device = mean.device
        self._block = block or BLOCK_ROWS
        self._path, self._first, self._count, self._mean = path, first, count, mean
        self._row_bytes = mean.numel() * mean.element_size()

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
        shape = (self._first + self._count, self._mean.numel())
        rows = np.memmap(self._path, dtype=np.float32, mode="r", shape=shape)
        values = torch.from_numpy(rows[self._first + local.cpu().numpy()])
        return values.to(self.device) - self._mean

    def _in_two_buffers(self, slices: Sequence[slice]) -> Iterator[Tensor]:
        """Blocks in two buffers, used in turn: memory that a thread allocates and frees stays with that thread."""
        most = min(self._block, self._count)
        buffers = [_own_pages(most, self._mean.numel()) for _ in range(_READ_AHEAD)]
        turns = zip(slices, cycle(buffers), strict=False)
        for block in prefetch(turns, lambda turn: self._read(*turn), threads=1, most=_READ_AHEAD):
            yield block.sub_(self._mean)

    def _pinned(self, rows: slice) -> Tensor:
        # Pinned, so that the copy to a GPU runs beside the computing; torch reuses it only after the copy.
        return torch.empty(rows.stop - rows.start, self._mean.numel(), pin_memory=True)

    def _read(self, rows: slice, buffer: Tensor) -> Tensor:
        """The rows, at the beginning of `buffer`."""
        block = buffer[: min(rows.stop, self._count) - rows.start]
        with self._path.open("rb", buffering=0) as file:
            file.seek((self._first + rows.start) * self._row_bytes)
            if file.readinto(block.numpy().data.cast("B")) != block.nbytes:
                raise OSError(f"{self._path} was cut short while it was in use")
        return block


def _own_pages(rows: int, columns: int) -> Tensor:
    """float32 (rows, columns), zeros, in pages that go back to the system with it.

    On the heap small arrays settle in the space of a buffer that was freed, and the next buffer takes new memory:
    1,000 photographs once left 2.7 GB of such holes.
    """
    pages = mmap(-1, max(rows * columns * torch.float32.itemsize, 1))
    return torch.frombuffer(pages, dtype=torch.float32, count=rows * columns).view(rows, columns)


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
) -> list[FilePoints]:
    """The same shards in a file."""
    mean = _Mean(dimension, devices[0])
    with path.open("wb") as file:
        for _, chunk in mean.over(chunks):
            chunk.cpu().numpy().tofile(file)
    return [
        FilePoints(path, start, min(rows, total - start), mean.value.to(devices[number % len(devices)]), block)
        for number, start in enumerate(range(0, total, rows))
    ]


class _Mean:
    """The mean of a stream of rows, summed in float64; the same in memory and in a file."""

    def __init__(self, dimension: int, device: torch.device) -> None:
        self._sum = torch.zeros(dimension, dtype=torch.float64, device=device)
        self._count = 0

    def over(self, chunks: Iterable[Tensor]) -> Iterator[tuple[int, Tensor]]:
        """Each chunk with its first row."""
        for chunk in chunks:
            yield self._count, chunk
            self._sum += chunk.sum(dim=0, dtype=torch.float64)
            self._count += len(chunk)

    @property
    def value(self) -> Tensor:
        """float32 (d,)."""
        return (self._sum / self._count).float()
