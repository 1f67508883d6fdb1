"""`resad-indexer teach`: marks of readers become variants and examples of lesions, in a new version.

Patches under *normal variant* and *artifact* quiet what is close to them; those under kinds of lesions become
examples, which say what a finding resembles.  Bank, photographs and calibration stay: variants make distances
smaller, if anything, so that scores of the calibration err upwards ("bound"), on the safe side for false alarms.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from resad_client.records import Mark

from indexer.build.publication import history_entry, link_files
from indexer.lifecycle.derive import NewVersion, SourceVersion, open_source, worst_standing
from resad import index, runtime
from resad.detector import Detector
from resad.errors import SettingError
from resad.examples import EXAMPLE_RECORDS_FILE, EXAMPLES_FILE, ExampleRecord, Examples, no_examples
from resad.index import publish, staging_folder, tombstone, tombstones
from resad.loaded_index import LoadedIndex, score_probe
from resad.marks import HEALTHY_LABELS, Entry, MarkedPatches, is_healthy, read_entries, spread, valid_marks
from resad.pictures.evidence import file_name, keeps_crops

_USUAL: Final = 0.95
"""Share of the healthy patches of left-out photographs; what is no farther away looks healthy."""
MOST_OF_PHOTO: Final = 256
"""Patches that the marks of one photograph and one reader's verdict, healthy or lesion, may add."""


@dataclass(frozen=True, slots=True)
class MarkedChange:
    """What a version learns from a mark.

    before, after: largest distance of its patches to healthy ones, in the old and the new version, feature units.
    doubt: why the mark may be wrong; empty without one.
    """

    id: str
    label: str
    before: float
    after: float
    doubt: str


@dataclass(frozen=True, slots=True)
class Unused:
    """A mark that a version does not learn from, and why."""

    id: str
    label: str
    reason: str


@dataclass(frozen=True, slots=True, eq=False)
class Lesson:
    """What the journal teaches a version.

    examples: that the new version has.  added, removed: ids of marks that only the new or the old one has.
    squares: prepared squares of marked photographs: name in the version -> path.
    """

    examples: Examples
    added: tuple[str, ...]
    removed: tuple[str, ...]
    changes: tuple[MarkedChange, ...]
    unused: tuple[Unused, ...]
    squares: dict[str, Path]

    @property
    def empty(self) -> bool:
        """Whether there is nothing new."""
        return not self.added and not self.removed


@dataclass(frozen=True, slots=True)
class TeachOptions:
    """index: ROOT/NAME or ROOT/NAME/VERSION.  live: make the new version the live one."""

    index: Path
    device: torch.device
    live: bool = True


@dataclass(frozen=True, slots=True, eq=False)
class TeachReport:
    """The new version, and what it was made of."""

    derived: NewVersion
    lesson: Lesson


def teach(options: TeachOptions) -> TeachReport:
    """Write a version that has learned the marks of the journal; after any error the index is unchanged.

    Raises:
        SettingError: there is nothing new, or another process writes to the index.
        IndexInvalid: the index or the journal cannot be used.
    """
    place = index.resolve(options.index).resolve().parent
    with staging_folder(place.parent, place.name) as scratch:
        source = open_source(options.index, options.device)
        lesson = learn(place, source.loaded)
        if lesson.empty:
            raise SettingError(f"{place.name} has no new marks: {source.manifest.version} has learned them all")
        derived = write_taught(source, lesson.examples, lesson.squares, "teach", scratch, live=options.live)
    return TeachReport(derived, lesson)


Valid = tuple[Entry, int, Mark]
"""A mark that was not taken back: its entry, its number there, the mark."""


