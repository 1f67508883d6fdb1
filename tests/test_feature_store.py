"""Features on disk: taken up again only where every byte is the one that was written."""

from pathlib import Path

import numpy as np
import pytest

from indexer.feature_store import FeatureStore, checksum
from resad.encoder import PatchFeatures


@pytest.mark.parametrize("kind", ["cells", "features"])
def test_recall_stops_at_a_file_with_another_byte(tmp_path: Path, rng: np.random.Generator, kind: str) -> None:
    photos = [
        PatchFeatures(
            rng.normal(size=(9, 5)).astype(np.float32), rng.integers(0, 3, (9, 2)).astype(np.int16), (3, 3)
        )
        for _ in range(3)
    ]
    store = FeatureStore(tmp_path / "features")
    for photo in photos:
        store.append(photo)
    known = [(3, 3)] * 3, [9] * 3, [checksum(photo) for photo in photos]
    assert FeatureStore(tmp_path / "features").recall(*known) == 3
    path = tmp_path / f"features/000001.{kind}"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    again = FeatureStore(tmp_path / "features")
    assert again.recall(*known) == 1
    assert len(again) == 1
