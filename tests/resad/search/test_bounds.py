"""Memories in the order of what is alike."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from resad.search.bounds import Clusters, bisect
from tests.resad.search.test_pruned import KINDS, cloud


def parts_of(leaves: Clusters) -> list[torch.Tensor]:
    return [leaves.order[start:stop] for start, stop in pairwise(leaves.starts.tolist())]


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 99),
    kind=st.sampled_from(KINDS),
    count=st.integers(1, 300),
    size=st.integers(1, 40),
    share=st.floats(0.02, 1),
)
def test_every_memory_lies_in_one_leaf_whatever_is_left_out(
    seed: int, kind: str, count: int, size: int, share: float
) -> None:
    rng = np.random.default_rng(seed)
    leaves = bisect(torch.from_numpy(cloud(rng, kind, count, 6)), size)
    assert torch.equal(leaves.order.sort().values, torch.arange(count))
    parts = parts_of(leaves)
    assert all(0 < len(part) <= size for part in parts)
    rows = np.flatnonzero(rng.random(count) < share)
    rows = rows if len(rows) else np.array([count - 1])
    subset = leaves.subset(torch.from_numpy(rows))
    remaining = [[row for row in part.tolist() if row in rows] for part in parts]
    assert [torch.from_numpy(rows)[part].tolist() for part in parts_of(subset)] == [
        part for part in remaining if part
    ]


def test_a_leaf_holds_what_is_alike(rng: np.random.Generator) -> None:
    groups = 10 * rng.normal(size=(8, 12))
    points = groups[np.arange(400) % 8] + 0.1 * rng.normal(size=(400, 12))
    leaves = bisect(torch.from_numpy(points.astype(np.float32)), 100)
    for part in parts_of(leaves):
        assert len(set((part % 8).tolist())) <= 3


@pytest.mark.parametrize("value", [1e38, -1e38])
def test_the_largest_numbers_still_have_an_order(value: float, rng: np.random.Generator) -> None:
    points = cloud(rng, "spread", 50, 6)
    points[7] = value
    order = bisect(torch.from_numpy(points), 8).order
    assert torch.equal(order.sort().values, torch.arange(50))
