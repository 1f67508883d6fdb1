"""The indexes under the root, by name: CURRENT is watched, and a new version replaces the old when it is ready.

A version is loaded and its probe photograph scored beside the one that serves; a broken one changes nothing but
the reason that is shown.
"""

import errno
import logging
import threading
import time
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Final

import torch

from resad import index as index_store
from resad.errors import IndexInvalid, ResadError
from resad.loaded_index import LoadedIndex
from service import problems
from service.loading import Pointer, load_verified, read_pointer
from service.problems import NOT_READY, Refusal
from service.worker import Worker

_log: Final = logging.getLogger(__name__)
_RETRY_S: Final = 30.0
"""After which a version that failed is tried again: its files may still have been on their way."""


@dataclass(frozen=True, slots=True, eq=False)
class Served:
    """An index.  live: what answers, if anything yet.  fault: why what CURRENT names does not."""

    name: str
    live: LoadedIndex | None = None
    fault: str | None = None


class Registry:
    """What is served; reading is safe from any thread, as the mapping is replaced and never changed.

    Args:
        root: holds the indexes.
        default: the name that answers where none is given; None for the only one.
        poll_s: seconds between looks at CURRENT.
    """

    def __init__(
        self, root: Path, device: torch.device, worker: Worker, *, default: str | None, poll_s: float
    ) -> None:
        self.served: MappingProxyType[str, Served] = MappingProxyType({})
        self._root = root
        self._device = device
        self._worker = worker
        self._default = default
        self._poll_s = poll_s
        self._acted_on: dict[str, Pointer] = {}
        self._tried: dict[str, float] = {}
        self._unreadable: set[str] = set()
        self._looked = False
        self._loading = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="registry", daemon=True)

    def start(self) -> None:
        """Load what is live, then watch."""
        self._thread.start()

    def stop(self) -> None:
        """Stop to watch; what is loaded stays."""
        self._stop.set()

    def not_ready(self) -> str | None:
        """Why not every index answers; None when they all do."""
        if not self._looked:
            return "the indexes are being loaded"
        faults = [f"{one.name}: {one.fault or 'loading'}" for one in self.served.values() if one.live is None]
        return "; ".join(faults) or (None if self.served else "there is no index under the root")

    def find(self, name: str | None) -> LoadedIndex:
        """The index that answers; raises `Refusal` (404, 422 or 503) where none does."""
        served = self.get(self._default_name() if name is None else name)
        if served.live is None:
            raise Refusal(NOT_READY, f"{served.name}: {served.fault or 'loading'}", {"Retry-After": "5"})
        return served.live

    def get(self, name: str) -> Served:
        """The entry of `name`; raises `Refusal` (404, or 503 before anything was looked at)."""
        found = self.served.get(name)
        if found is None and not self._looked:
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
        return tuple(index_store.versions(self._root / self.get(name).name))

    def activate(self, name: str, version: str) -> Served:
        """Verify `version`, write CURRENT, serve it; or raise `Refusal` (404, 409, 507), and all is as it was."""
        folder = self._root / self.get(name).name
        if version not in self.versions(name):
            raise Refusal(problems.UNKNOWN_VERSION, f"{name} has no version {version!r}")
        with self._loading:
            try:
                loaded = load_verified(folder / version, self._device, self._worker)
            except (ResadError, OSError) as error:
                raise Refusal(problems.INDEX_INVALID, self._told(error)) from error
            try:
                index_store.activate(folder, version)
            except IndexInvalid as error:
                raise Refusal(problems.INDEX_INVALID, self._told(error)) from error
            except OSError as error:
                if error.errno not in (errno.EROFS, errno.EACCES, errno.EPERM):
                    raise
                raise Refusal(problems.READ_ONLY, problems.READ_ONLY.example) from error
            return self._swap(Served(name, loaded), read_pointer(folder))

    def _watch(self) -> None:
        while not self._stop.is_set():
            try:
                self._look()
            except OSError as error:
                _log.error("the root cannot be read: %s", error.strerror)
            self._looked = True
            self._stop.wait(self._poll_s)

    def _look(self) -> None:
        """Act on every CURRENT that was written or removed since the last look."""
        names = {*self.served, *(folder.name for folder in self._root.iterdir())}
        self._unreadable &= names
        for name in sorted(names):
            if self._stop.is_set():
                return
            with self._loading:
                self._look_at(name, self._root / name)

    def _look_at(self, name: str, folder: Path) -> None:
        try:
            pointer = read_pointer(folder)
        except OSError as error:
            if name not in self._unreadable:
                _log.error("%s under the root is passed over: %s", name, error.strerror)
            self._unreadable.add(name)
            return
        self._unreadable.discard(name)
        if pointer is not None:
            self._follow(name, folder, pointer)
        elif name in self.served:
            self._forget(name)

    def _follow(self, name: str, folder: Path, pointer: Pointer) -> None:
        entry = self.served.get(name, Served(name))
        if pointer == self._acted_on.get(name) and not (
            entry.fault and time.monotonic() - self._tried[name] > _RETRY_S
        ):
            return
        if entry.live is not None and entry.live.manifest.version == pointer.version:
            self._swap(replace(entry, fault=None), pointer)
            return
        if name not in self.served:
            self._swap(entry, None)
        try:
            index_store.check_name(name)
            loaded = load_verified(index_store.resolve(folder), self._device, self._worker)
        except (ResadError, Refusal, OSError) as error:
            self._fail(entry, pointer, self._told(error))
        except Exception:
            _log.exception("index %s could not be loaded", name)
            self._fail(entry, pointer, f"version {pointer.version[:32]!r} could not be loaded; the log says why")
        else:
            self._swap(Served(name, loaded), pointer)

    def _forget(self, name: str) -> None:
        """Requests that are with the index already finish."""
        _log.info("index %s: its CURRENT is gone, it is served no more", name)
        self.served = MappingProxyType({other: entry for other, entry in self.served.items() if other != name})
        self._acted_on.pop(name, None)
        self._tried.pop(name, None)

    def _fail(self, entry: Served, pointer: Pointer, fault: str) -> None:
        _log.error("index %s: %s", entry.name, fault)
        self._tried[entry.name] = time.monotonic()
        self._swap(replace(entry, fault=fault), pointer)

    def _swap(self, entry: Served, pointer: Pointer | None) -> Served:
        if entry.live is not None and entry.fault is None:
            _log.info("index %s: version %s is served", entry.name, entry.live.manifest.version)
        self.served = MappingProxyType(dict(sorted({**self.served, entry.name: entry}.items())))
        if pointer is not None:
            self._acted_on[entry.name] = pointer
        return entry

    def _told(self, error: Exception) -> str:
        """The error's line without the place of the root on this machine."""
        text = error.strerror or "cannot be read" if isinstance(error, OSError) else str(error)
        return text.replace(f"{self._root}/", "")
