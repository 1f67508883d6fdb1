"""Tables that the commands print."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Final

from resad_client.text import counted, printable
from rich.markup import escape
from rich.table import Table

from indexer.calibration.lines import first_names, origin_line, outlier_lines, trained_on_line
from indexer.photos.listing import PatientCounts, ReferencePhoto
from resad.calibration import Calibration, Normals, Threshold
from resad.examples import read_example_records
from resad.manifest import Manifest, Quality, Standing
from resad.quality import FEWEST, QualityLimit

if TYPE_CHECKING:
    from indexer.build.build import BuildReport
    from indexer.calibration.calibrate import CalibrationReport
    from indexer.lifecycle.choice import HeldPhoto
    from indexer.lifecycle.derive import NewVersion
    from indexer.lifecycle.versions import Diff

_STANDINGS: Final[dict[Standing, str]] = {
    "measured": "",
    "bound": "; some are scored in a smaller bank: p-values err upwards",
    "stale": "; STALE: some were scored before photographs left, p-values may be too low",
}


def four_digits(value: float) -> str:
    """`value` with four significant digits, as all scores are printed."""
    return f"{value:#.4g}"


def shown(text: str) -> str:
    """Other people's text as a cell: names of files and cameras hold any characters, also rich's markup."""
    return escape(printable(text))


def build_table(report: "BuildReport") -> Table:
    """The index that was built."""
    manifest = report.manifest
    table = facts(f"{manifest.name} {manifest.version}")
    _add_counts(table, manifest, report.people)
    table.add_row("not used", f"{len(report.skipped)} unusable, {counted(len(report.duplicates), 'duplicate')}")
    _add_search(table, manifest)
    table.add_row("seconds", ", ".join(f"{time.stage} {time.seconds:.1f}" for time in manifest.quality.stages))
    table.add_row("peak memory", f"{manifest.quality.peak_memory_bytes / 1e9:.2f} GB")
    return table


def index_table(version: Path, manifest: Manifest, people: PatientCounts, *, live: bool) -> Table:
    """Settings, counts and calibration of an index."""
    config = manifest.config
    table = facts(f"{manifest.name} {manifest.version}{' (live)' if live else ''}")
    entry = manifest.history[-1]
    made = f"{entry.operation} at {entry.at} by resad {entry.package_version} on {manifest.device}"
    table.add_row("made", shown(made))
    table.add_row(
        "backbone", shown(f"{config.backbone.name}, stages {config.backbone.stages}, {manifest.weights}")
    )
    table.add_row("weights", manifest.weights_sha256)
    table.add_row("fingerprint", manifest.fingerprint)
    table.add_row("prepared", f"{config.preparation.size} px, crop {config.preparation.crop}, {config.precision}")
    _add_counts(table, manifest, people)
    table.add_row("calibration from", shown(origin_line(manifest)))
    _add_search(table, manifest)
    table.add_row("photographs kept", _kept_photos(manifest))
    table.add_row("marks learned", _marks(version))
    size = sum(record.bytes for record in manifest.files)
    table.add_row("on disk", shown(f"{size / 1e6:.1f} MB in {version}"))
    return table


def calibration_table(report: "CalibrationReport") -> Table:
    """The thresholds before and after."""
    before, after = report.before.calibration, report.after.calibration
    table = Table(title=f"{report.after.name} {report.after.version}", title_justify="left")
    for heading in ("", "before", "after"):
        table.add_column(heading, overflow="fold")
    table.add_row("version", report.before.version, report.after.version)
    table.add_row("normals", str(len(before.scores)), str(len(after.scores)))
    table.add_row("  scored", _scoring(before), _scoring(after))
    table.add_row("median score", *(four_digits(median(calibration.scores)) for calibration in (before, after)))
    for old, new in _pairs(before, after):
        table.add_row(f"threshold {new.fpr:.0%}", _value(old), _value(new))
        table.add_row("  its rate, 95 %", _rate(old), _rate(new))
    table.add_row("levels of findings", _levels(before), _levels(after))
    table.add_row("maps end at", four_digits(before.full_scale), four_digits(after.full_scale))
    table.add_row("cameras", *(shown(_cameras(calibration)) for calibration in (before, after)))
    return table


def _add_search(table: Table, manifest: Manifest) -> None:
    """The chosen search and its trials, if there were any."""
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
    table = Table(title=shown(title), title_justify="left", show_header=False)
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
    table.add_row("trunk trained on", trained_on_line(calibration))
    if lines := [*outlier_lines(calibration, {})]:
        table.add_row("outliers", "\n".join(map(shown, lines)))
    if calibration.set_aside:
        table.add_row("set aside", first_names(calibration.set_aside, _MAX_IDS))
    for threshold in calibration.thresholds:
        table.add_row(f"threshold {threshold.fpr:.0%}", _threshold(threshold))
    unit = " (false regions per healthy photograph: distance)" if calibration.finding_levels else ""
    table.add_row("levels of findings", f"{_levels(calibration)}{unit}")
    for camera in calibration.cameras:
        normals = camera.normals
        thresholds = ", ".join(f"{limit.fpr:.0%} {_value(limit)}" for limit in normals.thresholds)
        levels = f"; findings {_levels(normals)}" if normals.finding_levels else ""
        count = counted(len(normals.scores), "normal")
        table.add_row(shown(f"camera {camera.camera}"), f"{count}; {thresholds}{levels}")
    limits = manifest.photo_quality
    bounds = (f"{limit.reason}: {limit.measure} {_side(limit)} {limit.value:.3g}" for limit in limits.limits)
    table.add_row(
        "quality limits", "; ".join(bounds) or f"none: {counted(limits.photos, 'normal')}, they take {FEWEST}"
    )


def _levels(normals: Normals) -> str:
    """Each rate of findings and its level."""
    levels = normals.finding_levels
    if not levels:
        return "none by false regions; the highest points of normals decide at --fpr"
    return ", ".join(
        f"{level.rate:g}: {'-' if level.value is None else four_digits(level.value)}" for level in levels
    )


def _kept_photos(manifest: Manifest) -> str:
    from resad.pictures.evidence import kept_squares

    squares = kept_squares(manifest)
    if not squares:
        return "none (--keep-crops)"
    return f"{len(squares)} as prepared squares, for evidence, {sum(file.bytes for file in squares) / 1e6:.1f} MB"


def _marks(version: Path) -> str:
    """How many marks of each label a version has learned."""
    labels = Counter(record.label for record in read_example_records(version))
    return ", ".join(f"{count} {label}" for label, count in sorted(labels.items())) or "none"


def _radius(quality: Quality) -> str:
    if quality.kept_radius is None:
        greedy = f"{four_digits(quality.projected_radius)} in {quality.projected_dimension} dimensions"
        return f"{four_digits(quality.covering_radius)} (greedy: {greedy})"
    at_most = "at most " if quality.covering == "bound" else ""
    return f"{at_most}{four_digits(quality.covering_radius)} (kept at {four_digits(quality.kept_radius)})"


def _calibrated_on(calibration: Calibration) -> str:
    return f"{counted(len(calibration.scores), 'normal')}, {_scoring(calibration)}"


def _scoring(calibration: Calibration) -> str:
    return "each left out" if calibration.source == "left-out" else "not in the bank"


def _cameras(calibration: Calibration) -> str:
    return ", ".join(f"{camera.camera} ({len(camera.normals.scores)})" for camera in calibration.cameras) or "-"


def _threshold(threshold: Threshold) -> str:
    if threshold.value is None or threshold.interval is None:
        return f"none: {threshold.reason}"
    return f"{four_digits(threshold.value)} (rate {_rate(threshold)}; needs {counted(threshold.needed, 'normal')})"


def _pairs(before: Calibration, after: Calibration) -> Iterator[tuple[Threshold, Threshold]]:
    """The thresholds of both, by their rates."""
    earlier = {threshold.fpr: threshold for threshold in before.thresholds}
    return ((earlier[later.fpr], later) for later in after.thresholds if later.fpr in earlier)


def _rate(threshold: Threshold) -> str:
    if threshold.interval is None:
        return f"needs {counted(threshold.needed, 'normal')}"
    return f"{threshold.interval.low:.1%} to {threshold.interval.high:.1%}"


def _value(threshold: Threshold) -> str:
    return "-" if threshold.value is None else four_digits(threshold.value)


def _side(limit: QualityLimit) -> str:
    return "below" if limit.below else "above"


_MAX_SCORES: Final = 5
_MAX_IDS: Final = 20
"""Printed at most; diff --json has all."""


def new_version_table(version: "NewVersion") -> Table:
    """The new version beside the version that it was made from."""
    before, after = version.before, version.after
    table = _before_and_after(f"{after.name} {after.version}", before, after)
    table.add_row("memories entered", "", str(version.entered))
    table.add_row(
        "scores measured anew", "", f"{version.measured} of {counted(after.counts.photos, 'photograph')}"
    )
    return table


def photo_lines(photos: Sequence["HeldPhoto"], files: Mapping[str, ReferencePhoto]) -> Iterator[str]:
    """Photographs with their numbers, a line each below a line of headings, in columns.

    Args:
        files: content hash -> one's own file; columns show it and its patient in a CSV.
    """
    headings = ("photo", "patient", "eye", "camera", "your patient", "file")
    rows: list[tuple[str, ...]] = [headings]
    for photo in photos:
        file = files.get(photo.content_sha256)
        path, patient = (photo.name, None) if file is None else (str(file.path), file.patient)
        cells = (photo.id, photo.patient, photo.eye, photo.camera, patient, path)
        rows.append(tuple(printable(cell or "-") for cell in cells))
    used = [place for place in range(len(headings)) if place == 0 or any(row[place] != "-" for row in rows[1:])]
    widths = [max(len(row[place]) for row in rows) for place in used]
    for row in rows:
        yield "  ".join(row[place].ljust(width) for place, width in zip(used, widths, strict=True)).rstrip()


def diff_table(difference: "Diff") -> Table:
    """Both versions side by side; distances only if they are comparable."""
    before, after = difference.before, difference.after
    return _before_and_after(f"{before.name} and {after.name}", before, after, distances=difference.comparable)


def diff_lines(difference: "Diff") -> Iterator[str]:
    """The photographs, memories and scores that two versions share and do not share, a line each."""
    yield (
        f"photographs: {difference.same} in both, {len(difference.left)} left, {len(difference.entered)} entered"
    )
    # An id may be that of two photographs: each index numbers its own.
    lists = (
        ("left, by their ids before", difference.left),
        ("entered, by their ids after", difference.entered),
    )
    for heading, ids in lists:
        if ids:
            yield f"  {heading}: {first_names(ids, _MAX_IDS)}"
    if difference.marks_removed or difference.marks_added:
        yield f"marks learned: {len(difference.marks_removed)} removed, {len(difference.marks_added)} added"
    if not difference.comparable:
        yield "fingerprints differ: memories, distances and scores of the two are not to be compared"
        yield difference.intended_use
        return
    yield (
        f"memories: {difference.memories_same} in both, {difference.memories_left} left, "
        f"{difference.memories_entered} entered"
    )
    if difference.median_change is not None:
        yield f"scores of the photographs in both: median change {difference.median_change:+.4g}"
        for change in difference.scores[:_MAX_SCORES]:
            yield f"  {change.id}: {four_digits(change.before)} -> {four_digits(change.after)}"
    yield difference.intended_use


def _before_and_after(title: str, before: Manifest, after: Manifest, *, distances: bool = True) -> Table:
    table = Table(title=shown(title), title_justify="left")
    for heading in ("", "before", "after"):
        table.add_column(heading, overflow="fold")
    pair = (before, after)
    table.add_row("version", *(manifest.version for manifest in pair))
    table.add_row("made by", *(shown(manifest.history[-1].operation) for manifest in pair))
    table.add_row("photos", *(str(manifest.counts.photos) for manifest in pair))
    table.add_row("memories", *(f"{manifest.counts.memories:,}" for manifest in pair))
    if distances:
        table.add_row("covering radius", *map(_covering_radius, pair))
    table.add_row("calibration", *(f"{manifest.calibration.source}, {manifest.calibrated}" for manifest in pair))
    if not distances:
        return table
    for old, new in _pairs(before.calibration, after.calibration):
        table.add_row(f"threshold {new.fpr:.0%}", _value(old), _value(new))
    return table


def _covering_radius(manifest: Manifest) -> str:
    at_most = "at most " if manifest.quality.covering == "bound" else ""
    return at_most + four_digits(manifest.quality.covering_radius)
