"""Presets, pinned number by number; JSON both ways; the fingerprint."""

import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from indexer.settings import method_config
from resad.config import (
    CoresetConfig,
    LevelConfig,
    MethodConfig,
    PreparationConfig,
    ReSCConfig,
    fingerprint,
    from_json,
    preset,
    to_json,
    updated,
    without,
)
from resad.errors import SettingError


def test_paper_is_the_paper_to_the_letter() -> None:
    assert json.loads(to_json(preset("paper"))) == {
        "preparation": {"size": 784, "crop": "none"},
        "backbone": {"name": "wide_resnet50_2", "stages": [2, 3]},
        "precision": "exact",
        "resc": {
            "normalize": False,
            "pool": 1,
            "region": True,
            "region_radius": 12,
            "spatial": "softmax",
            "attention_scale": 1.0,
            "levels": [],
        },
        "coreset": {
            "share": 0.1,
            "count": None,
            "radius": None,
            "most": None,
            "epsilon": 0.9,
            "sample": 1.0,
            "seed": 0,
        },
        "search": {"neighbors": 1, "mirrored": False},
        "score": {
            "kind": "max",
            "share": 0.001,
        },
    }


def test_patchcore_is_the_papers_baseline() -> None:
    config = preset("patchcore")
    assert (config.resc.pool, config.resc.region, config.resc.spatial) == (3, False, "none")
    assert dataclasses.replace(config, resc=preset("paper").resc) == preset("paper")


RESC = {
    "normalize": True,
    "pool": 1,
    "region": True,
    "region_radius": 21,
    "spatial": "softmax",
    "attention_scale": 20.0,
}


def test_resad_is_what_was_measured() -> None:
    sections = json.loads(to_json(preset("resad")))
    lesions = {"scale": "constant", "weight": 1.0, "region": False, "spatial": False}
    texture = {"scale": "unit", "weight": 1500.0, "region": True, "spatial": False}
    assert sections["preparation"] == {"size": 512, "crop": "field_of_view"}
    assert sections["backbone"] == {"name": "bundled", "stages": [1, 2, 3]}
    assert sections["resc"] == {**RESC, "levels": [lesions, texture, texture]}
    assert (sections["coreset"]["share"], sections["coreset"]["most"]) == (0.002, 1300)
    assert sections["search"] == {"neighbors": 3, "mirrored": False}
    assert sections["score"] == {"kind": "top_mean", "share": 0.001}


def test_resad_with_a_resnet_reads_the_equations() -> None:
    sections = json.loads(to_json(preset("resad", "resnet18")))
    assert sections["backbone"] == {"name": "resnet18", "stages": [2, 3]}
    assert sections["resc"] == {**RESC, "levels": []}
    assert sections["search"] == {"neighbors": 3, "mirrored": True}
    assert sections["score"] == {"kind": "top_mean", "share": 0.001}


def test_ablations_leave_out_what_they_say() -> None:
    config = preset("paper")
    assert not without(config, "region").resc.region
    assert without(config, "region").resc.spatial == "softmax"
    assert without(config, "spatial").resc.region
    assert without(config, "spatial").resc.spatial == "none"
    resc = without(config, "resc").resc
    assert (resc.region, resc.spatial) == (False, "none")


def test_ablations_leave_it_out_of_every_level() -> None:
    levels = (LevelConfig("constant", 2.0, region=False), LevelConfig(weight=3.0))
    config = MethodConfig(resc=ReSCConfig(levels=levels))

    def maps(variant: MethodConfig) -> list[tuple[bool, bool]]:
        assert [(level.scale, level.weight) for level in variant.resc.levels] == [("constant", 2.0), ("unit", 3.0)]
        return [(level.region, level.spatial) for level in variant.resc.levels]

    assert maps(without(config, "region")) == [(False, True), (False, True)]
    assert maps(without(config, "spatial")) == [(False, False), (True, False)]
    assert maps(without(config, "resc")) == [(False, False), (False, False)]


