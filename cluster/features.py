"""Listed photographs -> features on the workers, and what can be asked of them: the remote twin of the store."""

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cluster.crew import Ask, Crew, Member
from cluster.dealing import deal
from cluster.messages import Chosen, Made
from cluster.pieces import Piece
from indexer.build.references import Reference, Screen
from indexer.photos.listing import Duplicate, ReferencePhoto, Skipped
from resad.encoder import PatchFeatures
from resad.errors import PhotoUnreadable, SettingError


class ClusterFeatures:
    """The features of all reference photographs, each with the worker that made them.

    A worker that is lost takes its pieces along; they are made again, by whoever is free, when they are asked for.

    Args:
        pieces: together all listed photographs.
        strict: refuse instead of skipping photographs.
        look_up: what becomes of a photograph by what is known of it beforehand, as for `take_in`.
    """

    def __init__(self, crew: Crew, pieces: Sequence[Piece], *, strict: bool, look_up: Screen) -> None:
        self.crew = crew
        self.pieces = pieces
        self.homes: dict[int, Member] = {}
        self.references: list[Reference] = []
        self.left_aside: list[Skipped | Duplicate] = []
        self.grid = (0, 0)
        self.dimension = 0
        self._made: dict[int, Made] = {}
        self._chosen: list[Chosen] = []
        self._patches: list[int] = []
        self._first_photos: list[int] = []
        self._strict, self._look_up = strict, look_up

    def extract(self, advance: Callable[[int], None], on_made: Callable[[Made], None] = lambda _: None) -> None:
        """Have everything made that no worker has.

        Args:
            advance: told the photographs of each piece that is made, less those of one that is lost.
            on_made: told of each piece that is made for the first time.
        Raises:
            PhotoError: with `strict`, for a photograph that cannot be used.
            SettingError: a photograph cannot be seen from a worker, or comes out differently on another one.
        """

        def on_lost(member: Member, given: Sequence[int]) -> Collection[int]:
            gone = self._forget(member)
            advance(-sum(len(self.pieces[number].photos) for number in gone))
            return [*gone, *given]

        for answer in deal(self.crew, self._missing(), "extract", lambda one: (self.pieces[one],), on_lost):
            if answer.key not in self._made:
                on_made(answer.value)
            self._keep(answer.key, answer.value, answer.member)
            advance(len(self.pieces[answer.key].photos))

    def settle(self) -> None:
        """Number the photographs that are taken, in the order of the list, once everything is made."""
        seen: dict[str, ReferencePhoto] = {}
        asides: list[Skipped | Duplicate] = []
        for piece in self.pieces:
            made = self._made[piece.number]
            chosen = []
            for number, reference in enumerate(made.references):
                aside = self._look_up(reference.source, reference.content_sha256)
                first = seen.setdefault(reference.content_sha256, reference.source)
                if aside is None and first is not reference.source:
                    aside = Duplicate(reference.source.path, first.path)
                if aside is not None:
                    asides.append(aside)
                    continue
                chosen.append(number)
                self._patches.append(made.stored[number].patches)
                self.references.append(reference)
                self.grid, self.dimension = made.stored[number].grid, made.dimension
            asides += made.left_aside
            self._first_photos.append(len(self._patches) - len(chosen))
            self._chosen.append(Chosen(piece.number, tuple(chosen)))
        self.left_aside = self._in_order(asides)

    def each(
        self, method: str, arguments: Callable[[int], tuple[Any, ...]], pieces: Iterable[int] | None = None
    ) -> Iterator[tuple[int, Any]]:
        """Ask the worker that has it about each piece; the answers as they come.  What is lost is made again."""
        asked = {*(range(len(self.pieces)) if pieces is None else pieces)}
        while asked:
            self.again()
            for answer in self.crew.ask(
                Ask(self.homes[one], one, method, arguments(one)) for one in sorted(asked)
            ):
                if answer.lost:
                    self._forget(answer.member)
                else:
                    asked.remove(answer.key)
                    yield answer.key, answer.value

    def again(self) -> None:
        """Have made again what was lost."""
        while True:
            self.homes = {one: member for one, member in self.homes.items() if member in self.crew.members}
            if not self._missing():
                return
            self.extract(lambda _: None)

    def chosen(self, piece: int) -> Chosen:
        """The photographs that are taken of a piece."""
        return self._chosen[piece]

    def photos(self, piece: int) -> range:
        """Their numbers among all that are taken."""
        first = self._first_photos[piece]
        return range(first, first + len(self._chosen[piece].photos))

    def first_few(self, count: int) -> list[PatchFeatures]:
        """The features of the first so many photographs."""
        found: list[PatchFeatures] = []
        for piece in range(len(self.pieces)):
            wanted = self._chosen[piece].photos[: count - len(found)]
            if wanted:
                some = replace(self._chosen[piece], photos=wanted)
                for _, features in self.each("features", lambda _, some=some: (some,), [piece]):  # type: ignore[misc]
                    found += features
        return found

    @property
    def first_rows(self) -> NDArray[np.int64]:
        """As `FeatureStore.first_rows`."""
        return np.cumsum([0, *self._patches], dtype=np.int64)

    @property
    def piece_rows(self) -> NDArray[np.int64]:
        """int64 (pieces + 1,): the row at which each piece begins; the last entry is the number of rows."""
        return self.first_rows[[*self._first_photos, len(self._patches)]]

    def locate(self, rows: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """As `FeatureStore.locate`."""
        photos = np.searchsorted(self.first_rows, rows, side="right") - 1
        return photos, rows - self.first_rows[photos]

    def gather(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """As `FeatureStore.gather`."""
        return self._gathered(rows)[0]

    def cells(self, rows: NDArray[np.int64]) -> NDArray[np.int16]:
        """As `FeatureStore.cells`."""
        return self._gathered(rows)[1]

    def _gathered(self, rows: NDArray[np.int64]) -> tuple[NDArray[np.float32], NDArray[np.int16]]:
        borders = self.piece_rows
        where = np.searchsorted(borders, rows, side="right") - 1
        features = np.empty((len(rows), self.dimension), dtype=np.float32)
        cells = np.empty((len(rows), 2), dtype=np.int16)
        wanted = np.unique(where).tolist()
        asks = self.each(
            "gather", lambda piece: (self._chosen[piece], rows[where == piece] - borders[piece]), wanted
        )
        for piece, (some_features, some_cells) in asks:
            here = where == piece
            features[here], cells[here] = some_features, some_cells
        return features, cells

    def _keep(self, number: int, made: Made, member: Member) -> None:
        if made.unseen is not None and made.unseen.exists():
            raise SettingError(
                f"{made.unseen} is here, but not for the worker on {member.hello.node}: photographs must lie "
                "where every node of the cluster sees them under the same path"
            )
        skipped = [one for one in made.left_aside if isinstance(one, Skipped)]
        if self._strict and skipped:
            raise PhotoUnreadable(f"{skipped[0].path}: {skipped[0].reason}")
        before = self._made.setdefault(number, made)
        if before.stored != made.stored:
            raise SettingError(
                f"the photographs from {self.pieces[number].photos[0].path} on came out differently on "
                f"{member.hello.node}: the machines of the cluster do not compute alike (processors of one kind "
                "are needed), or a photograph has changed"
            )
        self.homes[number] = member

    def _forget(self, member: Member) -> list[int]:
        gone = [number for number, home in self.homes.items() if home is member]
        for number in gone:
            del self.homes[number]
        return gone

    def _missing(self) -> list[int]:
        return [piece.number for piece in self.pieces if piece.number not in self.homes]

    def _in_order(self, asides: Sequence[Skipped | Duplicate]) -> list[Skipped | Duplicate]:
        """In the order of the list; a duplicate names the photograph that is taken."""
        firsts: dict[Path | str, Path | str] = {
            one.path: one.same_as for one in asides if isinstance(one, Duplicate)
        }
        named: list[Skipped | Duplicate] = [
            Duplicate(one.path, firsts.get(one.same_as, one.same_as)) if isinstance(one, Duplicate) else one
            for one in asides
        ]
        listed = (photo.path for piece in self.pieces for photo in piece.photos)
        place = {path: number for number, path in enumerate(listed)}
        return sorted(named, key=lambda one: place[one.path])
