"""Connection to a Ray cluster, and a pool of workers on it; lost workers are replaced.

The only file of builds and scoring that knows Ray, which is imported when a cluster is asked for.
"""

import importlib
import logging
import os
import signal
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Generic, NamedTuple, TypeVar

from resad_client.text import counted

from resad.errors import ResadError, SettingError

LOCAL: Final = "local"
"""The address that starts a cluster on this machine, for as long as the command runs."""
_LOOPBACK_ONLY: Final = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
"""Ray's name for whether nodes join clusters beyond the machine; with 0 they listen on 127.0.0.1 alone."""
_OBJECT_STORE: Final = 128 * 2**20
"""Bytes of a local cluster's object store, through which only small objects pass."""
_FIRST_WORKER_S: Final = 180.0
"""Seconds within which the first worker must be ready."""
_CLEAN_UP_S: Final = 30.0
"""Seconds for the workers to delete their folders."""
_LOSSES_PER_WORKER: Final = 3

_Key = TypeVar("_Key")


class WorkerLost(Exception):
    """A worker is gone: its process, its machine, or the network between."""


@dataclass(frozen=True, slots=True)
class WorkerSize:
    """Resources of each worker: CPU cores, and GPUs (0 or 1)."""

    cpus: int
    gpus: int


class Cluster:
    """A Ray cluster that this process is connected to.

    Args:
        ray: the module, initialized.
    """

    def __init__(self, ray: Any) -> None:
        self._ray = ray

    def worker_size(self, cpus: int, *, gpu: bool | None) -> WorkerSize:
        """Resources of each worker; raises `SettingError` where GPUs are asked of a cluster without.

        Args:
            gpu: whether to compute on GPUs; None where the cluster has any.
        """
        gpus = int(self._ray.cluster_resources().get("GPU", 0))
        if gpu and not gpus:
            raise SettingError("--device cuda: the cluster has no GPU")
        return WorkerSize(cpus, 1 if gpus and gpu is not False else 0)

    def capacity(self, size: WorkerSize) -> int:
        """Number of workers of this size that fit; raises `SettingError` where none does."""
        nodes = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        workers = sum(_node_capacity(node, size) for node in nodes)
        if not workers:
            largest = max((int(node.get("CPU", 0)) for node in nodes), default=0)
            raise SettingError(
                f"no node of the cluster has room for a worker of {counted(size.cpus, 'CPU core')} and "
                f"{counted(size.gpus, 'GPU')} (the largest of {len(nodes)} has {largest} cores); give a smaller "
                "--worker-cpus"
            )
        return workers

    def start_actor(self, actor_class: type[Any], size: WorkerSize) -> Any:
        """A new actor; Ray places it, spread over the nodes."""
        actor = self._ray.remote(actor_class)
        options = actor.options(num_cpus=size.cpus, num_gpus=size.gpus, scheduling_strategy="SPREAD")
        return options.remote()

    def ready_call(self, actor: Any) -> Any:
        """A call that completes when the actor runs."""
        return actor.__ray_ready__.remote()

    def put(self, value: object) -> Any:
        """A reference to `value`, which is copied once to each node that asks for it."""
        return self._ray.put(value)

    def wait(self, calls: Sequence[Any], seconds: float | None, *, for_all: bool = False) -> list[Any]:
        """The completed ones of `calls`: at least one (or all), unless the time is over."""
        if not calls:
            return []
        count = len(calls) if for_all else 1
        completed, _ = self._ray.wait(list(calls), num_returns=count, timeout=seconds)
        return list(completed)

    def result(self, call: Any) -> Any:
        """The value of a call.

        Raises:
            WorkerLost: the worker is gone.
            Exception: what the worker raised.
        """
        exceptions = self._ray.exceptions
        try:
            return self._ray.get(call)
        except exceptions.RayTaskError as error:
            cause = error.cause
            raise (cause if isinstance(cause, ResadError | OSError) else error) from None
        except exceptions.RayError as error:
            raise WorkerLost(type(error).__name__) from error

    def kill(self, actor: Any) -> None:
        """End an actor, whatever it does."""
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
    ray = _import_ray()
    if address.startswith("ray://"):
        raise SettingError(
            f"--cluster {address}: Ray Client is not supported; run this command on a node of the cluster, with "
            "--cluster auto"
        )
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    handler = signal.getsignal(signal.SIGTERM)
    try:
        _connect(ray, address, cpus)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise SettingError(
            f"--cluster {address}: no Ray cluster can be reached there ({str(error).splitlines()[0]}); start one "
            f"with `ray start --head`, or take --cluster {LOCAL}"
        ) from error
    finally:
        # Ray installs its own handler of SIGTERM; a stopped command ends as it does on one machine.
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, handler)
    try:
        yield Cluster(ray)
    finally:
        ray.shutdown()


