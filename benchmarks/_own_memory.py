"""Memory that is a process's own: resident, without pages of mapped files, which the system takes back at need."""

import re
import threading
from pathlib import Path
from typing import Final

_PROC: Final = Path("/proc")


class OwnMemory:
    """The largest own memory of a process while this is entered, bytes.

    Args:
        process: its number; this one unless given.
        every: seconds between two looks.
    """

    def __init__(self, process: int | None = None, every: float = 0.005) -> None:
        self.most = 0
        self._status = _PROC / ("self" if process is None else str(process)) / "status"
        self._every = every
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> "OwnMemory":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        while True:
            self.most = max(self.most, _own_bytes(self._status))
            if self._over.wait(self._every):
                return


def own_bytes() -> int:
    """Of this process, now."""
    found = _own_bytes(_PROC / "self/status")
    if not found:
        raise SystemExit("/proc/self/status does not tell RssAnon: this benchmark takes Linux")
    return found


def _own_bytes(status: Path) -> int:
    """0 where the process has ended."""
    try:
        found = re.search(r"RssAnon:\s+(\d+) kB", status.read_text())
    except OSError:
        return 0
    return int(found[1]) * 1024 if found else 0
