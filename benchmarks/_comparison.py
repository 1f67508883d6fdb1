"""Rows of an accuracy table beside the first of them, on the same resampled photographs."""

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks._bench import interval, print_table
from benchmarks._idrid import Chosen, Difference, Row, Scores, cells, count_of, difference, scores


@dataclass(frozen=True, slots=True)
class Line:
    """A row on some of the photographs, in JSON.  less_first: its difference from the first row."""

    photos: str
    row: str
    scores: Scores
    less_first: Difference | None


def print_comparison(part: str, rows: Sequence[Row], chosen: Chosen, first: str) -> list[Line]:
    """Print image and pixel AUROC on the `chosen` photographs; `first` is what the first row is called."""
    photos = f"{part} ({count_of(rows[0].measured, chosen)})"
    lines = [
        Line(
            photos,
            row.variant.name,
            scores(row.measured, chosen),
            difference(row.measured, rows[0].measured, chosen) if row is not rows[0] else None,
        )
        for row in rows
    ]
    print_table(
        f"AUROC and paired differences with 95 % intervals, {photos}",
        ("row", "image", "pixel, field of view", f"image, less {first}", f"pixel fov, less {first}"),
        [
            (line.row, interval(line.scores.image), interval(line.scores.fov), *cells(line.less_first))
            for line in lines
        ],
    )
    return lines
