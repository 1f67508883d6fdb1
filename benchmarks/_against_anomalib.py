"""One process that scores prepared photographs, ours or anomalib's, and prints its seconds and its peak memory.

Started by `benchmarks.search`: `python benchmarks/_against_anomalib.py SIDE FOLDER`, anomalib's with a Python that
has anomalib; it imports nothing of this project there.  FOLDER holds `bank.npy` (M, D), `photos.npy` (n, S, S, 3)
and `trunk.safetensors`, a ResNet-18's.
"""

import json
import sys
import time
from collections.abc import Callable
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

    from benchmarks._color import no_provenance
    from resad.backbone import load_backbone
    from resad.config import BackboneConfig
    from resad.detector import Detector
    from resad.encoder import Encoder, Trunk
    from resad.field_of_view import FieldOfView
    from resad.memory_bank import MemoryBank
    from resad.preparation import Frame, PreparedPhoto
    from resad.presets import preset
    from resad.search.plan import SearchPlan

    config = replace(preset("patchcore"), backbone=BackboneConfig("resnet18"))
    network = Trunk(load_backbone(config.backbone, str(trunk)), config, torch.device("cpu"))
    chosen: Any = kind
    memories = MemoryBank(bank, no_provenance(len(bank)), plan=SearchPlan(kind=chosen))
    detector = Detector(Encoder(network, None), memories)

    def score(pixels: NDArray[np.uint8]) -> float:
        side = len(pixels)
        frame = Frame(side, side, 0.0, 0.0, float(side), float(side), side)
        field = FieldOfView(side / 2, side / 2, side, 0.0, 0.0, float(side), float(side), found=False)
        photo = PreparedPhoto(pixels, np.ones((side, side), dtype=bool), frame, field, "0" * 64)
        return detector.detect([photo])[0].image_score

    return score


def main(side: str, folder: Path) -> None:
    """Score every photo once, after one that is not counted."""
    bank, photos = np.load(folder / "bank.npy"), np.load(folder / "photos.npy")
    trunk = folder / "trunk.safetensors"
    score = anomalib_scorer(bank, trunk) if side == "anomalib" else our_scorer(bank, trunk, side)
    score(photos[0])
    seconds, cpu_seconds, scores = [], [], []
    for pixels in photos:
        began, cpu = time.perf_counter(), time.process_time()
        scores.append(score(pixels))
        seconds.append(time.perf_counter() - began)
        cpu_seconds.append(time.process_time() - cpu)
    # Not ru_maxrss, which begins at what the parent held.
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    peak = int(status["VmHWM"].split()[0]) * 1024
    times = {"seconds": float(np.median(seconds)), "cpu_seconds": float(np.median(cpu_seconds))}
    print(json.dumps({**times, "peak_bytes": peak, "scores": scores}))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
