"""The reference photographs of an index found again by content, and drawn with what makes them stand out."""

import base64
import io
from collections.abc import Collection
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from resad.calibration import USUAL_RATE, threshold
from resad.config import PhotoLimits
from resad.detector import measure
from resad.errors import naming
from resad.loaded_index import LoadedIndex
from resad.photo import read_photo
from resad.pictures.overlay import draw_panels, map_scale
from resad.preparation import prepare

_WIDTH: Final = 900
_QUALITY: Final = 82


def audit_picture(loaded: LoadedIndex, together: Collection[int], place: Path, limits: PhotoLimits) -> str:
    """Photograph | anomaly map against the others' memories, as the data URL of a JPEG.

    Args:
        together: rows in `loaded.photos` that are left out for it, its own among them.
    """
    detector, config = loaded.detector, loaded.manifest.config
    with naming(place):
        photo = prepare(place, config.preparation, limits)
        pixels = _reduced(read_photo(place, limits).pixels)
    others = detector.bank.without_photos(np.array(sorted(together), dtype=np.int32))
    detection = measure(detector.encoder.encode([photo])[0], photo.mask, others, config)
    height, width = pixels.shape[:2]
    calibration = loaded.manifest.calibration
    level = threshold(calibration.peaks, USUAL_RATE).value
    dense = photo.frame.map_to_photo(detection.anomaly_map, width, height)
    picture = draw_panels(pixels, dense, map_scale(calibration, level), [], None)
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=_QUALITY, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()


def _reduced(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """At most half of the picture's width."""
    image = Image.fromarray(pixels)
    image.thumbnail((_WIDTH // 2, _WIDTH // 2), Image.Resampling.BOX, reducing_gap=2.0)
    return np.asarray(image)
