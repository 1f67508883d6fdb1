"""Process-wide settings, called by entry points alone, and the choice of the device."""

import platform
import re
import resource
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

import torch
from threadpoolctl import ThreadpoolController

from resad.config import Precision
from resad.errors import SettingError
from resad.manifest import PackageVersion

_PACKAGES: Final = ("torch", "torchvision", "faiss-gpu", "numpy", "pillow", "scipy")


def configure(precision: Precision) -> None:
    """Make arithmetic what `precision` promises: without TF32 where it is exact."""
    torch.backends.cuda.matmul.allow_tf32 = precision != "exact"
    torch.backends.cudnn.allow_tf32 = precision != "exact"


def use_threads(count: int | None = None) -> None:
    """Let torch, and on the calling thread FAISS too, compute on so many cores; without a number on torch's.

    OpenMP keeps the number of threads for each thread that calls it, and FAISS brings an OpenMP of its own: so
    every thread that computes has to say it.
    """
    if count is not None:
        torch.set_num_threads(count)
    count = torch.get_num_threads()
    for library in ThreadpoolController().select(user_api="openmp").lib_controllers:
        library.set_num_threads(count)


def pick_device(name: str) -> torch.device:
    """`auto` is the first GPU if there is one, else the CPU; raises `SettingError` for a GPU that is not there."""
    if name == "auto":
        return torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise SettingError(f"device {name!r} is not known; use auto, cpu, cuda or cuda:N") from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise SettingError(f"device {name!r} is not here: torch sees {torch.cuda.device_count()} GPUs")
    if device.type not in ("cpu", "cuda"):
        raise SettingError(f"device {name!r} cannot be used; use auto, cpu, cuda or cuda:N")
    return device


def gpu_number(device: torch.device) -> int | None:
    """The number FAISS knows a GPU by; None for the CPU."""
    return (device.index or 0) if device.type == "cuda" else None


def packages() -> tuple[PackageVersion, ...]:
    """The versions of what computes, for the manifest and for tables."""
    found = [PackageVersion("python", platform.python_version())]
    for name in _PACKAGES:
        try:
            found.append(PackageVersion(name, version(name)))
        except PackageNotFoundError:  # carried along without its metadata
            continue
    return tuple(found)


def package_version() -> str:
    """This project's own version."""
    return version("resad")


def peak_memory_bytes() -> int:
    """The largest resident memory this program has had so far.

    Linux's `ru_maxrss` would not do: after fork and exec it begins at what the parent held.
    """
    told = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(told[1]) * 1024 if told else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
