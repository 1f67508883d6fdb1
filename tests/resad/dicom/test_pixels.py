"""Pixels of DICOM photographs: right against the picture that was encoded, or refused by name."""

from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from pydicom.data import get_testdata_file
from pydicom.pixels.processing import convert_color_space
from pydicom.uid import ExplicitVRLittleEndian, JPEG2000Lossless, JPEGBaseline8Bit, JPEGLSLossless, RLELossless

from resad.config import PhotoLimits
from resad.errors import PhotoError, PhotoTooLarge, PhotoUnreadable, PhotoUnsupported
from resad.photo import read_photo, stored_size
from tests.dicom_files import LOSSLESS, LOSSY, as_jpeg, compressed, decoded, encoded, header, photograph

LIMITS = PhotoLimits()


@pytest.fixture(scope="module")
def picture() -> NDArray[np.uint8]:
    """A disc with a gradient and colored spots."""
    y, x = np.mgrid[:98, :132].astype(float)
    disc = np.hypot(x - 65, y - 48) < 46
    channels = [120 + x / 2, 60 + y / 2, 30 + (x + y) / 8]
    picture = np.stack([np.where(disc, channel, 3) for channel in channels], axis=-1)
    picture[30:38, 50:60] = (240, 220, 150)
    picture[60:66, 70:80] = (90, 10, 12)
    return picture.astype(np.uint8)


def rgb(data: bytes) -> NDArray[np.uint8]:
    return read_photo(data, LIMITS).pixels


@pytest.mark.parametrize("syntax", LOSSLESS, ids=lambda uid: uid.name)
def test_lossless_color_is_exact(syntax: str, picture: NDArray[np.uint8]) -> None:
    data = photograph(picture, syntax)
    photo = read_photo(data, LIMITS)
    assert np.array_equal(photo.pixels, picture)
    assert (photo.width, photo.height) == stored_size(data, LIMITS) == (132, 98)


@pytest.mark.parametrize("syntax", LOSSLESS, ids=lambda uid: uid.name)
@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_lossless_gray_is_exact(syntax: str, kind: type[np.generic], picture: NDArray[np.uint8]) -> None:
    gray = picture[..., 1].astype(kind)
    if kind is np.uint16:
        gray = gray * np.uint16(257)
    assert np.array_equal(rgb(photograph(gray, syntax)), np.repeat(picture[..., 1:2], 3, axis=2))


def test_an_odd_number_of_pixels(picture: NDArray[np.uint8]) -> None:
    odd = picture[:97, :131]
    for syntax in (ExplicitVRLittleEndian, RLELossless, JPEG2000Lossless):
        assert np.array_equal(rgb(photograph(odd, syntax)), odd)


@pytest.mark.parametrize("syntax", LOSSY, ids=lambda uid: uid.name)
def test_lossy_color_is_close(syntax: str, picture: NDArray[np.uint8]) -> None:
    difference = rgb(photograph(picture, syntax)).astype(int) - picture
    assert np.abs(difference).mean() < 3
    assert np.abs(difference.mean(axis=(0, 1))).max() < 1.5  # no channel is shifted, as a wrong color space would


@pytest.mark.parametrize("syntax", [*LOSSLESS, *LOSSY], ids=lambda uid: uid.name)
def test_real_photographs(syntax: str, shared: Path) -> None:
    path = next((shared / "data/idrid-512/train/good").iterdir())
    source = np.asarray(Image.open(path).convert("RGB"))
    difference = np.abs(rgb(photograph(source, syntax)).astype(int) - source)
    assert difference.max() == 0 if syntax in LOSSLESS else difference.mean() < 2


@pytest.mark.parametrize("planar", [0, 1])
def test_planes(planar: int, picture: NDArray[np.uint8]) -> None:
    dataset = header(picture, {"PlanarConfiguration": planar})
    stored = picture if planar == 0 else picture.transpose(2, 0, 1)
    dataset.PixelData = stored.tobytes()
    assert np.array_equal(rgb(encoded(dataset, ExplicitVRLittleEndian)), picture)


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, RLELossless, JPEGLSLossless])
def test_ybr_full(syntax: str, picture: NDArray[np.uint8]) -> None:
    ybr = convert_color_space(picture, "RGB", "YBR_FULL")
    pixels = rgb(photograph(ybr, syntax, PhotometricInterpretation="YBR_FULL"))
    assert np.abs(pixels.astype(int) - picture).max() <= 2


