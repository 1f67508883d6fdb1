"""A reference photograph less its pixels: what is kept of it while an index is built."""

from dataclasses import dataclass

from indexer.intake import Taken
from indexer.look_alikes import perceptual_hash
from indexer.photos import ReferencePhoto
from resad.field_of_view import FieldOfView
from resad.preparation import Frame
from resad.quality import QualityMeasures, measure_quality


@dataclass(frozen=True, slots=True)
class Reference:
    """A photograph whose features are in the store."""

    source: ReferencePhoto
    content_sha256: str
    perceptual_hash: str
    frame: Frame
    field_of_view: FieldOfView
    quality: QualityMeasures


def photo_id(number: int) -> str:
    """The opaque id of the `number`-th photograph of an index, from 1."""
    return f"r-{number:05d}"


def without_pixels(taken: Taken) -> Reference:
    """`taken`, less its pixels."""
    photo = taken.photo
    return Reference(
        source=taken.source,
        content_sha256=photo.content_hash,
        perceptual_hash=perceptual_hash(photo.pixels),
        frame=photo.frame,
        field_of_view=photo.field_of_view,
        quality=measure_quality(photo),
    )
