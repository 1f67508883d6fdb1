"""What `benchmarks.latency` measures on a GPU alone."""

import os
import time
from contextlib import closing
from functools import partial
from itertools import islice
from typing import Final

import torch

from indexer.pipeline import ahead
from resad.config import PhotoLimits
from resad.detector import Detector
from resad.memory_bank import MemoryBank
from resad.preparation import prepare
from resad.search.backends import RowSearch, TorchSearch, flat_index
from resad.search.gpu import FaissOnGpu, memories_on

BATCH: Final = 4
"""Photographs that are scored together."""


def flat_searches(bank: MemoryBank) -> dict[str, RowSearch]:
    """FAISS's and torch's, of a bank on a GPU, which keeps the faster of them."""
    if bank.gpu is None:
        return {}
    on_device = memories_on(bank.memories, torch.device("cuda", bank.gpu))
    return {"FAISS": FaissOnGpu(flat_index(bank.memories), bank.gpu), "torch": TorchSearch(on_device)}


def steady_rate(detector: Detector, data: bytes) -> float:
    """Photographs a second, four at a time, decoded by threads while the GPU is at work."""
    threads = max(len(os.sched_getaffinity(0)) - 1, 1)
    preparation, count = detector.encoder.config.preparation, 12 * BATCH
    look = partial(prepare, config=preparation, limits=PhotoLimits())
    with closing(ahead([data] * count, look, threads=threads, most=threads + BATCH)) as photos:
        detector.detect(list(islice(photos, BATCH)))
        began = time.perf_counter()
        while some := list(islice(photos, BATCH)):
            detector.detect(some)
        return (count - BATCH) / (time.perf_counter() - began)
