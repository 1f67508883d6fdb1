"""Figures as the command line prints them: of an evaluation, and of the paper's table 3, the paper's beside."""

from collections.abc import Sequence
from typing import Final

from rich.table import Table

from indexer.tables import four_digits
from lab.ablation import AblationOrder
from lab.ablation_summary import Row
from lab.evaluate.bootstrap import Figure
from lab.evaluate.figures import Figures
from lab.evaluate.image_figures import ImageFigures
from lab.evaluate.paper import PROTOCOLS, FourFigures
from lab.evaluate.pixel_figures import PixelVariants


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


def _figure(figure: Figure) -> str:
    return f"{figure.value:.3f} ({figure.low:.3f} to {figure.high:.3f})"
