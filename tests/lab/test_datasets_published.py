"""IDRiD and ADAM on small trees of the layout in which they are downloaded, every trap of it included."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lab.datasets import LabeledPhoto, LesionMask
from lab.datasets.catalog import CATALOG, open_dataset
from lab.datasets.dataset import read_lesions
from lab.datasets.published import read_adam, read_idrid
from resad.errors import SettingError

SIZE = (24, 16)
A, B = Path("A. Segmentation"), Path("B. Disease Grading")
TRAIN, TEST = "a. Training Set", "b. Testing Set"
IMAGES, MASKS, LABELS = "1. Original Images", "2. All Segmentation Groundtruths", "2. Groundtruths"
FOLDERS = {"MA": "1. Microaneurysms", "HE": "2. Haemorrhages", "EX": "3. Hard Exudates", "SE": "4. Soft Exudates",
           "OD": "5. Optic Disc"}  # fmt: skip


def write_photo(path: Path, size: tuple[int, int] = SIZE) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (160, 80, 30)).save(path)


def idrid_mask(root: Path, split: str, stem: str, kind: str, at: tuple[int, int]) -> None:
    """A palette TIFF: number 1 where the lesion is.  Number 0 is not black here: only numbers count."""
    path = root / A / MASKS / split / FOLDERS[kind] / f"{stem}_{kind}.tif"
    path.parent.mkdir(parents=True, exist_ok=True)
    mask = Image.new("P", SIZE)
    mask.putpalette([3, 3, 3, 128, 0, 0])
    mask.putpixel(at, 1)
    mask.save(path)


def grades(root: Path, name: str, header: str, rows: list[str]) -> None:
    path = root / B / LABELS / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\r\n".join([header, *rows]) + "\r\n")


@pytest.fixture
def idrid(tmp_path: Path) -> Path:
    """The archives unpacked beside each other: 3 segmented photographs, 4 graded to train and 3 to test."""
    root = tmp_path / "idrid"
    for split, stem in ((TRAIN, "IDRiD_01"), (TRAIN, "IDRiD_02"), (TEST, "IDRiD_55")):
        write_photo(root / A / IMAGES / split / f"{stem}.jpg")
        idrid_mask(root, split, stem, "OD", (20, 8))
    idrid_mask(root, TRAIN, "IDRiD_01", "MA", (3, 2))
    idrid_mask(root, TRAIN, "IDRiD_01", "EX", (5, 4))
    idrid_mask(root, TRAIN, "IDRiD_02", "HE", (7, 6))
    idrid_mask(root, TEST, "IDRiD_55", "SE", (9, 8))
    for split, count in ((TRAIN, 4), (TEST, 3)):
        for number in range(1, count + 1):
            write_photo(root / B / IMAGES / split / f"IDRiD_{number:03d}.jpg")
    # The training file's lines end in empty columns, the testing file's do not.
    grades(
        root,
        "a. IDRiD_Disease Grading_Training Labels.csv",
        "Image name,Retinopathy grade,Risk of macular edema ,,,,,,,,,",
        ["IDRiD_001,0,0,,,,,,,,,", "IDRiD_002,3,2,,,,,,,,,", "IDRiD_003,0,0,,,,,,,,,", "IDRiD_004,1,0,,,,,,,,,"],
    )
    grades(
        root,
        "b. IDRiD_Disease Grading_Testing Labels.csv",
        "Image name,Retinopathy grade,Risk of macular edema ",
        ["IDRiD_001,4,0", "IDRiD_002,0,0", "IDRiD_003,0,1"],
    )
    return root  # fmt: skip


def test_idrid_is_split_as_in_the_paper(idrid: Path) -> None:
    dataset = read_idrid(idrid)
    graded, segmented = idrid / B / IMAGES, idrid / A / IMAGES
    assert [photo.path for photo in dataset.train] == [graded / TRAIN / f"IDRiD_00{n}.jpg" for n in (1, 3)]
    assert [photo.path for photo in dataset.test] == [
        segmented / TRAIN / "IDRiD_01.jpg",
        segmented / TRAIN / "IDRiD_02.jpg",
        segmented / TEST / "IDRiD_55.jpg",
        graded / TEST / "IDRiD_002.jpg",
        graded / TEST / "IDRiD_003.jpg",
    ]
    assert [photo.abnormal for photo in dataset.test] == [True, True, True, False, False]


def test_both_splits_of_the_grading_set_count_from_one(idrid: Path) -> None:
    """IDRiD_003 is an eye to train on and another one to test on; IDRiD_001 of the testing file is graded 4."""
    dataset = read_idrid(idrid)
    train, test = ({photo.path for photo in part} for part in (dataset.train, dataset.test))
    assert not train & test
    assert {path.name for path in train} & {path.name for path in test} == {"IDRiD_003.jpg"}
    assert idrid / B / IMAGES / TEST / "IDRiD_001.jpg" not in test


def test_idrids_masks_are_read_by_number_without_the_optic_disc(idrid: Path) -> None:
    first, second, third = read_idrid(idrid).test[:3]
    lesions = read_lesions(first.masks, SIZE[1], SIZE[0])
    assert {kind: np.argwhere(mask).tolist() for kind, mask in lesions.items()} == {"MA": [[2, 3]], "EX": [[4, 5]]}
    assert [mask.kind for mask in second.masks] == ["HE"]  # no file: no such lesion
    assert [mask.kind for mask in third.masks] == ["SE"]
    assert {mask.marked for photo in (first, second, third) for mask in photo.masks} == {"number"}


def test_an_idrid_that_is_not_the_published_one_is_named(idrid: Path) -> None:
    text = "\n".join(read_idrid(idrid).deviations)
    assert (
        "A. Segmentation, a. Training Set: 54 photographs expected, 52 missing (IDRiD_03.jpg, IDRiD_04.jpg,"
        in text
    )
    assert "B. Disease Grading, b. Testing Set: 103 photographs expected, 100 missing" in text
    assert "1 masks of MA, 81 expected" in text
    assert "2 training photographs of grade 0, 134 expected" in text
    assert "2 test photographs of grade 0, 34 expected" in text
    assert "7 of 7 photographs not of 4288 x 2848 px (IDRiD_001.jpg: 24 x 16): a re-hosted copy" in text
    write_photo(idrid / A / IMAGES / TRAIN / "IDRiD_01_aug.jpg")
    assert "not of it (IDRiD_01_aug.jpg)" in "\n".join(read_idrid(idrid).deviations)


def test_a_complete_idrid_deviates_in_nothing(tmp_path: Path) -> None:
    """The published counts and names, at a small size."""
    root = tmp_path / "all"
    write_photo(tmp_path / "one.jpg")
    parts = (
        (A, TRAIN, range(1, 55), 2),
        (A, TEST, range(55, 82), 2),
        (B, TRAIN, range(1, 414), 3),
        (B, TEST, range(1, 104), 3),
    )
    for part, split, numbers, digits in parts:
        (root / part / IMAGES / split).mkdir(parents=True)
        for number in numbers:
            shutil.copy(tmp_path / "one.jpg", root / part / IMAGES / split / f"IDRiD_{number:0{digits}d}.jpg")
    for kind, count in (("MA", 81), ("HE", 80), ("EX", 81), ("SE", 40), ("OD", 81)):
        for number in range(1, count + 1):
            place = root / A / MASKS / (TRAIN if number < 55 else TEST) / FOLDERS[kind]
            place.mkdir(parents=True, exist_ok=True)
            (place / f"IDRiD_{number:02d}_{kind}.tif").touch()
    for name, count, normal in (
        ("a. IDRiD_Disease Grading_Training", 413, 134),
        ("b. IDRiD_Disease Grading_Testing", 103, 34),
    ):
        rows = [f"IDRiD_{n:03d},{0 if n <= normal else 2},0" for n in range(1, count + 1)]
        grades(root, f"{name} Labels.csv", "Image name,Retinopathy grade,Risk of macular edema", rows)
    dataset = read_idrid(root, SIZE)
    assert dataset.deviations == ()
    assert (len(dataset.train), len(dataset.test)) == (134, 81 + 34)


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        (A, "is not IDRiD as it is downloaded: no folder .*A. Segmentation"),
        (B / IMAGES / TEST, "disease grading set as it is downloaded: no folder"),
        (B / LABELS / "b. IDRiD_Disease Grading_Testing Labels.csv", "labels .*Testing Labels.csv cannot be read"),
        (B / IMAGES / TRAIN / "IDRiD_003.jpg", "1 of 2 photographs of grade 0 are missing, as .*IDRiD_003.jpg"),
    ],
)
def test_what_idrid_lacks_is_named(idrid: Path, missing: Path, message: str) -> None:
    place = idrid / missing
    shutil.rmtree(place) if place.is_dir() else place.unlink()
    with pytest.raises(SettingError, match=message):
        read_idrid(idrid)


def test_idrid_below_a_folder_that_the_archive_made(idrid: Path, tmp_path: Path) -> None:
    shutil.move(idrid, tmp_path / "down" / "IDRiD archive")
    assert len(read_idrid(tmp_path / "down").test) == 5


@pytest.fixture
def adam(tmp_path: Path) -> Path:
    """A0001 has AMD and drusen, A0002 AMD and no marked lesion, N0001 a scar without AMD, N0002 nothing."""
    root = tmp_path / "adam"
    for name in ("AMD/A0001", "AMD/A0002", "Non-AMD/N0001", "Non-AMD/N0002"):
        write_photo(root / "AMD-Training400/Training400" / f"{name}.jpg")
    for kind, stem, at in (("drusen", "A0001", (4, 3)), ("exudate", "A0001", (6, 5)), ("scar", "N0001", (8, 7))):
        path = root / "Training400-Lesion/Lesion_Masks" / kind / f"{stem}.bmp"
        path.parent.mkdir(parents=True, exist_ok=True)
        mask = Image.new("L", SIZE, 255)
        mask.putpixel(at, 0)
        mask.save(path)
    return root


def test_adam_is_split_by_its_lesions_not_by_its_label(adam: Path) -> None:
    dataset = read_adam(adam)
    assert [photo.path.stem for photo in dataset.train] == ["A0002", "N0002"]
    assert [(photo.path.stem, photo.kind, photo.abnormal) for photo in dataset.test] == [
        ("A0001", "AMD", True), ("N0001", "Non-AMD", True)
    ]  # fmt: skip


def test_adams_lesions_are_black(adam: Path) -> None:
    lesions = read_lesions(read_adam(adam).test[0].masks, SIZE[1], SIZE[0])
    assert {kind: np.argwhere(mask).tolist() for kind, mask in lesions.items()} == {
        "drusen": [[3, 4]], "exudate": [[5, 6]]
    }  # fmt: skip


def test_an_adam_that_is_not_the_published_one_is_named(adam: Path) -> None:
    text = "\n".join(read_adam(adam).deviations)
    assert "AMD: 89 photographs expected, 87 missing (A0003.jpg, A0004.jpg, A0005.jpg, ...)" in text
    assert "Non-AMD: 311 photographs expected, 309 missing" in text
    assert "2 photographs with a mask of a lesion, 118 expected" in text
    assert "4 of 4 photographs not of 1444 x 1444 or 2124 x 2056 px (A0001.jpg: 24 x 16)" in text
    shutil.rmtree(adam / "Training400-Lesion")
    with pytest.raises(SettingError, match=r"is not ADAM as it is downloaded: no folder .*Lesion_Masks"):
        read_adam(adam)


def test_an_exclude_list_drops_what_it_names(idrid: Path, tmp_path: Path) -> None:
    exclude = tmp_path / "exclude.txt"
    exclude.write_text(f"# the paper's 32\n\n{TEST}/IDRiD_003.jpg\nIDRiD_02.jpg\n")
    complete, reduced = open_dataset("idrid-paper", idrid), open_dataset("idrid-paper", idrid, exclude)
    assert reduced.train == complete.train
    assert {photo.path.name for photo in complete.test} - {photo.path.name for photo in reduced.test} == {
        "IDRiD_02.jpg",
        "IDRiD_003.jpg",
    }
    for line, message in (
        ("IDRiD_003.jpg", "fits 2 photographs, as .*write more of the path"),
        ("IDRiD_99.jpg", "fits no photograph"),
    ):
        exclude.write_text(line)
        with pytest.raises(SettingError, match=message):
            open_dataset("idrid-paper", idrid, exclude)


def test_an_unknown_name_is_answered_with_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(
        SettingError, match="'idrid' is not known; there are: idrid-paper, adam-paper, mvtec, folder, csv"
    ):
        open_dataset("idrid", tmp_path)
    assert len({entry.name for entry in CATALOG}) == len(CATALOG)


def test_a_folder_of_folders(tmp_path: Path) -> None:
    for name in ("Normal/a.jpg", "glaucoma/deep/b.jpg"):
        write_photo(tmp_path / "eyes" / name)
    dataset = open_dataset("folder", tmp_path / "eyes")
    assert dataset.name == "eyes"
    assert dataset.test == (
        LabeledPhoto(tmp_path / "eyes/Normal/a.jpg", False, "good"),
        LabeledPhoto(tmp_path / "eyes/glaucoma/deep/b.jpg", True, "glaucoma"),
    )
    write_photo(tmp_path / "eyes/loose.jpg")
    with pytest.raises(SettingError, match=r"loose\.jpg lies in no folder that says what it shows"):
        open_dataset("folder", tmp_path / "eyes")
    with pytest.raises(SettingError, match=r"no folder .*nowhere"):
        open_dataset("folder", tmp_path / "nowhere")


def test_a_mask_of_two_files_is_both(tmp_path: Path) -> None:
    for name, at in (("a", (0, 0)), ("b", (1, 1))):
        mask = Image.new("L", (3, 3))
        mask.putpixel(at, 9)
        mask.save(tmp_path / f"{name}.png")
    masks = [LesionMask(tmp_path / f"{name}.png", "EX") for name in "ab"]
    assert read_lesions(masks, 3, 3)["EX"].sum() == 2
