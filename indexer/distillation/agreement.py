"""Teacher and student on photographs that neither the student nor the projection has seen."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Final

import numpy as np
import torch
import torch.nn.functional as nnf
from torch import Tensor, nn

from indexer.distillation.damage import damage
from indexer.distillation.targets import Projection, inside, targets
from indexer.distillation.views import Square, Views, whole_view
from resad.bundled import BundledTrunk

_PAIRS: Final = 20_000
_SEED: Final = 0


@dataclass(frozen=True, slots=True)
class Agreement:
    """One stage on some photographs.

    photos: `as they are` or `damaged`.  kept: share of the teacher's energy that its targets hold.  cosine: mean
    over positions, of student and target.  distances: correlation, over pairs of positions, of the student's
    distance with the teacher's in all its channels: what search sees.
    """

    photos: str
    stage: int
    kept: float
    cosine: float
    distances: float


@torch.inference_mode()
def agreements(
    student: BundledTrunk, teacher: nn.Module, projection: Projection, squares: Sequence[Square]
) -> tuple[Agreement, ...]:
    """Per stage, on `squares` as they are and damaged; means over photographs, on the CPU."""
    rng = np.random.default_rng(_SEED)
    plain = [whole_view(square) for square in squares]
    hurt = [Views(damage(damage(view.images, rng), rng) * view.mask, view.mask) for view in plain]
    found = []
    for name, views in (("as they are", plain), ("damaged", hurt)):
        measured = [_measure(student, teacher, projection, view, rng) for view in views]
        for number, stage in enumerate(student.stages):
            cosine, distances = zip(*(one[number] for one in measured), strict=True)
            found.append(Agreement(name, stage, projection.kept[number], fmean(cosine), fmean(distances)))
    return tuple(found)


def _measure(
    student: BundledTrunk, teacher: nn.Module, projection: Projection, view: Views, rng: np.random.Generator
) -> list[tuple[float, float]]:
    """Per stage the cosine and the correlation of distances."""
    outputs, stages = student(view.normalized()), teacher(view.normalized())
    rows = []
    for output, stage, target in zip(outputs, stages, targets(stages, projection), strict=True):
        where = inside(view, output)
        cosine = nnf.cosine_similarity(output, target, dim=1)[where].mean()
        ours, theirs = _unit_rows(output, where), _unit_rows(stage, where)
        i, j = torch.from_numpy(rng.integers(len(ours), size=(2, _PAIRS)))
        pair = torch.stack([(x[i] - x[j]).norm(dim=1) for x in (ours, theirs)])
        rows.append((float(cosine), float(torch.corrcoef(pair)[0, 1])))
    return rows


def _unit_rows(stage: Tensor, where: Tensor) -> Tensor:
    return nnf.normalize(stage, dim=1).permute(0, 2, 3, 1)[where]
