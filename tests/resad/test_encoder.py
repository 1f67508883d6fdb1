"""Encoding: the same features alone and in a batch, on the patches that touch the field of view."""

import numpy as np
import pytest
import torch

from indexer.settings import method_config
from resad import resc
from resad.backbone import load_backbone
from resad.config import MethodConfig, Preset
from resad.encoder import Encoder, Trunk
from resad.preparation import PreparedPhoto
from tests.conftest import mirror_image, prepared

SIDE = 128


def trunk(config: MethodConfig, device: str = "cpu") -> Trunk:
    return Trunk(load_backbone(config.backbone, "random:0"), config, torch.device(device))


def encoder(config: MethodConfig, device: str = "cpu") -> Encoder:
    return Encoder(trunk(config, device))


@pytest.fixture
def photos(rng: np.random.Generator) -> list[PreparedPhoto]:
    steps = np.arange(SIDE) + 0.5 - SIDE / 2
    disc = np.hypot(steps[:, None], steps) < 50
    pixels = rng.integers(0, 255, (3, SIDE, SIDE, 3), dtype=np.uint8)
    return [prepared(pixels[0], disc), prepared(pixels[1]), prepared(pixels[2], np.roll(disc, 9, axis=1))]


@pytest.mark.parametrize("preset", ["resad", "paper", "patchcore"])
def test_features_are_the_same_alone_and_in_a_batch(photos: list[PreparedPhoto], preset: Preset) -> None:
    preset_encoder = encoder(method_config(preset, backbone="resnet18", size=SIDE))
    batch = preset_encoder.encode(photos)
    for photo, batched in zip(photos, batch, strict=True):
        single = preset_encoder.encode([photo])[0]
        np.testing.assert_array_equal(single.cells, batched.cells)
        np.testing.assert_array_equal(single.features, batched.features)


def test_the_mirror_image_is_encoded_as_any_photograph(photos: list[PreparedPhoto]) -> None:
    config = method_config("resad", backbone="resnet18", size=SIDE, settings=["search.mirrored=false"])
    plain_encoder = encoder(config)
    batch = encoder(method_config("resad", backbone="resnet18", size=SIDE)).encode(photos)
    for photo, patches in zip(photos, batch, strict=True):
        np.testing.assert_array_equal(patches.features, plain_encoder.encode([photo])[0].features)
        (image,) = plain_encoder.encode([mirror_image(photo)])
        rows = {(y, 15 - x): row for row, (y, x) in enumerate(image.cells.tolist())}
        expected = image.features[[rows[y, x] for y, x in patches.cells.tolist()]]
        np.testing.assert_array_equal(patches.mirrored, expected)
    assert plain_encoder.encode(photos[:1])[0].mirrored is None


def test_patches_are_those_that_touch_the_field_of_view(photos: list[PreparedPhoto]) -> None:
    resad_encoder = encoder(method_config("resad", backbone="resnet18", size=SIDE))
    for photo, patches in zip(photos, resad_encoder.encode(photos), strict=True):
        assert patches.grid == (16, 16)
        expected = [(y, x) for y in range(16) for x in range(16)
                    if photo.mask[8 * y : 8 * y + 8, 8 * x : 8 * x + 8].any()]  # fmt: skip
        assert list(map(tuple, patches.cells.tolist())) == expected
        assert patches.features.shape == (len(expected), 384)


def test_what_lies_outside_the_field_of_view_takes_no_part_in_resc(rng: np.random.Generator) -> None:
    """Features far inside the disc do not change when cells outside it do: neither filter may read them."""
    config = method_config("resad", backbone="resnet18", size=SIDE)
    stages = [torch.rand(1, 4, 16, 16)]
    valid = torch.zeros(1, 16, 16, dtype=torch.bool)
    valid[:, 4:12, 4:12] = True
    before = resc.combine(stages, valid, config.resc)
    stages[0][~valid[:, None].expand_as(stages[0])] = 99.0
    after = resc.combine(stages, valid, config.resc)
    torch.testing.assert_close(before, after)
    assert (after[:, :, ~valid[0]] == 0).all()