def learn(place: Path, loaded: LoadedIndex) -> Lesson:
    """What the journal of ROOT/NAME teaches the loaded version; changes nothing."""
    manifest, before = loaded.manifest, loaded.examples
    barred = tombstones(place)
    valid: list[Valid] = []
    unused: list[Unused] = []
    places: dict[tuple[str, str, object], str] = {}
    entries = read_entries(place)
    for entry, number, mark in valid_marks(entries):
        if tombstone(entry.photo.content_sha256) in barred:
            continue
        region = (entry.photo.content_sha256, mark.label, mark.contour or mark.id)
        if (first := places.setdefault(region, mark.id)) != mark.id:
            unused.append(Unused(mark.id, mark.label, f"it is the same as {first}"))
        elif entry.photo.fingerprint == manifest.fingerprint:
            valid.append((entry, number, mark))
        else:
            unused.append(
                Unused(mark.id, mark.label, "its features are of other settings or weights; mark it anew")
            )
    patches, disputed = _without_disputes(valid)
    unused += disputed
    examples = _examples(valid, patches, before.features.shape[1], before.gpu)
    in_journal = {mark.id for entry in entries for mark in entry.photo.marks}
    # An imported version may have learned marks that are in no journal here.
    examples = examples.with_others(before.only([record.id not in in_journal for record in before.records]))
    old, new = ({record.id for record in part.records} for part in (before, examples))
    squares = {
        file_name(entry.photo.id): entry.square
        for entry, _, mark in valid
        if mark.id in new and entry.square is not None
    }
    return Lesson(
        examples=examples,
        added=tuple(sorted(new - old)),
        removed=tuple(sorted(old - new)),
        changes=_changes(loaded, examples),
        unused=tuple(unused),
        squares=squares if keeps_crops(manifest) else {},
    )


def _without_disputes(valid: Sequence[Valid]) -> tuple[dict[str, MarkedPatches], list[Unused]]:
    """Per mark its patches, without cells that one mark calls healthy and another one a lesion."""
    patches: dict[str, MarkedPatches] = {}
    verdicts: dict[tuple[str, int, int], dict[bool, str]] = defaultdict(dict)
    for entry, number, mark in valid:
        every = entry.patches()
        chosen = every.mark == number
        patches[mark.id] = MarkedPatches(every.features[chosen], every.mark[chosen], every.cell[chosen])
        for y, x in patches[mark.id].cell.tolist():
            verdicts[entry.photo.content_sha256, y, x][is_healthy(mark)] = mark.id
    unused = []
    for entry, _, mark in valid:
        marked = patches[mark.id]
        opponents = [
            verdicts[entry.photo.content_sha256, y, x].get(not is_healthy(mark)) for y, x in marked.cell.tolist()
        ]
        keep = np.array([opponent is None for opponent in opponents], np.bool_)
        if not keep.any():
            unused.append(Unused(mark.id, mark.label, f"{opponents[0]} says otherwise of the same place"))
        patches[mark.id] = MarkedPatches(marked.features[keep], marked.mark[keep], marked.cell[keep])
    return patches, unused


