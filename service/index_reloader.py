"""Loads index versions, watches CURRENT of every index, and replaces the version that answers.

A new version is loaded and its probe photograph scored beside the one that serves.  A broken version changes
nothing but the fault that is shown.
"""

import errno
import gc
import logging
import stat
import threading
import time
import weakref
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import torch

from resad import index as index_store
from resad import runtime
from resad.engine import warm_up
from resad.errors import ResadError
from resad.loaded_index import LoadedIndex, check_probe, load_index
from resad.manifest import read_manifest
from service import problems
from service.admission import Throughput
from service.problems import INDEX_TOO_LARGE, Refusal, is_out_of_memory
from service.registry import IndexEntry, Registry
from service.worker import Worker

_log: Final = logging.getLogger(__name__)
_RETRY_S: Final = 30.0
"""Seconds after which a version that failed is tried again: its files may still have been copied."""
_FREE_S: Final = 2.0
"""Most seconds to wait for the memory of an evicted index, while its last answers are sent."""
_FIRST_PAUSE_S: Final = 0.01
"""Between the first two checks of that memory; each pause is twice as long as the one before."""
_FILE_COPIES: Final = 2.0
"""A version's files are read, and copied once on the way to where they are used."""
_RESERVE_BYTES: Final = 200_000_000
"""Kept free for the photographs that are scored meanwhile."""


@dataclass(frozen=True, slots=True)
class Pointer:
    """The content and identity of CURRENT; a rewritten CURRENT is another file."""

    version: str
    inode: int
    modified_ns: int


def read_pointer(folder: Path) -> Pointer | None:
    """CURRENT of `folder`; None if there is no such file.  Raises `OSError` if it cannot be read."""
    path = folder / index_store.CURRENT
    try:
        status = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    if not stat.S_ISREG(status.st_mode):
        return None
    return Pointer(path.read_text(errors="replace").strip(), status.st_ino, status.st_mtime_ns)


@dataclass(slots=True, eq=False)
class Loader:
    """Loads a version into memory and checks that its probe photograph scores as when it was built."""

    device: torch.device
    worker: Worker
    throughput: Throughput
    load_index: Callable[..., LoadedIndex] = load_index
    check_probe: Callable[[LoadedIndex, Path], object] = check_probe
    warm_up: Callable[[LoadedIndex, Path], object] = warm_up
    available_bytes: Callable[[], int] = runtime.available_bytes

    def load(self, version: Path) -> LoadedIndex:
        """The version at ROOT/NAME/VERSION.

        Files are read and checked on the calling thread.  Steps on a GPU run on the worker's thread, which alone
        may use FAISS there; photographs are scored between the steps.

        Raises:
            IndexInvalid, OSError: its files cannot be used.
            Refusal: 507 if it does not fit into memory, 503 if the worker has stopped.
        """
        missing = self._missing_bytes(version)
        if missing:
            raise Refusal(INDEX_TOO_LARGE, f"{INDEX_TOO_LARGE.example}: {missing / 1e6:,.0f} MB are missing")
        try:
            if self.device.type == "cpu":
                loaded = self.load_index(version, self.device)
            else:
                loaded = self.load_index(version, self.device, run=self._on_worker)
            self._on_worker(lambda: self._check(loaded, version))
        except Exception as error:
            if is_out_of_memory(error):
                raise Refusal(INDEX_TOO_LARGE, INDEX_TOO_LARGE.example) from error
            raise
        return loaded

    def _on_worker(self, step: Callable[[], Any]) -> Any:
        return self.worker.run(step).result()

    def _check(self, loaded: LoadedIndex, version: Path) -> None:
        runtime.configure(loaded.manifest.config.precision)
        self.check_probe(loaded, version)
        if not self.throughput.measured:  # the very first photograph is slower than all later ones
            began = time.perf_counter()
            self.check_probe(loaded, version)
            self.throughput.scored(1, time.perf_counter() - began)
            self.warm_up(loaded, version)

    def _missing_bytes(self, version: Path) -> int:
        """Bytes that loading the version needs beyond what is free; 0 if it fits."""
        files = sum(path.stat().st_size for path in version.iterdir() if path.is_file())
        required = int(_FILE_COPIES * files) + _RESERVE_BYTES
        missing = [required - self.available_bytes()]
        if self.device.type == "cuda":
            # Memory that torch has reserved and does not use is free, too.
            free = torch.cuda.mem_get_info(self.device)[0] + torch.cuda.memory_reserved(self.device)
            missing.append(required - (free - torch.cuda.memory_allocated(self.device)))
        return max(0, *missing)


