"""Photographs that a CSV lists (`indexer.photos.listing`), and the CSV of a data set."""

from collections.abc import Iterator
from pathlib import Path

from indexer.photos.listing import Label, PhotoRow, ReferencePhoto, read_rows, rows_csv
from lab.datasets import Dataset, LabeledPhoto
from resad.errors import SettingError


def read_listed(path: Path) -> Dataset:
    """The rows of split train to build from, the others to test on; the data set takes the file's name.

    Raises `SettingError` for a row that cannot be used, a test photograph without label, an abnormal one to
    build from, or nothing to test on.
    """
    if not path.is_file():
        raise SettingError(f"no file {path}: expected a CSV with the columns path and label")
    rows = read_rows(path)
    test = tuple(_labeled(row, path) for row in rows if row.split != "train")
    if not test:
        raise SettingError(f"{path}: no row to test on (split test, or none)")
    return Dataset(path.stem, tuple(_reference(row, path) for row in rows if row.split == "train"), test)


def listed_csv(dataset: Dataset) -> bytes:
    """The file that `read_listed` reads as `dataset`, and `build` as its training photographs."""
    return rows_csv([*_train_rows(dataset), *_test_rows(dataset)])


def _labeled(row: PhotoRow, path: Path) -> LabeledPhoto:
    if row.label is None:
        raise SettingError(f"{path}: {row.path} has no label (normal or abnormal)")
    abnormal = row.label == "abnormal"
    kind = row.kind or "abnormal" if abnormal else "good"
    return LabeledPhoto(row.path, abnormal, kind, row.masks, row.patient, row.eye, row.camera)


def _reference(row: PhotoRow, path: Path) -> ReferencePhoto:
    if row.label == "abnormal":
        raise SettingError(f"{path}: {row.path} is labeled abnormal, but of the split train")
    return ReferencePhoto(row.path, row.patient, row.eye, row.camera)


def _train_rows(dataset: Dataset) -> Iterator[PhotoRow]:
    for photo in dataset.train:
        yield PhotoRow(
            photo.path, "normal", split="train", patient=photo.patient, eye=photo.eye, camera=photo.camera
        )


def _test_rows(dataset: Dataset) -> Iterator[PhotoRow]:
    for photo in dataset.test:
        label: Label = "abnormal" if photo.abnormal else "normal"
        kind = photo.kind if photo.abnormal else None
        yield PhotoRow(
            photo.path, label, kind, photo.masks, "test", photo.patient, photo.eye, photo.camera
        )  # fmt: skip
