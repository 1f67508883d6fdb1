"""Tables of an evaluation: CSV with a row per photograph, and what the command line prints."""

from collections.abc import Sequence
from typing import Final

from resad_client.csv_text import csv_row
from resad_client.text import printable
from rich.markup import escape
from rich.table import Table

from indexer.tables import four_digits
from lab.evaluate import bootstrap
from lab.evaluate.agreement import Agreement, PairAgreement, RegionAgreement
from lab.evaluate.bootstrap import Figure
from lab.evaluate.figures import Figures, ImageFigures, PixelVariants
from lab.evaluate.froc import ALL, ANY_KIND, LARGE, Froc
from lab.evaluate.measuring import Measurement, names_of
from lab.evaluate.painted import painted_table
from lab.evaluate.paper import PROTOCOLS
from resad.calibration import USUAL_RATE, Calibration, DecisionRule, criterion, threshold

COLUMNS: Final = (
    "photo", "label", "kind", "image_score", "p_value", "abnormal_at_5_percent", "marked_share_fov",
    "pixel_auroc_fov", "lesions", "lesions_touched", "unmarked_regions", "in_the_index", "patient", "eye",
    "camera",
)  # fmt: skip
"""Lesions are touched, and regions counted, at the index's own level of findings."""


def photo_table(measured: Measurement, calibration: Calibration) -> bytes:
    """CSV (UTF-8) with a row per photograph; numbers in full precision, empty cells where there is no value."""
    return "".join(map(csv_row, (COLUMNS, *_rows(measured, calibration)))).encode()


def auroc_within(measured: Measurement, number: int) -> float | None:
    """Pixel AUROC of one photograph in its field of view; None without pixels of both classes."""
    normal, abnormal = measured.fov.normal.row(number), measured.fov.abnormal.row(number)
    if not normal.any() or not abnormal.any():
        return None
    return float(bootstrap.auroc(normal, abnormal)[0])


def _rows(measured: Measurement, calibration: Calibration) -> list[tuple[str, ...]]:
    limit = threshold(calibration.scores, USUAL_RATE).value
    level = criterion(calibration, DecisionRule()).level
    references = {match.photo: match.reference for match in measured.in_the_index}
    abnormal, normal = measured.fov.abnormal.per_photo(), measured.fov.normal.per_photo()
    rows: list[tuple[str, ...]] = []
    for number, (photo, name) in enumerate(zip(measured.photos, names_of(measured.photos), strict=True)):
        score = float(measured.scores[number])
        marked, unmarked = abnormal[number], normal[number]
        auroc = auroc_within(measured, number)
        rows.append((
            name, "abnormal" if photo.abnormal else "normal", photo.kind, f"{score!r}",
            f"{calibration.p_value(score):.6f}", "" if limit is None else str(int(score > limit)),
            f"{marked / (marked + unmarked):.6f}" if marked + unmarked else "",
            "" if auroc is None else f"{auroc:.6f}", *_regions(measured, number, level),
            references.get(number, ""), photo.patient or "", photo.eye or "", photo.camera or "",
        ))  # fmt: skip
    return rows


def _regions(measured: Measurement, number: int, level: float | None) -> tuple[str, str, str]:
    """Lesions, those touched, and regions without any marked pixel; empty where they are unknown."""
    summary = measured.lesion_regions.photos[number]
    if not summary.marked:
        return "", "", ""
    peaks = summary.lesions.peak[summary.lesions.kind == ANY_KIND]
    if level is None:
        return str(peaks.size), "", ""
    return str(peaks.size), str(int((peaks > level).sum())), str(summary.regions.count(level))


def figures_tables(figures: Figures) -> list[Table]:
    """Tables of image and pixel figures with their 95 % intervals, and the paper's figures for its protocols."""
    photos = figures.photos
    title = f"{figures.dataset}: {photos.normal} normal and {photos.abnormal} abnormal photographs"
    tables = [] if figures.image is None else [_image_table(figures, figures.image, title)]
    if figures.pixel is not None:
        tables.append(_pixel_table(figures, figures.pixel, title if figures.image is None else "Pixels"))
    if figures.lesions:
        tables.append(_lesion_table(figures))
    if figures.froc is not None:
        tables.append(_froc_table(figures.froc))
        if figures.froc.healthy and figures.froc.index_levels:
            tables.append(_index_levels_table(figures.froc))
    if figures.painted is not None:
        tables.append(painted_table(figures.painted.results))
    if figures.agreement is not None:
        tables += agreement_tables(figures.agreement.results)
    return tables


