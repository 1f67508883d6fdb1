"""A result as DICOM objects of the photograph's study: map, findings, report, overlay.

Every object names the photograph as its source.  Unique identifiers follow from the photograph and the result
alone: the same result, written again, is the same objects, and a PACS keeps them once.
"""

import hashlib
import re
import uuid
from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from io import BytesIO
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from resad_client.records import INTENDED_USE, Finding, Result, Timings, compact_json

from resad.dicom import ObjectKind
from resad.dicom.files import as_photo_errors, read_dataset
from resad.dicom.header import MANUFACTURER, PhotoHeader, read_header, text_of
from resad.errors import PhotoUnsupported

if TYPE_CHECKING:
    from highdicom.sr import CodedConcept
    from pydicom.dataset import Dataset
    from pydicom.sr.coding import Code

    from resad.config import PhotoLimits

OVERLAY_SIDE: Final = 2048
"""Longer side of an overlay, px, unless its size is chosen: as large as screens, and a few MB uncompressed."""
_SERIES: Final[dict[ObjectKind, int]] = {"map": 9001, "findings": 9002, "report": 9003, "overlay": 9004}
"""Series numbers, high enough to come after a camera's."""
_SCHEME: Final = "99RESAD"
"""The private coding scheme of the concepts that no public scheme has."""
_EXPLICIT: Final = "1.2.840.10008.1.2.1"
_REQUIRED: Final = ("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID")
_EMPTY_IF_MISSING: Final = (
    "PatientID", "PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID", "StudyDate",
    "StudyTime", "ReferringPhysicianName",
)  # fmt: skip
"""Fields that each object must have, though they may be empty."""
_OPTIONAL: Final = (
    "SpecificCharacterSet", "IssuerOfPatientID", "StudyDescription", "Rows", "Columns", "ReferencedFrameNumber",
    "LossyImageCompression", "LossyImageCompressionRatio", "LossyImageCompressionMethod",
)  # fmt: skip
_LOSSY: Final = tuple(f"1.2.840.10008.1.2.4.{number}" for number in (50, 51, 81, 91, 203))
"""Transfer syntaxes whose pixels may not be those of the camera."""
_ORIENTATION: Final = ("L", "F")
"""Of an upright photograph's rows and columns: toward the patient's left, and the feet."""
_RETINA_MM: Final = 0.3
_SIDES: Final = {"left": "L", "right": "R", None: ""}


@dataclass(frozen=True, slots=True, eq=False)
class Drawing:
    """What the objects show.

    anomaly_map: float32 (H, W), feature distances at the photograph's pixels.  overlay: uint8 (h, w, 3), RGB, of
    any size.  full_scale: the distance at which viewers show white.
    """

    anomaly_map: NDArray[np.float32]
    overlay: NDArray[np.uint8]
    full_scale: float


@dataclass(frozen=True, slots=True)
class DicomObject:
    """An object to store.  file: a DICOM file, explicit VR little endian."""

    kind: ObjectKind
    sop_instance_uid: str
    file: bytes


def result_objects(
    photo: bytes, result: Result, drawing: Drawing, version: str, limits: "PhotoLimits"
) -> tuple[DicomObject, ...]:
    """The objects of one result: map, findings (where there are any), report and overlay.

    Args:
        photo: the DICOM file that was scored; a frame of several as `files.single_frame` gives it.
        version: of this software.
    Raises:
        PhotoUnsupported: the header lacks what results must refer to, or highdicom is missing.
    """
    dataset = read_dataset(photo, limits)
    with as_photo_errors():
        header = read_header(dataset)
        objects = _Objects(_source(dataset, header), header, result, drawing, version)
        return tuple(objects.files())


def finding_mask(finding: Finding, width: int, height: int) -> NDArray[np.bool_]:
    """The pixels inside a finding's contour, its outline and its holes included: bool (height, width).

    Their number is near `area_px`, which is counted on the map without holes, and mostly larger: the outline adds
    half a pixel all round.
    """
    image = Image.new("1", (width, height))
    ImageDraw.Draw(image).polygon(list(finding.contour), fill=1, outline=1)
    return np.array(image)


