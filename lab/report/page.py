"""The HTML page of an evaluation, and the templates of all pages."""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any, Final

from jinja2 import Environment, PackageLoader, StrictUndefined
from resad_client.text import counted

from lab.evaluate.agreement import Agreement, PairAgreement
from lab.evaluate.bootstrap import Figure
from lab.evaluate.figures import (
    AgreementFigures,
    Figures,
    ImageFigures,
    Overlap,
    PaintedFigures,
    PixelVariants,
    SamePhoto,
    UnlabeledEvaluation,
)
from lab.evaluate.froc import ALL, LARGE, Froc, TouchedLesions
from lab.evaluate.measuring import Measurement
from lab.evaluate.painted import painted_headings, painted_rows
from lab.evaluate.paper import PROTOCOLS
from lab.evaluate.tables import three_digits
from lab.report.charts import froc_charts, image_charts, score_chart
from lab.report.pictures import best_and_worst, usual_scale
from resad.config import PhotoLimits, to_json
from resad.loaded_index import LoadedIndex
from resad.pictures.overlay import color_stops

_NAMED: Final = 8
"""Photographs of the index that a warning names."""


@dataclass(frozen=True, slots=True)
class Table:
    """A table of the page; a figure is shown with its interval."""

    caption: str
    headings: tuple[str, ...]
    rows: list[tuple[str | Figure, ...]]


def render(template: str, values: dict[str, Any]) -> str:
    """A page of `lab/report/templates`; every value is escaped.  Raises `UndefinedError` for a missing value."""
    environment = Environment(
        loader=PackageLoader("lab.report"), autoescape=True, undefined=StrictUndefined, keep_trailing_newline=True
    )
    environment.filters |= {"digits": three_digits, "interval": _interval, "zip": zip}
    return environment.get_template(template).render(values)


def report(figures: Figures, measured: Measurement, loaded: LoadedIndex, limits: PhotoLimits) -> str:
    """The page of an evaluation; scores the photographs that it shows again.

    Raises `PhotoError` where one of them cannot be read any more.
    """
    calibration = loaded.manifest.calibration
    scale = usual_scale(calibration)
    values = {
        "figures": figures,
        "style": resources.files("lab.report").joinpath("style.css").read_text(),
        "warnings": _warnings(figures),
        "headline": _headline(figures),
        "tables": _tables(figures),
        "curves": [*image_charts(measured, figures), *froc_charts(measured, figures, calibration)],
        "scores": score_chart(measured, figures),
        "color_stops": ",".join(color_stops()),
        "scale": scale,
        "groups": best_and_worst(measured, loaded, scale, limits),
        "facts": _facts(figures, loaded),
        "settings": to_json(figures.settings),
    }
    return render("evaluation.html.jinja", values)


def unlabeled_report(evaluation: UnlabeledEvaluation) -> str:
    """The page of painted lesions and of readers' marks, without a data set."""
    painted, agreement = evaluation.painted, evaluation.agreement
    subjects = [
        *(("painted lesions",) if painted is not None else ()),
        *(("readers' marks",) if agreement is not None else ()),
    ]
    values = {
        "evaluation": evaluation,
        "subject": " and ".join(subjects),
        "style": resources.files("lab.report").joinpath("style.css").read_text(),
        "warnings": [*_painted_warnings(painted), *_agreement_warnings(agreement)],
        "tables": [*_painted_tables(painted), *_agreement_tables(agreement)],
        "settings": to_json(evaluation.settings),
    }
    return render("unlabeled.html.jinja", values)


def _warnings(figures: Figures) -> list[str]:
    return [
        *_overlap_warnings(figures.guard),
        *_painted_warnings(figures.painted),
        *_agreement_warnings(figures.agreement),
        *(f"Not the published copy: {deviation}" for deviation in figures.deviations),
        *(f"Left out: {reason}." for reason in figures.missing),
    ]


