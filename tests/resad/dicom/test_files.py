"""Untrusted DICOM files: bounded work, named refusals, and no header value in an error."""

import random
import struct
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLSLossless,
    RLELossless,
)

from resad.config import PhotoLimits
from resad.dicom.files import is_dicom, read_dataset, single_frame
from resad.errors import PhotoError, PhotoTooLarge, PhotoUnreadable
from resad.photo import read_photo
from tests.dicom_files import PATIENT, compressed, encoded, header, photograph

LIMITS = PhotoLimits()
PIXELS = np.random.default_rng(0).integers(0, 255, (96, 100, 3), np.uint8)
PREAMBLE = b"\0" * 128 + b"DICM"


def element(group: int, number: int, kind: bytes, value: bytes, length: int | None = None) -> bytes:
    """An explicit little-endian element; `length` lies."""
    size = len(value) if length is None else length
    if kind in (b"SQ", b"OB", b"OW", b"UN", b"UT"):
        return struct.pack("<HH2sHL", group, number, kind, 0, size) + value
    return struct.pack("<HH2sH", group, number, kind, size) + value


def file_of(body: bytes, syntax: str = ExplicitVRLittleEndian) -> bytes:
    uid = syntax.encode() + b"\0" * (len(syntax) % 2)
    return PREAMBLE + element(2, 0x10, b"UI", uid) + body


def nested(depth: int) -> bytes:
    opening = struct.pack("<HH2sHL", 0x0040, 0xA730, b"SQ", 0, 0xFFFFFFFF) + b"\xfe\xff\x00\xe0\xff\xff\xff\xff"
    return file_of(opening * depth)


def assert_quiet(data: bytes) -> None:
    """The file is read or refused, and the refusal quotes nothing of a patient."""
    text = ""
    try:
        read_photo(data, LIMITS)
    except PhotoError as error:
        text = str(error)
    assert not any(value in text for value in PATIENT.values())


def test_truncated_anywhere() -> None:
    for syntax in (ExplicitVRLittleEndian, RLELossless, JPEGBaseline8Bit, JPEG2000Lossless, JPEGLSLossless):
        data = photograph(PIXELS, syntax)
        for share in (0.001, 0.01, 0.02, 0.05, 0.2, 0.5, 0.9, 0.99):
            cut = data[: 132 + int((len(data) - 132) * share)]
            assert_quiet(cut)  # a decoder may complete a stream that lacks a few bytes


def test_uncompressed_pixels_that_are_cut_short_are_refused() -> None:
    with pytest.raises(PhotoUnreadable):
        read_photo(photograph(PIXELS)[:-500], LIMITS)


@pytest.mark.parametrize(
    "data",
    [
        nested(3),
        nested(100_000),
        file_of(element(8, 5, b"CS", b"", length=60_000)),
        file_of(element(0x10, 0x10, b"PN", b"Roe^Jane", length=8) + element(0x7FE0, 0x10, b"OW", b"", 0xFFFFFFF0)),
        file_of(element(0x7FE0, 0x10, b"OB", b"", 0xFFFFFFFF)),
        PREAMBLE,
        PREAMBLE + b"\x02\0\x10\0UI\xff\xff",
        PREAMBLE + b"\x02\0\x10\0UI\x04\0\xff\xfe\xff\xfe",
        file_of(b"\xff" * 3000),
        file_of(b""),
    ],
)
def test_lying_lengths_and_nesting(data: bytes) -> None:
    with pytest.raises(PhotoError):
        read_photo(data, LIMITS)


def test_many_elements_are_refused_soon() -> None:
    small = struct.pack("<HHL", 0x0009, 0x1001, 0)
    data = PREAMBLE + element(2, 0x10, b"UI", b"1.2.840.10008.1.2\0") + small * 2_000_000
    began = time.process_time()
    with pytest.raises(PhotoTooLarge, match="elements"):
        read_photo(data, LIMITS)
    assert time.process_time() - began < 30


def test_a_deflate_bomb_is_not_inflated() -> None:
    body = zlib.compressobj(9, wbits=-15)
    bomb = body.compress(b"\0" * 40_000_000) + body.flush()
    with pytest.raises(PhotoTooLarge, match="inflates to more than"):
        read_photo(file_of(bomb, DeflatedExplicitVRLittleEndian), PhotoLimits(max_bytes=1_000_000))


