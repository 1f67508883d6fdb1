"""What a DICOM header says of a photograph: eye, camera, patient, spacing; and which objects are no photograph.

No text of a header is put into an error: only what it was recognized as.
"""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from resad.config import Eye, PhotoLimits
from resad.dicom.files import as_photo_errors, frames_of, is_dicom, read_dataset
from resad.errors import PhotoError, PhotoUnsupported

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

MANUFACTURER: Final = "ReSAD"
"""In the header of every object that `resad.dicom.results` makes; such objects are not scored again."""

_PHOTO_CLASSES: Final = frozenset(
    f"1.2.840.10008.5.1.4.1.1.{suffix}"
    for suffix in (
        "77.1.5.1",  # Ophthalmic Photography 8 Bit
        "77.1.5.2",  # Ophthalmic Photography 16 Bit
        "77.1.5.5",  # Wide Field Ophthalmic Photography, stereographic projection
        "77.1.4",  # VL Photographic
        "77.1.1",  # VL Endoscopic: some hand-held fundus cameras
        "7",  # Secondary Capture
        "7.2",  # Multi-frame Grayscale Byte Secondary Capture
        "7.3",  # Multi-frame Grayscale Word Secondary Capture
        "7.4",  # Multi-frame True Color Secondary Capture
    )
)
_MODALITIES: Final = {
    "OPT": "an optical coherence tomogram (OCT)",
    "OCT": "an optical coherence tomogram (OCT)",
    "OPTENF": "an optical coherence tomogram (OCT)",
    "OPTBSV": "an optical coherence tomogram (OCT)",
    "OPM": "a map of the eye",
    "OPV": "a visual field",
    "OAM": "a measurement of the eye",
    "IOL": "a measurement of the eye",
    "LEN": "a measurement of the eye",
    "AR": "a measurement of the eye",
    "KER": "a measurement of the eye",
    "SRF": "a measurement of the eye",
    "US": "an ultrasound image",
    "IVUS": "an ultrasound image",
    "DOC": "a document",
    "SR": "a report",
    "PR": "a presentation state",
    "SEG": "a segmentation",
}
_IMAGE_TYPES: Final = {
    "FA": "a fluorescein angiogram",
    "FFA": "a fluorescein angiogram",
    "ICG": "an indocyanine green angiogram",
    "ICGA": "an indocyanine green angiogram",
    "FAF": "an autofluorescence image",
    "AF": "an autofluorescence image",
    "AUTOFLUORESCENCE": "an autofluorescence image",
    "OCT": "an optical coherence tomogram (OCT)",
}
_WORDS: Final = tuple(
    (re.compile(rf"\b(?:{words})\b", re.IGNORECASE), kind)
    for words, kind in (
        (r"f?fa|fluorescein|fluoresceine|angio\w*", "a fluorescein angiogram"),
        (r"icga?|indocyanine", "an indocyanine green angiogram"),
        (r"faf|(?:auto|auto )fluorescen\w*", "an autofluorescence image"),
        (r"octa?|tomogra\w*|b-?scan|cirrus|cross ?line", "an optical coherence tomogram (OCT)"),
        (r"ir|infra-?red", "an infrared image"),
        (r"slit[ -]?lamp|anterior|cornea\w*|external|iris|eyelids?", "a picture of the front of the eye"),
        (r"ultraso\w*", "an ultrasound image"),
        (r"topogra\w*|visual field|perimetry|biometry|keratometry", "a measurement of the eye"),
        (r"report|referral|letter|consent", "a report"),
    )
)
"""Words of descriptions, and what they say the picture is."""
_COLOR_WORDS: Final = re.compile(r"colou?r|red-?free|fundus photo|\bcfp\b", re.IGNORECASE)
"""Words of a description that names a photograph, whatever else the series holds."""
_NO_PATIENT: Final = (
    "", "0", "anon", "anonymous", "anonymized", "anonymised", "unknown", "none", "n/a", "na", "nan", "null", "xxx",
)  # fmt: skip
_EYES: Final[dict[str, Eye]] = {"R": "right", "OD": "right", "L": "left", "OS": "left"}
_EYE_CODES: Final[dict[str, Eye]] = {
    "24028007": "right", "G-A100": "right", "7771000": "left", "G-A101": "left",
}  # fmt: skip
"""Modifiers of the anatomic region: SNOMED CT, and its older codes."""
_HEADER_BYTES: Final = 1_000_000
"""Of a file, within which its header ends."""
_MAX_ITEM_BYTES: Final = 65_536
"""Of a sequence that is looked into; those that are read here have some hundred."""
_MAX_SPACING_MM: Final = 0.1
"""Of a retina's pixels; a larger spacing is a placeholder, or that of a scanner or screen."""


@dataclass(frozen=True, slots=True)
class PhotoHeader:
    """What a DICOM header says of a photograph; None where it says nothing that can be used."""

    eye: Eye | None = None
    camera: str | None = None
    """Manufacturer and model."""
    patient: str | None = None
    """The patient's id with its issuer; the study's where there is none.  Identifies a person: never logged."""
    spacing_mm: tuple[float, float] | None = None
    """Between the centers of rows and of columns, on the retina, mm."""


def read_header(dataset: "Dataset") -> PhotoHeader:
    """The facts of a data set; damaged fields count as missing."""
    return PhotoHeader(_eye(dataset), _camera(dataset), _patient(dataset), _spacing(dataset))


