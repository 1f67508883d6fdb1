"""A part of a memory bank searched on a device that holds the bank once, whichever part is asked.

Whatever is left out is struck out of the product: its columns become infinitely far, which costs nothing beside
the product and needs no copy of what remains.  Nothing waits for the device until the neighbors are copied back.
"""

from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from resad.errors import IndexInvalid
from resad.neighbors import Neighbors
from resad.search.full_float32 import full_float32

_SPARE: Final = 8
"""Rows found beyond k, as `MemoryBank` does: the expanded form may confuse rows whose distances nearly agree."""
_VALUES: Final = 2**26
"""Of the (rows, M) product and of the (rows, k, D) differences that are held at a time: 256 MB each."""
_BLOCK: Final = 8192
"""Memories whose squares are taken at a time."""


class DevicePart:
    """As `indexer.left_out_bank.Part`, by matrix products on any device.

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
