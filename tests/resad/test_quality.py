"""Quality against the index's own photographs: normals pass, and what is spoilt is named."""

import io
from collections.abc import Callable
from dataclasses import astuple, replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, ImageFilter
from resad_client.records import PhotoQuality, QualityMeasures

from lab.drawing import draw_photo
from resad.config import PhotoLimits, PreparationConfig
from resad.errors import PhotoPoor
from resad.preparation import PreparedPhoto, prepare
from resad.quality import (
    FEWEST,
    QualityLimits,
    demand,
    judge,
    measure_quality,
    quality_limits,
)

PREPARATION = PreparationConfig(size=192)
Spoil = Callable[[Image.Image], Image.Image]


def prepare_image(image: Image.Image) -> PreparedPhoto:
    file = io.BytesIO()
    image.save(file, "PNG")
    return prepare(file.getvalue(), PREPARATION, PhotoLimits())


@cache
def drawn_photo(seed: int) -> Image.Image:
    return Image.fromarray(draw_photo(np.random.default_rng(seed), height=192).pixels)


@pytest.fixture(scope="module")
def limits() -> QualityLimits:
    return quality_limits([measure_quality(prepare_image(drawn_photo(seed))) for seed in range(24)])


def scale_by(factor: float) -> Spoil:
    return lambda image: Image.fromarray((np.asarray(image) * factor).clip(0, 255).astype(np.uint8))


def hazy(image: Image.Image) -> Image.Image:
    pixels = np.asarray(image).astype(float)
    lit = pixels.max(axis=2, keepdims=True) > 16
    mean = pixels[lit[..., 0]].mean(axis=0)
    return Image.fromarray(np.where(lit, 0.05 * pixels + 0.95 * mean, pixels).astype(np.uint8))


def crop_to(share: float) -> Spoil:
    return lambda image: image.crop((0, 0, int(image.width * share), image.height))


def test_normals_pass_at_the_stated_rate_and_unseen_ones_too(limits: QualityLimits) -> None:
    assert limits.photos == 24
    assert limits.passed >= 0.94
    verdicts = [judge(prepare_image(drawn_photo(seed)), limits) for seed in range(1000, 1020)]
    # More than 6 of 20 would fail less than once in 1,000 times if the rate were 6 %.
    assert sum(not verdict.acceptable for verdict in verdicts) <= 6


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (scale_by(0.3), "too-dark"),
        (scale_by(6.0), "too-bright"),
        (hazy, "low-contrast"),
        (lambda image: image.filter(ImageFilter.GaussianBlur(4)), "blurred"),
        (crop_to(0.6), "cut-off"),
    ],
)
def test_a_spoilt_photograph_gets_its_reason(limits: QualityLimits, spoil: Spoil, reason: str) -> None:
    for seed in range(2000, 2005):
        assert reason in judge(prepare_image(spoil(drawn_photo(seed))), limits).reasons


def test_darkening_alone_is_neither_blur_nor_haze(limits: QualityLimits) -> None:
    whole, dark = (measure_quality(prepare_image(scale_by(f)(drawn_photo(7)))) for f in (1.0, 0.5))
    assert dark.brightness == pytest.approx(whole.brightness / 2, rel=0.05)
    assert dark.contrast == pytest.approx(whole.contrast, rel=0.1)
    assert dark.sharpness == pytest.approx(whole.sharpness, rel=0.15)


def test_what_is_no_fundus_photograph_is_told_even_without_limits() -> None:
    few = quality_limits([])
    page = Image.new("RGB", (300, 200), "white")
    page.paste((0, 0, 0), (40, 40, 200, 50))
    verdict = judge(prepare_image(page), few)
    assert verdict.reasons == ("not-a-fundus-photograph", "no-field-of-view")
    assert judge(prepare_image(drawn_photo(1)), few).acceptable


def test_black_has_measures_and_reasons(limits: QualityLimits) -> None:
    verdict = judge(prepare_image(Image.new("RGB", (200, 200))), limits)
    assert not verdict.acceptable
    assert "too-dark" in verdict.reasons
    assert np.isfinite(astuple(verdict.measures)).all()


