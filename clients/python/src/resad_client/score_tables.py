"""What a run over photographs prints.

The offline command has the same file over its own records; a test keeps the two alike.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Final

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from resad_client.batch import Scored

_ALL_SHOWN: Final = 40
_HIGHEST: Final = 10
"""Photographs: what a screen shows of a run."""


def print_scores(console: Console, scored: Sequence[Scored], *, before: int) -> None:
    """A table of all; of many photographs a summary and the highest scores.  before: scored by an earlier run."""
    earlier = f", {before} more by an earlier run" if before else ""
    if not scored and before:
        console.print(f"0 photographs{earlier}: nothing was left to do", highlight=False)
    elif scored and len(scored) <= _ALL_SHOWN:
        console.print(score_table(scored, title=f"{len(scored)} photographs{earlier}"))
    elif scored:
        console.print(f"{len(scored)} photographs{earlier}: {_verdicts(scored)}", highlight=False)
        highest = sorted(scored, key=lambda one: one.result.image_score, reverse=True)[:_HIGHEST]
        console.print(score_table(highest, title=f"The {len(highest)} highest scores"))


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


def _cells(one: Scored) -> tuple[str, str, str, str, str]:
    result = one.result
    verdict = "-" if result.abnormal is None else "abnormal" if result.abnormal else "normal"
    p_value = "-" if result.p_value is None else f"{result.p_value:.4f}"
    # Without a level there is nothing that a finding could lie above.
    findings = "-" if result.normals.finding_level is None else str(one.findings)
    return one.label, f"{result.image_score:#.4g}", p_value, verdict, findings


def _verdicts(scored: Sequence[Scored]) -> str:
    counted = Counter(one.result.abnormal for one in scored)
    words = ((True, "abnormal"), (False, "normal"), (None, "without a verdict"))
    return ", ".join(f"{counted[verdict]} {word}" for verdict, word in words if counted[verdict])
