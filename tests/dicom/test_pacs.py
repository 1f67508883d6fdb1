"""A study of two eyes, from a PACS through the node and the service and back."""

import io
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import (
    ComprehensiveSRStorage,
    ParametricMapStorage,
    SecondaryCaptureImageStorage,
    SegmentationStorage,
)
from resad_client import read_map_npy
from resad_client.records import Result, read_result
from resad_dicom.multipart import RELATED, read_parts, write_parts

from resad.dicom.results import finding_mask
from tests.dicom.nodes import Node, node
from tests.dicom.pacs import Orthanc, Photo, dicom_photo, orthanc, until
from tests.service.running import Served, served

DICOM = {"Content-Type": "application/dicom"}
QUERY = {"fpr": "0.9", "false_regions": "2"}


@pytest.fixture
def photos(drawn: Path) -> tuple[Photo, Photo]:
    """Both eyes of a patient; the left one has lesions."""
    healthy, diseased = drawn / "test/good", drawn / "test/lesion"
    right, left = sorted(healthy.glob("*.jpg"))[0], sorted(diseased.glob("*.jpg"))[1]
    return dicom_photo(right, 1, "R"), dicom_photo(left, 1, "L")


@pytest.mark.parametrize("way", ["c-store", "dicomweb"])
def test_a_study_of_two_eyes_gets_its_results(
    small_index: Path, tmp_path: Path, photos: tuple[Photo, Photo], way: str
) -> None:
    with (
        served(small_index.parent) as service,
        node(tmp_path / "node") as resad,
        orthanc(tmp_path / "pacs", resad.port if way == "c-store" else None, resad.web) as pacs,
    ):
        destination = pacs.address if way == "c-store" else pacs.dicom_web
        resad.configure(destination, service.url, "--caller", "ORTHANC", "--fpr", "0.9", "--false-regions", "2")
        resad.start()
        expected = {str(dataset.SOPInstanceUID): dataset for photo in photos for dataset in direct(service, photo)}
        assert len(expected) == 7, "map, report and overlay of each eye, and findings of the left one"
        files = []
        for number, photo in enumerate(photos):
            files.append(tmp_path / f"{number}.dcm")
            files[-1].write_bytes(photo.data)
        pacs.store(*files)
        if way == "dicomweb":
            pacs.stow()
        originals = {photo.instance for photo in photos}
        until(lambda: {entry["instance"] for entry in pacs.instances()} >= originals | set(expected))

        fetched = [dcmread(io.BytesIO(data)) for data in pacs.study(photos[0].study)]
        results = {str(dataset.SOPInstanceUID): dataset for dataset in fetched}
        assert set(results) == originals | set(expected), "in the same study, and nothing else"
        for photo in photos:
            compare(service, photo, [results[str(dataset.SOPInstanceUID)] for dataset in direct(service, photo)])
        for instance, dataset in expected.items():
            assert results[instance].PatientID == "MRN1"
            if "PixelData" in dataset:
                assert np.array_equal(results[instance].pixel_array, dataset.pixel_array)
        until(lambda: not list(resad.queue.rglob("*.dcm")))
        for text in (resad.log_file.read_text(), httpx.get(f"{resad.web}/metrics").text):
            assert not [word for word in ("SECRET", "MRN1", "2.25.", "20240102") if word in text]
        if way == "c-store":
            # The PACS stores results, which it does not route; and a second look routes nothing anew.
            repeat_stores_nothing_new(pacs, resad, files)


def repeat_stores_nothing_new(pacs: Orthanc, resad: Node, files: list[Path]) -> None:
    """The same photographs, sent to the node again, are the same objects in the PACS."""
    before = sorted(entry["instance"] for entry in pacs.instances())
    content_type, body = write_parts([path.read_bytes() for path in files])
    assert httpx.post(f"{resad.web}/studies", content=body, headers={"Content-Type": content_type}).is_success
    until(lambda: "resad_dicom_answer_seconds_count 4.0" in httpx.get(f"{resad.web}/metrics").text)
    assert sorted(entry["instance"] for entry in pacs.instances()) == before


def direct(service: Served, photo: Photo) -> list[Dataset]:
    """The service's own objects of a photograph."""
    answer = service.client.post(
        "/v1/score", content=photo.data, headers={**DICOM, "Accept": RELATED}, params=QUERY
    )
    assert answer.status_code == 200, answer.text
    return [dcmread(io.BytesIO(part)) for part in read_parts(answer.headers["Content-Type"], answer.content)]


def compare(service: Served, photo: Photo, objects: list[Dataset]) -> None:
    """What the PACS has says the same as the service's JSON and map."""
    answer = service.client.post("/v1/score", content=photo.data, headers=DICOM, params=QUERY)
    result: Result = read_result(answer.text)
    classes = {dataset.SOPClassUID: dataset for dataset in objects}
    kinds = {ParametricMapStorage, ComprehensiveSRStorage, SecondaryCaptureImageStorage}
    assert set(classes) == kinds | ({SegmentationStorage} if result.findings else set())
    for dataset in objects:
        assert dataset.StudyInstanceUID == photo.study
        assert references(dataset, photo.instance)

    numbers = list(measurements(classes[ComprehensiveSRStorage]))
    assert numbers[0] == pytest.approx(result.image_score, rel=1e-6)
    assert any(number == pytest.approx(result.p_value, rel=1e-6) for number in numbers)

    npy = service.client.post(
        "/v1/anomaly-map", content=photo.data, headers={**DICOM, "Accept": "application/x-npy"}
    ).content
    anomaly_map = read_map_npy(npy).values
    stored = classes[ParametricMapStorage]
    pixels = np.frombuffer(stored.FloatPixelData, np.float32).reshape(stored.Rows, stored.Columns)
    assert np.allclose(pixels, anomaly_map, rtol=1e-6, atol=0)

    if result.findings:
        segmentation = classes[SegmentationStorage]
        masks = segmentation.pixel_array.reshape(-1, segmentation.Rows, segmentation.Columns)
        assert len(masks) == len(result.findings)
        for mask, finding in zip(masks, result.findings, strict=True):
            assert np.array_equal(mask, finding_mask(finding, segmentation.Columns, segmentation.Rows))


def references(dataset: Dataset, instance: str) -> bool:
    """Whether an object names the photograph anywhere."""
    return any(
        element.value == instance for element in dataset.iterall() if element.keyword == "ReferencedSOPInstanceUID"
    )


def measurements(report: Dataset) -> Any:
    """Every number of a report, in order."""
    for element in report.iterall():
        if element.keyword == "NumericValue":
            yield float(element.value if not hasattr(element.value, "__iter__") else element.value[0])
