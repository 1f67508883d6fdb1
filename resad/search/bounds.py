"""Lower bounds of distances from quantized vectors, and clusters of similar memories.

With P an orthonormal basis of k directions and r(v) what P leaves of v, for every q and b

    |q - b|^2 >= |P q - P b|^2 + (|r(q)| - |r(b)|)^2,

and the right side is the squared distance of (P q, |r(q)|) to (P b, |r(b)|).  These k + 1 numbers are rounded to
int8 in one common unit, so that integer arithmetic, exact and several times faster than float32, measures them.
The length of each vector's rounding error is kept and subtracted:

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
_MAX_DIGIT: Final = 127
_PER_CARRIER: Final = 40
"""Numbers of a quantized vector whose squares one more column holds, with room to spare."""
_SAMPLE: Final = 16384
"""Memories that the leading directions are taken from; the choice costs time, never exactness."""
_POWER_ITERATIONS: Final = 3
"""For a direction of bisection; a rough one divides as well."""
_BLOCK: Final = 16384
"""Memories that are quantized together."""
_LEAST_ROWS: Final = 17
"""Rows that torch's int8 product on a GPU requires at least; its columns come in eights."""

Multiply = Callable[[Tensor, Tensor], Tensor]
"""int8 (n, W) and (m, W) -> their products (n, m), whole numbers below 2^24 in int32 or float32."""


@dataclass(frozen=True, slots=True, eq=False)
class QuantizedVectors:
    """The quantized form of N vectors.

    digits: int8 (N, W), k + 1 coordinates, then those that carry half the squared length, then zeros.
    slack: float32 (N,), by how much a vector's distances may be smaller than its quantized form's, feature units.
    half_squares: float64 (N,), half the squared length of the k + 1 integers, rounded down.
    """

    digits: Tensor
    slack: Tensor
    half_squares: Tensor

    def __getitem__(self, rows: slice | Tensor) -> "QuantizedVectors":
        return QuantizedVectors(self.digits[rows], self.slack[rows], self.half_squares[rows])


