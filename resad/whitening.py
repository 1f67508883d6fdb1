"""What is usual taken out of the features: each stage's unit vectors, centered and whitened by healthy retinas.

The unit vectors of a retina lie close together: most of their length is what all retinas share, and most of their
variance lies in a few directions that say little about disease.  Taking the mean out and dividing each principal
direction by a power of its standard deviation lets the rest be heard.  PaDiM (Defard et al. 2021) goes all the
way, to the Mahalanobis distance, at each position; here it is one matrix a stage for all positions.

It is fitted to healthy photographs when an index is built, and is a part of the index.  A setting, and not the
default: what it gains and costs is in benchmarks/RESULTS.md.
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import safetensors.torch
import torch
import torch.nn.functional as nnf
from torch import Tensor

from resad.errors import IndexInvalid, SettingError

FILE: Final = "whitening.safetensors"
_FLOOR: Final = 0.003
"""Added to each direction's variance, as a share of the largest: below it there is noise."""


@dataclass(frozen=True, slots=True, eq=False)
class Whitening:
    """Per stage the mean, float32 (C,), and the matrix, float32 (C, C), symmetric."""

    means: tuple[Tensor, ...]
    matrices: tuple[Tensor, ...]

    def of(self, stage: int, units: Tensor) -> Tensor:
        """Unit vectors (B, C, h, w) of the stage at that place -> centered, whitened and of length 1 again."""
        mean, matrix = self.means[stage], self.matrices[stage]
        # W (x - m) as one convolution: what is multiplied is never centered in memory.
        white = nnf.conv2d(units, matrix[:, :, None, None], -matrix @ mean)
        return nnf.normalize(white, dim=1)

    def to(self, device: torch.device) -> "Whitening":
        """The same on `device`."""
        return Whitening(
            tuple(mean.to(device) for mean in self.means), tuple(matrix.to(device) for matrix in self.matrices)
        )

    @property
    def sha256(self) -> str:
        """`sha256:...` over all values."""
        sha = hashlib.sha256()
        for tensor in (*self.means, *self.matrices):
            sha.update(tensor.cpu().contiguous().numpy().tobytes())
        return "sha256:" + sha.hexdigest()

    def to_bytes(self) -> bytes:
        """As a safetensors file."""
        tensors: dict[str, Tensor] = {}
        for number, (mean, matrix) in enumerate(zip(self.means, self.matrices, strict=True)):
            tensors |= {f"mean.{number}": mean.cpu(), f"matrix.{number}": matrix.cpu().contiguous()}
        return safetensors.torch.save(tensors)

    @classmethod
    def load(cls, path: Path) -> "Whitening":
        """The inverse of `to_bytes`; raises `IndexInvalid` where the file is missing or of another kind."""
        try:
            tensors = safetensors.torch.load_file(path)
            count = len(tensors) // 2
            means = tuple(tensors[f"mean.{number}"] for number in range(count))
            return cls(means, tuple(tensors[f"matrix.{number}"] for number in range(count)))
        except (OSError, KeyError, safetensors.SafetensorError) as error:
            raise IndexInvalid(f"{path} holds no whitening that can be read: {error}") from error


def fit_whitening(photos: Iterable[Sequence[Tensor]], power: float) -> Whitening:
    """Fit to the healthy.

    Args:
        photos: per photo and stage the unit vectors at its valid positions, float32 (N, C).
        power: each principal direction is divided by its standard deviation to this power: 0 only centers, 1 makes
            all directions vary alike.
    Raises:
        SettingError: there is nothing to fit to.
    """
    counts: list[int] = []
    sums: list[Tensor] = []
    products: list[Tensor] = []
    for stages in photos:
        for number, units in enumerate(stages):
            x = units.double()
            if number == len(sums):
                counts.append(0)
                sums.append(x.new_zeros(x.shape[1]))
                products.append(x.new_zeros(x.shape[1], x.shape[1]))
            counts[number] += len(x)
            sums[number] += x.sum(dim=0)
            products[number] += x.T @ x
    if not counts or min(counts) == 0:
        raise SettingError("a whitening is fitted to photographs, and there is none to fit it to")
    means = [total / count for total, count in zip(sums, counts, strict=True)]
    covariances = [
        product / count - mean[:, None] * mean
        for product, count, mean in zip(products, counts, means, strict=True)
    ]
    return Whitening(tuple(mean.float() for mean in means), tuple(_matrix(one, power) for one in covariances))


def _matrix(covariance: Tensor, power: float) -> Tensor:
    """covariance to the power -`power` / 2, its eigenvalues as shares of the largest, with a floor: (C, C)."""
    values, vectors = torch.linalg.eigh(covariance)
    largest = values[-1].clamp(min=torch.finfo(values.dtype).tiny)
    share = values.clamp(min=0) / largest + _FLOOR
    matrix: Tensor = (vectors * share ** (-power / 2)) @ vectors.T
    return matrix.float()
