"""What was measured -> figures, each with an interval over photographs; every variant has its own name."""

from typing import Final

from pydantic import TypeAdapter
from pydantic.dataclasses import dataclass

from lab.datasets import Dataset
from lab.evaluate.guard import Guard, guard
from lab.evaluate.image_figures import Calibrated, ImageFigures, calibrated, image_figures
from lab.evaluate.measured import Measured
from lab.evaluate.pixel_figures import LesionFigures, PixelVariants, lesion_figures, pixel_variants
from resad.calibration import USUAL_RATE, threshold
from resad.config import MethodConfig
from resad.engine import index_reference
from resad.loaded_index import LoadedIndex
from resad.manifest import PackageVersion
from resad.result import INTENDED_USE, IndexReference
from resad.runtime import packages


@dataclass(frozen=True)
class Counted:
    """Test photographs.

    without_mask: abnormal ones of which nobody marked where; no pixel figure counts them.
    in_the_index: also among the reference photos, by content hash or perceptual hash.
    """

    normal: int
    abnormal: int
    without_mask: int
    in_the_index: int


@dataclass(frozen=True)
class Figures:
    """What `evaluate` writes as JSON; `missing` says why image or pixel figures are null, if they are.

    deviations: in what the copy of the data set is not the published one.
    """

    index: IndexReference
    dataset: str
    photos: Counted
    image: ImageFigures | None
    calibrated: Calibrated | None
    pixel: PixelVariants | None
    lesions: tuple[LesionFigures, ...]
    guard: Guard
    missing: tuple[str, ...]
    deviations: tuple[str, ...]
    settings: MethodConfig
    packages: tuple[PackageVersion, ...]
    intended_use: str = INTENDED_USE


_FIGURES: Final = TypeAdapter(Figures)


def figures_json(figures: Figures) -> str:
    """`figures` as indented JSON."""
    return _FIGURES.dump_json(figures, indent=2).decode()


def figures(measured: Measured, loaded: LoadedIndex, dataset: Dataset) -> Figures:
    """The figures of what was measured, as far as the data set has both sides of them."""
    labels = measured.labels
    both = labels.any() and not labels.all()
    abnormal = measured.only(labels)
    # Of the abnormal photographs alone: they are the ones that both variants need pixels of both classes in.
    marked = abnormal.fov.abnormal.any() and abnormal.fov.normal.any()
    missing = [] if both else ["image figures need normal and abnormal test photographs"]
    missing += [] if marked else ["pixel figures need masks with lesions inside the field of view"]
    limit = threshold(loaded.manifest.calibration.scores, USUAL_RATE).value
    unmarked = sum(photo.abnormal and not photo.masks for photo in measured.photos)
    doubles = len(measured.in_the_index)
    return Figures(
        index=index_reference(loaded.manifest),
        dataset=dataset.name,
        photos=Counted(int((~labels).sum()), int(labels.sum()), unmarked, doubles),
        image=image_figures(measured, limit) if both else None,
        calibrated=None if limit is None else calibrated(measured, limit),
        pixel=pixel_variants(measured, abnormal) if marked else None,
        lesions=lesion_figures(measured, abnormal) if marked else (),
        guard=guard(measured, dataset, loaded.photos),
        missing=tuple(missing),
        deviations=dataset.deviations,
        settings=loaded.manifest.config,
        packages=packages(),
    )
