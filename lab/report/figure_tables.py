"""The report's tables of figures, each with its interval and n, and the paper's beside them where it has them."""

from collections.abc import Sequence
from html import escape

from lab.evaluate.bootstrap import Figure
from lab.evaluate.figures import Figures, ImageFigures, PixelVariants
from lab.evaluate.paper import PROTOCOLS


def headline(figures: Figures) -> str:
    """The few figures that are looked for first."""
    found: list[tuple[str, Figure, str]] = []
    if figures.image is not None:
        found.append(("image AUROC", figures.image.auroc, "all test photographs"))
    if figures.pixel is not None:
        found.append(("pixel AUROC", figures.pixel.fov.auroc, "field of view, all photographs"))
        found.append(("AUPRO (0.3)", figures.pixel.fov.aupro, "field of view, all photographs"))
    if figures.calibrated is not None and figures.calibrated.sensitivity is not None:
        own = figures.calibrated
        found.append(
            (f"sensitivity at a rate of {own.fpr:.0%}", figures.calibrated.sensitivity, "index's threshold")
        )
    cells = "".join(
        f"<div><span>{escape(name)}</span><b>{figure.value:.3f}</b>"
        f"<span>{figure.low:.3f} to {figure.high:.3f}; {escape(of)}</span></div>"
        for name, figure, of in found
    )
    return f'<div class="headline">{cells}</div>' if cells else ""


def figure_tables(figures: Figures) -> str:
    """Every figure by its full name."""
    parts = ['<p class="quiet">95 % intervals come from a bootstrap over photographs. Balanced accuracy '
             "is (sensitivity + specificity) / 2; where it is called best, its threshold was chosen on these very "
             "photographs, as papers do.</p>"]  # fmt: skip
    if figures.image is not None:
        parts.append(_image_table(figures, figures.image))
    if figures.pixel is not None:
        parts.append(_pixel_table(figures, figures.pixel))
    if figures.lesions:
        parts.append(_lesion_table(figures))
    return "".join(parts)


def _image_table(figures: Figures, image: ImageFigures) -> str:
    paper = PROTOCOLS.get(figures.dataset)
    rows: list[tuple[str, Figure, float | None]] = [
        ("AUROC", image.auroc, paper.image_auc if paper else None),
        ("average precision", image.average_precision, None),
        (f"balanced accuracy, best: scores above {image.threshold:#.4g}", image.balanced_accuracy,
         paper.image_acc if paper else None),
        ("specificity at 95 % sensitivity", image.specificity_at_95_sensitivity, None),
        ("specificity at 99 % sensitivity", image.specificity_at_99_sensitivity, None),
    ]  # fmt: skip
    if figures.calibrated is not None:
        own = figures.calibrated
        at = f"at the index's threshold for {own.fpr:.0%} ({own.threshold:#.4g})"
        named = (("balanced accuracy", image.balanced_accuracy_calibrated), ("sensitivity", own.sensitivity),
                 ("specificity", own.specificity))  # fmt: skip
        rows += [(f"{name} {at}", figure, None) for name, figure in named if figure is not None]
    n = f"{figures.photos.normal} normal, {figures.photos.abnormal} abnormal photographs"
    cells = [(name, f"{one.value:.3f}", _range(one), _plain(theirs)) for name, one, theirs in rows]
    if paper is None:
        return _table(f"Image scores; {n}", ("", "here", "95 % interval"), [row[:3] for row in cells])
    return _table(f"Image scores; {n}", ("", "here", "95 % interval", "paper"), cells)


def _pixel_table(figures: Figures, pixel: PixelVariants) -> str:
    variants = (
        ("field of view, all photographs", pixel.fov),
        ("whole image, all photographs", pixel.whole),
        ("field of view, abnormal photographs only", pixel.fov_abnormal_only),
        ("whole image, abnormal photographs only", pixel.whole_abnormal_only),
    )
    rows = [
        (name, f"{row.photos}", _cell(row.auroc), _cell(row.average_precision), _cell(row.aupro),
         _cell(row.balanced_accuracy), f"{row.threshold:#.4g}")
        for name, row in variants
    ]  # fmt: skip
    if paper := PROTOCOLS.get(figures.dataset):
        name = "the paper (which pixels it does not say)"
        rows.append((name, "", _plain(paper.pixel_auc), "-", "-", _plain(paper.pixel_acc), "-"))
    headings = ("pixels", "n", "AUROC", "average precision", "AUPRO (0.3)", "balanced accuracy, best", "from")
    return _table(
        "Pixels, each photograph at its own size; the black surround flatters the whole image", headings, rows
    )


def _lesion_table(figures: Figures) -> str:
    rows = [
        (escape(row.kind), f"{row.photos}", f"{row.lesions}", _cell(row.auroc), _cell(row.auroc_abnormal_only),
         _cell(row.average_precision), _cell(row.aupro))
        for row in figures.lesions
    ]  # fmt: skip
    headings = (
        "lesion",
        "n",
        "regions",
        "AUROC",
        "AUROC, abnormal photographs only",
        "average precision",
        "AUPRO (0.3)",
    )
    return _table("One kind of lesion against unmarked pixels in the field of view", headings, rows)


def _table(caption: str, headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Cells are HTML."""
    head = "".join(f"<th>{escape(heading)}</th>" for heading in headings)
    body = "".join(f"<tr><th>{row[0]}</th>{''.join(f'<td>{cell}</td>' for cell in row[1:])}</tr>" for row in rows)
    return (
        f'<div class="scroll"><table><caption>{escape(caption)}</caption><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def _cell(figure: Figure) -> str:
    return f"{figure.value:.3f}<small>{_range(figure)}</small>"


def _range(figure: Figure) -> str:
    return f"{figure.low:.3f} to {figure.high:.3f}"


def _plain(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
