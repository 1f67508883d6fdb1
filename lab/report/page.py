"""Figures, curves and cases -> the page."""

from collections.abc import Sequence
from html import escape
from importlib import resources

from lab.evaluate.figures import Figures, Guard
from lab.evaluate.measuring import Measured
from lab.report import cases
from lab.report.cases import Case, Group
from lab.report.charts import image_charts, score_chart
from lab.report.figure_tables import figure_tables, headline
from resad.calibration import USUAL_RATE, threshold
from resad.config import PhotoLimits, to_json
from resad.loaded_index import LoadedIndex
from resad.pictures.overlay import MapScale, color_stops, map_scale
from resad.result import INTENDED_USE


def report(figures: Figures, measured: Measured, loaded: LoadedIndex, limits: PhotoLimits) -> str:
    """The page; scores the photographs that it shows again.

    Raises `PhotoError` where one of them cannot be read any more.
    """
    calibration = loaded.manifest.calibration
    scale = map_scale(calibration, threshold(calibration.peaks, USUAL_RATE).value)
    shown = cases.groups(measured, loaded, scale, limits)
    style = resources.files("lab.report").joinpath("style.css").read_text()
    parts = (
        _head(figures),
        *_warnings(figures),
        headline(figures),
        "<h2>Figures</h2>" + figure_tables(figures),
        _charts(figures, measured),
        _cases(shown, scale),
        _settings(figures, loaded),
    )
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(f'{figures.index.name} on {figures.dataset}')}</title>\n"
        f"<style>\n{style}</style>\n</head>\n"
        "<body>\n" + "\n".join(parts) + "\n</body>\n</html>\n"
    )


def _head(figures: Figures) -> str:
    photos = figures.photos
    unmarked = f", {photos.without_mask} of them without a mask" if photos.without_mask else ""
    return (
        f"<header><h1>Index {escape(figures.index.name)} on {escape(figures.dataset)}</h1>"
        f'<p class="quiet">{photos.normal} normal and {photos.abnormal} abnormal test photographs{unmarked}. '
        f"Version {escape(figures.index.version)}, backbone {escape(figures.index.backbone)}, "
        f"{figures.settings.preparation.size} px.</p>"
        f'<p class="notice">{escape(INTENDED_USE)}</p></header>'
    )


def _warnings(figures: Figures) -> list[str]:
    lines = [*_guard_warnings(figures.guard)]
    lines += [f"Not the published copy: {deviation}" for deviation in figures.deviations]
    lines += [f"Left out: {reason}." for reason in figures.missing]
    return [f'<p class="warn">{escape(line)}</p>' for line in lines]


def _guard_warnings(guard: Guard) -> list[str]:
    lines = []
    if guard.photos:
        named = ", ".join(one.told for one in guard.photos[:8])
        more = ", ..." if len(guard.photos) > 8 else ""
        lines.append(f"{len(guard.photos)} test photographs are in the index, the figures flatter: {named}{more}")
    if guard.patients:
        lines.append(f"{len(guard.patients)} patients are both in the index and tested on, the figures flatter.")
    return lines


def _patients(guard: Guard) -> str:
    if guard.patients is None:
        return f"not known: {guard.why}"
    return f"{len(guard.patients)}" + (f", {guard.why}" if guard.why else "")


def _charts(figures: Figures, measured: Measured) -> str:
    drawn = "".join(
        f"<figure><figcaption>{escape(caption)}</figcaption>{chart}</figure>"
        for caption, chart in image_charts(measured, figures)
    )
    curves = (
        f'<h2>Curves</h2><p class="quiet">The band holds 95 % of the bootstrap\'s curves; dotted: chance.</p>'
        f'<div class="charts">{drawn}</div>'
        if drawn
        else ""
    )
    return (
        f"{curves}<h2>Image scores</h2><figure><figcaption>"
        '<span class="key n"></span>normal<span class="key a"></span>abnormal; a stroke per photograph; dashed: '
        f"the index's own threshold, from its reference photos alone</figcaption>"
        f"{score_chart(measured, figures)}</figure>"
    )


def _cases(shown: Sequence[Group], scale: MapScale) -> str:
    found = "".join(
        f'<h3>{escape(group.title)}</h3><div class="cases">{"".join(map(_case, group.cases))}</div>'
        for group in shown
    )
    return (
        '<h2>Best and worst cases</h2><p class="quiet">Left the photograph, white lines around what was marked by '
        "hand; right its anomaly map on the index's own scale, the same for every photograph.</p>"
        f'<div class="bar" style="background-image:linear-gradient(to right,{",".join(color_stops())})"></div>'
        f'<div class="ends"><span>{scale.low:#.3g}, as healthy patches</span><span>{scale.high:#.3g}</span></div>'
        f"{found}"
    )


def _case(case: Case) -> str:
    within = "" if case.pixel_auroc is None else f", pixel AUROC within {case.pixel_auroc:.2f}"
    return (
        f'<figure class="case"><div><img src="{case.photo}" alt="photograph"><img src="{case.overlay}" '
        f'alt="anomaly map"></div><figcaption><b>{escape(case.name)}</b> ({escape(case.kind)})<br>'
        f"score {case.score:#.4g}, p {case.p_value:.3f}{within}</figcaption></figure>"
    )


def _settings(figures: Figures, loaded: LoadedIndex) -> str:
    index, guard, manifest = figures.index, figures.guard, loaded.manifest
    facts = [
        ("index", f"{index.name} {index.version}"),
        ("fingerprint", index.fingerprint),
        ("weights", f"{manifest.weights}, {index.weights}"),
        ("reference photos", f"{manifest.counts.photos}, {manifest.counts.memories:,} memories"),
        ("in the index", f"{len(guard.photos)} test photographs, by file and by picture"),
        ("patients on both sides", _patients(guard)),
        (
            "intervals",
            "95 %, percentile bootstrap over photographs, 2,000 resamples; of sensitivity and "
            "specificity at the index's threshold Clopper-Pearson",
        ),
        ("packages", ", ".join(f"{one.name} {one.version}" for one in figures.packages)),
    ]
    rows = "".join(f"<dt>{escape(name)}</dt><dd>{escape(text)}</dd>" for name, text in facts)
    return (
        f"<h2>How it was made</h2><dl>{rows}</dl><details><summary>All settings</summary>"
        f"<pre>{escape(to_json(figures.settings))}</pre></details><p class='notice'>{escape(INTENDED_USE)}</p>"
    )
