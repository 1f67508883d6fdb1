"""Whether what comes still looks like what the index was calibrated on.

The last photographs' image scores are held against the calibration's: the largest distance between the two
distribution functions (Kolmogorov-Smirnov, two samples), and the mean p-value, 0.5 where they are alike.  A clinic
also sends diseased photographs, so that neither is a verdict: what tells is a change.
"""

import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

WINDOW: Final = 200
"""Photographs looked back upon."""


@dataclass(frozen=True, slots=True)
class Drift:
    """Of one version's last photographs.

    photos: how many, at most `WINDOW`.  ks: in [0, 1].  mean_p: of their p-values, in (0, 1].  abnormal: share
    with p <= 0.05.
    """

    photos: int
    ks: float
    mean_p: float
    abnormal: float


class Recent:
    """The last image scores under one version; filled and read on any thread.

    Args:
        normals: image scores of its calibration, ascending.
    """

    def __init__(self, normals: Sequence[float]) -> None:
        self._normals = np.asarray(normals)
        self._scores: deque[float] = deque(maxlen=WINDOW)
        self._lock = threading.Lock()

    def add(self, score: float) -> None:
        """One photograph more."""
        with self._lock:
            self._scores.append(score)

    def drift(self) -> Drift | None:
        """None before the first photograph."""
        with self._lock:
            scores = np.sort(np.array(self._scores))
        if not len(scores):
            return None
        # As resad.calibration.p_value has it: (1 + normals at or above) / (normals + 1).
        above = len(self._normals) - np.searchsorted(self._normals, scores, side="left")
        p = (1 + above) / (len(self._normals) + 1)
        return Drift(len(scores), distance(scores, self._normals), float(p.mean()), float((p <= 0.05).mean()))


def distance(one: Sequence[float] | np.ndarray, other: Sequence[float] | np.ndarray) -> float:
    """The largest difference of two samples' distribution functions; both ascending."""
    places = np.concatenate([one, other])
    shares = [np.searchsorted(sample, places, side="right") / len(sample) for sample in (one, other)]
    return float(np.abs(shares[0] - shares[1]).max())
