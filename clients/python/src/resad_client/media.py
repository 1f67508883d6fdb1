"""Which bytes are a photograph that the service takes."""

from typing import Final

_SIGNATURES: Final = (
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"II*\0", "image/tiff"),
    (b"MM\0*", "image/tiff"),
    (b"II+\0", "image/tiff"),  # BigTIFF
    (b"MM\0+", "image/tiff"),
    (b"BM", "image/bmp"),
)
_OTHERS: Final = (
    ("GIF", 0, b"GIF8"),
    ("DICOM", 128, b"DICM"),
    ("PDF", 0, b"%PDF"),
    ("AVIF", 4, b"ftypavi"),
    ("HEIC", 4, b"ftyphe"),
    ("HEIF", 4, b"ftypmif"),
    ("JPEG 2000", 0, b"\0\0\0\x0cjP  "),
    ("JPEG XL", 0, b"\0\0\0\x0cJXL "),
    ("Photoshop", 0, b"8BPS"),
    ("ICO", 0, b"\0\0\1\0"),
    ("SVG", 0, b"<svg"),
    ("TGA", -18, b"TRUEVISION-XFILE"),
    *(("PNM", 0, b"P%d" % kind) for kind in range(1, 8)),
)
"""Name, place and bytes of a signature, as the service knows them (a test compares the two)."""


def media_type(data: bytes) -> str | None:
    """The media type that the first bytes of `data` tell; None if it is none that the service takes."""
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "image/webp"
    return next((kind for signature, kind in _SIGNATURES if data.startswith(signature)), None)


def not_taken(data: bytes) -> str:
    """Why a file of no type that the service takes is not sent: what it is instead, where that is known."""
    taken = "not a photograph that is taken (JPEG, PNG, TIFF, BMP, WebP)"
    for name, offset, signature in _OTHERS:
        if data[offset:][: len(signature)] == signature:
            return f"the file is {name}, {taken}"
    return taken if data else "the file is empty"
