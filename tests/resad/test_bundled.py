"""The trunk inside the package: its file, its shapes, and what it is refused for."""

import hashlib
import re
from pathlib import Path

import pytest
import safetensors.torch
import torch
from rich.console import Console

from indexer.build.build import BuildOptions, build
from indexer.build.progress import Stages
from indexer.settings import method_config
from lab.datasets.layouts import read_mvtec
from lab.evaluate import figures, measure_dataset
from resad import bundled
from resad.backbone import load_backbone, save_backbone
from resad.config import BackboneConfig, PhotoLimits
from resad.errors import SettingError, WeightsMismatch
from resad.loaded_index import load_index

CONFIG = BackboneConfig("bundled", (1, 2, 3))
TEXTURE = BackboneConfig("bundled", (2, 3))
CARD = bundled.FILE.with_name("MODEL_CARD.md")


def test_the_file_is_the_one_of_the_model_card() -> None:
    content = bundled.FILE.read_bytes()
    assert len(content) <= 4_000_000
    assert hashlib.sha256(content).hexdigest() in CARD.read_text()
    assert load_backbone(CONFIG, "bundled").weights_sha256.removeprefix("sha256:") in CARD.read_text()
    assert {tensor.dtype for tensor in safetensors.torch.load(content).values()} == {torch.float16}


def test_the_card_attributes_and_limits() -> None:
    text = re.sub(r"\s+", " ", CARD.read_text())
    for words in ("Porwal", "CC BY 4.0", "BSD 3-Clause", "Research use only. Not for diagnosis."):
        assert words in text


def test_the_file_names_the_photographs_it_was_trained_on() -> None:
    trained_on = load_backbone(CONFIG, "bundled").trained_on

    assert len(trained_on) == 36
    assert all(re.fullmatch("[0-9a-f]{64}", photo.content_sha256) for photo in trained_on)


@pytest.mark.parametrize("side", [64, 112, 160, 224])
def test_stages_have_strides_4_8_and_16(side: int) -> None:
    trunk = load_backbone(CONFIG, "bundled")
    images, masks = torch.zeros(2, 3, side, side), torch.ones(2, side, side, dtype=torch.bool)
    with torch.inference_mode():
        lesion, fine, coarse = trunk(images, masks)
        (single_stage,) = load_backbone(BackboneConfig("bundled", (3,)), "bundled")(images[:1], masks[:1])
    assert lesion.shape == (2, 36, side // 4, side // 4)
    assert fine.shape == (2, 64, side // 8, side // 8)
    assert coarse.shape == (2, 128, side // 16, side // 16)
    assert lesion.dtype == fine.dtype == coarse.dtype == torch.float32
    torch.testing.assert_close(single_stage[0], coarse[0])


@pytest.mark.parametrize("stage", [0, 1])
def test_the_trunk_is_trained(stage: int) -> None:
    """A bright spot changes the features more than noise does."""
    rng = torch.Generator().manual_seed(0)
    plain = torch.full((1, 3, 128, 128), 0.3)
    spotted = plain.clone()
    spotted[..., 60:68, 60:68] = 2.0
    noisy = plain + 0.02 * torch.randn(plain.shape, generator=rng)
    trunk, mask = load_backbone(CONFIG, "bundled"), torch.ones(1, 128, 128, dtype=torch.bool)
    with torch.inference_mode():
        maps = [trunk(image, mask)[stage] for image in (plain, spotted, noisy)]
    cell = 64 // (4, 8)[stage]
    vectors = [features[0, :, cell, cell] for features in maps]
    assert (vectors[1] - vectors[0]).norm() > 2 * (vectors[2] - vectors[0]).norm()


def test_lesion_features_depend_little_on_color_and_light() -> None:
    """The local normalization takes out brightness and gain; what is left of them is small beside a lesion."""
    rng = torch.Generator().manual_seed(0)
    photo = 0.4 + 0.05 * torch.randn((1, 3, 128, 128), generator=rng)
    mask = torch.ones(1, 128, 128, dtype=torch.bool)
    plain, darker, brighter = (
        bundled.without_local_mean(pixels, mask, 128) for pixels in (photo, 0.8 * photo, 0.2 + photo)
    )
    torch.testing.assert_close(plain, brighter, rtol=0, atol=1e-3)
    assert (plain - darker).abs().max() < 0.2 * plain.abs().max()


def test_the_surround_takes_no_part_in_the_local_mean() -> None:
    photo = torch.rand(1, 3, 128, 128, generator=torch.Generator().manual_seed(0))
    y, x = torch.meshgrid(torch.arange(128.0), torch.arange(128.0), indexing="ij")
    mask = (torch.hypot(y - 63.5, x - 63.5) < 60)[None]
    inside = mask[:, None].float()
    black, white = (bundled.without_local_mean(photo * inside + s * (1 - inside), mask, 128) for s in (0.0, 1.0))
    torch.testing.assert_close(black, white, rtol=0, atol=1e-5)
    assert not black[:, :, ~mask[0]].any()


def test_lesions_drawn_into_photographs_are_found(drawn: Path, tmp_path: Path) -> None:
    config = method_config("resad", backbone="bundled", size=160, coreset="0.1")
    options = BuildOptions(drawn / "train/good", tmp_path, "drawn", config, "bundled", torch.device("cpu"))
    build(options, Stages(Console(quiet=True)))
    loaded, dataset = load_index(tmp_path / "drawn", torch.device("cpu")), read_mvtec(drawn)
    measurement = measure_dataset(loaded, dataset, PhotoLimits(), lambda _: None)
    result = figures(measurement, loaded, dataset)
    assert result.pixel is not None
    assert result.pixel.fov.auroc.value > 0.7


def test_the_trunk_is_stored_unchanged(tmp_path: Path) -> None:
    trunk = load_backbone(CONFIG, "bundled")
    save_backbone(trunk, tmp_path / "backbone.safetensors")
    stored = load_backbone(CONFIG, str(tmp_path / "backbone.safetensors"))
    assert stored.weights_sha256 == trunk.weights_sha256
    assert stored.trained_on == trunk.trained_on


def test_other_stages_and_weights_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="stages 1, 2 and 3, not 4"):
        load_backbone(BackboneConfig("bundled", (2, 4)), "bundled")
    with pytest.raises(SettingError, match=r"imagenet1k_v1.*bundled's own \(bundled\)"):
        load_backbone(CONFIG, "imagenet1k_v1")
    with pytest.raises(SettingError, match="'bundled' are neither a file"):
        load_backbone(BackboneConfig("resnet18"), "bundled")
    save_backbone(load_backbone(BackboneConfig("resnet18"), "random:0"), tmp_path / "other.safetensors")
    with pytest.raises(WeightsMismatch, match=r"does not fit bundled: missing coarse\.0\.bias"):
        load_backbone(TEXTURE, str(tmp_path / "other.safetensors"))
