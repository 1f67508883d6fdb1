"""The block-lazy greedy once, in a process of its own; prints one line of JSON.

Run by `benchmarks.coreset --anomalib PYTHON`.  Arguments: a .npy of points (N, d), the number of picks, the first.
"""

import json
import sys
import time

import numpy as np
import torch

from indexer.coreset import greedy_k_center
from indexer.points import BLOCK_ROWS
from indexer.room import resident_bytes
from indexer.shards import shards_of
from resad import runtime


def main() -> None:
    """As `anomalib` is run."""
    points, picks, first = torch.from_numpy(np.load(sys.argv[1])), int(sys.argv[2]), int(sys.argv[3])
    before = resident_bytes()
    began = time.perf_counter()
    found = greedy_k_center(shards_of(points, 16 * BLOCK_ROWS), first, count=picks)
    seconds = time.perf_counter() - began
    grown = runtime.peak_memory_bytes() - before
    print(json.dumps({"seconds": seconds, "grown": grown, "rows": found.rows.tolist()}))


if __name__ == "__main__":
    main()
