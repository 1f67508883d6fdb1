"""Every variant of TIFF, PNG, JPEG, BMP, JPEG 2000 and PNM: read as a second reader reads it, or refused by name.

The second readers are `tifffile` and `imagecodecs`; what they read is brought to 8 bits by the high byte.
"""

import itertools
import logging
import struct
from io import BytesIO
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image

from resad.config import PhotoLimits
from resad.errors import PhotoError, PhotoUnreadable, PhotoUnsupported
from resad.photo import read_photo, stored_size

LIMITS = PhotoLimits(min_side=1)
VAGUE = ("damaged", "cut short", "cannot be read")
"""Words of errors that name no property."""

Samples = NDArray[Any]


def smooth(channels: int, highest: float, kind: str, *, height: int = 40, width: int = 50) -> Samples:
    """(H, W, channels), from nearly 0 to nearly `highest`, no symmetry, each channel its own."""
    y, x = np.mgrid[:height, :width]
    ramps = (
        0.05 + 0.9 * x / width,
        0.08 + 0.85 * y / height,
        0.1 + 0.8 * x * y / (width * height),
        0.95 - 0.3 * x / width,
    )
    return (np.stack(ramps[:channels], axis=-1) * highest).astype(kind)


def read(data: bytes) -> NDArray[np.int64]:
    return read_photo(data, LIMITS).pixels.astype(np.int64)


def read_or_fault(data: bytes) -> tuple[NDArray[np.int64] | None, str]:
    """The pixels, or why the file is refused by name."""
    try:
        return read(data), ""
    except PhotoUnsupported as error:
        return None, str(error)


def rgb(high: Samples, color: str) -> NDArray[np.float64]:
    """8-bit samples (H, W, channels) as RGB: gray repeated, transparency over black, CMYK as by Pillow."""
    values = high.astype(np.float64)
    if color == "cmyk":
        return np.asarray(Image.fromarray(high.astype(np.uint8), "CMYK").convert("RGB"), dtype=np.float64)
    if color == "miniswhite":
        values[..., 0] = 255 - values[..., 0]
    opaque = values.shape[-1] in (1, 3)
    colors = values if opaque else values[..., :-1] * values[..., -1:] / 255
    return np.broadcast_to(colors, (*colors.shape[:2], 3))


DEPTHS = {
    "u1": 255,
    "u2": 65535,
    "u4": 2**32 - 1,
    "i1": 127,
    "i2": 32767,
    "i4": 2**31 - 1,
    "f2": 1,
    "f4": 1,
    "f8": 1,
}
COMPRESSIONS = (None, "lzw", "zlib", "packbits", "lzma", "zstd", "jpeg", "webp", "jpeg2000", "jpegxl")
FOR_PICTURES = {"jpeg", "webp", "jpeg2000", "jpegxl"}
"""Compressions whose encoders know some channels and depths alone."""
UNWRITTEN = {"u1": 32, "u2": 98, "u4": 30, "i1": 30, "i2": 30, "i4": 30, "f2": 30, "f4": 30, "f8": 40}
"""Variants, at most, that they refuse to write: no such TIFF.  tifffile reads every one that is written."""
COLORS = (("minisblack", 1), ("minisblack", 2), ("miniswhite", 1), ("rgb", 3), ("rgb", 4), ("cmyk", 4))


def tiff_file(
    samples: Samples, color: str, compression: str | None, *, planes: bool, tiles: bool, predictor: bool, big: bool
) -> bytes:
    channels = samples.shape[-1]
    data = np.moveaxis(samples, -1, 0) if planes else samples
    photometric = "separated" if color == "cmyk" else color
    options: dict[str, Any] = {
        "photometric": photometric, "compression": compression, "predictor": predictor or None,
    }  # fmt: skip
    if channels > 1:
        options["planarconfig"] = "separate" if planes else "contig"
    if (color, channels) in (("minisblack", 2), ("rgb", 4)):
        options["extrasamples"] = ["unassalpha"]
    stream = BytesIO()
    tifffile.imwrite(
        stream, np.ascontiguousarray(data[..., 0] if channels == 1 else data), tile=(32, 16) if tiles else None,
        byteorder=">" if samples.dtype.byteorder == ">" else "<", bigtiff=big, metadata=None, **options,
    )  # fmt: skip
    return stream.getvalue()