def _overlap_warnings(overlap: Overlap) -> list[str]:
    lines = []
    if overlap.photos:
        lines.append(_same_photos_warning(overlap.photos, "test photograph"))
    if overlap.patients:
        people = counted(len(overlap.patients), "patient is", "patients are")
        lines.append(f"{people} both in the index and tested on, the figures flatter.")
    return lines


def _painted_warnings(painted: PaintedFigures | None) -> list[str]:
    photos = () if painted is None else painted.in_the_index
    return [_same_photos_warning(photos, "painted photograph")] if photos else []


def _agreement_warnings(agreement: AgreementFigures | None) -> list[str]:
    if agreement is None:
        return []
    photos = agreement.in_the_index
    flattered = [_same_photos_warning(photos, "marked photograph")] if photos else []
    return [*flattered, *(f"Readers' marks: {note}." for note in agreement.results.notes)]


def _same_photos_warning(photos: Sequence[SamePhoto], which: str) -> str:
    names = ", ".join(photo.description for photo in photos[:_NAMED])
    more = ", ..." if len(photos) > _NAMED else ""
    count = counted(len(photos), f"{which} is", f"{which}s are")
    return f"{count} in the index, the figures flatter: {names}{more}"


def _headline(figures: Figures) -> list[tuple[str, Figure, str]]:
    """Name, figure and population of the few figures that readers look for first."""
    entries: list[tuple[str, Figure, str]] = []
    if figures.image is not None:
        entries.append(("image AUROC", figures.image.auroc, "all test photographs"))
    if figures.pixel is not None:
        entries.append(("pixel AUROC", figures.pixel.fov.auroc, "field of view, all photographs"))
        entries.append(("AUPRO (0.3)", figures.pixel.fov.aupro, "field of view, all photographs"))
    if (group := _usual_group(figures)) is not None:
        entries.append(("lesions touched", group.touched, "at 1 false region per healthy photograph"))
    calibrated = figures.calibrated
    if calibrated is not None and calibrated.sensitivity is not None:
        name = f"sensitivity at a rate of {calibrated.fpr:.0%}"
        entries.append((name, calibrated.sensitivity, "index's threshold"))
    return entries


def _usual_group(figures: Figures) -> TouchedLesions | None:
    point = None if figures.froc is None else figures.froc.at(1.0)
    return None if point is None else point.group()


def _tables(figures: Figures) -> list[Table]:
    tables = [] if figures.image is None else [_image_table(figures, figures.image)]
    if figures.pixel is not None:
        tables.append(_pixel_table(figures, figures.pixel))
    if figures.lesions:
        tables.append(_lesion_table(figures))
    if figures.froc is not None:
        tables.append(_froc_table(figures.froc))
        if figures.froc.healthy and figures.froc.index_levels:
            tables.append(_index_levels_table(figures.froc))
    return [*tables, *_painted_tables(figures.painted), *_agreement_tables(figures.agreement)]


def _image_table(figures: Figures, image: ImageFigures) -> Table:
    paper = PROTOCOLS.get(figures.dataset)
    rows: list[tuple[str, Figure, float | None]] = [
        ("AUROC", image.auroc, paper.image_auc if paper else None),
        ("average precision", image.average_precision, None),
        (f"balanced accuracy, best: scores above {image.threshold:#.4g}", image.balanced_accuracy,
         paper.image_acc if paper else None),
        ("specificity at 95 % sensitivity", image.specificity_at_95_sensitivity, None),
        ("specificity at 99 % sensitivity", image.specificity_at_99_sensitivity, None),
    ]  # fmt: skip
    if (calibrated := figures.calibrated) is not None:
        place = f"at the index's threshold for {calibrated.fpr:.0%} ({calibrated.threshold:#.4g})"
        at_threshold = (("balanced accuracy", image.balanced_accuracy_calibrated),
                        ("sensitivity", calibrated.sensitivity),
                        ("specificity", calibrated.specificity))  # fmt: skip
        rows += [(f"{name} {place}", figure, None) for name, figure in at_threshold if figure is not None]
    columns = 4 if paper else 3
    caption = f"Image scores; {figures.photos.normal} normal, {figures.photos.abnormal} abnormal photographs"
    cells: list[tuple[str | Figure, ...]] = [
        (name, three_digits(figure.value), _interval(figure), three_digits(paper_value))[:columns]
        for name, figure, paper_value in rows
    ]
    return Table(caption, ("", "here", "95 % interval", "paper")[:columns], cells)


