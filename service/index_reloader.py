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
from resad.errors import ResadError
from resad.loaded_index import LoadedIndex, check_probe, load_index
from resad.manifest import read_manifest
from resad.runtime import available_bytes
from service import problems
from service.admission import Pace
from service.problems import INDEX_TOO_LARGE, Refusal, is_out_of_memory
from service.registry import Registry, Served
from service.worker import Worker


@dataclass(frozen=True, slots=True)
class Pointer:
    """CURRENT as it was read; one that is written again is another file."""

    version: str
    file: int
    written: int


def read_pointer(folder: Path) -> Pointer | None:
    """CURRENT of `folder`, None where there is no such file; raises `OSError` where nobody can tell."""
    path = folder / index_store.CURRENT
    try:
        status = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    if not stat.S_ISREG(status.st_mode):
        return None
    return Pointer(path.read_text(errors="replace").strip(), status.st_ino, status.st_mtime_ns)


def load_verified(version: Path, device: torch.device, worker: Worker, pace: Pace) -> LoadedIndex:
    """The version at ROOT/NAME/VERSION, loaded, its probe scored as when it was built.

    Files are read and checked on the calling thread.  What touches a GPU is done on the worker's, which alone may
    use FAISS there, in steps that photographs come between.

    Raises:
        IndexInvalid, OSError: its files cannot be used.
        Refusal: 507 where memory has no room for it, 503 where the worker is gone.
    """
    missing = missing_bytes(version, device)
    if missing:
        raise Refusal(INDEX_TOO_LARGE, f"{INDEX_TOO_LARGE.example}: {missing / 1e6:,.0f} MB are missing")

    def on_worker(work: Callable[[], Any]) -> Any:
        return worker.run(work).result()

    def check(loaded: LoadedIndex) -> None:
        runtime.configure(loaded.manifest.config.precision)
        check_probe(loaded, version)
        if not pace.measured:  # the first photograph of all took longer than those to come will
            began = time.perf_counter()
            check_probe(loaded, version)
            pace.scored(1, time.perf_counter() - began)

    try:
        # On a CPU loading touches nothing of the worker's.
        loaded = (
            load_index(version, device) if device.type == "cpu" else load_index(version, device, run=on_worker)
        )
        on_worker(lambda: check(loaded))
    except Exception as error:
        if is_out_of_memory(error):
            raise Refusal(INDEX_TOO_LARGE, INDEX_TOO_LARGE.example) from error
        raise
    return loaded


_BESIDE: Final = 2.0
"""A version's files are read, and copied once more on the way to where they are used."""
_WORK_BYTES: Final = 200_000_000
"""Left for the photographs that are being scored meanwhile."""


def missing_bytes(version: Path, device: torch.device) -> int:
    """How many bytes are missing to load the version at ROOT/NAME/VERSION beside what is there; 0 if it fits."""
    files = sum(path.stat().st_size for path in version.iterdir() if path.is_file())
    wanted = int(_BESIDE * files) + _WORK_BYTES
    missing = [wanted - available_bytes()]
    if device.type == "cuda":
        # What torch keeps in reserve is free for it, too.
        free = torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device)
        missing.append(wanted - (free - torch.cuda.memory_allocated(device)))
    return max(0, *missing)


_log: Final = logging.getLogger(__name__)
_RETRY_S: Final = 30.0
"""After which a version that failed is tried again: its files may still have been on their way."""
_FREE_S: Final = 2.0
"""For which the memory of an index that leaves is waited for, while the last answers from it are on their way."""
_PAUSE_S: Final = 0.01
"""Between the first two looks whether it is free; each further pause is twice as long."""


