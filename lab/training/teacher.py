"""Texture features that the trunk learns from a teacher: a ResNet's stages in fewer channels.

Each stage is scaled to length 1 at every position, as ReSC takes it, and projected onto the directions that hold
most of its energy over training crops.  The mean stays in, so that lengths and angles between features stay what
they are: settings that were chosen on the teacher hold for its student.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as nnf
from torch import Tensor

from resad.backbone import Backbone


@dataclass(frozen=True, slots=True, eq=False)
class Teacher:
    """A ResNet and the projection of its stages.

    bases: per stage float32 (C, c), orthonormal columns by falling energy.  kept: share of the energy they hold.
    """

    net: Backbone
    bases: tuple[Tensor, ...]
    kept: tuple[float, ...]

    def targets(self, images: Tensor, masks: Tensor) -> tuple[Tensor, ...]:
        """Per stage float32 (B, c, h, w), at most 1 long; images and masks as for a trunk."""
        with torch.no_grad():
            stages = self.net(images, masks)
        return tuple(
            torch.einsum("bchw,cd->bdhw", nnf.normalize(stage.float(), dim=1), basis)
            for stage, basis in zip(stages, self.bases, strict=True)
        )


@torch.inference_mode()
def fit_teacher(net: Backbone, batches: Iterable[tuple[Tensor, Tensor]], channels: Sequence[int]) -> Teacher:
    """The best `channels` directions per stage over the positions inside the field of view.

    batches: images (B, 3, C, C), normalized as ImageNet, and masks (B, C, C).
    """
    moments: list[Tensor] = []
    for images, masks in batches:
        stages = net(images, masks)
        if not moments:
            moments = [torch.zeros(stage.shape[1], stage.shape[1], dtype=torch.float64) for stage in stages]
        for moment, stage in zip(moments, stages, strict=True):
            x = nnf.normalize(stage, dim=1).permute(0, 2, 3, 1)[positions_inside(masks, stage)].double()
            moment += (x.T @ x).cpu()
    bases, kept = [], []
    for moment, count in zip(moments, channels, strict=True):
        values, vectors = torch.linalg.eigh(moment)
        bases.append(vectors.flip(1)[:, :count].float().contiguous())
        kept.append(float(values[-count:].sum() / values.sum()))
    # Clones, because tensors made in inference mode cannot take part in training.
    return Teacher(net, tuple(basis.clone() for basis in bases), tuple(kept))


def texture_loss(outputs: Sequence[Tensor], targets: Sequence[Tensor], masks: Tensor) -> Tensor:
    """Mean squared distance of the outputs, scaled to length 1 as in ReSC, to the targets; summed over stages."""
    losses = []
    for output, target in zip(outputs, targets, strict=True):
        squared = (nnf.normalize(output.float(), dim=1) - target).square().sum(dim=1)
        losses.append(squared[positions_inside(masks, output)].mean())
    return torch.stack(losses).sum()


def positions_inside(masks: Tensor, stage: Tensor) -> Tensor:
    """bool (B, h, w): the positions of `stage` that touch the field of view, bool (B, S, S)."""
    return nnf.adaptive_max_pool2d(masks[:, None].float(), stage.shape[-2:])[:, 0] > 0
