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

CONFIG = BackboneConfig("bundled")
CARD = bundled.FILE.with_name("MODEL_CARD.md")


def test_the_file_is_the_one_of_the_model_card() -> None:
    content = bundled.FILE.read_bytes()
    assert len(content) <= 4_000_000
    assert hashlib.sha256(content).hexdigest() in CARD.read_text()
    assert load_backbone(CONFIG, "bundled").weights_sha256.removeprefix("sha256:") in CARD.read_text()
    assert {one.dtype for one in safetensors.torch.load(content).values()} == {torch.float16}


def test_the_card_attributes_and_limits() -> None:
    text = re.sub(r"\s+", " ", CARD.read_text())
    for named in ("Porwal", "CC BY 4.0", "BSD 3-Clause", "Research use only. Not for diagnosis."):
        assert named in text


@pytest.mark.parametrize("side", [64, 112, 224])
def test_stages_have_strides_8_and_16(side: int) -> None:
    trunk = load_backbone(CONFIG, "bundled")
    with torch.inference_mode():
        fine, coarse = trunk(torch.zeros(2, 3, side, side))
        (alone,) = load_backbone(BackboneConfig("bundled", (3,)), "bundled")(torch.zeros(1, 3, side, side))
    assert fine.shape == (2, 64, side // 8, side // 8)
    assert coarse.shape == (2, 128, side // 16, side // 16)
    assert fine.dtype == coarse.dtype == torch.float32
    torch.testing.assert_close(alone[0], coarse[0])


def test_it_is_trained() -> None:
    """A bright spot changes the features more than noise does."""
    rng = torch.Generator().manual_seed(0)
    plain = torch.full((1, 3, 128, 128), 0.3)
    spotted = plain.clone()
    spotted[..., 60:76, 60:76] = 2.0
    noisy = plain + 0.02 * torch.randn(plain.shape, generator=rng)
    trunk = load_backbone(CONFIG, "bundled")
    with torch.inference_mode():
        maps = [trunk(image)[0] for image in (plain, spotted, noisy)]
    at = [torch.nn.functional.normalize(fine, dim=1)[0, :, 8, 8] for fine in maps]
    assert (at[1] - at[0]).norm() > 2 * (at[2] - at[0]).norm()


def test_lesions_drawn_into_photographs_are_found(drawn: Path, tmp_path: Path) -> None:
    config = method_config("resad", backbone="bundled", size=160, coreset="0.1")
    order = BuildOptions(drawn / "train/good", tmp_path, "drawn", config, "bundled", torch.device("cpu"))
    build(order, Stages(Console(quiet=True)))
    loaded, dataset = load_index(tmp_path / "drawn", torch.device("cpu")), read_mvtec(drawn)
    measured = measure_dataset(loaded, dataset, PhotoLimits(), lambda _: None)
    found = figures(measured, loaded, dataset)
    assert found.pixel is not None
    assert found.pixel.fov.auroc.value > 0.7


def test_it_is_kept_in_an_index_as_it_is(tmp_path: Path) -> None:
    trunk = load_backbone(CONFIG, "bundled")
    save_backbone(trunk, tmp_path / "backbone.safetensors")
    assert load_backbone(CONFIG, str(tmp_path / "backbone.safetensors")).weights_sha256 == trunk.weights_sha256


def test_other_stages_and_weights_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="stages 2 and 3, not 1"):
        load_backbone(BackboneConfig("bundled", (1, 2)), "bundled")
    with pytest.raises(SettingError, match=r"imagenet1k_v1.*bundled's own \(bundled\)"):
        load_backbone(CONFIG, "imagenet1k_v1")
    with pytest.raises(SettingError, match="'bundled' are neither a file"):
        load_backbone(BackboneConfig("resnet18"), "bundled")
    save_backbone(load_backbone(BackboneConfig("resnet18"), "random:0"), tmp_path / "other.safetensors")
    with pytest.raises(WeightsMismatch, match=r"does not fit bundled: missing coarse\.0\.bias"):
        load_backbone(CONFIG, str(tmp_path / "other.safetensors"))
