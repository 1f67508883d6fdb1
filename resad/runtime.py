"""Process-wide settings, set by entry points alone: threads, precision, device; and what the machine offers.

torch is imported when it is needed: a command that computes nothing does not wait for it.
"""

import ctypes
import os
import platform
import re
import resource
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pydantic import ConfigDict
from pydantic.dataclasses import dataclass
from resad_client.text import counted

from resad.config import Precision
from resad.errors import SettingError

if TYPE_CHECKING:
    import torch

_PACKAGES: Final = ("torch", "torchvision", "faiss-gpu", "numpy", "pillow", "scipy")
_CGROUP: Final = Path("/sys/fs/cgroup")
_PROC: Final = Path("/proc")


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class PackageVersion:
    """A package and its version."""

    name: str
    version: str


def wait_passively() -> None:
    """Let OpenMP's threads sleep at the end of a step instead of spinning, unless the environment says otherwise.

    Call it before torch and FAISS are loaded, which is when they read the setting.  Each of the two brings an
    OpenMP of its own.  On busy cores, spinning threads of one keep the threads of the other, and of other
    processes, from their work: measured up to twenty times slower.  On quiet cores no cost was measurable.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def configure(precision: Precision) -> None:
    """Switch TF32 off where `precision` is exact, on otherwise."""
    import torch

    torch.backends.cuda.matmul.allow_tf32 = precision != "exact"
    torch.backends.cudnn.allow_tf32 = precision != "exact"


def use_threads(count: int | None = None) -> None:
    """Let torch, and FAISS on the calling thread, use `count` cores; without a count, as many as torch uses.

    OpenMP keeps the number of threads for each calling thread, and FAISS brings an OpenMP of its own: every
    thread that computes has to call this.
    """
    import torch
    from threadpoolctl import ThreadpoolController

    if count is not None:
        torch.set_num_threads(count)
    count = torch.get_num_threads()
    for library in ThreadpoolController().select(user_api="openmp").lib_controllers:
        library.set_num_threads(count)


def pick_device(name: str) -> "torch.device":
    """The device called `name`; `auto` is the first GPU if there is one, else the CPU.

    Raises `SettingError` for an unknown device or a GPU that does not exist.
    """
    import torch

    if name == "auto":
        return torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise SettingError(f"unknown device {name!r}; use auto, cpu, cuda or cuda:N") from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise SettingError(
            f"device {name!r} does not exist: torch sees {counted(torch.cuda.device_count(), 'GPU')}"
        )
    if device.type not in ("cpu", "cuda"):
        raise SettingError(f"device {name!r} is not supported; use auto, cpu, cuda or cuda:N")
    return device


def gpu_number(device: "torch.device") -> int | None:
    """The number that FAISS uses for a GPU; None for the CPU."""
    return (device.index or 0) if device.type == "cuda" else None


def packages() -> tuple[PackageVersion, ...]:
    """The versions of the packages that compute, for the manifest and for tables."""
    versions = [PackageVersion("python", platform.python_version())]
    for name in _PACKAGES:
        try:
            versions.append(PackageVersion(name, version(name)))
        except PackageNotFoundError:  # bundled without its metadata
            continue
    return tuple(versions)


def package_version() -> str:
    """This project's own version."""
    return version("resad")


def return_free_memory() -> None:
    """Give memory that this process has freed back to the system; does nothing where the C library cannot.

    Arrays that one thread makes and another frees leave holes in glibc's heap, which else stay with the process.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def peak_memory_bytes() -> int:
    """The largest resident memory this process has had so far.

    Linux's `ru_maxrss` is not used where possible: after fork and exec it starts at the parent's value.
    """
    peak = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(peak[1]) * 1024 if peak else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def available_bytes(proc: Path = _PROC, cgroup: Path = _CGROUP) -> int:
    """Memory that can still be allocated: the system's figure, or less where a container's limit is nearer."""
    free = re.search(r"MemAvailable:\s+(\d+) kB", (proc / "meminfo").read_text())
    system = int(free[1]) * 1024 if free else os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")
    limits = [
        _container_bytes(cgroup / "memory.max", cgroup / "memory.current", cgroup / "memory.stat"),
        _container_bytes(
            cgroup / "memory/memory.limit_in_bytes",
            cgroup / "memory/memory.usage_in_bytes",
            cgroup / "memory/memory.stat",
        ),
    ]
    return min([system, *(limit for limit in limits if limit is not None)])


def _container_bytes(limit: Path, used: Path, stat: Path) -> int | None:
    """Free bytes within a container's limit, file caches counted as free; None without a limit."""
    try:
        maximum, now = limit.read_text().strip(), int(used.read_text())
        cached = re.search(r"(?:total_)?inactive_file (\d+)", stat.read_text())
    except (OSError, ValueError):
        return None
    return None if maximum == "max" else max(int(maximum) - now + (int(cached[1]) if cached else 0), 0)
