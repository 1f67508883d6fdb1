"""How often the field of view is wrong: real photographs squashed, cropped, masked and laid on canvases.

Run as `python -m benchmarks.field_of_view [--photos 40]`; takes RESAD_DATA.  The truth of a variant follows from
the disc of the photograph that it is made of, and that disc is checked by eye (docs/results.md).  A field is wrong
if more than 3 % of it is surround or less than 90 % of the retina is in it.
"""

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final, NamedTuple

import numpy as np
import typer
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from benchmarks._bench import Json, Quick, print_header, print_table, shared_data, write_json
from resad.field_of_view import field_of_view_mask, find_field_of_view

_MOST_SURROUND: Final = 0.03
_LEAST_RETINA: Final = 0.9

Mask = NDArray[np.bool_]


class Variant(NamedTuple):
    """A photograph and where its retina is: uint8 (H, W, 3) and bool (H, W)."""

    pixels: NDArray[np.uint8]
    retina: Mask


Change = Callable[[Variant, np.random.Generator], Variant]


@dataclass(frozen=True, slots=True)
class Count:
    """Of `photos` variants of a kind: with a wrong field; with a disc or ellipse; the worst shares."""

    kind: str
    photos: int
    wrong: int
    discs: int
    most_surround: float
    least_retina: float


def stretched(across: float, down: float) -> Change:
    """Resized without keeping the aspect."""

    def change(variant: Variant, _: np.random.Generator) -> Variant:
        height, width = variant.retina.shape
        return _resized(variant, round(width * across), round(height * down))

    return change