class IndexReloader:
    """Follows CURRENT of every index, and writes it for `activate`; loads one version at a time.

    Args:
        registry: gets every change.
        load: loads and checks the version at ROOT/NAME/VERSION; see `Loader.load`.
        observe: called after every load with the index's name, success, and seconds.
        hold: most indexes in memory, except while a new version is loaded beside the old one; None for no limit.
    """

    def __init__(
        self,
        registry: Registry,
        load: Callable[[Path], LoadedIndex],
        observe: Callable[[str, bool, float], None],
        *,
        hold: int | None = None,
    ) -> None:
        self._registry = registry
        self._root = registry.root
        self._load = load
        self._observe = observe
        self._hold = hold
        self.write_current: Callable[[Path, str], None] = index_store.activate
        self._applied: dict[str, Pointer] = {}
        self._tried: dict[str, float] = {}
        self._lock = threading.Lock()

    def activate(self, name: str, version: str) -> IndexEntry:
        """Verify `version`, write CURRENT, and serve it; raises `Refusal` (404, 409, 507) and changes nothing."""
        folder = self._root / self._registry.get(name).name
        if version not in self._registry.versions(name):
            raise Refusal(problems.UNKNOWN_VERSION, f"{name} has no version {version!r}")
        with self._lock:
            try:
                loaded = self._timed_load(name, folder / version)
            except (ResadError, OSError) as error:
                raise Refusal(problems.INDEX_INVALID, self._message(error)) from error
            try:
                self.write_current(folder, version)
            except ResadError as error:
                raise Refusal(problems.INDEX_INVALID, self._message(error)) from error
            except OSError as error:
                if error.errno not in (errno.EROFS, errno.EACCES, errno.EPERM):
                    raise
                raise Refusal(problems.READ_ONLY, problems.READ_ONLY.example) from error
            fits = self._registry.get(name).live is not None or self._has_room()
            entry = IndexEntry(name, loaded) if fits else IndexEntry(name, resting=loaded.manifest)
            return self._publish(entry, read_pointer(folder))

    def load_resting(self, name: str, evict: str | None) -> bool:
        """Load the resting version of `name` after evicting another index, if any; returns whether there was room.

        If it cannot be loaded, its entry gets the fault.  A fault of the version that CURRENT names stays.
        """
        with self._lock:
            if evict is not None:
                self._evict(evict)
            entry = self._registry.get(name)
            if entry.live is not None or entry.resting is None:
                return True
            if not self._has_room():
                return False
            version = self._root / name / entry.resting.version
            loaded = self._load_or_fail(replace(entry, damaged=True), version, self._applied.get(name))
            if loaded is not None:
                self._publish(IndexEntry(name, loaded, entry.fault), None)
            return True

    def _evict(self, name: str) -> None:
        """Remove `name` from memory, if it is there, and wait until its memory is free."""
        entry = self._registry.entries.get(name)
        if entry is None or entry.live is None:
            return
        detector = weakref.ref(entry.live.detector)
        self._publish(replace(entry, live=None, resting=entry.live.manifest), None)
        del entry
        end, pause = time.monotonic() + _FREE_S, _FIRST_PAUSE_S
        while detector() is not None:
            gc.collect()  # errors and their frames refer to each other, and to the index
            if time.monotonic() > end:
                _log.warning("index %s was evicted, but something still keeps it in memory", name)
                return
            time.sleep(pause)
            pause *= 2  # a collection stops all threads

    def check(self, name: str) -> None:
        """Apply CURRENT of `name` if it was written or removed since the last check.

        Raises `OSError` if it cannot be read; nothing has changed then.
        """
        with self._lock:
            folder = self._root / name
            pointer = read_pointer(folder)
            if pointer is not None:
                self._apply(name, folder, pointer)
            elif name in self._registry.entries:
                self._remove(name)

    def _apply(self, name: str, folder: Path, pointer: Pointer) -> None:
        entry = self._registry.entries.get(name, IndexEntry(name))
        retry = entry.fault and time.monotonic() - self._tried[name] > _RETRY_S
        if pointer == self._applied.get(name) and not retry:
            return
        if entry.live is not None and entry.live.manifest.version == pointer.version:
            self._publish(replace(entry, fault=None), pointer)
            return
        if name not in self._registry.entries:
            self._publish(entry, None)
        try:
            index_store.check_name(name)
            version = index_store.resolve(folder)
            manifest = None if entry.live or self._has_room() else read_manifest(version / index_store.MANIFEST)
        except (ResadError, OSError) as error:
            self._fail(entry, pointer, self._message(error))
            return
        if manifest is not None:
            self._publish(IndexEntry(name, resting=manifest), pointer)
            return
        loaded = self._load_or_fail(entry, version, pointer)
        if loaded is not None:
            self._publish(IndexEntry(name, loaded), pointer)

    def _has_room(self) -> bool:
        live = sum(entry.live is not None for entry in self._registry.entries.values())
        return self._hold is None or live < self._hold

    def _load_or_fail(self, entry: IndexEntry, version: Path, pointer: Pointer | None) -> LoadedIndex | None:
        """The loaded version; None if it cannot be loaded, with the fault put into `entry`."""
        try:
            return self._timed_load(entry.name, version)
        except (ResadError, Refusal, OSError) as error:
            self._fail(entry, pointer, self._message(error))
        except Exception:
            _log.exception("index %s could not be loaded", entry.name)
            self._fail(entry, pointer, f"version {version.name!r} could not be loaded; the log says why")
        gc.collect()  # the error's frames keep the half-loaded version in memory
        return None

    def _timed_load(self, name: str, version: Path) -> LoadedIndex:
        began, success = time.perf_counter(), False
        try:
            loaded = self._load(version)
            success = True
        finally:
            self._observe(name, success, time.perf_counter() - began)
        return loaded

    def _remove(self, name: str) -> None:
        _log.info("index %s: its CURRENT is gone, it is served no more", name)
        self._registry.drop(name)
        self._applied.pop(name, None)
        self._tried.pop(name, None)

    def _fail(self, entry: IndexEntry, pointer: Pointer | None, fault: str) -> None:
        _log.error("index %s: %s", entry.name, fault)
        self._tried[entry.name] = time.monotonic()
        self._publish(replace(entry, fault=fault), pointer)

    def _publish(self, entry: IndexEntry, pointer: Pointer | None) -> IndexEntry:
        if entry.live is not None and entry.fault is None:
            _log.info("index %s: version %s is served", entry.name, entry.live.manifest.version)
        self._registry.put(entry)
        if pointer is not None:
            self._applied[entry.name] = pointer
        return entry

    def _message(self, error: Exception) -> str:
        """The error's message without the root's path, which callers must not see."""
        text = error.strerror or "cannot be read" if isinstance(error, OSError) else str(error)
        return text.replace(f"{self._root}/", "")


