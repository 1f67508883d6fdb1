"""The features of all reference photographs, on the workers that made them: a remote feature store."""

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cluster.scheduling import Chunk, process_chunks
from cluster.worker import ChunkResult, ChunkSubset
from cluster.worker_pool import Call, Worker, WorkerPool
from indexer.build.references import Reference, Screen
from indexer.photos.listing import Duplicate, ReferencePhoto, Skipped
from resad.encoder import PatchFeatures
from resad.errors import PhotoUnreadable, SettingError


class ClusterFeatures:
    """The features of all reference photographs, each chunk on the worker that made it.

    A lost worker takes its chunks along; the next request for them has them made again by another worker.

    Args:
        chunks: together all listed photographs.
        strict: refuse instead of skipping photographs.
        screen: whether a photograph is refused by its content, as for `load_photos`.
    """

    def __init__(self, pool: WorkerPool, chunks: Sequence[Chunk], *, strict: bool, screen: Screen) -> None:
        self.pool = pool
        self.chunks = chunks
        self.owners: dict[int, Worker] = {}
        self.references: list[Reference] = []
        self.unused: list[Skipped | Duplicate] = []
        self.grid = (0, 0)
        self.dimension = 0
        self._results: dict[int, ChunkResult] = {}
        self._subsets: list[ChunkSubset] = []
        self._patches: list[int] = []
        self._first_photos: list[int] = []
        self._strict, self._screen = strict, screen

    def extract(
        self, advance: Callable[[int], None], on_result: Callable[[ChunkResult], None] = lambda _: None
    ) -> None:
        """Have every chunk made that no worker has.

        Args:
            advance: called with the number of photographs of each chunk made, negative for chunks that are lost.
            on_result: called with each chunk made for the first time.
        Raises:
            PhotoError: with `strict`, for a photograph that cannot be used.
            SettingError: a worker cannot find a photograph, or gets other features than an earlier worker.
        """

        def on_lost(worker: Worker, submitted: Sequence[int]) -> Collection[int]:
            lost = self._disown(worker)
            advance(-sum(len(self.chunks[number].photos) for number in lost))
            return [*lost, *submitted]

        replies = process_chunks(
            self.pool, self._missing(), "extract", lambda number: (self.chunks[number],), on_lost
        )
        for reply in replies:
            if reply.key not in self._results:
                on_result(reply.value)
            self._add(reply.key, reply.value, reply.worker)
            advance(len(self.chunks[reply.key].photos))

    def number_photos(self) -> None:
        """Once every chunk is made: number the photographs that the index uses, in the order of the list."""
        first_sources: dict[str, ReferencePhoto] = {}
        unused: list[Skipped | Duplicate] = []
        for chunk in self.chunks:
            result = self._results[chunk.number]
            numbers = []
            for number, reference in enumerate(result.references):
                refusal = self._screen(reference.source, reference.content_sha256)
                first = first_sources.setdefault(reference.content_sha256, reference.source)
                if refusal is None and first is not reference.source:
                    refusal = Duplicate(reference.source.path, first.path)
                if refusal is not None:
                    unused.append(refusal)
                    continue
                numbers.append(number)
                self._patches.append(reference.facts.patches)
                self.references.append(reference)
                self.grid, self.dimension = reference.facts.grid, result.dimension
            unused += result.unused
            self._first_photos.append(len(self._patches) - len(numbers))
            self._subsets.append(ChunkSubset(chunk.number, tuple(numbers)))
        self.unused = self._in_list_order(unused)

    def call_owners(
        self, method: str, arguments: Callable[[int], tuple[Any, ...]], chunks: Iterable[int] | None = None
    ) -> Iterator[tuple[int, Any]]:
        """Call a method for each chunk on the worker that has it: pairs of chunk and value as they come.

        Chunks of a lost worker are made again first.
        """
        todo = {*(range(len(self.chunks)) if chunks is None else chunks)}
        while todo:
            self.restore()
            for reply in self.pool.call_all(
                Call(self.owners[number], number, method, arguments(number)) for number in sorted(todo)
            ):
                if reply.lost:
                    self._disown(reply.worker)
                else:
                    todo.remove(reply.key)
                    yield reply.key, reply.value

    def restore(self) -> None:
        """Have the chunks of lost workers made again."""
        while True:
            self.owners = {number: worker for number, worker in self.owners.items() if worker in self.pool.workers}
            if not self._missing():
                return
            self.extract(lambda _: None)

    def subset(self, chunk: int) -> ChunkSubset:
        """The photographs of a chunk that the index uses."""
        return self._subsets[chunk]

    def photos(self, chunk: int) -> range:
        """Numbers of a chunk's photographs among all photographs of the index."""
        first = self._first_photos[chunk]
        return range(first, first + len(self._subsets[chunk].photos))

    def first_photos(self, count: int) -> list[PatchFeatures]:
        """The features of the first `count` photographs."""
        features: list[PatchFeatures] = []
        for chunk in range(len(self.chunks)):
            numbers = self._subsets[chunk].photos[: count - len(features)]
            if numbers:
                subset = replace(self._subsets[chunk], photos=numbers)
                for _, values in self.call_owners("features", lambda _, subset=subset: (subset,), [chunk]):  # type: ignore[misc]
                    features += values
        return features

    @property
    def first_rows(self) -> NDArray[np.int64]:
        """The row at which each photograph begins, as `FeatureStore.first_rows`."""
        return np.cumsum([0, *self._patches], dtype=np.int64)

    @property
    def chunk_rows(self) -> NDArray[np.int64]:
        """int64 (chunks + 1,): the row at which each chunk begins; the last entry is the number of rows."""
        return self.first_rows[[*self._first_photos, len(self._patches)]]

    def locate(self, rows: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Photograph and row within it, as `FeatureStore.locate`."""
        photos = np.searchsorted(self.first_rows, rows, side="right") - 1
        return photos, rows - self.first_rows[photos]

    def gather(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Features at these rows, as `FeatureStore.gather`."""
        return self._gather(rows)[0]

    def cells(self, rows: NDArray[np.int64]) -> NDArray[np.int16]:
        """Cells at these rows, as `FeatureStore.cells`."""
        return self._gather(rows)[1]

    def _gather(self, rows: NDArray[np.int64]) -> tuple[NDArray[np.float32], NDArray[np.int16]]:
        borders = self.chunk_rows
        chunk_of_row = np.searchsorted(borders, rows, side="right") - 1
        features = np.empty((len(rows), self.dimension), dtype=np.float32)
        cells = np.empty((len(rows), 2), dtype=np.int16)
        replies = self.call_owners(
            "gather",
            lambda chunk: (self._subsets[chunk], rows[chunk_of_row == chunk] - borders[chunk]),
            np.unique(chunk_of_row).tolist(),
        )
        for chunk, (chunk_features, chunk_cells) in replies:
            mask = chunk_of_row == chunk
            features[mask], cells[mask] = chunk_features, chunk_cells
        return features, cells

    def _add(self, number: int, result: ChunkResult, worker: Worker) -> None:
        if result.missing is not None and result.missing.exists():
            raise SettingError(
                f"{result.missing} is here, but not for the worker on {worker.info.node}: photographs must lie "
                "where every node of the cluster sees them under the same path"
            )
        skipped = [photo for photo in result.unused if isinstance(photo, Skipped)]
        if self._strict and skipped:
            raise PhotoUnreadable(f"{skipped[0].path}: {skipped[0].reason}")
        earlier = self._results.setdefault(number, result)
        if [photo.facts for photo in earlier.references] != [photo.facts for photo in result.references]:
            raise SettingError(
                f"the photographs from {self.chunks[number].photos[0].path} on came out differently on "
                f"{worker.info.node}: the machines of the cluster do not compute alike (they need processors of "
                "one kind), or a photograph has changed"
            )
        self.owners[number] = worker

    def _disown(self, worker: Worker) -> list[int]:
        lost = [number for number, owner in self.owners.items() if owner is worker]
        for number in lost:
            del self.owners[number]
        return lost

    def _missing(self) -> list[int]:
        return [chunk.number for chunk in self.chunks if chunk.number not in self.owners]

    def _in_list_order(self, unused: Sequence[Skipped | Duplicate]) -> list[Skipped | Duplicate]:
        """Sorted as the list; each duplicate refers to the photograph that the index uses."""
        originals: dict[Path | str, Path | str] = {
            photo.path: photo.same_as for photo in unused if isinstance(photo, Duplicate)
        }
        resolved: list[Skipped | Duplicate] = [
            Duplicate(photo.path, originals.get(photo.same_as, photo.same_as))
            if isinstance(photo, Duplicate)
            else photo
            for photo in unused
        ]
        paths = (photo.path for chunk in self.chunks for photo in chunk.photos)
        place = {path: number for number, path in enumerate(paths)}
        return sorted(resolved, key=lambda photo: place[photo.path])
