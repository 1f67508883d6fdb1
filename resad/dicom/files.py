"""A DICOM file's bytes -> its data set, with bounded work; one frame of several as a file of its own.

The file is untrusted.  Reads are counted, deflated data is inflated up to a limit, and pydicom is told to be
silent, because its warnings quote header values.
"""

import logging
import re
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Final

from resad.errors import PhotoError, PhotoTooLarge, PhotoUnreadable, PhotoUnsupported

if TYPE_CHECKING:
    from pydicom.dataset import Dataset, FileDataset

    from resad.config import PhotoLimits

INSTALL: Final = "install the extra dicom: pip install 'resad[dicom]'"
DEFLATED: Final = "1.2.840.10008.1.2.1.99"
_EXPLICIT: Final = "1.2.840.10008.1.2.1"
_IMPLICIT: Final = "1.2.840.10008.1.2"
_BIG_ENDIAN: Final = "1.2.840.10008.1.2.2"
_PREFIX_END: Final = 132
_FRAME: Final = re.compile(r"(.+\.(?:dcm|dicom))#(\d{1,6})", re.IGNORECASE | re.DOTALL)
_PIXEL_DATA_GROUP: Final = 0x7FE0
_MAX_READS: Final = 150_000
"""Of the file while it is parsed, about three an element; a photograph's header has some hundred elements."""
_LONG_LENGTHS: Final = (b"OB", b"OW", b"OF", b"OD", b"OL", b"OV", b"SQ", b"UN", b"UC", b"UR", b"UT")
"""Value representations whose length has 32 bits."""


def is_dicom(data: bytes) -> bool:
    """Whether the bytes are a DICOM file, or a bare data set that begins with its identification group."""
    if data[128:_PREFIX_END] == b"DICM":
        return True
    group_and_element, after = data[:4], data[4:8]
    # Specific Character Set, Image Type, or the length of the group.
    if group_and_element not in (b"\x08\0\x05\0", b"\x08\0\x08\0", b"\x08\0\0\0"):
        return False
    return after[:2] in (b"CS", b"UL") or int.from_bytes(after, "little") < 256


def read_dataset(data: bytes, limits: "PhotoLimits", *, header_only: bool = False) -> "FileDataset":
    """The data set in `data`, with its file meta information.

    Args:
        header_only: leave out the pixels and what comes after them; `data` may end before.
    Raises:
        PhotoUnsupported: pydicom is missing.
        PhotoTooLarge: more elements than any photograph has, or more inflated bytes than a file may have.
        PhotoUnreadable: anything damaged.
    """
    with as_photo_errors():
        from pydicom.dataset import FileDataset, FileMetaDataset
        from pydicom.filereader import read_dataset as read_elements
        from pydicom.uid import UID

        syntax, start = _transfer_syntax(data)
        body = data[start:]
        if syntax == DEFLATED:
            body, syntax = _inflated(body, limits), _EXPLICIT
        implicit, little = syntax == _IMPLICIT, syntax != _BIG_ENDIAN
        stop = _at_pixels if header_only else None
        elements = read_elements(_CountedReads(body), implicit, little, stop_when=stop)
        meta = FileMetaDataset()
        meta.TransferSyntaxUID = UID(syntax)
        dataset = FileDataset(BytesIO(), elements, None, meta, implicit, little)
        dataset.set_original_encoding(implicit, little, elements._character_set)
        return dataset


def single_frame(data: bytes, number: int, limits: "PhotoLimits") -> bytes:
    """A file that holds frame `number` (from 1) alone; its Referenced Frame Number says which it was.

    Raises `PhotoUnreadable` for a frame that is not there; otherwise as `read_dataset`.
    """
    dataset = read_dataset(data, limits)
    with as_photo_errors():
        from pydicom.encaps import encapsulate, get_frame
        from pydicom.uid import UID

        count = frames_of(dataset)
        if not 1 <= number <= count:
            raise PhotoUnreadable(f"there is no frame {number}: the file has {count}")
        if UID(dataset.file_meta.TransferSyntaxUID).is_encapsulated:
            frame = get_frame(dataset.PixelData, number - 1, number_of_frames=count)
            dataset.PixelData = encapsulate([frame])
            dataset["PixelData"].is_undefined_length = True
        else:
            length = _frame_length(dataset)
            frame = bytes(dataset.PixelData[length * (number - 1) : length * number])
            if len(frame) < length:
                raise PhotoUnreadable(f"frame {number} is cut short")
            dataset.PixelData = frame + b"\0" * (length % 2)
        for keyword in ("PerFrameFunctionalGroupsSequence", "ExtendedOffsetTable", "ExtendedOffsetTableLengths"):
            dataset.pop(keyword, None)
        dataset.NumberOfFrames = 1
        dataset.ReferencedFrameNumber = number
        file = BytesIO()
        dataset.preamble = b"\0" * 128
        dataset.save_as(file)
        return file.getvalue()