class Watcher:
    """A thread that checks CURRENT of every index every `poll_s` seconds."""

    def __init__(self, registry: Registry, reloader: IndexReloader, poll_s: float) -> None:
        self._registry = registry
        self._reloader = reloader
        self._poll_s = poll_s
        self._unreadable: set[str] = set()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watcher", daemon=True)

    def start(self) -> None:
        """Load the live versions, then watch."""
        self._thread.start()

    def stop(self) -> None:
        """Stop watching; loaded indexes stay."""
        self._stop.set()

    def _watch(self) -> None:
        while not self._stop.is_set():
            try:
                self._scan()
            except OSError as error:
                _log.error("the root cannot be read: %s", error.strerror)
            except Exception:
                _log.exception("the scan of the indexes failed")
            self._registry.scanned = True
            self._stop.wait(self._poll_s)

    def _scan(self) -> None:
        names = {*self._registry.entries, *(folder.name for folder in self._registry.root.iterdir())}
        self._unreadable &= names
        # The default index first: if not all fit into memory, requests for it are the likeliest.
        for name in sorted(names, key=lambda name: (name != self._registry.default, name)):
            if self._stop.is_set():
                return
            self._check(name)

    def _check(self, name: str) -> None:
        try:
            self._reloader.check(name)
        except OSError as error:
            if name not in self._unreadable:
                _log.error("%s under the root is passed over: %s", name, error.strerror)
            self._unreadable.add(name)
        else:
            self._unreadable.discard(name)
