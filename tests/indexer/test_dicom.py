"""DICOM on the command line: an index of DICOM photographs names nobody, and `score --dicom` writes objects."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydicom import dcmread
from pydicom.uid import JPEG2000Lossless

from indexer.photos.listing import list_photos, list_references
from tests.dicom_files import PATIENT, photograph
from tests.indexes import build_small


@pytest.fixture(scope="module")
def folder(drawn: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photographs of patients with two eyes each, as DICOM files."""
    folder = tmp_path_factory.mktemp("dicom")
    for number, path in enumerate(sorted((drawn / "train/good").iterdir())[:8]):
        pixels = np.asarray(Image.open(path).convert("RGB"))
        fields = {"PatientID": f"MRN-{number // 2}", "ImageLaterality": "RL"[number % 2],
                  "SOPInstanceUID": f"1.2.3.{number}"}  # fmt: skip
        (folder / f"{number}.dcm").write_bytes(photograph(pixels, JPEG2000Lossless, **fields))
    return folder


def test_references_have_the_headers_facts(folder: Path) -> None:
    listed = list_references(folder)
    assert len({photo.patient for photo in listed}) == 4
    assert {photo.eye for photo in listed} == {"left", "right"}
    assert {photo.camera for photo in listed} == {"Topcon TRC-NW8"}
    assert len(list_photos(folder)) == 8


def test_a_csv_goes_before_the_header(folder: Path, tmp_path: Path) -> None:
    table = tmp_path / "photos.csv"
    table.write_text(f"path,patient,eye\n{folder / '0.dcm'},p9,left\n{folder / '1.dcm'},,\n")
    first, second = list_references(table)
    assert (first.patient, first.eye, first.camera) == ("p9", "left", "Topcon TRC-NW8")
    assert (second.patient, second.eye) == ("MRN-0", "left")


def test_an_index_of_dicom_photographs_names_nobody(folder: Path, tmp_path: Path) -> None:
    report = build_small(folder, tmp_path)
    text = b"".join(path.read_bytes() for path in report.version.rglob("*") if path.is_file())
    for value in (*PATIENT.values(), "MRN-", "ACC-0815", "Poe", "1.2.3."):
        assert value.encode() not in text
    assert b"p-00001" in text
    assert b"p-00004" in text


def test_score_writes_objects(folder: Path, small_index: Path, tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from indexer.cli import app

    out = tmp_path / "out"
    arguments = ["score", str(small_index), f"{folder / '0.dcm'}", "--dicom", str(out), "--fpr", "0.9"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    files = {path.name for path in out.iterdir() if path.suffix == ".dcm"}
    assert {"0_map.dcm", "0_report.dcm", "0_overlay.dcm"} <= files
    assert dcmread(out / "0_report.dcm").PatientID == "MRN-0"
    assert not any(value in result.output for value in (*PATIENT.values(), "MRN-0"))