class Succession:
    """Follows CURRENT and writes it; one version is loaded at a time.

    Args:
        registry: is told what is served.
        load: the version at ROOT/NAME/VERSION, verified and ready; see `loading.load_verified`.
        observe: told of every load: the index's name, whether it went well, seconds.
        hold: indexes in memory at most, but for the while in which a new version is beside the old; None for all.
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
        self._acted_on: dict[str, Pointer] = {}
        self._tried: dict[str, float] = {}
        self._loading = threading.Lock()

    def activate(self, name: str, version: str) -> Served:
        """Verify `version`, write CURRENT, serve it; or raise `Refusal` (404, 409, 507), and all is as it was."""
        folder = self._root / self._registry.get(name).name
        if version not in self._registry.versions(name):
            raise Refusal(problems.UNKNOWN_VERSION, f"{name} has no version {version!r}")
        with self._loading:
            try:
                loaded = self._timed(name, folder / version)
            except (ResadError, OSError) as error:
                raise Refusal(problems.INDEX_INVALID, self._told(error)) from error
            try:
                index_store.activate(folder, version)
            except ResadError as error:
                raise Refusal(problems.INDEX_INVALID, self._told(error)) from error
            except OSError as error:
                if error.errno not in (errno.EROFS, errno.EACCES, errno.EPERM):
                    raise
                raise Refusal(problems.READ_ONLY, problems.READ_ONLY.example) from error
            return self._swap(self._placed(name, loaded), read_pointer(folder))

    def bring(self, name: str, leaving: str | None) -> bool:
        """Load `name`, which rests, after `leaving` has left, if anything; whether there was a place for it.

        Where it cannot be loaded its entry says why, as it does of a version that CURRENT names; where that one is
        broken, it goes on saying so.
        """
        with self._loading:
            if leaving is not None:
                self._leave(leaving)
            entry = self._registry.get(name)
            if entry.live is not None or entry.at_rest is None:
                return True
            if not self._has_place():
                return False
            version = self._root / name / entry.at_rest.version
            loaded = self._loaded(replace(entry, damaged=True), version, self._acted_on.get(name))
            if loaded is not None:
                self._swap(Served(name, loaded, entry.fault), None)
            return True

    def _leave(self, name: str) -> None:
        """Out of memory with `name`, if it is there; returns when its memory is free."""
        entry = self._registry.served.get(name)
        if entry is None or entry.live is None:
            return
        held = weakref.ref(entry.live.detector)
        self._swap(replace(entry, live=None, at_rest=entry.live.manifest), None)
        del entry
        end, pause = time.monotonic() + _FREE_S, _PAUSE_S
        while held() is not None:
            gc.collect()  # errors and the frames that they passed hold each other, and what was lent there
            if time.monotonic() > end:
                _log.warning("index %s has left, but something still holds it in memory", name)
                return
            time.sleep(pause)
            pause *= 2  # a collection stops all threads

    def look_at(self, name: str) -> None:
        """Act on CURRENT of `name` if it was written or removed since the last look.

        Raises `OSError` where it cannot be read, and nothing has changed.
        """
        with self._loading:
            folder = self._root / name
            pointer = read_pointer(folder)
            if pointer is not None:
                self._follow(name, folder, pointer)
            elif name in self._registry.served:
                self._forget(name)

    def _follow(self, name: str, folder: Path, pointer: Pointer) -> None:
        entry = self._registry.served.get(name, Served(name))
        if pointer == self._acted_on.get(name) and not (
            entry.fault and time.monotonic() - self._tried[name] > _RETRY_S
        ):
            return
        if entry.live is not None and entry.live.manifest.version == pointer.version:
            self._swap(replace(entry, fault=None), pointer)
            return
        if name not in self._registry.served:
            self._swap(entry, None)
        try:
            index_store.check_name(name)
            version = index_store.resolve(folder)
            manifest = None if entry.live or self._has_place() else read_manifest(version / index_store.MANIFEST)
        except (ResadError, OSError) as error:
            self._fail(entry, pointer, self._told(error))
            return
        if manifest is not None:
            self._swap(Served(name, at_rest=manifest), pointer)
            return
        loaded = self._loaded(entry, version, pointer)
        if loaded is not None:
            self._swap(Served(name, loaded), pointer)

    def _has_place(self) -> bool:
        return (
            self._hold is None or sum(one.live is not None for one in self._registry.served.values()) < self._hold
        )

    def _placed(self, name: str, loaded: LoadedIndex) -> Served:
        """A version that was verified, in memory if it has a place there."""
        if self._registry.get(name).live is not None or self._has_place():
            return Served(name, loaded)
        return Served(name, at_rest=loaded.manifest)

    def _loaded(self, entry: Served, version: Path, pointer: Pointer | None) -> LoadedIndex | None:
        """The version; None where it cannot be loaded, which `entry` then says."""
        try:
            return self._timed(entry.name, version)
        except (ResadError, Refusal, OSError) as error:
            self._fail(entry, pointer, self._told(error))
        except Exception:
            _log.exception("index %s could not be loaded", entry.name)
            self._fail(entry, pointer, f"version {version.name!r} could not be loaded; the log says why")
        gc.collect()  # the error's frames hold what there was of it
        return None

    def _timed(self, name: str, version: Path) -> LoadedIndex:
        began, well = time.perf_counter(), False
        try:
            loaded = self._load(version)
            well = True
        finally:
            self._observe(name, well, time.perf_counter() - began)
        return loaded

    def _forget(self, name: str) -> None:
        _log.info("index %s: its CURRENT is gone, it is served no more", name)
        self._registry.drop(name)
        self._acted_on.pop(name, None)
        self._tried.pop(name, None)

    def _fail(self, entry: Served, pointer: Pointer | None, fault: str) -> None:
        _log.error("index %s: %s", entry.name, fault)
        self._tried[entry.name] = time.monotonic()
        self._swap(replace(entry, fault=fault), pointer)

    def _swap(self, entry: Served, pointer: Pointer | None) -> Served:
        if entry.live is not None and entry.fault is None:
            _log.info("index %s: version %s is served", entry.name, entry.live.manifest.version)
        self._registry.put(entry)
        if pointer is not None:
            self._acted_on[entry.name] = pointer
        return entry

    def _told(self, error: Exception) -> str:
        """The error's line without the place of the root on this machine."""
        text = error.strerror or "cannot be read" if isinstance(error, OSError) else str(error)
        return text.replace(f"{self._root}/", "")


