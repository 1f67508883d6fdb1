import math
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter
from scipy.stats import binom, norm
from sklearn.metrics import average_precision_score, balanced_accuracy_score, roc_auc_score

from lab.datasets.dataset import read_mask
from lab.datasets.layouts import read_mvtec
from lab.evaluate import bootstrap, metrics
from lab.evaluate.bootstrap import Figure
from lab.evaluate.metrics import ScoreHistogram, SparseCounts
from resad.errors import SettingError

Floats = NDArray[np.float64]
Labels = NDArray[np.bool_]
Counts = NDArray[np.int64]
ImageFigure = Callable[[Floats, Labels, np.random.Generator, int], Figure]
PixelFigure = Callable[[ScoreHistogram, np.random.Generator, int], Figure]

IMAGE_FIGURES: list[ImageFigure] = [
    metrics.image_auroc,
    metrics.average_precision,
    metrics.balanced_accuracy,
    lambda scores, labels, rng, resamples: metrics.balanced_accuracy_at(scores, labels, 1.0, rng, resamples),
    lambda scores, labels, rng, resamples: metrics.specificity_at(scores, labels, 0.9, rng, resamples),
]
PIXEL_FIGURES: list[PixelFigure] = [
    metrics.pixel_auroc,
    metrics.pixel_average_precision,
    metrics.pixel_balanced_accuracy,
]
image_figures = pytest.mark.parametrize("figure", IMAGE_FIGURES)
pixel_figures = pytest.mark.parametrize("figure", PIXEL_FIGURES)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def best_balanced_accuracy(labels: Labels, scores: Floats) -> float:
    """The obvious twin: every threshold that makes a difference, one by one."""
    thresholds = [*np.unique(scores), np.inf]
    return max(float(balanced_accuracy_score(labels, scores >= t)) for t in thresholds)


def draw_scores(seed: int, n: int, effect: float = 1.0) -> tuple[Floats, Labels]:
    """n normal and n abnormal scores, `effect` standard deviations apart."""
    labels = np.repeat([False, True], n)
    return rng(seed).standard_normal(2 * n) + effect * labels, labels


def histogram_of(
    maps: list[tuple[NDArray[np.float32], Labels]], full_scale: float, bins: int = 2**14
) -> ScoreHistogram:
    edges = metrics.score_edges(full_scale, bins)
    rows = [metrics.count_pixels(values, labels, edges) for values, labels in maps]
    return as_histogram(np.stack([normal for normal, _ in rows]), np.stack([lesion for _, lesion in rows]))


def as_histogram(normal: Counts, abnormal: Counts) -> ScoreHistogram:
    return ScoreHistogram(SparseCounts.of(normal), SparseCounts.of(abnormal))


def draw_maps(seed: int, photos: int, side: int = 24) -> list[tuple[NDArray[np.float32], Labels]]:
    """Every second photograph has a square lesion; photographs differ in level, as real ones do."""
    source, maps = rng(seed), []
    for i in range(photos):
        labels = np.zeros((side, side), bool)
        labels[2:8, 2 : 8 + i % 5] = i % 2
        noise = source.gamma(8, 0.1, (side, side)) * source.uniform(0.8, 1.2)
        maps.append(((noise + 0.4 * labels).astype(np.float32), labels))
    return maps


ranked = st.lists(st.tuples(st.integers(0, 6), st.booleans()), min_size=2, max_size=25)


