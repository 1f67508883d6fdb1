"""Memory that could still be had, as the system says now; the indexer and the service ask before they take it."""

import os
import re
from pathlib import Path
from typing import Final

_CGROUP: Final = Path("/sys/fs/cgroup")
_PROC: Final = Path("/proc")


def available_bytes(proc: Path = _PROC, cgroup: Path = _CGROUP) -> int:
    """What could be had beside what is held: the system's word, or less where a container's limit is nearer."""
    told = re.search(r"MemAvailable:\s+(\d+) kB", (proc / "meminfo").read_text())
    free = int(told[1]) * 1024 if told else os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")
    limits = [
        _left(cgroup / "memory.max", cgroup / "memory.current", cgroup / "memory.stat"),
        _left(
            cgroup / "memory/memory.limit_in_bytes",
            cgroup / "memory/memory.usage_in_bytes",
            cgroup / "memory/memory.stat",
        ),
    ]
    return min([free, *(limit for limit in limits if limit is not None)])


def _left(limit: Path, used: Path, stat: Path) -> int | None:
    """Of a container's memory; what only caches files counts as free."""
    try:
        most, now = limit.read_text().strip(), int(used.read_text())
        cached = re.search(r"(?:total_)?inactive_file (\d+)", stat.read_text())
    except (OSError, ValueError):
        return None
    return None if most == "max" else max(int(most) - now + (int(cached[1]) if cached else 0), 0)
