"""One selection in a process of its own, so that its peak of memory is its own; prints one line of JSON.

Run by `benchmarks.coreset_scaling`.
"""

import json
import re
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Final

import torch

from indexer.feature_store import FeatureStore
from indexer.selection import select
from resad import runtime
from resad.config import CoresetConfig

_STATUS: Final = Path("/proc/self/status")
_EVERY: Final = 0.005


class OwnMemory:
    """The largest memory of this process's own, bytes, looked at every 5 ms.

    Pages of files that are mapped count as resident, too, but the system takes them back when others need room.
    """

    def __init__(self) -> None:
        self.most = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> "OwnMemory":
        self.most = own_bytes()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._over.wait(_EVERY):
            self.most = max(self.most, own_bytes())


def own_bytes() -> int:
    """Resident bytes of this process that no file stands behind."""
    found = re.search(r"RssAnon:\s+(\d+) kB", _STATUS.read_text())
    if not found:
        raise SystemExit(f"{_STATUS} does not tell RssAnon: this benchmark takes Linux")
    return int(found[1]) * 1024


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
