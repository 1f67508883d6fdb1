"""Orthanc as the try-out profile configures it, started and killed by tests; photographs to store in it."""

import io
import json
import shutil
import subprocess
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx
import numpy as np
import pytest
from PIL import Image
from pydicom import uid
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from resad_dicom.multipart import RELATED, read_parts

from tests.docker.files import DOCKER, need
from tests.ports import free_port

_PLUGINS: Final = Path("/usr/share/orthanc/plugins")


def until(condition: Callable[[], bool], seconds: float = 120) -> None:
    """Wait for a condition, long enough for a slow machine."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not become true in time"
        time.sleep(0.1)


class Orthanc:
    """A PACS on this machine; its ports and its store outlive its process.

    Args:
        node: port of the node that it routes to; None: it routes nothing.
        stow: address of the node for STOW-RS.
    """

    def __init__(self, folder: Path, node: int | None = None, stow: str | None = None) -> None:
        self._program = need("Orthanc")
        if not (_PLUGINS / "libOrthancDicomWeb.so").exists():
            pytest.skip("orthanc-dicomweb is not installed")
        self._folder = folder
        self.port, web_port = free_port(), free_port()
        self.web = f"http://127.0.0.1:{web_port}"
        config = json.loads((DOCKER / "dicom/orthanc.json").read_text())
        config |= {
            "StorageDirectory": str(folder / "store"),
            "IndexDirectory": str(folder / "store"),
            "DicomPort": self.port,
            "HttpPort": web_port,
            "LuaScripts": [str(DOCKER / "dicom/routing.lua")] if node else [],
            "DicomModalities": {"resad": ["RESAD", "127.0.0.1", node]} if node else {},
        }
        if stow:
            config["DicomWeb"] |= {"Servers": {"resad": [f"{stow}/"]}}
        folder.mkdir()
        (folder / "orthanc.json").write_text(json.dumps(config))
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        return f"dicom://ORTHANC@127.0.0.1:{self.port}"

    @property
    def dicom_web(self) -> str:
        return f"{self.web}/dicom-web"

    def start(self) -> None:
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [self._program, str(self._folder / "orthanc.json")], stdout=log, stderr=log
            )
        until(self._answers)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def instances(self) -> list[dict[str, str]]:
        """SOP class, SOP Instance, Study and Series Instance UID of everything that is stored."""
        tags = {"sop_class": "00080016", "instance": "00080018", "study": "0020000D", "series": "0020000E"}
        query = {"limit": "100000", "includefield": "00080016"}
        entries = httpx.get(f"{self.dicom_web}/instances", params=query, timeout=60).json()
        return [{name: str(entry[tag]["Value"][0]) for name, tag in tags.items()} for entry in entries]

    def study(self, study: str) -> list[bytes]:
        """Every object of a study, by WADO-RS."""
        answer = httpx.get(f"{self.dicom_web}/studies/{study}", headers={"Accept": RELATED}, timeout=60)
        assert answer.status_code == 200, answer.text
        return read_parts(answer.headers["Content-Type"], answer.content)

    def store(self, *files: Path) -> None:
        """Store files with dcmtk's storescu."""
        subprocess.run(
            [need("storescu"), "-aec", "ORTHANC", "127.0.0.1", str(self.port), *map(str, files)],
            check=True,
            capture_output=True,
        )

    def stow(self) -> None:
        """Send every study to the node by the PACS' own STOW-RS."""
        studies = httpx.get(f"{self.web}/studies", timeout=60).json()
        order = {"Resources": studies, "Synchronous": True}
        answer = httpx.post(f"{self.dicom_web}/servers/resad/stow", json=order, timeout=60)
        assert answer.status_code == 200, answer.text

    def _answers(self) -> bool:
        try:
            return httpx.get(f"{self.web}/system", timeout=5).status_code == 200
        except httpx.TransportError:
            return False


@contextmanager
def orthanc(folder: Path, node: int | None = None, stow: str | None = None) -> Iterator[Orthanc]:
    pacs = Orthanc(folder, node, stow)
    try:
        pacs.start()
        yield pacs
    finally:
        pacs.kill()
        shutil.rmtree(folder / "store", ignore_errors=True)


@dataclass(frozen=True, slots=True)
class Photo:
    """A photograph as DICOM."""

    study: str
    instance: str
    data: bytes


def uid_for(*parts: object) -> str:
    """A UID that follows from `parts`."""
    return f"2.25.{uuid.uuid5(uuid.NAMESPACE_OID, ' '.join(map(str, parts))).int}"


def dicom_photo(image: Path, patient: int, eye: str) -> Photo:
    """A picture file as Ophthalmic Photography 8 Bit; eye: R or L."""
    with Image.open(image) as picture:
        pixels = np.asarray(picture.convert("RGB"))
    study, instance = uid_for("study", patient), uid_for("photo", patient, eye)
    dataset = Dataset()
    values: dict[str, Any] = {
        "SOPClassUID": uid.OphthalmicPhotography8BitImageStorage,
        "SOPInstanceUID": instance,
        "StudyInstanceUID": study,
        "SeriesInstanceUID": uid_for("series", patient, eye),
        "PatientName": f"SECRET^PATIENT{patient}",
        "PatientID": f"MRN{patient}",
        "PatientBirthDate": "19500101",
        "PatientSex": "F",
        "StudyDate": "20240102",
        "StudyTime": "101112",
        "StudyID": "1",
        "AccessionNumber": f"A{patient}",
        "ReferringPhysicianName": "",
        "Modality": "OP",
        "Manufacturer": "Camera Works",
        "ManufacturerModelName": "Fundus 1",
        "SeriesNumber": 1,
        "InstanceNumber": 1,
        "ImageLaterality": eye,
        "ImageType": ["ORIGINAL", "PRIMARY", "", "COLOR"],
        "NumberOfFrames": 1,
        "BurnedInAnnotation": "NO",
        "SamplesPerPixel": 3,
        "PhotometricInterpretation": "RGB",
        "PlanarConfiguration": 0,
        "Rows": pixels.shape[0],
        "Columns": pixels.shape[1],
        "PixelSpacing": [0.01, 0.01],
        "BitsAllocated": 8,
        "BitsStored": 8,
        "HighBit": 7,
        "PixelRepresentation": 0,
        "PixelData": pixels.tobytes() + bytes(pixels.size % 2),
    }
    for keyword, value in values.items():
        setattr(dataset, keyword, value)
    dataset["PixelData"].VR = "OB"
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = uid.OphthalmicPhotography8BitImageStorage
    meta.MediaStorageSOPInstanceUID = uid.UID(instance)
    meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
    meta.ImplementationClassUID = uid.PYDICOM_IMPLEMENTATION_UID
    buffer = io.BytesIO()
    FileDataset(buffer, dataset, file_meta=meta, preamble=bytes(128)).save_as(buffer, enforce_file_format=True)
    return Photo(study, instance, buffer.getvalue())


def results_by_study(pacs: Orthanc) -> dict[str, Counter[str]]:
    """Study -> result objects of each SOP class in the PACS."""
    studies: dict[str, Counter[str]] = {}
    for entry in pacs.instances():
        if entry["sop_class"] != uid.OphthalmicPhotography8BitImageStorage:
            studies.setdefault(entry["study"], Counter())[entry["sop_class"]] += 1
    return studies
