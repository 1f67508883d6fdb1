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
from indexer.build.build import BuildOrder
from indexer.build.extraction import FITTED, batch_size, fitted_encoders
from indexer.build.forecast import Room, room
from indexer.build.state import Inputs, Work, inputs_of
from indexer.coreset import projected_features
from indexer.photos.listing import ReferencePhoto
from indexer.scoring import write_whole
from resad.backbone import Backbone, save_backbone
from resad.encoder import Encoder, Trunk
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


def room_of(order: BuildOrder) -> Room:
    """Of this process, which computes next to nothing."""
    return room(order.root, torch.device("cpu"), order.max_memory)


def inputs_for(
    workers: Workers, order: BuildOrder, listed: Sequence[ReferencePhoto], backbone: Backbone
) -> Inputs:
    """What decides which features come out."""
    return inputs_of(order.config, order.limits, backbone.weights_sha256, workers.kind, listed, crops=False)


def batch_of(workers: Workers) -> int:
    """Photographs that a worker encodes together."""
    return batch_size([torch.device(workers.kind)])


def fitted_encoder(order: BuildOrder, backbone: Backbone, work: Work) -> Encoder:
    """The driver's own encoder, with what is fitted on the first photographs."""
    trunk = Trunk(backbone, order.config, order.device)
    (encoder,) = fitted_encoders(
        [trunk], order.photos, work.listed, order.limits, work.folder, FITTED, strict=order.strict
    )
    return encoder


def task_for(
    workers: Workers, order: BuildOrder, work: Work, inputs: Inputs, backbone: Backbone, encoder: Encoder
) -> Task:
    """What each worker begins with; the name of this run's folders is in the work folder."""
    place = (order.root / order.name).absolute()
    file = work.folder / _RUN
    if not file.is_file():
        write_whole(file, secrets.token_hex(4).encode())
    with TemporaryDirectory() as folder:
        save_backbone(backbone, Path(folder) / BACKBONE_FILE)
        weights = (Path(folder) / BACKBONE_FILE).read_bytes()
    return Task(
        inputs=inputs,
        backbone=weights,
        whitening=encoder.whitening.to_bytes() if encoder.whitening else None,
        index=sha256(str(place).encode()).hexdigest()[:12],
        run=file.read_text(),
        scratch=workers.scratch,
        threads=workers.size.cpus,
        block_rows=projected_features.BLOCK_ROWS,
    )
