"""What CURRENT of an index says, and a version of it brought into memory, ready to answer."""

import stat
from dataclasses import dataclass
from pathlib import Path

import torch

from resad import index, runtime
from resad.loaded_index import LoadedIndex, check_probe, load_index
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


def load_verified(version: Path, device: torch.device, worker: Worker) -> LoadedIndex:
    """The version at ROOT/NAME/VERSION, loaded, its probe scored as when it was built.

    On a GPU everything runs on the worker's thread, which alone may touch FAISS there.

    Raises:
        IndexInvalid, OSError: its files cannot be used.
        Refusal: 507 where memory has no room for it, 503 where the worker is gone.
    """

    def load() -> LoadedIndex:
        return load_index(version, device)

    def check(loaded: LoadedIndex) -> None:
        runtime.configure(loaded.manifest.config.precision)
        check_probe(loaded, version)

    try:
        loaded = load() if device.type == "cpu" else worker.run(load).result()
        worker.run(lambda: check(loaded)).result()
    except (MemoryError, torch.OutOfMemoryError) as error:
        raise Refusal(INDEX_TOO_LARGE, INDEX_TOO_LARGE.example) from error
    return loaded
