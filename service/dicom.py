"""Results as DICOM: which callers accept them, and the body that carries the objects (PS3.18, 8.6.1.2)."""

import re
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
from werkzeug.datastructures import MIMEAccept
from werkzeug.http import parse_accept_header, parse_options_header

from resad.config import PhotoLimits
from resad.dicom.files import is_dicom
from resad.pictures.overlay import Layout
from resad.preparation import PhotoDecoder
from resad.runtime import package_version
from service.maps import Drawable, overlay_image
from service.problems import NOT_ACCEPTABLE, Refusal

if TYPE_CHECKING:
    from resad.dicom.results import DicomObject

DICOM: Final = "application/dicom"
RELATED: Final = "multipart/related"
_JSON: Final = "application/json"
_UNQUOTED: Final = re.compile(rf"type={DICOM}(?=[;,\s]|$)", re.IGNORECASE)
"""As many clients write it, though a slash must be quoted (RFC 9110, 5.6.2)."""


@dataclass(frozen=True, slots=True)
class DicomBody:
    """A body of several DICOM files, and its media type with the boundary."""

    body: bytes
    media_type: str


def wants_dicom(accept: str) -> bool:
    """Whether an `Accept` header prefers `multipart/related; type="application/dicom"` to JSON.

    A header that accepts anything gets JSON.  Parameters such as `transfer-syntax` are ignored: objects come as
    explicit VR little endian, which every peer reads.
    """
    accepted = parse_accept_header(_UNQUOTED.sub(f'type="{DICOM}"', accept), MIMEAccept)
    qualities = [quality for entry, quality in accepted if _names_dicom(entry)]
    return bool(qualities) and max(qualities) > 0 and max(qualities) >= accepted.quality(_JSON)


def _names_dicom(entry: str) -> bool:
    media_type, options = parse_options_header(entry)
    return media_type == RELATED and options.get("type", DICOM) == DICOM


def demand_dicom(photo: bytes) -> None:
    """Raise `Refusal` (406) for a photograph that has no study to which results could belong."""
    if not is_dicom(photo):
        raise Refusal(NOT_ACCEPTABLE, f"only a DICOM photograph has results as DICOM; others come as {_JSON}")


def encode_dicom(
    drawable: Drawable,
    photo: bytes,
    limits: PhotoLimits,
    longest: int | None,
    layout: Layout,
    decoder: PhotoDecoder,
) -> DicomBody:
    """The result's objects: map, findings, report and overlay.

    Args:
        drawable: with a result.
        photo: the DICOM file.
        longest: longer side of the overlay, px; 2048 if None.
        decoder: decodes the photograph.
    """
    from resad.dicom.results import OVERLAY_SIDE, Drawing, result_objects

    frame, manifest, result = drawable.frame, drawable.manifest, drawable.result
    assert result is not None
    overlay = overlay_image(drawable, photo, limits, longest or OVERLAY_SIDE, layout, decoder)
    drawing = Drawing(
        frame.map_to_photo(drawable.detection.anomaly_map), np.asarray(overlay), manifest.calibration.full_scale
    )
    return related(result_objects(photo, result, drawing, package_version(), limits))


def related(objects: "tuple[DicomObject, ...]") -> DicomBody:
    """The objects as one multipart body."""
    boundary = secrets.token_hex(16)
    parts = [f"--{boundary}\r\nContent-Type: {DICOM}\r\n\r\n".encode() + entry.file + b"\r\n" for entry in objects]
    parts.append(f"--{boundary}--\r\n".encode())
    return DicomBody(b"".join(parts), f'{RELATED}; type="{DICOM}"; boundary={boundary}')
