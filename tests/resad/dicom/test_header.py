"""What DICOM headers say: eye, camera, patient, spacing; and which objects are refused, and with which words."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from resad.config import PhotoLimits
from resad.dicom.header import PhotoHeader, header_of
from resad.errors import PhotoUnsupported
from resad.photo import read_photo
from tests.dicom_files import PATIENT, photograph

PIXELS = np.full((80, 90, 3), 100, np.uint8)


def facts(**fields: Any) -> PhotoHeader:
    header = read_photo(photograph(PIXELS, **fields), PhotoLimits()).header
    assert header is not None
    return header


def item(**fields: Any) -> Sequence:
    dataset = Dataset()
    for keyword, value in fields.items():
        setattr(dataset, keyword, value)
    return Sequence([dataset])


def test_a_usual_header() -> None:
    assert facts(PixelSpacing=[0.004, 0.005], IssuerOfPatientID="H") == PhotoHeader(
        "right", "Topcon TRC-NW8", f"H/{PATIENT['PatientID']}", (0.004, 0.005)
    )


@pytest.mark.parametrize(
    ("fields", "eye"),
    [
        ({"ImageLaterality": "L"}, "left"),
        ({"ImageLaterality": "B"}, None),
        ({"ImageLaterality": None}, None),
        ({"ImageLaterality": None, "Laterality": "L"}, "left"),
        ({"ImageLaterality": "", "Laterality": "R"}, "right"),
        ({"ImageLaterality": None, "SharedFunctionalGroupsSequence": item(
            FrameAnatomySequence=item(FrameLaterality="L"))}, "left"),
        ({"ImageLaterality": None, "AnatomicRegionSequence": item(
            CodeMeaning="Eye", AnatomicRegionModifierSequence=item(CodeValue="7771000"))}, "left"),
    ],
)  # fmt: skip
def test_eye(fields: dict[str, Any], eye: str | None) -> None:
    assert facts(**fields).eye == eye


@pytest.mark.parametrize(
    ("manufacturer", "model", "camera"),
    [("Canon", "CR-2 ", "Canon CR-2"), ("Canon", "Canon CR-2", "Canon CR-2"), (None, "CR-2", "CR-2"),
     ("Canon", None, "Canon"), (None, None, None)],
)  # fmt: skip
def test_camera(manufacturer: str | None, model: str | None, camera: str | None) -> None:
    assert facts(Manufacturer=manufacturer, ManufacturerModelName=model).camera == camera


@pytest.mark.parametrize("patient", ["", None, "ANONYMOUS", "unknown", "0"])
def test_without_a_patient_the_study_groups(patient: str | None) -> None:
    """Otherwise all anonymous patients would be one person."""
    first, second = facts(PatientID=patient), facts(PatientID=patient, StudyInstanceUID="1.2.3")
    assert first.patient != second.patient == "study 1.2.3"


@pytest.mark.parametrize("spacing", [None, [1, 1], [0, 0], [0.25, 0.25], [-0.01, 0.01]])
def test_a_spacing_of_no_retina_counts_as_none(spacing: list[float] | None) -> None:
    assert facts(PixelSpacing=spacing).spacing_mm is None


NOT_PHOTOGRAPHS: dict[str, tuple[dict[str, Any], str]] = {
    "OCT by class": ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.77.1.5.4"}, "Ophthalmic Tomography"),
    "a PDF": ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.104.1"}, "Encapsulated PDF"),
    "a report": ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.88.22"}, "Enhanced SR"),
    "a CT": ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.2"}, "CT Image"),
    "a private class": ({"SOPClassUID": "1.2.3.4"}, "unknown class"),
    "OCT by modality": ({"Modality": "OPT"}, r"\(OCT\)"),
    "a document": ({"Modality": "DOC"}, "document"),
    "FFA by image type": ({"ImageType": ["ORIGINAL", "PRIMARY", "", "FA"]}, "fluorescein"),
    "ICG by image type": ({"ImageType": ["ORIGINAL", "PRIMARY", "", "ICG"]}, "indocyanine"),
    "FFA by contrast agent": ({"ContrastBolusAgent": "Fluorescein"}, "contrast"),
    "FFA by description": ({"SeriesDescription": "FFA 00:43 OD"}, "fluorescein"),
    "FAF by description": ({"SeriesDescription": "FAF 55"}, "autofluorescence"),
    "OCT by protocol": ({"ProtocolName": "Macula OCT"}, r"\(OCT\)"),
    "slit lamp": ({"AcquisitionDeviceTypeCodeSequence": item(CodeMeaning="Slit Lamp Biomicroscope")}, "front"),
    "cornea": ({"AnatomicRegionSequence": item(CodeMeaning="Cornea")}, "front"),
    "frames": ({"NumberOfFrames": 3}, r"3 frames: name one, as FILE#1"),
    "own overlay": ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7", "Manufacturer": "ReSAD"}, "result of this"),
}


@pytest.mark.parametrize("name", NOT_PHOTOGRAPHS)
def test_what_is_no_photograph_is_named(name: str) -> None:
    fields, words = NOT_PHOTOGRAPHS[name]
    pixels = np.repeat(PIXELS[None], 3, axis=0) if name == "frames" else PIXELS
    data = photograph(pixels, **({"Rows": 80, "Columns": 90, "SamplesPerPixel": 3} | fields))
    with pytest.raises(PhotoUnsupported, match=words) as refusal:
        read_photo(data, PhotoLimits())
    assert not any(value in str(refusal.value) for value in PATIENT.values())


@pytest.mark.parametrize("description", ["Color Fundus OD", "Color + FA", "red-free", "Retina 45", None])
def test_descriptions_of_photographs(description: str | None) -> None:
    assert facts(SeriesDescription=description).eye == "right"


@pytest.mark.parametrize("description", ["\udcff", "x" * 500])
def test_odd_text_is_no_error(description: str) -> None:
    assert facts(SeriesDescription=description.encode("utf-8", "surrogateescape").decode("latin-1")).eye == "right"


def test_the_header_of_a_file_is_read_without_its_pixels(tmp_path: Path) -> None:
    path = tmp_path / "eye.dcm"
    data = photograph(PIXELS)
    path.write_bytes(data[: len(data) - PIXELS.size])
    header = header_of(path)
    assert header is not None
    assert header.eye == "right"
    path.write_bytes(b"JFIF" * 100)
    assert header_of(path) is None
    assert header_of(tmp_path / "missing.dcm") is None


def disc_with_text(color: str, *, inside: bool) -> np.ndarray[Any, np.dtype[np.uint8]]:
    y, x = np.mgrid[:600, :700].astype(float)
    lit = np.hypot(x - 350, y - 300) < 270
    picture = np.stack([np.where(lit, level + x / 20, 2) for level in (150, 80, 40)], axis=-1).astype(np.uint8)
    image = Image.fromarray(picture)
    place = (240, 250) if inside else (5, 565)
    ImageDraw.Draw(image).text(place, "OD  2026-01-02", fill=color, font=ImageFont.load_default(28))
    return np.asarray(image)


@pytest.mark.parametrize("color", ["white", "yellow", "black", "lime"])
def test_text_in_the_field_is_refused_text_beside_it_is_not(color: str) -> None:
    with pytest.raises(PhotoUnsupported, match="text or drawings"):
        read_photo(photograph(disc_with_text(color, inside=True), BurnedInAnnotation="YES"), PhotoLimits())
    read_photo(photograph(disc_with_text(color, inside=False), BurnedInAnnotation="YES"), PhotoLimits())
    read_photo(photograph(disc_with_text(color, inside=True), BurnedInAnnotation="NO"), PhotoLimits())


def test_text_all_over_the_field_is_refused_without_an_announcement() -> None:
    picture = Image.fromarray(disc_with_text("white", inside=True))
    for line in range(6):
        ImageDraw.Draw(picture).text((190, 130 + 60 * line), "Roe, Jane 1950", fill="white",
                                     font=ImageFont.load_default(48))  # fmt: skip
    with pytest.raises(PhotoUnsupported, match="text or drawings"):
        read_photo(photograph(np.asarray(picture), BurnedInAnnotation=None), PhotoLimits())


def test_real_photographs_show_no_text(shared: Path) -> None:
    for path in sorted((shared / "data/idrid-512/test").glob("*/*.jpg"))[:8]:
        pixels = np.asarray(Image.open(path).convert("RGB"))
        read_photo(photograph(pixels, BurnedInAnnotation=None), PhotoLimits())