def agreement_tables(agreement: Agreement) -> list[Table]:
    """Tables of readers with each other, and of the index with each of them; only those that have rows."""
    tables = [_pair_table(agreement.pairs)] if agreement.pairs else []
    return [*tables, _reader_table(agreement)] if agreement.unmarked else tables


def _pair_table(pairs: Sequence[PairAgreement]) -> Table:
    headings = ("readers", "photos", "Dice", "regions\nof 1\ntouched", "regions\nof 2\ntouched",
                "of these,\nsame\nkind", "healthy\nfor the\nother")  # fmt: skip
    table = empty_table("Agreement of readers on the photographs that both marked", *headings)
    for pair in pairs:
        table.add_row(
            f"1 {_name(pair.first)}\n2 {_name(pair.second)}",
            str(pair.photos),
            "-" if pair.dice is None else _two(pair.dice),
            _touched(pair.of_first),
            _touched(pair.of_second),
            "-" if pair.same_kind is None else _percent(pair.same_kind),
            f"1: {pair.of_first.called_healthy}\n2: {pair.of_second.called_healthy}",
        )
    return table


def _touched(regions: RegionAgreement) -> str:
    return "-" if regions.touched is None else f"{_percent(regions.touched)}\n[dim]of {regions.regions}[/]"


def _name(reader: str) -> str:
    """A reader's name for the terminal."""
    return escape(printable(reader))


def _reader_table(agreement: Agreement) -> Table:
    title = "Each reader's lesions touched, at the index's own levels for these false regions per healthy photo"
    rates = [entry.rate for entry in agreement.unmarked]
    table = empty_table(title, "reader", "photos", "lesions", *(f"{rate:g}" for rate in rates))
    for reader in agreement.index:
        groups = [point.group() for point in reader.points]
        cells = ["-" if group is None else _percent(group.touched) for group in groups] or ["-"] * len(rates)
        lesions = groups[0].lesions if groups and groups[0] is not None else 0
        table.add_row(_name(reader.reader), str(reader.photos), str(lesions), *cells)
    scored = str(agreement.with_file)
    unmarked = (_two(entry.unmarked) for entry in agreement.unmarked)
    table.add_row("regions that no reader\nmarked, per photo", scored, "", *unmarked)
    called_healthy = (_two(entry.called_healthy) for entry in agreement.unmarked)
    table.add_row("regions called healthy\nonly, per photo", scored, "", *called_healthy)
    table.add_row("level", "", "", *(four_digits(entry.level) for entry in agreement.unmarked))
    return table


def _image_table(figures: Figures, image: ImageFigures, title: str) -> Table:
    paper = PROTOCOLS.get(figures.dataset)
    table = empty_table(title, "image scores", *(["here", "paper"] if paper else ["here"]))
    rows: list[tuple[str, str, float | None]] = [
        ("AUROC", _figure(image.auroc), paper.image_auc if paper else None),
        ("average precision", _figure(image.average_precision), None),
        (f"balanced accuracy, best (above {four_digits(image.threshold)})", _figure(image.balanced_accuracy),
         paper.image_acc if paper else None),
        ("specificity at 95 % sensitivity", _figure(image.specificity_at_95_sensitivity), None),
        ("specificity at 99 % sensitivity", _figure(image.specificity_at_99_sensitivity), None),
    ]  # fmt: skip
    if figures.calibrated is not None and image.balanced_accuracy_calibrated is not None:
        calibrated = figures.calibrated
        place = f"at the index's threshold for {calibrated.fpr:.0%} ({four_digits(calibrated.threshold)})"
        rows.append((f"balanced accuracy {place}", _figure(image.balanced_accuracy_calibrated), None))
        rows += [(f"{name} there", _figure(figure), None)
                 for name, figure in (("sensitivity", calibrated.sensitivity),
                                      ("specificity", calibrated.specificity))
                 if figure is not None]  # fmt: skip
    for name, figure, paper_value in rows:
        table.add_row(name, figure, *([three_digits(paper_value)] if paper else []))
    return table