@given(ranked)
@settings(deadline=None, max_examples=50)
def test_image_values_and_every_resample_equal_scikit_learn(pairs: list[tuple[int, bool]]) -> None:
    scores, labels = np.array([s for s, _ in pairs], float), np.array([y for _, y in pairs], bool)
    assume(labels.any() and not labels.all())
    assert metrics.image_auroc(scores, labels, rng(), 1).value == roc_auc_score(labels, scores)
    assert metrics.average_precision(scores, labels, rng(), 1).value == average_precision_score(labels, scores)
    assert metrics.balanced_accuracy(scores, labels, rng(), 1).value == pytest.approx(
        best_balanced_accuracy(labels, scores)
    )
    pool = metrics.image_pool(scores, labels)
    (weights,) = bootstrap.resampled(pool, rng(), 4)
    fast = np.stack(
        [
            pool.under(statistic)(weights)
            for statistic in (bootstrap.auroc, bootstrap.average_precision, bootstrap.balanced_accuracy)
        ]
    )
    for column, row in zip(fast.T, weights, strict=True):
        s, y = np.repeat(scores, row.astype(int)), np.repeat(labels, row.astype(int))
        slow = (roc_auc_score(y, s), average_precision_score(y, s), best_balanced_accuracy(y, s))
        np.testing.assert_allclose(column, slow, rtol=0, atol=1e-12)


def test_image_figures_by_hand() -> None:
    scores, labels = np.array([1.0, 2.0, 2.0, 3.0]), np.array([False, False, True, True])
    # Pairs abnormal over normal: 2>1, 2=2 (one half), 3>1, 3>2.
    assert metrics.image_auroc(scores, labels, rng()).value == 3.5 / 4
    # From the top: 3 (1 of 1), then the tie at 2 (2 of 3).
    assert metrics.average_precision(scores, labels, rng()).value == pytest.approx((1 + 2 / 3) / 2)
    assert metrics.balanced_accuracy(scores, labels, rng()).value == 0.75


def test_a_score_equal_to_the_threshold_is_normal() -> None:
    scores, labels = np.array([1.0, 2.0, 2.0, 3.0]), np.array([False, False, True, True])
    for threshold in (0.5, 1.0, 2.0, 2.5, 3.0):
        expected = balanced_accuracy_score(labels, scores > threshold)
        assert metrics.balanced_accuracy_at(scores, labels, threshold, rng()).value == expected
    assert metrics.balanced_accuracy_at(scores, labels, 2.0, rng()).value == 0.75  # `>=` would give the same;
    assert metrics.balanced_accuracy_at(scores, labels, 3.0, rng()).value == 0.5  # here it would give 0.75


@image_figures
def test_image_intervals_hold_the_value_and_depend_on_the_seed_alone(figure: ImageFigure) -> None:
    scores, labels = draw_scores(1, 40)
    result = figure(scores, labels, rng(5), 300)
    assert result.low < result.value < result.high
    assert result == figure(scores, labels, rng(5), 300)
    assert result != figure(scores, labels, rng(6), 300)


@image_figures
def test_image_intervals_shrink_with_the_root_of_the_photographs(figure: ImageFigure) -> None:
    few, many = (figure(*draw_scores(3, n), rng(), 500) for n in (50, 800))
    assert 0.15 < (many.high - many.low) / (few.high - few.low) < 0.4  # 1 / sqrt(16) is 0.25


def test_intervals_cover_the_true_auroc_as_often_as_they_say() -> None:
    truth = norm.cdf(1 / np.sqrt(2))
    figures = [metrics.image_auroc(*draw_scores(seed, 40), rng(seed), 300) for seed in range(200)]
    covered = np.mean([figure.low <= truth <= figure.high for figure in figures])
    assert 0.90 <= covered <= 0.99


def test_a_perfect_ranking_has_no_width() -> None:
    scores, labels = np.arange(10.0), np.arange(10) >= 6
    assert metrics.image_auroc(scores, labels, rng()) == Figure(1.0, 1.0, 1.0)


def test_resamples_without_both_classes_are_drawn_again() -> None:
    scores, labels = np.arange(12.0), np.arange(12) == 4
    pool = metrics.image_pool(scores, labels)
    weights = np.concatenate(list(bootstrap.resampled(pool, rng(), 1000)))
    assert weights.shape == (1000, 12)
    assert (weights.sum(axis=1) == 12).all()
    assert (weights[:, labels].sum(axis=1) > 0).all()
    assert (weights[:, ~labels].sum(axis=1) > 0).all()
    # The draws are those of an ordinary bootstrap on the condition that photograph 4 is among them.
    chance = 1 - (11 / 12) ** 12
    assert weights[:, 4].mean() == pytest.approx(1 / chance, abs=0.1)


