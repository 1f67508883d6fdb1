"""Who works on a build, and what all of them are told."""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from cluster.connection import Cluster, WorkerSize
from cluster.messages import Task
from indexer.build.build import BuildOptions
from indexer.build.extraction import batch_size
from indexer.build.forecast import HostResources, host_resources
from indexer.build.state import BuildState, Inputs, build_inputs
from indexer.coreset import projected_features
from indexer.photos.listing import ReferencePhoto
from resad.backbone import Backbone, save_backbone
from resad.files import write_atomically
from resad.loaded_index import BACKBONE_FILE

_RUN = "cluster-run"
"""The file in the work folder that names the workers' folders."""


@dataclass(frozen=True, slots=True)
class Workers:
    """What works on a build.  most: of them; as many as fit unless given.

    scratch: a folder on each machine's own disk; the system's temporary one unless given.
    """

    cluster: Cluster
    size: WorkerSize
    most: int | None = None
    scratch: Path | None = None

    @property
    def count(self) -> int:
        """Of all of them."""
        fitting = self.cluster.workers(self.size)
        return fitting if self.most is None else min(fitting, self.most)

    @property
    def kind(self) -> str:
        """Of the device that they compute on."""
        return "cuda" if self.size.gpus else "cpu"


def room_of(order: BuildOptions) -> HostResources:
    """Of this process, which computes next to nothing."""
    return host_resources(order.root, torch.device("cpu"), order.max_memory)


def inputs_for(
    workers: Workers, order: BuildOptions, listed: Sequence[ReferencePhoto], backbone: Backbone
) -> Inputs:
    """What decides which features come out."""
    return build_inputs(order.config, order.limits, backbone.weights_sha256, workers.kind, listed, crops=False)


def batch_of(workers: Workers) -> int:
    """Photographs that a worker encodes together."""
    return batch_size([torch.device(workers.kind)])


def task_for(workers: Workers, order: BuildOptions, work: BuildState, inputs: Inputs, backbone: Backbone) -> Task:
    """What each worker begins with; the name of this run's folders is in the work folder."""
    place = (order.root / order.name).absolute()
    file = work.folder / _RUN
    if not file.is_file():
        write_atomically(file, secrets.token_hex(4).encode())
    with TemporaryDirectory() as folder:
        save_backbone(backbone, Path(folder) / BACKBONE_FILE)
        weights = (Path(folder) / BACKBONE_FILE).read_bytes()
    return Task(
        inputs=inputs,
        backbone=weights,
        index=sha256(str(place).encode()).hexdigest()[:12],
        run=file.read_text(),
        scratch=workers.scratch,
        threads=workers.size.cpus,
        block_rows=projected_features.BLOCK_ROWS,
    )
