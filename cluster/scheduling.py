"""Chunks of work, and their distribution to workers as they become free."""

from collections import defaultdict, deque
from collections.abc import Callable, Collection, Generator, Iterable, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any, Final

from cluster.worker_pool import Call, Reply, Worker, WorkerPool
from indexer.photos.listing import ReferencePhoto

_CHUNKS_PER_WORKER: Final = 16
"""The last worker to finish keeps the others waiting for at most one chunk."""
_LARGEST_CHUNK: Final = 64
"""Photographs."""
_IN_FLIGHT: Final = 2
"""Chunks submitted to a worker: one in work, one waiting."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """Photographs that a worker encodes together.  number: in the order of the list."""

    number: int
    photos: tuple[ReferencePhoto, ...]


def split(photos: Sequence[ReferencePhoto], workers: int, batch: int) -> list[Chunk]:
    """The list in chunks of whole batches, so that a photograph is encoded in the same batch as on one machine.

    On a GPU that holds as long as no photograph is left out; a CPU encodes one at a time.
    """
    fair = min(ceil(len(photos) / (workers * _CHUNKS_PER_WORKER)), _LARGEST_CHUNK)
    size = ceil(fair / batch) * batch
    starts = range(0, len(photos), size)
    return [Chunk(number, tuple(photos[start : start + size])) for number, start in enumerate(starts)]


class ChunkQueue:
    """Hands out chunks so that a worker gets neighbors: first its own stretch, then the end of the longest one.

    Args:
        chunks: their numbers, ascending.
        workers: expected number of workers.
    """

    def __init__(self, chunks: Sequence[int], workers: int) -> None:
        size = ceil(len(chunks) / max(workers, 1)) or 1
        self._stretches = [deque(chunks[start : start + size]) for start in range(0, len(chunks), size)]
        self._assigned: dict[int, deque[int]] = {}

    def next(self, worker: int) -> int | None:
        """The next chunk for this worker; None where no chunk is left."""
        stretch = self._assigned.get(worker)
        if not stretch and (free := self._unassigned()) is not None:
            stretch = self._assigned[worker] = free
        if stretch:
            return stretch.popleft()
        longest = max(self._stretches, key=len, default=None)
        return longest.pop() if longest else None

    def put_back(self, chunks: Iterable[int], worker: int) -> None:
        """Take back these chunks of a lost worker."""
        self._assigned.pop(worker, None)
        self._stretches = [stretch for stretch in self._stretches if stretch]
        returned = deque(sorted(chunks))
        if returned:
            self._stretches.append(returned)

    def _unassigned(self) -> deque[int] | None:
        assigned = {id(stretch) for stretch in self._assigned.values()}
        return next((stretch for stretch in self._stretches if stretch and id(stretch) not in assigned), None)


def process_chunks(
    pool: WorkerPool,
    chunks: Sequence[int],
    method: str,
    arguments: Callable[[int], tuple[Any, ...]],
    on_lost: Callable[[Worker, Sequence[int]], Collection[int]],
) -> Generator[Reply[int], None, None]:
    """Call `method` for every chunk on workers as they become free; the replies as they come.

    Args:
        on_lost: called with a lost worker and its submitted chunks, the one in work first; returns the chunks to
            process (returned).
    """
    queue, todo = ChunkQueue(chunks, pool.count), {*chunks}
    pending: dict[Any, Call[int]] = {}
    while todo:
        _submit(pool, queue, pending, method, arguments)
        for completed in pool.wait(pending):
            if completed not in pending:  # an earlier call of this loop found its worker lost
                continue
            call = pending[completed]
            reply = pool.reply(call, completed)
            if not reply.lost:
                del pending[completed]
                todo.discard(call.key)
                yield reply
                continue
            calls = [key for key, submitted in pending.items() if submitted.worker is call.worker]
            submitted_chunks = [pending.pop(key).key for key in calls]
            todo.difference_update(submitted_chunks)
            returned = on_lost(call.worker, submitted_chunks)
            todo.update(returned)
            queue.put_back(returned, call.worker.number)


def _submit(
    pool: WorkerPool,
    queue: ChunkQueue,
    pending: dict[Any, Call[int]],
    method: str,
    arguments: Callable[[int], tuple[Any, ...]],
) -> None:
    load: dict[int, int] = defaultdict(int)
    for call in pending.values():
        load[call.worker.number] += 1
    for worker in pool.workers:
        while load[worker.number] < _IN_FLIGHT and (number := queue.next(worker.number)) is not None:
            call = Call(worker, number, method, arguments(number))
            pending[pool.submit(call)] = call
            load[worker.number] += 1