def test_paired_difference_of_equal_scores_is_zero() -> None:
    scores, labels = draw_scores(1, 30)
    assert metrics.paired_difference(scores, scores, labels, rng()) == Figure(0.0, 0.0, 0.0)
    # Only the order of the scores counts.
    assert metrics.paired_difference(scores, np.exp(scores), labels, rng()) == Figure(0.0, 0.0, 0.0)


def test_paired_difference_is_antisymmetric_and_narrower_than_unpaired() -> None:
    a, labels = draw_scores(1, 60)
    b = a + 0.3 * rng(2).standard_normal(len(a))
    forward, reverse = (metrics.paired_difference(*pair, labels, rng(3)) for pair in ((a, b), (b, a)))
    assert (forward.value, forward.low, forward.high) == pytest.approx(
        (-reverse.value, -reverse.high, -reverse.low)
    )
    assert forward.value == pytest.approx(roc_auc_score(labels, a) - roc_auc_score(labels, b))
    separate = [metrics.image_auroc(scores, labels, rng(3)) for scores in (a, b)]
    unpaired = math.hypot(*(figure.high - figure.low for figure in separate))
    assert forward.high - forward.low < 0.7 * unpaired


def test_paired_difference_sees_a_real_difference() -> None:
    better, labels = draw_scores(1, 150, effect=2.0)
    worse, _ = draw_scores(2, 150, effect=0.5)
    assert metrics.paired_difference(better, worse, labels, rng()).low > 0


@pytest.mark.parametrize(("labels", "missing"), [([True, True], "no normal"), ([False, False], "no abnormal")])
def test_one_class_of_photographs_is_refused(labels: list[bool], missing: str) -> None:
    with pytest.raises(SettingError, match=f"^{missing} test photographs: image figures need both$"):
        metrics.image_auroc(np.array([1.0, 2.0]), np.array(labels), rng())


def test_unusable_scores_are_refused() -> None:
    labels = np.array([False, True])
    for scores, message in (
        ([1.0, np.nan], "photograph 1 is not finite"),
        ([1.0], r"\(1,\) image scores for \(2,\) labels"),
    ):
        with pytest.raises(SettingError, match=message):
            metrics.balanced_accuracy_at(np.array(scores), labels, 0.5, rng())
    with pytest.raises(SettingError, match="0 resamples"):
        metrics.image_auroc(np.array([1.0, 2.0]), labels, rng(), 0)


@given(st.floats(1e-3, 1e3), st.integers(2, 2**14))
def test_edges_rise_from_zero_to_the_full_scale(full_scale: float, bins: int) -> None:
    edges = metrics.score_edges(full_scale, bins)
    assert edges.dtype == np.float32
    assert edges.shape == (bins + 1,)
    assert edges[0] == 0
    assert edges[-1] == np.float32(full_scale)
    assert (np.diff(edges) > 0).all()


def test_a_scale_far_too_large_still_leaves_many_bins() -> None:
    assert np.searchsorted(metrics.score_edges(20.0), 1.0) > 3600


@pytest.mark.parametrize("full_scale", [0.0, -1.0, np.inf, np.nan])
def test_a_scale_that_is_none_is_refused(full_scale: float) -> None:
    with pytest.raises(SettingError, match="full scale"):
        metrics.score_edges(full_scale)


def test_count_pixels_puts_every_pixel_where_a_slow_loop_does() -> None:
    edges = metrics.score_edges(2.0, 8)
    values = rng(4).uniform(-0.2, 2.5, (13, 17)).astype(np.float32)
    values.flat[:9] = edges
    labels = rng(5).random(values.shape) < 0.3
    expected = np.zeros((2, 8), np.int64)
    for value, abnormal in zip(values.flat, labels.flat, strict=True):
        place = max((i for i in range(8) if value >= edges[i]), default=0)
        expected[int(abnormal), place] += 1
    normal, abnormal_counts = metrics.count_pixels(values, labels, edges)
    np.testing.assert_array_equal(np.stack([normal, abnormal_counts]), expected)
    assert normal.dtype == abnormal_counts.dtype == np.int64


