"""Whose photographs an index holds, and what is said of a CSV that does not tell."""

import re
from pathlib import Path

import pytest

from indexer.photos.listing import PatientCounts
from tests.conftest import Run

SMALL = ("--backbone", "bundled", "--size", "64", "--coreset", "0.3", "--device", "cpu")


@pytest.mark.parametrize(
    ("patients", "text"),
    [
        (["a", "b", "a"], "3 photographs of 2 patients"),
        (["a", None, "a", None], "2 photographs of 1 patient, 2 of unknown patients"),
        ([None, None], "unknown: p-values may be too low (see docs/build.md)"),
    ],
)
def test_patients_are_counted(patients: list[str | None], text: str) -> None:
    assert PatientCounts.of(patients).describe() == text


def csv_of(photos: list[Path], folder: Path, column: str, split: str = "train") -> Path:
    """Of patients p0, p1 (two photographs), and nobody; the last photograph is of another split."""
    patients = ["p0", "p1", "p1", ""]
    rows = [f"{photo},{who},train" for photo, who in zip(photos[:4], patients, strict=True)]
    path = folder / "photos.csv"
    path.write_text("\n".join([f"path,{column},split", *rows, f"{photos[4]},p9,{split}"]))
    return path


@pytest.mark.parametrize(
    ("column", "patients", "warning"),
    [
        ("patient", "3 photographs of 2 patients, 1 of unknown patients", ""),
        ("patient_id", "unknown: p-values may be too low", "columns not used: patient_id "),
    ],
)
def test_a_column_that_is_not_used_is_told(
    run: Run, drawn: Path, tmp_path: Path, column: str, patients: str, warning: str
) -> None:
    photos = sorted((drawn / "train/good").iterdir())
    source = csv_of(photos, tmp_path, column, split="test")
    built = run("build", source, "--root", tmp_path / "root", "--name", "eyes", *SMALL)
    assert built.code == 0
    inspected = run("inspect", tmp_path / "root/eyes")
    for out in (built.out, inspected.out):
        assert f"patients {patients}" in re.sub(r"[\s│]+", " ", out)
    assert ("columns not used" in built.err) == bool(warning)
    assert warning in built.err
    assert "1 of 5 rows left out: their split is not train" in built.err
    more = csv_of(photos[3:], tmp_path, column)
    for command in ("add", "calibrate"):
        assert warning in run(command, tmp_path / "root/eyes", more, "--device", "cpu").err