@pytest.mark.parametrize("depth", DEPTHS)
def test_every_tiff_is_read_as_tifffile_reads_it_or_refused_by_name(
    depth: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL)
    right, refused, unwritten = 0, 0, 0
    kinds = itertools.product("<>", COMPRESSIONS, COLORS)
    switches = list(itertools.product((False, True), repeat=3))
    variants = itertools.product(kinds, switches)
    for number, ((order, compression, (color, channels)), (planes, tiles, predictor)) in enumerate(variants):
        if depth not in ("u1", "u2") and (order == ">" or tiles or predictor):
            continue  # refused for the depth alone
        if (planes and channels == 1) or (predictor and compression not in ("lzw", "zlib", "lzma", "zstd")):
            continue
        what = (order, compression, color, channels, planes, tiles, predictor)
        samples = smooth(channels, DEPTHS[depth], order + depth)
        try:
            data = tiff_file(
                samples, color, compression, planes=planes, tiles=tiles, predictor=predictor, big=number % 3 == 0
            )
        except (ValueError, RuntimeError, KeyError):
            assert compression in FOR_PICTURES, what
            unwritten += 1
            continue
        with tifffile.TiffFile(BytesIO(data)) as file:
            stored = np.asarray(file.pages[0].asarray())
        stored = np.moveaxis(stored, 0, -1) if planes else stored.reshape(samples.shape)
        pixels, fault = read_or_fault(data)
        if pixels is None:
            assert not any(word in fault for word in VAGUE), (what, fault)
            refused += 1
            continue
        assert depth in ("u1", "u2"), what
        high = stored >> 8 if depth == "u2" else stored
        assert np.abs(pixels - rgb(high, color)).max() <= 1, what
        right += 1
    assert unwritten <= UNWRITTEN[depth]
    assert refused
    assert right >= {"u1": 392, "u2": 246}.get(depth, 0)


def packed(values: NDArray[np.int64], bits: int) -> bytes:
    """Rows of samples with `bits` each, the first in the highest bits, rows padded to whole bytes."""
    planes = (values.reshape(len(values), -1, 1) >> np.arange(bits - 1, -1, -1)) & 1
    return np.packbits(planes.reshape(len(values), -1).astype(np.uint8), axis=1).tobytes()


def raw_tiff(body: bytes, width: int, height: int, tags: dict[int, tuple[int, ...]], *, order: str = "<") -> bytes:
    """A TIFF of one strip that is not compressed; tags: numbers of 16 bits."""
    fields = {256: (width,), 257: (height,), 259: (1,), 278: (height,)} | tags
    entries, tail = [], b""
    after = 8 + len(body) + 2 + 12 * (len(fields) + 2) + 4
    for tag, values in fields.items():
        value = struct.pack(f"{order}{len(values)}H", *values)
        if len(value) > 4:
            value, tail = struct.pack(order + "L", after + len(tail)), tail + value
        entries.append((tag, struct.pack(order + "HHL", tag, 3, len(values)) + value.ljust(4, b"\0")))
    for tag, number in ((273, 8), (279, len(body))):
        entries.append((tag, struct.pack(order + "HHLL", tag, 4, 1, number)))
    directory = struct.pack(order + "H", len(entries)) + b"".join(entry for _, entry in sorted(entries))
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "L", 8 + len(body))
    return head + body + directory + b"\0\0\0\0" + tail


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("photometric", [0, 1])
@pytest.mark.parametrize("bits", [1, 2, 4, 6, 8, 10, 12, 14])
def test_gray_of_any_number_of_bits(bits: int, photometric: int, order: str) -> None:
    values = smooth(1, 2**bits - 0.01, "i8", width=49)[..., 0]
    data = raw_tiff(packed(values, bits), 49, 40, {258: (bits,), 262: (photometric,), 277: (1,)}, order=order)
    pixels, fault = read_or_fault(data)
    if pixels is None:
        assert bits not in (1, 2, 4, 8)
        assert f"{bits} bits per channel" in fault
        return
    level = values >> (bits - 8) if bits > 8 else values * 255 // (2**bits - 1)
    expected = level if photometric else 255 - level
    assert np.abs(pixels - expected[..., None]).max() <= 1


