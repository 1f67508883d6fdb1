"""What `resad-indexer audit` prints."""

from pathlib import Path
from typing import Final

from rich.markup import escape
from rich.table import Table

from indexer.tables import four_digits
from lab.audit import Audit

_WORDS: Final = ("photo", "quality", "file")


def audit_table(found: Audit, count: int) -> Table:
    """The first `count` reference photographs."""
    table = Table(
        title=f"{found.name} {found.version}: {len(found.photos)} reference photographs, highest score first",
        title_justify="left",
    )
    for heading in ("rank", "photo", "score", "p", "spreads", "quality", "file"):
        table.add_column(heading, overflow="fold", justify="left" if heading in _WORDS else "right")
    for one in found.photos[:count]:
        numbers = (four_digits(one.score), f"{one.p:.4f}", f"{one.spreads:+.1f}")
        name = Path(one.place).name if one.place else "-"
        table.add_row(str(one.rank), one.id, *numbers, ", ".join(one.reasons) or "-", escape(name))
    return table