def _connect(ray: Any, address: str, cpus: int | None) -> None:
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


def _import_ray() -> Any:
    try:
        return importlib.import_module("ray")
    except ImportError as error:
        raise SettingError("--cluster needs Ray, which is not installed: pip install 'resad[cluster]'") from error


def _node_capacity(node: dict[str, float], size: WorkerSize) -> int:
    by_cpu = int(node.get("CPU", 0)) // size.cpus
    return min(by_cpu, int(node.get("GPU", 0)) // size.gpus) if size.gpus else by_cpu


@dataclass(frozen=True, slots=True)
class PoolOptions:
    """Which workers a command uses.

    limit: most workers; as many as fit unless given.  scratch: a folder on each machine's own disk; the system's
    temporary one unless given.
    """

    cluster: Cluster
    size: WorkerSize
    limit: int | None = None
    scratch: Path | None = None

    @property
    def count(self) -> int:
        """Number of workers; raises `SettingError` where none fits."""
        capacity = self.cluster.capacity(self.size)
        return capacity if self.limit is None else min(capacity, self.limit)

    @property
    def device(self) -> str:
        """Kind of device that the workers compute on: cuda or cpu."""
        return "cuda" if self.size.gpus else "cpu"


@dataclass(frozen=True, slots=True)
class WorkerInfo:
    """What a worker says of itself.  node: its machine's name.  folder: where it writes, if it does."""

    node: str
    process: int
    folder: Path | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Worker:
    """A worker that is ready.  number: unique in the pool; a replacement gets a new one."""

    number: int
    actor: Any
    info: WorkerInfo


class Call(NamedTuple, Generic[_Key]):
    """A method call on a worker.  key: identifies the reply."""

    worker: Worker
    key: _Key
    method: str
    arguments: tuple[Any, ...]


class Reply(NamedTuple, Generic[_Key]):
    """The value of a call.  lost: the worker was lost, and there is no value."""

    worker: Worker
    key: _Key
    value: Any
    lost: bool


class WorkerPool:
    """Workers on a cluster, all with the same task.

    Args:
        actor_class: of the workers; the pool calls `start(task)`, which returns `WorkerInfo`, and `clean_up()` at
            the end.
        count: number of workers.
        max_losses: workers that may be lost before the pool gives up; three for each worker unless given.
    """

    def __init__(
        self,
        cluster: Cluster,
        actor_class: type[Any],
        task: object,
        size: WorkerSize,
        count: int,
        max_losses: int | None = None,
    ) -> None:
        self.workers: list[Worker] = []
        self.count = count
        self.losses = 0
        self._cluster = cluster
        self._actor_class = actor_class
        self._max_losses = _LOSSES_PER_WORKER * count if max_losses is None else max_losses
        self._task = cluster.put(task)
        self._size = size
        self._waiting_for_resources: dict[Any, Any] = {}
        """Calls that complete when an actor runs, with the actor, which has made nothing and may be killed."""
        self._starting: dict[Any, Any] = {}
        """Calls of `start`, with the actor."""
        self._next_number = 0
        for _ in range(count):
            self._request_worker()

    def __enter__(self) -> "WorkerPool":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the workers.  Their folders are deleted where a build on one machine would delete its own."""
        try:
            if error is None or isinstance(error, ResadError):
                self._clean_up()
        finally:
            ready = (worker.actor for worker in self.workers)
            for actor in [*self._waiting_for_resources.values(), *self._starting.values(), *ready]:
                self._cluster.kill(actor)

    def put(self, value: object) -> Any:
        """A reference to `value`, which is copied once to each node that asks for it."""
        return self._cluster.put(value)

    def submit(self, call: Call[_Key]) -> Any:
        """Start a call; returns what to wait for."""
        return getattr(call.worker.actor, call.method).remote(*call.arguments)

    def wait(self, calls: Iterable[Any]) -> list[Any]:
        """The completed ones of `calls`; empty where only a new worker has become ready."""
        pending = {*calls}
        if not self.workers:
            self._wait_for_first()
        if not pending:
            return []
        completed = self._cluster.wait([*pending, *self._pending_starts()], None)
        self._continue_starts(completed)
        return [call for call in completed if call in pending]

    def reply(self, call: Call[_Key], completed: Any) -> Reply[_Key]:
        """The reply of a completed call.  Replaces a lost worker.  Raises what the worker raised."""
        try:
            return Reply(call.worker, call.key, self._cluster.result(completed), lost=False)
        except WorkerLost:
            self._replace(call.worker)
            return Reply(call.worker, call.key, None, lost=True)

    def call_all(self, calls: Iterable[Call[_Key]]) -> Iterator[Reply[_Key]]:
        """Start all calls at once; the replies as they come."""
        pending = {self.submit(call): call for call in calls}
        while pending:
            for completed in self.wait(pending):
                yield self.reply(pending.pop(completed), completed)

    def _clean_up(self) -> None:
        """An actor runs its calls in order: one still in `start` deletes afterwards what that makes."""
        actors = [*self._starting.values(), *(worker.actor for worker in self.workers)]
        self._cluster.wait([actor.clean_up.remote() for actor in actors], _CLEAN_UP_S, for_all=True)

    def _request_worker(self) -> None:
        actor = self._cluster.start_actor(self._actor_class, self._size)
        self._waiting_for_resources[self._cluster.ready_call(actor)] = actor

    def _pending_starts(self) -> list[Any]:
        return [*self._waiting_for_resources, *self._starting]

    def _continue_starts(self, completed: Iterable[Any]) -> None:
        """Call `start` on actors that run now, and add those that have started to the workers."""
        for call in completed:
            if call in self._waiting_for_resources:
                actor = self._waiting_for_resources.pop(call)
                self._starting[actor.start.remote(self._task)] = actor
            elif call in self._starting:
                self._add(self._starting.pop(call), call)

    def _add(self, actor: Any, call: Any) -> None:
        try:
            info: WorkerInfo = self._cluster.result(call)
        except WorkerLost:
            self._count_loss()
            self._request_worker()
            return
        self.workers.append(Worker(self._next_number, actor, info))
        self._next_number += 1

    def _wait_for_first(self) -> None:
        deadline = time.monotonic() + _FIRST_WORKER_S
        while not self.workers:
            seconds = deadline - time.monotonic()
            if seconds <= 0:
                raise SettingError(
                    f"no worker of the cluster has started within {_FIRST_WORKER_S:.0f} s: each needs "
                    f"{counted(self._size.cpus, 'CPU core')} and {counted(self._size.gpus, 'GPU')}; `ray status` "
                    "says what is free"
                )
            self._continue_starts(self._cluster.wait(self._pending_starts(), seconds))

    def _replace(self, worker: Worker) -> None:
        if worker in self.workers:
            self.workers.remove(worker)
            self._cluster.kill(worker.actor)
            self._count_loss()
            self._request_worker()

    def _count_loss(self) -> None:
        self.losses += 1
        if self.losses > self._max_losses:
            raise SettingError(
                f"{counted(self.losses, 'worker')} lost, of {self.count} that work together; the cluster's own "
                "log says why (often: no memory left)"
            )