@pytest.mark.parametrize("bits", [4, 10, 12, 14])
def test_color_of_odd_depths_is_refused_by_name(bits: int) -> None:
    values = smooth(3, 2**bits - 1, "i8")
    data = raw_tiff(packed(values, bits), 50, 40, {258: (bits,) * 3, 262: (2,), 277: (3,)})
    with pytest.raises(PhotoUnsupported, match=f"{bits} bits per channel, 3 channels, RGB"):
        read(data)


def test_bits_in_reverse_order_and_channels_without_a_meaning() -> None:
    samples = smooth(1, 255, "u1")
    table = np.array([int(f"{value:08b}"[::-1], 2) for value in range(256)], np.uint8)
    reverse = raw_tiff(table[samples].tobytes(), 50, 40, {258: (8,), 262: (1,), 266: (2,), 277: (1,)})
    assert np.array_equal(read(reverse), np.broadcast_to(samples, (40, 50, 3)))
    colors = smooth(4, 255, "u1")
    extra = raw_tiff(colors.tobytes(), 50, 40, {258: (8,) * 4, 262: (2,), 277: (4,), 338: (0,)})
    assert np.array_equal(read(extra), colors[..., :3])


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("order", ["<", ">"])
def test_words_in_separate_planes_are_upright(orientation: int, order: str) -> None:
    samples = smooth(3, 65535, order + "u2")
    upright = read(raw_tiff(samples.tobytes(), 50, 40, {258: (16,) * 3, 262: (2,), 277: (3,), 274: (orientation,)},
                            order=order))  # fmt: skip
    stream = BytesIO()
    planes = np.ascontiguousarray(np.moveaxis(samples, -1, 0))
    tag = (274, "H", 1, orientation, True)
    tifffile.imwrite(stream, planes, photometric="rgb", byteorder=">" if order == ">" else "<",
                     planarconfig="separate", metadata=None, extratags=[tag])  # fmt: skip
    assert np.array_equal(read(stream.getvalue()), upright)
    photo = read_photo(stream.getvalue(), LIMITS)
    assert (photo.height, photo.width) == photo.pixels.shape[:2] == stored_size(stream.getvalue(), LIMITS)[::-1]


def low_bits(bits: int, kind: str) -> bytes:
    channels = 3 if kind.endswith("rgb") else 1
    samples = smooth(channels, 2**bits - 1, "u2")
    samples[0, 0] = 2**bits - 1
    samples = samples if channels == 3 else samples[..., 0]
    if kind.startswith("png"):
        return bytes(imagecodecs.png_encode(samples))
    if kind.startswith("pnm"):
        head = f"P{6 if channels == 3 else 5} 50 40 65535\n".encode()
        return head + samples.astype(">u2").tobytes()
    stream = BytesIO()
    tifffile.imwrite(stream, samples, photometric="rgb" if channels == 3 else "minisblack")
    return stream.getvalue()


@pytest.mark.parametrize("kind", ["tiff-gray", "tiff-rgb", "png-gray", "png-rgb", "pnm-gray", "pnm-rgb"])
@pytest.mark.parametrize("bits", [8, 10, 12, 14])
def test_low_bits_of_16_are_named(kind: str, bits: int) -> None:
    with pytest.raises(PhotoUnsupported, match=rf"no sample is above {2**bits - 1:,} of 65,535.* low {bits} bits"):
        read(low_bits(bits, kind))


