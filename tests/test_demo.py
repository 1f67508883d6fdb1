"""What the demo says of what was seen; that its pictures mark drawn lesions; its numbered steps and their logs."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from resad_client.records import (
    Disc,
    Finding,
    IndexReference,
    Interval,
    NormalsReference,
    PhotoQuality,
    PhotoReference,
    QualityMeasures,
    Result,
    Timings,
)

from demo import PANEL_HEIGHT, SeenPhoto, Steps, contact_sheet, sentences

FINDING = Finding(
    1, 3.0, 0.1, 45, 35, (40, 30, 50, 40), 100, 0.01, None, ((40, 30), (50, 30), (50, 40), (40, 40)), ()
)
RESULT = Result(
    request_id=None, image_score=3.0, p_value=1 / 31, fpr=0.05, threshold=2.0, abnormal=True, reason=None,
    normals=NormalsReference(None, 30, Interval(0.0, 0.1), 2.5, None),
    index=IndexReference("demo", "v", "", "", ""),
    photo=PhotoReference(120, 80, Disc(60, 40, 40)),
    quality=PhotoQuality(True, (), QualityMeasures(90, 0.5, 0.02, 1, 0)), findings=(FINDING,), map=None,
    timings_ms=Timings(1, 2),
)  # fmt: skip


def seen_photo(folder: Path, name: str, *, lesions: bool, abnormal: bool) -> SeenPhoto:
    """A gray photograph with two lesions, of which the finding touches one."""
    mask = np.zeros((80, 120), dtype=np.bool_)
    if lesions:
        mask[33:38, 43:48] = mask[60:66, 80:86] = True
    for kind in ("photo", "overlay"):
        Image.new("RGB", (120, 80), (90, 90, 90)).save(folder / f"{name}_{kind}.png")
    result = replace(RESULT, abnormal=abnormal, findings=RESULT.findings if lesions else ())
    return SeenPhoto(folder / f"{name}_photo.png", f"{name}.jpg", result, folder / f"{name}_overlay.png", mask)


def test_three_sentences_count_what_was_seen(tmp_path: Path) -> None:
    ill = [seen_photo(tmp_path, f"ill{n}", lesions=True, abnormal=n > 0) for n in range(3)]
    well = [seen_photo(tmp_path, f"well{n}", lesions=False, abnormal=False) for n in range(2)]
    assert (ill[0].lesions, ill[0].touched, ill[0].kind) == (2, 1, "2 lesions drawn")
    assert (well[0].lesions, well[0].touched, well[0].kind) == (0, 0, "drawn, healthy")
    first, second, third = sentences([*well, *ill], own_index=False)
    assert "learned from 30 healthy photographs" in first
    assert second == (
        "2 of 3 photographs with drawn lesions came out as abnormal, and 0 of 2 healthy ones; findings touch 3 of "
        "6 lesions."
    )
    assert "1/31 = 0.032" in third


def test_with_photographs_of_ones_own_the_sentences_are_about_them(tmp_path: Path) -> None:
    own = [replace(seen_photo(tmp_path, f"own{n}", lesions=False, abnormal=n == 0), mask=None) for n in range(4)]
    first, second, _ = sentences(own, own_index=True)
    assert "of yours" in first
    assert second == "Of 4 photographs that were kept out of it, 1 came out as abnormal."
    drawn = [seen_photo(tmp_path, "drawn", lesions=True, abnormal=True)]
    assert "as those of another camera do" in sentences(drawn, own_index=True)[1]


def test_the_picture_outlines_drawn_lesions_and_leaves_them_free(tmp_path: Path) -> None:
    ill = seen_photo(tmp_path, "ill", lesions=True, abnormal=True)
    contact_sheet([seen_photo(tmp_path, "well", lesions=False, abnormal=False), ill], tmp_path / "sheet.png")
    with Image.open(tmp_path / "sheet.png") as image:
        pixels = np.asarray(image.convert("RGB")).astype(int)
    scale = PANEL_HEIGHT / 80
    blue = (pixels[:, :, 2] - pixels[:, :, 0]) > 100
    photo = blue[4 : 4 + PANEL_HEIGHT, : round(120 * scale)]
    rows, columns = np.nonzero(photo)
    # Ill ones come first; the ring is around both lesions, 2 to 4 px of the photograph from them.
    assert rows.min() / scale == pytest.approx(33 - 4, abs=1.5)
    assert columns.max() / scale == pytest.approx(86 + 4, abs=1.5)
    inside = photo[round(34 * scale) : round(37 * scale), round(44 * scale) : round(47 * scale)]
    assert not inside.any()
    assert not blue[:, pixels.shape[1] // 2 :].any()


def test_steps_are_numbered_and_what_commands_print_is_in_their_logs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = tmp_path / "talk"
    command.write_text("#!/bin/sh\necho table; echo progress >&2; exit $1\n")
    command.chmod(0o755)
    steps = Steps(2, tmp_path / "logs", programs=tmp_path)
    steps.begin("Talk")
    steps.run("talk", 0)
    lines = capsys.readouterr().out.splitlines()
    assert lines[1:4] == ["[1/2] Talk", "      $ talk 0", "      progress"]
    assert lines[4].startswith("      done in ")
    assert sorted((tmp_path / "logs/1-talk.log").read_text().split()) == ["progress", "table"]
    with pytest.raises(SystemExit) as caught:
        steps.run("talk", 3)
    assert caught.value.code == 3
    assert "table" in capsys.readouterr().err