def test_count_pixels_refuses_what_cannot_be_counted() -> None:
    edges, values = metrics.score_edges(1.0, 4), np.zeros((2, 2), np.float32)
    with pytest.raises(SettingError, match="must be alike"):
        metrics.count_pixels(values, np.zeros((2, 3), bool), edges)
    values[0, 1] = np.nan
    with pytest.raises(SettingError, match="not finite"):
        metrics.count_pixels(values, np.zeros((2, 2), bool), edges)


def check_against_raw(
    maps: list[tuple[NDArray[np.float32], Labels]], full_scale: float, tolerance: float = 2e-4
) -> None:
    """Pixel AUROC and average precision against scikit-learn on the pixels themselves."""
    histogram = histogram_of(maps, full_scale)
    values = np.concatenate([v.ravel() for v, _ in maps])
    labels = np.concatenate([y.ravel() for _, y in maps])
    auroc = metrics.pixel_auroc(histogram, rng(), 1).value
    precision = metrics.pixel_average_precision(histogram, rng(), 1).value
    assert auroc == pytest.approx(roc_auc_score(labels, values), abs=2e-4)
    assert precision == pytest.approx(average_precision_score(labels, values), abs=tolerance)


@pytest.mark.parametrize("room", [1.01, 4.0, 20.0], ids=lambda room: f"scale-{room:g}-times-the-maximum")
@pytest.mark.parametrize("kind", ["skewed", "zeros", "narrow", "rare"])
def test_pixel_values_agree_with_the_unbinned_pixels(kind: str, room: float) -> None:
    source, n = rng(7), 200_000
    normal, abnormal = source.gamma(8, 0.1, n), source.gamma(14, 0.1, 4000)
    match kind:
        case "zeros":  # half the picture is the black border, and some lesions lie in it
            normal[: n // 2] = 0
            abnormal[:400] = 0
        case "narrow":
            normal = 1 + 0.02 * source.standard_normal(n)
            abnormal = 1.03 + 0.03 * source.standard_normal(4000)
        case "rare":
            abnormal = source.gamma(20, 0.1, 200)
    values = np.concatenate([normal, abnormal]).astype(np.float32)
    tolerance = 2e-4 if room <= 4 else 4e-4
    check_against_raw([(values, np.arange(len(values)) >= n)], room * float(values.max()), tolerance)


def test_pixel_values_agree_on_real_lesions(shared: Path) -> None:
    maps = []
    for photo in read_mvtec(shared / "data" / "idrid-512").test[::4]:
        with Image.open(photo.path) as image:
            green = np.asarray(image.convert("RGB"))[..., 1].astype(np.float32) / 255
        bright = np.maximum(green - gaussian_filter(green, 20), 0)  # exudates are brighter than their surroundings
        empty = np.zeros(green.shape, bool)
        maps.append((bright, empty if not photo.masks else read_mask(photo.masks[0].path, *green.shape)))
    check_against_raw(maps, 2.0)


def test_pixel_resamples_equal_scikit_learn_on_the_repeated_photographs() -> None:
    maps = draw_maps(1, 8)
    histogram = histogram_of(maps, 4.0, 64)
    edges = metrics.score_edges(4.0, 64)
    places = [np.searchsorted(edges[1:-1], values.ravel(), side="right") for values, _ in maps]
    pool = metrics.whole_pool(histogram.normal, histogram.abnormal)
    (weights,) = bootstrap.resampled(pool, rng(), 12)
    for row, weight in enumerate(weights.astype(int)):
        chosen = np.repeat(np.arange(len(maps)), weight)
        scores = np.concatenate([places[i] for i in chosen])
        labels = np.concatenate([maps[i][1].ravel() for i in chosen])
        auroc = pool.under(bootstrap.auroc)(weights)[row]
        accuracy = pool.under(bootstrap.balanced_accuracy)(weights)[row]
        assert auroc == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)
        assert accuracy == pytest.approx(best_balanced_accuracy(labels, scores), abs=1e-12)


