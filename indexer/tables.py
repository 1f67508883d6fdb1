"""Tables that the commands print."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Final

from rich.table import Table

from indexer.photos.listing import PatientCounts
from resad.calibration import Calibration, Threshold
from resad.manifest import Manifest, Quality, Standing
from resad.quality import FEWEST, QualityLimit

if TYPE_CHECKING:
    from indexer.build.build import BuildReport
    from indexer.calibration.calibrate import CalibrationReport
    from indexer.distill import DistillReport
    from indexer.lifecycle.derive import NewVersion
    from indexer.lifecycle.versions import Diff

_STANDINGS: Final[dict[Standing, str]] = {
    "measured": "",
    "bound": "; some are scored in a smaller bank: p-values err upwards",
    "stale": "; STALE: some were scored before photographs left, p-values may be too low",
}


def four_digits(value: float) -> str:
    """`value` with four significant digits, as scores are printed everywhere."""
    return f"{value:#.4g}"


def build_table(report: "BuildReport") -> Table:
    """What was built."""
    manifest = report.manifest
    table = facts(f"{manifest.name} {manifest.version}")
    _add_counts(table, manifest, report.people)
    table.add_row("left aside", f"{len(report.skipped)} unusable, {len(report.duplicates)} duplicates")
    _add_search(table, manifest)
    table.add_row("seconds", ", ".join(f"{time.stage} {time.seconds:.1f}" for time in manifest.quality.stages))
    table.add_row("peak memory", f"{manifest.quality.peak_memory_bytes / 1e9:.2f} GB")
    return table


def agreement_table(report: "DistillReport") -> Table:
    """How far the student follows its teacher on photographs that were held out."""
    held = len(report.pool.held_out)
    table = Table(title=f"Agreement on {held} held-out photographs, loss {four_digits(report.loss)}",
                  title_justify="left")  # fmt: skip
    for heading in ("photographs", "stage", "energy in the targets", "cosine", "distances, correlation"):
        table.add_column(heading, justify="left" if heading == "photographs" else "right")
    for one in report.agreements:
        figures = (f"{value:.3f}" for value in (one.kept, one.cosine, one.distances))
        table.add_row(one.photos, str(one.stage), *figures)
    return table


def index_table(version: Path, manifest: Manifest, people: PatientCounts, *, live: bool) -> Table:
    """What an index says of itself."""
    config = manifest.config
    table = facts(f"{manifest.name} {manifest.version}{' (live)' if live else ''}")
    made = manifest.history[-1]
    table.add_row("made", f"{made.operation} at {made.at} by resad {made.package_version} on {manifest.device}")
    table.add_row("backbone", f"{config.backbone.name}, stages {config.backbone.stages}, {manifest.weights}")
    table.add_row("weights", manifest.weights_sha256)
    table.add_row("fingerprint", manifest.fingerprint)
    table.add_row("prepared", f"{config.preparation.size} px, crop {config.preparation.crop}, {config.precision}")
    _add_counts(table, manifest, people)
    _add_search(table, manifest)
    table.add_row("photographs kept", _kept(manifest))
    size = sum(record.bytes for record in manifest.files)
    table.add_row("on disk", f"{size / 1e6:.1f} MB in {version}")
    return table


def calibration_table(report: "CalibrationReport") -> Table:
    """The thresholds before and after."""
    before, after = report.before.calibration, report.after.calibration
    table = Table(title=f"{report.after.name} {report.after.version}", title_justify="left")
    for heading in ("", "before", "after"):
        table.add_column(heading, overflow="fold")
    table.add_row("version", report.before.version, report.after.version)
    table.add_row("normals", str(len(before.scores)), str(len(after.scores)))
    table.add_row("  scored", _how(before), _how(after))
    table.add_row("median score", *(four_digits(median(one.scores)) for one in (before, after)))
    for old, new in zip(before.thresholds, after.thresholds, strict=True):
        table.add_row(f"threshold {new.fpr:.0%}", _value(old), _value(new))
        table.add_row("  its rate, 95 %", _rate(old), _rate(new))
    table.add_row("maps end at", four_digits(before.full_scale), four_digits(after.full_scale))
    table.add_row("cameras", _cameras(before), _cameras(after))
    return table


def _add_search(table: Table, manifest: Manifest) -> None:
    """What searches, where it was measured or is not the flat search."""
    search = manifest.search
    if search is None or not search.trials:
        return
    trials = "; ".join(
        f"{trial.plan.kind} {trial.milliseconds:.0f} ms, image score x {trial.image_score_ratio:.6f}, "
        f"map within {trial.map_error:.1e}"
        for trial in search.trials
    )
    table.add_row("search", f"{search.chosen.kind} ({trials})")


def facts(title: str) -> Table:
    """An empty table of names and values."""
    table = Table(title=title, title_justify="left", show_header=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    return table


def _add_counts(table: Table, manifest: Manifest, people: PatientCounts) -> None:
    counts, quality = manifest.counts, manifest.quality
    table.add_row("photos", f"{counts.photos}")
    table.add_row("patients", people.describe())
    table.add_row("patches", f"{counts.patches:,} on {counts.grid[0]} x {counts.grid[1]} grids")
    table.add_row("memories", f"{counts.memories:,} of {counts.dimension} dimensions")
    table.add_row("covering radius", _radius(quality))
    calibration = manifest.calibration
    table.add_row("calibrated on", f"{_calibrated_on(calibration)}{_STANDINGS[manifest.calibrated]}")
    for threshold in calibration.thresholds:
        table.add_row(f"threshold {threshold.fpr:.0%}", _threshold(threshold))
    for one in calibration.cameras:
        found = ", ".join(f"{t.fpr:.0%} {_value(t)}" for t in one.normals.thresholds)
        table.add_row(f"camera {one.camera}", f"{len(one.normals.scores)} normals; {found}")
    limits = manifest.photo_quality
    stated = "; ".join(f"{one.reason}: {one.measure} {_side(one)} {one.value:.3g}" for one in limits.limits)
    table.add_row("quality limits", stated or f"none: {limits.photos} normals, they take {FEWEST}")


def _kept(manifest: Manifest) -> str:
    from resad.pictures.evidence import kept_squares

    squares = kept_squares(manifest)
    if not squares:
        return "none (--keep-crops)"
    return f"{len(squares)} as prepared squares, for evidence, {sum(one.bytes for one in squares) / 1e6:.1f} MB"


def _radius(quality: Quality) -> str:
    if quality.kept_radius is None:
        greedy = f"{four_digits(quality.projected_radius)} in {quality.projected_dimension} dimensions"
        return f"{four_digits(quality.covering_radius)} (greedy: {greedy})"
    at_most = "at most " if quality.covering == "bound" else ""
    return f"{at_most}{four_digits(quality.covering_radius)} (kept at {four_digits(quality.kept_radius)})"


def _calibrated_on(calibration: Calibration) -> str:
    return f"{len(calibration.scores)} normals, {_how(calibration)}"


def _how(calibration: Calibration) -> str:
    return "each left out" if calibration.source == "left-out" else "not in the bank"


def _cameras(calibration: Calibration) -> str:
    return ", ".join(f"{one.camera} ({len(one.normals.scores)})" for one in calibration.cameras) or "-"


def _threshold(threshold: Threshold) -> str:
    if threshold.value is None or threshold.interval is None:
        return f"none: {threshold.reason}"
    return f"{four_digits(threshold.value)} (rate {_rate(threshold)}; needs {threshold.needed} normals)"


def _rate(threshold: Threshold) -> str:
    if threshold.interval is None:
        return f"needs {threshold.needed} normals"
    return f"{threshold.interval.low:.1%} to {threshold.interval.high:.1%}"


def _value(threshold: Threshold) -> str:
    return "-" if threshold.value is None else four_digits(threshold.value)


def _side(limit: QualityLimit) -> str:
    return "below" if limit.below else "above"


_SHOWN: Final = 5
_NAMED: Final = 20


def new_version_table(made: "NewVersion") -> Table:
    """The version that was made beside the one that it was made from."""
    table = _before_and_after(f"{made.after.name} {made.after.version}", made.before, made.after)
    table.add_row("memories entered", "", str(made.entered))
    table.add_row("scores measured anew", "", f"{made.measured} of {made.after.counts.photos} photographs")
    return table


def diff_table(found: "Diff") -> Table:
    """Both versions side by side; without distances where those of the two mean different things."""
    title = f"{found.before.name} and {found.after.name}"
    return _before_and_after(title, found.before, found.after, distances=found.comparable)


def diff_lines(found: "Diff") -> Iterator[str]:
    """What the two have and do not have in common."""
    yield f"photographs: {found.same} in both, {len(found.left)} left, {len(found.entered)} entered"
    # One id may be two photographs': each index counts its own.
    for how, ids in (("left, by their ids before", found.left), ("entered, by their ids after", found.entered)):
        if ids:
            yield f"  {how}: {first_ids(ids, _NAMED)}"
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


def first_ids(ids: Sequence[str], most: int = _SHOWN) -> str:
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
        table.add_row("covering radius", *map(_covering_radius, pair))
    table.add_row("calibration", *(f"{one.calibration.source}, {one.calibrated}" for one in pair))
    if not distances:
        return table
    for old, new in zip(before.calibration.thresholds, after.calibration.thresholds, strict=True):
        table.add_row(f"threshold {new.fpr:.0%}", _value(old), _value(new))
    return table


def _covering_radius(manifest: Manifest) -> str:
    at_most = "at most " if manifest.quality.covering == "bound" else ""
    return at_most + four_digits(manifest.quality.covering_radius)