@pytest.mark.parametrize("kind", ["tiff-gray", "tiff-rgb", "png-gray", "png-rgb", "pnm-gray", "pnm-rgb"])
def test_a_dark_picture_of_16_bits_is_read(kind: str) -> None:
    assert 120 <= read(low_bits(15, kind)).max() <= 127


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("depth", ["u1", "u2"])
def test_every_png_is_read_as_libpng_reads_it(channels: int, depth: str) -> None:
    samples = smooth(channels, DEPTHS[depth], depth)
    data = bytes(imagecodecs.png_encode(samples[..., 0] if channels == 1 else samples))
    stored = np.asarray(imagecodecs.png_decode(data)).reshape(samples.shape)
    high = stored >> 8 if depth == "u2" else stored
    assert np.abs(read(data) - rgb(high, "gray")).max() <= 1


@pytest.mark.parametrize("subsampling", ["444", "422", "420", "440", None])
@pytest.mark.parametrize("level", [60, 95])
def test_every_color_jpeg_is_read_as_libjpeg_reads_it(subsampling: str | None, level: int) -> None:
    data = bytes(imagecodecs.jpeg_encode(smooth(3, 255, "u1"), level=level, subsampling=subsampling))
    assert np.abs(read(data) - np.asarray(imagecodecs.jpeg_decode(data)).astype(int)).max() <= 1


def test_other_kinds_of_jpeg() -> None:
    gray = smooth(1, 255, "u1")[..., 0]
    data = bytes(imagecodecs.jpeg_encode(gray, level=95))
    assert np.abs(read(data) - np.asarray(imagecodecs.jpeg_decode(data))[..., None].astype(int)).max() <= 1
    plain = bytes(imagecodecs.jpeg_encode(smooth(3, 255, "u1"), colorspace="RGB", outcolorspace="RGB", level=95))
    assert np.abs(read(plain) - smooth(3, 255, "u1").astype(int)).max() <= 8
    stream = BytesIO()
    Image.fromarray(smooth(3, 255, "u1")).save(stream, "JPEG", progressive=True, quality=90)
    assert (
        np.abs(read(stream.getvalue()) - np.asarray(imagecodecs.jpeg_decode(stream.getvalue())).astype(int)).max()
        <= 1
    )


@pytest.mark.parametrize("bits", [12, 16])
def test_a_jpeg_of_more_than_8_bits_is_named(bits: int) -> None:
    options: dict[str, Any] = {"bitspersample": bits, "lossless": bits == 16}
    data = bytes(imagecodecs.jpeg8_encode(smooth(1, 2**bits - 1, "u2")[..., 0], level=95, **options))
    with pytest.raises(PhotoUnsupported, match=f"a JPEG of {bits} bits per channel"):
        read(data)


@pytest.mark.parametrize("codec", ["jp2", "j2k"])
@pytest.mark.parametrize("bits", [8, 12, 16])
@pytest.mark.parametrize("channels", [1, 3])
def test_every_jpeg_2000_is_read_as_openjpeg_reads_it(channels: int, bits: int, codec: str) -> None:
    samples = smooth(channels, 2**bits - 1, "u1" if bits == 8 else "u2")
    data = bytes(
        imagecodecs.jpeg2k_encode(
            samples if channels == 3 else samples[..., 0], level=0, codecformat=codec, bitspersample=bits,
            reversible=True,
        )
    )  # fmt: skip
    stored = np.asarray(imagecodecs.jpeg2k_decode(data)).reshape(samples.shape)
    assert np.array_equal(stored, samples)
    assert np.abs(read(data) - (stored >> (bits - 8))).max() <= 1


def test_a_jpeg_2000_of_signed_samples_is_refused() -> None:
    data = bytes(imagecodecs.jpeg2k_encode(smooth(1, 30000, "i2")[..., 0], level=0))
    with pytest.raises(PhotoUnsupported, match="signed samples"):
        read(data)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("highest", [63, 255, 1023, 4095, 65535])
