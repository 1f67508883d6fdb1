"""Load an index: check its version's files, put its trunk and memory bank on the device, score its probe."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch

from resad import index, runtime
from resad.backbone import load_backbone
from resad.config import PhotoLimits, is_fingerprint
from resad.detector import Detector
from resad.encoder import Encoder, Trunk
from resad.errors import IndexInvalid, naming
from resad.examples import EXAMPLES_FILE, Examples, load_examples, no_examples
from resad.index import check_files
from resad.manifest import FEATURES, PHOTOS_FILE, Manifest, ReferenceRecord, read_records
from resad.memory_bank import MemoryBank
from resad.near_duplicates import NearDuplicateSearch
from resad.preparation import prepare

Run = Callable[[Callable[[], Any]], Any]
PROBE_FILE: Final = "probe.png"
BACKBONE_FILE: Final = "backbone.safetensors"
_PROBE_BOUND: Final = {"exact": 1e-3, "half": 2e-2}
"""Largest relative deviation of the probe's score: another kind of device rounds differently."""


@dataclass(frozen=True, slots=True, eq=False)
class LoadedIndex:
    """One version of an index.  photos: in the order of the memory bank's provenance.

    examples: what readers have taught it.  near_duplicates: finds the photograph of the index that another shows.
    """

    manifest: Manifest
    photos: tuple[ReferenceRecord, ...]
    detector: Detector
    examples: Examples
    near_duplicates: NearDuplicateSearch = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "near_duplicates", NearDuplicateSearch(self.photos))

    def with_examples(self, examples: Examples) -> "LoadedIndex":
        """The same version as if it had learned these examples and no others."""
        detector = Detector(self.detector.encoder, self.detector.bank, examples)
        return LoadedIndex(self.manifest, self.photos, detector, examples)


def load_index(path: Path, device: torch.device, *, run: Run = lambda work: work()) -> LoadedIndex:
    """Check and load ROOT/NAME (its live version) or ROOT/NAME/VERSION.

    The hash of kept features, which scoring does not read, is not checked here; `check_files` alone checks it.

    Args:
        run: runs the two steps that touch the device, for callers in which only one thread may do that.
    Raises:
        IndexInvalid: files missing, changed, of another format, or not made with the settings they state.
    """
    version = index.resolve(path)
    manifest = check_files(version, skip_hash=(f"{FEATURES}/",))
    config = manifest.config
    if not is_fingerprint(manifest.fingerprint, config, manifest.weights_sha256):
        raise IndexInvalid(f"{version}: the fingerprint does not belong to the settings in its manifest")
    backbone = load_backbone(config.backbone, str(version / BACKBONE_FILE))
    if backbone.weights_sha256 != manifest.weights_sha256:
        raise IndexInvalid(f"{version}: {BACKBONE_FILE} holds other weights than the manifest states")
    bank: MemoryBank = run(lambda: MemoryBank.load(version, gpu=runtime.gpu_number(device)))
    photos = read_records(version / PHOTOS_FILE)
    if len(bank) != manifest.counts.memories or len(photos) != manifest.counts.photos:
        raise IndexInvalid(
            f"{version}: {len(bank)} memories and {len(photos)} photos, "
            f"the manifest says {manifest.counts.memories} and {manifest.counts.photos}"
        )
    _check_provenance(version, manifest, bank)
    gpu = runtime.gpu_number(device)
    has_examples = any(file.name == EXAMPLES_FILE for file in manifest.files)
    examples = load_examples(version, bank.dimension, gpu) if has_examples else no_examples(bank.dimension, gpu)
    detector = run(lambda: Detector(Encoder(Trunk(backbone, config, device)), bank, examples.ready()))
    return LoadedIndex(manifest, photos, detector, examples)


def _check_provenance(version: Path, manifest: Manifest, bank: MemoryBank) -> None:
    """Raise `IndexInvalid` for memories of photographs or cells that the index does not have."""
    counts, origin = manifest.counts, bank.provenance
    inside = origin.cell.shape == (len(bank), 2) and bool(
        ((origin.photo >= 0) & (origin.photo < counts.photos)).all()
        and ((origin.cell >= 0) & (origin.cell < np.array(counts.grid))).all()
    )
    if not inside or bank.dimension != counts.dimension:
        raise IndexInvalid(
            f"{version}: its memories are not those of {counts.photos} photos on grids of {counts.grid[0]} x "
            f"{counts.grid[1]} cells with {counts.dimension} dimensions, as the manifest says"
        )


def score_probe(detector: Detector, folder: Path) -> float:
    """The image score of the drawn photograph inside the index."""
    preparation = detector.encoder.config.preparation
    with naming(folder / PROBE_FILE):
        probe = prepare(folder / PROBE_FILE, preparation, PhotoLimits())
    return detector.detect([probe])[0].image_score


def check_probe(loaded: LoadedIndex, path: Path) -> float:
    """Score the probe again: its relative deviation, or `IndexInvalid` if that exceeds the bound."""
    expected = loaded.manifest.probe_score
    score = score_probe(loaded.detector, index.resolve(path))
    deviation = abs(score - expected) / expected if expected > 0 else math.inf
    bound = _PROBE_BOUND[loaded.manifest.config.precision]
    if not deviation <= bound:  # also if it is NaN
        raise IndexInvalid(
            f"{path}: the probe photograph scores {score:.4g}, and {expected:.4g} when the index was built; "
            f"{deviation:.1e} apart, the bound is {bound:.0e}"
        )
    return deviation
