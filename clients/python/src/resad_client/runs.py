"""A run over photographs: which are still to be scored, what is written about them, and what came of it all."""

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final, Literal, TypeAlias

from resad_client.batch import Job, Order
from resad_client.errors import SettingError
from resad_client.photos import Source
from resad_client.places import unique_places
from resad_client.protocol import MapKind, PictureKind
from resad_client.run_tables import RunTables, journal_path, refuse_existing
from resad_client.score_journal import ScoreJournal, stamp_of

SUFFIXES: Final[dict[PictureKind, str]] = {"png": ".png", "jpeg": ".jpg"}
OVERLAY_KINDS: Final[dict[PictureKind, MapKind]] = {"png": "overlay", "jpeg": "overlay-jpeg"}

Existing: TypeAlias = Literal["refuse", "resume", "overwrite"]
"""What becomes of files that are there: an error, a run to go on with, or replaced."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which files are to be written: tables of the run, and folders for files of each photograph.

    suffix: of overlays.
    """

    tables: RunTables = RunTables()
    json: Path | None = None
    geojson: Path | None = None
    overlays: Path | None = None
    suffix: str = ".png"

    @property
    def folders(self) -> tuple[Path | None, ...]:
        """Of all kinds."""
        return self.json, self.geojson, self.overlays

    def job(self, source: Source, place: str) -> Job:
        """What is to be done about a photograph."""
        return Job(
            source,
            place,
            json=self.json / f"{place}.json" if self.json else None,
            overlay=self.overlays / f"{place}_overlay{self.suffix}" if self.overlays else None,
            geojson=self.geojson / f"{place}.geojson" if self.geojson else None,
        )


@contextmanager
def opened(wanted: Wanted, order: Order, existing: Existing) -> Iterator[ScoreJournal | None]:
    """The journal of a run, held while it goes on; None where nothing is written.

    Raises `SettingError` where the run's files are there and must not be replaced, or there is no such run.
    """
    path = journal_path(wanted.tables, wanted.folders)
    if path is None:
        if existing == "resume":
            raise SettingError("--resume goes on with files that were written: name them, as in --csv out.csv")
        yield None
        return
    going_on = existing == "resume" and path.is_file()
    if existing != "overwrite" and not going_on:
        refuse_existing((*wanted.tables.paths, path))
    with ScoreJournal(path, _deciding(wanted, order), resume=going_on) as journal:
        yield journal


def plan(
    found: Sequence[Source],
    wanted: Wanted,
    journal: ScoreJournal | None,
    existing: Existing,
    *,
    taken: Collection[str] = (),
) -> tuple[Job, ...]:
    """What is left to do; raises `SettingError` where a file would replace a photograph, or one that is there.

    Args:
        taken: places that no photograph's files may go to.
    """
    known = journal.places if journal else {}
    fresh = [source.label for source in found if source.label not in known]
    places = known | dict(zip(fresh, unique_places(fresh, [*known.values(), *taken]), strict=True))
    jobs = tuple(
        wanted.job(source, places[source.label])
        for source in found
        if journal is None or not journal.done(source.label, stamp_of(source.path))
    )
    _keep_photos(found, [file for job in jobs for file in job.files])
    if existing != "overwrite":
        # What a killed run has left without a line in its journal is younger than the run.
        begun = journal.begun_ns if journal and journal.resumed else None
        refuse_existing((file for job in jobs if job.source.label not in known for file in job.files), begun)
    return jobs


def _keep_photos(found: Sequence[Source], outputs: Sequence[Path]) -> None:
    photos = {source.path.resolve() for source in found}
    for output in outputs:
        if output.resolve() in photos:
            raise SettingError(
                f"{output} is a photograph to be scored and would be overwritten: name another place"
            )


def _deciding(wanted: Wanted, order: Order) -> dict[str, object]:
    """What two runs must have in common for one to go on with the other."""
    kinds = ("json", "geojson", "overlays")
    return asdict(order.query) | {
        "overlay": order.overlay if wanted.overlays else None,
        "size": order.size if wanted.overlays else None,
        "layout": order.layout if wanted.overlays else None,
        "files": [kind for kind, folder in zip(kinds, wanted.folders, strict=True) if folder],
    }