def test_ybr_full_422_uncompressed(picture: NDArray[np.uint8]) -> None:
    """Two pixels share their chroma, here already in the picture."""
    even = np.repeat(picture[:96:, :128:2], 2, axis=1)
    ybr = convert_color_space(even, "RGB", "YBR_FULL")
    dataset = header(even, {"PhotometricInterpretation": "YBR_FULL_422"})
    pairs = ybr.reshape(96, 64, 2, 3)
    stored = np.stack([pairs[:, :, 0, 0], pairs[:, :, 1, 0], pairs[:, :, 0, 1], pairs[:, :, 0, 2]], axis=-1)
    dataset.PixelData = stored.tobytes()
    pixels = rgb(encoded(dataset, ExplicitVRLittleEndian))
    assert np.abs(pixels.astype(int) - even).max() <= 2


@pytest.mark.parametrize("color", ["YBR_FULL_422", "YBR_FULL", "RGB"])
def test_a_jpeg_that_says_its_colors_is_believed(color: str, picture: NDArray[np.uint8]) -> None:
    """Exporters often write RGB into the header of a camera's JPEG, which is YCbCr."""
    dataset = header(picture, {})
    dataset.PixelData = picture.tobytes()
    assert np.abs(rgb(as_jpeg(dataset, color=color)).astype(int) - picture).mean() < 3


def test_a_silent_jpeg_has_the_headers_colors(picture: NDArray[np.uint8]) -> None:
    ybr = header(picture, {})
    ybr.PixelData = picture.tobytes()
    assert np.abs(rgb(as_jpeg(ybr, jfif=False)).astype(int) - picture).mean() < 3
    # The stream's components are stored as they are: a picture whose R, G, B went in as if they were Y, Cb, Cr.
    file = BytesIO()
    Image.fromarray(picture).convert("RGB").save(file, "JPEG", quality=95, subsampling=0, keep_rgb=True)
    plain = header(picture, {})
    data = compressed(plain, JPEGBaseline8Bit, [file.getvalue()])
    assert np.abs(rgb(data).astype(int) - picture).mean() < 3


@pytest.mark.parametrize("bits", [8, 16])
def test_palette(bits: int, picture: NDArray[np.uint8]) -> None:
    image = Image.fromarray(picture).quantize(200)
    table = np.array(image.getpalette()).reshape(-1, 3)[:200]
    kind = np.uint8 if bits == 8 else np.uint16
    fields: dict[str, Any] = {"PhotometricInterpretation": "PALETTE COLOR"}
    for number, name in enumerate(("Red", "Green", "Blue")):
        channel = (table[:, number] * (1 if bits == 8 else 257)).astype(kind)
        fields[f"{name}PaletteColorLookupTableDescriptor"] = [200, 0, bits]
        fields[f"{name}PaletteColorLookupTableData"] = channel.tobytes()
    data = photograph(np.asarray(image), **fields)
    assert np.array_equal(rgb(data), np.asarray(image.convert("RGB")))


def test_monochrome1_is_inverted(picture: NDArray[np.uint8]) -> None:
    gray = picture[..., 1]
    pixels = rgb(photograph(255 - gray, PhotometricInterpretation="MONOCHROME1"))
    assert np.array_equal(pixels[..., 0], gray)


def test_a_window_is_applied(picture: NDArray[np.uint8]) -> None:
    """12 bits in 16, of which the window shows 1000 to 2020; the formula is that of PS3.3, C.11.2.1.2.1."""
    values = picture[..., 1].astype(np.uint16) * 4 + 1000
    pixels = rgb(photograph(values, BitsStored=12, HighBit=11, WindowCenter=1510.5, WindowWidth=1021))
    assert np.abs(pixels[..., 0].astype(int) - picture[..., 1]).max() <= 1