def _pixel_table(figures: Figures, pixel: PixelVariants) -> Table:
    variants = (
        ("field of view, all photographs", pixel.fov),
        ("whole image, all photographs", pixel.whole),
        ("field of view, abnormal photographs only", pixel.fov_abnormal_only),
        ("whole image, abnormal photographs only", pixel.whole_abnormal_only),
    )
    rows: list[tuple[str | Figure, ...]] = [
        (name, str(row.photos), row.auroc, row.average_precision, row.aupro, row.balanced_accuracy,
         f"{row.threshold:#.4g}")
        for name, row in variants
    ]  # fmt: skip
    if paper := PROTOCOLS.get(figures.dataset):
        auroc, accuracy = three_digits(paper.pixel_auc), three_digits(paper.pixel_acc)
        rows.append(("the paper (which pixels it does not say)", "", auroc, "-", "-", accuracy, "-"))
    return Table(
        "Pixels, each photograph at its own size; the black surround flatters the whole image",
        ("pixels", "n", "AUROC", "average precision", "AUPRO (0.3)", "balanced accuracy, best", "from"),
        rows,
    )


def _lesion_table(figures: Figures) -> Table:
    headings = (
        "lesion",
        "n",
        "regions",
        "AUROC",
        "AUROC, abnormal photographs only",
        "average precision",
        "AUPRO (0.3)",
    )
    rows: list[tuple[str | Figure, ...]] = [
        (row.kind, str(row.photos), str(row.lesions), row.auroc, row.auroc_abnormal_only, row.average_precision,
         row.aupro)
        for row in figures.lesions
    ]  # fmt: skip
    return Table("One kind of lesion against unmarked pixels in the field of view", headings, rows)


def _froc_table(froc: Froc) -> Table:
    """A column per rate; shares of lesions, then of photographs."""
    rows: list[tuple[str | Figure, ...]] = []
    for number, group in enumerate(froc.points[0].lesions):
        touched = (point.lesions[number].touched for point in froc.points)
        rows.append((group.name, counted(group.lesions, "lesion"), *touched))
    for number, group in enumerate(froc.points[0].lesions):
        photos = (point.lesions[number].photos_touched for point in froc.points)
        rows.append((f"photographs with {group.name}", counted(group.photos, "photograph"), *photos))
    unmarked = (f"{point.unmarked_regions:.3g}" for point in froc.points)
    rows.append(
        (
            "regions without a marked pixel, per diseased photograph",
            counted(froc.diseased, "photograph"),
            *unmarked,
        )
    )
    rows.append(("level", "", *(f"{point.level:#.4g}" for point in froc.points)))
    return Table(
        "Share of lesions touched, and of photographs with a lesion touched, by false regions per healthy "
        f"photograph; levels from {froc.levels_from}",
        ("", "n", *(f"{point.rate:g}" for point in froc.points)),
        rows,
    )


def _index_levels_table(froc: Froc) -> Table:
    rows: list[tuple[str | Figure, ...]] = []
    for point in froc.index_levels:
        every, large = point.group(), point.group(ALL, LARGE)
        figures = (point.false_regions, every and every.touched, large and large.touched,
                   every and every.photos_touched)  # fmt: skip
        rows.append((f"{point.rate:g}", f"{point.level:#.4g}", *(figure or "-" for figure in figures)))
    return Table(
        f"The index's own levels of findings, measured on {froc.healthy} healthy test photographs",
        ("false regions per healthy photograph, as stated", "level", "as measured", "lesions touched",
         f"of {LARGE} px and more", "photographs with a lesion touched"),
        rows,
    )  # fmt: skip


