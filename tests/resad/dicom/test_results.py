"""Results as DICOM objects: valid, of the photograph's study, and equal to the result they were made from."""

import shutil
import subprocess
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
import pytest
import torch
from PIL import Image
from pydicom import dcmread
from pydicom.dataset import FileDataset
from resad_client.records import Resemblance

from resad.calibration import DecisionRule
from resad.config import PhotoLimits
from resad.dicom.files import single_frame
from resad.dicom.header import MANUFACTURER
from resad.dicom.results import DicomObject, Drawing, finding_mask, result_objects
from resad.engine import Engine, ScoredPhoto, ScoreOptions
from resad.errors import PhotoUnsupported
from resad.loaded_index import load_index
from resad.photo import read_photo
from tests.dicom_files import PATIENT, photograph

SC = "1.2.840.10008.5.1.4.1.1.7"
LIMITS = PhotoLimits()


@pytest.fixture(scope="module")
def engine(small_index: Path) -> Engine:
    return Engine(load_index(small_index, torch.device("cpu")))


@pytest.fixture(scope="module")
def pixels(drawn: Path) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.asarray(Image.open(sorted(drawn.glob("test/lesion/*.jpg"))[-1]).convert("RGB"))


@pytest.fixture(scope="module")
def photo(pixels: np.ndarray[Any, np.dtype[np.uint8]]) -> bytes:
    return photograph(pixels, PixelSpacing=[0.02, 0.02], PatientComments="not for anybody")


@pytest.fixture(scope="module")
def scored(engine: Engine, photo: bytes) -> ScoredPhoto:
    scored = engine.score(photo, ScoreOptions(DecisionRule(fpr=0.9, false_regions=2)))
    assert scored.result.findings
    return scored


def objects_of(photo: bytes, scored: ScoredPhoto, overlay_side: int = 120) -> tuple[DicomObject, ...]:
    frame = scored.photo.frame
    overlay = np.full((overlay_side, overlay_side, 3), 90, np.uint8)
    drawing = Drawing(frame.map_to_photo(scored.detection.anomaly_map), overlay, 2.5)
    return result_objects(photo, scored.result, drawing, "0.1.0", LIMITS)


@pytest.fixture(scope="module")
def objects(photo: bytes, scored: ScoredPhoto) -> dict[str, FileDataset]:
    return {entry.kind: dcmread(BytesIO(entry.file)) for entry in objects_of(photo, scored)}


def test_all_belong_to_the_study_and_name_the_photograph(objects: dict[str, FileDataset], photo: bytes) -> None:
    source = dcmread(BytesIO(photo))
    assert list(objects) == ["map", "findings", "report", "overlay"]
    for dataset in objects.values():
        for keyword in ("StudyInstanceUID", "PatientID", "PatientName", "AccessionNumber", "StudyDate"):
            assert dataset[keyword].value == source[keyword].value
        assert dataset.Manufacturer == MANUFACTURER
        assert dataset.SoftwareVersions == "0.1.0"
        assert source.SOPInstanceUID in str(dataset)
        assert "not for anybody" not in str(dataset)
    assert len({dataset.SeriesInstanceUID for dataset in objects.values()} | {source.SeriesInstanceUID}) == 5


def test_the_map_is_the_map(objects: dict[str, FileDataset], scored: ScoredPhoto) -> None:
    expected = scored.photo.frame.map_to_photo(scored.detection.anomaly_map)
    dataset = objects["map"]
    assert np.array_equal(dataset.pixel_array, expected)
    assert dataset.Laterality == "R"
    (shared,) = dataset.SharedFunctionalGroupsSequence
    assert list(shared.PixelMeasuresSequence[0].PixelSpacing) == [0.02, 0.02]


def test_the_segments_are_the_findings(photo: bytes, scored: ScoredPhoto) -> None:
    file = next(entry.file for entry in objects_of(photo, scored) if entry.kind == "findings")
    segmentation = hd.seg.segread(BytesIO(file))
    frame = scored.photo.frame
    assert segmentation.number_of_segments == len(scored.result.findings)
    for finding in scored.result.findings:
        stored = segmentation.pixel_array.reshape(-1, frame.height, frame.width)[finding.rank - 1]
        assert np.array_equal(stored.astype(bool), finding_mask(finding, frame.width, frame.height))
        left, top, right, bottom = finding.box
        rows, columns = np.nonzero(stored)
        assert (columns.min(), rows.min()) >= (left, top)
        assert columns.max() <= right
        assert rows.max() <= bottom
        segment = segmentation.get_segment_description(finding.rank)
        assert segment.segmented_property_type.value == "263654008"


def test_the_report_has_the_results_numbers(photo: bytes, scored: ScoredPhoto) -> None:
    file = next(entry.file for entry in objects_of(photo, scored) if entry.kind == "report")
    report: Any = hd.sr.srread(BytesIO(file))
    (group,) = report.content.get_image_measurement_groups()
    numbers = {entry.name.value: entry.value for entry in group.get_measurements()}
    result = scored.result
    assert numbers["anomaly-score"] == pytest.approx(result.image_score)
    assert numbers["p-value"] == pytest.approx(result.p_value)
    assert numbers["threshold"] == pytest.approx(result.threshold)
    assert numbers["findings"] == len(result.findings)
    verdict = next(entry for entry in group.get_qualitative_evaluations() if entry.name.value == "verdict")
    assert verdict.value.meaning == ("Abnormal" if result.abnormal else "Normal")
    regions = report.content.get_planar_roi_measurement_groups()
    assert len(regions) == len(result.findings)
    for finding, region in zip(result.findings, regions, strict=True):
        values = [(entry.name.value, entry.unit.value, entry.value) for entry in region.get_measurements()]
        assert ("peak", "1", pytest.approx(finding.peak)) in values
        assert any(unit == "mm2" and value == pytest.approx(finding.area_px * 4e-4) for _, unit, value in values)