@pytest.mark.parametrize("plain", [False, True])
def test_every_pnm_is_scaled_by_its_highest_value(channels: int, highest: int, plain: bool) -> None:
    samples = smooth(channels, highest, "i8")
    number = {1: 2, 3: 3}[channels] + (0 if plain else 3)
    head = f"P{number}\n# a comment\n50 40\n{highest}\n".encode()
    kind = ">u2" if highest > 255 else "u1"
    body = " ".join(map(str, samples.ravel())).encode() if plain else samples.astype(kind).tobytes()
    assert np.abs(read(head + body) - samples * 255 / highest).max() <= 1


def test_a_second_picture_in_a_pnm_is_refused() -> None:
    picture = b"P6 50 40 255\n" + smooth(3, 255, "u1").tobytes()
    assert read(picture + b"\n").shape == (40, 50, 3)
    with pytest.raises(PhotoUnsupported, match="several pictures"):
        read(picture + picture)


@pytest.mark.parametrize("bits", [1, 4, 8, 24, 32])
def test_every_bmp_is_read_as_its_pixels_say(bits: int) -> None:
    colors = np.asarray(Image.fromarray(smooth(3, 255, "u1")).quantize(min(2**bits, 256)).convert("RGB"))
    image = Image.fromarray(colors if bits < 24 else smooth(3, 255, "u1"))
    stream = BytesIO()
    if bits == 32:
        pixels = np.dstack([np.asarray(image)[..., ::-1], np.zeros((40, 50), np.uint8)])[::-1]
        head = struct.pack("<LllHHLLllLL", 40, 50, 40, 1, 32, 0, pixels.size, 0, 0, 0, 0)
        data = b"BM" + struct.pack("<LHHL", 54 + pixels.size, 0, 0, 54) + head + pixels.tobytes()
    else:
        (image if bits == 24 else image.quantize(min(2**bits, 256))).save(stream, "BMP")
        data = stream.getvalue()
    assert np.array_equal(read(data), np.asarray(image))


def test_a_picture_without_an_opaque_pixel_is_refused() -> None:
    stream = BytesIO()
    Image.fromarray(np.dstack([smooth(3, 255, "u1"), np.zeros((40, 50), np.uint8)])).save(stream, "PNG")
    with pytest.raises(PhotoUnsupported, match="every pixel is transparent"):
        read(stream.getvalue())


def pages(*images: Samples, **options: Any) -> bytes:
    stream = BytesIO()
    with tifffile.TiffWriter(stream) as file:
        for number, image in enumerate(images):
            file.write(image, photometric="rgb", metadata=None,
                       **{name: values[number] for name, values in options.items()})  # fmt: skip
    return stream.getvalue()


def small(picture: Samples, side: int) -> Samples:
    return np.asarray(Image.fromarray(picture).resize((side, side), Image.Resampling.LANCZOS))


PICTURE = smooth(3, 255, "u1", height=200, width=200)
ELSE = PICTURE[::-1].copy()


@pytest.mark.parametrize("first", [True, False])
def test_a_thumbnail_beside_the_photograph_is_passed_over(first: bool) -> None:
    thumbnail = small(PICTURE, 60)
    data = pages(thumbnail, PICTURE) if first else pages(PICTURE, thumbnail)
    assert np.array_equal(read(data), PICTURE)
    assert stored_size(data, PhotoLimits()) == (200, 200)


def test_pages_that_the_file_calls_reduced_are_passed_over() -> None:
    data = pages(ELSE, PICTURE, small(PICTURE, 100), subfiletype=(1, 0, 1))
    assert np.array_equal(read(data), PICTURE)
    stream = BytesIO()
    with tifffile.TiffWriter(stream) as file:
        file.write(PICTURE, photometric="rgb", subifds=2, metadata=None)
        file.write(small(PICTURE, 100), photometric="rgb", subfiletype=1, metadata=None)
        file.write(small(PICTURE, 50), photometric="rgb", subfiletype=1, metadata=None)
    assert np.array_equal(read(stream.getvalue()), PICTURE)


