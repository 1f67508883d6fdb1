"""Figures against scikit-learn on the pixels themselves, and the guards against what was learned from."""

import shutil
import tracemalloc
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console
from sklearn.metrics import average_precision_score, roc_auc_score

from indexer.build.build import BuildOptions, build
from indexer.build.progress import Stages
from indexer.photos.listing import ReferencePhoto
from indexer.settings import method_config
from lab.datasets import Dataset, LabeledPhoto
from lab.datasets.dataset import read_lesions
from lab.datasets.layouts import listed_csv, read_mvtec
from lab.drawing import draw_photo
from lab.drawing.lesions import LesionKind
from lab.evaluate import Measurement, figures, measure_dataset, measure_with, metrics
from lab.evaluate.figures import Figures, Overlap, find_overlap
from lab.evaluate.measuring import names_of
from lab.evaluate.tables import photo_table
from lab.report.charts import Curve, image_precision, image_roc, pixel_roc, region_overlap
from resad.config import PhotoLimits, PreparationConfig
from resad.detector import Detection
from resad.encoder import PatchFeatures
from resad.errors import SettingError
from resad.field_of_view import field_of_view_mask, find_field_of_view
from resad.loaded_index import LoadedIndex, load_index
from resad.photo import read_photo
from resad.preparation import PreparedPhoto, prepare

PREPARATION = PreparationConfig(size=128)
CPU = torch.device("cpu")
KINDS: tuple[LesionKind, ...] = ("exudate", "hemorrhage")


