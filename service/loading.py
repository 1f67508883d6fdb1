"""What CURRENT of an index says, and a version of it brought into memory, ready to answer."""

import stat
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from resad import index, runtime
from resad.loaded_index import LoadedIndex, check_probe, load_index
from service.memory import is_out_of_memory, missing_bytes
from service.pace import Pace
from service.problems import INDEX_TOO_LARGE, Refusal
from service.worker import Worker


@dataclass(frozen=True, slots=True)
class Pointer:
    """CURRENT as it was read; one that is written again is another file."""

    version: str
    file: int
    written: int


def read_pointer(folder: Path) -> Pointer | None:
    """CURRENT of `folder`, None where there is no such file; raises `OSError` where nobody can tell."""
    path = folder / index.CURRENT
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
