"""DICOM photographs for tests, in every transfer syntax and color space that is read."""

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydicom import dcmwrite
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.pixels.utils import pixel_array
from pydicom.uid import (
    JPEG2000,
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
    generate_uid,
)

OPHTHALMIC_8_BIT = "1.2.840.10008.5.1.4.1.1.77.1.5.1"
PATIENT = {"PatientName": "Roe^Jane", "PatientID": "MRN-4711", "PatientBirthDate": "19500102"}
"""Values that must not appear in any log, index or error."""
LOSSLESS = (
    ImplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    DeflatedExplicitVRLittleEndian,
    RLELossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEG2000Lossless,
)
LOSSY = (JPEGBaseline8Bit, JPEGLSNearLossless, JPEG2000)


def photograph(pixels: NDArray[Any], syntax: str = ExplicitVRLittleEndian, **fields: Any) -> bytes:
    """A DICOM file with these pixels, (H, W) or (H, W, 3); `fields` replace fields of the header."""
    dataset = header(pixels, fields)
    dataset.PixelData = _even(pixels.astype(pixels.dtype.newbyteorder("<")).tobytes())
    return encoded(dataset, syntax)


def header(pixels: NDArray[Any], fields: dict[str, Any]) -> Dataset:
    """The header of an ophthalmic photograph without its pixels."""
    dataset = Dataset()
    dataset.SOPClassUID = OPHTHALMIC_8_BIT if pixels.dtype == np.uint8 else OPHTHALMIC_8_BIT[:-1] + "2"
    for keyword, seed in (("SOPInstanceUID", "object"), ("StudyInstanceUID", "study"), ("SeriesInstanceUID", "a")):
        setattr(dataset, keyword, generate_uid(entropy_srcs=[seed]))
    for keyword, value in {
        **PATIENT, "PatientSex": "F", "StudyID": "7", "StudyDate": "20260102", "StudyTime": "101112",
        "AccessionNumber": "ACC-0815", "ReferringPhysicianName": "Poe^John", "Modality": "OP",
        "ImageLaterality": "R", "Manufacturer": "Topcon", "ManufacturerModelName": "TRC-NW8", "SeriesNumber": 1,
        "InstanceNumber": 1, "ImageType": ["ORIGINAL", "PRIMARY", "", "COLOR"], "PatientOrientation": ["L", "F"],
        "BurnedInAnnotation": "NO", "SamplesPerPixel": 3 if pixels.ndim == 3 else 1,
        "PhotometricInterpretation": "RGB" if pixels.ndim == 3 else "MONOCHROME2", "PixelRepresentation": 0,
        "Rows": pixels.shape[0], "Columns": pixels.shape[1], "BitsAllocated": 8 * pixels.itemsize,
        "BitsStored": 8 * pixels.itemsize, "HighBit": 8 * pixels.itemsize - 1,
        **({"PlanarConfiguration": 0} if pixels.ndim == 3 else {}), **fields,
    }.items():  # fmt: skip
        if value is None:
            dataset.pop(keyword, None)
        else:
            setattr(dataset, keyword, value)
    return dataset


def encoded(dataset: Dataset, syntax: str) -> bytes:
    """The file of a data set with uncompressed pixels, compressed as the transfer syntax says."""
    if syntax == JPEGBaseline8Bit:
        return as_jpeg(dataset)
    if syntax == JPEGLosslessSV1:
        return _by_gdcm(dataset)
    native = syntax in (ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian)
    target = syntax if native else ExplicitVRLittleEndian
    if syntax == ExplicitVRBigEndian and dataset.BitsAllocated == 16:
        dataset.PixelData = np.frombuffer(dataset.PixelData, "<u2").astype(">u2").tobytes()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = UID(target)
    if not native and syntax != ExplicitVRLittleEndian:
        # GDCM's own encoder ends the process for an odd number of pixels.
        plugin = "pydicom" if syntax == RLELossless else ""
        options: dict[str, Any] = {"encoding_plugin": plugin}
        if syntax == JPEGLSNearLossless:
            options["jls_error"] = 1
        if syntax == JPEG2000:
            options["j2k_cr"] = [3]
        dataset["PixelData"].VR = "OB"
        dataset.compress(syntax, generate_instance_uid=False, **options)
    return _bytes(dataset)


def as_jpeg(dataset: Dataset, *, color: str | None = None, jfif: bool = True, quality: int = 95) -> bytes:
    """A baseline JPEG.  color: of the header, instead of what is right; jfif: keep the marker that tells YCbCr."""
    shape = (dataset.Rows, dataset.Columns) + ((3,) if dataset.SamplesPerPixel == 3 else ())
    samples = np.frombuffer(dataset.PixelData, np.uint8)[: int(np.prod(shape))]
    file = BytesIO()
    Image.fromarray(samples.reshape(shape)).save(file, "JPEG", quality=quality, subsampling=0)
    stream = file.getvalue()
    if not jfif:
        stream = stream[:2] + stream[4 + int.from_bytes(stream[4:6], "big") :]
    if dataset.SamplesPerPixel == 3:
        dataset.PhotometricInterpretation = color or "YBR_FULL_422"
    return compressed(dataset, JPEGBaseline8Bit, [stream])


def compressed(dataset: Dataset, syntax: str, frames: Sequence[bytes]) -> bytes:
    """A file with frames that are compressed already."""
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = UID(syntax)
    dataset.PixelData = encapsulate(list(frames))
    dataset["PixelData"].VR = "OB"
    dataset["PixelData"].is_undefined_length = True
    return _bytes(dataset)


def decoded(data: bytes) -> NDArray[Any]:
    """The pixels of a file as pydicom gives them."""
    return pixel_array(BytesIO(data))


def _by_gdcm(dataset: Dataset) -> bytes:
    """Lossless JPEG, process 14, first-order prediction: only GDCM writes it."""
    import tempfile

    import gdcm

    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "source.dcm", Path(folder) / "target.dcm"
        source.write_bytes(_bytes(dataset))
        reader = gdcm.ImageReader()
        reader.SetFileName(str(source))
        assert reader.Read()
        change = gdcm.ImageChangeTransferSyntax()
        change.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.JPEGLosslessProcess14_1))
        change.SetInput(reader.GetImage())
        assert change.Change()
        writer = gdcm.ImageWriter()
        writer.SetFileName(str(target))
        writer.SetFile(reader.GetFile())
        writer.SetImage(change.GetOutput())
        assert writer.Write()
        return target.read_bytes()


def _bytes(dataset: Dataset) -> bytes:
    file = BytesIO()
    dcmwrite(file, dataset, enforce_file_format=True)
    return file.getvalue()


def _even(data: bytes) -> bytes:
    return data + b"\0" * (len(data) % 2)
