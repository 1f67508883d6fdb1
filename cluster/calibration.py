"""Every reference photograph against the bank less its own memories, each on the worker that has its features."""

import secrets
from collections.abc import Callable, Sequence

from cluster.features import ClusterFeatures
from indexer.calibration.leave_out import LeftOut, PatchDistances, score_left_out
from resad.config import MethodConfig
from resad.memory_bank import MemoryBank
from resad.preparation import mask_of


def leave_out_on(
    features: ClusterFeatures,
    groups: Sequence[frozenset[int]],
    bank: MemoryBank,
    config: MethodConfig,
    advance: Callable[[int], None],
    cameras: Sequence[str | None],
) -> LeftOut:
    """As `indexer.calibration.leave_out.leave_out`, which see."""
    shared = features.crew.share((secrets.token_hex(4), bank.memories, bank.provenance))

    def arguments(piece: int) -> tuple[object, ...]:
        theirs = tuple(groups[number] for number in features.photos(piece))
        return features.chosen(piece), theirs, shared

    found: dict[int, tuple[tuple[PatchDistances, ...], float]] = {}
    pieces = [piece for piece in range(len(features.pieces)) if features.photos(piece)]
    for piece, measured in features.each("left_out", arguments, pieces):
        found[piece] = measured
        advance(len(features.photos(piece)))
    placed = [one for piece in pieces for one in found[piece][0]]
    radius = max(found[piece][1] for piece in pieces)
    masks = (mask_of(one.frame, one.field_of_view, config.preparation) for one in features.references)
    return score_left_out(placed, radius, masks, config, cameras)
