"""Products of small whole numbers, exact whichever unit of the machine computes them."""

import time
from collections.abc import Callable
from typing import Final

import torch
from torch import Tensor

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
