"""All ways to search a memory bank against brute force, and the exact image score over an approximate search."""

from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from resad.config import MethodConfig, ScoreConfig, SearchConfig
from resad.detector import measure
from resad.encoder import PatchFeatures
from resad.errors import IndexInvalid, SettingError
from resad.memory_bank import PLAN_FILE, MemoryBank
from resad.search.flat import (
    SEARCH_FILE,
    FaissOnGpu,
    FlatSearch,
    TorchSearch,
    check_fits,
    faster_on_gpu,
    fastest,
    flat_index,
    memories_on,
)
from resad.search.plan import SearchKind, SearchPlan
from tests.resad.test_memory_bank import bank_of, brute_force

ROUGH = {
    "flat": SearchPlan(),
    "proved": SearchPlan("proved", width=32),
    "ivf": SearchPlan("ivf", lists=40, probes=1),
}
"""The approximate ones with settings so rough that they often miss."""
GRID = 24
SIDE = 96


def random_points(rng: np.random.Generator, count: int, query_count: int) -> tuple[np.ndarray, np.ndarray]:
    points = rng.normal(size=(count + query_count, 24)).astype(np.float32)
    return points[:count], points[count:]


def bank_with_search(kind: SearchKind, memories: np.ndarray) -> MemoryBank:
    return bank_of(memories).with_plan(ROUGH[kind])


@pytest.mark.parametrize("kind", ["flat", "proved", "ivf"])
@pytest.mark.parametrize(
    ("value", "line"),
    [(np.nan, "patch 3 is not finite"), (np.inf, "patch 3 is not finite"), (1e25, "patch 3 is too far")],
)
def test_a_patch_without_distances_is_refused(
    kind: SearchKind, value: float, line: str, rng: np.random.Generator
) -> None:
    memories, queries = random_points(rng, 200, 6)
    bank = bank_with_search(kind, memories)
    queries[3, 1] = value
    for search in (bank.search, bank.search_fast):
        with pytest.raises(IndexInvalid, match=line):
            search(queries, 2)


@pytest.mark.parametrize("kind", ["flat", "proved", "ivf"])
def test_exact_search_and_evidence_are_those_of_brute_force(kind: SearchKind, rng: np.random.Generator) -> None:
    memories, queries = (
        rng.normal(size=(2000, 24)).astype(np.float32),
        rng.normal(size=(60, 24)).astype(np.float32),
    )
    bank = bank_with_search(kind, memories)
    expected = np.sort(brute_force(queries, memories), axis=1)[:, :4]
    flat = bank_of(memories).search(queries, 4)
    neighbors = bank.search(queries, 4)
    np.testing.assert_allclose(neighbors.distances, expected, rtol=1e-5)
    np.testing.assert_array_equal(
        neighbors.distances[neighbors.rows == flat.rows], flat.distances[neighbors.rows == flat.rows]
    )
    fast = bank.search_fast(queries, 4)
    assert (fast.distances >= expected * (1 - 1e-5)).all()
    assert (fast.rows >= 0).all()
    assert bank.plan.exact == np.allclose(fast.distances, expected, rtol=1e-5)


@pytest.mark.parametrize("kind", ["flat", "proved", "ivf"])
def test_saved_and_loaded_searches_alike(kind: SearchKind, tmp_path: Path, rng: np.random.Generator) -> None:
    memories, queries = (
        rng.normal(size=(2000, 24)).astype(np.float32),
        rng.normal(size=(60, 24)).astype(np.float32),
    )
    bank = bank_with_search(kind, memories)
    bank.save(tmp_path)
    loaded = MemoryBank.load(tmp_path)
    assert loaded.plan == bank.plan
    for a, b in (
        (loaded.search_fast(queries, 3), bank.search_fast(queries, 3)),
        (loaded.search(queries, 3), bank.search(queries, 3)),
    ):
        np.testing.assert_array_equal(a.rows, b.rows)
        np.testing.assert_array_equal(a.distances, b.distances)


def test_a_plan_or_lists_that_do_not_fit_are_refused(tmp_path: Path, rng: np.random.Generator) -> None:
    bank_with_search("ivf", rng.normal(size=(200, 8)).astype(np.float32)).save(tmp_path)
    lists = (tmp_path / SEARCH_FILE).read_bytes()
    bank_of(rng.normal(size=(201, 8)).astype(np.float32)).save(tmp_path)
    with pytest.raises(IndexInvalid, match="is not the ivf search"):
        MemoryBank.load(tmp_path)
    (tmp_path / SEARCH_FILE).write_bytes(lists[:100])
    with pytest.raises(IndexInvalid, match="cannot be read"):
        MemoryBank.load(tmp_path)
    (tmp_path / PLAN_FILE).write_text('{"kind": "hnsw", "links": 32, "breadth": 64}')
    with pytest.raises(IndexInvalid, match=r"hnsw is a search .*; rebuild the index: resad-indexer build"):
        MemoryBank.load(tmp_path)
    (tmp_path / PLAN_FILE).write_text('{"kind": "guess"}')
    with pytest.raises(IndexInvalid, match="cannot be read"):
        MemoryBank.load(tmp_path)


@pytest.mark.parametrize("kind", ["proved", "ivf"])
def test_without_photos_is_searched_exactly(kind: SearchKind, rng: np.random.Generator) -> None:
    memories, queries = random_points(rng, 900, 40)
    part = bank_with_search(kind, memories).without_photos(np.array([1], dtype=np.int32))
    remaining = memories[np.arange(900) % 3 != 1]
    np.testing.assert_array_equal(part.memories, remaining)
    expected = np.sort(brute_force(queries, remaining), axis=1)[:, :3]
    np.testing.assert_allclose(part.search_fast(queries, 3).distances, expected, rtol=1e-5)
    assert part.plan.exact