def test_pixel_precision_of_a_mixed_bin_is_that_of_random_order() -> None:
    normal, abnormal = np.array([[0, 40, 5, 3]]), np.array([[0, 10, 9, 7]])
    result = metrics.pixel_average_precision(as_histogram(normal, abnormal), rng(), 1).value
    bins = np.repeat([1, 1, 2, 2, 3, 3], [40, 10, 5, 9, 3, 7])
    labels = np.repeat([False, True] * 3, [40, 10, 5, 9, 3, 7])
    source = rng(8)
    orders = [average_precision_score(labels, bins + source.random(len(bins))) for _ in range(1000)]
    assert result == pytest.approx(np.mean(orders), abs=0.005)
    assert result > average_precision_score(labels, bins) + 0.01  # what entering all at once would give


def test_the_average_precision_of_single_pixels_is_exact() -> None:
    order = np.array([1, 0, 1, 1, 0, 0, 1])
    histogram = as_histogram(np.array([[0, *(1 - order)]]), np.array([[0, *order]]))
    expected = average_precision_score(order, np.arange(7))
    assert metrics.pixel_average_precision(histogram, rng(), 1).value == pytest.approx(expected)


@pixel_figures
def test_pixel_intervals_hold_the_value_shrink_and_depend_on_the_seed_alone(figure: PixelFigure) -> None:
    few, many = (histogram_of(draw_maps(2, n), 6.0, 256) for n in (16, 256))
    result = figure(few, rng(5), 200)
    assert result.low < result.value < result.high
    assert result == figure(few, rng(5), 200)
    assert result != figure(few, rng(6), 200)
    wide, narrow = result, figure(many, rng(5), 200)
    assert narrow.high - narrow.low < 0.5 * (wide.high - wide.low)


def test_the_photograph_is_the_unit_not_the_pixel() -> None:
    """Ten times the pixels in each photograph tell nothing new; ten times the photographs do."""
    histogram = histogram_of(draw_maps(2, 16), 6.0, 256)
    normal, abnormal = histogram.normal.matrix, histogram.abnormal.matrix
    repeated = ScoreHistogram(SparseCounts(10 * normal), SparseCounts(10 * abnormal))
    result, same = (metrics.pixel_auroc(h, rng(1), 200) for h in (histogram, repeated))
    assert (result.low, result.high) == pytest.approx((same.low, same.high))


@pixel_figures
def test_a_single_class_of_pixels_is_refused(figure: PixelFigure) -> None:
    ones, zeros = np.ones((3, 4), np.int64), np.zeros((3, 4), np.int64)
    with pytest.raises(SettingError, match="no abnormal pixels"):
        figure(as_histogram(ones, zeros), rng(), 10)
    with pytest.raises(SettingError, match="no normal pixels"):
        figure(as_histogram(zeros, ones), rng(), 10)


def test_one_diseased_photograph_is_enough() -> None:
    maps = draw_maps(3, 9)
    lone = [(values, labels & (i == 3)) for i, (values, labels) in enumerate(maps)]
    result = metrics.pixel_auroc(histogram_of(lone, 6.0, 64), rng(), 300)
    assert 0.5 < result.low <= result.value <= result.high <= 1


def test_histograms_of_different_shapes_are_refused() -> None:
    with pytest.raises(SettingError, match="must be alike"):
        as_histogram(np.ones((3, 4), np.int64), np.ones((3, 5), np.int64))


