"""A worker's first part: a piece's photographs and their features.

A worker writes into one folder on its node's own disk.  What another worker of the same node has left there of a
piece is taken up, so that a lost process costs less than a lost machine.
"""

import os
import shutil
import socket
import tempfile
import time
from dataclasses import replace
from math import ceil
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from cluster.crew import Hello
from cluster.messages import Chosen, Made, Task
from cluster.pieces import Piece
from indexer.build.extraction import batch_size, extract
from indexer.build.feature_store import FeatureStore
from indexer.build.forecast import Forecast, PhotoCounts, Sample, forecast, host_resources, measure_rates
from indexer.build.state import BuildState, Inputs, build_inputs, digest
from indexer.photos.listing import Skipped
from resad import runtime
from resad.backbone import load_backbone
from resad.encoder import Encoder, PatchFeatures, Trunk
from resad.errors import SettingError
from resad.loaded_index import BACKBONE_FILE

_PREFIX: Final = "resad-"


class FeatureWorker:
    """One GPU or some CPU cores, and a folder."""

    def __init__(self) -> None:
        self._works: dict[int, BuildState] = {}
        self._seconds, self._photos = 0.0, 0

    def begin(self, task: Task) -> Hello:
        """Load the trunk and make the folder; those of earlier builds of the same index go."""
        config = task.inputs.config
        runtime.configure(config.precision)
        runtime.use_threads(task.threads)
        self._task = task
        self._device = runtime.pick_device("cuda" if task.inputs.device == "cuda" else "cpu")
        self._folder = _folder(task)
        with tempfile.TemporaryDirectory() as place:
            file = Path(place) / BACKBONE_FILE
            file.write_bytes(task.backbone)
            backbone = self._backbone = load_backbone(config.backbone, str(file))
        self._encoder = Encoder(Trunk(backbone, config, self._device))
        mine = build_inputs(
            config, task.inputs.limits, backbone.weights_sha256, self._device.type, (), crops=False
        )
        _check_alike(mine, task.inputs)
        return Hello(socket.gethostname(), os.getpid(), self._folder)

    def extract(self, piece: Piece) -> Made:
        """The features of a piece, made or found in the folder."""
        work = self._works[piece.number] = self._work(piece)
        limits, began = self._task.inputs.limits, time.perf_counter()
        for _ in extract([self._encoder], limits, work, quietly, strict=False, look_up=lambda *_: None):
            pass
        self._seconds += time.perf_counter() - began
        self._photos += len(piece.photos)
        skipped = (one.path for one in work.left_aside if isinstance(one, Skipped))
        return Made(
            references=tuple(work.references),
            left_aside=tuple(work.left_aside),
            stored=tuple(work.stored()),
            dimension=work.store.dimension,
            unseen=next((path for path in skipped if not path.exists()), None),
        )

    def foresee(self, listed: int, in_all: int, neighbors: int, max_memory: int | None) -> Forecast | None:
        """What a worker's share of the build takes; None where it has no photograph yet.

        Args:
            listed: photographs of its share.
            in_all: photographs of all shares; the memories, which each worker gets, are those of all.
            neighbors: workers on this machine, which share its memory and its disk.
            max_memory: bytes for each worker, where it was said.
        """
        store = next((work.store for work in self._works.values() if len(work.store)), None)
        if store is None:
            return None
        sample = Sample(self._seconds / self._photos, (store.photo(0),))
        everything = PhotoCounts(in_all, 0, 0)
        whole, rates = measure_rates(self._task.inputs.config, self._backbone, self._device, sample, everything)
        share = listed / in_all
        task = replace(
            whole, photos=listed, to_encode=listed, patches=ceil(share * whole.patches),
            sampled=ceil(share * whole.sampled),
        )  # fmt: skip
        here = host_resources(self._folder, self._device, max_memory)
        memory = here.memory if max_memory is not None else here.memory // neighbors
        name = "a worker's share of its machine"
        return forecast(task, rates, replace(here, memory=memory, disk=here.disk // neighbors, limit_name=name))

    def features(self, chosen: Chosen) -> list[PatchFeatures]:
        """All features of some photographs."""
        return list(self._store(chosen))

    def gather(self, chosen: Chosen, rows: NDArray[np.int64]) -> tuple[NDArray[np.float32], NDArray[np.int16]]:
        """Features (M, D) and cells (M, 2) at some rows of the piece."""
        store = self._store(chosen)
        return store.gather(rows), store.cells(rows)

    def leave(self) -> None:
        """Delete the folder."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def _work(self, piece: Piece) -> BuildState:
        inputs = replace(self._task.inputs, photos=tuple(map(digest, piece.photos)))
        folder = self._folder / f"piece-{piece.number:06d}"
        batch = batch_size([self._device])
        try:
            return BuildState(folder, inputs, piece.photos, resume=True, batch=batch)
        except SettingError:  # what lies there is of something else
            return BuildState(folder, inputs, piece.photos, resume=False, batch=batch)

    def _store(self, chosen: Chosen) -> FeatureStore:
        whole = self._works[chosen.piece].store
        if len(chosen.photos) == len(whole):
            return whole
        some = FeatureStore(self._folder / f"piece-{chosen.piece:06d}" / "features")
        for number in chosen.photos:
            some.take_from(whole, number)
        return some


def _check_alike(mine: Inputs, theirs: Inputs) -> None:
    """Raise `SettingError` where this worker would compute other numbers than were asked for."""
    here = {one.name: one.version for one in mine.packages} | {"device": mine.device, "weights": mine.weights}
    asked = {one.name: one.version for one in theirs.packages} | {
        "device": theirs.device,
        "weights": theirs.weights,
    }
    for name in asked:
        if here.get(name) != asked[name]:
            raise SettingError(
                f"the worker on {socket.gethostname()} has {name} {here.get(name)}, where the build has "
                f"{asked[name]}: all machines of a cluster take the same image"
            )


def _folder(task: Task) -> Path:
    scratch = Path(tempfile.gettempdir()) if task.scratch is None else task.scratch
    folder = scratch / f"{_PREFIX}{task.index}-{task.run}"
    for other in scratch.glob(f"{_PREFIX}{task.index}-*"):
        if other != folder:
            shutil.rmtree(other, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    return folder


def quietly(steps: int) -> None:
    """The driver counts pieces."""
