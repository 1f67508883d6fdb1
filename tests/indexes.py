"""A small index of drawn photographs, built the way a user would, for the tests of both sides."""

from collections.abc import Sequence
from pathlib import Path

import torch
from rich.console import Console

from indexer.build import build
from indexer.build_order import BuildOrder, BuildReport
from indexer.options import method
from indexer.progress import Stages

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
    config = method("resad", backbone="resnet18", size=128, coreset="0.1", settings=settings)
    order = BuildOrder(photos, root, name, config, "random:0", torch.device(device), keep_crops=keep_crops)
    return build(order, Stages(Console(quiet=True)))
