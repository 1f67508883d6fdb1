"""Trials of an ablation -> rows of the paper's table 3, the paper's own beside, and in what the two differ."""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev

from lab.ablation import AblationOrder, Trial
from lab.evaluate.paper import FULL, PROTOCOLS, TABLE_3, WEIGHTS, FourFigures
from resad.config import preset, to_json


@dataclass(frozen=True, slots=True)
class Row:
    """The mean of a row's trials, their standard deviation where there are several, and what the paper has."""

    name: str
    photos: int
    trials: int
    mean: FourFigures
    spread: FourFigures | None
    paper: FourFigures | None


def summary(trials: Sequence[Trial], dataset: str) -> tuple[Row, ...]:
    """The rows of the table in the paper's order, those that were measured."""
    rows = []
    for name in TABLE_3:
        some = [trial for trial in trials if trial.row == name]
        if some:
            figures = [trial.figures for trial in some]
            spread = _each(figures, stdev) if len(figures) > 1 else None
            rows.append(Row(name, some[0].photos, len(some), _each(figures, fmean), spread, _paper(name, dataset)))
    return tuple(rows)


def differences(order: AblationOrder) -> tuple[str, ...]:
    """In what this is not the paper's experiment, a line each: its figures cannot be expected here."""
    lines = []
    if order.dataset.name not in PROTOCOLS:
        lines.append(f"data set {order.dataset.name} instead of IDRiD under the protocol idrid-paper")
    lines += order.dataset.deviations
    ours, theirs = (dict(_flat(json.loads(to_json(one)))) for one in (order.config, preset("paper")))
    lines += [f"{name} {value} instead of {theirs[name]}" for name, value in ours.items() if value != theirs[name]]
    if order.weights != WEIGHTS:
        lines.append(f"weights {Path(order.weights).name} instead of {WEIGHTS}")
    return tuple(lines)


def _paper(row: str, dataset: str) -> FourFigures | None:
    """Table 3 is of IDRiD; of ADAM the paper has the whole method alone."""
    if dataset == "adam-paper":
        return PROTOCOLS[dataset] if row == FULL else None
    return TABLE_3[row]


def _each(figures: Sequence[FourFigures], of: Callable[[Sequence[float]], float]) -> FourFigures:
    columns = (
        [one.image_auc for one in figures],
        [one.image_acc for one in figures],
        [one.pixel_auc for one in figures],
        [one.pixel_acc for one in figures],
    )
    return FourFigures(*(_of(column, of) for column in columns))


def _of(column: Sequence[float | None], of: Callable[[Sequence[float]], float]) -> float | None:
    values = [value for value in column if value is not None]
    return of(values) if len(values) == len(column) else None


def _flat(document: dict[str, object], above: str = "") -> Iterator[tuple[str, object]]:
    """Section.field and value, in their order."""
    for name, value in document.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{above}{name}.")
        else:
            yield f"{above}{name}", value
