"""Which search an index gets: tried on reference photos, each against the memories of the others."""

import time
from collections.abc import Sequence
from dataclasses import replace
from statistics import median
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from indexer.build.feature_store import FeatureStore
from indexer.build.progress import Advance, Stages
from indexer.calibration.leave_out import check_enough_left
from indexer.settings import SearchChoice
from resad.config import MethodConfig
from resad.detector import Detection, measure
from resad.encoder import PatchFeatures
from resad.memory_bank import MemoryBank
from resad.search.plan import SearchPlan, SearchRecord, SearchTrial

_WIDTHS: Final = (96, 128, 160, 192, 256)
_FEWEST: Final = 20_000
"""Memories below which the flat search is fast enough, and the choice would take longer than it saves."""
_PHOTOS: Final = 2
_SAMPLE: Final = 2048
"""Patches, side by side, of the photo that the proved search's widths are timed on."""
_FLAT: Final = SearchPlan()


class _HeldOut(NamedTuple):
    """A reference photo and where its memories are.  mask: bool (S, S)."""

    patches: PatchFeatures
    mask: NDArray[np.bool_]
    number: int


def choose_search(
    bank: MemoryBank,
    store: FeatureStore,
    masks: Sequence[NDArray[np.bool_]],
    config: MethodConfig,
    choice: SearchChoice,
    stages: Stages,
) -> tuple[MemoryBank, SearchRecord]:
    """`bank` with the search that was asked for, or the faster exact one, and what was measured.

    `auto` takes flat or proved: both find the nearest memories, so that neither changes a number.  `ivf` changes
    the map where it is not highest, and is taken only when named.

    Args:
        masks: of the reference photos that the store begins with, at least two of them; bool (S, S).
    Raises `SettingError` where one of these has nearly all memories.
    """
    if choice == "flat" or (choice == "auto" and len(bank) < _FEWEST):
        return bank, SearchRecord(_FLAT, 0, ())
    held_out = [_HeldOut(store.photo(number), mask, number) for number, mask in enumerate(masks[:_PHOTOS])]
    for one in held_out:
        others = int((bank.provenance.photo != one.number).sum())
        check_enough_left(others, bank, config.search.neighbors)
    with stages.stage("search", len(held_out), "photos") as advance:
        plans = [_FLAT]
        if choice in ("auto", "proved"):
            plans.append(_proved_plan(bank, held_out[0], config.search.neighbors))
        if choice == "ivf":
            plans.append(replace(_FLAT, kind=choice))
        trials = _tried(bank, held_out, plans, config, advance)
    chosen = min(trials, key=lambda trial: trial.milliseconds).plan if choice == "auto" else plans[-1]
    return bank if chosen == bank.plan else bank.with_plan(chosen), SearchRecord(chosen, len(held_out), trials)


def _proved_plan(bank: MemoryBank, held_out: _HeldOut, neighbors: int) -> SearchPlan:
    """The width whose search takes the least time; every width finds the same."""
    start = max(0, (len(held_out.patches.features) - _SAMPLE) // 2)
    some = np.ascontiguousarray(held_out.patches.features[start : start + _SAMPLE])
    others = bank.without_photos(np.array([held_out.number], dtype=np.int32))

    def seconds(plan: SearchPlan) -> float:
        searched = others.with_plan(plan)
        taken = []
        for _ in range(2):
            began = time.perf_counter()
            searched.search(some, neighbors)
            taken.append(time.perf_counter() - began)
        return min(taken)

    widths = [width for width in _WIDTHS if width <= _WIDTHS[0] or width < 1.5 * bank.dimension]
    return min((replace(_FLAT, kind="proved", width=width) for width in widths), key=seconds)


def _tried(
    bank: MemoryBank,
    held_out: Sequence[_HeldOut],
    plans: Sequence[SearchPlan],
    config: MethodConfig,
    advance: Advance,
) -> tuple[SearchTrial, ...]:
    """Each plan on each photo; the first plan is the flat one that the others are compared with."""
    found: dict[SearchPlan, list[tuple[Detection, float, float]]] = {plan: [] for plan in plans}
    for one in held_out:
        others = bank.without_photos(np.array([one.number], dtype=np.int32))
        for plan in plans:
            searched = others.with_plan(plan)
            began = time.perf_counter()
            detection = measure(one.patches, one.mask, searched, config)
            found[plan].append((detection, time.perf_counter() - began, searched.proved))
        advance(1)
    flat = [detection for detection, _, _ in found[plans[0]]]
    return tuple(_trial(plan, found[plan], flat) for plan in plans)


def _trial(
    plan: SearchPlan, found: Sequence[tuple[Detection, float, float]], flat: Sequence[Detection]
) -> SearchTrial:
    pairs = list(zip((detection for detection, _, _ in found), flat, strict=True))
    ratios = [ours.image_score / theirs.image_score if theirs.image_score else 1.0 for ours, theirs in pairs]
    errors = [
        float(np.abs(ours.anomaly_map - theirs.anomaly_map).max()) / theirs.peak if theirs.peak else 0.0
        for ours, theirs in pairs
    ]
    return SearchTrial(
        plan=plan,
        milliseconds=1e3 * median(seconds for _, seconds, _ in found),
        image_score_ratio=max(ratios, key=lambda ratio: abs(ratio - 1)),
        map_error=max(errors),
        proved=min(share for _, _, share in found),
    )
