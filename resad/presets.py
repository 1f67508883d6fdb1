"""Settings under a name: the default, the paper's, its baseline, and those of its ablations."""

from dataclasses import replace
from typing import Literal

from resad.config import MethodConfig, PreparationConfig, ReSCConfig, ScoreConfig, SearchConfig

Preset = Literal["resad", "paper", "patchcore"]
Part = Literal["region", "spatial", "resc"]


def preset(name: Preset) -> MethodConfig:
    """The settings called `name`.

    resad: the default, a reading of equations 3 to 5 that gains in the image and in the pixels where `paper` loses
    in the pixels (benchmarks/RESULTS.md).
    paper: the paper to the letter.  patchcore: the paper's baseline (Roth et al. 2022), 3 x 3 pooling, no ReSC.
    """
    literal = MethodConfig(
        preparation=PreparationConfig(crop="none"),
        resc=ReSCConfig(normalize=False, region_radius=12, attention_scale=1.0),
        search=SearchConfig(neighbors=1, mirrored=False),
        score=ScoreConfig(kind="max"),
    )
    match name:
        case "resad":
            return MethodConfig()
        case "paper":
            return literal
        case "patchcore":
            plain = ReSCConfig(normalize=False, pool=3, region=False, spatial="none")
            return replace(literal, resc=plain)


def without(config: MethodConfig, part: Part) -> MethodConfig:
    """`config` with one part of ReSC left out, as in the paper's table 3."""
    resc = config.resc
    match part:
        case "region":
            return replace(config, resc=replace(resc, region=False))
        case "spatial":
            return replace(config, resc=replace(resc, spatial="none"))
        case "resc":
            return replace(config, resc=replace(resc, region=False, spatial="none"))
