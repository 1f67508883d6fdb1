"""Copies of a photograph are found, whatever was done to the file; two eyes are not taken for one."""

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from indexer.photos.near_duplicates import (
    MAX_BITS,
    DuplicatePair,
    match_near_duplicates,
    near_duplicate_pairs,
    perceptual_hash,
)
from resad.config import PhotoLimits, PreparationConfig
from resad.preparation import prepare

PREPARATION = PreparationConfig(size=128)


def bits_between(one: str, other: str) -> int:
    """Hamming distance of two perceptual hashes."""
    return (int(one, 16) ^ int(other, 16)).bit_count()


ODD = int("55" * 32, 16)
"""The bits that mirroring turns."""


@dataclass(frozen=True)
class Two:
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
    own = [hash_of(photo) for photo in photos]
    assert {len(one) for one in own} == {64}
    for photo, hash_ in list(zip(photos, own, strict=True))[::4]:
        for how, copy in copies(photo).items():
            assert bits_between(hash_, copy) <= MAX_BITS, how
        assert_found_mirrored(hash_, copies(ImageOps.mirror(photo)))
    for number, one in enumerate(own):
        assert all(bits_between(one, other) > MAX_BITS for other in own[:number])
    assert near_duplicate_pairs([Two(str(n), one) for n, one in enumerate(own)]) == ()


def assert_found_mirrored(original: str, copies_: dict[str, str]) -> list[int]:
    """Each is known for a mirror image, at so many bits."""
    found = list(
        match_near_duplicates([Two(how, copy) for how, copy in copies_.items()], [Two("original", original)])
    )
    assert [one.first for one in found] == list(range(len(copies_)))
    assert all(one.mirrored for one in found)
    return [one.bits for one in found if one.bits is not None]


def test_copies_are_near_and_other_real_eyes_far(shared: Path) -> None:
    """The measurement that the limit rests on: it lies well between the two."""
    data = shared / "data/idrid-512"
    photos = [Image.open(path).convert("RGB") for path in sorted(data.glob("t*/*/*.jpg"))[::2]]
    own = [hash_of(photo) for photo in photos]
    far = [bits_between(one, other) for number, one in enumerate(own) for other in own[:number]]
    near = [bits_between(own[n], copy) for n in range(0, len(own), 10) for copy in copies(photos[n]).values()]
    assert len(far) == 40 * 39 / 2
    assert max(near) < 0.75 * MAX_BITS
    assert min(far) > 1.5 * MAX_BITS
    mirrored = [hash_of(ImageOps.mirror(photo)) for photo in photos]
    far = [bits_between(one, other) for number, one in enumerate(mirrored) for other in own[:number]]
    known = [assert_found_mirrored(own[n], copies(ImageOps.mirror(photos[n]))) for n in range(0, len(own), 10)]
    assert max(map(max, known)) < 0.75 * MAX_BITS
    assert min(far) > 1.5 * MAX_BITS
    assert min(bits_between(one, other) for one, other in zip(mirrored, own, strict=True)) > 1.5 * MAX_BITS
    assert near_duplicate_pairs([Two(str(n), one) for n, one in enumerate(own)]) == ()


hashes = st.lists(st.tuples(st.sampled_from("abcd"), st.integers(0, 2**256 - 1)), max_size=6)


@given(hashes, hashes, st.integers(0, 255))
@settings(max_examples=60)
def test_the_nearest_is_found_as_by_comparing_all(
    tested: list[tuple[str, int]], known: list[tuple[str, int]], bit: int
) -> None:
    known = [*known, *((f"{sha}x", value ^ 1 << bit) for sha, value in tested[:1])]
    known = [*known, *((f"{sha}y", value ^ ODD ^ 1 << bit) for sha, value in tested[1:2])]
    photos, references = ([Two(sha, f"{value:064x}") for sha, value in pairs] for pairs in (tested, known))
    expected = []
    for number, (sha, value) in enumerate(tested):
        same = [place for place, other in enumerate(known) if other[0] == sha]
        far = [(value ^ turned ^ other).bit_count() for turned in (0, ODD) for _, other in known]
        if same:
            expected.append(DuplicatePair(number, same[-1], None))
        elif far and min(far) <= MAX_BITS:
            mirrored, place = divmod(far.index(min(far)), len(known))
            expected.append(DuplicatePair(number, place, min(far), bool(mirrored)))
    assert list(match_near_duplicates(photos, references)) == expected


@pytest.mark.parametrize("count", [0, 1])
def test_a_lone_photograph_is_like_no_other(count: int) -> None:
    assert near_duplicate_pairs([Two("a", "0" * 64)] * count) == ()


def test_every_copy_is_paired_with_the_first() -> None:
    rng = np.random.default_rng(0)
    first, other = (int.from_bytes(rng.bytes(32)) for _ in range(2))
    values = (first, other, first ^ 7, other ^ 1, first ^ ODD ^ 2)
    photos = [Two(str(n), f"{value:064x}") for n, value in enumerate(values)]
    assert near_duplicate_pairs(photos) == (
        DuplicatePair(0, 2, 3),
        DuplicatePair(1, 3, 1),
        DuplicatePair(0, 4, 1, mirrored=True),
    )
