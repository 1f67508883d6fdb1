"""Reference photographs of an index: loading and checking them, the facts that are kept, and their records."""

import os
import re
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass as checked_dataclass
from resad_client.records import QualityMeasures
from resad_client.text import counted, printable

from indexer.build.feature_store import checksum
from indexer.calibration.leave_out import LeftOut
from indexer.photos.listing import MIN_PHOTOS, Duplicate, NearDuplicate, ReferencePhoto, Skipped
from indexer.prefetching import prefetch
from resad.config import PhotoLimits, PreparationConfig
from resad.decoder_pool import shared_pool
from resad.encoder import PatchFeatures
from resad.errors import NotAFundusPhoto, PhotoError, PhotoUnreachable, SettingError
from resad.field_of_view import FieldOfView
from resad.index import tombstone, tombstones
from resad.manifest import ReferenceRecord
from resad.near_duplicates import DuplicatePair, perceptual_hash
from resad.preparation import Frame, PhotoDecoder, PreparedPhoto, mask_of, prepare
from resad.quality import measure_quality
from resad.retina import looks_like_fundus

_MAX_THREADS: Final = 8
"""Threads that prepare photographs, at most; half the cores, since the network needs them too."""
_MAX_READY: Final = 4
"""Prepared photographs that wait: a batch."""
_PATIENT_NUMBER: Final = re.compile(r"p-(\d{5,})")


@dataclass(frozen=True, slots=True, eq=False)
class LoadedPhoto:
    """A photograph that will be in the index, with its pixels."""

    source: ReferencePhoto
    photo: PreparedPhoto


@checked_dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class PhotoFacts:
    """What is kept of a photograph besides its features.

    patches: their number.  grid: (h, w) cells.  checksum: of its feature files, `feature_store.checksum`.
    """

    perceptual_hash: str
    frame: Frame
    field_of_view: FieldOfView
    quality: QualityMeasures
    patches: int
    grid: tuple[int, int]
    checksum: int


@dataclass(frozen=True, slots=True)
class Reference:
    """A photograph whose features are stored."""

    source: ReferencePhoto
    content_sha256: str
    facts: PhotoFacts

    @property
    def perceptual_hash(self) -> str:
        """64 hexadecimal digits, as of `near_duplicates.HashedPhoto`."""
        return self.facts.perceptual_hash

    def mask(self, preparation: PreparationConfig) -> NDArray[np.bool_]:
        """The field of view on the prepared square: bool (S, S)."""
        return mask_of(self.facts.frame, self.facts.field_of_view, preparation)


Screen = Callable[[ReferencePhoto, str], Skipped | Duplicate | None]
"""Decides by a photograph's content hash whether it is used; None: it is."""


class TooFewPhotos(SettingError):
    """Too few of the listed photographs can be used.  skipped, duplicates: those that were not used."""

    def __init__(self, message: str, unused: Sequence[Skipped | Duplicate]) -> None:
        super().__init__(message)
        self.skipped = tuple(photo for photo in unused if isinstance(photo, Skipped))
        self.duplicates = tuple(photo for photo in unused if isinstance(photo, Duplicate))


def _use_all(source: ReferencePhoto, content_hash: str) -> None:
    return None