def field(rng: np.random.Generator, d: int) -> tuple[PatchFeatures, np.ndarray]:
    """A disc of patches and its mask."""
    y, x = np.mgrid[:GRID, :GRID]
    valid = np.hypot(y - 11.5, x - 11.5) < 11
    rows, columns = np.mgrid[:SIDE, :SIDE]
    mask = np.hypot(rows - 47.5, columns - 47.5) < 42
    cells = np.argwhere(valid).astype(np.int16)
    return PatchFeatures(rng.normal(size=(len(cells), d)).astype(np.float32), cells, (GRID, GRID)), mask


@settings(deadline=None, max_examples=25)
@given(
    seed=st.integers(0, 999),
    score=st.sampled_from(["max", "top_mean"]),
    share=st.sampled_from([0.001, 0.02, 0.3]),
    k=st.integers(1, 4),
    mirrored=st.booleans(),
)
def test_image_score_is_exact_whatever_the_search_missed(
    seed: int,
    score: Literal["max", "top_mean"],
    share: float,
    k: int,
    mirrored: bool,
) -> None:
    rng = np.random.default_rng(seed)
    patches, mask = field(rng, 16)
    if mirrored:
        patches = replace(patches, mirrored=rng.normal(size=patches.features.shape).astype(np.float32))
    bank = bank_with_search("ivf", rng.normal(size=(1600, 16)).astype(np.float32))
    config = MethodConfig(
        search=SearchConfig(neighbors=k),
        score=ScoreConfig(score, share=share),
    )
    approximate, exact = (
        measure(patches, mask, searched_bank, config) for searched_bank in (bank, bank.with_plan(SearchPlan()))
    )
    assert approximate.image_score == pytest.approx(exact.image_score, rel=1e-6)
    assert approximate.peak == pytest.approx(exact.peak, rel=1e-6)
    assert (approximate.anomaly_map >= exact.anomaly_map * (1 - 1e-5)).all()
    views = [view for view in (patches.features, patches.mirrored) if view is not None]
    smaller = np.min([bank.search(view, k).distances.mean(axis=1) for view in views], axis=0)
    np.testing.assert_allclose(exact.patch_distances, smaller, rtol=1e-6)


def test_without_the_exact_step_the_score_would_be_off(rng: np.random.Generator) -> None:
    patches, _ = field(rng, 16)
    bank = bank_with_search("ivf", rng.normal(size=(1600, 16)).astype(np.float32))
    fast, exact = bank.search_fast(patches.features, 1), bank.search(patches.features, 1)
    assert fast.distances.max() > exact.distances.max() * 1.01


def test_torch_finds_what_faiss_finds(rng: np.random.Generator) -> None:
    memories, queries = (
        rng.normal(size=(3000, 24)).astype(np.float32),
        rng.normal(size=(50, 24)).astype(np.float32),
    )
    rows = TorchSearch(torch.from_numpy(memories)).rows(queries, 3)
    np.testing.assert_array_equal(rows[:, :3], np.argsort(brute_force(queries, memories), axis=1)[:, :3])
    assert TorchSearch(torch.from_numpy(memories)).rows(queries[:0], 3).shape[0] == 0


@pytest.mark.gpu
def test_faiss_and_torch_on_a_gpu_find_what_the_cpu_finds(rng: np.random.Generator) -> None:
    memories = rng.normal(size=(20_000, 96)).astype(np.float32)
    queries = rng.normal(size=(900, 96)).astype(np.float32)
    expected = FlatSearch(flat_index(memories), len(memories)).rows(queries, 3)[:, :3]
    on_gpu = TorchSearch(memories_on(memories, torch.device("cuda:0")))
    for search in (FaissOnGpu(flat_index(memories), 0), on_gpu):
        np.testing.assert_array_equal(search.rows(queries, 3)[:, :3], expected)
    assert type(faster_on_gpu(flat_index(memories), memories, 0)) in (FaissOnGpu, TorchSearch)
    with pytest.raises(SettingError, match="FAISS sees"):
        faster_on_gpu(flat_index(memories), memories, torch.cuda.device_count())


def test_the_faster_search_is_kept(rng: np.random.Generator) -> None:
    class Slow(TorchSearch):
        def rows(self, features: np.ndarray, k: int) -> np.ndarray:
            clock[0] += 5.0
            return super().rows(features, k)

    clock = [0.0]
    memories = rng.normal(size=(50, 4)).astype(np.float32)
    slow, quick = Slow(torch.from_numpy(memories)), TorchSearch(torch.from_numpy(memories))
    assert fastest([slow, quick], memories, lambda: clock[0]) is quick


def test_a_bank_larger_than_the_memory_left_is_refused_with_numbers() -> None:
    check_fits(2**30, 2**31, 2**32)
    with pytest.raises(SettingError, match=r"takes 8.5 GiB .* 2.0 of 4.0 GiB are free"):
        check_fits(2**33, 2**31, 2**32)


def test_plans_are_recorded_as_json(tmp_path: Path, rng: np.random.Generator) -> None:
    bank = bank_with_search("ivf", rng.normal(size=(200, 8)).astype(np.float32))
    bank.save(tmp_path)
    assert MemoryBank.load(tmp_path).plan == replace(ROUGH["ivf"])
    text = (tmp_path / PLAN_FILE).read_text()
    assert '"ivf"' in text
    (tmp_path / PLAN_FILE).write_text(text.replace("{", '{"links": 32, "breadth": 64,'))  # as older plans have it
    assert MemoryBank.load(tmp_path).plan == ROUGH["ivf"]
