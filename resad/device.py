"""Work on a device: copies to and from it that do not wait, and matrix products in full float32.

Copies go through pinned memory and take their turn among the device's work.  torch does not reuse pinned memory
before the copies that read or write it have ended.
"""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def to_device(values: Tensor, device: torch.device) -> Tensor:
    """Copy `values` from the host to `device`."""
    if device.type != "cuda":
        return values.to(device)
    return values.pin_memory().to(device, non_blocking=True)


def stack_to_device(arrays: Sequence[NDArray[Any]], device: torch.device) -> Tensor:
    """Stack arrays of one shape on `device`."""
    if device.type != "cuda":
        return torch.from_numpy(np.stack(arrays)).to(device)
    kind = torch.from_numpy(arrays[0]).dtype
    pinned = torch.empty((len(arrays), *arrays[0].shape), dtype=kind, pin_memory=True)
    np.stack(arrays, out=pinned.numpy())
    return pinned.to(device, non_blocking=True)


@dataclass(frozen=True, slots=True, eq=False)
class Fetched:
    """Tensors that may still be on their way to the host."""

    _tensors: tuple[Tensor, ...]
    _arrived: torch.cuda.Event | None

    def wait(self) -> tuple[Tensor, ...]:
        """Wait for the tensors and return them."""
        if self._arrived is not None:
            self._arrived.synchronize()
        return self._tensors


class Fetcher:
    """Copies tensors to the host on a stream of its own, beside the computing."""

    def __init__(self, device: torch.device) -> None:
        stream: Any = torch.cuda.Stream  # its stubs lack a type
        self._stream: torch.cuda.Stream | None = stream(device) if device.type == "cuda" else None

    def fetch(self, values: Sequence[Tensor]) -> Fetched:
        """Start to copy `values`, contiguous and on the device, as soon as they are computed."""
        if self._stream is None:
            return Fetched(tuple(values), None)
        self._stream.wait_stream(torch.cuda.current_stream(self._stream.device))
        with torch.cuda.stream(self._stream):
            copies = tuple(
                torch.empty(value.shape, dtype=value.dtype, pin_memory=True).copy_(value, non_blocking=True)
                for value in values
            )
            # Blocking: the waiting thread leaves the processor to those that decode.
            event: Any = torch.cuda.Event
            arrived: torch.cuda.Event = event(blocking=True)
            arrived.record(self._stream)
        for value in values:
            value.record_stream(self._stream)  # its memory is not reused while it is read
        return Fetched(copies, arrived)


_lock = threading.Lock()
_settings_before: list[bool] = []
"""One entry for each running block of `full_float32`, each the setting before the first of them."""


@contextmanager
def full_float32() -> Iterator[None]:
    """Keep TF32 out of CUDA's matrix products; the last block to end restores the setting before the first.

    TF32 keeps 11 bits of a number: a search would miss neighbors, and the error bounds of the pruned one would not
    hold.  The setting belongs to the process, so that searches on several threads share one change of it.
    """
    matmul = torch.backends.cuda.matmul
    with _lock:
        _settings_before.append(_settings_before[0] if _settings_before else matmul.allow_tf32)
        matmul.allow_tf32 = False
    try:
        yield
    finally:
        with _lock:
            before = _settings_before.pop()
            if not _settings_before:
                matmul.allow_tf32 = before