def test_paired_pixel_difference() -> None:
    maps = draw_maps(4, 30)
    shaken = [(values + rng(i).normal(0, 0.1, values.shape), y) for i, (values, y) in enumerate(maps)]
    a = histogram_of(maps, 6.0, 512)
    b = histogram_of([(values.astype(np.float32), y) for values, y in shaken], 9.0, 256)
    assert metrics.paired_pixel_difference(a, a, rng(), 100) == Figure(0.0, 0.0, 0.0)
    forward, reverse = (metrics.paired_pixel_difference(*pair, rng(3), 300) for pair in ((a, b), (b, a)))
    assert (forward.value, forward.low, forward.high) == pytest.approx(
        (-reverse.value, -reverse.high, -reverse.low)
    )
    separate = [metrics.pixel_auroc(h, rng(3), 300) for h in (a, b)]
    assert forward.value == pytest.approx(separate[0].value - separate[1].value)
    assert forward.high - forward.low < 0.7 * math.hypot(*(figure.high - figure.low for figure in separate))


def test_paired_pixel_difference_needs_the_same_pixels() -> None:
    a = histogram_of(draw_maps(4, 6), 6.0, 64)
    for histogram in (
        a.only(np.arange(6) < 5),
        ScoreHistogram(SparseCounts(a.normal.matrix[::-1]), SparseCounts(a.abnormal.matrix[::-1])),
    ):
        with pytest.raises(SettingError, match="same pixels"):
            metrics.paired_pixel_difference(a, histogram, rng(), 10)


def slow_specificity(labels: Labels, scores: Floats, sensitivity: float) -> float:
    """The obvious twin: every threshold that makes a difference, one by one, in whole photographs."""
    return max(
        float((scores[~labels] < threshold).mean())
        for threshold in np.unique(scores)
        if (scores[labels] >= threshold).sum() >= sensitivity * labels.sum() - 1e-9
    )


@given(ranked, st.sampled_from([0.5, 0.95, 0.99, 1.0]))
@settings(deadline=None, max_examples=60)
def test_specificity_is_that_of_trying_every_threshold(pairs: list[tuple[int, bool]], sensitivity: float) -> None:
    scores, labels = np.array([s for s, _ in pairs], float), np.array([y for _, y in pairs], bool)
    assume(labels.any() and not labels.all())
    result = metrics.specificity_at(scores, labels, sensitivity, rng(), 1).value
    assert result == pytest.approx(slow_specificity(labels, scores, sensitivity))


def test_specificity_by_hand() -> None:
    # 20 abnormal: 19 of them (95 %) score 5, one scores 0; normal at 1, 2, 6 and 7.
    scores = np.array([5.0] * 19 + [0.0, 1.0, 2.0, 6.0, 7.0])
    labels = np.arange(24) < 20
    assert metrics.specificity_at(scores, labels, 0.95, rng()).value == 0.5
    assert metrics.specificity_at(scores, labels, 0.99, rng()).value == 0.0
    with pytest.raises(SettingError, match=r"sensitivity 1\.2"):
        metrics.specificity_at(scores, labels, 1.2, rng())


@given(ranked)
@settings(deadline=None, max_examples=60)
def test_the_best_threshold_reaches_the_best_balanced_accuracy(pairs: list[tuple[int, bool]]) -> None:
    scores, labels = np.array([s for s, _ in pairs], float), np.array([y for _, y in pairs], bool)
    assume(labels.any() and not labels.all())
    threshold = metrics.best_threshold(scores, labels)
    assert threshold in scores
    accuracy = balanced_accuracy_score(labels, scores > threshold)
    assert accuracy == pytest.approx(best_balanced_accuracy(labels, scores))


def test_the_share_above_by_hand() -> None:
    scores = np.array([1.0, 2.0, 3.0, 4.0] * 10)
    result = metrics.share_above(scores, 2.0)
    assert result.value == 0.5
    # Of 16 photographs none: up to 1 - (0.025)^(1/16) may be so in all the world (Clopper and Pearson).
    zero = metrics.share_above(np.zeros(16), 0.0)
    assert zero.value == zero.low == 0.0
    assert zero.high == pytest.approx(1 - 0.025 ** (1 / 16))
    # The interval's ends are where 20 or more, and 20 or fewer, of 40 come in 2.5 % of all cases.
    assert binom.sf(19, 40, result.low) == pytest.approx(0.025)
    assert binom.cdf(20, 40, result.high) == pytest.approx(0.025)


