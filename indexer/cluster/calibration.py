"""Every reference photograph against the bank less its own memories, each on the worker that has its features."""

import secrets
from collections.abc import Callable, Sequence

import numpy as np

from indexer.cluster.features import ClusterFeatures
from indexer.leave_out import LeftOut, LeftOutScores, groups_of
from resad.calibration import calibrate
from resad.memory_bank import MemoryBank


def leave_out_on(
    features: ClusterFeatures,
    patients: Sequence[str | None],
    bank: MemoryBank,
    advance: Callable[[int], None],
    cameras: Sequence[str | None],
) -> LeftOut:
    """As `indexer.leave_out.leave_out`, which see."""
    groups = groups_of(patients)
    shared = features.crew.share((secrets.token_hex(4), bank.memories, bank.provenance))

    def arguments(piece: int) -> tuple[object, ...]:
        theirs = tuple(frozenset(groups[number]) for number in features.photos(piece))
        return features.chosen(piece), theirs, shared

    found: dict[int, LeftOutScores] = {}
    pieces = [piece for piece in range(len(features.pieces)) if features.photos(piece)]
    for piece, measured in features.each("left_out", arguments, pieces):
        found[piece] = measured
        advance(len(features.photos(piece)))
    parts = [found[piece] for piece in pieces]
    scores = tuple(score for part in parts for score in part.scores)
    peaks = tuple(peak for part in parts for peak in part.peaks)
    distances = np.concatenate([part.distances for part in parts])
    radius = max(part.covering_radius for part in parts)
    return LeftOut(scores, peaks, calibrate(scores, peaks, distances, cameras=cameras), radius)
