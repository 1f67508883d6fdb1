"""One selection in a process of its own, so that its peak of memory is its own; prints one line of JSON.

Run by `benchmarks.coreset_scaling`.
"""

import json
import sys
import tempfile
import time
from pathlib import Path

import torch

from benchmarks._own_memory import OwnMemory, own_bytes
from indexer.feature_store import FeatureStore
from indexer.selection import select
from resad import runtime
from resad.config import CoresetConfig


def main() -> None:
    """Arguments: the folder of a store, its photographs, the share, and `held` or `stored`."""
    folder, photos, share, where = Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), sys.argv[4]
    runtime.configure("exact")
    known = json.loads((folder / "known.json").read_text())[:photos]
    store = FeatureStore(folder)
    if store.recall([(grid[0], grid[1]) for grid, _ in known], [count for _, count in known]) != photos:
        raise SystemExit(f"{folder} does not hold {photos} photographs")
    before = own_bytes()
    with OwnMemory() as own, tempfile.TemporaryDirectory() as scratch:
        began = time.perf_counter()
        file = Path(scratch) / "points" if where == "stored" else None
        chosen = select(store, CoresetConfig(share=share), [torch.device("cpu")], lambda _: None, file=file)
        seconds = time.perf_counter() - began
    print(
        json.dumps(
            {
                "patches": int(store.first_rows[-1]),
                "dimension": chosen.dimension,
                "memories": len(chosen.memories),
                "seconds": seconds,
                "peak": own.most - before,
                "radius": chosen.radius,
                "picks": chosen.provenance.pick[:5].tolist(),
            }
        )
    )


if __name__ == "__main__":
    main()
