"""One side of a comparison with anomalib, in a process of its own; prints one line of JSON.

Started by `benchmarks.coreset`, `benchmarks.search` and `benchmarks.peers` with `--anomalib PYTHON`, a Python that
has anomalib:

    python benchmarks/_anomalib.py greedy anomalib POINTS.npy PICKS
    python -m benchmarks._anomalib greedy resad POINTS.npy PICKS FIRST
    python benchmarks/_anomalib.py patchcore anomalib FOLDER
    python -m benchmarks._anomalib patchcore SEARCH FOLDER
    python benchmarks/_anomalib.py photos torch|openvino BACKBONE SIDE MEMORIES FOLDER

POINTS.npy holds (N, d).  FOLDER holds `bank.npy` (M, D), `photos.npy` (n, S, S, 3) and `trunk.safetensors`, a
ResNet-18's.  For `photos` it holds `references/` and `photos/`, JPEGs, and `BACKBONE.safetensors` if there are
weights; without them they are random.  anomalib's side imports nothing of this project.
"""

import json
import os
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Score = Callable[[NDArray[np.uint8]], float]
"""Prepared pixels (S, S, 3) -> image score."""


def anomalib_scorer(bank: NDArray[np.float32], trunk: Path) -> Score:
    """PatchCore as anomalib runs it: one neighbor, layers 2 and 3 of the same ResNet-18."""
    import torch
    from anomalib.models.image.patchcore.torch_model import PatchcoreModel
    from safetensors.torch import load_file

    model = PatchcoreModel(layers=["layer2", "layer3"], backbone="resnet18", pre_trained=False, num_neighbors=1)
    model.feature_extractor.feature_extractor.load_state_dict(load_file(trunk), strict=False)
    model.memory_bank = torch.from_numpy(bank)
    model.eval()
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])

    def score(pixels: NDArray[np.uint8]) -> float:
        image = (torch.from_numpy(pixels).float() / 255 - mean) / std  # as its pre-processor does
        image = image.permute(2, 0, 1)[None]
        with torch.inference_mode():
            return float(model(image).pred_score)

    return score


def our_scorer(bank: NDArray[np.float32], trunk: Path, kind: str) -> Score:
    """The preset `patchcore` on the same ResNet-18, with the search called `kind`."""
    from dataclasses import replace

    import torch

    from benchmarks._bench import placeholder_provenance
    from resad.backbone import load_backbone
    from resad.config import BackboneConfig, preset
    from resad.detector import Detector
    from resad.encoder import Encoder, Trunk
    from resad.field_of_view import FieldOfView
    from resad.memory_bank import MemoryBank
    from resad.preparation import Frame, PreparedPhoto
    from resad.search.plan import SearchPlan

    config = replace(preset("patchcore"), backbone=BackboneConfig("resnet18"))
    network = Trunk(load_backbone(config.backbone, str(trunk)), config, torch.device("cpu"))
    chosen: Any = kind
    memories = MemoryBank(bank, placeholder_provenance(len(bank)), plan=SearchPlan(kind=chosen))
    detector = Detector(Encoder(network), memories)

    def score(pixels: NDArray[np.uint8]) -> float:
        side = len(pixels)
        frame = Frame(side, side, 0.0, 0.0, float(side), float(side), side)
        field = FieldOfView(side / 2, side / 2, side, 0.0, 0.0, float(side), float(side), found=False)
        photo = PreparedPhoto(pixels, np.ones((side, side), dtype=bool), frame, field, "0" * 64)
        return detector.detect([photo])[0].image_score

    return score


def time_patchcore(side: str, folder: Path) -> dict[str, Any]:
    """Score every prepared photo once."""
    bank, photos = np.load(folder / "bank.npy"), np.load(folder / "photos.npy")
    trunk = folder / "trunk.safetensors"
    score = anomalib_scorer(bank, trunk) if side == "anomalib" else our_scorer(bank, trunk, side)
    return _timed([partial(score, pixels) for pixels in photos])


def time_anomalib_greedy(file: str, picks: int) -> dict[str, Any]:
    """anomalib's KCenterGreedy; points with three axes, so that it does not project them."""
    import torch
    from anomalib.models.components.sampling.k_center_greedy import KCenterGreedy

    points = torch.from_numpy(np.load(file))
    torch.manual_seed(0)
    greedy = KCenterGreedy(points[:, :, None], (picks + 0.5) / len(points))
    before = _resident_bytes()
    began = time.perf_counter()
    rows = greedy.select_coreset_idxs()
    seconds = time.perf_counter() - began
    return {"seconds": seconds, "grown": _peak_bytes() - before, "rows": [int(row) for row in rows]}


