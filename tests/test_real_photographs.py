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
from resad.engine import Engine
from resad.loaded_index import LoadedIndex, load_index


@pytest.fixture(scope="module")
def loaded(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> LoadedIndex:
    """IDRiD's healthy photographs at 128 px on the bundled trunk, for speed."""
    root = tmp_path_factory.mktemp("idrid")
    config = method_config("resad", backbone="bundled", size=128, coreset="0.05")
    options = BuildOptions(
        shared / "data/idrid-512/train/good",
        root,
        "idrid",
        config,
        default_weights("bundled"),
        torch.device("cpu"),
    )
    report = build(options, Stages(Console(quiet=True)))
    assert report.manifest.counts.photos == 36
    return load_index(root / "idrid", torch.device("cpu"))


@pytest.mark.slow
def test_lesions_stand_out_on_idrid(loaded: LoadedIndex, shared: Path) -> None:
    """The bounds are chance (0.5) plus what 43 photographs can show, not a target."""
    data = shared / "data/idrid-512"
    dataset = read_mvtec(data)
    measured = measure_dataset(loaded, dataset, PhotoLimits(), lambda _: None)
    assert (int((~measured.labels).sum()), int(measured.labels.sum()), measured.in_the_index) == (16, 27, ())
    pixels = metrics.pixel_auroc(measured.fov, fresh_generator())
    image = metrics.image_auroc(measured.scores, measured.labels, fresh_generator())
    assert pixels.low > 0.55
    assert image.value > 0.6


@pytest.mark.slow
def test_a_squashed_photograph_gets_the_verdict_of_the_true_one(loaded: LoadedIndex, shared: Path) -> None:
    """10 % taller once turned a healthy photograph's p from 0.88 to 0.04."""
    engine, cases = Engine(loaded), shared / "cases/squashed"
    for kind, abnormal in (("healthy", False), ("IDRiD_07", True)):
        true = engine.score(cases / f"{kind}_true.jpg").result
        others = [engine.score(path).result for path in sorted(cases.glob(f"{kind}_*.jpg"))]
        assert len(others) >= 3
        for result in others:
            assert result.abnormal is true.abnormal is abnormal
            assert result.image_score == pytest.approx(true.image_score, rel=0.25)
            assert (result.p_value or 0) > 0.2 or abnormal
