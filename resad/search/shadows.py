"""Vectors -> their shadows: k + 1 small integers each, whose distances bound the true ones from below.

With P an orthonormal basis of k directions and r(v) what P leaves of v, for every q and b

    |q - b|^2 >= |P q - P b|^2 + (|r(q)| - |r(b)|)^2,

and the right side is the squared distance of (P q, |r(q)|) to (P b, |r(b)|).  These k + 1 numbers are rounded to
int8 in one common unit, so that integer arithmetic, exact and several times faster than float32, measures them;
the length of each vector's rounding error is kept and subtracted:

    |q - b| >= unit * |q' - b'| - slack(q) - slack(b).
"""

from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

_EPSILON: Final = 2.0**-24
"""Largest relative error of one float32 operation."""
_MOST: Final = 127
_PER_CARRIER: Final = 40
"""Numbers of a shadow whose squares one more column holds, with room to spare."""
_SAMPLE: Final = 16384
"""Memories that the leading directions are taken from; where they lie costs time, never exactness."""


@dataclass(frozen=True, slots=True, eq=False)
class Shadows:
    """What stands for N vectors.

    digits: int8 (N, W), k + 1 coordinates, then those that carry half the squared length, then zeros.
    slack: float32 (N,), by how much a vector's distances may be smaller than its shadow's, feature units.
    half_squares: float64 (N,), half the squared length of the k + 1 integers, rounded down.
    """

    digits: Tensor
    slack: Tensor
    half_squares: Tensor

    def __getitem__(self, rows: slice | Tensor) -> "Shadows":
        return Shadows(self.digits[rows], self.slack[rows], self.half_squares[rows])


@dataclass(frozen=True, slots=True, eq=False)
class Light:
    """What casts the shadows of one memory bank.

    center: float32 (D,).  basis: float32 (D, k), orthonormal columns.  unit: feature units of one step.
    tail: mean length of what the basis leaves.  carriers: columns for half the squared length of a memory.
    """

    center: Tensor
    basis: Tensor
    unit: float
    tail: float
    carriers: int

    @property
    def offset(self) -> int:
        """What is subtracted from half the squared lengths, so that digits of both signs share the work."""
        return (self.carriers - 1) * _MOST**2

    def of_memories(self, vectors: Tensor) -> Shadows:
        """Shadows of memories, float32 (N, D).

        Their product with a query's is at least q'b' - |b'|^2 / 2 + offset.
        """
        integers, slack = self._integers(vectors)
        half = _half_squares(integers)
        left = half - self.offset
        digits = [left.remainder(_MOST)]
        left = torch.div(left, _MOST, rounding_mode="floor")
        for _ in range(self.carriers - 1):
            # What is too long for the columns counts as shorter, which lowers the bound; never as longer.
            digits.append(left.clamp(-_MOST, _MOST))
            left = left - digits[-1]
        return Shadows(_padded(integers, torch.stack(digits, dim=1)), slack, half)

    def of_queries(self, vectors: Tensor) -> Shadows:
        """Shadows of queries, float32 (N, D)."""
        integers, slack = self._integers(vectors)
        carried = torch.full((len(integers), self.carriers), -float(_MOST), device=vectors.device)
        carried[:, 0] = -1
        return Shadows(_padded(integers, carried), slack, _half_squares(integers))

    def _integers(self, vectors: Tensor) -> tuple[Tensor, Tensor]:
        """(N, k + 1) whole numbers in float32, and the slack (N,)."""
        numbers, rounding = _lit(vectors, self.center, self.basis)
        numbers[:, -1] -= self.tail
        integers = (numbers / self.unit).round_().clamp_(-_MOST, _MOST)
        lost = (numbers - self.unit * integers).norm(dim=1)
        return integers, lost * (1 + 1e-5) + rounding


def cast(memories: Tensor, width: int) -> Light:
    """A light for these memories, float32 (M, D), whose shadows are `width` numbers wide where D allows it."""
    carriers = 2 + width // _PER_CARRIER
    some = memories[:: -(-len(memories) // _SAMPLE)]
    center = some.mean(dim=0)
    basis = _leading(some - center, min(width - 1 - carriers, memories.shape[1]))
    numbers, _ = _lit(some, center, basis)
    tail = float(numbers[:, -1].mean())
    numbers[:, -1] -= tail
    # A unit that clips nothing: a few clipped memories would raise the slack of every block they lie in.
    return Light(center, basis, float(numbers.abs().max()) / _MOST or 1.0, tail, carriers)


def _leading(centered: Tensor, directions: int) -> Tensor:
    """float32 (D, k), turned within its span so that every coordinate varies alike and one unit suits them all."""
    exact = centered.double()
    _, vectors = torch.linalg.eigh(exact.T @ exact)
    generator = torch.Generator().manual_seed(0)
    turn, _ = torch.linalg.qr(torch.randn(directions, directions, generator=generator, dtype=torch.float64))
    leading: Tensor = vectors.flip(1)[:, :directions] @ turn.to(centered.device)
    return leading.float()


def _lit(vectors: Tensor, center: Tensor, basis: Tensor) -> tuple[Tensor, Tensor]:
    """(N, k + 1): the coordinates and the length of the rest; and (N,), what float32 may have changed in them."""
    centered = vectors - center
    along = centered @ basis
    rest = torch.addmm(centered, along, basis.T, alpha=-1).norm(dim=1, keepdim=True)
    d, k = basis.shape
    # Error bounds of two matrix products (Higham 2002, section 3.5), of the basis' own rounding, and a few more.
    share = _EPSILON * (k**0.5 * d + d**0.5 * k + 2 * (d * k) ** 0.5 + d + 16)
    return torch.cat([along, rest], dim=1), share * centered.norm(dim=1)


def _half_squares(integers: Tensor) -> Tensor:
    return torch.div(integers.double().square().sum(dim=1), 2, rounding_mode="floor")


def _padded(integers: Tensor, carried: Tensor) -> Tensor:
    """int8 (N, W), W a multiple of 16: what integer products run fast on."""
    width = -(-(integers.shape[1] + carried.shape[1]) // 16) * 16
    digits = torch.zeros((len(integers), width), dtype=torch.int8, device=integers.device)
    digits[:, : integers.shape[1]] = integers
    digits[:, integers.shape[1] : integers.shape[1] + carried.shape[1]] = carried
    return digits
