"""The block-lazy greedy against the textbook loop."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from indexer.build.feature_store import FeatureStore
from indexer.coreset.k_center import GreedyState, LocalShards, Shard, greedy_k_center, shards_of
from indexer.coreset.projected_features import (
    MemoryPoints,
    Points,
    points_in_file,
    points_in_memory,
    points_in_store,
)
from resad.encoder import PatchFeatures
from resad.errors import SettingError


def textbook(points: Tensor, first: int, count: int) -> tuple[list[int], float]:
    """One pick after another, each the farthest from all before; ties to the lowest row."""
    squared = ((points - points[first]) ** 2).sum(dim=1).numpy()
    picks = [first]
    while len(picks) < count and squared.max() > 0:
        picks.append(int(squared.argmax()))
        squared = np.minimum(squared, ((points - points[picks[-1]]) ** 2).sum(dim=1).numpy())
    return picks, float(squared.max()) ** 0.5


def cloud(seed: int, rows: int, dimension: int, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    centers = 5 * torch.randn(6, dimension, generator=generator, dtype=dtype)
    noise = torch.randn(rows, dimension, generator=generator, dtype=dtype)
    return centers[torch.randint(6, (rows,), generator=generator)] + noise + 30


@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 1000),
    rows=st.integers(2, 700),
    dimension=st.integers(1, 12),
    shard=st.integers(1, 800),
    data=st.data(),
)
def test_picks_are_the_textbooks_in_order(
    seed: int, rows: int, dimension: int, shard: int, data: st.DataObject
) -> None:
    points = cloud(seed, rows, dimension)
    count, first = data.draw(st.integers(1, rows)), data.draw(st.integers(0, rows - 1))
    result = greedy_k_center(shards_of(points, shard), first, count=count)
    picks, radius = textbook(points, first, count)
    assert result.rows.tolist() == picks
    assert result.radius == pytest.approx(radius, rel=1e-6, abs=1e-6)


def test_many_rounds_with_more_candidates_than_the_fewest() -> None:
    points = cloud(3, 4000, 8)
    pick_counts: list[int] = []
    result = greedy_k_center(shards_of(points, 1500), 11, count=1200, on_picks=pick_counts.append)
    assert result.rows.tolist() == textbook(points, 11, 1200)[0]
    assert sum(pick_counts) == 1200
    assert max(pick_counts) > 64  # or nothing was gained by working in blocks


def test_float32_reaches_the_textbooks_radius() -> None:
    points = cloud(5, 3000, 16)
    _, radius = textbook(points, 0, 300)
    result = greedy_k_center(shards_of(points.float(), 4000), 0, count=300)
    assert result.radius == pytest.approx(radius, rel=1e-3)


def test_a_radius_stops_at_the_first_coreset_within_it() -> None:
    points = cloud(7, 1000, 4)
    _, radius = textbook(points, 0, 60)
    result = greedy_k_center(shards_of(points, 300), 0, radius=radius * 1.0001)
    assert result.radius <= radius * 1.0001
    fewer = greedy_k_center(shards_of(points, 300), 0, count=len(result.rows) - 1)
    assert fewer.radius > radius * 1.0001


def test_equal_points_are_picked_once() -> None:
    points = torch.arange(5.0).repeat(20)[:, None] * 7
    for dtype in (torch.float32, torch.float64):
        result = greedy_k_center(shards_of(points.to(dtype), 33), 2, count=100)
        assert len(set(result.rows.tolist())) == 5
        assert result.radius == 0


def test_shards_cut_at_block_borders_change_nothing_in_float32() -> None:
    points = cloud(9, 5000, 24, torch.float32)
    results = [
        greedy_k_center(shards_of(points, 256 * blocks, block=256), 4, count=900) for blocks in (1, 3, 7, 100)
    ]
    for result in results[1:]:
        np.testing.assert_array_equal(result.rows, results[0].rows)
        assert result.radius == results[0].radius


def test_ties_go_to_the_lowest_rows() -> None:
    shard = Shard(MemoryPoints(torch.tensor([[0.0], [3.0], [-3.0], [3.0], [1.0]])), first_row=10)
    shard.update(torch.tensor([10]), torch.tensor([[0.0]]))
    assert shard.farthest(2).rows.tolist() == [11, 12]
    assert shard.farthest(99).rows.tolist() == [10, 11, 12, 13, 14]


@pytest.mark.parametrize(("count", "radius"), [(None, None), (3, 1.0), (0, None), (11, None)])
def test_limits_that_make_no_sense_are_refused(count: int | None, radius: float | None) -> None:
    with pytest.raises(SettingError):
        greedy_k_center(shards_of(cloud(0, 10, 2), 4), 0, count=count, radius=radius)


def test_points_on_disk_and_on_several_devices_give_the_same_picks(tmp_path: Path) -> None:
    points = cloud(13, 5000, 24, torch.float32)
    chunks = torch.split(points, 777)
    cpu = torch.device("cpu")
    one_device = points_in_memory(chunks, 5000, 24, [cpu], 5000, block=256)
    two_devices = points_in_memory(chunks, 5000, 24, [cpu, cpu], 512, block=256)
    in_file = points_in_file(chunks, 5000, 24, [cpu, cpu], 1024, tmp_path / "points", block=256)
    store = FeatureStore(tmp_path / "features")
    for chunk in chunks:
        cells = np.zeros((len(chunk), 2), np.int16)
        store.append(PatchFeatures(chunk.numpy(), cells, (28, 28), None))
    stored = points_in_store(store, iter(chunks), [cpu, cpu], 1024, block=256)
    assert (len(one_device), len(two_devices), len(in_file), len(stored)) == (1, 10, 5, 5)
    results = []
    layouts: tuple[Sequence[Points], ...] = (one_device, two_devices, in_file, stored)
    for layout in layouts:
        starts = np.cumsum([0, *map(len, layout)])
        shards = [Shard(part, int(start)) for part, start in zip(layout, starts, strict=False)]
        results.append(greedy_k_center(LocalShards(shards), 4, count=900))
    for result in results[1:]:
        np.testing.assert_array_equal(result.rows, results[0].rows)
        assert result.radius == results[0].radius
    plain = greedy_k_center(shards_of(points, 5000, block=256), 4, count=900)
    assert results[0].radius == pytest.approx(plain.radius, rel=1e-3)


def test_taken_up_after_any_round_it_goes_on_as_if_never_stopped() -> None:
    points = cloud(17, 4000, 8, torch.float32)
    states: list[GreedyState] = []
    whole = greedy_k_center(shards_of(points, 1500), 11, count=600, on_round=lambda make: states.append(make()))
    assert len(states) > 8
    for progress in (states[0], states[len(states) // 2], states[-1]):
        pick_counts: list[int] = []
        resumed = greedy_k_center(
            shards_of(points, 1500), 11, count=600, resume_from=progress, on_picks=pick_counts.append
        )
        np.testing.assert_array_equal(resumed.rows, whole.rows)
        assert resumed.radius == whole.radius
        assert pick_counts[0] == len(progress.rows)
        without_distances = greedy_k_center(
            shards_of(points, 1500), 11, count=600, resume_from=replace(progress, squared=None)
        )
        np.testing.assert_array_equal(without_distances.rows, whole.rows)
        assert without_distances.radius == whole.radius


@given(st.lists(st.integers(0, 5), min_size=1, max_size=60), st.integers(1, 70), st.integers(0, 9))
def test_the_farthest_are_those_of_a_stable_sort(values: list[int], count: int, first: int) -> None:
    """Whole numbers for many ties."""
    shard = Shard(MemoryPoints(torch.zeros(len(values), 2)), first)
    shard.squared.copy_(torch.tensor(values))
    farthest = shard.farthest(count)
    order = sorted(range(len(values)), key=lambda row: (-values[row], row))[:count]
    assert farthest.rows.tolist() == [row + first for row in sorted(order)]
    assert farthest.squared.tolist() == [values[row] for row in sorted(order)]


@pytest.mark.gpu
@pytest.mark.parametrize("in_memory", [True, False])
def test_a_gpu_picks_what_the_cpu_picks(tmp_path: Path, in_memory: bool) -> None:
    """In float64 the same in order; in float32 near-ties may fall the other way, the cover is as good."""
    points, gpu = cloud(19, 20_000, 24), torch.device("cuda")
    expected = greedy_k_center(shards_of(points, 8192), 3, count=1500)
    if in_memory:
        exact = greedy_k_center(shards_of(points.to(gpu), 8192), 3, count=1500)
        assert exact.rows.tolist() == expected.rows.tolist()
        single = shards_of(points.float().to(gpu), 8192)
    else:
        chunks = points_in_file(torch.split(points.float(), 777), 20_000, 24, [gpu], 8192, tmp_path / "points")
        single = LocalShards([Shard(part, 8192 * number) for number, part in enumerate(chunks)])
    result = greedy_k_center(single, 3, count=1500)
    assert result.radius == pytest.approx(expected.radius, rel=1e-3)
    assert len(np.intersect1d(result.rows, expected.rows)) > 0.9 * 1500
