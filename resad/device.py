"""Work on a device: copies to and from it that do not wait, and matrix products in full float32."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def sent(values: Tensor, device: torch.device) -> Tensor:
    """`values`, on the host, on `device`."""
    if device.type != "cuda":
        return values.to(device)
    return values.pin_memory().to(device, non_blocking=True)


def sent_together(arrays: Sequence[NDArray[Any]], device: torch.device) -> Tensor:
    """Arrays of one shape, stacked, on `device`."""
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
        """The tensors, once they are there."""
        if self._arrived is not None:
            self._arrived.synchronize()
        return self._tensors


class Fetching:
    """Copies to the host, on a stream of their own beside the computing."""

    def __init__(self, device: torch.device) -> None:
        stream: Any = torch.cuda.Stream  # its stubs lack a type
        self._stream: torch.cuda.Stream | None = stream(device) if device.type == "cuda" else None

    def fetch(self, values: Sequence[Tensor]) -> Fetched:
        """`values`, contiguous and on the device, once what computes them has come so far."""
        if self._stream is None:
            return Fetched(tuple(values), None)
        self._stream.wait_stream(torch.cuda.current_stream(self._stream.device))
        with torch.cuda.stream(self._stream):
            here = tuple(
                torch.empty(one.shape, dtype=one.dtype, pin_memory=True).copy_(one, non_blocking=True)
                for one in values
            )
            # Blocking: whoever waits leaves the processor to those who decode.
            event: Any = torch.cuda.Event
            arrived: torch.cuda.Event = event(blocking=True)
            arrived.record(self._stream)
        for one in values:
            one.record_stream(self._stream)  # their memory is not given away while it is read
        return Fetched(here, arrived)


_lock = threading.Lock()
_inside: list[bool] = []
"""One entry for each search that runs, each the setting that the first of them found."""


@contextmanager
def full_float32() -> Iterator[None]:
    """Keep TF32 out of CUDA's matrix products; the last to leave restores what the first found.

    TF32 keeps 11 bits of a number: a search would miss neighbors, and the error bounds of the proved one would not
    hold.  The setting is the process', so that searches on several threads share one change of it.
    """
    matmul = torch.backends.cuda.matmul
    with _lock:
        _inside.append(_inside[0] if _inside else matmul.allow_tf32)
        matmul.allow_tf32 = False
    try:
        yield
    finally:
        with _lock:
            before = _inside.pop()
            if not _inside:
                matmul.allow_tf32 = before
