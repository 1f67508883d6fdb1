"""The memory bank against brute force in NumPy."""

import gc
import subprocess
import sys
import weakref
from pathlib import Path

import faiss
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from resad.errors import IndexInvalid, SettingError
from resad.memory_bank import FAISS_FILE, PROVENANCE_FILE, MemoryBank, Provenance


def bank_of(memories: NDArray[np.float32], photos: NDArray[np.int32] | None = None) -> MemoryBank:
    count = len(memories)
    origin = np.arange(count, dtype=np.int32) % 3 if photos is None else photos
    cells = np.stack([np.arange(count), np.arange(count) * 2], axis=1).astype(np.int16)
    return MemoryBank(memories, Provenance(origin, cells, np.arange(count, dtype=np.int32)))


def brute_force(features: NDArray[np.float32], memories: NDArray[np.float32]) -> NDArray[np.float64]:
    distances: NDArray[np.float64] = np.linalg.norm(features[:, None].astype(np.float64) - memories[None], axis=2)
    return distances


@settings(deadline=None, max_examples=25)
@given(
    seed=st.integers(0, 99),
    queries=st.integers(1, 40),
    count=st.integers(1, 200),
    d=st.integers(1, 30),
    data=st.data(),
)
def test_neighbors_are_those_of_brute_force(
    seed: int, queries: int, count: int, d: int, data: st.DataObject
) -> None:
    rng = np.random.default_rng(seed)
    memories = rng.normal(size=(count, d)).astype(np.float32)
    features = rng.normal(size=(queries, d)).astype(np.float32)
    k = data.draw(st.integers(1, count))
    neighbors = bank_of(memories).search(features, k)
    all_distances = brute_force(features, memories)
    np.testing.assert_allclose(neighbors.distances, np.sort(all_distances, axis=1)[:, :k], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(
        neighbors.distances, np.take_along_axis(all_distances, neighbors.rows, 1), rtol=1e-5, atol=1e-6
    )


def test_distances_do_not_cancel_for_near_neighbors(rng: np.random.Generator) -> None:
    """|q|^2 - 2qb + |b|^2 in float32 loses a distance of 1e-3 between vectors of length 100."""
    memories = rng.normal(size=(50, 64)).astype(np.float32) * 12
    features = memories + np.float32(1e-3)
    neighbors = bank_of(memories).search(features, 1)
    exact = np.linalg.norm(features.astype(np.float64) - memories[neighbors.rows[:, 0]], axis=1)
    np.testing.assert_allclose(neighbors.distances[:, 0], exact, rtol=1e-5)
    assert neighbors.rows[:, 0].tolist() == list(range(50))


def test_memories_keep_alive_what_they_lie_in(rng: np.random.Generator) -> None:
    """They are no copy: a view that outlived the index showed whatever came into its memory next."""
    vectors = rng.normal(size=(500, 64)).astype(np.float32)
    bank = bank_of(vectors)
    index, memories = weakref.ref(bank._flat), bank.memories
    del bank
    gc.collect()
    assert index() is not None
    np.testing.assert_array_equal(memories, vectors)
    del memories
    gc.collect()
    assert index() is None


def test_saved_and_loaded_is_the_same(tmp_path: Path, rng: np.random.Generator) -> None:
    bank = bank_of(rng.normal(size=(40, 9)).astype(np.float32))
    bank.save(tmp_path)
    loaded = MemoryBank.load(tmp_path)
    np.testing.assert_array_equal(loaded.memories, bank.memories)
    np.testing.assert_array_equal(loaded.provenance.photo, bank.provenance.photo)
    np.testing.assert_array_equal(loaded.provenance.cell, bank.provenance.cell)
    np.testing.assert_array_equal(loaded.provenance.pick, bank.provenance.pick)
    queries = rng.normal(size=(7, 9)).astype(np.float32)
    np.testing.assert_array_equal(loaded.search(queries, 3).distances, bank.search(queries, 3).distances)


def test_without_photos_is_a_bank_that_never_had_them(rng: np.random.Generator) -> None:
    memories = rng.normal(size=(30, 5)).astype(np.float32)
    bank = bank_of(memories).without_photos(np.array([0, 2], dtype=np.int32))
    assert set(bank.provenance.photo.tolist()) == {1}
    np.testing.assert_array_equal(bank.memories, memories[1::3])
    np.testing.assert_array_equal(bank.provenance.cell[:, 0], np.arange(30)[1::3])


def test_what_does_not_fit_is_refused(tmp_path: Path, rng: np.random.Generator) -> None:
    bank = bank_of(rng.normal(size=(4, 5)).astype(np.float32))
    with pytest.raises(IndexInvalid, match="6-dimensional"):
        bank.search(np.zeros((1, 6), np.float32), 1)
    with pytest.raises(IndexInvalid, match="5 neighbors"):
        bank.search(np.zeros((1, 5), np.float32), 5)
    with pytest.raises(IndexInvalid, match="cannot be read"):
        MemoryBank.load(tmp_path)
    bank.save(tmp_path)
    (tmp_path / PROVENANCE_FILE).write_bytes(b"PK nothing")
    with pytest.raises(IndexInvalid, match="cannot be read"):
        MemoryBank.load(tmp_path)
    bank.save(tmp_path)
    faiss.write_index(faiss.IndexFlatIP(5), str(tmp_path / FAISS_FILE))
    with pytest.raises(IndexInvalid, match="not a flat L2"):
        MemoryBank.load(tmp_path)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_memory_that_is_not_finite_is_refused(value: float, tmp_path: Path, rng: np.random.Generator) -> None:
    memories = rng.normal(size=(30, 5)).astype(np.float32)
    bank = bank_of(memories)
    memories[17, 2] = value
    with pytest.raises(IndexInvalid, match="memory 17 is not finite"):
        bank_of(memories)
    bank.save(tmp_path)
    flat = faiss.IndexFlatL2(5)
    flat.add(memories)
    faiss.write_index(flat, str(tmp_path / FAISS_FILE))
    with pytest.raises(IndexInvalid, match="memory 17 is not finite"):
        MemoryBank.load(tmp_path)


def test_a_gpu_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(faiss, "get_num_gpus", lambda: 0)
    origin = Provenance(np.zeros(1, np.int32), np.zeros((1, 2), np.int16), np.zeros(1, np.int32))
    with pytest.raises(SettingError, match="--device cpu"):
        MemoryBank(np.zeros((1, 2), np.float32), origin, gpu=0)


@pytest.mark.gpu
def test_gpu_and_cpu_find_the_same_distances(rng: np.random.Generator) -> None:
    memories = rng.normal(size=(5000, 96)).astype(np.float32)
    queries = rng.normal(size=(700, 96)).astype(np.float32)
    on_cpu = bank_of(memories)
    on_gpu = MemoryBank(memories, on_cpu.provenance, gpu=0)
    np.testing.assert_allclose(on_gpu.search(queries, 3).distances, on_cpu.search(queries, 3).distances, rtol=1e-5)


@pytest.fixture
def saved_bank(tmp_path: Path) -> Path:
    memories = np.random.default_rng(0).random((50, 16)).astype(np.float32)
    zeros = np.zeros(50, np.int32)
    MemoryBank(memories, Provenance(zeros, np.zeros((50, 2), np.int16), zeros)).save(tmp_path)
    return tmp_path


@pytest.mark.parametrize("file", ["memory_bank.faiss", "provenance.npz"])
def test_a_damaged_file_is_refused_and_crashes_nothing(saved_bank: Path, file: str) -> None:
    """In a process of its own, which FAISS ends where it believes a size."""
    code = (
        "import random, sys; from pathlib import Path\n"
        "from resad.errors import IndexInvalid; from resad.memory_bank import MemoryBank\n"
        "file = Path(sys.argv[1]) / sys.argv[2]; sound = file.read_bytes(); choose = random.Random(0)\n"
        "for number in range(400):\n"
        "    data = bytearray(sound)\n"
        "    for _ in range(choose.choice((1, 2, 5))): data[choose.randrange(120)] = choose.randrange(256)\n"
        "    file.write_bytes(data[: choose.randrange(len(data))] if number % 9 == 0 else data)\n"
        "    try: MemoryBank.load(file.parent)\n"
        "    except IndexInvalid: pass\n"
        "print('done')"
    )  # fmt: skip
    process = subprocess.run([sys.executable, "-c", code, saved_bank, file], capture_output=True, text=True)
    assert (process.returncode, process.stdout.strip()) == (0, "done"), process.stderr


def test_a_size_that_lies_is_named(saved_bank: Path) -> None:
    file = saved_bank / "memory_bank.faiss"
    data = bytearray(file.read_bytes())
    data[37:45] = (1 << 40).to_bytes(8, "little")
    file.write_bytes(data)
    with pytest.raises(IndexInvalid, match="50 vectors of 16 values in 1099511627776 numbers, and has 3245 bytes"):
        MemoryBank.load(saved_bank)


@pytest.mark.parametrize("count", [10, 5000])
def test_a_full_disk_is_named(tmp_path: Path, count: int) -> None:
    """Also where only the last bytes do not fit."""
    (tmp_path / "memory_bank.faiss").symlink_to("/dev/full")
    zeros = np.zeros(count, np.int32)
    bank = MemoryBank(np.zeros((count, 16), np.float32), Provenance(zeros, np.zeros((count, 2), np.int16), zeros))
    with pytest.raises(OSError, match="No space left on device"):
        bank.save(tmp_path)
