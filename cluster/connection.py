"""An address -> a Ray cluster to work on.  The only file that knows Ray; it is imported when it is needed."""

import importlib
import logging
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from resad.errors import ResadError, SettingError

LOCAL: Final = "local"
"""The address that starts a cluster on this machine, for as long as the command runs."""
_LOOPBACK_ONLY: Final = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
"""Ray's name for whether nodes take part in clusters beyond the machine; on 0 they listen on 127.0.0.1 alone."""
_OBJECT_STORE: Final = 128 * 2**20
"""Bytes of a local cluster's object store: what passes by is small."""


class Gone(Exception):
    """A worker was lost: its process, its machine, or the way to it."""


@dataclass(frozen=True, slots=True)
class WorkerSize:
    """What each worker is given: CPU cores, and GPUs (0 or 1)."""

    cpus: int
    gpus: int


class Cluster:
    """A cluster that this process is connected to.

    Args:
        ray: the module, initialized.
    """

    def __init__(self, ray: Any) -> None:
        self._ray = ray

    def worker_size(self, cpus: int, *, gpu: bool | None) -> WorkerSize:
        """Of each worker; raises `SettingError` where GPUs are asked of a cluster without.

        Args:
            gpu: whether to compute on GPUs; None where there are any.
        """
        gpus = int(self._ray.cluster_resources().get("GPU", 0))
        if gpu and not gpus:
            raise SettingError("--device cuda: the cluster has no GPU")
        return WorkerSize(cpus, 1 if gpus and gpu is not False else 0)

    def workers(self, size: WorkerSize) -> int:
        """How many workers fit, node by node; raises `SettingError` where none does."""
        nodes = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        fitting = sum(_fitting(node, size) for node in nodes)
        if not fitting:
            largest = max((int(node.get("CPU", 0)) for node in nodes), default=0)
            raise SettingError(
                f"no node of the cluster has room for a worker of {size.cpus} CPU cores and {size.gpus} GPUs "
                f"(the largest of {len(nodes)} has {largest} cores); give a smaller --worker-cpus"
            )
        return fitting

    def begin(self, kind: type[Any], size: WorkerSize) -> Any:
        """A new actor of `kind`; Ray finds it a place, spread over the nodes."""
        actor = self._ray.remote(kind)
        options = actor.options(num_cpus=size.cpus, num_gpus=size.gpus, scheduling_strategy="SPREAD")
        return options.remote()

    def arrival(self, actor: Any) -> Any:
        """A call that ends when `actor` runs."""
        return actor.__ray_ready__.remote()

    def share(self, value: object) -> Any:
        """A reference to `value`, copied once to each node that asks for it."""
        return self._ray.put(value)

    def wait(self, calls: Sequence[Any], seconds: float | None, *, all_of_them: bool = False) -> list[Any]:
        """Those of `calls` that have ended, at least one (or all) unless the time is over."""
        if not calls:
            return []
        wanted = len(calls) if all_of_them else 1
        ended, _ = self._ray.wait(list(calls), num_returns=wanted, timeout=seconds)
        return list(ended)

    def result(self, call: Any) -> Any:
        """What a call came to.

        Raises:
            Gone: the worker was lost.
            Exception: what the worker raised.
        """
        exceptions = self._ray.exceptions
        try:
            return self._ray.get(call)
        except exceptions.RayTaskError as error:
            cause = error.cause
            raise (cause if isinstance(cause, ResadError | OSError) else error) from None
        except exceptions.RayError as error:
            raise Gone(type(error).__name__) from error

    def end(self, actor: Any) -> None:
        """Make sure that a worker is no more."""
        self._ray.kill(actor)


@contextmanager
def connected(address: str, *, cpus: int | None = None) -> Iterator[Cluster]:
    """The cluster at `address`: `auto`, `local`, or HOST:PORT of its head, where this machine is one of its nodes.

    Args:
        cpus: cores of a `local` cluster; all unless given.
    Raises:
        SettingError: Ray is not installed, or there is no such cluster.
    """
    if address == LOCAL:
        # Read when Ray is loaded: without it every port of a cluster on one machine can be reached from others.
        os.environ[_LOOPBACK_ONLY] = "0"
    ray = _ray()
    if address.startswith("ray://"):
        raise SettingError(
            f"--cluster {address}: Ray Client is not supported; run this command on a node of the cluster, with "
            "--cluster auto"
        )
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    before = signal.getsignal(signal.SIGTERM)
    try:
        _join(ray, address, cpus)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise SettingError(
            f"--cluster {address}: no Ray cluster can be reached there ({str(error).splitlines()[0]}); start one "
            f"with `ray start --head`, or take --cluster {LOCAL}"
        ) from error
    finally:
        # Ray ends the process on SIGTERM in a way of its own; a stopped command ends as it does on one machine.
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)
    try:
        yield Cluster(ray)
    finally:
        ray.shutdown()


def _join(ray: Any, address: str, cpus: int | None) -> None:
    if address == LOCAL:
        ray.init(
            address="local", num_cpus=cpus, include_dashboard=False, object_store_memory=_OBJECT_STORE,
            log_to_driver=False, logging_level=logging.ERROR,
        )  # fmt: skip
    else:
        ray.init(
            address=address, log_to_driver=False, logging_level=logging.ERROR,
            runtime_env={"env_vars": {"OMP_WAIT_POLICY": os.environ.get("OMP_WAIT_POLICY", "PASSIVE")}},
        )  # fmt: skip


def _ray() -> Any:
    try:
        return importlib.import_module("ray")
    except ImportError as error:
        raise SettingError("--cluster needs Ray, which is not installed: pip install 'resad[cluster]'") from error


def _fitting(node: dict[str, float], size: WorkerSize) -> int:
    by_cpu = int(node.get("CPU", 0)) // size.cpus
    return min(by_cpu, int(node.get("GPU", 0)) // size.gpus) if size.gpus else by_cpu
