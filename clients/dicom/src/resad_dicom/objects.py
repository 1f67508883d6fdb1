"""DICOM objects as the node sees them: which it takes, and the few identifiers that it reads of them.

The service reads pixels and everything else.  No identifier goes into a log or a message.
"""

import io
import re
from dataclasses import dataclass
from typing import Final

from pydicom import uid
from pydicom.dataset import FileMetaDataset
from pydicom.filebase import DicomIO
from pydicom.filereader import read_dataset
from pydicom.filewriter import write_file_meta_info
from pydicom.tag import BaseTag, Tag

from resad_dicom.settings import ResultKind

PHOTO_CLASSES: Final = (
    uid.OphthalmicPhotography8BitImageStorage,
    uid.OphthalmicPhotography16BitImageStorage,
    uid.WideFieldOphthalmicPhotographyStereographicProjectionImageStorage,
    uid.VLPhotographicImageStorage,
    uid.VLEndoscopicImageStorage,
    uid.SecondaryCaptureImageStorage,
    uid.MultiFrameGrayscaleByteSecondaryCaptureImageStorage,
    uid.MultiFrameGrayscaleWordSecondaryCaptureImageStorage,
    uid.MultiFrameTrueColorSecondaryCaptureImageStorage,
)
"""SOP classes that may hold a photograph of the eye."""
TRANSFER_SYNTAXES: Final = (
    uid.ExplicitVRLittleEndian,
    uid.ImplicitVRLittleEndian,
    uid.ExplicitVRBigEndian,
    uid.RLELossless,
    uid.JPEGBaseline8Bit,
    uid.JPEGLossless,
    uid.JPEGLosslessSV1,
    uid.JPEGLSLossless,
    uid.JPEGLSNearLossless,
    uid.JPEG2000Lossless,
    uid.JPEG2000,
)
"""How their pixels may be encoded.  Without Deflated: a small file of it may inflate to any size."""
_KINDS: Final[dict[str, ResultKind]] = {
    uid.ParametricMapStorage: "map",
    uid.SegmentationStorage: "segmentation",
    uid.BasicTextSRStorage: "report",
    uid.EnhancedSRStorage: "report",
    uid.ComprehensiveSRStorage: "report",
    uid.Comprehensive3DSRStorage: "report",
    uid.SecondaryCaptureImageStorage: "overlay",
    uid.MultiFrameTrueColorSecondaryCaptureImageStorage: "overlay",
}
_UID: Final = re.compile(r"[0-9]+(\.[0-9]+)*")
_MANUFACTURER: Final = "ReSAD"
"""Of every result object: one that a PACS routes back to the node is not scored again."""
_NAMES: Final = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "Manufacturer")
_TAGS: Final[list[BaseTag | int]] = [Tag(name) for name in (*_NAMES, "SpecificCharacterSet")]
_STUDY: Final = Tag("StudyInstanceUID")
_MAGIC: Final = slice(128, 132)


class ObjectRefused(Exception):
    """An object that the node does not take.  status: of C-STORE (PS3.4, B.2.3), the reason in STOW-RS as well."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason


UNREADABLE: Final = 0xC000
MISMATCH: Final = 0xA900
OUT_OF_RESOURCES: Final = 0xA700
UNKNOWN_CLASS: Final = 0x0122
UNKNOWN_SYNTAX: Final = 0xC122
"""Of STOW-RS (PS3.18, I.2.2): transfer syntax not supported."""


@dataclass(frozen=True, slots=True)
class Header:
    """Identifiers of an object."""

    sop_class: str
    sop_instance: str
    study: str
    transfer_syntax: str
    made_by_resad: bool


def read_header(data: bytes) -> Header:
    """The identifiers of a DICOM file.

    Reads no element after the Study Instance UID.  Raises `ObjectRefused` for a file that is damaged, has another
    transfer syntax or SOP class than the node takes, or lacks an identifier.
    """
    if data[_MAGIC] != b"DICM":
        raise ObjectRefused(UNREADABLE, "the object is no DICOM file")
    try:
        file = io.BytesIO(data)
        file.seek(_MAGIC.stop)
        meta = read_dataset(file, False, True, stop_when=_after_meta)
        syntax = str(meta.get("TransferSyntaxUID", ""))
        if syntax not in TRANSFER_SYNTAXES:
            raise ObjectRefused(UNKNOWN_SYNTAX, f"the transfer syntax {_shown(syntax)} is not supported")
        implicit, little = syntax == uid.ImplicitVRLittleEndian, syntax != uid.ExplicitVRBigEndian
        dataset = read_dataset(file, implicit, little, stop_when=_after_study, specific_tags=_TAGS)
        values = {name: str(dataset.get(name, "")) for name in _NAMES}
    except ObjectRefused:
        raise
    except Exception as error:
        # pydicom raises whatever a damaged file leads to, and its messages quote values.
        raise ObjectRefused(UNREADABLE, f"the object cannot be read ({type(error).__name__})") from None
    for name in ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID"):
        if not is_uid(values[name]):
            raise ObjectRefused(MISMATCH, f"the object has no valid {name}")
    return Header(
        values["SOPClassUID"], values["SOPInstanceUID"], values["StudyInstanceUID"], syntax,
        made_by_resad=values["Manufacturer"] == _MANUFACTURER,
    )  # fmt: skip


def read_photo_header(data: bytes) -> Header:
    """As `read_header`, of an object that may be a photograph of the eye; refuses other SOP classes."""
    header = read_header(data)
    if header.sop_class not in PHOTO_CLASSES:
        raise ObjectRefused(
            UNKNOWN_CLASS, f"the SOP class {_shown(header.sop_class)} holds no photograph of the eye"
        )
    return header


def as_file(sop_class: str, sop_instance: str, transfer_syntax: str, dataset: bytes) -> bytes:
    """A DICOM file (PS3.10) of an encoded data set."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = uid.UID(sop_class)
    meta.MediaStorageSOPInstanceUID = uid.UID(sop_instance)
    meta.TransferSyntaxUID = uid.UID(transfer_syntax)
    file = io.BytesIO()
    file.write(bytes(_MAGIC.start) + b"DICM")
    write_file_meta_info(DicomIO(file), meta)
    return file.getvalue() + dataset


def kind_of(sop_class: str) -> ResultKind | None:
    """The kind of a result object; None for a SOP class that no setting names."""
    return _KINDS.get(sop_class)


def is_uid(text: str) -> bool:
    """Whether `text` is a DICOM UID."""
    return len(text) <= 64 and _UID.fullmatch(text) is not None


def _after_meta(tag: BaseTag, vr: str | None, length: int) -> bool:
    return int(tag) >> 16 != 2


def _after_study(tag: BaseTag, vr: str | None, length: int) -> bool:
    return int(tag) > int(_STUDY)


def _shown(text: str) -> str:
    """A UID of the standard, or nothing of what stands in its place."""
    return text if is_uid(text) else "(none)"