def test_the_best_pixel_threshold_reaches_the_best_balanced_accuracy() -> None:
    maps = draw_maps(3, 6)
    edges = metrics.score_edges(6.0, 512)
    threshold = metrics.pixel_best_threshold(histogram_of(maps, 6.0, 512), edges)
    values, labels = np.concatenate([v.ravel() for v, _ in maps]), np.concatenate([y.ravel() for _, y in maps])
    result = metrics.pixel_balanced_accuracy(histogram_of(maps, 6.0, 512), rng(), 1).value
    assert balanced_accuracy_score(labels, values >= np.float32(threshold)) == pytest.approx(result, abs=1e-9)


def literal_aupro(maps: list[tuple[NDArray[np.float32], Labels]], limit: float) -> float:
    """Bergmann et al. 2020, section 4, threshold by threshold and region by region."""
    regions = [(values, spot) for values, labels in maps for spot in regions_of(labels)]
    normal = np.concatenate([values[~labels] for values, labels in maps])
    levels = np.unique(np.concatenate([values.ravel() for values, _ in maps]))[::-1]
    rates, overlaps = [0.0], [0.0]
    for level in levels:
        rates.append(float((normal >= level).mean()))
        overlaps.append(float(np.mean([(values[spot] >= level).mean() for values, spot in regions])))
    area = 0.0
    for x0, x1, y0, y1 in zip(rates, rates[1:], overlaps, overlaps[1:], strict=False):
        end = min(x1, limit)
        if end > x0:
            at_end = y0 + (y1 - y0) * (end - x0) / (x1 - x0)
            area += (end - x0) * (y0 + at_end) / 2
    return area / limit


def regions_of(labels: Labels) -> list[Labels]:
    """Flood fill from every marked pixel that no region has yet; corners touch."""
    unvisited, regions = {(int(y), int(x)) for y, x in np.argwhere(labels)}, []
    while unvisited:
        spot, waiting = np.zeros(labels.shape, bool), [unvisited.pop()]
        while waiting:
            y, x = waiting.pop()
            spot[y, x] = True
            near = {(y + dy, x + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)} & unvisited
            unvisited -= near
            waiting += near
        regions.append(spot)
    return regions


def few_levels(seed: int, photos: int, side: int) -> list[tuple[NDArray[np.float32], Labels]]:
    """Maps of 12 different scores with ties everywhere, and lesions of every size, some touching at corners."""
    source, maps = rng(seed), []
    for _ in range(photos):
        labels = source.random((side, side)) < 0.15
        values = source.integers(0, 8, (side, side)) + 4 * (labels & (source.random((side, side)) < 0.6))
        maps.append((values.astype(np.float32), labels))
    return maps


def aupro_of(maps: list[tuple[NDArray[np.float32], Labels]], limit: float, edges: NDArray[np.float32]) -> Figure:
    everywhere = np.ones(maps[0][0].shape, bool)
    normal = np.stack([metrics.count_pixels(values, labels, edges)[0] for values, labels in maps])
    regions = np.stack([metrics.count_regions(values, labels, everywhere, edges) for values, labels in maps])
    return metrics.aupro(SparseCounts.of(normal), SparseCounts.of(regions), rng(), limit, 50)


@pytest.mark.parametrize("limit", [0.05, 0.3, 1.0])
@pytest.mark.parametrize("seed", range(4))
def test_aupro_is_that_of_the_literal_definition(seed: int, limit: float) -> None:
    maps = few_levels(seed, 4, 12)
    edges = np.arange(-0.5, 13, dtype=np.float32)  # a bin per score: nothing is lost
    assert aupro_of(maps, limit, edges).value == pytest.approx(literal_aupro(maps, limit), abs=1e-12)


