"""A small index of drawn photographs, built the way a user would, for the tests of both sides."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import torch
from rich.console import Console

from indexer.build.build import BuildOptions, BuildReport, build
from indexer.build.progress import Stages
from indexer.settings import method_config

SETTINGS = ("search.neighbors=2",)


def build_small(
    photos: Path,
    root: Path,
    *,
    name: str = "drawn",
    settings: Sequence[str] = SETTINGS,
    keep_crops: bool = False,
    device: str = "cpu",
) -> BuildReport:
    """An index at 128 px on an untrained trunk: seconds, and every step is the real one."""
    config = method_config("resad", backbone="resnet18", size=128, coreset="0.1", settings=settings)
    options = BuildOptions(photos, root, name, config, "random:0", torch.device(device), keep_crops=keep_crops)
    return build(options, Stages(Console(quiet=True)))


def without_levels(index: Path, target: Path) -> None:
    """Copy ROOT/NAME to `target` as an earlier version wrote it: without levels of findings by rate."""
    shutil.copytree(index, target, symlinks=True)
    (path,) = target.glob("*/manifest.json")
    document = json.loads(path.read_text())
    document["name"] = target.name
    calibration = document["calibration"]
    for normals in (calibration, *(camera["normals"] for camera in calibration["cameras"])):
        del normals["finding_levels"]
    path.write_text(json.dumps(document))