class Watcher:
    """The thread that looks at CURRENT of every index.

    Args:
        registry: says what is served, and where.
        succession: acts on what has changed.
        poll_s: seconds between looks.
    """

    def __init__(self, registry: Registry, succession: Succession, poll_s: float) -> None:
        self._registry = registry
        self._succession = succession
        self._poll_s = poll_s
        self._unreadable: set[str] = set()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watcher", daemon=True)

    def start(self) -> None:
        """Load what is live, then watch."""
        self._thread.start()

    def stop(self) -> None:
        """Stop to watch; what is loaded stays."""
        self._stop.set()

    def _watch(self) -> None:
        while not self._stop.is_set():
            try:
                self._look()
            except OSError as error:
                _log.error("the root cannot be read: %s", error.strerror)
            except Exception:
                _log.exception("the look at the indexes failed")
            self._registry.looked = True
            self._stop.wait(self._poll_s)

    def _look(self) -> None:
        """At every index once."""
        names = {*self._registry.served, *(folder.name for folder in self._registry.root.iterdir())}
        self._unreadable &= names
        # The default first: where there is not a place for all, it is the likeliest to be asked for.
        for name in sorted(names, key=lambda name: (name != self._registry.default, name)):
            if self._stop.is_set():
                return
            self._look_at(name)

    def _look_at(self, name: str) -> None:
        try:
            self._succession.look_at(name)
        except OSError as error:
            if name not in self._unreadable:
                _log.error("%s under the root is passed over: %s", name, error.strerror)
            self._unreadable.add(name)
        else:
            self._unreadable.discard(name)