def split_frame(path: Path) -> tuple[Path, int | None]:
    """A DICOM file and the frame that is named behind it, as `eye.dcm#2`; None where the path is a file's own."""
    match = _FRAME.fullmatch(path.name)
    if match is None or path.exists():
        return path, None
    return path.with_name(match[1]), int(match[2])


def _at_pixels(tag: int, vr: str | None, length: int) -> bool:
    return tag >= _PIXEL_DATA_GROUP << 16


def frames_of(dataset: "Dataset") -> int:
    """How many frames the data set says it has; 1 where it says nothing."""
    try:
        return max(int(dataset.get("NumberOfFrames") or 1), 1)
    except (TypeError, ValueError):
        return 1


def _frame_length(dataset: "FileDataset") -> int:
    """Bytes of an uncompressed frame."""
    from pydicom.pixels.utils import get_expected_length

    return get_expected_length(dataset, "bytes") // frames_of(dataset)


@contextmanager
def as_photo_errors() -> Iterator[None]:
    """Silence pydicom and turn its exceptions into this project's; their texts may quote header values."""
    # Not `catch_warnings`, which is not safe with threads; the same filter again only moves to the front.
    warnings.filterwarnings("ignore", module=r"pydicom|highdicom|resad\.dicom")
    logging.getLogger("pydicom").setLevel(logging.CRITICAL)
    try:
        from pydicom import config
    except ImportError as error:
        raise PhotoUnsupported(f"the file is DICOM: {INSTALL}") from error
    config.settings.reading_validation_mode = config.IGNORE
    try:
        yield
    except (PhotoError, MemoryError):
        raise
    except Exception:
        # pydicom and its decoders document no complete list.  No cause: its text may quote a header.
        raise PhotoUnreadable("the DICOM file is damaged, cut short, or of a kind that cannot be read") from None


class _CountedReads(BytesIO):
    """Bytes that refuse to be read in more than `_MAX_READS` pieces."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self._reads = 0

    def read(self, size: int | None = -1, /) -> bytes:
        self._reads += 1
        if self._reads > _MAX_READS:
            raise PhotoTooLarge("the DICOM file has more elements than any photograph")
        return super().read(size)


@dataclass(frozen=True, slots=True)
class _MetaElement:
    """An element of the file meta information, by its number in group 2.  end: where the next begins."""

    element: int
    value: bytes
    end: int


def _transfer_syntax(data: bytes) -> tuple[str, int]:
    """The transfer syntax, and where the data set begins.  A bare data set tells its own by its first element."""
    if data[128:_PREFIX_END] != b"DICM":
        return (_EXPLICIT if data[4:6].isupper() else _IMPLICIT), 0
    at, syntax = _PREFIX_END, None
    while data[at : at + 2] == b"\x02\0":
        element = _meta_element(data, at)
        if element.element == 0x0010:
            syntax = element.value.rstrip(b"\0 ").decode("ascii")
        at = element.end
    if syntax is None:
        return (_EXPLICIT if data[at + 4 : at + 6].isupper() else _IMPLICIT), at
    return syntax, at


def _meta_element(data: bytes, at: int) -> _MetaElement:
    """The element at `at`: the file meta information is always explicit and little endian."""
    _, element, kind = struct.unpack_from("<HH2s", data, at)
    if kind in _LONG_LENGTHS:
        (length,), start = struct.unpack_from("<L", data, at + 8), at + 12
    else:
        (length,), start = struct.unpack_from("<H", data, at + 6), at + 8
    if start + length > len(data):
        raise PhotoUnreadable("the DICOM file is cut short")
    return _MetaElement(element, data[start : start + length], start + length)


def _inflated(body: bytes, limits: "PhotoLimits") -> bytes:
    most = limits.max_bytes  # a file of more bytes would be refused, too
    inflated = zlib.decompressobj(-zlib.MAX_WBITS).decompress(body, most + 1)
    if len(inflated) > most:
        raise PhotoTooLarge(f"the DICOM file inflates to more than {most / 1e6:g} MB")
    return inflated
