"""What the command line prints, in the form of `resad-indexer`."""

from collections import Counter
from collections.abc import Sequence
from typing import Final

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from resad_client.batch import Scored
from resad_client.models import IndexInfo

_ALL_SHOWN: Final = 40
_HIGHEST: Final = 10
"""Photographs: what a screen shows of a run."""


def four_digits(value: float) -> str:
    """`value` with four significant digits, as scores are printed everywhere."""
    return f"{value:#.4g}"


def score_table(scored: Sequence[Scored], *, title: str) -> Table:
    """One line per photograph."""
    table = Table(title=title, title_justify="left")
    table.add_column("photo", overflow="fold")
    for heading in ("score", "p", "verdict", "findings"):
        table.add_column(heading, justify="left" if heading == "verdict" else "right", no_wrap=True)
    for one in scored:
        photo, *cells = _cells(one)
        table.add_row(escape(photo), *cells)
    return table


def score_line(one: Scored) -> str:
    """The same as a line of text."""
    photo, score, p_value, verdict, findings = _cells(one)
    return f"{photo}: score {score}, p {p_value}, {verdict}, findings {findings}"


def print_scores(console: Console, scored: Sequence[Scored], *, before: int) -> None:
    """A table of all; of many photographs a summary and the highest scores.  before: scored by an earlier run."""
    earlier = f", {before} more by an earlier run" if before else ""
    if len(scored) <= _ALL_SHOWN:
        if scored:
            console.print(score_table(scored, title=f"{len(scored)} photographs{earlier}"))
        elif before:
            console.print(f"0 photographs{earlier}: nothing was left to do", highlight=False)
        return
    verdicts = Counter(one.result.abnormal for one in scored)
    words = ((True, "abnormal"), (False, "normal"), (None, "without a verdict"))
    counts = ", ".join(f"{verdicts[verdict]} {word}" for verdict, word in words if verdicts[verdict])
    console.print(f"{len(scored)} photographs{earlier}: {counts}", highlight=False)
    highest = sorted(scored, key=lambda one: one.result.image_score, reverse=True)[:_HIGHEST]
    console.print(score_table(highest, title=f"The {len(highest)} highest scores"))


def index_table(served: Sequence[IndexInfo], *, title: str) -> Table:
    """One line per index."""
    table = Table(title=title, title_justify="left")
    for heading in ("index", "version", "state", "backbone", "photos", "memories"):
        table.add_column(
            heading, overflow="fold", justify="right" if heading in ("photos", "memories") else "left"
        )
    for index in served:
        words = (index.name, index.version, index.state, index.backbone)
        counts = ("-" if count is None else f"{count:,}" for count in (index.photos, index.memories))
        table.add_row(*(escape(word or "-") for word in words), *counts)
    return table


def _cells(one: Scored) -> tuple[str, str, str, str, str]:
    result = one.result
    verdict = "-" if result.abnormal is None else "abnormal" if result.abnormal else "normal"
    p_value = "-" if result.p_value is None else f"{result.p_value:.4f}"
    return one.label, four_digits(result.image_score), p_value, verdict, str(one.findings)
