"""The served indexes by name, and which of them answers a request."""

from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from resad import index as index_store
from resad.loaded_index import LoadedIndex
from resad.manifest import Manifest
from service import problems
from service.problems import NOT_READY, Refusal

_RETRY: dict[str, str] = {"Retry-After": "5"}


@dataclass(frozen=True, slots=True, eq=False)
class IndexEntry:
    """One served index.

    live: the version in memory, if any.  fault: why the version that CURRENT names does not answer.
    resting: manifest of a version that is loaded at the next request, when not all indexes fit into memory.
    damaged: whether loading the resting version failed.
    """

    name: str
    live: LoadedIndex | None = None
    fault: str | None = None
    resting: Manifest | None = None
    damaged: bool = False

    @property
    def answers(self) -> bool:
        """Whether requests are answered, at once or after loading."""
        return self.live is not None or (self.resting is not None and not self.damaged)

    @property
    def manifest(self) -> Manifest | None:
        """Manifest of the version that answers, in memory or not."""
        return self.live.manifest if self.live else self.resting


class Registry:
    """The served indexes.  Safe to read on any thread: the mapping is replaced, never changed.

    Args:
        root: folder of the indexes.
        default: name of the index for requests that name none; None for the only index.
    """

    def __init__(self, root: Path, *, default: str | None) -> None:
        self.root = root
        self.entries: MappingProxyType[str, IndexEntry] = MappingProxyType({})
        self.scanned = False
        """Whether the root has been scanned once."""
        self._default = default

    def put(self, entry: IndexEntry) -> None:
        """Set the entry of an index; called by `IndexReloader` only."""
        self.entries = MappingProxyType(dict(sorted({**self.entries, entry.name: entry}.items())))

    def drop(self, name: str) -> None:
        """Remove an index; requests that use it already finish."""
        self.entries = MappingProxyType({key: entry for key, entry in self.entries.items() if key != name})

    def not_ready(self) -> str | None:
        """Why not every index answers; None if all do."""
        if not self.scanned:
            return "the indexes are being loaded"
        faults = [
            f"{entry.name}: {entry.fault or 'loading'}"
            for entry in self.entries.values()
            if entry.manifest is None
        ]
        return "; ".join(faults) or (None if self.entries else "there is no index under the root")

    def resolve(self, name: str | None) -> str:
        """The name of the index that answers a request for `name`; raises `Refusal` (404, 422 or 503)."""
        entry = self.get(self._default_name() if name is None else name)
        if not entry.answers:
            raise _not_ready(entry)
        return entry.name

    def find(self, name: str) -> LoadedIndex:
        """The index in memory; raises `Refusal` (404 or 503) if it is not there."""
        entry = self.get(name)
        if entry.live is None:
            raise _not_ready(entry)
        return entry.live

    def get(self, name: str) -> IndexEntry:
        """The entry of `name`; raises `Refusal` (404, or 503 before the first scan)."""
        entry = self.entries.get(name)
        if entry is None and not self.scanned:
            raise Refusal(NOT_READY, "the indexes are being loaded", _RETRY)
        if entry is None:
            names = ", ".join(self.entries) or "none"
            raise Refusal(problems.UNKNOWN_INDEX, f"no index {name!r}; there is: {names}")
        return entry

    @property
    def default(self) -> str | None:
        """Name of the index for requests that name none, if there is one."""
        return self._default or (next(iter(self.entries)) if len(self.entries) == 1 else None)

    def _default_name(self) -> str:
        if self.default is not None:
            return self.default
        if not self.entries:
            raise Refusal(NOT_READY, self.not_ready() or "loading", _RETRY)
        names = ", ".join(self.entries)
        raise Refusal(problems.INDEX_NOT_NAMED, f"several are served: add index=NAME, one of {names}")

    def versions(self, name: str) -> tuple[str, ...]:
        """The versions of `name` on disk, oldest first; raises as `get`."""
        return tuple(index_store.versions(self.root / self.get(name).name))


def _not_ready(entry: IndexEntry) -> Refusal:
    return Refusal(NOT_READY, f"{entry.name}: {entry.fault or 'loading'}", _RETRY)
