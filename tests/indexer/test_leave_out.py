"""Left-out scores against banks that are really built without the photo."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from indexer.build.feature_store import FeatureStore
from indexer.calibration.leave_out import (
    CpuPart,
    DevicePart,
    LeftOut,
    LeftOutBanks,
    Part,
    leave_out,
    left_out_distances,
    score_left_out,
)
from indexer.settings import method_config
from resad.detector import measure
from resad.encoder import PatchFeatures
from resad.errors import IndexInvalid, SettingError
from resad.memory_bank import MemoryBank, Provenance
from resad.near_duplicates import group_photos

CONFIG = method_config("resad", settings=["search.neighbors=2", "score.kind=max"])
PHOTOS, SIDE, D = 5, 32, 6


def patches(rng: np.random.Generator) -> PatchFeatures:
    cells = np.stack(np.meshgrid(range(4), range(4), indexing="ij"), -1).reshape(-1, 2).astype(np.int16)
    return PatchFeatures(rng.normal(size=(16, D)).astype(np.float32), cells, (4, 4))


@pytest.fixture
def store(tmp_path: Path, rng: np.random.Generator) -> FeatureStore:
    store = FeatureStore(tmp_path / "features")
    for _ in range(PHOTOS):
        store.append(patches(rng))
    return store


def bank_of(store: FeatureStore, rows: NDArray[np.int64]) -> MemoryBank:
    photos, _ = store.locate(rows)
    order = np.arange(len(rows), dtype=np.int32)
    return MemoryBank(store.gather(rows), Provenance(photos.astype(np.int32), store.cells(rows), order))


def left_out(
    store: FeatureStore, bank: MemoryBank, patients: list[str | None], part: Part | None = None
) -> LeftOut:
    masks, groups = [np.ones((SIDE, SIDE), dtype=bool)] * PHOTOS, group_photos(patients)
    if part is None:
        return leave_out(store, masks, groups, bank, CONFIG, lambda _: None)
    distances = left_out_distances(store, groups, bank, CONFIG.search.neighbors, lambda _: None, part=part)
    return score_left_out(*distances, masks, CONFIG)


def test_scores_are_those_against_a_bank_without_the_photo(store: FeatureStore) -> None:
    rows = np.arange(0, PHOTOS * 16, 3)
    result = left_out(store, bank_of(store, rows), [None] * PHOTOS)
    for number in range(PHOTOS):
        bank = bank_of(store, rows[(rows // 16) != number])
        expected = measure(store.photo(number), np.ones((SIDE, SIDE), dtype=bool), bank, CONFIG)
        assert result.scores[number] == pytest.approx(expected.image_score, rel=1e-6)
        assert result.peaks[number] == pytest.approx(expected.peak, rel=1e-6)
    assert result.calibration.scores == tuple(sorted(result.scores))


def test_left_out_too_the_nearer_one_of_both_images_counts(tmp_path: Path, rng: np.random.Generator) -> None:
    store = FeatureStore(tmp_path / "both")
    for _ in range(PHOTOS):
        store.append(replace(patches(rng), mirrored=rng.normal(size=(16, D)).astype(np.float32)))
    rows = np.arange(0, PHOTOS * 16, 3)
    result = left_out(store, bank_of(store, rows), [None] * PHOTOS)
    for number, photo in enumerate(store):
        bank = bank_of(store, rows[(rows // 16) != number])
        expected = measure(photo, np.ones((SIDE, SIDE), dtype=bool), bank, CONFIG)
        assert result.scores[number] == pytest.approx(expected.image_score, rel=1e-6)
        np.testing.assert_allclose(result.patch_distances[number].distances, expected.patch_distances, rtol=1e-6)


def test_a_patients_photos_are_left_out_together(store: FeatureStore) -> None:
    rows = np.arange(0, PHOTOS * 16, 3)
    result = left_out(store, bank_of(store, rows), ["a", None, "a", "b", None])
    without_a = bank_of(store, rows[~np.isin(rows // 16, [0, 2])])
    expected = measure(store.photo(0), np.ones((SIDE, SIDE), dtype=bool), without_a, CONFIG)
    assert result.scores[0] == pytest.approx(expected.image_score, rel=1e-6)


def test_the_covering_radius_is_over_all_patches_and_all_memories(store: FeatureStore) -> None:
    rows = np.array([0, 5, 17, 40, 41, 70])
    all_features = np.concatenate([photo.features for photo in store])
    memories = store.gather(rows)
    expected = np.linalg.norm(all_features[:, None] - memories[None], axis=2).min(axis=1).max()
    result = left_out(store, bank_of(store, rows), [None] * PHOTOS)
    assert result.covering_radius == pytest.approx(expected, rel=1e-5)


def search_copies(store: FeatureStore, bank: MemoryBank, patients: list[str | None]) -> tuple[list[float], float]:
    """The obvious way: a bank of its own for each photo, and one of what was left out of it."""
    distances, radius = [], 0.0
    for number, patches in enumerate(store):
        patient = patients[number]
        group = [number] if patient is None else [i for i, name in enumerate(patients) if name == patient]
        rest = [i for i in range(PHOTOS) if i not in group]
        neighbors = bank.without_photos(np.array(group, dtype=np.int32)).search(patches.features, 2)
        distances.append(neighbors.distances.mean(axis=1))
        nearest = neighbors.distances[:, 0]
        group_bank = bank.without_photos(np.array(rest, dtype=np.int32))
        if len(group_bank):
            nearest = np.minimum(nearest, group_bank.search(patches.features, 1).distances[:, 0])
        radius = max(radius, float(nearest.max()))
    return np.concatenate(distances).tolist(), radius


@pytest.mark.parametrize("patients", [[None] * PHOTOS, ["a", None, "a", "b", "b"]])
@pytest.mark.parametrize("in_order", [True, False])
@pytest.mark.parametrize("on_device", [True, False])
def test_nothing_differs_from_banks_that_are_copied(
    store: FeatureStore,
    rng: np.random.Generator,
    patients: list[str | None],
    in_order: bool,
    on_device: bool,
) -> None:
    rows = rng.choice(PHOTOS * 16, 31, replace=False)
    rows = np.sort(rows[rows // 16 != 3] if in_order else rows)  # photo 3 without a memory, too
    if not in_order:
        rows = rng.permutation(rows)
    bank = bank_of(store, rows)
    distances, radius = search_copies(store, bank, patients)
    # The CPU stands for the device.
    part = DevicePart(torch.from_numpy(bank.memories), 500) if on_device else None
    result = left_out(store, bank, patients, part)
    assert result.covering_radius == pytest.approx(radius, rel=1e-6)
    quantiles = np.quantile(
        np.array(distances, dtype=np.float32), [quantile.at for quantile in result.calibration.patches]
    )
    np.testing.assert_allclose([quantile.value for quantile in result.calibration.patches], quantiles, rtol=1e-6)


def test_rows_that_are_found_are_the_whole_banks(store: FeatureStore) -> None:
    bank = bank_of(store, np.arange(0, PHOTOS * 16, 3))
    features = store.photo(2).features
    part = LeftOutBanks(bank).without([1, 3])
    neighbors = part.search(features, 4)
    keep = np.flatnonzero(~np.isin(bank.provenance.photo, [1, 3]))
    expected = bank.without_photos(np.array([1, 3], dtype=np.int32)).search(features, 4)
    np.testing.assert_array_equal(neighbors.rows, keep[expected.rows])
    np.testing.assert_allclose(neighbors.distances, expected.distances, rtol=1e-6)
    assert part.count == len(keep)
    assert part.search_group is not None
    assert set(bank.provenance.photo[part.search_group(features, 1).rows[:, 0]].tolist()) <= {1, 3}


def parts_of(memories: NDArray[np.float32], values: int) -> list[Part]:
    """What searches on the CPU, and what searches on a device, the CPU being one."""
    return [CpuPart(memories), DevicePart(torch.from_numpy(memories), values)]


@settings(deadline=None)
@given(data=st.data())
def test_any_part_of_a_bank_is_searched_like_a_bank_of_that_part(data: st.DataObject) -> None:
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    memories = (rng.normal(size=(data.draw(st.integers(1, 60)), D)) + data.draw(st.sampled_from([0, 100]))).astype(
        np.float32
    )
    chosen = rng.random(len(memories)) < data.draw(st.sampled_from([0.1, 0.5, 0.9, 1.0]))
    features = np.concatenate([memories[:5], memories[:1] + rng.normal(size=(9, D)).astype(np.float32)])
    k = data.draw(st.integers(1, 12))
    rows = np.flatnonzero(chosen)
    for part in parts_of(memories, data.draw(st.sampled_from([1, 200, 10_000]))):
        if k > len(rows):
            with pytest.raises(IndexInvalid, match=f"{k} neighbors asked of {len(rows)} memories"):
                part.search(chosen, features, k)
            continue
        neighbors = part.search(chosen, features, k)
        distances = np.linalg.norm(features[:, None].astype(float) - memories[rows], axis=2)
        np.testing.assert_array_equal(neighbors.rows, rows[np.argsort(distances, axis=1, kind="stable")[:, :k]])
        np.testing.assert_allclose(neighbors.distances, np.sort(distances, axis=1)[:, :k], rtol=1e-4, atol=1e-5)


def test_no_patches_have_no_neighbors(rng: np.random.Generator) -> None:
    memories, features = rng.normal(size=(300, D)).astype(np.float32), np.empty((0, D), dtype=np.float32)
    for part in parts_of(memories, 10_000):
        neighbors = part.search(np.arange(300) > 200, features, 3)
        assert (neighbors.distances.shape, neighbors.rows.shape) == ((0, 3), (0, 3))


@pytest.mark.gpu
@pytest.mark.parametrize("patients", [[None] * PHOTOS, ["a", None, "a", "b", "b"]])
def test_gpu_and_cpu_leave_out_alike(
    store: FeatureStore, rng: np.random.Generator, patients: list[str | None]
) -> None:
    rows = np.sort(rng.choice(PHOTOS * 16, 40, replace=False))
    on_cpu = bank_of(store, rows)
    on_gpu = MemoryBank(on_cpu.memories, on_cpu.provenance, gpu=0)
    actual, expected = (left_out(store, bank, patients) for bank in (on_gpu, on_cpu))
    np.testing.assert_allclose(actual.scores, expected.scores, rtol=1e-5)
    for on_gpu_photo, on_cpu_photo in zip(actual.patch_distances, expected.patch_distances, strict=True):
        np.testing.assert_allclose(on_gpu_photo.distances, on_cpu_photo.distances, rtol=1e-5)
    assert actual.covering_radius == pytest.approx(expected.covering_radius, rel=1e-5)


def test_a_bank_that_is_one_photos_alone_is_refused(store: FeatureStore) -> None:
    with pytest.raises(SettingError, match="fewer than the 2 neighbors"):
        left_out(store, bank_of(store, np.arange(4)), [None] * PHOTOS)
    with pytest.raises(SettingError, match="0 remain"):
        left_out(store, bank_of(store, np.arange(40)), ["same"] * PHOTOS)


def test_store_rows_lead_back_to_their_photo(store: FeatureStore) -> None:
    rows = np.array([79, 0, 16, 15, 33])
    photos, local = store.locate(rows)
    assert photos.tolist() == [4, 0, 1, 0, 2]
    assert local.tolist() == [15, 0, 0, 15, 1]
    all_features = np.concatenate([photo.features for photo in store])
    np.testing.assert_array_equal(store.gather(rows), all_features[rows])
    np.testing.assert_array_equal(store.cells(rows)[1], [0, 0])
