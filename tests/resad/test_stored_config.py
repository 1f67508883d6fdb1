"""Indexes from before a setting existed are read for what they meant, under the fingerprint that they have."""

import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter

from indexer.build.state import build_inputs, check_inputs, inputs_json
from resad.config import (
    MethodConfig,
    PhotoLimits,
    SearchConfig,
    StoredMethodConfig,
    fingerprint,
    is_fingerprint,
    preset,
    to_json,
)
from resad.errors import IndexInvalid, SettingError
from resad.loaded_index import check_probe, load_index
from resad.manifest import FORMAT, parse_manifest
from resad.preparation import prepare
from tests.indexes import build_small

CPU = torch.device("cpu")
PLAIN = replace(MethodConfig(), search=SearchConfig(mirrored=False))
ZEROS = "0" * 64


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (PLAIN, "5b6786eef32e28b330b15b0c3f9862255ddcfd5cdc276e2b865370e0951295ea"),
        (preset("paper"), "3d379c44d36964c6c5f728b512dd748eb47e5c2dbd79917cba5f5af8e1e2b073"),
    ],
)
def test_without_mirror_images_the_fingerprint_is_that_of_before(config: MethodConfig, expected: str) -> None:
    """`expected` was printed by the last commit without the setting."""
    assert fingerprint(config, ZEROS) == f"sha256:{expected}"
    mirrored = replace(config, search=replace(config.search, mirrored=True))
    assert not is_fingerprint(f"sha256:{expected}", mirrored, ZEROS)


def test_a_setting_that_is_not_there_is_off_and_one_that_is_stays() -> None:
    adapter = TypeAdapter[MethodConfig](StoredMethodConfig)
    document = json.loads(to_json(MethodConfig()))
    assert adapter.validate_json(json.dumps(document)) == MethodConfig()
    del document["search"]["mirrored"]
    assert adapter.validate_json(json.dumps(document)) == PLAIN


@pytest.fixture(scope="module")
def plain(drawn: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A version that was built without mirror images."""
    settings = ("search.neighbors=2", "search.mirrored=false")
    return build_small(drawn / "train/good", tmp_path_factory.mktemp("plain"), settings=settings).version


def with_removed_settings(config: dict[str, Any]) -> dict[str, Any]:
    """The settings as earlier versions stated them, in their order."""
    resc, coreset = dict(config["resc"]), dict(config["coreset"])
    assert (resc.pop("levels"), coreset.pop("most")) == ([], None)  # younger than those versions
    limits = {name: coreset[name] for name in ("share", "count", "radius")}
    return config | {
        "resc": {"normalize": resc["normalize"], "whitening": None} | resc,
        "coreset": limits | {"projection": "johnson-lindenstrauss"} | coreset,
        "score": config["score"] | {"smoothing": 0.0, "margin": 0.0},
    }


def with_older_manifest(version: Path, folder: Path, **search: Any) -> Path:
    """A copy whose manifest states the settings as earlier versions did, under the hash of that text."""
    shutil.copytree(version, folder)
    document = json.loads((folder / "manifest.json").read_text())
    document["config"] = with_removed_settings(document["config"])
    document["config"]["search"] = {"neighbors": 2, **search}
    text = json.dumps(document["config"], separators=(",", ":")) + f"\n{document['weights_sha256']}\n"
    document["fingerprint"] = "sha256:" + hashlib.sha256(text.encode()).hexdigest()
    (folder / "manifest.json").write_text(json.dumps(document))
    return folder


@pytest.mark.parametrize("search", [{}, {"mirrored": False}], ids=["before", "written out"])
def test_an_older_index_scores_as_before(
    plain: Path, drawn: Path, tmp_path: Path, search: dict[str, bool]
) -> None:
    version = with_older_manifest(plain, tmp_path / "version", **search)
    current, older = load_index(plain, CPU), load_index(version, CPU)
    assert older.manifest.config == current.manifest.config
    assert older.manifest.fingerprint == json.loads((version / "manifest.json").read_text())["fingerprint"]
    assert (older.manifest.fingerprint == current.manifest.fingerprint) == (not search)
    assert check_probe(older, version) == 0
    photo = prepare(drawn / "test/good/drawn_0000.jpg", current.manifest.config.preparation, PhotoLimits())
    first, second = (loaded.detector.detect([photo])[0] for loaded in (current, older))
    np.testing.assert_array_equal(first.patch_distances, second.patch_distances)


@pytest.mark.parametrize(
    ("section", "name", "value"),
    [
        ("resc", "whitening", 0.5),
        ("resc", "spatial", "gate"),
        ("resc", "spatial", "cosine"),
        ("score", "smoothing", 8.0),
        ("score", "margin", 0.02),
        ("coreset", "projection", 64),
    ],
)
def test_an_index_that_used_a_removed_setting_is_refused_by_name(
    plain: Path, tmp_path: Path, section: str, name: str, value: object
) -> None:
    version = with_older_manifest(plain, tmp_path / "version")
    document = json.loads((version / "manifest.json").read_text())
    document["config"][section][name] = value
    (version / "manifest.json").write_text(json.dumps(document))
    with pytest.raises(
        IndexInvalid, match=rf"{section}\.{name}.* no longer has; rebuild the index: resad-indexer"
    ):
        load_index(version, CPU)


def test_a_plan_that_lists_the_settings_of_a_removed_search_is_read(plain: Path, tmp_path: Path) -> None:
    version = with_older_manifest(plain, tmp_path / "version")
    document = json.loads((version / "manifest.json").read_text())
    document["search"]["chosen"] |= {"links": 32, "breadth": 64}
    (version / "manifest.json").write_text(json.dumps(document))
    assert load_index(version, CPU).manifest.search == load_index(plain, CPU).manifest.search


def test_changed_settings_in_an_older_index_are_noticed(plain: Path, tmp_path: Path) -> None:
    version = with_older_manifest(plain, tmp_path / "version")
    text = (version / "manifest.json").read_text()
    for old, new in (('"neighbors": 2', '"neighbors": 1'), ('"neighbors": 2', '"neighbors": 2, "mirrored": true')):
        assert old in text
        (version / "manifest.json").write_text(text.replace(old, new))
        with pytest.raises(IndexInvalid, match="the fingerprint does not belong"):
            load_index(version, CPU)


@pytest.mark.parametrize(
    ("number", "advice"), [(FORMAT - 1, "rebuild the index: resad"), (FORMAT + 1, "a newer version")]
)
def test_another_format_is_named_whatever_else_the_manifest_holds(number: int, advice: str) -> None:
    with pytest.raises(IndexInvalid, match=rf"here is of format {number}; this version reads format 3 \({advice}"):
        parse_manifest(json.dumps({"format": number, "unknown": 1}).encode(), "here")


def test_an_older_build_is_not_resumed_with_mirror_images(tmp_path: Path) -> None:
    """Its features are of one image of each photograph."""
    inputs = [
        build_inputs(config, PhotoLimits(), ZEROS, "cpu", [], crops=False) for config in (PLAIN, MethodConfig())
    ]
    document = json.loads(inputs_json(inputs[0]))
    del document["config"]["search"]["mirrored"]
    (tmp_path / "inputs.json").write_text(json.dumps(document))
    check_inputs(tmp_path / "inputs.json", inputs[0], [])
    with pytest.raises(SettingError, match=r"config\.search\.mirrored was false, now it is true"):
        check_inputs(tmp_path / "inputs.json", inputs[1], [])
