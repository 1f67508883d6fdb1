"""Memory: whether an error says that there is none left, and whether there is room for more."""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import torch

from resad.available import available_bytes

_FULL: Final = (
    "not enough memory",
    "can't allocate memory",
    "cannot allocate memory",
    "bad_alloc",
    "out of memory",
)
"""How torch's and FAISS's plain `RuntimeError` say it, in lower case."""
_BESIDE: Final = 2.0
"""A version's files are read, and copied once more on the way to where they are used."""
_WORK_BYTES: Final = 200_000_000
"""Left for the photographs that are being scored meanwhile."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether `error`, or what it came from, says that memory is full: the device's or the machine's."""
    return any(
        isinstance(one, MemoryError | torch.OutOfMemoryError)
        or (isinstance(one, RuntimeError) and any(words in str(one).lower() for words in _FULL))
        for one in _causes(error)
    )


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


def _causes(error: BaseException) -> Iterator[BaseException]:
    link: BaseException | None = error
    while link is not None:
        yield link
        link = link.__cause__
