"""TF32 stays out of every search and of the greedy, and is back afterwards."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from indexer.build.feature_store import FeatureStore
from indexer.calibration.leave_out import DevicePart
from indexer.coreset.k_center import greedy_k_center, shards_of
from indexer.coreset.selection import projected_chunks
from resad import runtime
from resad.device import full_float32
from resad.encoder import PatchFeatures
from resad.search.flat import TorchSearch
from resad.search.pruned import PrunedSearch, Tiling


@pytest.fixture(autouse=True)
def half() -> Iterator[None]:
    """As the process of an index in half precision is set."""
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32
    runtime.configure("half")
    yield
    matmul.allow_tf32, cudnn.allow_tf32 = before


@pytest.fixture
def tf32_settings(monkeypatch: pytest.MonkeyPatch) -> dict[str, set[bool]]:
    """Whether TF32 was allowed at each matrix product of a search, by the name of the product."""
    settings: dict[str, set[bool]] = {}

    def watch(owner: Any, name: str) -> None:
        original = getattr(owner, name)

        def product(*arguments: Any, **options: Any) -> Any:
            settings.setdefault(name, set()).add(torch.backends.cuda.matmul.allow_tf32)
            return original(*arguments, **options)

        monkeypatch.setattr(owner, name, product)

    watch(torch, "addmm")
    watch(torch, "einsum")
    watch(torch, "matmul")
    return settings


def test_no_search_uses_tf32(tf32_settings: dict[str, set[bool]], rng: np.random.Generator) -> None:
    memories, queries = (torch.from_numpy(rng.normal(size=(n, 8)).astype(np.float32)) for n in (100, 20))
    PrunedSearch(memories, 16, 0.0, Tiling(16, 24, 8)).search(queries, 3)  # its quantizer and its full search
    assert tf32_settings == {"addmm": {False}}
    tf32_settings.clear()
    TorchSearch(memories).rows(queries.numpy(), 3)
    assert tf32_settings == {"addmm": {False}}
    assert torch.backends.cuda.matmul.allow_tf32


def test_the_greedy_does_not_use_tf32(tf32_settings: dict[str, set[bool]], rng: np.random.Generator) -> None:
    points = torch.from_numpy(rng.normal(size=(300, 8)).astype(np.float32))
    greedy_k_center(shards_of(points, 100), 0, count=40)
    assert tf32_settings == {"addmm": {False}, "einsum": {False}}


def test_the_projection_does_not_use_tf32(tf32_settings: dict[str, set[bool]], tmp_path: Path) -> None:
    store = FeatureStore(tmp_path / "features")
    features = np.ones((5, 8), dtype=np.float32)
    store.append(PatchFeatures(features, np.zeros((5, 2), dtype=np.int16), (5, 1)))
    (chunk,) = projected_chunks(store, None, torch.ones(8, 3), torch.device("cpu"))
    assert tf32_settings == {"matmul": {False}}
    assert chunk.tolist() == [[8, 8, 8]] * 5


def test_the_calibration_does_not_use_tf32(tf32_settings: dict[str, set[bool]], rng: np.random.Generator) -> None:
    memories = rng.normal(size=(50, 8)).astype(np.float32)
    DevicePart(torch.from_numpy(memories)).search(np.arange(50) > 9, memories, 3)
    assert tf32_settings == {"addmm": {False}}


@pytest.mark.parametrize("allowed", [False, True])
def test_the_setting_is_restored_whatever_happens(allowed: bool) -> None:
    torch.backends.cuda.matmul.allow_tf32 = allowed
    with pytest.raises(ZeroDivisionError), full_float32(), full_float32():
        raise ZeroDivisionError
    assert torch.backends.cuda.matmul.allow_tf32 == allowed


def test_searches_that_overlap_on_two_threads_restore_it_once() -> None:
    inside, leave = threading.Event(), threading.Event()

    def second_search() -> None:
        with full_float32():
            inside.set()
            leave.wait(5)

    thread = threading.Thread(target=second_search)
    with full_float32():
        thread.start()
        inside.wait(5)
    assert not torch.backends.cuda.matmul.allow_tf32  # the other one still searches
    leave.set()
    thread.join(5)
    assert torch.backends.cuda.matmul.allow_tf32
