"""Options of the commands that can work on a Ray cluster."""

from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Annotated

import typer

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


def over_cluster() -> ModuleType:
    """The Ray add-on's commands: named, because nothing imports `cluster`."""
    return import_module("cluster.commands")