def test_normals_without_a_disc_make_its_absence_no_fault() -> None:
    """Frames that the retina fills: the same center cut out of every photograph."""

    def retina_only(seed: int) -> PreparedPhoto:
        image = drawn_photo(seed)
        x, y = image.width // 2, image.height // 2
        return prepare_image(image.crop((x - 50, y - 50, x + 50, y + 50)))

    photos = [retina_only(seed) for seed in range(20)]
    assert not any(photo.field_of_view.found for photo in photos)
    limits = quality_limits([measure_quality(photo) for photo in photos])
    assert "no-field-of-view" not in judge(retina_only(50), limits).reasons


values = st.floats(0, 255)
shares = st.floats(0, 1)
older_measures = st.builds(QualityMeasures, values, values, values, shares, shares)
measures = st.builds(QualityMeasures, values, values, values, shares, shares, shares, st.floats(-8, 8), shares)


@given(st.lists(measures, min_size=FEWEST, max_size=120))
def test_however_the_normals_are_spread_94_percent_pass(normals: list[QualityMeasures]) -> None:
    limits = quality_limits(normals)
    assert limits.passed >= 0.94
    assert [limit.measure for limit in limits.limits] == [
        "brightness", "contrast", "sharpness", "completeness", "brightness", "saturated", "color", "order",
        "resolution",
    ]  # fmt: skip


@given(st.lists(measures, min_size=FEWEST, max_size=40))
def test_limits_stay_within_the_range_of_their_measure(normals: list[QualityMeasures]) -> None:
    highest = {"completeness": 1.0, "saturated": 1.0, "resolution": 1.0}
    for limit in quality_limits(normals).limits:
        if limit.measure != "order":
            assert 0 <= limit.value <= highest.get(limit.measure, 255)


@given(st.lists(measures, min_size=1, max_size=FEWEST - 1))
def test_fewer_normals_limit_color_order_and_resolution_alone(normals: list[QualityMeasures]) -> None:
    limits = quality_limits(normals)
    assert limits.passed == 1.0
    assert [limit.measure for limit in limits.limits] == ["color", "order", "resolution"]


@given(st.lists(older_measures, max_size=FEWEST - 1))
def test_fewer_normals_of_earlier_versions_set_no_limits(normals: list[QualityMeasures]) -> None:
    assert quality_limits(normals) == QualityLimits(len(normals), 1.0, ())


@given(st.lists(measures, min_size=FEWEST, max_size=FEWEST))
@settings(deadline=None)
def test_fewer_normals_widen_the_limits(normals: list[QualityMeasures]) -> None:
    """The extremes of the ten are also those of the thirty."""
    few, many = (quality_limits(photos).limits for photos in (normals, normals * 3))
    for narrow, wide in zip(many, few, strict=True):
        assert wide.value <= narrow.value if wide.below else wide.value >= narrow.value


def test_demand_refuses_poor_quality_with_its_reasons() -> None:
    quality = PhotoQuality(True, (), QualityMeasures(1, 1, 1, 1, 0))
    demand(quality)
    with pytest.raises(PhotoPoor, match="blurred, too-dark"):
        demand(replace(quality, acceptable=False, reasons=("blurred", "too-dark")))


def test_real_photographs_blurred_or_darkened_are_told_from_real_normals(shared: Path) -> None:
    folder = shared / "data/idrid-512"
    preparation = PreparationConfig(size=256)

    def read(path: Path, spoil: Callable[[NDArray[np.uint8]], NDArray[np.uint8]]) -> PreparedPhoto:
        file = io.BytesIO()
        Image.fromarray(spoil(np.asarray(Image.open(path).convert("RGB")))).save(file, "PNG")
        return prepare(file.getvalue(), preparation, PhotoLimits())

    normals = sorted((folder / "train/good").iterdir())[:12]
    limits = quality_limits([measure_quality(read(path, lambda pixels: pixels)) for path in normals])
    for path in sorted((folder / "test/good").iterdir())[:2]:
        dark = judge(read(path, lambda pixels: pixels // 5), limits)
        assert "too-dark" in dark.reasons
        blurred = judge(
            read(path, lambda pixels: np.asarray(Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(8)))),
            limits,
        )
        assert "blurred" in blurred.reasons
