"""The greedy's checkpoint: what was written comes back; whatever does not fit is as none."""

from pathlib import Path

import numpy as np
import pytest

from indexer.coreset.k_center import Checkpoint, GreedyState

POINTS, FIRST = 50, 7


def write_checkpoint(path: Path, progress: GreedyState) -> Checkpoint:
    checkpoint = Checkpoint(path)
    checkpoint.on_round(lambda: progress)
    checkpoint.flush()
    return Checkpoint(path)


@pytest.fixture
def progress(rng: np.random.Generator) -> GreedyState:
    return GreedyState(np.array([FIRST, 3, 9]), rng.random(POINTS).astype(np.float32), 128)


def test_what_was_written_comes_back(tmp_path: Path, progress: GreedyState) -> None:
    restored = write_checkpoint(tmp_path / "coreset.npz", progress).read(POINTS, FIRST)
    assert restored is not None
    np.testing.assert_array_equal(restored.rows, progress.rows)
    np.testing.assert_array_equal(restored.squared, progress.squared)
    assert restored.candidates == progress.candidates


def test_rounds_do_where_distances_are_not_written_down(tmp_path: Path) -> None:
    without = GreedyState(np.array([FIRST, 3, 9]), None, 128, (1, 2))
    restored = write_checkpoint(tmp_path / "coreset.npz", without).read(POINTS, FIRST)
    assert restored is not None
    assert (restored.squared, restored.rounds, restored.rows.tolist()) == (None, (1, 2), [FIRST, 3, 9])
    for rounds in ((1, 1), (1, 3, -1), ()):
        checkpoint = write_checkpoint(tmp_path / "other.npz", GreedyState(without.rows, None, 128, rounds))
        assert checkpoint.read(POINTS, FIRST) is None, rounds


def test_a_file_cut_anywhere_or_changed_is_as_none(tmp_path: Path, progress: GreedyState) -> None:
    path = tmp_path / "coreset.npz"
    checkpoint = write_checkpoint(path, progress)
    whole = path.read_bytes()
    for length in range(0, len(whole), 7):
        path.write_bytes(whole[:length])
        assert checkpoint.read(POINTS, FIRST) is None, length
    changed = bytearray(whole)
    assert progress.squared is not None
    changed[whole.index(progress.squared.tobytes()) + 5] ^= 1
    path.write_bytes(changed)
    assert checkpoint.read(POINTS, FIRST) is None
    np.save(path.with_suffix(".npy"), progress.rows)
    path.with_suffix(".npy").replace(path)
    assert checkpoint.read(POINTS, FIRST) is None


@pytest.mark.parametrize(
    ("rows", "squared"),
    [
        ([FIRST], np.ones(POINTS - 1)),
        ([FIRST + 1], np.ones(POINTS)),
        ([FIRST, POINTS], np.ones(POINTS)),
        ([FIRST, -1], np.ones(POINTS)),
        ([], np.ones(POINTS)),
        ([FIRST], np.full(POINTS, np.nan)),
        ([FIRST], np.ones((POINTS, 1))),
    ],
)
def test_what_is_of_another_greedy_is_as_none(
    tmp_path: Path, rows: list[int], squared: np.ndarray[tuple[int, ...], np.dtype[np.float64]]
) -> None:
    state = GreedyState(np.array(rows, dtype=np.int64), squared, 128)
    assert write_checkpoint(tmp_path / "coreset.npz", state).read(POINTS, FIRST) is None
