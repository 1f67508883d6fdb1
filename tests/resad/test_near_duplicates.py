"""Copies of a photograph are found, whatever was done to the file; two eyes are not taken for one."""

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from resad.config import PhotoLimits, PreparationConfig
from resad.near_duplicates import (
    MAX_BITS,
    DuplicatePair,
    match_near_duplicates,
    near_duplicate_pairs,
    perceptual_hash,
)
from resad.preparation import prepare

PREPARATION = PreparationConfig(size=128)


def bits_between(first: str, second: str) -> int:
    """Hamming distance of two perceptual hashes."""
    return (int(first, 16) ^ int(second, 16)).bit_count()


ODD = int("55" * 32, 16)
"""The bits that mirroring turns."""


@dataclass(frozen=True)
class PhotoHashes:
    content_sha256: str
    perceptual_hash: str


def hash_of(image: Image.Image, quality: int = 90) -> str:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return perceptual_hash(prepare(file.getvalue(), PREPARATION, PhotoLimits()).pixels)


def copies(image: Image.Image) -> dict[str, str]:
    width, height = image.size
    return {
        "again": hash_of(image),
        "worse": hash_of(image, 50),
        "smaller": hash_of(image.resize((width // 2, height // 2), Image.Resampling.LANCZOS)),
        "larger": hash_of(image.resize((2 * width, 2 * height), Image.Resampling.BICUBIC)),
        "brighter": hash_of(image.point(lambda value: min(255, round(1.15 * value)))),
    }


def test_copies_are_near_and_other_drawn_eyes_far(drawn: Path) -> None:
    photos = [Image.open(path).convert("RGB") for path in sorted(drawn.glob("*/*/*.jpg"))]
    photo_hashes = [hash_of(photo) for photo in photos]
    assert {len(hash_) for hash_ in photo_hashes} == {64}
    for photo, hash_ in list(zip(photos, photo_hashes, strict=True))[::4]:
        for how, copy in copies(photo).items():
            assert bits_between(hash_, copy) <= MAX_BITS, how
        assert_mirrored_pairs(hash_, copies(ImageOps.mirror(photo)))
    for number, later in enumerate(photo_hashes):
        assert all(bits_between(later, earlier) > MAX_BITS for earlier in photo_hashes[:number])
    assert near_duplicate_pairs([PhotoHashes(str(n), hash_) for n, hash_ in enumerate(photo_hashes)]) == ()


def assert_mirrored_pairs(original: str, copies_: dict[str, str]) -> list[int]:
    """Each is known for a mirror image, at so many bits."""
    pairs = list(
        match_near_duplicates(
            [PhotoHashes(how, copy) for how, copy in copies_.items()], [PhotoHashes("original", original)]
        )
    )
    assert [pair.first for pair in pairs] == list(range(len(copies_)))
    assert all(pair.mirrored for pair in pairs)
    return [pair.bits for pair in pairs if pair.bits is not None]


@pytest.mark.long
def test_copies_are_near_and_other_real_eyes_far(shared: Path) -> None:
    """The measurement that the limit rests on: it lies well between the two."""
    data = shared / "data/idrid-512"
    photos = [Image.open(path).convert("RGB") for path in sorted(data.glob("t*/*/*.jpg"))[::2]]
    photo_hashes = [hash_of(photo) for photo in photos]
    far = [
        bits_between(later, earlier)
        for number, later in enumerate(photo_hashes)
        for earlier in photo_hashes[:number]
    ]
    near = [
        bits_between(photo_hashes[n], copy)
        for n in range(0, len(photo_hashes), 10)
        for copy in copies(photos[n]).values()
    ]
    assert len(far) == 40 * 39 / 2
    assert max(near) < 0.75 * MAX_BITS
    assert min(far) > 1.5 * MAX_BITS
    mirrored = [hash_of(ImageOps.mirror(photo)) for photo in photos]
    far = [
        bits_between(later, earlier) for number, later in enumerate(mirrored) for earlier in photo_hashes[:number]
    ]
    mirrored_bits = [
        assert_mirrored_pairs(photo_hashes[n], copies(ImageOps.mirror(photos[n])))
        for n in range(0, len(photo_hashes), 10)
    ]
    assert max(map(max, mirrored_bits)) < 0.75 * MAX_BITS
    assert min(far) > 1.5 * MAX_BITS
    assert (
        min(bits_between(later, earlier) for later, earlier in zip(mirrored, photo_hashes, strict=True))
        > 1.5 * MAX_BITS
    )
    assert near_duplicate_pairs([PhotoHashes(str(n), hash_) for n, hash_ in enumerate(photo_hashes)]) == ()


hash_lists = st.lists(st.tuples(st.sampled_from("abcd"), st.integers(0, 2**256 - 1)), max_size=6)


@given(hash_lists, hash_lists, st.integers(0, 255))
@settings(max_examples=60)
def test_the_nearest_is_found_as_by_comparing_all(
    photo_values: list[tuple[str, int]], reference_values: list[tuple[str, int]], bit: int
) -> None:
    reference_values = [*reference_values, *((f"{sha}x", value ^ 1 << bit) for sha, value in photo_values[:1])]
    reference_values = [
        *reference_values,
        *((f"{sha}y", value ^ ODD ^ 1 << bit) for sha, value in photo_values[1:2]),
    ]
    photos, references = (
        [PhotoHashes(sha, f"{value:064x}") for sha, value in pairs] for pairs in (photo_values, reference_values)
    )
    expected = []
    for number, (sha, value) in enumerate(photo_values):
        same = [place for place, reference in enumerate(reference_values) if reference[0] == sha]
        far = [
            (value ^ turned ^ reference).bit_count() for turned in (0, ODD) for _, reference in reference_values
        ]
        if same:
            expected.append(DuplicatePair(number, same[-1], None))
        elif far and min(far) <= MAX_BITS:
            mirrored, place = divmod(far.index(min(far)), len(reference_values))
            expected.append(DuplicatePair(number, place, min(far), bool(mirrored)))
    assert list(match_near_duplicates(photos, references)) == expected


@pytest.mark.parametrize("count", [0, 1])
def test_a_lone_photograph_is_like_no_other(count: int) -> None:
    assert near_duplicate_pairs([PhotoHashes("a", "0" * 64)] * count) == ()


def test_every_copy_is_paired_with_the_first() -> None:
    rng = np.random.default_rng(0)
    first, second = (int.from_bytes(rng.bytes(32)) for _ in range(2))
    values = (first, second, first ^ 7, second ^ 1, first ^ ODD ^ 2)
    photos = [PhotoHashes(str(n), f"{value:064x}") for n, value in enumerate(values)]
    assert near_duplicate_pairs(photos) == (
        DuplicatePair(0, 2, 3),
        DuplicatePair(1, 3, 1),
        DuplicatePair(0, 4, 1, mirrored=True),
    )
