"""The paper's figures (Niu et al., arXiv 2303.03817, tables 1 to 3), printed beside measured ones.

It gives no intervals, does not say whether its pixel figures are those of the whole image, nor at which threshold
its balanced accuracies (ACC) are taken.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class FourFigures:
    """AUC and balanced accuracy at the best threshold, of image scores and of pixels; None where there is none."""

    image_auc: float | None
    image_acc: float | None
    pixel_auc: float | None
    pixel_acc: float | None


WEIGHTS: Final = "imagenet1k_v1"
"""'Pre-trained on ImageNet': torchvision's first weights, those of the paper's time."""
FULL: Final = "with ReSC"

TABLE_3: Final[Mapping[str, FourFigures]] = {
    "10 % of the normals": FourFigures(0.913, 0.855, 0.898, 0.808),
    "40 % of the normals": FourFigures(0.916, 0.840, 0.899, 0.809),
    "70 % of the normals": FourFigures(0.925, 0.870, 0.901, 0.812),
    "without ReSC": FourFigures(0.769, 0.756, 0.864, 0.777),
    "without region module": FourFigures(0.812, 0.785, 0.878, 0.792),
    "without spatial module": FourFigures(0.915, 0.848, 0.897, 0.807),
    FULL: FourFigures(0.941, 0.902, 0.907, 0.819),
}
"""On IDRiD."""

PROTOCOLS: Final[Mapping[str, FourFigures]] = {
    "idrid-paper": TABLE_3[FULL],
    "adam-paper": FourFigures(None, None, 0.820, 0.732),
}
"""Tables 1 and 2, row 'Ours', by the name of the protocol here."""