def time_our_greedy(file: str, picks: int, first: int) -> dict[str, Any]:
    """The block-lazy greedy on the same points, from the same first pick."""
    import torch

    from indexer.coreset.k_center import greedy_k_center, shards_of
    from indexer.coreset.projected_features import BLOCK_ROWS

    points = torch.from_numpy(np.load(file))
    before = _resident_bytes()
    began = time.perf_counter()
    coreset = greedy_k_center(shards_of(points, 16 * BLOCK_ROWS), first, count=picks)
    seconds = time.perf_counter() - began
    return {"seconds": seconds, "grown": _peak_bytes() - before, "rows": coreset.rows.tolist()}


def time_photos(engine: str, backbone: str, side: int, memories: int, folder: Path) -> dict[str, Any]:
    """From a JPEG to anomalib's map: PatchCore with its own settings, by torch or from its OpenVINO export."""
    import torch
    from anomalib.models import Patchcore
    from PIL import Image
    from safetensors.torch import load_file

    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])

    def prepared(path: Path) -> torch.Tensor:
        with Image.open(path) as image:
            image.draft("RGB", (side, side))  # a JPEG is decoded no larger than needed
            small = image.convert("RGB").resize((side, side), Image.Resampling.BILINEAR)
        return ((torch.from_numpy(np.array(small)).float() / 255 - mean) / std).permute(2, 0, 1)[None]

    torch.manual_seed(0)
    plain = {"pre_processor": False, "post_processor": False, "visualizer": False, "evaluator": False}
    whole = Patchcore(backbone=backbone, pre_trained=False, **plain)
    model: Any = whole.model
    model.eval()
    weights = folder / f"{backbone}.safetensors"
    if weights.exists():
        model.feature_extractor.feature_extractor.load_state_dict(load_file(weights), strict=False)
    with torch.inference_mode():
        patches = torch.cat(
            [_embedding(model, prepared(path)) for path in sorted((folder / "references").iterdir())]
        )
    model.memory_bank = patches[torch.randperm(len(patches))[:memories]].clone()
    if engine == "torch":

        def score(path: Path) -> float:
            with torch.inference_mode():
                return float(model(prepared(path)).pred_score)
    else:
        import openvino

        one = {"dynamic_axes": None}  # its export of any number of photographs takes two alone
        name = f"{backbone}-{side}"
        exported = whole.to_openvino(folder, name, input_size=(side, side), onnx_kwargs=one)
        compiled = openvino.Core().compile_model(exported, "CPU", {"PERFORMANCE_HINT": "LATENCY"})

        def score(path: Path) -> float:
            return float(compiled([prepared(path).numpy()])["pred_score"].squeeze())

    return _timed([partial(score, path) for path in sorted((folder / "photos").iterdir())])


def _embedding(model: Any, image: Any) -> Any:
    """The patch features of one photograph, (N, D), as anomalib's own training gathers them."""
    features = model.feature_extractor(image)
    pooled = {layer: model.feature_pooler(feature) for layer, feature in features.items()}
    return model.reshape_embedding(model.generate_embedding(pooled))


def _timed(calls: list[Callable[[], float]]) -> dict[str, Any]:
    """Medians of the calls, after a first run that is not counted."""
    calls[0]()
    seconds, cpu_seconds, scores = [], [], []
    for call in calls:
        began, cpu = time.perf_counter(), time.process_time()
        scores.append(call())
        seconds.append(time.perf_counter() - began)
        cpu_seconds.append(time.process_time() - cpu)
    times = {"seconds": float(np.median(seconds)), "cpu_seconds": float(np.median(cpu_seconds))}
    return {**times, "peak_bytes": _peak_bytes(), "scores": scores}


def _resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _peak_bytes() -> int:
    """VmHWM: ru_maxrss would begin at the parent's."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status["VmHWM"].split()[0]) * 1024


def main(task: str, side: str, *arguments: str) -> None:
    """Run one side and print its figures."""
    if task == "patchcore":
        figures = time_patchcore(side, Path(arguments[0]))
    elif task == "photos":
        backbone, size, memories, folder = arguments
        figures = time_photos(side, backbone, int(size), int(memories), Path(folder))
    elif side == "anomalib":
        figures = time_anomalib_greedy(arguments[0], int(arguments[1]))
    else:
        figures = time_our_greedy(arguments[0], int(arguments[1]), int(arguments[2]))
    print(json.dumps(figures))


if __name__ == "__main__":
    main(*sys.argv[1:])
