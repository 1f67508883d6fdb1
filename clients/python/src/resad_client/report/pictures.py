"""The pictures of a report as JPEG: the photograph with its findings numbered, and findings in detail."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from resad_client.records import Disc, Finding

if TYPE_CHECKING:
    from PIL import Image

PHOTO_SIDE: Final = 1200
"""Longer side of a photograph in a report, px: 170 dpi across a page."""
_DETAIL_SIDE: Final = 240
_DETAIL_SHARE: Final = 0.19
"""Side of a detail as a share of the field of view: about that of the pictures of healthy patches."""
_MARGIN: Final = 0.012
"""Between a finding and its frame, as a share of the picture's side, so that the lesion stays free."""
_JPEG_QUALITY: Final = 88
_PLAIN_FORMATS: Final = ("JPEG", "PNG", "BMP", "WEBP")
_DEEP_MODES: Final = ("I", "F")
_DARK: Final = (0, 0, 0)
_BRIGHT: Final = (255, 255, 255)


def open_photo(path: Path) -> "Image.Image | None":
    """The upright photograph as RGB; None if Pillow may show it otherwise than the service sees it.

    The service also takes 16 bits, several pages and other formats, and chooses among them.
    """
    from PIL import Image, ImageOps

    try:
        with Image.open(path, formats=_PLAIN_FORMATS) as image:
            if getattr(image, "n_frames", 1) > 1 or image.mode.startswith(_DEEP_MODES):
                return None
            return ImageOps.exif_transpose(image).convert("RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return None


def numbered_photo(photo: "Image.Image", findings: Sequence[Finding]) -> bytes:
    """The photograph with a frame around each of the findings and its rank beside it."""
    from PIL import Image, ImageDraw, ImageFont

    scale = min(1.0, PHOTO_SIDE / max(photo.size))
    picture = photo.resize((round(photo.width * scale), round(photo.height * scale)), Image.Resampling.LANCZOS)
    side = max(picture.size)
    margin, line, font = (
        _MARGIN * side,
        max(1, round(side / 900)),
        ImageFont.load_default(size=max(10, side // 45)),
    )
    draw = ImageDraw.Draw(picture)
    for finding in findings:
        left, top, right, bottom = (edge * scale for edge in finding.box)
        box = (left - margin, top - margin, right + margin, bottom + margin)
        draw.rectangle([box[0] - line, box[1] - line, box[2] + line, box[3] + line], outline=_DARK, width=3 * line)
        draw.rectangle(box, outline=_BRIGHT, width=line)
        # Outside of the frame, on its side toward the middle of the picture, where there is space.
        after = (box[0] + box[2]) / 2 < picture.width / 2
        at = (box[2] + 3 * line if after else box[0] - 3 * line, (box[1] + box[3]) / 2)
        draw.text(
            at, str(finding.rank), _BRIGHT, font, anchor="lm" if after else "rm", stroke_width=2 * line,
            stroke_fill=_DARK,
        )  # fmt: skip
    return _jpeg(picture)


def detail(photo: "Image.Image", finding: Finding, field_of_view: Disc | None) -> bytes:
    """The surroundings of a finding."""
    from PIL import Image

    left, top, right, bottom = finding.box
    side = 1.3 * max(right - left, bottom - top) + 8
    if field_of_view is not None:
        side = max(side, 2 * _DETAIL_SHARE * field_of_view.radius)
    x, y = (left + right) / 2, (top + bottom) / 2
    crop = photo.crop((round(x - side / 2), round(y - side / 2), round(x + side / 2), round(y + side / 2)))
    return _jpeg(crop.resize((_DETAIL_SIDE, _DETAIL_SIDE), Image.Resampling.LANCZOS))


def mirrored(picture: bytes) -> bytes:
    """A picture turned left to right."""
    from PIL import Image, ImageOps

    with Image.open(io.BytesIO(picture)) as image:
        return _jpeg(ImageOps.mirror(image.convert("RGB")))


def size_of(picture: bytes) -> tuple[int, int]:
    """Width and height, px."""
    from PIL import Image

    with Image.open(io.BytesIO(picture)) as image:
        return image.size


def _jpeg(picture: "Image.Image") -> bytes:
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=_JPEG_QUALITY)
    return file.getvalue()
