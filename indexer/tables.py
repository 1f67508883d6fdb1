"""What the command line prints."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from rich.table import Table

from indexer.ablation import AblationOrder, Row
from indexer.bootstrap import Figure
from indexer.build import BuildReport
from indexer.datasets.catalog import Entry
from indexer.distill import DistillReport
from indexer.evaluate.figures import Figures, ImageFigures, PixelVariants
from indexer.paper import PROTOCOLS, FourFigures
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


def figures_tables(figures: Figures) -> list[Table]:
    """Image and pixel figures with their 95 % intervals, and the paper's where the protocol is its own."""
    photos = figures.photos
    title = f"{figures.dataset}: {photos.normal} normal and {photos.abnormal} abnormal photographs"
    tables = [] if figures.image is None else [_image_table(figures, figures.image, title)]
    if figures.pixel is not None:
        tables.append(_pixel_table(figures, figures.pixel, title if figures.image is None else "Pixels"))
    if figures.lesions:
        tables.append(_lesion_table(figures))
    return tables


def dataset_table(entry: Entry) -> Table:
    """What is known of a data set by name."""
    table = _facts(f"{entry.name}: {entry.title}")
    table.expand = True
    for name, text in (("layout", entry.layout), ("split", entry.split), ("licence", entry.licence),
                       ("source", entry.source)):  # fmt: skip
        table.add_row(name, text)
    return table


def _image_table(figures: Figures, image: ImageFigures, title: str) -> Table:
    paper = PROTOCOLS.get(figures.dataset)
    table = _titled(title, "image scores", *(["here", "paper"] if paper else ["here"]))
    rows: list[tuple[str, str, float | None]] = [
        ("AUROC", _figure(image.auroc), paper.image_auc if paper else None),
        ("average precision", _figure(image.average_precision), None),
        (f"balanced accuracy, best (above {four_digits(image.threshold)})", _figure(image.balanced_accuracy),
         paper.image_acc if paper else None),
        ("specificity at 95 % sensitivity", _figure(image.specificity_at_95_sensitivity), None),
        ("specificity at 99 % sensitivity", _figure(image.specificity_at_99_sensitivity), None),
    ]  # fmt: skip
    if figures.calibrated is not None and image.balanced_accuracy_calibrated is not None:
        own = figures.calibrated
        where = f"at the index's threshold for {own.fpr:.0%} ({four_digits(own.threshold)})"
        rows.append((f"balanced accuracy {where}", _figure(image.balanced_accuracy_calibrated), None))
        rows += [(f"{name} there", _figure(figure), None)
                 for name, figure in (("sensitivity", own.sensitivity), ("specificity", own.specificity))
                 if figure is not None]  # fmt: skip
    for name, here, theirs in rows:
        table.add_row(name, here, *([_plain(theirs)] if paper else []))
    return table


def _pixel_table(figures: Figures, pixel: PixelVariants, title: str) -> Table:
    headings = ("pixels", "AUROC", "average\nprecision", "AUPRO\n(0.3)", "balanced\naccuracy")
    table = _titled(title, *headings)
    for name, row in (
        ("field of view\nall photos", pixel.fov),
        ("whole image\nall photos", pixel.whole),
        ("field of view\nabnormal only", pixel.fov_abnormal_only),
        ("whole image\nabnormal only", pixel.whole_abnormal_only),
    ):
        balanced = _two(row.balanced_accuracy, f" (≥ {four_digits(row.threshold)})")
        table.add_row(name, _two(row.auroc), _two(row.average_precision), _two(row.aupro), balanced)
    if paper := PROTOCOLS.get(figures.dataset):
        table.add_row("the paper (not\nsaid which)", _plain(paper.pixel_auc), "-", "-", _plain(paper.pixel_acc))
    return table


def _lesion_table(figures: Figures) -> Table:
    headings = (
        "lesion",
        "photos/\nregions",
        "AUROC",
        "AUROC,\nabnormal\nonly",
        "average\nprecision",
        "AUPRO\n(0.3)",
    )
    table = _titled("One kind of lesion against unmarked pixels, field of view", *headings)
    for row in figures.lesions:
        table.add_row(row.kind, f"{row.photos}/\n{row.lesions}", _two(row.auroc), _two(row.auroc_abnormal_only),
                      _two(row.average_precision), _two(row.aupro))  # fmt: skip
    return table


def _two(figure: Figure, beside: str = "") -> str:
    """A value, and its interval below it."""
    return f"{figure.value:.3f}{beside}\n[dim]{figure.low:.3f}-{figure.high:.3f}[/]"


def _titled(title: str, *headings: str) -> Table:
    table = Table(title=title, title_justify="left")
    for heading in headings:
        table.add_column(heading)
    return table


def _plain(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def ablation_table(rows: Sequence[Row], order: AblationOrder) -> Table:
    """The paper's table 3 with the figures of here, mean and standard deviation, above the paper's own."""
    data = order.dataset
    normal = sum(not photo.abnormal for photo in data.test)
    title = f"{data.name}: {normal} normal and {len(data.test) - normal} abnormal photographs; in gray the paper"
    table = _titled(title, "built from", "image AUC", "image ACC", "pixel AUC", "pixel ACC")
    for row in rows:
        times = f", {row.trials} times" if row.trials > 1 else ""
        paper, spread = row.paper or _NOTHING, row.spread or _NOTHING
        table.add_row(
            f"{row.name}\n[dim]({row.photos}{times})[/]",
            _measured(row.mean.image_auc, spread.image_auc, paper.image_auc),
            _measured(row.mean.image_acc, spread.image_acc, paper.image_acc),
            _measured(row.mean.pixel_auc, spread.pixel_auc, paper.pixel_auc),
            _measured(row.mean.pixel_acc, spread.pixel_acc, paper.pixel_acc),
        )
    return table


_NOTHING: Final = FourFigures(None, None, None, None)


def _measured(value: float | None, spread: float | None, paper: float | None) -> str:
    return f"{_plain(value)}{'' if spread is None else f' ±{spread:.3f}'}\n[dim]{_plain(paper)}[/]"


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
