"""A run of `resad-indexer score`: which photographs are still to be scored, and what is written about them."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final, Literal

from indexer.photos import ReferencePhoto, list_photos
from indexer.places import unique_labels, unique_places
from indexer.remote import placed
from indexer.run_tables import RunTables, journal_path, refuse_existing
from indexer.score_jobs import Job, Order
from indexer.score_journal import ScoreJournal, stamp_of
from resad.errors import SettingError
from resad.manifest import Manifest

_SUFFIXES: Final = {"png": ".png", "jpeg": ".jpg", "tiff": ".tif"}

Existing = Literal["refuse", "resume", "overwrite"]
"""What becomes of files that are there: an error, a run to go on with, or replaced."""


@dataclass(frozen=True, slots=True)
class Listed:
    """A photograph to score, and what it is called: its path below the folder that was asked for."""

    photo: ReferencePhoto
    label: str


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which files are to be written: tables of the run, and folders for files of each photograph.

    strips: pictures of evidence, where the index keeps what they are made of.
    """

    tables: RunTables = RunTables()
    json: Path | None = None
    maps: Path | None = None
    overlays: Path | None = None
    geojson: Path | None = None
    strips: Path | None = None

    @property
    def folders(self) -> tuple[Path | None, ...]:
        """Of all kinds."""
        return self.json, self.maps, self.overlays, self.geojson, self.strips

    def job(self, one: Listed, place: str, order: Order) -> Job:
        """What is to be done about a photograph."""
        return Job(
            one.photo.path,
            one.label,
            place,
            one.photo.eye,
            json=self.json / f"{place}.json" if self.json else None,
            map=self.maps / f"{place}_map{_SUFFIXES[order.map_kind]}" if self.maps else None,
            overlay=self.overlays / f"{place}_overlay{_SUFFIXES[order.overlay_kind]}" if self.overlays else None,
            geojson=self.geojson / f"{place}.geojson" if self.geojson else None,
            strips=self.strips / f"{place}_evidence.jpg" if self.strips else None,
        )


def list_labeled(sources: Sequence[Path]) -> list[Listed]:
    """The photographs of all `sources` (files, folders, CSVs), each once; raises as `list_photos`."""
    found: dict[str, tuple[ReferencePhoto, str]] = {}
    for source in map(placed, sources):
        is_folder = source.is_dir()
        folder = source if is_folder else source.parent
        for photo in list_photos(source):
            below = is_folder or (source != photo.path and photo.path.is_relative_to(folder))
            short = photo.path.relative_to(folder).as_posix() if below else photo.path.name
            # abspath and not resolve: two links to one file are two photographs.
            found.setdefault(os.path.abspath(photo.path), (photo, short))  # noqa: PTH100
    once = list(found.values())
    labels = unique_labels([short for _, short in once], [photo.path for photo, _ in once])
    return [Listed(photo, label) for (photo, _), label in zip(once, labels, strict=True)]


@contextmanager
def opened(wanted: Wanted, order: Order, manifest: Manifest, existing: Existing) -> Iterator[ScoreJournal]:
    """The journal of a run, held while it goes on.

    Raises `SettingError` where the run's files are there and must not be replaced, or nothing is to be written.
    """
    path = journal_path(wanted.tables, wanted.folders)
    if path is None:
        raise SettingError("nothing would be written: give --out FOLDER, or --csv FILE")
    going_on = existing == "resume" and path.is_file()
    if existing != "overwrite" and not going_on:
        refuse_existing((*wanted.tables.paths, path))
    with ScoreJournal(path, _deciding(wanted, order, manifest), resume=going_on) as journal:
        yield journal


def plan(
    found: Sequence[Listed], wanted: Wanted, order: Order, journal: ScoreJournal, existing: Existing
) -> tuple[Job, ...]:
    """What is left to do; raises `SettingError` where a file would replace a photograph, or one that is there."""
    known = journal.places
    fresh = [one.label for one in found if one.label not in known]
    places = known | dict(zip(fresh, unique_places(fresh, known.values()), strict=True))
    jobs = tuple(
        wanted.job(one, places[one.label], order)
        for one in found
        if not journal.done(one.label, stamp_of(one.photo.path))
    )
    _keep_photos(found, [file for job in jobs for file in job.files])
    if existing != "overwrite":
        # What a killed run has left without a line in its journal is younger than the run.
        begun = journal.begun_ns if journal.resumed else None
        refuse_existing((file for job in jobs if job.label not in known for file in job.files), begun)
    return jobs


def _keep_photos(found: Sequence[Listed], outputs: Sequence[Path]) -> None:
    inputs = {one.photo.path.resolve() for one in found}
    for output in outputs:
        if output.resolve() in inputs:
            raise SettingError(
                f"{output} is a photograph to be scored and would be overwritten; give another --out"
            )


def _deciding(wanted: Wanted, order: Order, manifest: Manifest) -> dict[str, object]:
    """What two runs must have in common for one to go on with the other."""
    kinds = ("json", "maps", "overlays", "geojson", "strips")
    return {
        "index": f"{manifest.name}/{manifest.version}",
        **asdict(order.rule),
        "evidence": order.evidence,
        "eye": order.eye,
        "require_quality": order.require_quality,
        "overlays": [order.layout, order.overlay_kind] if wanted.overlays else None,
        "maps": order.map_kind if wanted.maps else None,
        "files": [kind for kind, folder in zip(kinds, wanted.folders, strict=True) if folder],
    }