def test_aupro_in_bins_is_near_the_literal_one() -> None:
    maps = draw_maps(6, 6, side=16)
    result = aupro_of(maps, 0.3, metrics.score_edges(6.0))
    assert result.value == pytest.approx(literal_aupro(maps, 0.3), abs=2e-3)
    assert result.low <= result.value <= result.high


def test_aupro_by_hand() -> None:
    """A large lesion found whole and a small one missed count alike: one half, whatever their sizes."""
    labels = np.zeros((10, 10), bool)
    labels[:5, :5] = labels[8, 8] = True
    values = np.where(labels, 2.0, 1.0).astype(np.float32)
    values[8, 8] = 0.0
    edges = np.array([-0.5, 0.5, 1.5, 2.5], np.float32)
    result = aupro_of([(values, labels)], 0.3, edges)
    # From (0, 1/2) straight to (1, 1/2): the missed one scores below every normal pixel.
    assert result.value == pytest.approx(0.5)
    whole = metrics.pixel_auroc(histogram_of([(values, labels)], 3.0, 64), rng(), 1).value
    assert whole == pytest.approx(25 / 26)


def test_regions_outside_the_area_do_not_count() -> None:
    labels = np.zeros((6, 6), bool)
    labels[0, 0] = labels[3, 2:6] = True
    area = np.zeros((6, 6), bool)
    area[:, 3:] = True
    edges = np.array([0.0, 1.0, 2.0], np.float32)
    values = np.zeros((6, 6), np.float32)
    values[3, 5] = 1.5
    np.testing.assert_allclose(metrics.count_regions(values, labels, area, edges), [2 / 3, 1 / 3])
    with pytest.raises(SettingError, match="must be alike"):
        metrics.count_regions(values, labels[:5], area, edges)
    with pytest.raises(SettingError, match="limit 0"):
        metrics.aupro(SparseCounts.of(np.ones((2, 3), np.int64)), SparseCounts.of(np.ones((2, 3))), rng(), 0.0)


tables = st.integers(1, 6).flatmap(
    lambda bins: st.lists(st.lists(st.integers(0, 3), min_size=bins, max_size=bins), min_size=1, max_size=6)
)


@given(tables, st.randoms(use_true_random=False), st.sampled_from([np.int64, np.float64]))
@settings(deadline=None, max_examples=100)
def test_rows_are_their_table(counts: list[list[int]], order: random.Random, dtype: type) -> None:
    table: Floats = np.array(counts, dtype)
    rows = SparseCounts.of(table)
    photos, bins = table.shape
    assert rows.shape == table.shape
    assert rows.any() == table.any()
    np.testing.assert_array_equal(rows.per_bin(), table.sum(axis=0))
    np.testing.assert_array_equal(rows.per_photo(), table.sum(axis=1))
    chosen = np.array([order.random() < 0.5 for _ in range(photos)])
    np.testing.assert_array_equal(rows.only(chosen).per_bin(), table[chosen].sum(axis=0))
    np.testing.assert_array_equal(rows.row(photos - 1), table[-1:])
    places = np.array([order.randrange(3) for _ in range(bins)])
    expected = np.zeros((photos, 3))
    for place, column in zip(places, table.T, strict=True):
        expected[:, place] += column
    np.testing.assert_array_equal(rows.table(places, 3), expected)


def test_intervals_from_merged_bins_are_those_of_all() -> None:
    histogram = histogram_of(draw_maps(2, 24), 6.0)
    pool = metrics.whole_pool(histogram.normal, histogram.abnormal)
    for figure, statistic in zip(
        PIXEL_FIGURES,
        (bootstrap.auroc, bootstrap.mixed_average_precision, bootstrap.balanced_accuracy),
        strict=True,
    ):
        result = figure(histogram, rng(4), 200)
        exact = bootstrap.figure(result.value, pool.under(statistic), pool, rng(4), 200)
        width = exact.high - exact.low
        assert (result.low, result.high) == pytest.approx((exact.low, exact.high), abs=0.02 * width)
