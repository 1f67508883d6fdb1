"""The recipes of docs/datasets.md run, on trees of the layout that they describe, and write what is read.

That says nothing of the real copies, which nobody here has seen: the page says so of each.
"""

import re
from pathlib import Path

import pytest

from indexer.photos.listing import list_references
from lab.datasets.catalog import open_dataset

PAGE = Path(__file__).parents[2] / "docs/datasets.md"
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
NAMES = re.findall(r"^### (.+) \(not yet tried on a real copy\)$", PAGE.read_text(), re.MULTILINE)
FILES = {
    "DDR": {
        "DR_grading/train.txt": "a.jpg 0\nb.jpg 3\n", "DR_grading/valid.txt": "v.jpg 5\n",
        "DR_grading/test.txt": "c.jpg 0\n", "DR_grading/train/a.jpg": "", "DR_grading/test/c.jpg": "",
        "lesion_segmentation/test/image/d.jpg": "", "lesion_segmentation/test/label/EX/d.tif": "",
    },
    "e-ophtha": {
        "e_optha_EX/healthy/E1/a.jpg": "", "e_optha_EX/healthy/E2/b.JPG": "", "e_optha_MA/healthy/E3/c.jpg": "",
        "e_optha_EX/EX/E4/d.jpg": "", "e_optha_EX/Annotation_EX/E4/d_EX.png": "", "e_optha_MA/MA/E1/e.jpg": "",
    },
    "RFMiD": {
        **{f"{part}/2. Groundtruths/RFMiD_{part}_Labels.csv": "ID,Disease_Risk,DR,ARMD\n1,0,0,0\n2,1,1,0\n"
           for part in ("Training", "Validation", "Testing")},
        **{f"{part}/1. Original Images/{part}/{n}.png": ""
           for part in ("Training", "Validation", "Testing") for n in (1, 2)},
    },
    "Messidor-2": {
        "messidor_data.csv": "image_id,adjudicated_dr_grade,adjudicated_gradable\n"
        "a.png,0,1\nb.png,0,1\nc.JPG,2,1\nd.png,,0\ne.png,0,1\nf.png,3,1\n",
        "messidor-2.csv": "left;right\na.png;e.png\nc.jpg;b.png\nf.png;d.png\n",
        **{f"IMAGES/{n}": "" for n in ("a.png", "b.png", "c.JPG", "e.png", "f.png")},
    },
    "ODIR-5K": {
        "annotations.csv": "ID,Left-Fundus,Right-Fundus,Left-Diagnostic Keywords,Right-Diagnostic Keywords\n"
        "2,2_left.jpg,2_right.jpg,normal fundus,cataract\n3,3_left.jpg,3_right.jpg,glaucoma,normal fundus\n",
        **{f"Training Images/{n}_{side}.jpg": "" for n in (2, 3) for side in ("left", "right")},
    },
    "APTOS 2019": {
        "train.csv": "id_code,diagnosis\na,0\nsame,2\ne,0\nc,4\n",
        **{f"train_images/{n}.png": n[0].replace("s", "a") for n in ("a", "same", "e", "c")},
    },
    "EyePACS": {
        "trainLabels.csv": "image,level\n1_left,0\n1_right,2\n2_left,0\n2_right,4\n3_left,0\n",
        "Label_EyeQ_train.csv": ",image,quality,DR_grade\n"
        "0,1_left.jpeg,0,0\n1,2_left.jpeg,0,0\n2,2_right.jpeg,0,4\n",
        **{f"train/{n}.jpeg": "" for n in ("1_left", "2_left", "2_right")},
    },
    "JSIEC": {
        "0.0.Normal/a.jpg": "", "0.0.Normal/b.JPG": "", "0.2.Large optic cup/c.jpg": "",
    },
}  # fmt: skip


def test_every_promised_data_set_has_its_recipe() -> None:
    assert list(FILES) == NAMES
    assert len(BLOCKS) == 1 + len(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_writes_what_build_and_evaluate_take(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path, text in FILES[name].items():
        place = tmp_path / "DATASET" / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)
    monkeypatch.chdir(tmp_path)
    exec(compile(BLOCKS[0] + BLOCKS[1 + NAMES.index(name)], name, "exec"), {})
    dataset = open_dataset("csv", tmp_path / "DATASET/photos.csv")
    assert dataset.train == list_references(tmp_path / "DATASET/photos.csv")
    assert len(dataset.train) >= 1
    assert {photo.abnormal for photo in dataset.test} == {True, False}
    train, test = ({photo.path for photo in part} for part in (dataset.train, dataset.test))
    assert not train & test
    patients = [{photo.patient for photo in part} - {None} for part in (dataset.train, dataset.test)]
    assert not patients[0] & patients[1]
    if name in ("e-ophtha", "Messidor-2", "ODIR-5K", "EyePACS"):
        assert None not in {photo.patient for photo in dataset.train} | {photo.patient for photo in dataset.test}
    if name == "APTOS 2019":
        contents = [{photo.path.read_bytes() for photo in part} for part in (dataset.train, dataset.test)]
        assert not contents[0] & contents[1]
    if name in ("DDR", "e-ophtha"):
        assert any(photo.masks for photo in dataset.test)
