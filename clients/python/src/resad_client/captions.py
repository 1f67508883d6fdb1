"""A photograph's name written over its overlay: the service is told no names, so it cannot write them itself."""

import io
from typing import Final

_GROUND: Final = (17, 17, 17)
_TEXT: Final = (240, 240, 240)
"""As the service's own lines."""
_JPEG_QUALITY: Final = 92


def with_name(picture: bytes, name: str) -> bytes:
    """A PNG or JPEG with lines above it that name the photograph, in its format and with its own remarks.

    The lines are broken wherever the picture's width ends, so that the whole name is there.  What is neither a PNG
    nor a JPEG is returned as it is.
    """
    from PIL import Image, ImageDraw, ImageFont
    from PIL.PngImagePlugin import PngInfo

    try:
        with Image.open(io.BytesIO(picture), formats=("PNG", "JPEG")) as image:
            image.load()
    except (OSError, SyntaxError, ValueError):
        return picture
    size = max(11, round(max(image.size) / 50))
    font = ImageFont.load_default(size=size)
    gap, pitch = round(0.7 * size), round(1.5 * size)
    lines, rest = [""], "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in name)
    for letter in rest:
        if lines[-1] and font.getlength(lines[-1] + letter) > image.width - 2 * gap:
            lines.append("")
        lines[-1] += letter
    band = len(lines) * pitch + gap // 2
    canvas = Image.new("RGB", (image.width, band + image.height), _GROUND)
    canvas.paste(image, (0, band))
    draw = ImageDraw.Draw(canvas)
    for number, line in enumerate(lines):
        draw.text((gap, gap // 2 + (number + 0.5) * pitch), line, _TEXT, font, anchor="lm")
    file = io.BytesIO()
    if image.format == "PNG":
        entries = PngInfo()
        for key, text in image.info.items():
            if isinstance(key, str) and isinstance(text, str):
                entries.add_text(key, text)
        canvas.save(file, "PNG", pnginfo=entries, compress_level=1)
    else:
        canvas.save(file, "JPEG", quality=_JPEG_QUALITY, comment=image.info.get("comment", b""))
    return file.getvalue()