def _examples(
    valid: Sequence[Valid], patches: dict[str, MarkedPatches], dimension: int, gpu: int | None
) -> Examples:
    """The patches of these marks, of each photograph no more than `MOST_OF_PHOTO` of either verdict."""
    marks_of: dict[tuple[str, bool], int] = defaultdict(int)
    for entry, _, mark in valid:
        marks_of[entry.photo.content_sha256, is_healthy(mark)] += 1
    records: list[ExampleRecord] = []
    features, record, cells = [], [], []
    for entry, _, mark in valid:
        marked = patches[mark.id]
        if not len(marked.mark):
            continue
        quota = max(MOST_OF_PHOTO // marks_of[entry.photo.content_sha256, is_healthy(mark)], 1)
        away = np.linalg.norm(marked.features - marked.features.mean(axis=0), axis=1)
        kept = spread(marked.features, away, quota)
        features.append(marked.features[kept])
        record.append(np.full(len(kept), len(records), np.int32))
        cells.append(marked.cell[kept])
        records.append(ExampleRecord(mark.id, entry.photo.id, entry.photo.content_sha256, mark.label, len(kept)))
    if not records:
        return no_examples(dimension, gpu)
    return Examples(tuple(records), np.concatenate(features), np.concatenate(record), np.concatenate(cells), gpu)


def _changes(loaded: LoadedIndex, after: Examples) -> tuple[MarkedChange, ...]:
    """Of each mark the largest distance to healthy patches before and after, and doubts about it."""
    bank, before = loaded.detector.bank, loaded.examples
    k = loaded.manifest.config.search.neighbors
    rows = [np.flatnonzero(after.record == number) for number in range(len(after.records))]
    if not rows:
        return ()
    away: NDArray[np.float32] = bank.search(after.features, k).distances.mean(axis=1)
    was, becomes = (examples.quieted(after.features, None, away) for examples in (before, after))
    quantiles = loaded.manifest.calibration.patches
    at, values = zip(*((quantile.at, quantile.value) for quantile in quantiles), strict=True)
    usual = float(np.interp(_USUAL, at, values))
    return tuple(
        MarkedChange(
            record.id,
            record.label,
            float(was[row].max()),
            float(becomes[row].max()),
            _doubt(after, number, row, was[row], usual),
        )
        for number, (record, row) in enumerate(zip(after.records, rows, strict=True))
    )


def _doubt(
    examples: Examples,
    number: int,
    rows: NDArray[np.intp],
    was: NDArray[np.float32],
    usual: float,
) -> str:
    """Why a mark may be wrong, seen from what lies around it; empty if nothing speaks against it."""
    record = examples.records[number]
    if record.label not in HEALTHY_LABELS:
        if was.max() <= usual:
            return f"looks healthy: {_USUAL:.0%} of healthy patches lie below {usual:.3g}, it at {was.max():.3g}"
        return ""
    lesions = [
        row
        for row, lesion in enumerate(examples.records)
        if lesion.label not in HEALTHY_LABELS and lesion.content_sha256 != record.content_sha256
    ]
    candidates = np.flatnonzero(np.isin(examples.record, lesions))
    if not candidates.size:
        return ""
    away = np.linalg.norm(examples.features[candidates] - examples.features[rows[was.argmax()]], axis=1)
    if away.min() >= was.max():
        return ""
    kind = examples.records[int(examples.record[candidates[away.argmin()]])].label
    return f"nearer to {kind} ({away.min():.3g}) than to anything healthy ({was.max():.3g})"


def write_taught(
    source: SourceVersion,
    examples: Examples,
    squares: dict[str, Path],
    operation: str,
    scratch: Path,
    *,
    live: bool,
) -> NewVersion:
    """Write a version that differs from its source by its examples alone.

    Args:
        squares: prepared squares that the source does not have: name in the version -> path.
        scratch: a folder on the same disk.
    """
    before, loaded = source.manifest, source.loaded
    staging = scratch / "version"
    staging.mkdir()
    stale = {file_name(name) for name in loaded.examples.photo_ids() - examples.photo_ids()}
    names = {
        file.name
        for file in before.files
        if file.name not in stale and file.name not in (EXAMPLES_FILE, EXAMPLE_RECORDS_FILE)
    }
    link_files({name: source.folder / name for name in names}, staging)
    link_files({name: path for name, path in squares.items() if name not in names}, staging)
    if examples.records:
        examples.save(staging)
    detector = Detector(loaded.detector.encoder, loaded.detector.bank, examples)
    manifest = replace(
        before,
        version=index.new_version(),
        history=(*before.history, history_entry(operation, before.version)),
        calibrated=worst_standing([before.calibrated, "bound" if examples.variants else "measured"]),
        probe_score=score_probe(detector, staging),
        device=str(loaded.detector.encoder.device),
        packages=runtime.packages(),
    )
    shared = {file.name: file for file in before.files if file.name in names}
    version, after = publish(
        staging, source.folder.parent, lambda files: replace(manifest, files=files), live=live, shared_files=shared
    )
    return NewVersion(version, before, after, 0, 0)
