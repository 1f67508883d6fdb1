"""Uploads that nobody should send: damaged, lying, swollen, disguised.  All made here, from one good JPEG."""

import io
import struct
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, PngImagePlugin

JPEG, PNG, TIFF, BMP, WEBP = "image/jpeg", "image/png", "image/tiff", "image/bmp", "image/webp"
_FORMATS = {"JPEG": JPEG, "PNG": PNG, "TIFF": TIFF, "BMP": BMP, "WEBP": WEBP}
_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_EXIF = b"Exif\0\0II*\0\x08\0\0\0"
_BOMB = 60_000_000
"""Bytes that a bomb's few kilobytes unpack to."""


@dataclass(frozen=True, slots=True)
class Upload:
    """What is sent, and as what."""

    name: str
    body: bytes
    media_type: str = JPEG


def corpus(photo: bytes) -> list[Upload]:
    """At least 60 of them; `photo` is a JPEG."""
    picture = Image.open(io.BytesIO(photo)).convert("RGB")
    makers = (_cut_short, _not_photographs, _tiny, _too_large, _bombs, _unusual, _metadata, _polyglots, _damaged)
    return [upload for make in makers for upload in make(picture, photo)]


def encode_as(picture: Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def chunk(name: bytes, data: bytes) -> bytes:
    """Of a PNG."""
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(width: int, height: int, pixels: bytes, *, depth: int = 8, color: int = 2, before: bytes = b"") -> bytes:
    """From rows that are filtered already."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0))
    return _SIGNATURE + header + before + chunk(b"IDAT", zlib.compress(pixels, 9)) + chunk(b"IEND", b"")


def _cut_short(picture: Image.Image, photo: bytes) -> Iterator[Upload]:
    """At every structural point."""
    for number, end in enumerate(_jpeg_marks(photo)):
        yield Upload(f"JPEG cut before segment {number}", photo[:end])
        yield Upload(f"JPEG cut inside segment {number}", photo[: end + 3])
    file_bytes = encode_as(picture, "PNG")
    position = len(_SIGNATURE)
    while position < len(file_bytes):
        length, name = struct.unpack(">I4s", file_bytes[position : position + 8])
        yield Upload(f"PNG cut before {name.decode()} at {position}", file_bytes[:position], PNG)
        yield Upload(
            f"PNG cut inside {name.decode()} at {position}", file_bytes[: position + 8 + length // 2], PNG
        )
        position += 12 + length
    for kind, positions in (("TIFF", (4, 8, 10, 60)), ("BMP", (2, 14, 54, 3000)), ("WEBP", (4, 12, 20, 400))):
        file_bytes = encode_as(picture, kind)
        for end in positions:
            yield Upload(f"{kind} cut at {end}", file_bytes[:end], _FORMATS[kind])


def _jpeg_marks(photo: bytes) -> Iterator[int]:
    position = 2
    while photo[position + 1] != 0xDA:
        yield position
        position += 2 + struct.unpack(">H", photo[position + 2 : position + 4])[0]
    yield position  # the scan, which the rest of the file is
    yield (position + len(photo)) // 2


def _not_photographs(picture: Image.Image, photo: bytes) -> Iterator[Upload]:
    for name, body in (
        ("a single byte", b"\xff"),
        ("zeros", bytes(1000)),
        ("text", b"not a photograph " * 50),
        ("JSON", b'{"photo": null}'),
        ("HTML", b"<!doctype html><script>alert(1)</script>"),
        ("SVG", b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>'),
        ("PDF", b"%PDF-1.7\n" + bytes(500)),
        ("DICOM", bytes(128) + b"DICM" + bytes(500)),
        ("HEIC", b"\0\0\0\x18ftypheic" + bytes(500)),
        ("GIF", encode_as(picture.convert("P"), "GIF")),
        ("ICO", encode_as(picture, "ICO")),
        ("PPM", encode_as(picture, "PPM")),
        ("JPEG 2000", b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(300)),
        ("program", b"\x7fELF" + bytes(300)),
    ):
        yield Upload(f"{name} as a JPEG", body)
    for magic in (b"\xff\xd8\xff", _SIGNATURE, b"II*\0", b"MM\0*", b"BM", b"RIFF\0\0\0\0WEBP"):
        yield Upload(f"nothing but {magic!r}", magic)


def _tiny(picture: Image.Image, photo: bytes) -> Iterator[Upload]:
    for kind, media_type in _FORMATS.items():
        yield Upload(f"1x1 {kind}", encode_as(picture.resize((1, 1)), kind), media_type)
    yield Upload("1x4000", encode_as(picture.resize((1, 4000)), "PNG"), PNG)
    yield Upload("0x0", png(0, 0, b""), PNG)


def _too_large(picture: Image.Image, photo: bytes) -> Iterator[Upload]:
    """By what their headers say."""
    yield Upload("PNG of 30,000x30,000", png(30_000, 30_000, bytes(1000)), PNG)
    yield Upload("PNG of 2^31-1", png(2**31 - 1, 2**31 - 1, bytes(10)), PNG)
    frame = next(position for position in _jpeg_marks(photo) if photo[position + 1] in (0xC0, 0xC2))
    yield Upload(
        "JPEG of 65,500x65,500", photo[: frame + 5] + struct.pack(">HH", 65_500, 65_500) + photo[frame + 9 :]
    )
    bmp = encode_as(picture, "BMP")
    yield Upload("BMP of 30,000x30,000", bmp[:18] + struct.pack("<ii", 30_000, 30_000) + bmp[26:], BMP)
    yield Upload("BMP of negative size", bmp[:18] + struct.pack("<ii", -5, -(2**31)) + bmp[26:], BMP)
    yield Upload("TIFF of 30,000x30,000", _tiff(30_000, 30_000, 3), TIFF)
    yield Upload("TIFF of 4,294,967,295 samples", _tiff(200, 200, 0xFFFF), TIFF)


def _tiff(width: int, height: int, samples: int, *, next_directory: int = 0) -> bytes:
    """Without a compression and with one strip, at the end."""
    tags = ((256, width), (257, height), (258, 8), (259, 1), (262, 2), (273, 200), (277, samples), (278, height),
            (279, width * height * 3 % 2**32))  # fmt: skip
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    return (b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + struct.pack("<I", next_directory)).ljust(
        300, b"\0"
    )


def _bombs(picture: Image.Image, photo: bytes) -> Iterator[Upload]:
    zeros = zlib.compress(bytes(_BOMB), 9)
    yield Upload("PNG with 60 MB too many pixels", png(200, 200, bytes(_BOMB)), PNG)
    yield Upload(
        "PNG with a swollen profile", png(200, 200, bytes(120_200), before=chunk(b"iCCP", b"x\0\0" + zeros)), PNG
    )
    yield Upload(
        "PNG with a swollen text", png(200, 200, bytes(120_200), before=chunk(b"zTXt", b"x\0\0" + zeros)), PNG
    )
    itxt = b"x\0\x01\0\0\0" + zeros
    yield Upload("PNG with a swollen comment", png(200, 200, bytes(120_200), before=chunk(b"iTXt", itxt)), PNG)
    yield Upload(
        "PNG with 20,000 chunks", png(200, 200, bytes(120_200), before=chunk(b"tEXt", b"a\0b") * 20_000), PNG
    )
    yield Upload("TIFF whose directories go in a circle", _tiff(200, 200, 3, next_directory=8), TIFF)
    scans = encode_as(picture, "JPEG", progressive=True)
    end = scans.rindex(b"\xff\xda")
    yield Upload("JPEG with 500 scans", scans[:end] + scans[end:-2] * 500 + b"\xff\xd9")
    yield Upload("JPEG with 200 comments", photo[:2] + (b"\xff\xfe\xff\xff" + bytes(65_533)) * 200 + photo[2:])
    with zipfile.ZipFile(buffer := io.BytesIO(), "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.jpg", bytes(_BOMB))
    yield Upload("a zip bomb", buffer.getvalue())


def _unusual(picture: Image.Image, photo: bytes) -> Iterator[Upload]:
    """Some of these are sound, and are answered with what they score."""
    yield Upload("CMYK JPEG", encode_as(picture.convert("CMYK"), "JPEG"))
    yield Upload("CMYK TIFF", encode_as(picture.convert("CMYK"), "TIFF"), TIFF)
    yield Upload("gray JPEG", encode_as(picture.convert("L"), "JPEG"))
    yield Upload(
        "gray PNG of 16 bits", encode_as(Image.fromarray(_pixels_16_bit(picture)[..., 1].copy()), "PNG"), PNG
    )
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in _pixels_16_bit(picture))
    yield Upload("PNG of 16 bits a channel", png(*picture.size, rows, depth=16), PNG)
    yield Upload("palette with transparency", encode_as(picture.convert("P"), "PNG", transparency=0), PNG)
    yield Upload("RGBA, all transparent", encode_as(picture.convert("RGBA").point(lambda value: 0), "PNG"), PNG)
    yield Upload("black and white", encode_as(picture.convert("1"), "PNG"), PNG)
    yield Upload("LAB TIFF", encode_as(picture.convert("LAB"), "TIFF"), TIFF)
    yield Upload("floating-point TIFF", encode_as(picture.convert("F"), "TIFF"), TIFF)
    yield Upload("LZW TIFF", encode_as(picture, "TIFF", compression="tiff_lzw"), TIFF)
    yield Upload("progressive JPEG", encode_as(picture, "JPEG", progressive=True))
    frames = [picture, picture.transpose(Image.Transpose.ROTATE_180)]
    for kind in ("PNG", "WEBP", "TIFF"):
        yield Upload(
            f"animated {kind}", encode_as(picture, kind, save_all=True, append_images=frames), _FORMATS[kind]
        )
    yield Upload("BMP called a JPEG", encode_as(picture, "BMP"), JPEG)


def _pixels_16_bit(picture: Image.Image) -> np.ndarray:
    return np.asarray(picture).astype(np.uint16) * 257


def _metadata(picture: Image.Image, photo: bytes) -> Iterator[Upload]:
    for name, exif in (
        ("garbage", b"Exif\0\0" + bytes(range(256)) * 4),
        ("orientation 99", b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x63\0\0\0\0\0\0\0"),
        ("orientation 6", b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0"),
        (
            "a directory that points to itself",
            b"Exif\0\0II*\0\x08\0\0\0\x01\0\x69\x87\x04\0\x01\0\0\0\x08\0\0\0\x08\0\0\0",
        ),
        ("65,000 entries", b"Exif\0\0II*\0\x08\0\0\0\xff\xff" + bytes(2000)),
    ):
        yield Upload(f"EXIF: {name}", encode_as(picture, "JPEG", exif=exif))
    yield Upload("EXIF in a PNG: garbage", png(200, 200, bytes(120_200), before=chunk(b"eXIf", bytes(99))), PNG)
    for kind in ("JPEG", "PNG", "WEBP", "TIFF"):
        profile = bytes(range(256)) * 20
        yield Upload(f"ICC in a {kind}: garbage", encode_as(picture, kind, icc_profile=profile), _FORMATS[kind])
    patient = PngImagePlugin.PngInfo()
    patient.add_text("PatientName", "Doe^Jane_1961")
    yield Upload("PNG that names a patient", encode_as(picture, "PNG", pnginfo=patient), PNG)


def _polyglots(picture: Image.Image, photo: bytes) -> Iterator[Upload]:
    with zipfile.ZipFile(buffer := io.BytesIO(photo), "a") as archive:
        archive.writestr("run.sh", "rm -rf /")
    yield Upload("JPEG and zip in one", buffer.getvalue())
    script = b"<script>alert(1)</script><?php system($_GET[0]); ?>"
    yield Upload(
        "JPEG with a script", photo[:2] + b"\xff\xfe" + struct.pack(">H", len(script) + 2) + script + photo[2:]
    )
    yield Upload("JPEG after a GIF's head", b"GIF89a/*" + photo)
    yield Upload("JPEG after a PDF's head", b"%PDF-1.4\n" + photo)
    yield Upload("PNG and JPEG in one", encode_as(picture, "PNG") + photo, PNG)
    yield Upload("HTML before a PNG", b"<html>" + encode_as(picture, "PNG"), PNG)


def _damaged(picture: Image.Image, photo: bytes) -> Iterator[Upload]:
    middle = len(photo) // 2
    yield Upload("JPEG with a hole of zeros", photo[:middle] + bytes(400) + photo[middle + 400 :])
    yield Upload("JPEG with every byte turned", bytes(255 - value for value in photo))
    yield Upload("JPEG backward", photo[::-1])
    yield Upload(
        "JPEG without its tables", photo.replace(b"\xff\xdb", b"\xff\xee").replace(b"\xff\xc4", b"\xff\xee")
    )
    png_bytes = encode_as(picture, "PNG")
    yield Upload("PNG with a wrong checksum", png_bytes[:-20] + bytes([png_bytes[-20] ^ 1]) + png_bytes[-19:], PNG)
    yield Upload("PNG without pixels", png_bytes[:33] + chunk(b"IEND", b""), PNG)
    yield Upload("PNG with a filter of 9", png(200, 200, (b"\x09" + bytes(600)) * 200), PNG)
