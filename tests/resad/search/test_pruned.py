"""The proved search against brute force in NumPy and against the flat search."""

import time

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from resad.search.bounds import Quantizer
from resad.search.pruned import GPU_TILING, PrunedSearch, Tiling, pair_squares
from tests.resad.test_memory_bank import brute_force

SMALL = Tiling(queries=16, memories=24, cluster=10)


def cloud(rng: np.random.Generator, kind: str, count: int, d: int) -> NDArray[np.float32]:
    """Points that lie as real ones may: spread out, in clusters, doubled, on a plane, or at one place."""
    points = rng.normal(size=(count, d))
    match kind:
        case "clusters":
            points = 10 * rng.normal(size=(3, d))[rng.integers(3, size=count)] + 1e-3 * points
        case "duplicates":
            points = points[rng.integers(max(1, count // 4), size=count)]
        case "plane":
            points = points[:, :2] @ rng.normal(size=(2, d)) if d > 1 else points
        case "far":
            points = points + 300
        case "zeros":
            points = np.zeros_like(points)
        case "outlier":
            points[:1] *= 1e4
    return points.astype(np.float32)


KINDS = ("spread", "clusters", "duplicates", "plane", "far", "zeros", "outlier")


def distance_limits(
    features: NDArray[np.float32], memories: NDArray[np.float32], exact: NDArray[np.float64], limit: float
) -> NDArray[np.float64]:
    """The largest distances that may stand for `exact`, (N, k), of each patch by itself.

    Direct differences in float32 only confuse what is nearly as far.  Where a block is searched in full, it is by
    the expanded form, whose squares are wrong by roundings of the squared lengths of this patch and its neighbor.
    """
    farthest = exact * (1 + 2e-6)
    if limit >= 1:
        return farthest
    length = np.linalg.norm(features - memories.astype(np.float64).mean(axis=0), axis=1, keepdims=True)
    rounded: NDArray[np.float64] = 2.0**-23 * (features.shape[1] ** 0.5 + 4) * (2 * length + exact) ** 2
    return np.sqrt(farthest**2 + rounded)


@pytest.mark.parametrize("kind", ["spread", "far", "outlier"])
def test_the_tolerance_excludes_the_second_neighbor(kind: str, rng: np.random.Generator) -> None:
    memories = cloud(rng, kind, 200, 24)
    nearest = np.sort(brute_force(memories[1:], memories), axis=1)[:, :2]
    assert (nearest[:, 1:] > distance_limits(memories[1:], memories, nearest[:, :1], 0.1)).all()


@settings(deadline=None, max_examples=150)
@given(
    seed=st.integers(0, 999),
    kind=st.sampled_from(KINDS),
    query_kind=st.sampled_from(KINDS),
    queries=st.integers(0, 60),
    count=st.integers(1, 200),
    d=st.integers(1, 40),
    width=st.sampled_from([16, 32, 64]),
    limit=st.sampled_from([0.0, 0.1, 1.0]),
    data=st.data(),
)
def test_distances_are_those_of_brute_force(
    seed: int,
    kind: str,
    query_kind: str,
    queries: int,
    count: int,
    d: int,
    width: int,
    limit: float,
    data: st.DataObject,
) -> None:
    rng = np.random.default_rng(seed)
    memories, features = cloud(rng, kind, count, d), cloud(rng, query_kind, queries, d)
    if queries > 2 and data.draw(st.booleans()):
        features[: queries // 2] = memories[rng.integers(count, size=queries // 2)]
    k = data.draw(st.integers(1, min(50, count)))
    search = PrunedSearch(torch.from_numpy(memories), width, limit, SMALL)
    proof = search.search(torch.from_numpy(features), k)
    rows = proof.rows.numpy()
    assert rows.shape == (queries, k)
    assert 0 <= proof.proved <= 1
    all_distances = brute_force(features, memories)
    exact = np.sort(all_distances, axis=1)[:, :k]
    distances = np.take_along_axis(all_distances, rows, 1)
    assert (np.sort(distances, axis=1) <= distance_limits(features, memories, exact, limit)).all()
    assert all(len(set(row)) == k for row in rows.tolist())


@pytest.mark.parametrize("kind", KINDS)
def test_a_quantized_distance_less_its_slack_is_a_lower_bound(kind: str, rng: np.random.Generator) -> None:
    memories, queries = cloud(rng, kind, 300, 24), cloud(rng, "spread", 50, 24)
    quantizer = Quantizer.fit(torch.from_numpy(memories), 16)
    query_codes, memory_codes = (
        quantizer.quantize_queries(torch.from_numpy(queries)),
        quantizer.quantize_memories(torch.from_numpy(memories)),
    )
    products = query_codes.digits.double() @ memory_codes.digits.double().T
    squares = 2 * (query_codes.half_squares[:, None] + quantizer.offset - products).numpy()
    quantized = quantizer.unit * np.sqrt(np.maximum(squares, 0))
    bound = quantized - query_codes.slack.numpy()[:, None] - memory_codes.slack.numpy()
    assert (bound <= brute_force(queries, memories) * (1 + 1e-6)).all()
    if kind == "spread":
        assert (bound > 0.5 * brute_force(queries, memories)).mean() > 0.5  # and it says something


def test_most_is_proved_where_few_directions_carry_most(rng: np.random.Generator) -> None:
    basis = rng.normal(size=(12, 96))
    memories = (rng.normal(size=(4000, 12)) @ basis + 0.3 * rng.normal(size=(4000, 96))).astype(np.float32)
    queries = memories[::40] + rng.normal(size=(100, 96)).astype(np.float32) * 0.3
    proof = PrunedSearch(torch.from_numpy(memories), 32, 0.2, SMALL).search(torch.from_numpy(queries), 3)
    assert proof.proved > 0.99
    nearest = np.sort(brute_force(queries, memories), axis=1)[:, :3]
    np.testing.assert_allclose(
        np.take_along_axis(brute_force(queries, memories), proof.rows.numpy(), 1), nearest, rtol=1e-5
    )


def test_a_subset_is_a_search_over_fewer(rng: np.random.Generator) -> None:
    memories, queries = cloud(rng, "spread", 300, 20), torch.from_numpy(cloud(rng, "spread", 40, 20))
    rows = torch.arange(0, 300, 3)
    subset = torch.from_numpy(memories)[rows]
    part = PrunedSearch(torch.from_numpy(memories), 32, 0.2, SMALL).subset(subset, rows)
    proof, expected = part.search(queries, 4), PrunedSearch(subset, 32, 0.2, SMALL).search(queries, 4)
    np.testing.assert_array_equal(proof.rows, expected.rows)


def test_tiles_change_nothing(rng: np.random.Generator) -> None:
    """Those of a GPU are larger; ties may come in any order, so there are none."""
    memories, queries = cloud(rng, "spread", 3000, 20), torch.from_numpy(cloud(rng, "spread", 700, 20))
    results = [
        PrunedSearch(torch.from_numpy(memories), 32, 0.2, tiling).search(queries, 3).rows
        for tiling in (Tiling(), GPU_TILING, SMALL)
    ]
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2])


def test_threads_change_nothing(rng: np.random.Generator) -> None:
    memories, queries = cloud(rng, "spread", 900, 20), torch.from_numpy(cloud(rng, "spread", 200, 20))
    search, threads = PrunedSearch(torch.from_numpy(memories), 32, 0.2, SMALL), torch.get_num_threads()
    results = []
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            with torch.inference_mode(count == 3):
                results.append(search.search(queries, 3).rows)
            assert torch.get_num_threads() == count
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2])


