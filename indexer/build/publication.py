"""Writes and publishes a version: memory bank, calibration, records, and shared files."""

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path
from typing import Final

from indexer.build.feature_store import FeatureStore, all_files
from indexer.calibration.leave_out import LEFT_OUT_FILE as LEFT_OUT_FILE
from indexer.calibration.leave_out import LeftOut, patch_distances_bytes
from indexer.coreset.selection import Selection
from resad import index, runtime
from resad.backbone import Backbone, save_backbone
from resad.config import fingerprint
from resad.detector import Detector
from resad.encoder import Encoder
from resad.index import publish
from resad.loaded_index import BACKBONE_FILE, PROBE_FILE, score_probe
from resad.manifest import (
    FEATURES,
    FORMAT,
    PHOTOS_FILE,
    Counts,
    FileRecord,
    HistoryEntry,
    Manifest,
    Quality,
    ReferenceRecord,
    StageTime,
    write_records,
)
from resad.memory_bank import MemoryBank
from resad.quality import quality_limits
from resad.search.plan import SearchRecord

_PROBE: Final = resources.files("indexer") / "probe.png"
"""A drawn photograph (`lab.drawing`, seed 0) whose score tells whether a host computes the same numbers."""


@dataclass(frozen=True, slots=True, eq=False)
class VersionContent:
    """Everything that a version is made of.

    grid: (h, w) cells.  features: if they are to be kept.  pictures: of the photographs, if they are to be kept:
    name -> path.
    """

    backbone: Backbone
    encoder: Encoder
    bank: MemoryBank
    selection: Selection
    left_out: LeftOut
    records: tuple[ReferenceRecord, ...]
    grid: tuple[int, int]
    search: SearchRecord | None = None
    features: FeatureStore | None = None
    pictures: Mapping[str, Path] = field(default_factory=dict)


def publish_version(
    content: VersionContent, staging: Path, place: Path, weights: str, times: Sequence[StageTime]
) -> tuple[Path, Manifest]:
    """Write the version's files into `staging`, then publish them as the live version of `place` (ROOT/NAME)."""
    staging.mkdir()
    save_backbone(content.backbone, staging / BACKBONE_FILE)
    write_left_out([record.id for record in content.records], content.left_out, staging)
    link_files(content.pictures, staging)
    content.bank.save(staging)
    if content.features is not None:
        link_files(feature_files(content.records, content.features), staging)
    write_records(content.records, staging / PHOTOS_FILE)
    (staging / PROBE_FILE).write_bytes(_PROBE.read_bytes())
    score = score_probe(Detector(content.encoder, content.bank), staging)

    def describe(files: tuple[FileRecord, ...]) -> Manifest:
        return _manifest(content, place.name, weights, times, score, files)

    return publish(staging, place, describe)


def write_left_out(ids: Sequence[str], left_out: LeftOut, staging: Path) -> None:
    """Write the left-out distances of photographs with these ids."""
    (staging / LEFT_OUT_FILE).write_bytes(patch_distances_bytes(ids, left_out.patch_distances))


def link_files(files: Mapping[str, Path], staging: Path) -> None:
    """Put `files` (name in the version -> path) into `staging`, as hard links if the disk has them.

    A version never changes, so that two versions may share a file; either can be deleted.
    """
    for name, source in files.items():
        target = staging / name
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(source, target)
        except OSError:
            shutil.copyfile(source, target)


def feature_files(records: Sequence[ReferenceRecord], store: FeatureStore) -> dict[str, Path]:
    """Name in the version -> path of all files in `store`, which has the photographs of `records`."""
    return {
        name.as_posix(): source
        for number, record in enumerate(records)
        for name, source in zip(all_files(Path(FEATURES) / record.id), all_files(store.place(number)), strict=True)
        if source.is_file()
    }


def history_entry(operation: str, from_version: str | None, also_from: str | None = None) -> HistoryEntry:
    """A history entry for an operation at the present time."""
    at = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"
    return HistoryEntry(operation, from_version, at, runtime.package_version(), also_from)


def _manifest(
    content: VersionContent,
    name: str,
    weights: str,
    times: Sequence[StageTime],
    probe_score: float,
    files: tuple[FileRecord, ...],
) -> Manifest:
    config, bank = content.encoder.config, content.bank
    counts = Counts(
        photos=len(content.records),
        patches=sum(record.patches for record in content.records),
        memories=len(bank),
        dimension=bank.dimension,
        grid=content.grid,
    )
    quality = Quality(
        covering_radius=content.left_out.covering_radius,
        projected_radius=content.selection.radius,
        projected_dimension=content.selection.dimension,
        stages=tuple(times),
        peak_memory_bytes=runtime.peak_memory_bytes(),
    )
    return Manifest(
        format=FORMAT,
        name=name,
        version=index.new_version(),
        history=(history_entry("build", None),),
        config=config,
        fingerprint=fingerprint(config, content.backbone.weights_sha256),
        weights=weights if not weights.endswith((".safetensors", ".pth", ".pt")) else "file",
        weights_sha256=content.backbone.weights_sha256,
        device=str(content.encoder.device),
        counts=counts,
        calibration=content.left_out.calibration,
        quality=quality,
        photo_quality=quality_limits([record.quality for record in content.records]),
        search=content.search,
        # Photographs that were set aside have the ids after the others: they are not given again.
        numbered=len(content.records) + len(aside) if (aside := content.left_out.calibration.set_aside) else None,
        probe_score=probe_score,
        packages=runtime.packages(),
        files=files,
    )
