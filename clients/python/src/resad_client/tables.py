"""What the command line prints of indexes, in the form of `resad-indexer`."""

from collections.abc import Sequence

from rich.markup import escape
from rich.table import Table

from resad_client.models import IndexInfo


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