def test_a_full_search_that_rounds_loses_no_bound(rng: np.random.Generator) -> None:
    """Patches that are memories, in clusters so narrow that the expanded form cannot tell their members apart."""
    memories = cloud(rng, "clusters", 600, 38)
    search = PrunedSearch(torch.from_numpy(memories), 16, 0.0, Tiling(16, 300, 600))
    rows = search.search(torch.from_numpy(memories), 2).rows
    assert (rows >= 0).all()
    assert (brute_force(memories, memories)[np.arange(600)[:, None], rows] < 1).all()  # in their own cluster


def test_threads_lose_no_count(rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    def slow(tensor: torch.Tensor) -> int:
        time.sleep(1e-5)  # another thread's turn
        return tensor.shape[0]

    memories, queries = cloud(rng, "spread", 900, 20), torch.from_numpy(cloud(rng, "spread", 200, 20))
    search, threads = PrunedSearch(torch.from_numpy(memories), 16, 0.0, SMALL), torch.get_num_threads()
    shares = []
    monkeypatch.setattr(torch.Tensor, "__len__", slow)
    try:
        for count in (1, 4):
            torch.set_num_threads(count)
            shares.append(search.search(queries, 3).proved)
    finally:
        torch.set_num_threads(threads)
    assert shares[0] < 1
    assert len(set(shares)) == 1


def test_a_sum_in_another_order_loses_no_neighbor(
    rng: np.random.Generator,
) -> None:
    def jittered_squares(*pairs: torch.Tensor) -> torch.Tensor:
        squares = pair_squares(*pairs)
        toward = torch.from_numpy(rng.choice(np.array([-np.inf, np.inf], dtype=np.float32), size=len(squares)))
        return torch.nextafter(squares, toward).clamp(min=0)

    memories, queries = cloud(rng, "spread", 300, 20), torch.from_numpy(cloud(rng, "spread", 60, 20))
    # Clusters so large that the first bound is exact.
    exact, rounded = (
        PrunedSearch(torch.from_numpy(memories), 32, 1.0, Tiling(16, 24, cluster=300), measure=measure)
        for measure in (pair_squares, jittered_squares)
    )
    assert torch.equal(rounded.search(queries, 3).rows, exact.search(queries, 3).rows)


@pytest.mark.gpu
def test_gpu_and_cpu_prove_the_same(rng: np.random.Generator) -> None:
    memories, queries = cloud(rng, "spread", 5000, 96), torch.from_numpy(cloud(rng, "spread", 300, 96))
    on_cpu = PrunedSearch(torch.from_numpy(memories), 64, 0.2).search(queries, 3)
    on_gpu = PrunedSearch(torch.from_numpy(memories).cuda(), 64, 0.2).search(queries.cuda(), 3)
    assert torch.equal(on_cpu.rows, on_gpu.rows.cpu())
