"""What this process holds and may hold: memory, disk and GPU, as the system says now."""

import os
import re
from dataclasses import dataclass
from pathlib import Path
from shutil import disk_usage
from typing import Final

import torch

from resad import runtime
from resad.available import available_bytes
from resad.errors import SettingError

_UNITS: Final = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12,
                 "KI": 2**10, "MI": 2**20, "GI": 2**30, "TI": 2**40}  # fmt: skip
_PROC: Final = Path("/proc")


@dataclass(frozen=True, slots=True)
class Room:
    """Bytes: memory the process holds, has held at most, and may hold; free disk; the same for a GPU, 0 without.

    limit_name: what sets the limit of memory, for messages.
    """

    resident: int
    peak: int
    memory: int
    limit_name: str
    disk: int
    gpu_peak: int = 0
    gpu: int = 0


def parse_size(text: str) -> int:
    """`8G`, `500M`, `7.5GiB` or a number of bytes; raises `SettingError` for anything else."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?) ?([KMGT]?I?)B?", text.strip().upper())
    if not found or found[2] not in _UNITS or not float(found[1]):
        raise SettingError(f"--max-memory {text!r}: expected a size, as in 8G, 500M or 7.5GiB")
    return int(float(found[1]) * _UNITS[found[2]])


def room(place: Path, device: torch.device, max_memory: int | None) -> Room:
    """As it is now.

    Args:
        place: a folder on the disk that is written to.
        device: that computes.
        max_memory: bytes this process may hold, where it was said.
    """
    resident = resident_bytes()
    there = resident + available_bytes()
    limited = max_memory is not None and max_memory < there
    gpu_peak, gpu = 0, 0
    if device.type == "cuda":
        gpu_peak = torch.cuda.max_memory_allocated(device)
        gpu = torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device)
    return Room(
        resident=resident,
        peak=runtime.peak_memory_bytes(),
        memory=max_memory if limited and max_memory is not None else there,
        limit_name="--max-memory" if limited else "what this machine has available",
        disk=disk_usage(place).free,
        gpu_peak=gpu_peak,
        gpu=gpu,
    )


def resident_bytes(proc: Path = _PROC) -> int:
    """Of this process."""
    return int((proc / "self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
