"""Features on disk: taken up again only where every byte is the one that was written."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from indexer.build.feature_store import FeatureStore, checksum, mirrored_file
from resad.encoder import PatchFeatures


@pytest.mark.parametrize("kind", ["cells", "features", "mirrored"])
def test_recall_stops_at_a_file_with_another_byte(tmp_path: Path, rng: np.random.Generator, kind: str) -> None:
    photos = [
        PatchFeatures(
            rng.normal(size=(9, 5)).astype(np.float32),
            rng.integers(0, 3, (9, 2)).astype(np.int16),
            (3, 3),
            rng.normal(size=(9, 5)).astype(np.float32) if kind == "mirrored" else None,
        )
        for _ in range(3)
    ]
    store = FeatureStore(tmp_path / "features")
    for photo in photos:
        store.append(photo)
    expected = [(3, 3)] * 3, [9] * 3, [checksum(photo) for photo in photos]
    assert FeatureStore(tmp_path / "features").recall(*expected) == 3
    path = tmp_path / f"features/000001.{kind}"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    second_store = FeatureStore(tmp_path / "features")
    assert second_store.recall(*expected) == 1
    assert len(second_store) == 1


def test_the_mirror_image_is_given_back_and_written_over(tmp_path: Path, rng: np.random.Generator) -> None:
    cells = np.argwhere(np.ones((3, 3), dtype=bool)).astype(np.int16)
    plain, mirrored = rng.normal(size=(2, 9, 5)).astype(np.float32)
    store = FeatureStore(tmp_path / "features")
    store.append(PatchFeatures(plain, cells, (3, 3), mirrored))
    np.testing.assert_array_equal(store.photo(0).mirrored, mirrored)
    mirrored_file(store.place(0)).write_bytes(b"short")
    assert not FeatureStore(tmp_path / "features").add_stored(store.place(0), (3, 3), 9)
    store.truncate(0)
    store.append(PatchFeatures(plain, cells, (3, 3)))
    assert store.photo(0).mirrored is None
    assert [path.name for path in sorted((tmp_path / "features").iterdir())] == ["000000.cells", "000000.features"]


@given(
    sizes=st.lists(st.integers(1, 9), min_size=1, max_size=5), start=st.integers(0, 44), count=st.integers(1, 45),
    seed=st.integers(0, 99),
)  # fmt: skip
def test_any_rows_are_those_of_all_features_one_after_another(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int], start: int, count: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    store = FeatureStore(tmp_path_factory.mktemp("store") / "features")
    photos = [rng.normal(size=(size, 3)).astype(np.float32) for size in sizes]
    for features in photos:
        store.append(PatchFeatures(features, np.zeros((len(features), 2), np.int16), (3, 3)))
    whole = np.concatenate(photos)
    start %= len(whole)
    rows = torch.full((min(count, len(whole) - start), 3), torch.nan)
    store.read(start, rows)
    np.testing.assert_array_equal(rows.numpy(), whole[start : start + len(rows)])
    chosen = rng.integers(0, len(whole), count)
    np.testing.assert_array_equal(store.gather(chosen), whole[chosen])


def test_a_file_that_was_cut_short_is_named(tmp_path: Path) -> None:
    store = FeatureStore(tmp_path / "features")
    for _ in range(2):
        store.append(PatchFeatures(np.ones((9, 5), np.float32), np.zeros((9, 2), np.int16), (3, 3)))
    (tmp_path / "features/000001.features").write_bytes(b"short")
    for read in (lambda: store.read(7, torch.empty(5, 5)), lambda: store.gather(np.array([2, 12]))):
        with pytest.raises(OSError, match=r"000001\.features was cut short"):
            read()