def leaves(document: object, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    if not isinstance(document, dict):
        return [path]
    return [leaf for key, value in document.items() for leaf in leaves(value, (*path, key))]


def test_every_setting_is_in_the_fingerprint() -> None:
    """Each field replaced by another legal value gives another fingerprint, and survives JSON."""
    changes = {
        "size": "512", "crop": "none", "name": "resnet18", "stages": "[1, 2]", "precision": "half",
        "normalize": "false", "pool": "3", "region": "false", "region_radius": "5",
        "spatial": "none", "levels": json.dumps(2 * [{"scale": "unit", "weight": 0.5}]),
        "attention_scale": "2.5", "most": "9", "epsilon": "0.5", "sample": "0.5", "seed": "7",
        "neighbors": "9", "mirrored": "false", "kind": "max",
    }  # fmt: skip
    base = MethodConfig()
    fingerprints = {fingerprint(base, weights) for weights in ("a", "b")}
    paths = leaves(json.loads(to_json(base)))
    for path in paths:
        if path in {("coreset", "count"), ("coreset", "radius")}:
            continue  # excluded by a share
        value = "0.25" if path[-1] == "share" else changes[path[-1]]
        variant = updated(base, ".".join(path), value)
        assert from_json(to_json(variant)) == variant
        fingerprints.add(fingerprint(variant, "a"))
    for limit in ({"count": 10}, {"radius": 0.5}):
        coreset = dataclasses.replace(base.coreset, share=None, **limit)
        fingerprints.add(fingerprint(dataclasses.replace(base, coreset=coreset), "a"))
    assert len(fingerprints) == 2 + len(paths)


@given(
    st.recursive(
        st.none() | st.integers() | st.text(max_size=5),
        lambda values: st.dictionaries(st.text(max_size=8), values),
    )
)
def test_other_json_is_refused_by_name(document: object) -> None:
    text = json.dumps(document)
    if document == {}:
        assert from_json(text) == MethodConfig()  # every setting has a default
    else:
        with pytest.raises(SettingError):
            from_json(text)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("preparation.size", "783", "multiple of 16"),
        ("preparation.size", "4096", "less than or equal to 2048"),
        ("resc.region_radios", "3", "region_radios"),
        ("nothing.size", "3", "nothing.size"),
        ("search.neighbors", "0", "greater than or equal to 1"),
        ("score.kind", "median", "top_mean"),
        ("backbone.stages", "[]", "stages"),
        ("coreset.count", "5", "exactly one"),
        ("backbone.stages", "[3, 2]", "ascending"),
        ("backbone.stages", "[2, 2]", "each once"),
        ("resc.attention_scale", "Infinity", "less than or equal to 10000"),
    ],
)
def test_bad_values_are_named_with_the_limit(path: str, value: str, message: str) -> None:
    with pytest.raises(SettingError, match=message):
        updated(MethodConfig(), path, value)


def test_a_coreset_has_one_limit() -> None:
    with pytest.raises(SettingError, match="exactly one"):
        CoresetConfig(share=0.1, count=5)
    with pytest.raises(SettingError, match=r"coreset.most=9 limits a share, and none is set"):
        CoresetConfig(share=None, count=5, most=9)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0.02", CoresetConfig(share=0.02)),
        ("1", CoresetConfig(share=None, count=1)),
        ("1.0", CoresetConfig(share=1.0)),
        ("20000", CoresetConfig(share=None, count=20000)),
        ("radius:0.8", CoresetConfig(share=None, radius=0.8)),
    ],
)
def test_coreset_option(text: str, expected: CoresetConfig) -> None:
    assert method_config("resad", coreset=text).coreset == expected


@pytest.mark.parametrize("text", ["", "ten", "1.5", "-1", "0", "radius:0", "radius:x", "size:4", "nan"])
def test_coreset_option_refused(text: str) -> None:
    with pytest.raises(SettingError, match="coreset"):
        method_config("resad", coreset=text)


def test_options_change_what_they_name() -> None:
    config = method_config("paper", backbone="resnet18", size=512, seed=4, precision="half",
                    settings=["search.neighbors=2"], leave_out=["spatial"])  # fmt: skip
    assert config.backbone.name == "resnet18"
    assert config.preparation == PreparationConfig(512, "none")
    assert (config.coreset.seed, config.precision, config.search.neighbors) == (4, "half", 2)
    assert config.resc.spatial == "none"
    with pytest.raises(SettingError, match=r"SECTION\.FIELD=VALUE"):
        method_config("resad", settings=["neighbors"])