def load_photos(
    listed: Sequence[ReferencePhoto],
    preparation: PreparationConfig,
    limits: PhotoLimits,
    *,
    strict: bool,
    used: Mapping[str, ReferencePhoto] | None = None,
    screen: Screen = _use_all,
    threads: int | None = None,
    decoder: PhotoDecoder | None = None,
) -> Generator[LoadedPhoto | Skipped | Duplicate, None, None]:
    """Load, check and prepare each listed photograph, in order; threads prepare the next ones meanwhile.

    Run the iterator to its end or close it.

    Args:
        used: content hash -> photograph, of those that the index has already.
        threads: that prepare photographs; by default half the cores.
        decoder: decodes them; by default processes that are ended when a photograph takes too long.
    Raises:
        PhotoError: with `strict`, for the first photograph that cannot be used.
        SettingError: with `strict`, for the first photograph that `screen` skips.
    """
    by_content = dict(used or {})
    threads = threads or min(max(len(os.sched_getaffinity(0)) // 2, 1), _MAX_THREADS)
    load = partial(_load, preparation=preparation, limits=limits, decoder=decoder or shared_pool())
    with closing(prefetch(listed, load, threads=threads, most=threads + _MAX_READY)) as prepared:
        for source, photo in zip(listed, prepared, strict=True):
            if isinstance(photo, PhotoError):
                if strict:
                    raise type(photo)(f"{source.path}: {photo}") from photo
                yield Skipped(source.path, str(photo), isinstance(photo, PhotoUnreachable))
                continue
            decision = screen(source, photo.content_hash)
            if decision is not None:
                if strict and isinstance(decision, Skipped):
                    raise SettingError(f"{source.path}: {decision.reason}")
                yield decision
                continue
            first = by_content.setdefault(photo.content_hash, source)
            yield LoadedPhoto(source, photo) if first is source else Duplicate(source.path, first.path)


def screen_purged(index: Path) -> Screen:
    """Skips photographs that were purged from `index`, ROOT/NAME."""
    graves = tombstones(index)

    def screen(source: ReferencePhoto, content_hash: str) -> Skipped | None:
        if graves and tombstone(content_hash) in graves:
            return Skipped(source.path, "it was purged from this index")
        return None

    return screen


def reference_of(loaded: LoadedPhoto, patches: PatchFeatures) -> Reference:
    """A loaded photograph without its pixels.  patches: its features."""
    photo = loaded.photo
    facts = PhotoFacts(
        perceptual_hash=perceptual_hash(photo.pixels),
        frame=photo.frame,
        field_of_view=photo.field_of_view,
        quality=measure_quality(photo),
        patches=len(patches.cells),
        grid=patches.grid,
        checksum=checksum(patches),
    )
    return Reference(loaded.source, photo.content_hash, facts)


def near_duplicates_of(
    references: Sequence[Reference], pairs: Sequence[DuplicatePair]
) -> tuple[NearDuplicate, ...]:
    """Files of photographs that show the same as an earlier one.  pairs: `near_duplicate_pairs(references)`."""
    return tuple(
        NearDuplicate(
            references[pair.second].source.path, references[pair.first].source.path, pair.bits or 0, pair.mirrored
        )
        for pair in pairs
    )


def check_enough(source: Path, groups: Sequence[frozenset[int]], unused: Sequence[Skipped | Duplicate]) -> None:
    """Raise `TooFewPhotos` if `source` has too few usable photographs for an index.

    Args:
        groups: per usable photograph, those that are left out of the calibration with it.
        unused: the other photographs.
    """
    count, photos = len(set(groups)), len(groups)
    if count >= MIN_PHOTOS:
        return
    message = f"{source} holds {counted(photos, 'usable photograph')}"
    if count < photos:
        message += (
            f", all of one patient or copies of each other: an index needs at least {MIN_PHOTOS} that are not"
        )
    else:
        message += f", an index needs at least {MIN_PHOTOS}"
    raise TooFewPhotos(f"{message}; {unused_summary(unused)}", unused)


def unused_summary(unused: Sequence[Skipped | Duplicate]) -> str:
    """`3 were not used; first reason: ...`."""
    reasons = [f"; first reason: {photo.reason}" for photo in unused if isinstance(photo, Skipped)]
    return f"{len(unused)} {'was' if len(unused) == 1 else 'were'} not used{reasons[0] if reasons else ''}"


def photo_id(number: int) -> str:
    """The opaque id of the `number`-th photograph of an index, from 1."""
    return f"r-{number:05d}"


def new_records(
    references: Sequence[Reference],
    left_out: LeftOut,
    patients: Sequence[str | None],
    *,
    first_row: int = 0,
    last_number: int = 0,
    keep_names: bool,
) -> tuple[ReferenceRecord, ...]:
    """A record for each photograph.

    Args:
        patients: of the same photographs.
        first_row: of these photographs in `left_out`.
        last_number: of the index's photographs so far; ids continue after it.
    """
    rows = range(first_row, first_row + len(references))
    return tuple(
        ReferenceRecord(
            id=photo_id(number),
            content_sha256=reference.content_sha256,
            perceptual_hash=reference.perceptual_hash,
            width=reference.facts.frame.width,
            height=reference.facts.frame.height,
            field_of_view=reference.facts.field_of_view,
            patches=reference.facts.patches,
            score=left_out.scores[row],
            peak=left_out.peaks[row],
            quality=reference.facts.quality,
            patient=patient,
            eye=reference.source.eye,
            camera=reference.source.camera,
            name=printable(reference.source.path.name) if keep_names else None,
        )
        for number, (reference, patient, row) in enumerate(
            zip(references, patients, rows, strict=True), last_number + 1
        )
    )


def number_patients(names: Sequence[str | None], index_patients: Iterable[str | None] = ()) -> list[str | None]:
    """Patients' names as numbers, p-00001 for the first, so that the index names nobody.

    Args:
        index_patients: of photographs that are in the index; a name that is among them stays, and the numbers
            continue after theirs.
    """
    existing = set(index_patients)
    matches = (_PATIENT_NUMBER.fullmatch(name) for name in existing if name)
    first = max((int(match[1]) for match in matches if match), default=0) + 1
    numbers: dict[str, str] = {}
    return [
        name if name is None or name in existing else numbers.setdefault(name, f"p-{first + len(numbers):05d}")
        for name in names
    ]


def _load(
    source: ReferencePhoto, preparation: PreparationConfig, limits: PhotoLimits, decoder: PhotoDecoder
) -> PreparedPhoto | PhotoError:
    try:
        photo = prepare(source.path, preparation, limits, decoder=decoder)
        _check_retina(photo)
    except PhotoError as error:
        return error
    return photo


def _check_retina(photo: PreparedPhoto) -> None:
    reason = looks_like_fundus(photo.pixels, photo.mask, photo.field_of_view)
    if reason is not None:
        raise NotAFundusPhoto(reason)
