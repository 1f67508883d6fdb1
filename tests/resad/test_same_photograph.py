"""A photograph that the index holds says so when it is scored."""

import csv
from io import BytesIO
from pathlib import Path

import pytest
import torch
from PIL import Image, ImageOps
from resad_client.exports import Outcome, photos_csv
from resad_client.records import ReferenceMatch, ScoreRow, read_result, to_json
from resad_client.tables import score_line

from resad.engine import Engine
from resad.loaded_index import load_index


@pytest.fixture(scope="module")
def engine(small_index: Path) -> Engine:
    return Engine(load_index(small_index, torch.device("cpu")))


def jpeg(image: Image.Image) -> bytes:
    stream = BytesIO()
    image.convert("RGB").save(stream, "JPEG", quality=85)
    return stream.getvalue()


def test_the_same_file_a_copy_and_a_mirror_image_are_named(engine: Engine, drawn: Path) -> None:
    path = sorted((drawn / "train/good").iterdir())[2]
    result = engine.score(path).result
    assert result.same_as == ReferenceMatch("r-00003", None, False)
    with Image.open(path) as image:
        copy = engine.score(jpeg(image)).result.same_as
        mirror_image = engine.score(jpeg(ImageOps.mirror(image))).result.same_as
    assert copy is not None
    assert (copy.photo, copy.mirrored) == ("r-00003", False)
    assert copy.bits is not None
    assert mirror_image is not None
    assert (mirror_image.photo, mirror_image.mirrored) == ("r-00003", True)


def test_an_unseen_photograph_is_not(engine: Engine, drawn: Path) -> None:
    for path in sorted((drawn / "test/good").iterdir()):
        assert engine.score(path).result.same_as is None


def test_json_table_and_csv_say_it(engine: Engine, drawn: Path) -> None:
    result = engine.score(sorted((drawn / "train/good").iterdir())[0]).result
    assert read_result(to_json(result)) == result
    assert "the same file as r-00001 of the index" in score_line(ScoreRow("a.png", result, 0))
    header, row = csv.reader(photos_csv([Outcome("a.png", result)]))
    assert row[header.index("same_as")] == "r-00001"