def test_a_bomb_behind_a_long_preface_is_found() -> None:
    """The transfer syntax comes after another element of 60 kB."""
    body = zlib.compressobj(9, wbits=-15)
    bomb = body.compress(b"\0" * 40_000_000) + body.flush()
    preface = element(2, 0x02, b"UI", b"1" * 60_000)
    uid = DeflatedExplicitVRLittleEndian.encode()
    data = PREAMBLE + preface + element(2, 0x10, b"UI", uid) + bomb
    with pytest.raises(PhotoTooLarge, match="inflates"):
        read_photo(data, PhotoLimits(max_bytes=1_000_000))


def test_an_rle_frame_cannot_hold_more_than_it_has_bytes() -> None:
    with pytest.raises(PhotoUnreadable, match="cut short"):
        read_photo(compressed(header(PIXELS, {}), RLELossless, [b"\x03\0\0\0" + b"\0" * 200]), LIMITS)


def test_scans_are_counted() -> None:
    import io

    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(PIXELS).save(file, "JPEG", progressive=True)
    with pytest.raises(PhotoError, match="progressive"):
        read_photo(compressed(header(PIXELS, {}), JPEGBaseline8Bit, [file.getvalue()]), LIMITS)
    file = io.BytesIO()
    Image.fromarray(PIXELS).save(file, "JPEG")
    stream = file.getvalue()
    start = stream.index(b"\xff\xda")
    many = stream[:-2] + stream[start:-2] * 6 + b"\xff\xd9"
    with pytest.raises(PhotoError, match="scans"):
        read_photo(compressed(header(PIXELS, {}), JPEGBaseline8Bit, [many]), LIMITS)


def test_damage_never_gives_another_error() -> None:
    """Seeded flips of bytes in the header and at the start of the pixels."""
    random_bytes = random.Random(0)
    for syntax in (ExplicitVRLittleEndian, RLELossless, JPEGBaseline8Bit, JPEG2000Lossless):
        data = photograph(PIXELS, syntax)
        for _ in range(60):
            damaged = bytearray(data)
            for _ in range(random_bytes.randrange(1, 6)):
                damaged[random_bytes.randrange(132, min(len(data), 2500))] = random_bytes.randrange(256)
            assert_quiet(bytes(damaged))


def test_files_without_a_preamble() -> None:
    data = photograph(PIXELS)
    bare = data[data.index(b"\x08\0\x08\0CS") :]
    assert is_dicom(bare)
    assert np.array_equal(read_photo(bare, LIMITS).pixels, PIXELS)


@pytest.mark.parametrize("data", [b"", b"\xff\xd8\xff\xe0" + b"\0" * 200, b"BM" + b"\0" * 300, b"\x08\0\x05\0"])
def test_other_files_are_not_taken_for_dicom(data: bytes) -> None:
    assert not is_dicom(data) or len(data) < 132


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, RLELossless, JPEG2000Lossless, JPEGLSLossless])
def test_frames_by_name(syntax: str, tmp_path: Path) -> None:
    frames = np.stack([PIXELS, 255 - PIXELS, PIXELS[::-1]])
    dataset = header(PIXELS, {"NumberOfFrames": 3})
    dataset.PixelData = frames.tobytes()
    data = encoded(dataset, syntax)
    for number, frame in enumerate(frames, 1):
        alone = single_frame(data, number, LIMITS)
        assert np.array_equal(read_photo(alone, LIMITS).pixels, frame)
        assert read_dataset(alone, LIMITS).ReferencedFrameNumber == number
        assert alone == single_frame(data, number, LIMITS)
    with pytest.raises(PhotoUnreadable, match="no frame 4: the file has 3"):
        single_frame(data, 4, LIMITS)
    (tmp_path / "both.dcm").write_bytes(data)
    photos = [read_photo(tmp_path / f"both.dcm#{number}", LIMITS) for number in (1, 2)]
    assert np.array_equal(photos[1].pixels, frames[1])
    assert photos[0].content_hash != photos[1].content_hash


def test_a_file_whose_name_ends_like_a_frame_is_itself(tmp_path: Path) -> None:
    path = tmp_path / "eye.dcm#2"
    path.write_bytes(photograph(PIXELS))
    assert np.array_equal(read_photo(path, LIMITS).pixels, PIXELS)
