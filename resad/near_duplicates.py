"""Near-duplicates: photographs that are the same picture, copied, re-encoded, resized or mirrored.

The perceptual hash is the sign of the 16 x 16 lowest cosine frequencies around their median (as Zauner 2010, but
with 255 of them).  Fundus photographs are alike in the coarse: 64 bits of brightness steps put two different eyes
of IDRiD at distance 0.  Measured with these 255 bits on its 79 photographs at 512 px: 3,081 pairs of different
photographs are at least 46 bits apart; copies re-encoded (JPEG quality 50 and up), resized (half to double),
trimmed by 1 % or brightened by 15 % are at most 8 bits away from their originals.

A bank that is searched for mirror images (`search.mirrored`) effectively holds each photograph's mirror image.
Mirroring changes the sign of every odd horizontal frequency and of no other, so the mirror image's hash follows
from the stored one: those bits flip (wrongly only between the median, nearly 0, and its negative).  On the same 79
photographs mirror images, changed as above, are at most 12 bits away, and the 3,081 pairs of different
photographs, one of them mirrored, at least 50 bits.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.fft import dctn
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

MAX_BITS: Final = 20
"""Bits up to which two photographs count as the same picture."""

_SIDE: Final = 64
_LOWEST: Final = 16
_WORDS: Final = _LOWEST * _LOWEST // 64
_ODD: Final = np.frombuffer(b"\x55" * (8 * _WORDS), dtype=np.uint64)
"""The bits of odd horizontal frequencies."""


class HashedPhoto(Protocol):
    """A photograph with its SHA-256 and its `perceptual_hash`."""

    @property
    def content_sha256(self) -> str:
        """Hexadecimal."""
        ...

    @property
    def perceptual_hash(self) -> str:
        """64 hex digits."""
        ...


@dataclass(frozen=True, slots=True)
class DuplicatePair:
    """Two photographs, by number, that show the same.

    bits: that differ between their hashes; None for the same file.  mirrored: between a hash and that of the other
    photograph's mirror image.
    """

    first: int
    second: int
    bits: int | None
    mirrored: bool = False


def perceptual_hash(pixels: NDArray[np.uint8]) -> str:
    """Hash of a prepared square, uint8 (S, S, 3): 64 hex digits, near for copies, far for two eyes."""
    green = Image.fromarray(np.ascontiguousarray(pixels[..., 1]))
    small = np.asarray(green.resize((_SIDE, _SIDE), Image.Resampling.BOX), dtype=np.float64)
    lowest = dctn(small, norm="ortho")[:_LOWEST, :_LOWEST].ravel()
    bits = lowest > np.median(lowest[1:])
    bits[0] = False  # the mean brightness says nothing of the picture
    return np.packbits(bits).tobytes().hex()


class NearDuplicateSearch:
    """Finds the reference that shows the same as a photograph; prepared once for many photographs."""

    def __init__(self, references: Sequence[HashedPhoto]) -> None:
        self._by_content = {reference.content_sha256: number for number, reference in enumerate(references)}
        self._bits = _bits([reference.perceptual_hash for reference in references])

    def match(self, content_sha256: str, hashed: str) -> tuple[int, int | None, bool] | None:
        """Number of the reference, bits that differ (None for the same file), and whether it is mirrored.

        hashed: the photograph's `perceptual_hash`.  None if no reference shows the same.
        """
        if content_sha256 in self._by_content:
            return self._by_content[content_sha256], None, False
        return _nearest(_bits([hashed])[0], self._bits)


def match_near_duplicates(
    photos: Sequence[HashedPhoto], references: Sequence[HashedPhoto]
) -> Iterator[DuplicatePair]:
    """Each of `photos` (`first`) that is a copy or mirror image of one of `references` (`second`), the nearest."""
    search = NearDuplicateSearch(references)
    for number, photo in enumerate(photos):
        if (match := search.match(photo.content_sha256, photo.perceptual_hash)) is not None:
            yield DuplicatePair(number, *match)


def near_duplicate_pairs(photos: Sequence[HashedPhoto]) -> tuple[DuplicatePair, ...]:
    """Each photograph (`second`) that shows the same as an earlier one (`first`) or its mirror image.

    Their files differ: copies of a file are not among `photos`.
    """
    bits = _bits([photo.perceptual_hash for photo in photos])
    nearest = ((number, _nearest(bits[number], bits[:number])) for number in range(1, len(bits)))
    return tuple(DuplicatePair(pair[0], number, *pair[1:]) for number, pair in nearest if pair is not None)


def _bits(hashes: Sequence[str]) -> NDArray[np.uint64]:
    """The hashes as words (n, 4)."""
    joined = b"".join(map(bytes.fromhex, hashes))
    return np.frombuffer(joined, dtype=np.uint64).reshape(len(hashes), _WORDS)


def _nearest(bits: NDArray[np.uint64], references: NDArray[np.uint64]) -> tuple[int, int, bool] | None:
    """Number and distance of the nearest hash within `MAX_BITS` bits, and whether it is that of a mirror image."""
    if not len(references):
        return None
    distances = np.stack([np.bitwise_count(references ^ hashed).sum(axis=1) for hashed in (bits, bits ^ _ODD)])
    mirrored, number = divmod(int(distances.argmin()), len(references))
    distance = int(distances[mirrored, number])
    return (number, distance, bool(mirrored)) if distance <= MAX_BITS else None


def group_photos(patients: Sequence[str | None], pairs: Sequence[DuplicatePair] = ()) -> list[frozenset[int]]:
    """Per photo the group that is left out of the calibration with it: its patient's photos and their copies.

    Photos of a group would make each other look normal.  A group includes the photo itself.

    Args:
        patients: the patient of each photo, if known.
        pairs: photos that show the same.
    """
    firsts: dict[str, int] = {}
    edges = [
        (firsts.setdefault(patient, number), number)
        for number, patient in enumerate(patients)
        if patient is not None
    ]
    edges += [(pair.first, pair.second) for pair in pairs]
    ends = np.array(edges, dtype=np.int32).reshape(-1, 2).T
    count = len(patients)
    links = coo_array((np.ones(len(edges), dtype=np.int8), (ends[0], ends[1])), shape=(count, count))
    labels = connected_components(links, directed=False)[1].tolist() if count else []
    members: dict[int, list[int]] = {}
    for number, label in enumerate(labels):
        members.setdefault(label, []).append(number)
    groups = {label: frozenset(numbers) for label, numbers in members.items()}
    return [groups[label] for label in labels]


def left_out_groups(patients: Sequence[str | None], photos: Sequence[HashedPhoto]) -> list[frozenset[int]]:
    """`group_photos` these photographs, with all that are copies or mirror images of each other."""
    return group_photos(patients, near_duplicate_pairs(photos))