def squashed(side: int) -> Change:
    """A frame of 4:3, or 3:2, resized to a square of `side` px."""

    def change(variant: Variant, rng: np.random.Generator) -> Variant:
        height, width = variant.retina.shape
        wide = round(height * rng.choice([4 / 3, 3 / 2]))
        left = max((wide - width) // 2, 0)
        padded = _padded(variant, left, max(wide - width - left, 0), 0, 0, 0)
        return _resized(padded, side, side)

    return change


def cropped(share: float) -> Change:
    """A square of `share` of the disc's diameter, from its middle."""

    def change(variant: Variant, _: np.random.Generator) -> Variant:
        rows, columns = np.nonzero(variant.retina.any(axis=1))[0], np.nonzero(variant.retina.any(axis=0))[0]
        y, x = (rows[0] + rows[-1]) // 2, (columns[0] + columns[-1]) // 2
        half = round(share * (columns[-1] - columns[0]) / 2)
        height, width = variant.retina.shape
        part = (slice(max(y - half, 0), min(y + half, height)), slice(max(x - half, 0), min(x + half, width)))
        return Variant(np.ascontiguousarray(variant.pixels[part]), variant.retina[part])

    return change


def cut(share: float) -> Change:
    """A side of the frame taken away, `share` of it."""

    def change(variant: Variant, rng: np.random.Generator) -> Variant:
        height, width = variant.retina.shape
        x, y = round(share * width), round(share * height)
        part = (
            (slice(None), slice(x, None)), (slice(None), slice(width - x)),
            (slice(y, None), slice(None)), (slice(height - y), slice(None)),
        )[rng.integers(4)]  # fmt: skip
        return Variant(np.ascontiguousarray(variant.pixels[part]), variant.retina[part])

    return change


def on_canvas(level: int, *, whole_frame: bool) -> Change:
    """On a canvas of one gray level: the whole frame, or the retina alone."""

    def change(variant: Variant, rng: np.random.Generator) -> Variant:
        if not whole_frame:
            pixels = np.where(variant.retina[..., None], variant.pixels, np.uint8(level))
            variant = Variant(pixels, variant.retina)
        height, width = variant.retina.shape
        lengths = (width, width, height, height)
        left, right, top, bottom = (
            round(share * length) for share, length in zip(rng.uniform(0, 0.3, 4), lengths, strict=True)
        )
        return _padded(variant, left, right, top, bottom, level)

    return change


def letterboxed(level: int) -> Change:
    """Bars of one gray level above and below."""

    def change(variant: Variant, _: np.random.Generator) -> Variant:
        bar = variant.retina.shape[0] // 6
        return _padded(variant, 0, 0, bar, bar, level)

    return change


def masked(shape: Callable[[ImageDraw.ImageDraw, float, float, np.random.Generator], object]) -> Change:
    """The middle of the disc alone, cut out by a shape; black around it."""

    def change(variant: Variant, rng: np.random.Generator) -> Variant:
        inner = cropped(0.7)(variant, rng)
        height, width = inner.retina.shape
        picture = Image.new("L", (width, height))
        shape(ImageDraw.Draw(picture), width, height, rng)
        kept = (np.asarray(picture) > 0) & inner.retina
        soft = np.asarray(
            Image.fromarray(kept.astype(np.uint8) * np.uint8(255)).filter(ImageFilter.GaussianBlur(0.7))
        )
        pixels = inner.pixels * (soft[..., None] / 255)
        border = round(0.12 * width)
        return _padded(Variant(pixels.astype(np.uint8), kept), border, border, border, border, 0)

    return change


def rectangle(draw: ImageDraw.ImageDraw, width: float, height: float, rng: np.random.Generator) -> None:
    """Between 60 and 100 % of each side."""
    x, y = rng.uniform(0, 0.2, 2)
    draw.rectangle((x * width, y * height, (1 - x) * width, (1 - y) * height), fill=255)


def octagon(draw: ImageDraw.ImageDraw, width: float, height: float, rng: np.random.Generator) -> None:
    """A rectangle without its corners."""
    c = rng.uniform(0.1, 0.3) * width
    w, h = width - 1, height - 1
    draw.polygon([(c, 0), (w - c, 0), (w, c), (w, h - c), (w - c, h), (c, h), (0, h - c), (0, c)], fill=255)


def rounded(draw: ImageDraw.ImageDraw, width: float, height: float, rng: np.random.Generator) -> None:
    """A rectangle with round corners, wider than high."""
    y = rng.uniform(0, 0.15) * height
    draw.rounded_rectangle((0, y, width - 1, height - 1 - y), radius=rng.uniform(0.1, 0.25) * height, fill=255)


def ultra_wide(draw: ImageDraw.ImageDraw, width: float, height: float, rng: np.random.Generator) -> None:
    """An uneven oval with lids and lashes that reach into it."""
    angles = np.radians(np.arange(360))
    wave = 1 + sum(rng.uniform(0.01, 0.04) * np.cos(k * angles + rng.uniform(0, 6)) for k in (2, 3, 4, 5))
    half = 0.5 * wave * (0.9 - 0.1 * np.sin(angles))
    x, y = width / 2 + 0.95 * half * width * np.cos(angles), height / 2 + 0.8 * half * height * np.sin(angles)
    draw.polygon(list(zip(x.tolist(), y.tolist(), strict=True)), fill=255)
    for start in rng.uniform(0.2, 0.8, 5) * width:
        draw.line((start, height, start + rng.uniform(-20, 20), 0.75 * height), fill=0, width=2)


def after(*changes: Change) -> Change:
    """Several changes, one after another."""

    def change(variant: Variant, rng: np.random.Generator) -> Variant:
        for step in changes:
            variant = step(variant, rng)
        return variant

    return change


def compressed(quality: int) -> Change:
    """Saved as JPEG."""

    def change(variant: Variant, _: np.random.Generator) -> Variant:
        file = io.BytesIO()
        Image.fromarray(variant.pixels).save(file, "JPEG", quality=quality)
        return Variant(np.asarray(Image.open(file).convert("RGB")), variant.retina)

    return change


KINDS: Final[dict[str, Change]] = {
    "as it is": after(),
    **{f"{s:g} times as high": stretched(1, s) for s in (1.1, 1.2, 1.33, 1.5)},
    **{f"{s:g} times as wide": stretched(s, 1) for s in (1.1, 1.2, 1.33, 1.5)},
    "squashed to 256 x 256": squashed(256),
    "squashed to 224 x 224, JPEG 60": after(squashed(224), compressed(60)),
    **{f"square crop, {share:g} of the diameter": cropped(share) for share in (0.95, 0.9, 0.85, 0.8, 0.65)},
    "a side cut off, 0.15": cut(0.15),
    "a side cut off, 0.3; 1.2 times as high": after(cut(0.3), stretched(1, 1.2)),
    "square crop, 0.9; 1.25 times as wide": after(cropped(0.9), stretched(1.25, 1)),
    "on white, the frame": on_canvas(255, whole_frame=True),
    "on white, the disc alone": on_canvas(255, whole_frame=False),
    "on white, JPEG 70": after(on_canvas(255, whole_frame=False), compressed(70)),
    "on gray, the disc alone": on_canvas(128, whole_frame=False),
    "on white, squashed": after(on_canvas(255, whole_frame=False), squashed(256)),
    "white bars above and below": letterboxed(255),
    "rectangle": after(masked(rectangle), compressed(85)),
    "rectangle without corners": after(masked(octagon), compressed(85)),
    "round corners": after(masked(rounded), compressed(85)),
    "ultra-widefield": after(masked(ultra_wide), compressed(85)),
}


def main(
    photos: Annotated[int, typer.Option(help="Photographs that the variants are made of.")] = 40,
    quick: Quick = False,
    json: Json = None,
) -> None:
    """Print the table."""
    paths = sampled(shared_data() / "data", 4 if quick else photos)
    rng = np.random.default_rng(0)
    counts = [measure(kind, change, paths, rng) for kind, change in KINDS.items()]
    print_header(
        "The field of view",
        f"{len(paths)} photographs; wrong: over {_MOST_SURROUND:.0%} surround or under {_LEAST_RETINA:.0%} of the "
        "retina.",
    )
    rows = [
        [
            row.kind,
            f"{row.wrong} of {row.photos}",
            str(row.discs),
            f"{row.most_surround:.1%}",
            f"{row.least_retina:.1%}",
        ]
        for row in counts
    ]
    wrong, total = sum(row.wrong for row in counts), sum(row.photos for row in counts)
    rows.append(["all", f"{wrong} of {total}", str(sum(row.discs for row in counts)), "", ""])
    print_table(
        "Wrong fields of view",
        ["variant", "wrong", "disc or ellipse", "surround, at worst", "retina, at worst"],
        rows,
    )
    write_json(json, counts)


def sampled(data: Path, count: int) -> list[Path]:
    """Photographs of all sets, evenly; those of many cameras only from among the healthy."""
    folders = ("idrid-512/t*/*/*.jpg", "heimed-784/t*/*/*.jpg", "cameras-400/normal/*.jpg")
    listed = [sorted(data.glob(pattern)) for pattern in folders]
    share = max(count // 4, 1)
    numbers = (share, share, max(count - 2 * share, 1))
    return [
        paths[i]
        for paths, number in zip(listed, numbers, strict=True)
        for i in range(0, len(paths), -(-len(paths) // number))
    ]


def measure(kind: str, change: Change, paths: list[Path], rng: np.random.Generator) -> Count:
    """One row of the table."""
    surrounds, retinas, discs, wrong = [], [], 0, 0
    for original in originals(paths):
        variant = change(original, rng)
        height, width = variant.retina.shape
        field = find_field_of_view(variant.pixels)
        inside = field_of_view_mask(field, height, width)
        surround = float((inside & ~variant.retina).sum() / inside.sum())
        retina = float((inside & variant.retina).sum() / variant.retina.sum())
        discs += field.found
        wrong += surround > _MOST_SURROUND or retina < _LEAST_RETINA
        surrounds.append(surround)
        retinas.append(retina)
    return Count(kind, len(retinas), wrong, discs, max(surrounds), min(retinas))


def originals(paths: list[Path]) -> Iterator[Variant]:
    """The photographs that show a round disc."""
    for path in paths:
        pixels = np.asarray(Image.open(path).convert("RGB"))
        field = find_field_of_view(pixels)
        if field.found and field.stretch == 1.0:
            yield Variant(pixels, field_of_view_mask(field, *pixels.shape[:2]))


def _resized(variant: Variant, width: int, height: int) -> Variant:
    pixels = Image.fromarray(variant.pixels).resize((width, height), Image.Resampling.BICUBIC)
    retina = Image.fromarray(variant.retina.astype(np.uint8) * np.uint8(255)).resize((width, height))
    return Variant(np.asarray(pixels), np.asarray(retina) > 127)


def _padded(variant: Variant, left: int, right: int, top: int, bottom: int, level: int) -> Variant:
    around = ((top, bottom), (left, right))
    pixels = np.pad(variant.pixels, (*around, (0, 0)), constant_values=level)
    return Variant(pixels, np.pad(variant.retina, around))


if __name__ == "__main__":
    typer.run(main)
