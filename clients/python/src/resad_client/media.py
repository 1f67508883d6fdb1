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


def media_type(data: bytes) -> str | None:
    """The media type that the first bytes of `data` tell; None if it is none that the service takes."""
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "image/webp"
    return next((kind for signature, kind in _SIGNATURES if data.startswith(signature)), None)
