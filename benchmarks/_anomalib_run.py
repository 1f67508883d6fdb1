"""anomalib's KCenterGreedy once, in a process and a virtual environment of its own; prints one line of JSON.

Run by `benchmarks.coreset --anomalib PYTHON`.  Arguments: a .npy of points (N, d), the number of picks.
"""

import json
import os
import sys
import time
from pathlib import Path

import numpy as np
import torch
from anomalib.models.components.sampling.k_center_greedy import KCenterGreedy


def main() -> None:
    """Give it three axes, so that it takes the points as they are and projects nothing."""
    points, picks = torch.from_numpy(np.load(sys.argv[1])), int(sys.argv[2])
    torch.manual_seed(0)
    greedy = KCenterGreedy(points[:, :, None], (picks + 0.5) / len(points))
    before = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    began = time.perf_counter()
    rows = greedy.select_coreset_idxs()
    seconds = time.perf_counter() - began
    # Not ru_maxrss, which begins at what the parent held.
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    grown = int(status["VmHWM"].split()[0]) * 1024 - before
    print(json.dumps({"seconds": seconds, "grown": grown, "rows": [int(row) for row in rows]}))


if __name__ == "__main__":
    main()
