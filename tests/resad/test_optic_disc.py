"""The optic disc of real photographs, where it was seen by hand; none where nothing stands out."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from resad.config import PhotoLimits, PreparationConfig
from resad.optic_disc import find_optic_disc
from resad.preparation import PreparedPhoto, prepare

# Across and down from the middle, in radii of the field of view; seen by hand, to 0.05.
SEEN = {
    "good/IDRiD_NAR_012": (0.57, -0.17),
    "good/IDRiD_NAR_069": (-0.49, -0.02),
    "good/IDRiD_NAR_085": (0.65, 0.08),
    "lesion/IDRiD_02": (-0.73, -0.08),
    "lesion/IDRiD_07": (0.66, 0.13),
}


def prepared(picture: Image.Image) -> PreparedPhoto:
    file = io.BytesIO()
    picture.save(file, "PNG")
    return prepare(file.getvalue(), PreparationConfig(size=512), PhotoLimits())


@pytest.mark.parametrize("name", SEEN)
def test_the_disc_is_where_it_is_seen_and_in_the_mirror_image_on_the_other_side(shared: Path, name: str) -> None:
    with Image.open(shared / f"data/idrid-512/test/{name}.jpg") as image:
        picture = image.convert("RGB")
    for sign, variant in ((1, picture), (-1, ImageOps.mirror(picture)), (1, picture.resize((1024, 1024)))):
        photo = prepared(variant)
        field = photo.field_of_view
        disc = find_optic_disc(photo)
        assert disc is not None
        across, down = (disc.cx - field.cx) / field.radius, (disc.cy - field.cy) / field.radius
        assert (across, down) == pytest.approx((sign * SEEN[name][0], SEEN[name][1]), abs=0.12)
        assert 0.08 < disc.radius / field.radius < 0.2


def test_an_exudate_as_large_as_a_disc_leaves_it_open(shared: Path) -> None:
    with Image.open(shared / "data/idrid-512/test/lesion/IDRiD_10.jpg") as image:
        assert find_optic_disc(prepared(image.convert("RGB"))) is None


@pytest.mark.parametrize("level", [0, 90, 255])
def test_a_plain_picture_has_none(level: int) -> None:
    assert find_optic_disc(prepared(Image.new("RGB", (300, 200), (level, level // 2, level // 4)))) is None


def test_noise_has_none() -> None:
    pixels = np.random.default_rng(3).integers(0, 256, (256, 256, 3), dtype=np.uint8)
    assert find_optic_disc(prepared(Image.fromarray(pixels))) is None
