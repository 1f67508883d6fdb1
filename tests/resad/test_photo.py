"""Photographs are read as a slow, obvious reading would, and every fault has its error."""

import hashlib
import struct
import time
import zlib
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from resad.config import PhotoLimits
from resad.errors import PhotoError, PhotoTooLarge, PhotoUnreadable, PhotoUnsupported, SettingError
from resad.jpeg import orientation_of
from resad.photo import read_bytes, read_photo, stored_size

LIMITS = PhotoLimits(min_side=1)
Pixels = NDArray[np.uint8]


def noise(*shape: int, seed: int = 0) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def smooth(width: int, height: int) -> Image.Image:
    """A picture that JPEG keeps nearly as it is, without any symmetry."""
    y, x = np.mgrid[:height, :width]
    channels = np.stack([40 + 200 * x / width, 20 + 180 * y / height, 90 + 60 * x * y / (width * height)], axis=-1)
    return Image.fromarray(channels.astype(np.uint8))


def encode(image: Image.Image, kind: str, **options: object) -> bytes:
    stream = BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def read(data: bytes, shrink: int = 1) -> Pixels:
    return read_photo(data, LIMITS, shrink=shrink).pixels


def png16(samples: NDArray[np.uint16], color_type: int) -> bytes:
    """A 16-bit PNG, which Pillow cannot write in color; samples (H, W, channels)."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    height, width = samples.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in samples)
    header = struct.pack(">IIBBBBB", width, height, 16, color_type, 0, 0, 0)
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


def tiff(samples: NDArray[np.generic], photometric: int, extra: int | None = None) -> bytes:
    """An uncompressed TIFF; samples (H, W, channels) in the byte order that the file has."""
    height, width, channels = samples.shape
    order = ">" if samples.dtype.byteorder == ">" else "<"
    body = samples.tobytes()
    bits = [8 * samples.dtype.itemsize] * channels
    kind = {"u": 1, "i": 2, "f": 3}[samples.dtype.kind]
    shorts = [(258, bits), (262, [photometric]), (277, [channels]), (339, [kind] * channels)]
    shorts += [] if extra is None else [(338, [extra])]
    longs = [(256, width), (257, height), (273, 8), (278, height), (279, len(body))]
    # The directory follows the pixels, the values that do not fit into it follow the directory.
    after = 8 + len(body) + 2 + 12 * (len(shorts) + len(longs)) + 4
    entries = [(tag, struct.pack(order + "HHLL", tag, 4, 1, value)) for tag, value in longs]
    tail = b""
    for tag, values in shorts:
        packed = struct.pack(f"{order}{len(values)}H", *values)
        if len(packed) > 4:
            packed, tail = struct.pack(order + "L", after + len(tail)), tail + packed
        entries.append((tag, struct.pack(order + "HHL", tag, 3, len(values)) + packed.ljust(4, b"\0")))
    directory = struct.pack(order + "H", len(entries)) + b"".join(entry for _, entry in sorted(entries))
    head = (b"MM\0*" if order == ">" else b"II*\0") + struct.pack(order + "L", 8 + len(body))
    return head + body + directory + b"\0\0\0\0" + tail


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "BMP", "WEBP"])
def test_lossless_formats_come_back_as_they_were(kind: str) -> None:
    pixels = noise(70, 90, 3)
    options = {"lossless": True} if kind == "WEBP" else {}
    assert np.array_equal(read(encode(Image.fromarray(pixels), kind, **options)), pixels)


def test_a_jpeg_is_decoded_as_pillow_does() -> None:
    data = encode(smooth(90, 70), "JPEG", quality=80)
    with Image.open(BytesIO(data)) as image:
        assert np.array_equal(read(data), np.asarray(image))


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "BMP"])
@pytest.mark.parametrize("mode", ["1", "L", "P"])
def test_gray_palette_and_one_bit(kind: str, mode: str) -> None:
    image = Image.fromarray(noise(40, 50, 3)).convert(mode)
    assert np.array_equal(read(encode(image, kind)), np.asarray(image.convert("RGB")))


@pytest.mark.parametrize(
    ("mode", "kind"), [("CMYK", "TIFF"), ("LAB", "TIFF"), ("YCbCr", "TIFF"), ("CMYK", "JPEG")]
)
def test_other_color_spaces(mode: str, kind: str) -> None:
    image = Image.merge(
        mode, [Image.fromarray(band) for band in noise(len(Image.new(mode, (1, 1)).getbands()), 40, 50)]
    )
    data = encode(image, kind)
    with Image.open(BytesIO(data)) as stored:
        assert stored.mode == mode
        assert np.array_equal(read(data), np.asarray(stored.convert("RGB")))


@given(
    seed=st.integers(0, 1000), mode=st.sampled_from(["RGBA", "LA", "PA"]), kind=st.sampled_from(["PNG", "TIFF"])
)
@settings(max_examples=25, deadline=None)
def test_transparency_is_laid_over_black(seed: int, mode: str, kind: str) -> None:
    image = Image.fromarray(noise(20, 30, 4, seed=seed), "RGBA")
    if mode == "PA":
        if kind == "TIFF":
            return
        image = image.quantize(16)
    elif mode == "LA":
        image = image.convert("LA")
    rgba = np.asarray(image.convert("RGBA")).astype(float)
    expected = rgba[..., :3] * rgba[..., 3:] / 255
    assert np.abs(read(encode(image, kind)) - expected).max() <= 0.51


def test_a_transparent_color_is_black() -> None:
    pixels = noise(20, 30, 3)
    key = tuple(int(v) for v in pixels[3, 4])
    expected = np.where((pixels == pixels[3, 4]).all(axis=-1, keepdims=True), 0, pixels)
    assert np.array_equal(read(encode(Image.fromarray(pixels), "PNG", transparency=key)), expected)


@pytest.mark.parametrize(("color_type", "channels"), [(0, 1), (2, 3)])
def test_16_bit_png_keeps_the_high_byte(color_type: int, channels: int) -> None:
    samples = np.random.default_rng(1).integers(0, 65536, (30, 40, channels)).astype(np.uint16)
    assert np.array_equal(read(png16(samples, color_type)), np.broadcast_to(samples >> 8, (30, 40, 3)))


@pytest.mark.parametrize(("color_type", "channels"), [(4, 2), (6, 4)])
def test_16_bit_png_with_alpha_keeps_the_high_byte(color_type: int, channels: int) -> None:
    samples = np.random.default_rng(1).integers(0, 65536, (30, 40, channels)).astype(np.uint16)
    high = (samples >> 8).astype(float)
    expected = np.broadcast_to(high[..., :-1] * high[..., -1:] / 255, (30, 40, 3))
    assert np.abs(read(png16(samples, color_type)) - expected).max() <= 0.51


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("channels", [1, 3])
def test_16_bit_tiff_keeps_the_high_byte(order: str, channels: int) -> None:
    samples = np.random.default_rng(2).integers(0, 65536, (30, 40, channels)).astype(order + "u2")
    data = tiff(samples, photometric=1 if channels == 1 else 2)
    assert np.array_equal(read(data), np.broadcast_to(samples >> 8, (30, 40, 3)))


def test_a_gray_tiff_in_which_zero_is_white() -> None:
    samples = np.random.default_rng(2).integers(0, 65536, (30, 40, 1)).astype("<u2")
    assert np.array_equal(read(tiff(samples, photometric=0))[..., 0], 255 - (samples[..., 0] >> 8))


def test_premultiplied_gray_tiff() -> None:
    gray = noise(30, 40)
    alpha = np.maximum(gray, noise(30, 40, seed=1))
    pixels = read(tiff(np.stack([gray, alpha], axis=-1), photometric=1, extra=1))
    assert np.abs(pixels[..., 1].astype(int) - gray).max() <= 1


@pytest.mark.parametrize("dtype", ["<f4", "<u4", "<i2"])
def test_numbers_that_are_no_brightness_are_refused(dtype: str) -> None:
    samples = (np.arange(1200.0) - 600).reshape(30, 40, 1).astype(dtype)
    with pytest.raises(PhotoUnsupported, match="8 or 16 bits per channel are supported"):
        read(tiff(samples, photometric=1))


# EXIF orientation n: where the stored picture's first row and first column lie in the upright one.
TURNS: dict[int, Callable[[Pixels], Pixels]] = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: a.swapaxes(0, 1)[:, ::-1],
    7: lambda a: a.swapaxes(0, 1)[::-1, ::-1],
    8: lambda a: a.swapaxes(0, 1)[::-1],
}


def exif(orientation: int) -> bytes:
    block = Image.Exif()
    block[0x010F] = "maker"
    block[0x0112] = orientation
    return block.tobytes()


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_the_picture_is_upright(kind: str, orientation: int) -> None:
    stored = smooth(96, 64)
    options = {"tiffinfo": {0x0112: orientation}} if kind == "TIFF" else {"exif": exif(orientation)}
    plain = read(encode(stored, kind))
    photo = read_photo(encode(stored, kind, **options), LIMITS)
    assert np.array_equal(photo.pixels, TURNS[orientation](plain))
    assert (photo.height, photo.width) == photo.pixels.shape[:2]


@pytest.mark.parametrize("orientation", [1, 3, 6])
@pytest.mark.parametrize("shrink", [2, 4, 8])
def test_a_jpeg_can_be_decoded_smaller(shrink: int, orientation: int) -> None:
    data = encode(smooth(203, 101), "JPEG", quality=95, exif=exif(orientation))
    full, small = read_photo(data, LIMITS), read_photo(data, LIMITS, shrink=shrink)
    assert (small.width, small.height, small.content_hash) == (full.width, full.height, full.content_hash)
    assert small.pixels.shape[:2] == (-(-full.height // shrink), -(-full.width // shrink))
    size = small.pixels.shape[1::-1]
    reduced = np.asarray(Image.fromarray(full.pixels).resize(size, Image.Resampling.BOX))
    assert np.abs(reduced.astype(int) - small.pixels).mean() < 3


def test_other_formats_are_never_decoded_smaller() -> None:
    data = encode(smooth(96, 64), "PNG")
    assert np.array_equal(read(data, shrink=8), read(data))
    with pytest.raises(SettingError, match="shrink is 3"):
        read(data, shrink=3)


@given(block=st.binary(max_size=80), start=st.sampled_from([b"", b"II*\0\x08\0\0\0", b"MM\0*\0\0\0\x08"]))
@settings(max_examples=150, deadline=None)
def test_damaged_exif_does_not_matter(block: bytes, start: bytes) -> None:
    orientation = orientation_of(start + block)
    stored = smooth(32, 16)
    for kind in ("JPEG", "PNG", "WEBP"):
        pixels = read(encode(stored, kind, exif=b"Exif\0\0" + start + block))
        assert np.array_equal(pixels, TURNS[orientation](read(encode(stored, kind))))


@given(value=st.integers(0, 65535), order=st.sampled_from("<>"), tags=st.lists(st.integers(0, 0x0111), max_size=4))
def test_an_orientation_that_does_not_exist_is_1(value: int, order: str, tags: list[int]) -> None:
    entries = [(tag, 3, 1, 5, 0) for tag in tags] + [(0x0112, 3, 1, value, 0)]
    block = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "LH", 8, len(entries))
    block += b"".join(struct.pack(order + "HHLHH", *entry) for entry in entries)
    assert orientation_of(block) == (value if 1 <= value <= 8 else 1)


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_animations_are_refused(kind: str) -> None:
    frames = [Image.fromarray(noise(40, 50, 3, seed=seed)) for seed in range(3)]
    data = encode(frames[0], kind, save_all=True, append_images=frames[1:])
    with pytest.raises(PhotoUnsupported, match="an animation of 3 frames"):
        read(data)


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (encode(smooth(20, 20), "GIF"), "GIF"),
        (b"P7\nWIDTH 20\n", "PAM"),
        (encode(smooth(20, 20), "ICO"), "ICO"),
        (b"%PDF-1.7\n", "PDF"),
        (b"\0\0\0\x18ftypheic\0\0\0\0", "HEIC"),
        (b"\0\0\0\x18ftypavif\0\0\0\0", "AVIF"),
        (b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "SVG"),
    ],
)
def test_other_formats_are_named(data: bytes, name: str) -> None:
    with pytest.raises(PhotoUnsupported, match=f"^the file is {name}; JPEG, PNG, TIFF, .* are supported$"):
        read(data)


def test_the_limit_of_bytes_is_kept_before_the_file_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "large.jpg"
    with path.open("wb") as file:
        file.truncate(91_200_000)
    monkeypatch.setattr(Path, "open", lambda *_: pytest.fail("the file was opened"))
    with pytest.raises(PhotoTooLarge, match=r"^91\.2 MB, the limit is 80 MB$"):
        read_photo(path, PhotoLimits())
    with pytest.raises(PhotoTooLarge, match=r"^91\.2 MB, the limit is 80 MB$"):
        read_photo(bytes(91_200_000), PhotoLimits())


def test_the_limit_of_bytes_is_the_last_size_that_is_taken(tmp_path: Path) -> None:
    data = encode(smooth(20, 20), "PNG")
    path = tmp_path / "a.png"
    path.write_bytes(data)
    for source in (data, path):
        assert read_bytes(source, PhotoLimits(max_bytes=len(data))) == data
        with pytest.raises(PhotoTooLarge):
            read_bytes(source, PhotoLimits(max_bytes=len(data) - 1))


def header_only(width: int, height: int) -> bytes:
    """A PNG that says how large it is and then ends: decoding it would fail."""
    data = bytearray(encode(Image.new("RGB", (8, 8)), "PNG"))
    data[16:24] = struct.pack(">II", width, height)
    data[29:33] = struct.pack(">I", zlib.crc32(bytes(data[12:29])))
    return bytes(data[:33]) + struct.pack(">I4s", 100, b"IDAT") + b"\x78"


def test_the_limit_of_pixels_is_kept_before_decoding() -> None:
    with pytest.raises(PhotoTooLarge, match=r"^400 x 300 = 0\.12 million pixels, the limit is 0\.1 million$"):
        read_photo(header_only(400, 300), PhotoLimits(max_pixels=100_000))
    with pytest.raises(PhotoUnreadable):
        read_photo(header_only(400, 300), PhotoLimits(max_pixels=120_000))
    with pytest.raises(PhotoUnreadable, match=r"^400 x 63 px, the shorter side must be 64 px or more$"):
        read_photo(header_only(400, 63), PhotoLimits())


@pytest.mark.parametrize("side", [9_600, 20_000])
def test_pillows_alarm_is_our_error(side: int) -> None:
    for limits in (PhotoLimits(), PhotoLimits(max_pixels=10**9)):
        with pytest.raises(PhotoTooLarge, match="million pixels, the limit is 8"):
            read_photo(header_only(side, side), limits)


@pytest.mark.parametrize(
    "data", [b"", b"\xff\xd8\xff", b"hello", bytes(1000), b"\x89PNG\r\n\x1a\n", b"II*\0", b"BM"]
)
def test_what_is_no_image_is_unreadable(data: bytes) -> None:
    with pytest.raises(PhotoUnreadable):
        read(data)


def test_a_path_that_leads_to_no_file(tmp_path: Path) -> None:
    for path in (tmp_path / "missing.jpg", tmp_path, Path("a\0b")):
        with pytest.raises(PhotoUnreadable) as caught:
            read_photo(path, LIMITS)
        assert path.name not in str(caught.value)  # callers say which file it was


SAMPLES = {
    kind: encode(Image.fromarray(noise(48, 64, 3)), kind) for kind in ("JPEG", "PNG", "BMP", "WEBP", "TIFF")
}
SAMPLES["TIFF-LZW"] = encode(Image.fromarray(noise(48, 64, 3)), "TIFF", compression="tiff_lzw")
SAMPLES["TIFF-JPEG"] = encode(smooth(64, 48), "TIFF", compression="jpeg")


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "BMP", "WEBP"])
@given(share=st.floats(0, 0.9))
@settings(max_examples=25, deadline=None)
def test_a_file_cut_short_is_unreadable(kind: str, share: float) -> None:
    data = SAMPLES[kind]
    with pytest.raises(PhotoUnreadable):
        read(data[: int(share * len(data))])


@pytest.mark.parametrize("kind", list(SAMPLES))
@given(seed=st.integers(0, 2**32 - 1), flips=st.integers(1, 20))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_damaged_file_is_a_photo_or_an_error_of_ours(kind: str, seed: int, flips: int) -> None:
    generator = np.random.default_rng(seed)
    data = bytearray(SAMPLES[kind])
    # Half of the damage goes to the first bytes, where the headers are.
    for _ in range(flips):
        data[generator.integers(len(data) if generator.random() < 0.5 else min(len(data), 200))] = (
            generator.integers(256)
        )
    try:
        photo = read_photo(bytes(data), LIMITS)
    except PhotoError:
        return
    assert photo.pixels.dtype == np.uint8
    assert photo.pixels.shape == (photo.height, photo.width, 3)


def test_a_path_and_its_bytes_are_the_same_photo(tmp_path: Path) -> None:
    data = encode(smooth(90, 70), "JPEG", exif=exif(6))
    path = tmp_path / "a.jpg"
    path.write_bytes(data)
    from_path, from_bytes = read_photo(path, LIMITS), read_photo(data, LIMITS)
    assert np.array_equal(from_path.pixels, from_bytes.pixels)
    assert from_path.content_hash == from_bytes.content_hash == hashlib.sha256(data).hexdigest()
    assert (from_path.width, from_path.height) == (from_bytes.width, from_bytes.height) == (70, 90)
    assert stored_size(data, LIMITS) == (90, 70)


def test_pixels_may_be_written_to() -> None:
    assert all(read(data).flags.writeable for data in SAMPLES.values())


def test_headers_that_only_cost_time_are_refused_quickly() -> None:
    fill = b"\xff\xd8" + b"\xff" * 3_000_000
    segments = b"\xff\xd8" + b"\xff\xe0\x00\x02" * 1_000_000
    start = time.perf_counter()
    for data in (fill, segments):
        with pytest.raises(PhotoUnreadable, match="segments before the picture"):
            read_photo(data, PhotoLimits())
    assert time.perf_counter() - start < 1
