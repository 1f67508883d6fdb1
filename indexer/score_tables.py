"""What a run over photographs prints.

The service's client has the same file over its own records; a test keeps the two alike.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Final

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from indexer.scoring import ScoreRow

_ALL_SHOWN: Final = 40
_HIGHEST: Final = 10
"""Photographs: what a screen shows of a run."""
_DOUBT: Final = "? not like the photographs of the index, so that score, verdict and findings may not be trusted:"


def print_scores(console: Console, scored: Sequence[ScoreRow], *, before: int) -> None:
    """A table of all; of many photographs a summary and the highest scores; below it what is in doubt, and why.

    before: photographs that were scored by an earlier run.
    """
    earlier = f", {before} more by an earlier run" if before else ""
    if not scored and before:
        console.print(f"0 photographs{earlier}: nothing was left to do", highlight=False)
    elif scored and len(scored) <= _ALL_SHOWN:
        console.print(score_table(scored, title=f"{len(scored)} photographs{earlier}"))
    elif scored:
        console.print(f"{len(scored)} photographs{earlier}: {_verdicts(scored)}", highlight=False)
        highest = sorted(scored, key=lambda one: one.result.image_score, reverse=True)[:_HIGHEST]
        console.print(score_table(highest, title=f"The {len(highest)} highest scores"))
    for line in _doubts(scored):
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def score_table(scored: Sequence[ScoreRow], *, title: str) -> Table:
    """One line per photograph."""
    table = Table(title=title, title_justify="left")
    table.add_column("photo", overflow="fold")
    for heading in ("score", "p", "verdict", "findings"):
        table.add_column(heading, justify="left" if heading == "verdict" else "right", no_wrap=True)
    for one in scored:
        photo, *cells = _cells(one)
        table.add_row(escape(photo), *cells)
    return table


def score_line(one: ScoreRow) -> str:
    """The same as a line of text."""
    photo, score, p_value, verdict, findings = _cells(one)
    line = f"{photo}: score {score}, p {p_value}, {verdict}, findings {findings}"
    return f"{line}; not to be trusted: {_reasons(one)}" if _is_doubtful(one) else line


def _cells(one: ScoreRow) -> tuple[str, str, str, str, str]:
    result = one.result
    verdict = "-" if result.abnormal is None else "abnormal" if result.abnormal else "normal"
    p_value = "-" if result.p_value is None else f"{result.p_value:.4f}"
    # Without a level there is nothing that a finding could lie above.
    findings = "-" if result.normals.finding_level is None else str(one.findings)
    mark = "?" if _is_doubtful(one) else ""
    return one.label, f"{result.image_score:#.4g}", p_value, f"{verdict}{mark}", findings


def _doubts(scored: Sequence[ScoreRow]) -> list[str]:
    """What the mark means, and for each photograph that has it why; no lines where none has."""
    doubtful = [one for one in scored if _is_doubtful(one)]
    lines = [_DOUBT, *(f"  {one.label}: {_reasons(one)}" for one in doubtful[:_ALL_SHOWN])] if doubtful else []
    more = len(doubtful) - _ALL_SHOWN
    return [*lines, f"  and {more} more; the column quality of --csv has them all"] if more > 0 else lines


def _is_doubtful(one: ScoreRow) -> bool:
    return not one.result.quality.acceptable


def _reasons(one: ScoreRow) -> str:
    return ", ".join(one.result.quality.reasons)


def _verdicts(scored: Sequence[ScoreRow]) -> str:
    """How many of each; what is in doubt is counted by itself."""
    counted = Counter("doubtful" if _is_doubtful(one) else one.result.abnormal for one in scored)
    words = ((True, "abnormal"), (False, "normal"), (None, "without a verdict"), ("doubtful", "doubtful"))
    return ", ".join(f"{counted[verdict]} {word}" for verdict, word in words if counted[verdict])