def header_of(path: Path) -> PhotoHeader | None:
    """What the file's header says, its pixels unread; None where it is no DICOM file or cannot be read."""
    try:
        with path.open("rb") as file:
            data = file.read(_HEADER_BYTES)
    except (OSError, ValueError):
        return None
    if not is_dicom(data):
        return None
    try:
        return read_header(read_dataset(data, PhotoLimits(), header_only=True))
    except PhotoError:  # told when the photograph is read
        return None


def demand_photograph(dataset: "Dataset") -> None:
    """Raise `PhotoUnsupported`, naming what it is, if this is no single photograph of a retina by its header."""
    with as_photo_errors():
        kind = _other_kind(dataset)
    if kind is not None:
        raise PhotoUnsupported(f"the DICOM object is {kind}; color photographs of the retina are supported")
    frames = frames_of(dataset)
    if frames > 1:
        raise PhotoUnsupported(
            f"the DICOM object has {frames} frames: name one, as FILE#1 on the command line or ?frame=1 over HTTP"
        )


def _other_kind(dataset: "Dataset") -> str | None:
    """What the object is, if it is no photograph of a retina."""
    from pydicom.uid import UID

    class_uid = text_of(dataset, "SOPClassUID")
    if class_uid and class_uid not in _PHOTO_CLASSES:
        name = UID(class_uid).name
        return "of an unknown class" if name == class_uid else f"of the class {name.removesuffix(' Storage')}"
    if text_of(dataset, "Manufacturer") == MANUFACTURER:
        return "a result of this software"
    if kind := _MODALITIES.get(text_of(dataset, "Modality")):
        return kind
    image_type = [part.strip().upper() for part in text_of(dataset, "ImageType").split("\\")]
    if kind := next((_IMAGE_TYPES[part] for part in image_type[2:] if part in _IMAGE_TYPES), None):
        return kind
    if text_of(dataset, "ContrastBolusAgent") or any(items_of(dataset, "ContrastBolusAgentSequence")):
        return "an angiogram (it names a contrast agent)"
    texts = [text_of(dataset, keyword) for keyword in ("SeriesDescription", "ProtocolName", "ImageComments")]
    for keyword in ("AcquisitionDeviceTypeCodeSequence", "AnatomicRegionSequence"):
        texts += [text_of(item, "CodeMeaning") for item in items_of(dataset, keyword)]
    if any(map(_COLOR_WORDS.search, texts)):
        return None
    return next((kind for words, kind in _WORDS if any(map(words.search, texts))), None)


def text_of(dataset: "Dataset", keyword: str) -> str:
    """A field as text, several values joined by backslashes; empty where it is missing or damaged."""
    try:
        value = dataset.get(keyword)
    except Exception:
        return ""
    if value is None:
        return ""
    parts = [value] if isinstance(value, str) or not hasattr(value, "__iter__") else list(value)
    return "\\".join(str(part).strip() for part in parts)[:1024]


def items_of(dataset: "Dataset", keyword: str) -> Iterator["Dataset"]:
    """The items of a sequence; none where it is missing, damaged, or longer than any that is read here."""
    from pydicom.dataelem import RawDataElement
    from pydicom.tag import Tag

    tag = Tag(keyword)
    try:
        raw = dataset.get_item(tag) if tag in dataset else None
        if isinstance(raw, RawDataElement) and len(raw.value or b"") > _MAX_ITEM_BYTES:
            return
        items = list(dataset.get(keyword) or ())
    except Exception:
        return
    yield from items


def _eye(dataset: "Dataset") -> Eye | None:
    frames = [
        anatomy
        for shared in items_of(dataset, "SharedFunctionalGroupsSequence")
        for anatomy in items_of(shared, "FrameAnatomySequence")
    ]
    sides = [text_of(dataset, "ImageLaterality"), text_of(dataset, "Laterality")]
    sides += [text_of(item, "FrameLaterality") for item in frames]
    if eye := next((_EYES.get(side.upper()) for side in sides if side), None):
        return eye
    modifiers = (
        text_of(modifier, "CodeValue")
        for region in items_of(dataset, "AnatomicRegionSequence")
        for modifier in items_of(region, "AnatomicRegionModifierSequence")
    )
    return next((_EYE_CODES[code] for code in modifiers if code in _EYE_CODES), None)


def _camera(dataset: "Dataset") -> str | None:
    manufacturer, model = (
        " ".join(text_of(dataset, keyword).split())[:64] for keyword in ("Manufacturer", "ManufacturerModelName")
    )
    if model.casefold().startswith(manufacturer.casefold()):
        manufacturer = ""
    return f"{manufacturer} {model}".strip() or None


def _patient(dataset: "Dataset") -> str | None:
    patient = text_of(dataset, "PatientID")
    if patient.casefold() in _NO_PATIENT:
        study = text_of(dataset, "StudyInstanceUID")
        return f"study {study}" if study else None
    return "/".join(filter(None, (text_of(dataset, "IssuerOfPatientID"), patient)))


def _spacing(dataset: "Dataset") -> tuple[float, float] | None:
    try:
        rows, columns = (float(part) for part in text_of(dataset, "PixelSpacing").split("\\"))
    except ValueError:
        return None
    valid = all(math.isfinite(value) and 0 < value <= _MAX_SPACING_MM for value in (rows, columns))
    return (rows, columns) if valid else None