def test_signed_gray_with_a_window(picture: NDArray[np.uint8]) -> None:
    values = picture[..., 1].astype(np.int16) - 128
    fields: dict[str, Any] = {"PixelRepresentation": 1, "RescaleIntercept": 128, "RescaleSlope": 1}
    pixels = rgb(photograph(values, WindowCenter=128, WindowWidth=256, **fields))
    assert np.abs(pixels[..., 0].astype(int) - picture[..., 1]).max() <= 1


def test_without_a_window_the_stored_bits_count(picture: NDArray[np.uint8]) -> None:
    values = picture[..., 1].astype(np.uint16) * 16
    pixels = rgb(photograph(values, BitsStored=12, HighBit=11))
    assert np.abs(pixels[..., 0].astype(int) - picture[..., 1]).max() <= 1


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, RLELossless, JPEG2000Lossless])
def test_color_of_sixteen_bits(syntax: str, picture: NDArray[np.uint8]) -> None:
    assert np.array_equal(rgb(photograph(picture.astype(np.uint16) * 257, syntax)), picture)


REFUSED: dict[str, tuple[dict[str, Any], type[PhotoError], str]] = {
    "signed color": ({"PixelRepresentation": 1}, PhotoUnsupported, "signed"),
    "a color space": ({"PhotometricInterpretation": "HSV"}, PhotoUnsupported, "HSV"),
    "samples": ({"SamplesPerPixel": 4}, PhotoUnreadable, "4 samples"),
    "one bit": ({"BitsAllocated": 1}, PhotoUnsupported, "1 bits"),
    "32 bits": ({"BitsAllocated": 32, "BitsStored": 32}, PhotoUnsupported, "32 bits"),
    "rows beyond the pixels": ({"Rows": 5000}, PhotoUnreadable, "damaged"),
    "huge": ({"Rows": 60_000, "Columns": 60_000}, PhotoTooLarge, "3600 million"),
    "tiny": ({"Rows": 8, "Columns": 8}, PhotoUnreadable, "8 x 8 px"),
    "no rows": ({"Rows": None}, PhotoUnreadable, "damaged"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_by_name(name: str, picture: NDArray[np.uint8]) -> None:
    fields, kind, words = REFUSED[name]
    dataset = header(picture, fields)
    dataset.PixelData = picture.tobytes()
    with pytest.raises(kind, match=words):
        rgb(encoded(dataset, ExplicitVRLittleEndian))


def test_twelve_bit_jpegs_are_refused_by_name() -> None:
    path = get_testdata_file("JPGExtended.dcm")
    assert isinstance(path, str)
    with pytest.raises(PhotoUnsupported, match="12 bits"):
        read_photo(Path(path), PhotoLimits(min_side=8))


@pytest.mark.parametrize("syntax", [JPEG2000Lossless, JPEGLSLossless, JPEGBaseline8Bit])
def test_a_stream_larger_than_its_header_is_not_decoded(syntax: str, picture: NDArray[np.uint8]) -> None:
    dataset = header(picture, {})
    dataset.PixelData = picture.tobytes()
    frame = bytes(_frame(encoded(dataset, syntax)))
    small = compressed(header(picture[:80, :80], {}), syntax, [frame])
    with pytest.raises(PhotoUnreadable, match="80 x 80 px, the compressed picture 132 x 98"):
        rgb(small)


def _frame(data: bytes) -> bytes:
    from pydicom import dcmread
    from pydicom.encaps import get_frame

    return get_frame(dcmread(BytesIO(data)).PixelData, 0, number_of_frames=1)


@pytest.mark.parametrize(
    "name",
    ["SC_rgb_rle.dcm", "SC_rgb_jpeg_dcmtk.dcm", "SC_ybr_full_422_uncompressed.dcm", "SC_rgb_dcmtk_+eb+cy+s2.dcm",
     "SC_rgb_gdcm_KY.dcm", "SC_rgb_jls_lossy_sample.dcm", "GDCMJ2K_TextGBR.dcm", "SC_rgb_dcmtk_+eb+cr.dcm"],
)  # fmt: skip
def test_pydicoms_own_files(name: str) -> None:
    """Against pydicom's default decoder; a JPEG's chroma may be interpolated in another way."""
    path = get_testdata_file(name)
    assert isinstance(path, str)
    data = Path(path).read_bytes()
    difference = np.abs(rgb(data).astype(int) - decoded(data))
    assert difference.mean() < 3