def _pixel_table(figures: Figures, pixel: PixelVariants, title: str) -> Table:
    headings = ("pixels", "AUROC", "average\nprecision", "AUPRO\n(0.3)", "balanced\naccuracy")
    table = empty_table(title, *headings)
    for name, row in (
        ("field of view\nall photos", pixel.fov),
        ("whole image\nall photos", pixel.whole),
        ("field of view\nabnormal only", pixel.fov_abnormal_only),
        ("whole image\nabnormal only", pixel.whole_abnormal_only),
    ):
        balanced = _two(row.balanced_accuracy, f" (≥ {four_digits(row.threshold)})")
        table.add_row(name, _two(row.auroc), _two(row.average_precision), _two(row.aupro), balanced)
    if paper := PROTOCOLS.get(figures.dataset):
        table.add_row(
            "the paper (not\nsaid which)", three_digits(paper.pixel_auc), "-", "-", three_digits(paper.pixel_acc)
        )
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
    table = empty_table("One kind of lesion against unmarked pixels, field of view", *headings)
    for row in figures.lesions:
        table.add_row(row.kind, f"{row.photos}/\n{row.lesions}", _two(row.auroc), _two(row.auroc_abnormal_only),
                      _two(row.average_precision), _two(row.aupro))  # fmt: skip
    return table


def _froc_table(froc: Froc) -> Table:
    title = f"Lesions touched, by false regions per healthy photograph (levels from {froc.levels_from})"
    table = empty_table(title, "", "n", *(f"{point.rate:g}" for point in froc.points))
    for number, group in enumerate(froc.points[0].lesions):
        figures = [point.lesions[number].touched for point in froc.points]
        table.add_row(group.name, str(group.lesions), *map(_percent, figures))
    for number, group in enumerate(froc.points[0].lesions):
        if group.kind == ALL:
            figures = [point.lesions[number].photos_touched for point in froc.points]
            name = "photographs" if not group.smallest_px else f"photographs, {group.smallest_px} px+"
            table.add_row(name, str(group.photos), *map(_percent, figures))
    table.add_row("unmarked regions\nper diseased photo", "", *(f"{p.unmarked_regions:.3g}" for p in froc.points))
    table.add_row("level", "", *(four_digits(point.level) for point in froc.points))
    return table


def _index_levels_table(froc: Froc) -> Table:
    headings = ("stated", "level", "measured", "lesions\ntouched", f"{LARGE} px\nand more", "photographs\ntouched")
    table = empty_table(f"The index's own levels on {froc.healthy} healthy test photographs", *headings)
    for point in froc.index_levels:
        every, large = point.group(), point.group(ALL, LARGE)
        table.add_row(
            f"{point.rate:g}",
            four_digits(point.level),
            "-" if point.false_regions is None else _two(point.false_regions),
            "-" if every is None else _percent(every.touched),
            "-" if large is None else _percent(large.touched),
            "-" if every is None else _percent(every.photos_touched),
        )
    return table


def _percent(figure: Figure) -> str:
    """A share as percent, and its interval below it."""
    return f"{100 * figure.value:.0f} %\n[dim]{100 * figure.low:.0f}-{100 * figure.high:.0f}[/]"


def _two(figure: Figure, note: str = "") -> str:
    """A value, and its interval below it."""
    return f"{figure.value:.3f}{note}\n[dim]{figure.low:.3f}-{figure.high:.3f}[/]"


def empty_table(title: str, *headings: str) -> Table:
    """An empty table with these columns."""
    table = Table(title=title, title_justify="left")
    for heading in headings:
        table.add_column(heading)
    return table


def three_digits(value: float | None) -> str:
    """Three digits after the point, or a dash."""
    return "-" if value is None else f"{value:.3f}"


def _figure(figure: Figure) -> str:
    return f"{figure.value:.3f} ({figure.low:.3f} to {figure.high:.3f})"
