"""The pages of a TIFF: which of them is the photograph, and the properties that keep it from being read.

Only the directories are read.  Pillow takes the first page whatever it is, reads the directory
of every page to count them, and decodes some properties (a sign, 16 bits in separate planes) to wrong pixels.
Sources: TIFF 6.0 (Adobe, 1992), its supplements, and BigTIFF (Aware Systems, 2007).
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

from resad.errors import PhotoUnreadable, PhotoUnsupported

MAX_PAGES: Final = 100
"""Directories that are read; a fundus photograph has one, a pyramid about ten."""
_MAX_ENTRIES: Final = 1000
"""Of a directory; cameras and microscopes write 20 to 60."""
_MAX_VALUES: Final = 16
"""Of an entry, that are read."""

_TYPES: Final = {1: "B", 3: "H", 4: "L", 13: "L", 16: "Q", 18: "Q"}
"""TIFF's number of an integer type -> its code in `struct`."""
_GRAY: Final = (0, 1)
"""Photometric interpretations: white is zero, black is zero."""
_RGB: Final = 2
_MOSAICS: Final = (32803, 34892)
_NONE: Final = 1
_COMPRESSIONS: Final = {
    1: "none", 2: "CCITT RLE", 3: "CCITT T.4", 4: "CCITT T.6", 5: "LZW", 6: "old JPEG", 7: "JPEG", 8: "deflate",
    32773: "PackBits", 32946: "deflate", 33003: "JPEG 2000", 33005: "JPEG 2000", 34712: "JPEG 2000",
    34925: "LZMA", 34892: "lossy DNG", 34933: "PNG", 34934: "JPEG XR", 50000: "Zstandard", 50001: "WebP",
    50002: "JPEG XL", 52546: "JPEG XL",
}  # fmt: skip
_READABLE: Final = frozenset((1, 2, 3, 4, 5, 6, 7, 8, 32773, 32946, 34925, 50000))
_COLORS: Final = {
    0: "gray (white is zero)", 1: "gray", 2: "RGB", 3: "a palette", 5: "CMYK", 6: "YCbCr", 8: "LAB",
    9: "ICC LAB", 10: "ITU LAB", 32844: "LogL", 32845: "LogLuv",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Page:
    """A directory of a TIFF, with TIFF's own numbers and its default where a tag is missing.

    offset: of the directory in the file.  bits, formats: per channel, the last for all that follow.  reduced: a
    smaller version of another page, or a mask of one.
    """

    offset: int
    width: int
    height: int
    bits: tuple[int, ...]
    formats: tuple[int, ...]
    channels: int
    photometric: int
    compression: int
    planar: bool
    tile: tuple[int, int]
    orientation: int
    reduced: bool
    children: tuple[int, ...] = ()

    @property
    def depth(self) -> int:
        """Bits of the widest channel."""
        return max(self.bits)

    @property
    def separate_words(self) -> bool:
        """RGB with 16 bits in separate planes, not compressed: Pillow takes single bytes for samples."""
        return (
            self.planar and self.depth == 16 and self.compression == _NONE and self.photometric == _RGB
            and 3 <= self.channels <= 4
        )  # fmt: skip

    def describe(self) -> str:
        """The properties in words: `8 bits per channel, 3 channels, RGB, LZW`."""
        colors = _COLORS.get(self.photometric, f"photometric interpretation {self.photometric}")
        compression = _COMPRESSIONS.get(self.compression, f"compression {self.compression}")
        planes = ", in separate planes" if self.planar and self.channels > 1 else ""
        bits = "/".join(map(str, self.bits)) if len(set(self.bits)) > 1 else str(self.depth)
        channels = "1 channel" if self.channels == 1 else f"{self.channels} channels"
        return f"{bits} bits per channel, {channels}, {colors}, compression {compression}{planes}"


def is_tiff(data: bytes) -> bool:
    """Whether `data` begins like a TIFF or a BigTIFF."""
    return data[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def read_pages(data: bytes) -> tuple[Page, ...]:
    """All pages with their sub-pages, in the order of the file.

    Raises `PhotoUnreadable` for a damaged directory, `PhotoUnsupported` for more than `MAX_PAGES` pages and for a
    BigTIFF whose numbers begin with their highest byte, which Pillow takes for a damaged TIFF.
    """
    if data[:4] == b"MM\0+":
        raise PhotoUnsupported("a BigTIFF in big-endian byte order is not supported; save it as a plain TIFF")
    reader = _Reader(data)
    pages: list[Page] = []
    visited: set[int] = set()
    try:
        offset = reader.first()
        while offset and offset not in visited:
            visited.add(offset)
            page, offset = reader.page(offset)
            pages.append(page)
            for child in page.children:
                if child not in visited:
                    visited.add(child)
                    pages.append(reader.page(child)[0])
            if len(pages) > MAX_PAGES:
                raise PhotoUnsupported(
                    f"a TIFF of more than {MAX_PAGES} pages; only single photographs are supported: save each "
                    "page as its own file"
                )
    except (struct.error, OverflowError) as error:
        if not pages:
            raise PhotoUnreadable("the TIFF is damaged or cut short: no directory can be read") from error
        # A damaged end of the chain takes no page away that was read.
    return tuple(pages)


def candidates(pages: tuple[Page, ...]) -> tuple[Page, ...]:
    """The pages that may be the photograph, largest first: without smaller versions and masks of other pages."""
    full = [page for page in pages if not page.reduced] or list(pages)
    return tuple(sorted(full, key=lambda page: -page.width * page.height))


def with_page_first(data: bytes, page: Page) -> bytes:
    """The file with `page` as its only page."""
    return _Reader(data).pointing_to(page.offset)


def check(page: Page) -> None:
    """Raise `PhotoUnsupported`, naming the property, for a page that would not be read, or to wrong pixels."""
    if fault := _unsupported(page):
        raise PhotoUnsupported(f"{fault}; 8 or 16 bits per channel are supported, as unsigned whole numbers")


def _unsupported(page: Page) -> str | None:
    kinds = set(page.formats[: page.channels])
    if 3 in kinds:
        return f"the pixels are floating-point numbers of {page.depth} bits"
    if kinds & {5, 6}:
        return "the pixels are complex numbers"
    if 2 in kinds and page.photometric in (*_GRAY, _RGB):
        return f"the pixels are signed whole numbers of {page.depth} bits"
    if page.photometric in _MOSAICS:
        return "the pixels are a camera's raw mosaic"
    if page.compression not in _READABLE:
        name = _COMPRESSIONS.get(page.compression, f"number {page.compression}")
        return f"a TIFF with the compression {name} (supported are none, LZW, deflate, JPEG and PackBits)"
    if page.planar and page.channels == 2:
        return "gray and transparency in separate planes"
    if page.planar and page.depth == 16 and page.compression == _NONE and not page.separate_words:
        return f"16 bits in separate planes with {_COLORS.get(page.photometric, 'other colors')}"
    return None


class _Reader:
    """Reads directories; `struct.error` means that the file ends before."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.order = "<" if data[:2] == b"II" else ">"
        self.big = data[2:4] in (b"+\0", b"\0+")
        self.word = "Q" if self.big else "L"
        self.width = 8 if self.big else 4

    def first(self) -> int:
        """Offset of the first directory."""
        return self._number(self.word, 8 if self.big else 4)

    def pointing_to(self, offset: int) -> bytes:
        """The file with the directory at `offset` as its first and only one."""
        at = 8 if self.big else 4
        end = self._end(offset)
        zero, pointer = bytes(self.width), struct.pack(self.order + self.word, offset)
        changed = bytearray(self.data)
        changed[at : at + self.width] = pointer
        changed[end : end + self.width] = zero
        return bytes(changed)

    def page(self, offset: int) -> tuple[Page, int]:
        """The page at `offset`, and the offset of the next one; 0 after the last."""
        tags = dict(self._entries(offset))
        channels = tags.get(277, (1,))[0]
        kind, old_kind = tags.get(254, (0,))[0], tags.get(255, (1,))[0]
        page = Page(
            offset=offset,
            width=tags.get(256, (0,))[0],
            height=tags.get(257, (0,))[0],
            bits=tags.get(258, (1,)),
            formats=tags.get(339, (1,)),
            channels=channels,
            photometric=tags.get(262, (0,))[0],
            compression=tags.get(259, (_NONE,))[0],
            planar=tags.get(284, (1,))[0] == 2,
            tile=(tags.get(322, (0,))[0], tags.get(323, (0,))[0]),
            orientation=tags.get(274, (1,))[0],
            reduced=bool(kind & 0b101) or old_kind == 2,
            children=tags.get(330, ()),
        )
        end = self._end(offset)
        try:
            following = self._number(self.word, end)
        except struct.error:
            following = 0
        if len(page.formats) == 1:
            page = replace(page, formats=page.formats * max(min(channels, _MAX_VALUES), 1))
        return page, following

    def _entries(self, offset: int) -> Iterator[tuple[int, tuple[int, ...]]]:
        """Tag and first values of each entry that holds whole numbers."""
        count, size, start = self._shape(offset)
        for at in range(start, start + size * count, size):
            tag, kind, length = struct.unpack_from(f"{self.order}HH{self.word}", self.data, at)
            code = _TYPES.get(kind)
            if code is None or not length:
                continue
            layout = f"{self.order}{min(length, _MAX_VALUES)}{code}"
            place = at + 4 + self.width
            if length * struct.calcsize("=" + code) > self.width:
                place = self._number(self.word, place)
            try:
                yield tag, struct.unpack_from(layout, self.data, place)
            except struct.error:
                continue  # a tag that nothing depends on may be damaged; Pillow judges the rest

    def _end(self, offset: int) -> int:
        count, size, start = self._shape(offset)
        return start + size * count

    def _shape(self, offset: int) -> tuple[int, int, int]:
        """Number of entries, bytes of each, and where they begin."""
        count = self._number("Q" if self.big else "H", offset)
        if count > _MAX_ENTRIES:
            raise PhotoUnreadable(f"the TIFF is damaged: a directory of {count:,} entries")
        return count, 20 if self.big else 12, offset + (8 if self.big else 2)

    def _number(self, code: str, at: int) -> int:
        (number,) = struct.unpack_from(self.order + code, self.data, at)
        return int(number)
