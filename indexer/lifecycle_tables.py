"""What the commands of `indexer.lifecycle` print."""

from collections.abc import Iterator, Sequence
from typing import Final

from rich.table import Table

from indexer.lifecycle.diff import Diff
from indexer.lifecycle.succession import Succession
from indexer.tables import four_digits
from resad.calibration import Threshold
from resad.manifest import Manifest

_SHOWN: Final = 5
_NAMED: Final = 20


def succession_table(made: Succession) -> Table:
    """The version that was made beside the one that it was made from."""
    table = _before_and_after(f"{made.after.name} {made.after.version}", made.before, made.after)
    table.add_row("memories entered", "", str(made.entered))
    table.add_row("scores measured anew", "", f"{made.measured} of {made.after.counts.photos} photographs")
    return table


def diff_table(found: Diff) -> Table:
    """Both versions side by side; without distances where those of the two mean different things."""
    title = f"{found.before.name} and {found.after.name}"
    return _before_and_after(title, found.before, found.after, distances=found.comparable)


def diff_lines(found: Diff) -> Iterator[str]:
    """What the two have and do not have in common."""
    yield f"photographs: {found.same} in both, {len(found.left)} left, {len(found.entered)} entered"
    # One id may be two photographs': each index counts its own.
    for how, ids in (("left, by their ids before", found.left), ("entered, by their ids after", found.entered)):
        if ids:
            yield f"  {how}: {some_of(ids, _NAMED)}"
    if not found.comparable:
        yield "fingerprints differ: memories, distances and scores of the two are not to be compared"
        yield found.intended_use
        return
    yield (
        f"memories: {found.memories_same} in both, {found.memories_left} left, {found.memories_entered} entered"
    )
    if found.median_change is not None:
        yield f"scores of the photographs in both: median change {found.median_change:+.4g}"
        for one in found.scores[:_SHOWN]:
            yield f"  {one.id}: {four_digits(one.before)} -> {four_digits(one.after)}"
    yield found.intended_use


def some_of(ids: Sequence[str], most: int = _SHOWN) -> str:
    """At most so many of them by name, and how many more there are."""
    more = f" and {len(ids) - most} more" if len(ids) > most else ""
    return ", ".join(ids[:most]) + more


def _before_and_after(title: str, before: Manifest, after: Manifest, *, distances: bool = True) -> Table:
    table = Table(title=title, title_justify="left")
    for heading in ("", "before", "after"):
        table.add_column(heading, overflow="fold")
    pair = (before, after)
    table.add_row("version", *(one.version for one in pair))
    table.add_row("made by", *(one.history[-1].operation for one in pair))
    table.add_row("photos", *(str(one.counts.photos) for one in pair))
    table.add_row("memories", *(f"{one.counts.memories:,}" for one in pair))
    if distances:
        table.add_row("covering radius", *map(_radius, pair))
    table.add_row("calibration", *(f"{one.calibration.source}, {one.calibrated}" for one in pair))
    if not distances:
        return table
    for old, new in zip(before.calibration.thresholds, after.calibration.thresholds, strict=True):
        table.add_row(f"threshold {new.fpr:.0%}", _value(old), _value(new))
    return table


def _radius(manifest: Manifest) -> str:
    at_most = "at most " if manifest.quality.covering == "bound" else ""
    return at_most + four_digits(manifest.quality.covering_radius)


def _value(threshold: Threshold) -> str:
    return "-" if threshold.value is None else four_digits(threshold.value)
