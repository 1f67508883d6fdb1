"""Pictures of reports: a photograph with the outlines of its lesions, and under its anomaly map."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from PIL import Image
from scipy import ndimage

from lab.datasets import LabeledPhoto
from lab.datasets.dataset import read_lesions
from lab.evaluate.measuring import Measurement, names_of
from lab.evaluate.tables import auroc_within
from resad.calibration import USUAL_RATE, Calibration, threshold
from resad.config import PhotoLimits
from resad.errors import naming
from resad.loaded_index import LoadedIndex
from resad.photo import read_photo
from resad.pictures.overlay import MapScale, map_scale, under_map
from resad.preparation import prepare

_WIDTH: Final = 360
"""px; of the pictures in the report."""
_PER_GROUP: Final = 3
_QUALITY: Final = 82
_OUTLINE: Final = (255, 255, 255)


@dataclass(frozen=True, slots=True)
class Case:
    """A test photograph.

    photo, overlay: data URLs of JPEGs.  pixel_auroc: within this photograph; None where nothing is marked.
    """

    name: str
    kind: str
    score: float
    p_value: float
    pixel_auroc: float | None
    photo: str
    overlay: str


@dataclass(frozen=True, slots=True)
class Group:
    """Cases of one sort, the most telling one first."""

    title: str
    cases: tuple[Case, ...]


def best_and_worst(
    measured: Measurement, loaded: LoadedIndex, scale: MapScale, limits: PhotoLimits
) -> tuple[Group, ...]:
    """The highest and the lowest image scores of normal and of abnormal photographs, no photograph twice.

    Scores each of these photographs again.  Raises `PhotoError` where one of them cannot be read any more.
    """
    order = np.argsort(measured.scores, kind="stable")
    abnormal = [int(n) for n in order if measured.labels[n]]
    normal = [int(n) for n in order if not measured.labels[n]]
    selections = (
        ("Abnormal, highest scores", abnormal[::-1][:_PER_GROUP]),
        ("Abnormal, lowest scores: most easily missed", abnormal[:-_PER_GROUP][:_PER_GROUP]),
        ("Normal, highest scores: first false alarms", normal[::-1][:_PER_GROUP]),
        ("Normal, lowest scores", normal[:-_PER_GROUP][:_PER_GROUP]),
    )
    names = names_of(measured.photos)
    return tuple(
        Group(title, tuple(_case(n, names[n], measured, loaded, scale, limits) for n in numbers))
        for title, numbers in selections
        if numbers
    )


def _case(
    number: int, name: str, measured: Measurement, loaded: LoadedIndex, scale: MapScale, limits: PhotoLimits
) -> Case:
    labeled, score = measured.photos[number], float(measured.scores[number])
    with naming(labeled.path):
        prepared = prepare(labeled.path, loaded.manifest.config.preparation, limits)
        pixels = read_photo(labeled.path, limits).pixels
    detection = loaded.detector.detect([prepared])[0]
    height = round(_WIDTH * pixels.shape[0] / pixels.shape[1])
    small = Image.fromarray(pixels).resize((_WIDTH, height), Image.Resampling.LANCZOS)
    values = prepared.frame.map_to_photo(detection.anomaly_map, _WIDTH, height)
    return Case(
        name=name,
        kind=labeled.kind,
        score=score,
        p_value=loaded.manifest.calibration.p_value(score),
        pixel_auroc=auroc_within(measured, number),
        photo=jpeg_url(with_outlines(small, labeled, pixels.shape[:2])),
        overlay=jpeg_url(under_map(np.asarray(small), values, scale)),
    )


def usual_scale(calibration: Calibration) -> MapScale:
    """The colors' scale, with the threshold of findings for the usual false-positive rate (`USUAL_RATE`)."""
    return map_scale(calibration, threshold(calibration.peaks, USUAL_RATE).value)


def with_outlines(photo: Image.Image, labeled: LabeledPhoto, shape: Sequence[int]) -> Image.Image:
    """The photograph, reduced from `shape` (H, W), with a line around every lesion of its masks."""
    picture = photo.copy()
    if labeled.masks:
        marked = np.logical_or.reduce(list(read_lesions(labeled.masks, shape[0], shape[1]).values()))
        small = np.asarray(Image.fromarray(marked).convert("L").resize(photo.size, Image.Resampling.BOX)) > 63
        line = ndimage.binary_dilation(small) & ~small
        picture.paste(_OUTLINE, (0, 0), Image.fromarray(line))
    return picture


def jpeg_url(picture: Image.Image) -> str:
    """The picture as the data URL of a JPEG."""
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=_QUALITY, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()
