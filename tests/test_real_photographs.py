"""The main job on real photographs: IDRiD's healthy ones indexed, its diseased ones found."""

from pathlib import Path

import pytest
import torch
from rich.console import Console

from indexer.build.build import BuildOptions, build
from indexer.build.progress import Stages
from indexer.settings import method_config
from lab.datasets.layouts import read_mvtec
from lab.evaluate import measure_dataset, metrics
from lab.evaluate.bootstrap import fresh_generator
from resad.backbone import default_weights
from resad.config import PhotoLimits
from resad.loaded_index import load_index


@pytest.mark.slow
def test_lesions_stand_out_on_idrid(shared: Path, tmp_path: Path) -> None:
    """At 128 px on the bundled trunk, for speed.

    The bounds are chance (0.5) plus what 43 photographs can show, not a target.
    """
    data = shared / "data/idrid-512"
    config = method_config("resad", backbone="bundled", size=128, coreset="0.05")
    options = BuildOptions(
        data / "train/good", tmp_path, "idrid", config, default_weights("bundled"), torch.device("cpu")
    )
    report = build(options, Stages(Console(quiet=True)))
    assert report.manifest.counts.photos == 36
    loaded = load_index(tmp_path / "idrid", torch.device("cpu"))
    dataset = read_mvtec(data)
    measured = measure_dataset(loaded, dataset, PhotoLimits(), lambda _: None)
    assert (int((~measured.labels).sum()), int(measured.labels.sum()), measured.in_the_index) == (16, 27, ())
    pixels = metrics.pixel_auroc(measured.fov, fresh_generator())
    image = metrics.image_auroc(measured.scores, measured.labels, fresh_generator())
    assert pixels.low > 0.55
    assert image.value > 0.6
