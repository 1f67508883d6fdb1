"""What the command line prints."""

from pathlib import Path

from rich.table import Table

from indexer.bootstrap import Figure
from indexer.build import BuildReport
from indexer.distill import DistillReport
from indexer.evaluate import Figures, ImageFigures, PixelFigures
from indexer.scoring import Scored
from resad.calibration import Threshold
from resad.manifest import Manifest


def four_digits(value: float) -> str:
    """`value` with four significant digits, as scores are printed everywhere."""
    return f"{value:#.4g}"


def build_table(report: BuildReport) -> Table:
    """What was built."""
    manifest = report.manifest
    table = _facts(f"{manifest.name} {manifest.version}")
    _add_counts(table, manifest)
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


def index_table(version: Path, manifest: Manifest, *, live: bool) -> Table:
    """What an index says of itself."""
    config = manifest.config
    table = _facts(f"{manifest.name} {manifest.version}{' (live)' if live else ''}")
    made = manifest.history[-1]
    table.add_row("made", f"{made.operation} at {made.at} by resad {made.package_version} on {manifest.device}")
    table.add_row("backbone", f"{config.backbone.name}, stages {config.backbone.stages}, {manifest.weights}")
    table.add_row("weights", manifest.weights_sha256)
    table.add_row("fingerprint", manifest.fingerprint)
    table.add_row("prepared", f"{config.preparation.size} px, crop {config.preparation.crop}, {config.precision}")
    _add_counts(table, manifest)
    _add_search(table, manifest)
    size = sum(record.bytes for record in manifest.files)
    table.add_row("on disk", f"{size / 1e6:.1f} MB in {version}")
    return table


def score_table(scored: list[Scored], *, title: str) -> Table:
    """One line per photograph."""
    table = Table(title=title, title_justify="left")
    for heading in ("photo", "score", "p", "verdict", "findings"):
        table.add_column(heading, justify="left" if heading in ("photo", "verdict") else "right")
    for one in scored:
        result = one.result
        verdict = "-" if result.abnormal is None else "abnormal" if result.abnormal else "normal"
        p_value = "-" if result.p_value is None else f"{result.p_value:.4f}"
        table.add_row(one.stem, four_digits(result.image_score), p_value, verdict, str(len(result.findings)))
    return table


def figures_table(figures: Figures) -> Table:
    """Image and pixel figures with their 95 % intervals."""
    photos = figures.photos
    table = Table(
        title=f"{figures.dataset}: {photos.normal} normal and {photos.abnormal} abnormal photographs",
        title_justify="left",
    )
    for heading in ("", "AUROC", "average precision", "balanced accuracy (best)"):
        table.add_column(heading)
    rows: list[tuple[str, ImageFigures | PixelFigures]] = []
    if figures.image is not None:
        rows.append(("image", figures.image))
    if figures.pixel is not None:
        rows += [("pixel, field of view", figures.pixel.fov), ("pixel, whole image", figures.pixel.whole)]
    for name, row in rows:
        table.add_row(name, _figure(row.auroc), _figure(row.average_precision), _figure(row.balanced_accuracy))
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


def _add_counts(table: Table, manifest: Manifest) -> None:
    counts, quality = manifest.counts, manifest.quality
    table.add_row("photos", f"{counts.photos}")
    table.add_row("patches", f"{counts.patches:,} on {counts.grid[0]} x {counts.grid[1]} grids")
    table.add_row("memories", f"{counts.memories:,} of {counts.dimension} dimensions")
    table.add_row(
        "covering radius",
        f"{four_digits(quality.covering_radius)} (greedy: {four_digits(quality.projected_radius)} "
        f"in {quality.projected_dimension} dimensions)",
    )
    for threshold in manifest.calibration.thresholds:
        table.add_row(f"threshold {threshold.fpr:.0%}", _threshold(threshold))


def _threshold(threshold: Threshold) -> str:
    return f"none: {threshold.reason}" if threshold.value is None else four_digits(threshold.value)


def _figure(figure: Figure) -> str:
    return f"{figure.value:.3f} ({figure.low:.3f} to {figure.high:.3f})"
