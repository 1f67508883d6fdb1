"""A loaded index answers as the one that was built, and one that does not fit is refused."""

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from resad_client.records import Timings

from resad import index
from resad.calibration import DecisionRule
from resad.config import PhotoLimits
from resad.detector import Detection, Detector
from resad.engine import ScoreOptions, assemble
from resad.errors import IndexInvalid
from resad.loaded_index import LoadedIndex, check_probe, load_index
from resad.pictures.evidence import cell_under
from resad.preparation import PreparedPhoto, prepare
from tests.conftest import mirror_image
from tests.indexes import SETTINGS, build_small, without_levels

CPU = torch.device("cpu")
NO_TIME = Timings(0, 0)


@pytest.fixture(scope="module")
def loaded(small_index: Path) -> LoadedIndex:
    return load_index(small_index, CPU)


def detect(loaded: LoadedIndex, path: Path) -> tuple[PreparedPhoto, Detection]:
    photo = prepare(path, loaded.manifest.config.preparation, PhotoLimits())
    return photo, loaded.detector.detect([photo])[0]


def test_reference_photos_score_lower_against_their_own_memories(loaded: LoadedIndex, drawn: Path) -> None:
    """Left out, each photo scored as the manifest says; with its memories back it cannot score higher."""
    paths = sorted((drawn / "train/good").iterdir())
    for path, record in zip(paths, loaded.photos, strict=True):
        assert detect(loaded, path)[1].image_score <= record.score * (1 + 1e-5)


def test_evidence_is_the_nearest_memories_to_the_peak(older_index: Path, drawn: Path) -> None:
    loaded = load_index(older_index, CPU)  # whose level is low enough for findings at this rate
    photo, detection = detect(loaded, drawn / "test/lesion/drawn_0000.jpg")
    result = assemble(
        photo,
        detection,
        loaded,
        ScoreOptions(DecisionRule(fpr=0.9), evidence=4),
        timings=NO_TIME,
    )
    assert result.findings
    ids = {record.id for record in loaded.photos}
    k = loaded.manifest.config.search.neighbors
    for finding in result.findings:
        evidence = finding.evidence
        assert len(evidence) == 4
        assert {entry.photo for entry in evidence} <= ids
        assert [entry.distance for entry in evidence] == sorted(entry.distance for entry in evidence)
        # Between patch centers the map is interpolated, so the peak's own patch lies near it, not on it.
        assert sum(entry.distance for entry in evidence[:k]) / k == pytest.approx(finding.peak, rel=0.1)
    assert (
        assemble(
            photo,
            detection,
            loaded,
            ScoreOptions(DecisionRule(fpr=0.9), evidence=0),
            timings=NO_TIME,
        )
        .findings[0]
        .evidence
        == ()
    )


def test_a_photograph_and_its_mirror_image_score_alike_if_asked(drawn: Path, tmp_path: Path) -> None:
    report = build_small(drawn / "train/good", tmp_path, settings=(*SETTINGS, "search.mirrored=true"))
    loaded = load_index(report.version, CPU)
    assert check_probe(loaded, report.version) < 1e-6
    photo, detection = detect(loaded, drawn / "test/lesion/drawn_0000.jpg")
    (mirror_detection,) = loaded.detector.detect([mirror_image(photo)])
    assert mirror_detection.image_score == pytest.approx(detection.image_score, rel=1e-5)
    # Not the whole map: beyond the last patch the nearest one's value goes on, and of two as near only one does.
    width, mirror_cells = detection.patches.grid[1], mirror_detection.patches.cells.tolist()
    mirror_rows = [mirror_cells.index([y, width - 1 - x]) for y, x in detection.patches.cells.tolist()]
    np.testing.assert_allclose(mirror_detection.patch_distances[mirror_rows], detection.patch_distances, rtol=1e-5)
    for path, record in zip(sorted((drawn / "train/good").iterdir()), loaded.photos, strict=True):
        assert detect(loaded, path)[1].image_score <= record.score * (1 + 1e-5)


