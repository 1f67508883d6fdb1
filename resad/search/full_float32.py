"""Products in full float32, whatever the process allows its networks."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch

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
