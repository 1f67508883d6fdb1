"""What the command line prints, in the form of `resad-indexer`."""

from collections.abc import Sequence

from rich.markup import escape
from rich.table import Table

from resad_client.batch import Scored
from resad_client.models import IndexInfo


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
        result = one.result
        verdict = "-" if result.abnormal is None else "abnormal" if result.abnormal else "normal"
        p_value = "-" if result.p_value is None else f"{result.p_value:.4f}"
        score, findings = four_digits(result.image_score), str(len(result.findings))
        table.add_row(escape(one.label), score, p_value, verdict, findings)
    return table


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