@dataclass(frozen=True, slots=True, eq=False)
class Quantizer:
    """Quantizes the vectors of one memory bank and its queries.

    center: float32 (D,).  basis: float32 (D, k), orthonormal columns.  unit: feature units of one step.
    tail: mean length of what the basis leaves.  carriers: columns for half the squared length of a memory.
    """

    center: Tensor
    basis: Tensor
    unit: float
    tail: float
    carriers: int

    @classmethod
    def fit(cls, memories: Tensor, width: int) -> "Quantizer":
        """A quantizer for these memories, float32 (M, D), to `width` numbers where D is large enough."""
        carriers = 2 + width // _PER_CARRIER
        sample = memories[:: -(-len(memories) // _SAMPLE)]
        center = sample.mean(dim=0)
        basis = _leading_directions(sample - center, min(width - 1 - carriers, memories.shape[1]))
        numbers, _ = _coordinates(sample, center, basis)
        tail = float(numbers[:, -1].mean())
        numbers[:, -1] -= tail
        # A unit that clips nothing: a few clipped memories would raise the slack of every block they are in.
        return cls(center, basis, float(numbers.abs().max()) / _MAX_DIGIT or 1.0, tail, carriers)

    @property
    def offset(self) -> int:
        """Subtracted from half the squared lengths, so that digits of both signs share the work."""
        return (self.carriers - 1) * _MAX_DIGIT**2

    def quantize_memories(self, vectors: Tensor) -> QuantizedVectors:
        """Quantize memories, float32 (N, D).

        Their product with a quantized query is at least q'b' - |b'|^2 / 2 + offset.
        """
        integers, slack = self._integers(vectors)
        half = _half_squares(integers)
        rest = half - self.offset
        digits = [rest.remainder(_MAX_DIGIT)]
        rest = torch.div(rest, _MAX_DIGIT, rounding_mode="floor")
        for _ in range(self.carriers - 1):
            # A length that does not fit counts as shorter, which lowers the bound; never as longer.
            digits.append(rest.clamp(-_MAX_DIGIT, _MAX_DIGIT))
            rest = rest - digits[-1]
        return QuantizedVectors(_padded(integers, torch.stack(digits, dim=1)), slack, half)

    def quantize_queries(self, vectors: Tensor) -> QuantizedVectors:
        """Quantize queries, float32 (N, D)."""
        integers, slack = self._integers(vectors)
        carried = torch.full((len(integers), self.carriers), -float(_MAX_DIGIT), device=vectors.device)
        carried[:, 0] = -1
        return QuantizedVectors(_padded(integers, carried), slack, _half_squares(integers))

    def _integers(self, vectors: Tensor) -> tuple[Tensor, Tensor]:
        """(N, k + 1) whole numbers in float32, and the slack (N,)."""
        numbers, rounding = _coordinates(vectors, self.center, self.basis)
        numbers[:, -1] -= self.tail
        integers = (numbers / self.unit).round_().clamp_(-_MAX_DIGIT, _MAX_DIGIT)
        lost = (numbers - self.unit * integers).norm(dim=1)
        return integers, lost * (1 + 1e-5) + rounding


def _leading_directions(centered: Tensor, directions: int) -> Tensor:
    """float32 (D, k), rotated within its span so that all coordinates vary alike and one unit suits them."""
    exact = centered.double()
    _, vectors = torch.linalg.eigh(exact.T @ exact)
    generator = torch.Generator().manual_seed(0)
    rotation, _ = torch.linalg.qr(torch.randn(directions, directions, generator=generator, dtype=torch.float64))
    leading: Tensor = vectors.flip(1)[:, :directions] @ rotation.to(centered.device)
    return leading.float()


def _coordinates(vectors: Tensor, center: Tensor, basis: Tensor) -> tuple[Tensor, Tensor]:
    """(N, k + 1): coordinates along the basis and the length of the rest; and (N,), their rounding error."""
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
    """int8 (N, W), W a multiple of 16, at which integer products are fast."""
    width = -(-(integers.shape[1] + carried.shape[1]) // 16) * 16
    digits = torch.zeros((len(integers), width), dtype=torch.int8, device=integers.device)
    digits[:, : integers.shape[1]] = integers
    digits[:, integers.shape[1] : integers.shape[1] + carried.shape[1]] = carried
    return digits


def multiply_int8(a: Tensor, b: Tensor) -> Tensor:
    """Multiply by the processor's int8 dot products (VNNI, tensor cores)."""
    if a.device.type == "cpu":
        return torch._int_mm(a, b.T)
    columns = torch.zeros((-(-len(b) // 8) * 8, b.shape[1]), dtype=torch.int8, device=b.device)
    columns[: len(b)] = b
    rows = torch.zeros((max(len(a), _LEAST_ROWS), a.shape[1]), dtype=torch.int8, device=a.device)
    rows[: len(a)] = a
    return torch._int_mm(rows, columns.T)[: len(a), : len(b)]


def multiply_float32(a: Tensor, b: Tensor) -> Tensor:
    """Multiply in float32, exactly: W products of at most 127^2 stay below 2^24 up to W = 1040."""
    return a.float() @ b.float().T


def faster_multiply(digits: Tensor) -> Multiply:
    """The faster of the two on this machine; both give the same whole numbers.  digits: int8 (N, W), a sample."""
    if digits.device.type != "cpu":
        return multiply_int8
    sample = digits[:1024].repeat(-(-1024 // max(1, len(digits))), 1)[:1024]
    return min((multiply_int8, multiply_float32), key=lambda multiply: _seconds(multiply, sample))


def _seconds(multiply: Multiply, digits: Tensor) -> float:
    best = float("inf")
    for _ in range(3):
        started = time.perf_counter()
        multiply(digits, digits)
        best = min(best, time.perf_counter() - started)
    return best


@dataclass(frozen=True, slots=True, eq=False)
class Clusters:
    """Memories in an order in which similar ones are contiguous, cut into clusters.

    order: int64 (M,), position -> row.  starts: int64 (L + 1,), the positions where the clusters begin, and M.
    """

    order: Tensor
    starts: Tensor

    def __len__(self) -> int:
        return len(self.starts) - 1

    def slices(self) -> Iterator[slice]:
        """The positions of each cluster."""
        return (slice(start, stop) for start, stop in pairwise(self.starts.tolist()))

    def subset(self, rows: Tensor) -> "Clusters":
        """The clusters of a bank of these `rows`, int64, ascending, which are numbered anew; empty ones go."""
        number = torch.full((len(self.order),), -1, dtype=torch.int64, device=rows.device)
        number[rows] = torch.arange(len(rows), device=rows.device)
        order = number[self.order]
        remaining = order >= 0
        before = torch.cat([remaining.new_zeros(1, dtype=torch.int64), remaining.cumsum(0)])
        return Clusters(order[remaining], torch.unique_consecutive(before[self.starts]))


def bisect(points: Tensor, size: int) -> Clusters:
    """Recursive bisection along the main direction: clusters of at most `size` points, float32 (M, W).

    Where the cuts are costs time, never exactness.
    """
    parts = list(_divide(points, torch.arange(len(points), device=points.device), size))
    ends = torch.tensor([0, *map(len, parts)], device=points.device).cumsum(0)
    return Clusters(torch.cat(parts), ends)


def _divide(points: Tensor, rows: Tensor, size: int) -> Iterator[Tensor]:
    if len(rows) <= size:
        yield rows
        return
    part = points[rows]
    part -= part.mean(dim=0)
    direction = part[part.square().sum(dim=1).argmax()]
    for _ in range(_POWER_ITERATIONS):
        direction = torch.nn.functional.normalize((part @ direction) @ part, dim=0)
    ranked = rows[(part @ direction).argsort(stable=True)]
    middle = len(rows) // 2
    yield from _divide(points, ranked[:middle], size)
    yield from _divide(points, ranked[middle:], size)


@dataclass(frozen=True, slots=True, eq=False)
class QuantizedBank:
    """The quantized form of one memory bank: a quantizer, clusters, and the vectors in the clusters' order."""

    quantizer: Quantizer
    clusters: Clusters
    vectors: QuantizedVectors

    @classmethod
    def of(cls, memories: Tensor, width: int, cluster: int) -> "QuantizedBank":
        """Quantize memories, float32 (M, D), to `width` numbers, in clusters of at most `cluster` memories."""
        quantizer = Quantizer.fit(memories, width)
        vectors = _quantize(quantizer, memories)
        clusters = bisect(vectors.digits[:, : quantizer.basis.shape[1] + 1].float(), cluster)
        return cls(quantizer, clusters, vectors[clusters.order])

    def subset(self, rows: Tensor) -> "QuantizedBank":
        """The same for a bank of these `rows`, int64, ascending."""
        kept = torch.zeros(len(self.clusters.order), dtype=torch.bool, device=rows.device)
        kept[rows] = True
        return QuantizedBank(self.quantizer, self.clusters.subset(rows), self.vectors[kept[self.clusters.order]])


def slices(total: int, size: int) -> Iterator[slice]:
    """Slices of `size` that cover `total` items."""
    return (slice(start, min(start + size, total)) for start in range(0, total, size))


def _quantize(quantizer: Quantizer, memories: Tensor) -> QuantizedVectors:
    parts = [quantizer.quantize_memories(memories[block]) for block in slices(len(memories), _BLOCK)]
    return QuantizedVectors(
        torch.cat([part.digits for part in parts]),
        torch.cat([part.slack for part in parts]),
        torch.cat([part.half_squares for part in parts]),
    )