@pytest.mark.parametrize("second", [ELSE, PICTURE, small(ELSE, 60), PICTURE[:, :150].copy()])
def test_several_photographs_in_a_tiff_are_refused(second: Samples) -> None:
    for data in (pages(PICTURE, second), pages(second, PICTURE)):
        with pytest.raises(PhotoUnsupported, match="a TIFF of 2 pages"):
            read(data)
        with pytest.raises(PhotoUnsupported, match="a TIFF of 2 pages"):
            stored_size(data, LIMITS)


@pytest.mark.parametrize("count", [40, 140])
def test_a_volume_is_refused_by_the_number_of_its_pages(count: int) -> None:
    with pytest.raises(PhotoUnsupported, match=r"a TIFF of (40|more than 100) pages"):
        read(pages(*[PICTURE[:64, :64].copy()] * count))


def test_directories_that_point_in_circles_end() -> None:
    body = smooth(1, 255, "u1").tobytes()
    data = bytearray(raw_tiff(body, 50, 40, {258: (8,), 262: (1,), 277: (1,)}))
    directory = 8 + len(body)
    (count,) = struct.unpack_from("<H", data, directory)
    data[directory + 2 + 12 * count :][:4] = struct.pack("<L", directory)
    struct.pack_into("<L", data, directory + 2 + 12 * count, directory)
    assert read(bytes(data)).shape == (40, 50, 3)


def mpo(second: Image.Image) -> bytes:
    stream = BytesIO()
    first = Image.fromarray(PICTURE)
    first.save(stream, "MPO", save_all=True, append_images=[second], quality=90)
    return stream.getvalue()


def test_a_stereo_pair_is_refused_and_a_preview_passed_over() -> None:
    with pytest.raises(PhotoUnsupported, match="several photographs"):
        read(mpo(Image.fromarray(ELSE)))
    expected = np.asarray(Image.open(BytesIO(mpo(Image.fromarray(small(PICTURE, 80))))))
    assert np.array_equal(read(mpo(Image.fromarray(small(PICTURE, 80)))), expected)


@pytest.mark.parametrize("name", ["planar16_be.tif", "planar16_le.tif"])
def test_the_planar_case(shared: Path, name: str) -> None:
    folder = shared / "cases" / "planar16"
    assert np.array_equal(read((folder / name).read_bytes()), np.asarray(Image.open(folder / "expected.png")))


def test_the_other_cases(shared: Path) -> None:
    cases = shared / "cases"
    thumbnail = (cases / "multipage" / "thumb_first.tif").read_bytes()
    with tifffile.TiffFile(BytesIO(thumbnail)) as file:
        assert np.array_equal(read(thumbnail), file.pages[1].asarray())
    with pytest.raises(PhotoUnsupported, match="a TIFF of 2 pages"):
        read((cases / "multipage" / "two_eyes.tif").read_bytes())
    with pytest.raises(PhotoUnsupported, match="low 12 bits"):
        read((cases / "twelve_bits_in_16" / "rgb12in16.tif").read_bytes())
    for path in sorted((cases / "other_suffixes").glob("[a-d].*")):
        assert np.array_equal(read(path.read_bytes()), np.asarray(Image.open(path).convert("RGB")))


def test_a_file_that_is_cut_short_is_refused() -> None:
    """Every format, at every length: an error of the project, never a picture with a part made up."""
    for compression in (None, "lzw", "zlib", "packbits", "jpeg"):
        stream = BytesIO()
        tifffile.imwrite(
            stream, PICTURE, photometric="rgb", compression=compression, rowsperstrip=20, metadata=None
        )
        data = stream.getvalue()
        with tifffile.TiffFile(BytesIO(data)) as file:
            ends = [
                at + count
                for at, count in zip(file.pages[0].dataoffsets, file.pages[0].databytecounts, strict=True)
            ]
        for share in (0.3, 0.6, 0.9):
            with pytest.raises(PhotoError):
                read(data[: int(share * max(ends))])
    stream = BytesIO()
    Image.fromarray(PICTURE).save(stream, "JPEG")
    with pytest.raises(PhotoUnreadable):
        read(stream.getvalue()[: len(stream.getvalue()) // 2])