def _source(dataset: "Dataset", header: PhotoHeader) -> "Dataset":
    """What results take over from the photograph's header, and nothing else of it."""
    from pydicom.dataset import Dataset

    if missing := [keyword for keyword in _REQUIRED if not text_of(dataset, keyword)]:
        raise PhotoUnsupported(f"the DICOM header has no {missing[0]}: results must refer to it")
    source = Dataset()
    for keyword in (*_REQUIRED, *_EMPTY_IF_MISSING, *_OPTIONAL):
        value = dataset.get(keyword)
        if value is not None or keyword in _EMPTY_IF_MISSING:
            setattr(source, keyword, "" if value is None or not _valid(keyword, str(value)) else value)
    if dataset.file_meta.TransferSyntaxUID in _LOSSY:
        source.LossyImageCompression = "01"
    # highdicom treats ophthalmic photographs as enhanced images, which have their spacing in these groups.
    source.NumberOfFrames = 1
    groups = Dataset()
    groups.PixelMeasuresSequence = _pixel_measures(header.spacing_mm or (1.0, 1.0))
    source.SharedFunctionalGroupsSequence = [groups]
    return source


def _valid(keyword: str, value: str) -> bool:
    """Whether highdicom takes a value over; dates, times and sexes of other forms are left empty."""
    from pydicom.valuerep import DA, TM

    if keyword == "PatientSex":
        return value in ("", "M", "F", "O")
    kind = {"StudyDate": DA, "PatientBirthDate": DA, "StudyTime": TM}.get(keyword)
    try:
        return kind is None or kind(value) is not None or not value
    except ValueError:
        return False


def _in_a_plane(source: "Dataset", frame_of_reference: str) -> "Dataset":
    """A copy of `source` that lies in a plane of its own: parametric maps must lie in one, photographs do not."""
    from pydicom.dataset import Dataset

    placed, position, orientation = deepcopy(source), Dataset(), Dataset()
    placed.FrameOfReferenceUID = frame_of_reference
    # At both places: which one highdicom reads depends on the photograph's class.
    placed.ImagePositionPatient = position.ImagePositionPatient = [0, 0, 0]
    placed.ImageOrientationPatient = orientation.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    frame, (shared,) = Dataset(), placed.SharedFunctionalGroupsSequence
    placed.PixelSpacing = shared.PixelMeasuresSequence[0].PixelSpacing
    placed.SliceThickness = shared.PixelMeasuresSequence[0].SliceThickness
    frame.PlanePositionSequence = [position]
    shared.PlaneOrientationSequence = [orientation]
    placed.PerFrameFunctionalGroupsSequence = [frame]
    return placed


def _pixel_measures(spacing_mm: tuple[float, float]) -> "Sequence[Dataset]":
    from highdicom import PixelMeasuresSequence

    # A retina's: readers ask for a thickness, and photographs have none.
    return PixelMeasuresSequence(pixel_spacing=spacing_mm, slice_thickness=_RETINA_MM)