def _painted_tables(painted: PaintedFigures | None) -> list[Table]:
    if painted is None:
        return []
    results = painted.results
    table = Table(
        f"Painted lesions found on {counted(results.photos, 'healthy photograph')}, above the level that the "
        f"highest point of 95 % of them does not exceed ({results.level:#.4g}), and touched at 0.25, 1 and 4 "
        "false regions a photograph",
        painted_headings(results),
        list(painted_rows(results)),
    )
    return [table]


def _agreement_tables(agreement: AgreementFigures | None) -> list[Table]:
    if agreement is None:
        return []
    results = agreement.results
    tables = [_pair_table(results.pairs)] if results.pairs else []
    return [*tables, _reader_table(results)] if results.unmarked else tables


def _pair_table(pairs: Sequence[PairAgreement]) -> Table:
    rows: list[tuple[str | Figure, ...]] = [
        (f"{pair.first}, {pair.second}", str(pair.photos), pair.dice or "-",
         str(pair.of_first.regions), pair.of_first.touched or "-", str(pair.of_first.called_healthy),
         str(pair.of_second.regions), pair.of_second.touched or "-", str(pair.of_second.called_healthy),
         pair.same_kind or "-")
        for pair in pairs
    ]  # fmt: skip
    return Table(
        "Agreement of readers on the photographs that both marked; a region is a connected area of one kind",
        ("readers", "photographs", "Dice of the area", "regions of the first", "touched by the second",
         "healthy for the second", "regions of the second", "touched by the first", "healthy for the first",
         "of regions that touch, same kind"),
        rows,
    )  # fmt: skip


def _reader_table(agreement: Agreement) -> Table:
    rates = [entry.rate for entry in agreement.unmarked]
    rows: list[tuple[str | Figure, ...]] = []
    for reader in agreement.index:
        groups = [point.group() for point in reader.points]
        cells = [group.touched if group else "-" for group in groups] or ["-"] * len(rates)
        lesions = groups[0].lesions if groups and groups[0] else 0
        rows.append((reader.reader, str(reader.photos), str(lesions), *cells))
    scored = str(agreement.with_file)
    unmarked = (entry.unmarked for entry in agreement.unmarked)
    rows.append(("regions that no reader marked, per photograph", scored, "", *unmarked))
    called_healthy = (entry.called_healthy for entry in agreement.unmarked)
    rows.append(("regions that readers called healthy only, per photograph", scored, "", *called_healthy))
    rows.append(("level", "", "", *(f"{entry.level:#.4g}" for entry in agreement.unmarked)))
    return Table(
        "Share of each reader's lesions touched, at the index's own levels for these false regions per healthy "
        "photograph",
        ("reader", "photographs", "lesions", *(f"{rate:g}" for rate in rates)),
        rows,
    )


def _facts(figures: Figures, loaded: LoadedIndex) -> list[tuple[str, str]]:
    index, overlap, manifest = figures.index, figures.guard, loaded.manifest
    return [
        ("index", f"{index.name} {index.version}"),
        ("fingerprint", index.fingerprint),
        ("weights", f"{manifest.weights}, {index.weights}"),
        ("reference photos", f"{manifest.counts.photos}, {manifest.counts.memories:,} memories"),
        ("calibration", figures.calibration),
        ("in the index", f"{counted(len(overlap.photos), 'test photograph')}, by file and by picture"),
        ("patients on both sides", _patients(overlap)),
        (
            "intervals",
            "95 %, percentile bootstrap over photographs, 2,000 resamples; of sensitivity and "
            "specificity at the index's threshold Clopper-Pearson",
        ),
        ("packages", ", ".join(f"{package.name} {package.version}" for package in figures.packages)),
    ]


def _patients(overlap: Overlap) -> str:
    if overlap.patients is None:
        return f"not known: {overlap.why}"
    return f"{len(overlap.patients)}" + (f", {overlap.why}" if overlap.why else "")


def _interval(figure: Figure) -> str:
    return f"{figure.low:.3f} to {figure.high:.3f}"
