"""What the small trunk is to follow: its teacher's stages in fewer channels.

Each stage is scaled to length 1 at every position, as ReSC takes it, and projected onto the directions that hold
most of its energy over augmented training views.  The mean is not taken out, so that lengths and angles between
features stay what they are: the settings that were chosen on the teacher hold for its student.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
import torch.nn.functional as nnf
from torch import Tensor, nn

from indexer.distillation.views import Views


@dataclass(frozen=True, slots=True, eq=False)
class Projection:
    """Per stage float32 (C, c), orthonormal columns by falling energy.  kept: share of the energy they hold."""

    bases: tuple[Tensor, ...]
    kept: tuple[float, ...]


@torch.inference_mode()
def fit_projection(teacher: nn.Module, views: Iterable[Views], channels: tuple[int, ...]) -> Projection:
    """The best `channels` directions per stage over the positions inside the field of view."""
    moments: list[Tensor] = []
    for batch in views:
        stages = teacher(batch.normalized())
        if not moments:
            moments = [torch.zeros(stage.shape[1], stage.shape[1], dtype=torch.float64) for stage in stages]
        for moment, stage in zip(moments, stages, strict=True):
            x = nnf.normalize(stage, dim=1).permute(0, 2, 3, 1)[inside(batch, stage)].double()
            moment += (x.T @ x).cpu()
    bases, kept = [], []
    for moment, count in zip(moments, channels, strict=True):
        values, vectors = torch.linalg.eigh(moment)
        bases.append(vectors.flip(1)[:, :count].float().contiguous())
        kept.append(float(values[-count:].sum() / values.sum()))
    return Projection(tuple(bases), tuple(kept))


def targets(stages: tuple[Tensor, ...], projection: Projection) -> tuple[Tensor, ...]:
    """Per stage (B, C, h, w) -> float32 (B, c, h, w), at most 1 long."""
    return tuple(
        torch.einsum("bchw,cd->bdhw", nnf.normalize(stage, dim=1), basis)
        for stage, basis in zip(stages, projection.bases, strict=True)
    )


def distance(outputs: tuple[Tensor, ...], wanted: tuple[Tensor, ...], views: Views) -> Tensor:
    """Mean squared distance to the targets of the outputs, scaled to length 1 as in ReSC; summed over stages."""
    losses = []
    for output, target in zip(outputs, wanted, strict=True):
        squared = (nnf.normalize(output, dim=1) - target).square().sum(dim=1)
        losses.append(squared[inside(views, output)].mean())
    return torch.stack(losses).sum()


def inside(views: Views, stage: Tensor) -> Tensor:
    """bool (B, h, w): the positions of `stage` that touch the field of view."""
    return nnf.adaptive_max_pool2d(views.mask, stage.shape[-2:])[:, 0] > 0
