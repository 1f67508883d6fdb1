"""Trunks: the same numbers as torchvision's own network, and weights that do not fit refused by name."""

from pathlib import Path

import pytest
import safetensors.torch
import torch
import torchvision

from resad.backbone import Backbone, TrainingPhoto, load_backbone, save_backbone, unseen_ratio
from resad.config import BackboneConfig
from resad.errors import SettingError, WeightsMismatch, WeightsUnavailable

R18 = BackboneConfig("resnet18")


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "wide_resnet50_2", "resnext50_32x4d"])
def test_stages_are_those_of_the_whole_network(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = torchvision.models.get_model(name, weights=None).eval()
    torch.save(net.state_dict(), tmp_path / "whole.pth")
    trunk = load_backbone(BackboneConfig(name, (1, 3)), str(tmp_path / "whole.pth"))
    images = torch.randn(2, 3, 64, 96)
    with torch.inference_mode():
        first = net.layer1(net.maxpool(net.relu(net.bn1(net.conv1(images)))))
        third = net.layer3(net.layer2(first))
        outputs = trunk(images, torch.ones(2, 64, 96, dtype=torch.bool))
    torch.testing.assert_close(outputs, (first, third))
    assert not any(key.startswith(("net.layer4", "net.fc")) for key in trunk.state_dict())


def test_the_hash_is_of_the_trunk_not_of_its_container(tmp_path: Path) -> None:
    trunk = load_backbone(R18, "random:3")
    save_backbone(trunk, tmp_path / "a.safetensors")
    state = safetensors.torch.load_file(tmp_path / "a.safetensors")
    extra = {"fc.weight": torch.zeros(2, 2), "layer4.0.conv1.weight": torch.zeros(1)}
    torch.save(state | extra, tmp_path / "b.pth")
    hashes = {
        load_backbone(R18, str(tmp_path / "a.safetensors")).weights_sha256,
        load_backbone(R18, str(tmp_path / "b.pth")).weights_sha256,
        trunk.weights_sha256,
    }
    assert len(hashes) == 1
    assert load_backbone(R18, "random:4").weights_sha256 not in hashes


def test_random_weights_depend_on_the_seed_alone() -> None:
    torch.manual_seed(1)
    first = load_backbone(R18, "random:3").weights_sha256
    torch.manual_seed(2)
    assert load_backbone(R18, "random:3").weights_sha256 == first


def test_gradients_and_training_are_off() -> None:
    trunk = load_backbone(R18, "random:0")
    assert not trunk.training
    assert not any(parameter.requires_grad for parameter in trunk.parameters())


def test_weights_of_another_network_are_refused_by_key(tmp_path: Path) -> None:
    save_backbone(load_backbone(R18, "random:0"), tmp_path / "r18.safetensors")
    with pytest.raises(WeightsMismatch, match=r"missing layer1\.0\.bn3\.bias.*and 134 more; unexpected none"):
        load_backbone(BackboneConfig("resnet50"), str(tmp_path / "r18.safetensors"))
    odd_state = {"layer3x": torch.zeros(1)} | safetensors.torch.load_file(tmp_path / "r18.safetensors")
    safetensors.torch.save_file(odd_state, tmp_path / "odd.safetensors")
    with pytest.raises(WeightsMismatch, match="missing none; unexpected layer3x"):
        load_backbone(R18, str(tmp_path / "odd.safetensors"))
    gray_state = safetensors.torch.load_file(tmp_path / "r18.safetensors")
    gray_state["conv1.weight"] = torch.zeros(64, 1, 7, 7)
    safetensors.torch.save_file(gray_state, tmp_path / "gray.safetensors")
    with pytest.raises(WeightsMismatch, match=r"conv1\.weight is \(64, 1, 7, 7\), not \(64, 3, 7, 7\)"):
        load_backbone(R18, str(tmp_path / "gray.safetensors"))


def test_files_that_hold_no_tensors_are_refused(tmp_path: Path) -> None:
    for name, content in (("a.safetensors", b"\x00" * 40), ("b.pth", b"hello"), ("c.pt", b"")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(WeightsMismatch, match=name):
            load_backbone(R18, str(tmp_path / name))
    torch.save({"epoch": 3}, tmp_path / "d.pth")
    with pytest.raises(WeightsMismatch, match="plain mapping"):
        load_backbone(R18, str(tmp_path / "d.pth"))


class _Payload:
    def __reduce__(self) -> tuple[type[SystemExit], tuple[str]]:
        return (SystemExit, ("ran",))


def test_a_pth_file_cannot_run_code(tmp_path: Path) -> None:
    torch.save({"conv1.weight": _Payload()}, tmp_path / "evil.pth")
    with pytest.raises(WeightsMismatch):
        load_backbone(R18, str(tmp_path / "evil.pth"))


def test_ways_out_are_named_where_nothing_can_be_downloaded(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))

    def unreachable(*_: object, **__: object) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr("torch.hub.download_url_to_file", unreachable)
    with pytest.raises(WeightsUnavailable, match=r"--backbone bundled.*--weights FILE"):
        load_backbone(R18, "imagenet1k_v1")
    with pytest.raises(WeightsUnavailable, match=r"no weights at .*none\.pth"):
        load_backbone(R18, str(tmp_path / "none.pth"))


@pytest.mark.parametrize("weights", ["imagenet1k_v9", "random:x", "somewhere"])
def test_unknown_names_are_refused(weights: str) -> None:
    with pytest.raises(SettingError, match=weights):
        load_backbone(R18, weights)


def test_an_unknown_trunk_lists_the_known() -> None:
    with pytest.raises(SettingError, match="wide_resnet50_2"):
        load_backbone(BackboneConfig("vgg16"), "random:0")


def test_the_shared_weights_are_resnet18s(shared: Path) -> None:
    trunk = load_backbone(R18, str(shared / "weights/resnet18-imagenet1k_v1-trunk.safetensors"))
    assert isinstance(trunk, Backbone)
    with torch.inference_mode():
        fine, coarse = trunk(torch.zeros(1, 3, 128, 128), torch.ones(1, 128, 128, dtype=torch.bool))
    assert fine.shape == (1, 128, 16, 16)
    assert coarse.shape == (1, 256, 8, 8)


def test_an_unknown_trunk_is_named_before_its_weights_are() -> None:
    with pytest.raises(SettingError, match=r"unknown backbone 'vit_b_16'; there are: bundled, resnet101"):
        load_backbone(BackboneConfig("vit_b_16"), "imagenet1k_v1")


def test_what_the_trunk_was_trained_on_is_kept_in_the_same_bytes(tmp_path: Path) -> None:
    photos = (TrainingPhoto("a" * 64, "b" * 64), TrainingPhoto("c" * 64, "d" * 64))
    plain = load_backbone(R18, "random:0")
    trunk = Backbone(R18, dict(plain.net.state_dict()), photos, 1.25)
    files = [tmp_path / f"{number}.safetensors" for number in range(4)]
    for file in files:
        save_backbone(trunk, file)
    assert len({file.read_bytes() for file in files}) == 1
    loaded = load_backbone(R18, str(files[0]))
    assert (loaded.trained_on, loaded.unseen_ratio) == (photos, 1.25)
    assert loaded.weights_sha256 == plain.weights_sha256
    save_backbone(plain, tmp_path / "plain.safetensors")
    assert load_backbone(R18, str(tmp_path / "plain.safetensors")).unseen_ratio == 1


@pytest.mark.parametrize("text", ["0.9", "nan", "inf", "much"])
def test_an_impossible_ratio_is_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "trunk.safetensors"
    safetensors.torch.save_file({"a": torch.zeros(1)}, file, {"unseen_ratio": text})
    with pytest.raises(WeightsMismatch, match="at least 1"):
        unseen_ratio(file)
