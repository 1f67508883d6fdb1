"""What the command line prints."""

from pathlib import Path
from statistics import median
from typing import Final

from rich.table import Table

from indexer.build_order import BuildReport
from indexer.calibrate import CalibrationReport
from indexer.datasets.catalog import Entry
from indexer.distill import DistillReport
from indexer.people import People
from resad.calibration import Calibration, Threshold
from resad.evidence_crops import kept_squares
from resad.manifest import Manifest, Quality
from resad.photo_records import Standing
from resad.quality import FEWEST, QualityLimit

_STANDINGS: Final[dict[Standing, str]] = {
    "measured": "",
    "bound": "; some are scored in a smaller bank: p-values err upwards",
    "stale": "; STALE: some were scored before photographs left, p-values may be too low",
}


def four_digits(value: float) -> str:
    """`value` with four significant digits, as scores are printed everywhere."""
    return f"{value:#.4g}"


def build_table(report: BuildReport) -> Table:
    """What was built."""
    manifest = report.manifest
    table = _facts(f"{manifest.name} {manifest.version}")
    _add_counts(table, manifest, report.people)
    table.add_row("left aside", f"{len(report.skipped)} unusable, {len(report.duplicates)} duplicates")
    _add_search(table, manifest)
    table.add_row("seconds", ", ".join(f"{time.stage} {time.seconds:.1f}" for time in manifest.quality.stages))
    table.add_row("peak memory", f"{manifest.quality.peak_memory_bytes / 1e9:.2f} GB")
    return table


def agreement_table(report: DistillReport) -> Table:
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


def index_table(version: Path, manifest: Manifest, people: People, *, live: bool) -> Table:
    """What an index says of itself."""
    config = manifest.config
    table = _facts(f"{manifest.name} {manifest.version}{' (live)' if live else ''}")
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


def calibration_table(report: CalibrationReport) -> Table:
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


def dataset_table(entry: Entry) -> Table:
    """What is known of a data set by name."""
    table = _facts(f"{entry.name}: {entry.title}")
    table.expand = True
    for name, text in (("layout", entry.layout), ("split", entry.split), ("licence", entry.licence),
                       ("source", entry.source)):  # fmt: skip
        table.add_row(name, text)
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


def _facts(title: str) -> Table:
    table = Table(title=title, title_justify="left", show_header=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    return table


def _add_counts(table: Table, manifest: Manifest, people: People) -> None:
    counts, quality = manifest.counts, manifest.quality
    table.add_row("photos", f"{counts.photos}")
    table.add_row("patients", people.told())
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
