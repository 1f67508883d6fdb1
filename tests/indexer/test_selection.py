"""Which memories the settings ask for, and the projection the greedy measures in."""

from pathlib import Path

import numpy as np
import pytest
import torch

from indexer.build.feature_store import FeatureStore
from indexer.coreset.selection import Selection, memory_count, projected_dimension, select
from resad.config import CoresetConfig
from resad.encoder import PatchFeatures
from resad.errors import SettingError


@pytest.fixture
def store(tmp_path: Path, rng: np.random.Generator) -> FeatureStore:
    store = FeatureStore(tmp_path / "features")
    for photo in range(4):
        features = rng.normal(size=(30 + photo, 400)).astype(np.float32)
        cells = np.stack([np.arange(30 + photo), np.full(30 + photo, photo)], axis=1).astype(np.int16)
        store.append(PatchFeatures(features, cells, (40, 40)))
    return store


def test_the_papers_projection_has_347_dimensions() -> None:
    """134 photographs of 98 x 98 patches at eps 0.90; never more than the features have."""
    paper = CoresetConfig()
    assert projected_dimension(paper, 134 * 98 * 98, 1536) == 347
    assert projected_dimension(paper, 134 * 98 * 98, 300) == 300


def test_how_many_memories() -> None:
    assert memory_count(CoresetConfig(share=0.1), 1_286_936) == 128_694
    assert memory_count(CoresetConfig(share=0.001), 10) == 1
    assert memory_count(CoresetConfig(share=0.1, most=500), 1_286_936) == 500
    assert memory_count(CoresetConfig(share=0.1, most=500), 4_000) == 400
    assert memory_count(CoresetConfig(share=None, count=7), 10) == 7
    assert memory_count(CoresetConfig(share=None, radius=0.5), 10) is None
    with pytest.raises(SettingError, match="11 memories asked of 10 patches"):
        memory_count(CoresetConfig(share=None, count=11), 10)


def test_memories_are_the_stores_own_rows_in_order(store: FeatureStore) -> None:
    selection = select(store, CoresetConfig(share=0.3), [torch.device("cpu")], lambda _: None)
    assert len(selection.memories) == round(0.3 * 126)
    origin = selection.provenance
    for memory, photo, (row, marker) in zip(selection.memories, origin.photo, origin.cell, strict=True):
        assert marker == photo
        np.testing.assert_array_equal(memory, store.photo(int(photo)).features[row])
    places = list(zip(origin.photo.tolist(), origin.cell[:, 0].tolist(), strict=True))
    assert places == sorted(places)
    assert sorted(origin.pick.tolist()) == list(range(len(places)))


def test_the_first_picks_are_the_smaller_coreset(store: FeatureStore) -> None:
    large = select(store, CoresetConfig(share=None, count=40), [torch.device("cpu")], lambda _: None)
    small = select(store, CoresetConfig(share=None, count=15), [torch.device("cpu")], lambda _: None)
    first = large.provenance.pick < 15
    np.testing.assert_array_equal(large.memories[first], small.memories)


def test_the_seed_decides_and_nothing_else_does(store: FeatureStore) -> None:
    def picks(seed: int) -> list[float]:
        torch.manual_seed(np.random.randint(2**31))  # noqa: NPY002  the global generators must not matter
        selection = select(store, CoresetConfig(seed=seed), [torch.device("cpu")], lambda _: None)
        return [float(value) for value in selection.memories[:, 0]]

    assert picks(1) == picks(1)
    assert picks(1) != picks(2)


def test_a_sample_is_drawn_by_the_seed_and_covers_less_well(store: FeatureStore) -> None:
    def selection_of(sample: float, seed: int = 0) -> Selection:
        config = CoresetConfig(share=None, count=20, sample=sample, epsilon=0.1, seed=seed)
        return select(store, config, [torch.device("cpu")], lambda _: None)

    def radius(selection: Selection) -> float:
        all_features = np.concatenate([photo.features for photo in store])
        return float(np.linalg.norm(all_features[:, None] - selection.memories, axis=2).min(axis=1).max())

    whole, half = selection_of(1.0), selection_of(0.5)
    np.testing.assert_array_equal(half.memories, selection_of(0.5).memories)
    assert not np.array_equal(half.memories, selection_of(0.5, seed=1).memories)
    assert radius(half) > radius(whole)
    assert radius(half) >= half.radius  # its own is over the sample alone
    assert radius(whole) == pytest.approx(whole.radius, rel=1e-5)
    for memory, photo, cell in zip(half.memories, half.provenance.photo, half.provenance.cell, strict=True):
        np.testing.assert_array_equal(memory, store.photo(int(photo)).features[cell[0]])
    with pytest.raises(SettingError, match="20 of 13 patches"):
        selection_of(0.1)


def test_points_in_a_file_give_the_same_memories(store: FeatureStore, tmp_path: Path) -> None:
    config, cpu = CoresetConfig(share=0.3), torch.device("cpu")
    in_memory = select(store, config, [cpu], lambda _: None)
    in_file = select(store, config, [cpu, cpu], lambda _: None, file=tmp_path / "points")
    assert (tmp_path / "points").stat().st_size == 126 * in_file.dimension * 4
    np.testing.assert_array_equal(in_file.memories, in_memory.memories)
    np.testing.assert_array_equal(in_file.provenance.pick, in_memory.provenance.pick)
    assert in_file.radius == in_memory.radius
