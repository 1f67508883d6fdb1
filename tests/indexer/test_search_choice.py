"""The choice of the search, on real builds of drawn photographs."""

from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console

from indexer.build import search_choice
from indexer.build.build import BuildOptions, BuildReport, build
from indexer.build.progress import Stages
from indexer.settings import SearchChoice, method_config
from resad.config import PhotoLimits
from resad.errors import SettingError
from resad.loaded_index import check_probe, load_index
from resad.preparation import prepare
from resad.search.flat import SEARCH_FILE
from resad.search.plan import SearchPlan

CHOICES: tuple[SearchChoice, ...] = ("flat", "auto", "ivf")


def build_index(drawn: Path, root: Path, choice: SearchChoice, coreset: str = "0.5") -> BuildReport:
    config = method_config("resad", backbone="resnet18", size=128, coreset=coreset)
    order = BuildOptions(
        drawn / "train/good", root, choice, config, "random:0", torch.device("cpu"), search=choice
    )
    return build(order, Stages(Console(quiet=True)))


@pytest.fixture
def large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search_choice, "_MIN_MEMORIES", 10)


@pytest.mark.long
@pytest.mark.usefixtures("large")
def test_every_search_gives_the_scores_of_flat(drawn: Path, tmp_path: Path) -> None:
    photo = prepare(
        next((drawn / "test").rglob("*.jpg")), method_config("resad", size=128).preparation, PhotoLimits()
    )
    scores = {}
    for choice in CHOICES:
        report = build_index(drawn, tmp_path, choice)
        search = report.manifest.search
        assert search is not None
        loaded = load_index(report.version, torch.device("cpu"))
        assert loaded.detector.bank.plan == search.chosen
        assert check_probe(loaded, report.version) < 1e-6
        scores[choice] = loaded.detector.detect([photo])[0].image_score, report.manifest.calibration.scores
        if choice == "flat":
            assert search.trials == ()
            continue
        assert search.chosen.kind == choice or (choice == "auto" and search.chosen.exact)
        assert search.photos == 2
        assert search.trials[0].plan == SearchPlan()
        for trial in search.trials:
            assert trial.image_score_ratio == pytest.approx(1, abs=1e-5)
            assert trial.map_error < (1e-5 if trial.plan.exact else 0.5)
            assert trial.milliseconds > 0
        assert (report.version / SEARCH_FILE).exists() == (choice == "ivf")
        assert "search" in [stage.stage for stage in report.manifest.quality.stages]
    for choice, (score, normals) in scores.items():
        assert score == pytest.approx(scores["flat"][0], rel=1e-5), choice
        np.testing.assert_allclose(normals, scores["flat"][1], rtol=1e-5)


def test_auto_does_not_measure_what_is_fast_anyway(drawn: Path, tmp_path: Path) -> None:
    report = build_index(drawn, tmp_path, "auto")
    search = report.manifest.search
    assert search is not None
    assert search.chosen == SearchPlan()
    assert search.photos == 0
    assert "search" not in [stage.stage for stage in report.manifest.quality.stages]


def test_a_bank_too_small_to_leave_a_photo_out_is_refused_as_by_the_calibration(
    drawn: Path, tmp_path: Path
) -> None:
    choices: tuple[SearchChoice, ...] = ("proved", "flat")
    for choice in choices:
        with pytest.raises(SettingError, match=r"memories \d remain, fewer than the 3 neighbors asked; give more"):
            build_index(drawn, tmp_path, choice, coreset="4")
