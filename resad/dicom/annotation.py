"""Text burned into a photograph's field of view: it would be scored as lesions."""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from pydicom.dataset import Dataset


def demand_no_text(pixels: NDArray[np.uint8], dataset: "Dataset") -> None:
    pass
