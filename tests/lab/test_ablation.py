"""The paper's table 3 in small, and what is said of it."""

import io
import json
import re
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image
from rich.console import Console

from indexer import cli
from indexer.build.progress import Stages
from indexer.settings import method_config
from lab.ablation import AblationOptions, Trial, ablation_table, differences, run, summary
from lab.datasets import Dataset
from lab.datasets.layouts import read_mvtec
from lab.evaluate.paper import FULL, TABLE_3, FourFigures
from resad.config import preset
from resad.errors import SettingError

SMALL = ("--backbone", "bundled", "--size", "64", "--coreset", "0.5", "--device", "cpu")
# The preset has no spatial-aware map that could be left out.
LESIONS, BOTH_MAPS = '{"scale":"constant","region":false,"spatial":false}', '{"weight":100}'


def order(dataset: Dataset, seeds: int = 2) -> AblationOptions:
    config = method_config("resad", backbone="bundled", size=64, coreset="0.5")
    return AblationOptions(dataset, config, "bundled", torch.device("cpu"), seeds)


@pytest.mark.long
def test_the_table_and_the_figure_on_drawn_photographs(
    drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The bundled trunk, the real commands, seven indexes."""
    out, picture = tmp_path / "trials.json", tmp_path / "figure.png"
    levels = f"resc.levels=[{LESIONS}, {BOTH_MAPS}, {BOTH_MAPS}]"
    arguments = ("ablation", "--dataset", "mvtec", "--data", str(drawn), "--preset", "resad", *SMALL, "--set",
                 levels, "--seeds", "1", "--json", str(out), "--figure", str(picture))  # fmt: skip
    monkeypatch.setattr(sys, "argv", ["resad-indexer", *arguments])
    with pytest.raises(SystemExit) as exit_:
        cli.main()
    assert exit_.value.code in (0, None)
    trials = json.loads(out.read_text())
    assert [trial["row"] for trial in trials][:4] == [
        FULL,
        *[f"without {part}" for part in ("ReSC", "region module", "spatial module")],
    ]
    photos = {(trial["row"], trial["seed"]): trial["photos"] for trial in trials}
    assert photos[FULL, None] == 8
    shares = [photos[f"{share} % of the normals", 0] for share in (10, 40, 70)]
    assert shares == [2, 3, 6]
    by_row = {trial["row"]: trial["figures"] for trial in trials}
    assert len({json.dumps(figures) for figures in by_row.values()}) == len(by_row)  # each of another index
    for figures in by_row.values():
        assert all(0 <= value <= 1 for value in figures.values())
    text = re.sub(r"[\s│┃]+", " ", capsys.readouterr().out)
    for words in ("0.941", "0.769", "without", "data set", "instead of IDRiD",
                  "backbone.name bundled instead of wide_resnet50_2"):  # fmt: skip
        assert words in text, words
    with Image.open(picture) as image:
        assert image.width == 4 * 328 + 8
        assert len(image.convert("RGB").getcolors(maxcolors=2**24) or []) > 1000


def test_rows_come_in_the_papers_order_with_mean_and_spread() -> None:
    def trial(row: str, seed: int | None, auc: float) -> Trial:
        return Trial(row, seed, 4, FourFigures(auc, 0.5, auc / 2, None))

    trials = [trial(FULL, None, 0.9), *(trial("10 % of the normals", seed, 0.5 + 0.1 * seed) for seed in range(3))]
    first, last = summary(trials, "idrid-paper")
    assert (first.name, first.trials, last.name, last.trials) == ("10 % of the normals", 3, FULL, 1)
    assert first.mean.image_auc == pytest.approx(0.6)
    assert first.mean.pixel_acc is None
    assert first.spread is not None
    assert first.spread.image_auc == pytest.approx(0.1)
    assert last.spread is None
    assert first.paper == TABLE_3["10 % of the normals"]
    console = Console(width=80, record=True, quiet=False, file=io.StringIO())
    console.print(ablation_table((first, last), order(Dataset("some", (), ()))))
    text = console.export_text()
    for words in ("0.600 ±0.100", "(4, 3 times)", "0.913", "0.941"):
        assert words in text, words
    assert [row.paper for row in summary(trials, "adam-paper")] == [None, FourFigures(None, None, 0.82, 0.732)]


def test_what_is_not_the_papers_experiment_is_said(drawn: Path) -> None:
    """And nothing where it is."""
    lines = differences(order(read_mvtec(drawn)))
    assert f"data set {drawn.name} instead of IDRiD under the protocol idrid-paper" in lines
    assert "preparation.size 64 instead of 784" in lines
    assert "weights bundled instead of imagenet1k_v1" in lines
    paper_options = AblationOptions(
        Dataset("idrid-paper", (), ()), preset("paper"), "imagenet1k_v1", torch.device("cpu"), 3
    )
    assert differences(paper_options) == ()


def test_nothing_to_build_from_is_refused(drawn: Path) -> None:
    dataset = read_mvtec(drawn)
    bare = Dataset("bare", (), dataset.test)
    with pytest.raises(SettingError, match="data set bare has 0 photographs to build from"):
        next(run(order(bare), Stages(Console(quiet=True))))
    with pytest.raises(SettingError, match="--seeds 0"):
        next(run(order(dataset, seeds=0), Stages(Console(quiet=True))))
