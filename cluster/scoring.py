"""Photographs -> a table of scores, over a cluster: rows as they come, and no photograph can end the run."""

from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Final

from cluster.scheduling import process_chunks
from cluster.score_rows import Row, Rows, named
from cluster.scorer import Scorer, ScoreTask, unscored
from cluster.worker_pool import PoolOptions, Worker, WorkerPool
from indexer.photos.listing import list_photos
from resad import index
from resad.calibration import DecisionRule
from resad.config import PhotoLimits
from resad.errors import SettingError

TABLE: Final = "scores.csv"
_A_PIECE: Final = 16
"""Photographs that are given out together."""
_TRIES: Final = 2
"""PoolOptions that a single photograph may take along, until it is the photograph."""


def listed(sources: Sequence[Path]) -> list[Path]:
    """The photographs of all `sources`, each once; raises as `list_photos`."""
    found = (photo.path.absolute() for source in sources for photo in list_photos(source))
    return list(dict.fromkeys(found))


def score_on(
    workers: PoolOptions,
    version: Path,
    photos: Sequence[Path],
    out: Path,
    *,
    device: str,
    rule: DecisionRule,
    require_quality: bool = False,
    on_rows: Callable[[Sequence[Row]], None] = lambda _: None,
) -> dict[str, Row]:
    """Score what OUT/scores.csv does not have yet; the rows of all `photos`.

    Args:
        version: ROOT/NAME or ROOT/NAME/VERSION, as every node sees it.
        photos: one or more, as `listed` gives them.
        device: its kind, on the workers.
        on_rows: told of rows as they are written.
    Raises:
        SettingError: a table of another version or rule.
    """
    version = index.resolve(version).absolute()
    asked = unscored(photos[0], version.name, rule)()
    with Rows(out / TABLE, (asked.version, asked.fpr, asked.limit)) as rows:
        todo = [photo for photo in photos if not rows.done(photo)]
        task = ScoreTask(version, device, workers.size.cpus, rule, require_quality, PhotoLimits())
        if todo:
            count = min(workers.count, -(-len(todo) // _A_PIECE))
            # Whoever is lost has a suspect photograph, and each of them may take a few along.
            losses = 3 * count + 2 * _TRIES * len(todo)
            with WorkerPool(workers.cluster, Scorer, task, workers.size, count, losses) as pool:
                for new in _scored(pool, todo, version.name, rule):
                    rows.add(new)
                    on_rows(new)
        return {named(photo): rows.known[named(photo)] for photo in photos}


def _scored(pool: WorkerPool, photos: Sequence[Path], version: str, rule: DecisionRule) -> Iterator[list[Row]]:
    """Piece by piece; those that a worker was lost with one by one, so that one of them is found."""
    pieces = [tuple(photos[start : start + _A_PIECE]) for start in range(0, len(photos), _A_PIECE)]
    for tried in range(_TRIES + 1):
        suspects: list[tuple[Path, ...]] = []

        def on_lost(
            member: Worker,
            given: Sequence[int],
            pieces: Sequence[tuple[Path, ...]] = pieces,
            suspects: list[tuple[Path, ...]] = suspects,
        ) -> Collection[int]:
            suspects += [(photo,) for photo in pieces[given[0]]]
            return given[1:]

        asks = process_chunks(
            pool, range(len(pieces)), "score", lambda one, pieces=pieces: (pieces[one],), on_lost
        )  # type: ignore[misc]
        for answer in asks:
            yield answer.value
        pieces = suspects
        if tried == _TRIES and pieces:
            fault = "the worker that scored it was lost, each time"
            yield [unscored(photo, version, rule)(fault=fault) for (photo,) in pieces]


def check_scorable(rows: dict[str, Row]) -> None:
    """Raise `SettingError` where photographs could not be scored, saying how many."""
    failed = sum(bool(row.fault) for row in rows.values())
    if failed:
        raise SettingError(f"{failed} of {len(rows)} photographs could not be scored")
