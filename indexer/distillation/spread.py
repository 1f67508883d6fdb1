"""The last step of a distillation: features centered, and directions that hardly vary raised.

A student follows its teacher best where the teacher varies most; what tells a lesion from a retina lies mostly
elsewhere.  Halfway whitening (each direction divided by the fourth root of its variance) evens that out without
raising noise as much as the whole would; how it was chosen: benchmarks/RESULTS.md.
"""

from collections.abc import Sequence
from typing import Final

import torch
import torch.nn.functional as nnf
from torch import Tensor, nn

from indexer.distillation.targets import inside
from indexer.distillation.views import Square, whole_view
from resad.bundled import BundledTrunk

_POWER: Final = 0.5
"""Of whitening: 0 only centers, 1 makes all directions vary alike."""
_FLOOR: Final = 0.003
"""Added to each direction's variance, as a share of the largest: below it there is noise."""


@torch.no_grad()
def spread(trunk: BundledTrunk, squares: Sequence[Square]) -> BundledTrunk:
    """The folded `trunk` with its features spread as those of `squares`, healthy and as they are, ask for."""
    rows: tuple[list[Tensor], ...] = ([], [])
    for square in squares:
        view = whole_view(square)
        for found, output in zip(rows, trunk.directions(view.normalized()), strict=True):
            found.append(nnf.normalize(output, dim=1).permute(0, 2, 3, 1)[inside(view, output)])
    trunk.fine_spread, trunk.coarse_spread = (_spreading(torch.cat(found)) for found in rows)
    return trunk


def _spreading(rows: Tensor) -> nn.Conv2d:
    """float32 (N, C) -> the 1 x 1 convolution that centers and spreads them."""
    values, vectors = torch.linalg.eigh(torch.cov(rows.T.double()))
    share = values / values.max() + _FLOOR
    weight = ((vectors * share ** (-_POWER / 2)) @ vectors.T).float()
    layer = nn.Conv2d(len(weight), len(weight), 1)
    layer.weight.copy_(weight[:, :, None, None])
    layer.bias.copy_(-weight @ rows.mean(dim=0))  # type: ignore[union-attr]
    return layer
