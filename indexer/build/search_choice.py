"""Chooses an index's search by a trial on reference photos, each against the memories of the other photos."""

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
_MIN_MEMORIES: Final = 20_000
"""Memories below which the flat search is fast enough, and the trial would take longer than it saves."""
_PHOTOS: Final = 2
_SAMPLE: Final = 2048
"""Adjacent patches of a photo, on which the widths of the search `proved` are timed."""
_FLAT: Final = SearchPlan()


class _HeldOut(NamedTuple):
    """A reference photo for the trial.  mask: bool (S, S).  number: in the bank's provenance."""

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
    """`bank` with the requested search, or with the faster exact one, and the measurements.

    `auto` takes flat or proved: both find the nearest memories, so that neither changes a number.  `ivf` changes
    the map where it is not highest, and is taken only on request.

    Args:
        masks: of the first photos of the store, at least two; bool (S, S).
    Raises `SettingError` if one of these photos has nearly all memories.
    """
    if choice == "flat" or (choice == "auto" and len(bank) < _MIN_MEMORIES):
        return bank, SearchRecord(_FLAT, 0, ())
    held_out = [_HeldOut(store.photo(number), mask, number) for number, mask in enumerate(masks[:_PHOTOS])]
    for photo in held_out:
        remaining = int((bank.provenance.photo != photo.number).sum())
        check_enough_left(remaining, bank, config.search.neighbors)
    with stages.stage("search", len(held_out), "photos") as advance:
        plans = [_FLAT]
        if choice in ("auto", "proved"):
            plans.append(_proved_plan(bank, held_out[0], config.search.neighbors))
        if choice == "ivf":
            plans.append(replace(_FLAT, kind=choice))
        trials = _run_trials(bank, held_out, plans, config, advance)
    chosen = min(trials, key=lambda trial: trial.milliseconds).plan if choice == "auto" else plans[-1]
    return bank if chosen == bank.plan else bank.with_plan(chosen), SearchRecord(chosen, len(held_out), trials)


def _proved_plan(bank: MemoryBank, held_out: _HeldOut, neighbors: int) -> SearchPlan:
    """The width whose search is fastest; every width finds the same."""
    start = max(0, (len(held_out.patches.features) - _SAMPLE) // 2)
    patches = np.ascontiguousarray(held_out.patches.features[start : start + _SAMPLE])
    rest = bank.without_photos(np.array([held_out.number], dtype=np.int32))

    def seconds(plan: SearchPlan) -> float:
        planned = rest.with_plan(plan)
        durations = []
        for _ in range(2):
            start = time.perf_counter()
            planned.search(patches, neighbors)
            durations.append(time.perf_counter() - start)
        return min(durations)

    widths = [width for width in _WIDTHS if width <= _WIDTHS[0] or width < 1.5 * bank.dimension]
    return min((replace(_FLAT, kind="proved", width=width) for width in widths), key=seconds)


def _run_trials(
    bank: MemoryBank,
    held_out: Sequence[_HeldOut],
    plans: Sequence[SearchPlan],
    config: MethodConfig,
    advance: Advance,
) -> tuple[SearchTrial, ...]:
    """Try each plan on each photo; the first plan is flat, with which the others are compared."""
    runs: dict[SearchPlan, list[tuple[Detection, float, float]]] = {plan: [] for plan in plans}
    for photo in held_out:
        rest = bank.without_photos(np.array([photo.number], dtype=np.int32))
        for plan in plans:
            planned = rest.with_plan(plan)
            start = time.perf_counter()
            detection = measure(photo.patches, photo.mask, planned, config)
            runs[plan].append((detection, time.perf_counter() - start, planned.proved))
        advance(1)
    flat = [detection for detection, _, _ in runs[plans[0]]]
    return tuple(_trial(plan, runs[plan], flat) for plan in plans)


def _trial(
    plan: SearchPlan, runs: Sequence[tuple[Detection, float, float]], flat: Sequence[Detection]
) -> SearchTrial:
    """The figures of a plan.

    runs: per photo detection, seconds, and the share of proved patches.  flat: detections of the flat search.
    """
    pairs = list(zip((detection for detection, _, _ in runs), flat, strict=True))
    ratios = [run.image_score / exact.image_score if exact.image_score else 1.0 for run, exact in pairs]
    errors = [
        float(np.abs(run.anomaly_map - exact.anomaly_map).max()) / exact.peak if exact.peak else 0.0
        for run, exact in pairs
    ]
    return SearchTrial(
        plan=plan,
        milliseconds=1e3 * median(seconds for _, seconds, _ in runs),
        image_score_ratio=max(ratios, key=lambda ratio: abs(ratio - 1)),
        map_error=max(errors),
        proved=min(share for _, _, share in runs),
    )
