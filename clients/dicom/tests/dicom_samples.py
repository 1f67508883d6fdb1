"""Small DICOM objects: photographs, and results such as a service answers."""

import io
import uuid

import numpy as np
from pydicom import uid
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset

PATIENT = "SECRET^PATIENT"
PATIENT_ID = "MRN-4711-SECRET"


def uid_for(*parts: object) -> str:
    """A UID that follows from `parts`."""
    return f"2.25.{uuid.uuid5(uuid.NAMESPACE_OID, ' '.join(map(str, parts))).int}"


def encoded(dataset: Dataset, sop_class: str, instance: str, syntax: str = uid.ExplicitVRLittleEndian) -> bytes:
    """A file of a data set."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = uid.UID(sop_class)
    meta.MediaStorageSOPInstanceUID = uid.UID(instance)
    meta.TransferSyntaxUID = uid.UID(syntax)
    meta.ImplementationClassUID = uid.PYDICOM_IMPLEMENTATION_UID
    buffer = io.BytesIO()
    file = FileDataset(buffer, dataset, file_meta=meta, preamble=bytes(128))
    file.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def photo_object(
    number: int = 0,
    *,
    study: str = "study",
    side: int = 16,
    sop_class: str = uid.OphthalmicPhotography8BitImageStorage,
    syntax: str = uid.ExplicitVRLittleEndian,
    manufacturer: str = "Camera Works",
) -> bytes:
    """A photograph of noise, `side` px square."""
    dataset = Dataset()
    instance = uid_for("photo", study, number)
    dataset.SOPClassUID = sop_class
    dataset.SOPInstanceUID = instance
    dataset.StudyInstanceUID = uid_for(study)
    dataset.SeriesInstanceUID = uid_for("series", study)
    dataset.PatientName = PATIENT
    dataset.PatientID = PATIENT_ID
    dataset.Manufacturer = manufacturer
    dataset.Modality = "OP"
    dataset.StudyDate = "20240102"
    dataset.Rows = dataset.Columns = side
    dataset.SamplesPerPixel = 3
    dataset.PlanarConfiguration = 0
    dataset.PhotometricInterpretation = "RGB"
    dataset.BitsAllocated = dataset.BitsStored = 8
    dataset.HighBit = 7
    dataset.PixelRepresentation = 0
    pixels = np.random.default_rng(number).integers(0, 256, (side, side, 3), dtype=np.uint8)
    dataset.PixelData = pixels.tobytes()
    dataset["PixelData"].VR = "OB"
    return encoded(dataset, sop_class, instance, syntax)


RESULT_CLASSES = (uid.ParametricMapStorage, uid.ComprehensiveSRStorage, uid.SecondaryCaptureImageStorage)


def result_objects(photo: bytes, attempt: int = 0, study: str | None = None) -> list[bytes]:
    """A map, a report and an overlay of a photograph; `attempt` changes what they say and not their UIDs."""
    from pydicom import dcmread

    source = dcmread(io.BytesIO(photo), stop_before_pixels=True)
    objects = []
    for sop_class in RESULT_CLASSES:
        instance = uid_for("result", source.SOPInstanceUID, sop_class)
        dataset = Dataset()
        dataset.SOPClassUID = sop_class
        dataset.SOPInstanceUID = instance
        dataset.StudyInstanceUID = study or source.StudyInstanceUID
        dataset.SeriesInstanceUID = uid_for("series", source.SOPInstanceUID, sop_class)
        dataset.PatientName = source.PatientName
        dataset.PatientID = source.PatientID
        dataset.Manufacturer = "ReSAD"
        dataset.Modality = "OT"
        dataset.SeriesDescription = f"attempt {attempt}"
        objects.append(encoded(dataset, sop_class, instance))
    return objects
