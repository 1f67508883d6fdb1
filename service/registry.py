"""The indexes that are served, by name, and which one answers."""

from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from resad import index as index_store
from resad.loaded_index import LoadedIndex
from resad.manifest import Manifest
from service import problems
from service.problems import NOT_READY, Refusal


@dataclass(frozen=True, slots=True, eq=False)
class Served:
    """An index.  live: what answers, if anything yet.  fault: why what CURRENT names does not.

    at_rest: the version that is loaded when somebody asks for it, where there is no place for all.
    damaged: whether it was asked for and could not be loaded.
    """

    name: str
    live: LoadedIndex | None = None
    fault: str | None = None
    at_rest: Manifest | None = None
    damaged: bool = False

    @property
    def answers(self) -> bool:
        """At once, or as soon as it is loaded."""
        return self.live is not None or (self.at_rest is not None and not self.damaged)

    @property
    def manifest(self) -> Manifest | None:
        """Of the version that answers, in memory or not."""
        return self.live.manifest if self.live else self.at_rest


class Registry:
    """What is served; reading is safe from any thread, as the mapping is replaced and never changed.

    Args:
        root: holds the indexes.
        default: the name that answers where none is given; None for the only one.
    """

    def __init__(self, root: Path, *, default: str | None) -> None:
        self.root = root
        self.served: MappingProxyType[str, Served] = MappingProxyType({})
        self.looked = False
        """Whether every index was looked at once."""
        self._default = default

    def put(self, entry: Served) -> None:
        """From now on `entry` is what is served under its name; called by `Succession` alone."""
        self.served = MappingProxyType(dict(sorted({**self.served, entry.name: entry}.items())))

    def drop(self, name: str) -> None:
        """Serve it no more; requests that are with the index already finish."""
        self.served = MappingProxyType({other: entry for other, entry in self.served.items() if other != name})

    def not_ready(self) -> str | None:
        """Why not every index answers; None when they all do."""
        if not self.looked:
            return "the indexes are being loaded"
        faults = [f"{one.name}: {one.fault or 'loading'}" for one in self.served.values() if one.manifest is None]
        return "; ".join(faults) or (None if self.served else "there is no index under the root")

    def answering(self, name: str | None) -> str:
        """The name of the index that answers, in memory or not.

        Raises `Refusal` (404, 422 or 503) where none does.
        """
        served = self.get(self._default_name() if name is None else name)
        if not served.answers:
            raise _not_there(served)
        return served.name

    def find(self, name: str) -> LoadedIndex:
        """The index that is in memory; raises `Refusal` (404 or 503) where it is not."""
        served = self.get(name)
        if served.live is None:
            raise _not_there(served)
        return served.live

    def get(self, name: str) -> Served:
        """The entry of `name`; raises `Refusal` (404, or 503 before anything was looked at)."""
        found = self.served.get(name)
        if found is None and not self.looked:
            raise Refusal(NOT_READY, "the indexes are being loaded", {"Retry-After": "5"})
        if found is None:
            there = ", ".join(self.served) or "none"
            raise Refusal(problems.UNKNOWN_INDEX, f"no index {name!r}; there is: {there}")
        return found

    @property
    def default(self) -> str | None:
        """Which index answers where none is named, if that is clear."""
        return self._default or (next(iter(self.served)) if len(self.served) == 1 else None)

    def _default_name(self) -> str:
        if self.default is not None:
            return self.default
        if not self.served:
            raise Refusal(NOT_READY, self.not_ready() or "loading", {"Retry-After": "5"})
        names = ", ".join(self.served)
        raise Refusal(problems.INDEX_NOT_NAMED, f"several are served: add index=NAME, one of {names}")

    def versions(self, name: str) -> tuple[str, ...]:
        """The versions of `name` on the disk, oldest first; raises as `get`."""
        return tuple(index_store.versions(self.root / self.get(name).name))


def _not_there(served: Served) -> Refusal:
    return Refusal(NOT_READY, f"{served.name}: {served.fault or 'loading'}", {"Retry-After": "5"})
