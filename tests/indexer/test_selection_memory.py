"""What the greedy takes from the system with its points on disk: in processes of their own, at two sizes."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Final

import numpy as np
import pytest

from indexer.build.feature_store import FeatureStore
from indexer.build.forecast import _PER_PATCH
from resad.encoder import PatchFeatures

_GRID: Final = (50, 60)
_PATCHES: Final = 3000
_DIMENSION: Final = 16
_RANK: Final = 8
_SIZES: Final = (10, 80)
"""Photographs: a part of one shard, and two shards."""
_PAGE_BYTES: Final = 160
"""Bytes a patch of pages that may be taken from the system, each as often as it is given back and taken again."""

_SELECT: Final = """
import json, resource, sys
from pathlib import Path
import torch
from benchmarks._bench import OwnMemory, own_bytes
from indexer.build.feature_store import FeatureStore
from indexer.coreset.selection import select
from resad.config import CoresetConfig

folder, photos, patches, grid = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), json.loads(sys.argv[4])
store = FeatureStore(folder)
assert store.recall([tuple(grid)] * photos, [patches] * photos) == photos
faults, before = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt, own_bytes()
began = faults()
with OwnMemory() as memory:
    select(store, CoresetConfig(share=None, count=1000), [torch.device("cpu")], lambda _: None,
           file=folder.parent / f"points-{photos}")
print(json.dumps([memory.most - before, (faults() - began) * resource.getpagesize()]))
"""


@pytest.mark.long
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_points_on_disk_take_no_more_for_a_patch_than_the_forecast_says(tmp_path: Path) -> None:
    store, generator = FeatureStore(tmp_path / "features"), np.random.default_rng(0)
    cells = np.stack(np.divmod(np.arange(_PATCHES), _GRID[1]), axis=1).astype(np.int16)
    basis = generator.standard_normal((_RANK, _DIMENSION), dtype=np.float32)
    for _ in range(_SIZES[-1]):
        features = generator.standard_normal((_PATCHES, _RANK), dtype=np.float32) @ basis
        store.append(PatchFeatures(features, cells, _GRID))
    few, many = (_memory_use(tmp_path / "features", photos) for photos in _SIZES)
    more = (_SIZES[1] - _SIZES[0]) * _PATCHES
    assert many[0] - few[0] < more * _PER_PATCH
    # What the allocator keeps of freed buffers differs from run to run; how much it asks for does not.  Buffers
    # made anew for every block asked for about 400 bytes a patch.
    assert many[1] - few[1] < more * _PAGE_BYTES


def _memory_use(folder: Path, photos: int) -> tuple[int, int]:
    """Bytes: the most that the greedy held beside what there was, and all pages that it was given."""
    line = [sys.executable, "-c", _SELECT, str(folder), str(photos), str(_PATCHES), json.dumps(_GRID)]
    most_bytes, page_bytes = json.loads(subprocess.run(line, capture_output=True, text=True, check=True).stdout)
    return most_bytes, page_bytes