def test_the_callers_trunk_keeps_its_weights_in_half_precision() -> None:
    config = method_config("resad", backbone="resnet18", size=SIDE, precision="half")
    backbone = load_backbone(config.backbone, "random:0")
    Trunk(backbone, config, torch.device("cpu"))
    assert {tensor.dtype for tensor in backbone.state_dict().values()} == {torch.float32, torch.int64}


def test_pixels_are_normalized_as_the_weights_expect() -> None:
    resad_trunk = trunk(method_config("resad", backbone="resnet18", size=SIDE))
    gray = torch.full((1, 2, 2, 3), 128, dtype=torch.uint8)
    expected = (128 / 255 - torch.tensor([0.485, 0.456, 0.406])) / torch.tensor([0.229, 0.224, 0.225])
    torch.testing.assert_close(resad_trunk._normalize(gray)[0, :, 0, 0], expected)


def test_batches_begun_before_earlier_ones_are_awaited_give_the_same_features(
    photos: list[PreparedPhoto],
) -> None:
    resad_encoder = encoder(method_config("resad", backbone="resnet18", size=SIDE))
    encodings = [resad_encoder.begin(photos[:2]), resad_encoder.begin(photos[2:]), resad_encoder.begin([])]
    results = [patches for encoding in encodings for patches in encoding.result()]
    for expected, result in zip(resad_encoder.encode(photos), results, strict=True):
        np.testing.assert_array_equal(expected.features, result.features)
        np.testing.assert_array_equal(expected.cells, result.cells)


@pytest.mark.gpu
def test_gpu_and_cpu_agree(photos: list[PreparedPhoto]) -> None:
    """1e-3 relative is the bound that `verify` allows between device kinds at exact precision."""
    config = method_config("resad", backbone="resnet18", size=SIDE)
    on_cpu = encoder(config).encode(photos)
    on_gpu = encoder(config, "cuda").encode(photos)
    for a, b in zip(on_cpu, on_gpu, strict=True):
        np.testing.assert_allclose(a.features, b.features, atol=1e-3 * np.abs(a.features).max())


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["exact", "half"])
def test_a_gpu_computes_one_batch_while_another_is_fetched(photos: list[PreparedPhoto], precision: str) -> None:
    """Many batches, so that memory that was let go too early would be written over."""
    config = method_config("resad", backbone="resnet18", size=SIDE, settings=[f"precision={precision}"])
    gpu_encoder = encoder(config, "cuda")
    assert gpu_encoder.encode([]) == []
    expected = [gpu_encoder.encode([photo])[0] for photo in photos]
    encodings = [gpu_encoder.begin([photo]) for _ in range(20) for photo in photos]
    for number, encoding in enumerate(encodings):
        (patches,) = encoding.result()
        np.testing.assert_array_equal(patches.features, expected[number % len(photos)].features)
        np.testing.assert_array_equal(patches.cells, expected[number % len(photos)].cells)


@pytest.mark.gpu
def test_nothing_waits_for_the_gpu_before_the_result(photos: list[PreparedPhoto]) -> None:
    gpu_encoder = encoder(method_config("resad", backbone="resnet18", size=SIDE), "cuda")
    expected = gpu_encoder.encode(photos)
    torch.cuda.set_sync_debug_mode("error")
    try:
        encoding = gpu_encoder.begin(photos)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    for reference, patches in zip(expected, encoding.result(), strict=True):
        np.testing.assert_array_equal(reference.features, patches.features)


@pytest.mark.gpu
def test_half_precision_on_a_gpu_is_near_float32(photos: list[PreparedPhoto]) -> None:
    exact, half = (
        encoder(method_config("resad", backbone="resnet18", size=SIDE, precision=precision), "cuda").encode(photos)
        for precision in ("exact", "half")
    )
    for a, b in zip(exact, half, strict=True):
        assert (
            np.linalg.norm(a.features - b.features, axis=1).max() < 0.05 * np.linalg.norm(a.features, axis=1).max()
        )