def test_evidence_matches_the_map_for_every_evidence_count(older_index: Path, drawn: Path) -> None:
    """A search for more or fewer neighbors never shows another view, or another distance, than the map's."""
    loaded = load_index(older_index, CPU)
    k = loaded.manifest.config.search.neighbors
    assert loaded.manifest.config.search.mirrored
    mirrored_values = set()
    for path in sorted((drawn / "test").rglob("*.jpg")):
        photo, detection = detect(loaded, path)
        patches, bank = detection.patches, loaded.detector.bank
        assert patches.mirrored is not None
        finding_lists = [
            assemble(
                photo,
                detection,
                loaded,
                ScoreOptions(DecisionRule(fpr=0.9), evidence=count),
                timings=NO_TIME,
            ).findings
            for count in (1, 2, 3, 6, 10**6)
        ]
        for shorter, longer in pairwise(finding_lists):
            for short_finding, long_finding in zip(shorter, longer, strict=True):
                assert short_finding.evidence == long_finding.evidence[: len(short_finding.evidence)]
        for finding in finding_lists[-1]:
            point = photo.frame.to_prepared(finding.x + 0.5, finding.y + 0.5)
            cell = cell_under(*point, photo.frame.side, patches.grid)
            row = int(np.abs(patches.cells.astype(int) - cell).sum(axis=1).argmin())
            view_distances = [
                np.sort(np.linalg.norm(bank.memories - view[row], axis=1))
                for view in (patches.features, patches.mirrored)
            ]
            mirrored = bool(view_distances[1][:k].mean() < view_distances[0][:k].mean())
            assert {entry.mirrored for entry in finding.evidence} == {mirrored}
            distances = [entry.distance for entry in finding.evidence]
            assert distances == pytest.approx(view_distances[mirrored], rel=1e-5)
            assert np.mean(distances[:k]) == pytest.approx(detection.patch_distances[row], rel=1e-6)
            mirrored_values.add(mirrored)
    assert mirrored_values == {False, True}


def test_without_mirror_images_no_evidence_is_mirrored(drawn: Path, tmp_path: Path) -> None:
    report = build_small(drawn / "train/good", tmp_path, settings=(*SETTINGS, "search.mirrored=false"))
    without_levels(report.version.parent, tmp_path / "older")
    loaded = load_index(tmp_path / "older", CPU)
    photo, detection = detect(loaded, drawn / "test/lesion/drawn_0000.jpg")
    result = assemble(
        photo,
        detection,
        loaded,
        ScoreOptions(DecisionRule(fpr=0.9), evidence=3),
        timings=NO_TIME,
    )
    assert {entry.mirrored for finding in result.findings for entry in finding.evidence} == {False}


def test_a_rate_that_cannot_be_supported_gives_null_and_a_reason(loaded: LoadedIndex, drawn: Path) -> None:
    photo, detection = detect(loaded, drawn / "test/good/drawn_0000.jpg")
    result = assemble(photo, detection, loaded, ScoreOptions(DecisionRule(fpr=0.01), evidence=1), timings=NO_TIME)
    assert (result.p_value, result.threshold, result.abnormal) == (None, None, None)
    assert "needs 99 normal photographs, the index has 8" in str(result.reason)
    assert result.findings == ()


def with_manifest_changed(small_index: Path, tmp_path: Path, old: str, new: str) -> Path:
    """A copy of the version whose manifest says something else."""
    version = tmp_path / "version"
    shutil.copytree(index.resolve(small_index), version)
    manifest = version / "manifest.json"
    text = manifest.read_text()
    assert old in text
    manifest.write_text(text.replace(old, new))
    return version


def test_settings_that_are_not_the_fingerprints_are_refused(small_index: Path, tmp_path: Path) -> None:
    version = with_manifest_changed(small_index, tmp_path, '"attention_scale": 20.0', '"attention_scale": 10.0')
    with pytest.raises(IndexInvalid, match="fingerprint"):
        load_index(version, CPU)


def test_a_probe_that_scores_otherwise_is_refused(small_index: Path, tmp_path: Path) -> None:
    score = json.loads((index.resolve(small_index) / "manifest.json").read_text())["probe_score"]
    version = with_manifest_changed(
        small_index, tmp_path, f'"probe_score": {score}', f'"probe_score": {score * 1.01}'
    )
    with pytest.raises(IndexInvalid, match="the bound is 1e-03"):
        check_probe(load_index(version, CPU), version)
    assert check_probe(load_index(small_index, CPU), small_index) == 0


def test_a_probe_that_scores_no_number_is_refused(small_index: Path, loaded: LoadedIndex) -> None:
    class NanDetector(Detector):
        def detect(self, photos: Sequence[PreparedPhoto]) -> list[Detection]:
            return [replace(detection, image_score=float("nan")) for detection in super().detect(photos)]

    detector = NanDetector(loaded.detector.encoder, loaded.detector.bank)
    with pytest.raises(IndexInvalid, match="scores nan, and"):
        check_probe(replace(loaded, detector=detector), small_index)


def test_records_that_do_not_match_the_counts_are_refused(small_index: Path, tmp_path: Path) -> None:
    version = with_manifest_changed(small_index, tmp_path, '"photos": 8', '"photos": 9')
    with pytest.raises(IndexInvalid, match="the manifest says"):
        load_index(version, CPU)
