"""Lower bounds of distances from vectors of small integers, and clusters of similar memories.

With P an orthonormal basis of k directions and r(v) what P leaves of v, for every q and b

    |q - b|^2 >= |P q - P b|^2 + (|r(q)| - |r(b)|)^2,

and the right side is the squared distance of (P q, |r(q)|) to (P b, |r(b)|).  These k + 1 numbers are rounded to
int8 in one common unit, so that integer arithmetic, exact and several times faster than float32, measures them;
the length of each vector's rounding error is kept and subtracted:

    |q - b| >= unit * |q' - b'| - slack(q) - slack(b).
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
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


_TURNS: Final = 3
"""Power iterations for a direction; a rough one divides as well."""


@dataclass(frozen=True, slots=True, eq=False)
class Leaves:
    """Groups of memories that are alike, and groups beside each other somewhat so.

    order: int64 (M,), place -> row.  starts: int64 (L + 1,), the places where the groups begin, and M.
    """

    order: Tensor
    starts: Tensor

    def __len__(self) -> int:
        return len(self.starts) - 1

    def slices(self) -> Iterator[slice]:
        """The places of each group."""
        return (slice(start, stop) for start, stop in pairwise(self.starts.tolist()))

    def kept(self, rows: Tensor) -> "Leaves":
        """The same for a bank of these `rows`, int64, ascending, which are numbered anew; empty groups go."""
        number = torch.full((len(self.order),), -1, dtype=torch.int64, device=rows.device)
        number[rows] = torch.arange(len(rows), device=rows.device)
        order = number[self.order]
        here = order >= 0
        before = torch.cat([here.new_zeros(1, dtype=torch.int64), here.cumsum(0)])
        return Leaves(order[here], torch.unique_consecutive(before[self.starts]))


def grow(points: Tensor, size: int) -> Leaves:
    """Leaves of at most `size` points, float32 (M, W).  Where the cuts lie costs time, never exactness."""
    parts = list(_divided(points, torch.arange(len(points), device=points.device), size))
    ends = torch.tensor([0, *map(len, parts)], device=points.device).cumsum(0)
    return Leaves(torch.cat(parts), ends)


def _divided(points: Tensor, rows: Tensor, size: int) -> Iterator[Tensor]:
    if len(rows) <= size:
        yield rows
        return
    some = points[rows]
    some -= some.mean(dim=0)
    direction = some[some.square().sum(dim=1).argmax()]
    for _ in range(_TURNS):
        direction = torch.nn.functional.normalize((some @ direction) @ some, dim=0)
    ranked = rows[(some @ direction).argsort(stable=True)]
    middle = len(rows) // 2
    yield from _divided(points, ranked[:middle], size)
    yield from _divided(points, ranked[middle:], size)


_AT_ONCE: Final = 16384
"""Memories whose shadows are cast together."""


@dataclass(frozen=True, slots=True, eq=False)
class Shaded:
    """What is kept of one bank: a light, the leaves, and the shadows in the leaves' order."""

    light: Light
    leaves: Leaves
    shadows: Shadows

    def kept(self, rows: Tensor) -> "Shaded":
        """The same for a bank of these `rows`, int64, ascending."""
        kept = torch.zeros(len(self.leaves.order), dtype=torch.bool, device=rows.device)
        kept[rows] = True
        return Shaded(self.light, self.leaves.kept(rows), self.shadows[kept[self.leaves.order]])


def shade(memories: Tensor, width: int, leaf: int) -> Shaded:
    """For memories, float32 (M, D): shadows of `width` numbers, leaves of at most `leaf` memories."""
    light = cast(memories, width)
    shadows = _shadows(light, memories)
    leaves = grow(shadows.digits[:, : light.basis.shape[1] + 1].float(), leaf)
    return Shaded(light, leaves, shadows[leaves.order])


def slices(total: int, size: int) -> Iterator[slice]:
    """`total` things, `size` at a time."""
    return (slice(start, min(start + size, total)) for start in range(0, total, size))


def _shadows(light: Light, memories: Tensor) -> Shadows:
    parts = [light.of_memories(memories[some]) for some in slices(len(memories), _AT_ONCE)]
    return Shadows(
        torch.cat([part.digits for part in parts]),
        torch.cat([part.slack for part in parts]),
        torch.cat([part.half_squares for part in parts]),
    )


Multiply = Callable[[Tensor, Tensor], Tensor]
"""int8 (n, W) and (m, W) -> their products (n, m), whole numbers below 2^24 in int32 or float32."""
_LEAST_ROWS: Final = 17
"""Rows that torch's int8 product on a GPU asks for at least; its columns come in eights."""


def multiply_int8(a: Tensor, b: Tensor) -> Tensor:
    """By the processor's int8 dot products (VNNI, tensor cores)."""
    if a.device.type == "cpu":
        return torch._int_mm(a, b.T)
    wide = torch.zeros((-(-len(b) // 8) * 8, b.shape[1]), dtype=torch.int8, device=b.device)
    wide[: len(b)] = b
    high = torch.zeros((max(len(a), _LEAST_ROWS), a.shape[1]), dtype=torch.int8, device=a.device)
    high[: len(a)] = a
    return torch._int_mm(high, wide.T)[: len(a), : len(b)]


def multiply_float32(a: Tensor, b: Tensor) -> Tensor:
    """By float32, which holds every sum exactly: W products of at most 127^2 stay below 2^24 up to W = 1040."""
    return a.float() @ b.float().T


def faster_multiply(digits: Tensor) -> Multiply:
    """The faster of two ways to the same whole numbers, on this machine.  digits: int8 (N, W), of their kind."""
    if digits.device.type != "cpu":
        return multiply_int8
    some = digits[:1024].repeat(-(-1024 // max(1, len(digits))), 1)[:1024]
    return min((multiply_int8, multiply_float32), key=lambda way: _seconds(way, some))


def _seconds(multiply: Multiply, digits: Tensor) -> float:
    best = float("inf")
    for _ in range(3):
        began = time.perf_counter()
        multiply(digits, digits)
        best = min(best, time.perf_counter() - began)
    return best