@pytest.fixture(scope="module")
def lesions(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Two healthy photographs, two with exudates and hemorrhages and one with exudates alone, masks per lesion."""
    root = tmp_path_factory.mktemp("lesions") / "eyes"
    for number in range(5):
        kinds = () if number < 2 else KINDS if number < 4 else KINDS[:1]
        drawn = draw_photo(np.random.default_rng(number), height=96, lesions=kinds)
        save(root / "test" / ("lesion" if kinds else "good") / f"{number}.png", drawn.pixels)
        if kinds:
            save(root / "ground_truth/lesion" / f"{number}_mask.png", drawn.mask)
        for lesion in drawn.lesion_masks:
            save(root / "ground_truth" / lesion.kind / f"{number}_{lesion.kind}.png", lesion.mask)
    return read_mvtec(root)


def save(path: Path, pixels: NDArray[np.uint8] | NDArray[np.bool_]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(pixels)
    (image.convert("L") if pixels.dtype == np.bool_ else image).save(path)


def detect(photo: PreparedPhoto) -> Detection:
    """The green of the photograph as its map: bright lesions stand out, dark ones do not."""
    values = photo.pixels[..., 1].astype(np.float32) / np.float32(100)
    no_patches = cast("PatchFeatures", None)
    no_distances = np.zeros(0, dtype=np.float32)
    score = float(values[photo.mask].mean())
    return Detection(values, photo.mask, score, score, no_distances, no_patches)


@pytest.fixture(scope="module")
def measurement(lesions: Dataset) -> Measurement:
    return measure_with(detect, PREPARATION, 3.0, lesions, PhotoLimits(), lambda _: None)


class Pixels:
    """The same pixels, one by one."""

    def __init__(self, photo: LabeledPhoto) -> None:
        prepared = prepare(photo.path, PREPARATION, PhotoLimits())
        self.values = prepared.frame.map_to_photo(detect(prepared).anomaly_map)
        shape = self.values.shape
        field = find_field_of_view(read_photo(photo.path, PhotoLimits()).pixels)
        self.fov = field_of_view_mask(field, *shape)
        self.lesions = read_lesions(photo.masks, *shape)
        self.marked = np.logical_or.reduce([np.zeros(shape, bool), *self.lesions.values()])


@pytest.fixture(scope="module")
def result(measurement: Measurement, lesions: Dataset, small_index: Path) -> Figures:
    return figures(measurement, load_index(small_index, CPU), lesions)


def test_every_pixel_variant_is_that_of_scikit_learn(result: Figures, lesions: Dataset) -> None:
    assert result.pixel is not None
    for name, only_abnormal, inside in (
        ("fov", False, True), ("whole", False, False), ("fov_abnormal_only", True, True),
        ("whole_abnormal_only", True, False),
    ):  # fmt: skip
        photos = [Pixels(photo) for photo in lesions.test if photo.abnormal or not only_abnormal]
        areas = [pixels.fov if inside else np.ones_like(pixels.fov) for pixels in photos]
        labels = np.concatenate([pixels.marked[area] for pixels, area in zip(photos, areas, strict=True)])
        values = np.concatenate([pixels.values[area] for pixels, area in zip(photos, areas, strict=True)])
        figure = getattr(result.pixel, name)
        assert figure.photos == len(photos)
        assert figure.auroc.value == pytest.approx(roc_auc_score(labels, values), abs=3e-4), name
        assert figure.average_precision.value == pytest.approx(average_precision_score(labels, values), abs=2e-3)
    assert result.pixel.fov.auroc != result.pixel.whole.auroc != result.pixel.fov_abnormal_only.auroc


def test_a_lesion_is_held_against_unmarked_pixels_alone(result: Figures, lesions: Dataset) -> None:
    photos = [Pixels(photo) for photo in lesions.test]
    assert [(figure.kind, figure.photos) for figure in result.lesions] == [("exudate", 3), ("hemorrhage", 2)]
    for figure in result.lesions:
        empty = np.zeros(photos[0].values.shape, bool)
        lesion = [pixels.lesions.get(figure.kind, empty) & pixels.fov for pixels in photos]
        normal = [pixels.fov & ~pixels.marked for pixels in photos]
        positive = np.concatenate([pixels.values[where] for pixels, where in zip(photos, lesion, strict=True)])
        negative = np.concatenate([pixels.values[where] for pixels, where in zip(photos, normal, strict=True)])
        labels = np.repeat([True, False], [len(positive), len(negative)])
        expected = roc_auc_score(labels, np.concatenate([positive, negative]))
        assert figure.auroc.value == pytest.approx(expected, abs=3e-4)
        assert figure.lesions > 0
    bright, dark = result.lesions
    assert bright.auroc.value > 0.8 > 0.4 > dark.auroc.value


def test_image_figures_name_their_thresholds(result: Figures, measurement: Measurement) -> None:
    assert result.image is not None
    above = measurement.scores > result.image.threshold
    balanced = (above[measurement.labels].mean() + (~above)[~measurement.labels].mean()) / 2
    assert balanced == result.image.balanced_accuracy.value
    assert result.image.auroc.value == roc_auc_score(measurement.labels, measurement.scores)
    # 3 abnormal photographs: 95 and 99 % of them are all three.
    lowest = measurement.scores[measurement.labels].min()
    expected = (measurement.scores[~measurement.labels] < lowest).mean()
    assert result.image.specificity_at_95_sensitivity.value == expected
    assert result.image.specificity_at_99_sensitivity.value == expected


def test_a_part_of_the_photographs_has_its_own_figures(measurement: Measurement) -> None:
    chosen = np.array([True, False, True, False, True])
    subset = measurement.only(chosen)
    assert (
        len(subset.photos)
        == len(subset.scores)
        == subset.fov.normal.shape[0]
        == subset.lesions[0].pixels.shape[0]
        == 3
    )
    np.testing.assert_array_equal(subset.whole_regions.per_photo(), measurement.whole_regions.per_photo()[chosen])


def area_below(curve: Curve, end: float = 1.0) -> float:
    inside = curve.x <= end
    x, y = np.append(curve.x[inside], end), np.append(curve.y[inside], np.interp(end, curve.x, curve.y))
    return float(np.trapezoid(y, x))


def test_the_curves_are_those_of_the_figures(measurement: Measurement, result: Figures) -> None:
    assert result.image is not None
    assert result.pixel is not None
    assert area_below(image_roc(measurement)) == pytest.approx(result.image.auroc.value)
    assert area_below(image_precision(measurement)) == pytest.approx(result.image.average_precision.value)
    assert area_below(pixel_roc(measurement)) == pytest.approx(result.pixel.fov.auroc.value, abs=1e-3)
    overlap = area_below(region_overlap(measurement), 0.3) / 0.3
    assert overlap == pytest.approx(result.pixel.fov.aupro.value, abs=1e-2)
    for curve in (image_roc(measurement), pixel_roc(measurement), region_overlap(measurement)):
        value = np.interp(curve.grid, curve.x, curve.y)
        assert (curve.low <= curve.high).all()
        assert (np.mean((curve.low <= value + 1e-3) & (value - 1e-3 <= curve.high))) > 0.9


def test_the_table_of_photographs(measurement: Measurement, small_index: Path) -> None:
    calibration = load_index(small_index, CPU).manifest.calibration
    header, *rows = photo_table(measurement, calibration).decode().splitlines()
    cells = [dict(zip(header.split(","), row.split(","), strict=True)) for row in rows]
    assert [row["photo"] for row in cells] == [
        "good/0.png",
        "good/1.png",
        "lesion/2.png",
        "lesion/3.png",
        "lesion/4.png",
    ]
    for row, score, photo in zip(cells, measurement.scores, measurement.photos, strict=True):
        assert float(row["image_score"]) == score
        assert float(row["p_value"]) == pytest.approx(calibration.p_value(score), abs=1e-6)
        pixels = Pixels(photo)
        if photo.abnormal:
            auroc = roc_auc_score(pixels.marked[pixels.fov], pixels.values[pixels.fov])
            assert float(row["pixel_auroc_fov"]) == pytest.approx(auroc, abs=1e-3)
            assert float(row["marked_share_fov"]) == pytest.approx(pixels.marked[pixels.fov].mean(), abs=1e-6)
        else:
            assert row["pixel_auroc_fov"] == ""


def test_names_are_told_without_the_folders_that_all_share(tmp_path: Path) -> None:
    photos = [LabeledPhoto(tmp_path / name, False, "good") for name in ("a/1.jpg", "b/1.jpg")]
    assert names_of(photos) == ["a/1.jpg", "b/1.jpg"]
    assert names_of(photos[:1]) == ["1.jpg"]


def test_without_any_mask_no_bin_is_kept(lesions: Dataset) -> None:
    bare = replace(lesions, test=tuple(replace(photo, masks=()) for photo in lesions.test))
    measurement = measure_with(detect, PREPARATION, 3.0, bare, PhotoLimits(), lambda _: None)
    assert measurement.fov.normal.shape == (5, 2)
    assert not measurement.fov.abnormal.any()


def peak(lesions: Dataset, times: int) -> int:
    """Bytes at most, over measuring `times` as many photographs and the figure that takes the most."""
    dataset = replace(lesions, test=lesions.test * times)
    tracemalloc.start()
    try:
        measurement = measure_with(detect, PREPARATION, 3.0, dataset, PhotoLimits(), lambda _: None)
        metrics.pixel_auroc(measurement.whole, np.random.default_rng(0), 64)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.long
def test_a_photograph_takes_no_more_memory_than_the_bins_it_fills(lesions: Dataset) -> None:
    """Whole rows of 16,384 bins would be 1.3 MB each, with two kinds of lesions."""
    few, many = peak(lesions, 1), peak(lesions, 3)
    assert (many - few) / (2 * len(lesions.test)) < 0.1e6


def leaky_dataset(drawn: Path, folder: Path) -> Dataset:
    """The drawn test set, and in it a reference photo resized and written again."""
    shutil.copytree(drawn, folder)
    source = Image.open(drawn / "train/good/drawn_0002.jpg")
    copy = source.resize((2 * source.width // 3, 2 * source.height // 3), Image.Resampling.LANCZOS)
    copy.save(folder / "test/good/a_new_name.jpg", quality=70)
    return read_mvtec(folder)


def test_a_planted_copy_is_caught_though_resized_and_written_again(
    drawn: Path, small_index: Path, tmp_path: Path
) -> None:
    loaded, dataset = load_index(small_index, CPU), leaky_dataset(drawn, tmp_path / "leaky")
    result = figures(measure_dataset(loaded, dataset, PhotoLimits(), lambda _: None), loaded, dataset)
    (match,) = result.guard.photos
    assert (match.photo, match.reference) == ("good/a_new_name.jpg", "r-00003")
    assert match.bits is not None
    assert match.bits > 0  # by picture: the files differ
    assert result.photos.in_the_index == 1
    with pytest.raises(SettingError, match=r"a_new_name\.jpg is in the index as r-00003"):
        measure_dataset(loaded, dataset, PhotoLimits(), lambda _: None, strict=True)


def built_with_patients(drawn: Path, folder: Path, *, keep_names: bool) -> LoadedIndex:
    """Of eight photographs the first is Jane's."""
    photos = sorted((drawn / "train/good").iterdir())
    train = tuple(ReferencePhoto(path, "Jane" if n == 0 else f"other{n}") for n, path in enumerate(photos))
    folder.mkdir()
    (folder / "train.csv").write_bytes(listed_csv(Dataset("t", train, ())))
    config = method_config("resad", backbone="resnet18", size=64, coreset="0.5", settings=("search.neighbors=1",))
    order = BuildOptions(folder / "train.csv", folder, "eyes", config, "random:0", CPU, keep_names=keep_names)
    return load_index(build(order, Stages(Console(quiet=True))).version, CPU)


def test_patients_on_both_sides_are_reported_where_they_can_be_known(
    drawn: Path, measurement: Measurement, tmp_path: Path
) -> None:
    plain = read_mvtec(drawn)
    test = tuple(replace(photo, patient="Jane" if n < 2 else "Joe") for n, photo in enumerate(plain.test))
    with_names, without_names = (
        built_with_patients(drawn, tmp_path / str(k), keep_names=k).photos for k in (True, False)
    )
    dataset = Dataset("eyes", (), test)
    assert find_overlap(measurement, dataset, with_names) == Overlap((), ("Jane",), None)
    # Running numbers mean nothing outside the index: this is said, not passed over.
    numbered = find_overlap(measurement, dataset, without_names)
    assert numbered.patients is None
    assert numbered.why == "the index numbers its patients; one built with --keep-names can be compared"
    # The data set's own training photographs are known all the same.
    train = (ReferencePhoto(plain.train[0].path, "Joe"),)
    with_training = find_overlap(measurement, Dataset("eyes", train, test), without_names)
    assert with_training.patients == ("Joe",)
    assert with_training.why == "compared with the data set's training photographs, not the index's"
    assert find_overlap(measurement, plain, with_names) == Overlap((), None, "the data set names no patients")
    assert find_overlap(measurement, dataset, ()).why == "the index names no patients"