def test_a_finding_s_resemblance_is_in_the_report(photo: bytes, scored: ScoredPhoto) -> None:
    like = Resemblance("neovascularization", 0.9, 7, 8, 0.4, 0.9, ())
    first, *others = scored.result.findings
    result = replace(scored.result, findings=(replace(first, resembles=like), *others))
    taught = ScoredPhoto(scored.photo, scored.detection, result)
    file = next(entry.file for entry in objects_of(photo, taught) if entry.kind == "report")
    report: Any = hd.sr.srread(BytesIO(file))
    regions = report.content.get_planar_roi_measurement_groups()
    named = [
        [entry.value.meaning for entry in region.get_qualitative_evaluations() if entry.name.value == "resembles"]
        for region in regions
    ]
    assert named == [["Neovascularization"], *([] for _ in others)]


def test_the_overlay_is_plain_color(objects: dict[str, FileDataset]) -> None:
    overlay = objects["overlay"]
    assert overlay.SOPClassUID == SC
    assert overlay.pixel_array.shape == (120, 120, 3)
    assert overlay.pixel_array.min() == overlay.pixel_array.max() == 90
    file = BytesIO()
    overlay.save_as(file)
    with pytest.raises(PhotoUnsupported, match="result of this software"):
        read_photo(file.getvalue(), LIMITS)


def test_the_same_result_is_the_same_objects(photo: bytes, scored: ScoredPhoto, engine: Engine) -> None:
    again = engine.score(photo, ScoreOptions(DecisionRule(fpr=0.9, false_regions=2)))
    other = engine.score(photo, ScoreOptions(DecisionRule(fpr=0.5, false_regions=2)))
    uids = [[entry.sop_instance_uid for entry in objects_of(photo, run)] for run in (scored, again, other)]
    assert uids[0] == uids[1]
    assert not set(uids[0]) & set(uids[2])


def test_without_findings_there_is_no_segmentation(photo: bytes, engine: Engine) -> None:
    scored = engine.score(photo, ScoreOptions(DecisionRule(threshold=1e6)))
    quiet = ScoredPhoto(scored.photo, scored.detection, replace(scored.result, findings=()))
    assert [entry.kind for entry in objects_of(photo, quiet)] == ["map", "report", "overlay"]


def test_a_frame_is_named_in_every_reference(engine: Engine, pixels: np.ndarray[Any, np.dtype[np.uint8]]) -> None:
    both = photograph(np.stack([pixels[::-1], pixels]), NumberOfFrames=2, Rows=pixels.shape[0],
                      Columns=pixels.shape[1], SamplesPerPixel=3, PhotometricInterpretation="RGB",
                      PlanarConfiguration=0)  # fmt: skip
    second = single_frame(both, 2, LIMITS)
    scored = engine.score(second, ScoreOptions(DecisionRule(fpr=0.9, false_regions=2)))
    for entry in objects_of(second, scored):
        text = str(dcmread(BytesIO(entry.file)))
        lines = [line for line in text.splitlines() if "Referenced Frame Number" in line]
        assert lines
        assert all("'2'" in line or ": 2" in line for line in lines)


@pytest.mark.parametrize("missing", ["StudyInstanceUID", "SOPInstanceUID", "SeriesInstanceUID"])
def test_what_results_must_refer_to(
    missing: str, engine: Engine, pixels: np.ndarray[Any, np.dtype[np.uint8]]
) -> None:
    data = photograph(pixels)
    dataset = dcmread(BytesIO(data))
    del dataset[missing]
    file = BytesIO()
    dataset.save_as(file)
    scored = engine.score(file.getvalue())
    with pytest.raises(PhotoUnsupported, match=missing):
        objects_of(file.getvalue(), scored)


SPARSE = dict.fromkeys((*PATIENT, "PatientSex", "StudyID", "StudyDate", "StudyTime", "AccessionNumber"))


@pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="dciodvfy (Debian's dicom3tools) is not installed")
@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("usual", {}),
        ("spacing", {"PixelSpacing": [0.01, 0.01]}),
        ("secondary capture", {"SOPClassUID": SC, "Modality": "OT", "ImageLaterality": "L"}),
        ("eye unknown", {"ImageLaterality": None}),
        ("sparse", SPARSE),
        ("names beyond ASCII", {"SpecificCharacterSet": "ISO_IR 192", "PatientName": "Müller^Jürgen"}),
    ],
)
def test_objects_are_valid(
    name: str,
    fields: dict[str, Any],
    engine: Engine,
    pixels: np.ndarray[Any, np.dtype[np.uint8]],
    tmp_path: Path,
) -> None:
    """No error by dciodvfy; dcmtk's dcmdump, where it is installed, reads them."""
    photo = photograph(pixels, **fields)
    scored = engine.score(photo, ScoreOptions(DecisionRule(fpr=0.9, false_regions=2)))
    for entry in objects_of(photo, scored):
        path = tmp_path / f"{entry.kind}.dcm"
        path.write_bytes(entry.file)
        report = subprocess.run(["dciodvfy", str(path)], capture_output=True, text=True, check=False).stderr
        assert [line for line in report.splitlines() if line.startswith("Error")] == [], name
        if shutil.which("dcmdump"):
            subprocess.run(["dcmdump", "-q", str(path)], capture_output=True, check=True)
