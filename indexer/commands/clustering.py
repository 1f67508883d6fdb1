"""Options of the commands that can work on a Ray cluster, and the way onto it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from indexer.cluster.connection import connected
from indexer.cluster.orders import Workers

ClusterAddress = Annotated[
    str | None,
    typer.Option(
        "--cluster",
        help="Work on a Ray cluster: auto (the one this machine belongs to), HOST:PORT of its head, or local (one "
        "for this command alone). Needs the extra cluster.",
    ),
]
WorkerCpus = Annotated[
    int,
    typer.Option("--worker-cpus", min=1, help="CPU cores of each worker of a cluster; with GPUs also one GPU."),
]
MostWorkers = Annotated[
    int | None, typer.Option("--workers", min=1, help="At most so many workers; as many as fit unless given.")
]
Scratch = Annotated[
    Path | None,
    typer.Option(help="Folder on each node's own disk for features; the system's temporary one unless given."),
]


@contextmanager
def workers_at(
    address: str, device: str, *, cpus: int, most: int | None, scratch: Path | None = None
) -> Iterator[Workers]:
    """The workers of the cluster at `address`; raises `SettingError` where there is none, or no Ray.

    Args:
        device: `auto` computes on GPUs where the cluster has any.
    """
    with connected(address) as cluster:
        size = cluster.worker_size(cpus, gpu=None if device == "auto" else device.startswith("cuda"))
        yield Workers(cluster, size, most, scratch)