class _Objects:
    """The objects of one result.  source: as `_source` gives it."""

    def __init__(
        self, source: "Dataset", header: PhotoHeader, result: Result, drawing: Drawing, version: str
    ) -> None:
        self._source, self._header, self._result = source, header, result
        self._drawing, self._version = drawing, version
        self._frame = int(source.get("ReferencedFrameNumber") or 0) or None
        content = compact_json(replace(result, request_id=None, timings_ms=Timings(0, 0), map=None))
        self._content = f"{source.SOPInstanceUID} {self._frame} {version} {content}"

    def files(self) -> Iterator[DicomObject]:
        """Each object as a file."""
        segmentation = self._segmentation() if self._result.findings else None
        datasets: list[tuple[ObjectKind, Dataset]] = [("map", self._map())]
        if segmentation is not None:
            datasets.append(("findings", segmentation))
        datasets += [("report", self._report(segmentation)), ("overlay", self._overlay())]
        for kind, dataset in datasets:
            self._complete(dataset)
            file = BytesIO()
            dataset.save_as(file, enforce_file_format=True)
            yield DicomObject(kind, str(dataset.SOPInstanceUID), file.getvalue())

    def _uid(self, purpose: str) -> str:
        """A UID that follows from the photograph, the result and the purpose (PS3.5, B.2)."""
        digest = hashlib.sha256(f"{self._content} {purpose}".encode()).digest()
        return f"2.25.{uuid.UUID(bytes=digest[:16], version=4).int}"

    def _common(self, kind: ObjectKind) -> dict[str, Any]:
        """The arguments that every object takes."""
        return {
            "series_instance_uid": self._uid(f"series {kind}"),
            "series_number": _SERIES[kind],
            "series_description": f"ReSAD {kind} (research)",
            "sop_instance_uid": self._uid(kind),
            "instance_number": 1,
            "manufacturer": MANUFACTURER,
            "manufacturer_model_name": self._result.index.backbone[:64],
            "software_versions": self._version,
            "device_serial_number": self._result.index.fingerprint[:64],
        }

    def _complete(self, dataset: "Dataset") -> None:
        """What highdicom leaves open: the private coding scheme and the purpose."""
        from pydicom.dataset import Dataset

        scheme = Dataset()
        scheme.CodingSchemeDesignator = _SCHEME
        scheme.CodingSchemeName = "Concepts of ReSAD"
        scheme.CodingSchemeResponsibleOrganization = MANUFACTURER
        dataset.CodingSchemeIdentificationSequence = [scheme]
        if dataset.Modality != "SR":
            dataset.ImageComments = INTENDED_USE

    def _map(self) -> "Dataset":
        import highdicom as hd
        from pydicom.sr.codedict import codes

        values, full_scale = np.ascontiguousarray(self._drawing.anomaly_map), self._drawing.full_scale
        mapping = hd.pm.RealWorldValueMapping(
            lut_label="distance",
            lut_explanation="Distance to the nearest healthy patch features",
            unit=codes.UCUM.NoUnits,
            value_range=(float(values.min()), float(values.max())),
            slope=1.0,
            intercept=0.0,
            quantity_definition=_concept("anomaly-distance", "Distance to healthy patch features"),
        )
        parametric_map = hd.pm.ParametricMap(
            source_images=[_in_a_plane(self._source, self._uid("frame of reference"))],
            pixel_array=values,
            contains_recognizable_visual_features=False,
            real_world_value_mappings=[mapping],
            voi_lut_transformations=[
                hd.VOILUTTransformation(window_center=full_scale / 2, window_width=full_scale)
            ],
            transfer_syntax_uid=_EXPLICIT,
            content_label="ANOMALY_MAP",
            content_description="Anomaly map of a fundus photograph",
            **self._common("map"),
        )
        parametric_map.Laterality = _SIDES[self._header.eye]
        if self._header.spacing_mm is None:
            # highdicom needed a spacing; without one, viewers must not measure in mm.
            (shared,) = parametric_map.SharedFunctionalGroupsSequence
            (measures,) = shared.PixelMeasuresSequence
            del measures.PixelSpacing
        self._name_frame(parametric_map)
        return parametric_map

    def _segmentation(self) -> "Dataset":
        import highdicom as hd
        from pydicom.sr.codedict import codes

        findings = self._result.findings
        algorithm = hd.AlgorithmIdentificationSequence(
            name=MANUFACTURER, family=codes.DCM.ArtificialIntelligence, version=self._version
        )
        segments = [
            hd.seg.SegmentDescription(
                segment_number=finding.rank,
                segment_label=f"Finding {finding.rank}",
                segmented_property_category=codes.SCT.MorphologicallyAbnormalStructure,
                segmented_property_type=codes.SCT.Abnormal,
                algorithm_type=hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
                algorithm_identification=algorithm,
                tracking_uid=self._uid(f"finding {finding.rank}"),
                tracking_id=f"Finding {finding.rank}",
            )
            for finding in findings
        ]
        height, width = self._drawing.anomaly_map.shape
        masks = np.empty((1, height, width, len(findings)), np.bool_)
        for number, finding in enumerate(findings):
            masks[0, ..., number] = finding_mask(finding, width, height)
        segmentation = hd.seg.Segmentation(
            source_images=[self._source],
            pixel_array=masks,
            segmentation_type=hd.seg.SegmentationTypeValues.BINARY,
            segment_descriptions=segments,
            transfer_syntax_uid=_EXPLICIT,
            content_label="FINDINGS",
            content_description="Regions above the level of findings",
            omit_empty_frames=False,
            **self._common("findings"),
        )
        segmentation.PatientOrientation = list(_ORIENTATION)
        (shared,) = segmentation.SharedFunctionalGroupsSequence
        if self._header.spacing_mm is None:
            shared.pop("PixelMeasuresSequence", None)
        self._name_frame(segmentation)
        return segmentation

    def _name_frame(self, dataset: "Dataset") -> None:
        """Put the photograph's frame, where it is one of several, into the references."""
        if self._frame is None:
            return
        for group in dataset.PerFrameFunctionalGroupsSequence:
            for derivation in group.DerivationImageSequence:
                for image in derivation.SourceImageSequence:
                    image.ReferencedFrameNumber = self._frame

    def _report(self, segmentation: "Dataset | None") -> "Dataset":
        from highdicom import sr
        from pydicom.sr.codedict import codes

        index = self._result.index
        observer = sr.ObserverContext(
            observer_type=codes.DCM.Device,
            observer_identifying_attributes=sr.DeviceObserverIdentifyingAttributes(
                uid=self._uid("device"), name=MANUFACTURER, manufacturer_name=MANUFACTURER,
                model_name=index.backbone, serial_number=index.fingerprint,
            ),
        )  # fmt: skip
        content = sr.MeasurementReport(
            observation_context=sr.ObservationContext(observer_device_context=observer),
            procedure_reported=_concept("fundus-photography", "Fundus photography"),
            imaging_measurements=[
                self._photo_group(),
                *(self._finding_group(finding, segmentation) for finding in self._result.findings),
            ],
            title=codes.DCM.ImagingMeasurementReport,
        )
        return sr.ComprehensiveSR(
            evidence=[self._source] if segmentation is None else [self._source, segmentation],
            content=content[0],
            is_complete=True,
            transfer_syntax_uid=_EXPLICIT,
            **self._common("report"),
        )

    def _algorithm(self) -> Any:
        from highdicom.sr import AlgorithmIdentification

        index = self._result.index
        parameters = [f"index {index.name}/{index.version}", f"fingerprint {index.fingerprint}",
                      f"trunk {index.backbone}", INTENDED_USE]  # fmt: skip
        return AlgorithmIdentification(name=MANUFACTURER, version=self._version, parameters=parameters)

    def _photo_group(self) -> Any:
        from highdicom import sr
        from pydicom.sr.codedict import codes

        result, quality = self._result, self._result.quality
        numbers = [_number("anomaly-score", "Anomaly score of the photograph", result.image_score)]
        if result.p_value is not None:
            numbers.append(_number("p-value", "p-value against healthy photographs", result.p_value))
        if result.threshold is not None:
            numbers.append(_number("threshold", "Anomaly score above which it is abnormal", result.threshold))
            numbers.append(_number("false-positive-rate", "False-positive rate of the threshold", result.fpr))
        numbers.append(_number("findings", "Number of findings", len(result.findings)))
        verdict = {True: codes.SCT.Abnormal, False: codes.SCT.Normal, None: codes.SCT.Indeterminate}
        evaluations = [_evaluation("verdict", "Verdict, research use only", verdict[result.abnormal])]
        for reason in quality.reasons or (("acceptable",) if quality.acceptable else ("not-acceptable",)):
            value = _concept(reason, reason.replace("-", " ").capitalize())
            evaluations.append(_evaluation("quality", "Quality of the photograph", value))
        return sr.MeasurementsAndQualitativeEvaluations(
            tracking_identifier=sr.TrackingIdentifier(self._uid("photograph"), "Photograph"),
            algorithm_id=self._algorithm(),
            finding_sites=self._sites(),
            measurements=numbers,
            qualitative_evaluations=evaluations,
            source_images=[sr.SourceImageForMeasurementGroup(*self._reference())],
        )

    def _finding_group(self, finding: Finding, segmentation: "Dataset | None") -> Any:
        from highdicom import sr
        from pydicom.sr.codedict import codes
        from pydicom.sr.coding import Code

        assert segmentation is not None
        numbers = [
            _number("peak", "Largest distance in the finding", finding.peak),
            _number("peak-p-value", "p-value of the finding's peak", finding.p_value),
            _number("area-share", "Share of the field of view", finding.area_share),
            sr.Measurement(codes.SCT.Area, finding.area_px, Code("{pixels}", "UCUM", "pixels")),
        ]
        if finding.area_mm2 is not None:
            numbers.append(sr.Measurement(codes.SCT.Area, finding.area_mm2, codes.UCUM.SquareMillimeter))
        evaluations = []
        if finding.place is not None:
            place = _concept("-".join(re.findall(r"\w+", finding.place)), finding.place)
            evaluations.append(_evaluation("place", "Place of the peak", place))
        if finding.resembles is not None:
            kind = _concept(finding.resembles.kind, finding.resembles.kind.replace("-", " ").capitalize())
            evaluations.append(_evaluation("resembles", "Examples that it resembles, no diagnosis", kind))
        segment = sr.ReferencedSegmentationFrame(
            sop_class_uid=str(segmentation.SOPClassUID),
            sop_instance_uid=str(segmentation.SOPInstanceUID),
            frame_number=finding.rank,
            segment_number=finding.rank,
            source_image=sr.SourceImageForSegmentation(*self._reference()),
        )
        # A segment or a frame may be named, not both (PS3.3, table 10-3); the segment has one frame.
        del segment[0].ReferencedSOPSequence[0].ReferencedFrameNumber
        return sr.PlanarROIMeasurementsAndQualitativeEvaluations(
            tracking_identifier=sr.TrackingIdentifier(
                self._uid(f"finding {finding.rank}"), f"Finding {finding.rank}"
            ),
            referenced_segment=segment,
            finding_type=codes.SCT.Abnormal,
            algorithm_id=self._algorithm(),
            finding_sites=self._sites(),
            measurements=numbers,
            qualitative_evaluations=evaluations,
        )

    def _sites(self) -> list[Any]:
        from highdicom.sr import FindingSite
        from pydicom.sr.codedict import codes

        sides = {"left": codes.SCT.Left, "right": codes.SCT.Right, None: None}
        return [FindingSite(codes.SCT.Retina, laterality=sides[self._header.eye])]

    def _reference(self) -> tuple[str, str, list[int] | None]:
        """The photograph's class, instance and, of several, frame."""
        frames = [self._frame] if self._frame else None
        return str(self._source.SOPClassUID), str(self._source.SOPInstanceUID), frames

    def _overlay(self) -> "Dataset":
        import highdicom as hd
        from pydicom.dataset import Dataset
        from pydicom.sr.codedict import codes

        overlay = hd.sc.SCImage.from_ref_dataset(
            self._source,
            pixel_array=self._drawing.overlay,
            photometric_interpretation="RGB",
            bits_allocated=8,
            coordinate_system="PATIENT",
            laterality=_SIDES[self._header.eye] or None,
            patient_orientation=_ORIENTATION,
            transfer_syntax_uid=_EXPLICIT,
            **self._common("overlay"),
        )
        reference = Dataset()
        reference.ReferencedSOPClassUID, reference.ReferencedSOPInstanceUID, frames = self._reference()
        if frames:
            reference.ReferencedFrameNumber = frames
        reference.PurposeOfReferenceCodeSequence = [_coded(codes.DCM.SourceImageForImageProcessingOperation)]
        overlay.SourceImageSequence = [reference]
        if self._header.eye is None:
            overlay.Laterality = ""
        overlay.DerivationDescription = "The anomaly map over the photograph"
        return overlay


def _concept(value: str, meaning: str) -> "CodedConcept":
    from highdicom.sr import CodedConcept

    return CodedConcept(value=value, scheme_designator=_SCHEME, meaning=meaning[:64])


def _coded(code: "Code") -> "CodedConcept":
    from highdicom.sr import CodedConcept

    return CodedConcept.from_code(code)


def _number(code: str, meaning: str, value: float) -> Any:
    from highdicom.sr import Measurement
    from pydicom.sr.codedict import codes

    return Measurement(_concept(code, meaning), value, codes.UCUM.NoUnits)


def _evaluation(code: str, meaning: str, value: "CodedConcept | Code") -> Any:
    from highdicom.sr import QualitativeEvaluation

    return QualitativeEvaluation(_concept(code, meaning), value)
