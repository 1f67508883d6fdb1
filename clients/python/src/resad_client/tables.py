"""Tables on the terminal: indexes, and the photographs of a scoring run."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Final

from rich.markup import escape
from rich.table import Table

from resad_client.records import IndexInfo, IndexReference, ScoreRow
from resad_client.terminal import SafeConsole
from resad_client.text import counted

_MOST_ROWS: Final = 40
_HIGHEST: Final = 10
"""Rows for the highest scores of a longer run."""
_DOUBT: Final = "? not like the photographs of the index, so that score, verdict and findings may not be trusted:"


def index_table(indexes: Sequence[IndexInfo], *, title: str) -> Table:
    """One line per index."""
    table = Table(title=title, title_justify="left")
    for heading in ("index", "version", "state", "backbone", "photos", "memories"):
        table.add_column(
            heading, overflow="fold", justify="right" if heading in ("photos", "memories") else "left"
        )
    for index in indexes:
        words = (index.name, index.version, index.state, index.backbone)
        counts = ("-" if count is None else f"{count:,}" for count in (index.photos, index.memories))
        table.add_row(*(escape(word or "-") for word in words), *counts)
    return table


def print_scores(console: SafeConsole, rows: Sequence[ScoreRow], *, before: int) -> None:
    """A table of all photographs, or a summary and the highest scores of many; then what is doubtful and why.

    Args:
        before: photographs that an earlier run scored.
    """
    earlier = f", {before} more by an earlier run" if before else ""
    if not rows and before:
        console.print(f"0 photographs{earlier}: nothing was left to do", highlight=False)
    elif rows and len(rows) <= _MOST_ROWS:
        console.print(score_table(rows, title=f"{counted(len(rows), 'photograph')}{earlier}"))
    elif rows:
        console.print(f"{counted(len(rows), 'photograph')}{earlier}: {_verdicts(rows)}", highlight=False)
        highest = sorted(rows, key=lambda row: row.result.image_score, reverse=True)[:_HIGHEST]
        console.print(score_table(highest, title=f"The {len(highest)} highest scores"))
    for line in (*_doubts(rows), *_matches(rows), *warning_lines([row.result.index for row in rows])):
        console.say(line)


def score_table(rows: Sequence[ScoreRow], *, title: str) -> Table:
    """One line per photograph."""
    table = Table(title=title, title_justify="left")
    table.add_column("photo", overflow="fold")
    for heading in ("score", "p", "verdict", "findings"):
        table.add_column(heading, justify="left" if heading == "verdict" else "right", no_wrap=True)
    for row in rows:
        photo, *cells = _cells(row)
        table.add_row(escape(photo), *cells)
    return table


def score_line(row: ScoreRow) -> str:
    """A photograph as a line of text."""
    photo, score, p_value, verdict, findings = _cells(row)
    line = f"{photo}: score {score}, p {p_value}, {verdict}, findings {findings}"
    line = f"{line}; not to be trusted: {_reasons(row)}" if _is_doubtful(row) else line
    return f"{line}; {row.result.same_as}" if row.result.same_as else line


def warning_lines(indexes: Iterable[IndexReference | IndexInfo]) -> list[str]:
    """What makes verdicts of these indexes doubtful, each line once, with the version if there are several."""
    versions = {(index.name, index.version): index.warnings for index in indexes}
    names = Counter(name for name, _ in versions)
    return [
        f"! index {name}{f' {version}' if names[name] > 1 else ''}: {warning.text}"
        for (name, version), warnings in versions.items()
        for warning in warnings
    ]


def _cells(row: ScoreRow) -> tuple[str, str, str, str, str]:
    result = row.result
    verdict = "-" if result.abnormal is None else "abnormal" if result.abnormal else "normal"
    p_value = "-" if result.p_value is None else f"{result.p_value:.4f}"
    # Without a level there are no findings.
    findings = "-" if result.normals.finding_level is None else str(row.findings)
    mark = "?" if _is_doubtful(row) else ""
    return row.label, f"{result.image_score:#.4g}", p_value, f"{verdict}{mark}", findings


def _doubts(rows: Sequence[ScoreRow]) -> list[str]:
    """The meaning of the mark, and the reasons of each photograph that has it; no lines if none has."""
    doubtful = [row for row in rows if _is_doubtful(row)]
    lines = [_DOUBT, *(f"  {row.label}: {_reasons(row)}" for row in doubtful[:_MOST_ROWS])] if doubtful else []
    more = len(doubtful) - _MOST_ROWS
    return [*lines, f"  and {more} more; the column quality of --csv has them all"] if more > 0 else lines


def _matches(rows: Sequence[ScoreRow]) -> list[str]:
    """The photographs that the index itself holds."""
    matches = [f"! {row.label} is {row.result.same_as}" for row in rows if row.result.same_as]
    more = len(matches) - _MOST_ROWS
    return [*matches[:_MOST_ROWS], *([f"! and {more} more; see the column same_as of --csv"] if more > 0 else [])]


def _is_doubtful(row: ScoreRow) -> bool:
    return not row.result.quality.acceptable


def _reasons(row: ScoreRow) -> str:
    return ", ".join(row.result.quality.reasons)


def _verdicts(rows: Sequence[ScoreRow]) -> str:
    """How many of each verdict; doubtful ones are counted separately."""
    numbers = Counter("doubtful" if _is_doubtful(row) else row.result.abnormal for row in rows)
    words = ((True, "abnormal"), (False, "normal"), (None, "without a verdict"), ("doubtful", "doubtful"))
    return ", ".join(f"{numbers[verdict]} {word}" for verdict, word in words if numbers[verdict])
