"""Reports: who belongs together, what the sentences say, and files that stand alone, as HTML and PDF."""

import base64
import html
import io
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fontTools.fontBuilder import FontBuilder  # type: ignore[import-untyped]
from fontTools.pens.ttGlyphPen import TTGlyphPen  # type: ignore[import-untyped]
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from playing import BAD, Service, run, service
from resad_client import Disc, IndexWarning, Result, from_json
from resad_client.photos import LabeledPhoto, list_photos
from resad_client.records import INTENDED_USE, PhotoReference
from resad_client.report import wording
from resad_client.report.contents import FindingDetail, HealthyPatch, PhotoReport, Report, report_page
from resad_client.report.document import report_pdf
from resad_client.report.grouping import group_photos, read_name
from resad_client.report.pictures import detail, numbered_photo, open_photo
from samples import EXAMPLE, JPEG, picture, results

__all__ = ["service"]
RESULT = from_json(Result, EXAMPLE)


def photo_of(label: str, **columns: str) -> LabeledPhoto:
    return LabeledPhoto(Path("in") / label, label, **columns)  # type: ignore[arg-type]


def grouped(*photos: LabeledPhoto) -> dict[str, list[list[str | None]]]:
    return {
        group.title: [[None if photo is None else photo.label for photo in row] for row in group.rows]
        for group in group_photos(photos)
    }


@pytest.mark.parametrize(
    ("label", "rest", "eye", "visit"),
    [
        ("P005_left.jpg", "P005", "left", None),
        ("P005-OD.png", "P005", "right", None),
        ("P005 R 2.jpg", "P005 2", "right", None),
        ("P005/2024-03-01/os.jpg", "P005", "left", "2024-03-01"),
        ("20240301_101502_P005_OS.jpg", "P005", "left", "2024-03-01"),
        ("P005_01.03.2024_LE.tif", "P005", "left", "2024-03-01"),
        ("visit 2/P005.jpg", "P005", None, "visit 2"),
        ("P005_V03_R.jpg", "P005", "right", "visit 3"),
        ("P005_baseline.jpg", "P005", None, "baseline"),
        ("P005_follow-up2.jpg", "P005", None, "follow-up 2"),
        ("IDRiD_NAR_012.jpg", "IDRiD NAR 012", None, None),
        ("left_right.jpg", "", None, None),
        ("ärzte/患者_左.jpg", "ärzte 患者 左", None, None),
        ("1999123100.jpg", "1999123100", None, None),
        ("dev12_oscar.jpg", "dev12 oscar", None, None),
    ],
)
def test_a_name_says_eye_and_visit_in_words_of_their_own(
    label: str, rest: str, eye: str | None, visit: str | None
) -> None:
    parts = read_name(label)
    assert (parts.rest, parts.eye, parts.visit) == (rest, eye, visit)


@given(st.text(max_size=40))
def test_no_name_is_too_strange(name: str) -> None:
    label = f"x{name}.jpg"
    parts = read_name(label)
    assert parts.eye in (None, "left", "right")
    (group,) = group_photos([photo_of(label)])
    assert group.photos[0].label == label
    assert group.place
    assert not Path(group.place).is_absolute()
    assert ".." not in Path(group.place).parts


def test_two_eyes_stand_side_by_side_the_right_one_first() -> None:
    assert grouped(
        photo_of("a_left.jpg"), photo_of("b.jpg"), photo_of("a_right.jpg"), photo_of("sub/a_left.jpg")
    ) == {
        "a": [["a_right.jpg", "a_left.jpg"]],
        "b.jpg": [["b.jpg"]],
        "sub/a_left.jpg": [["sub/a_left.jpg"]],
    }
    assert grouped(photo_of("P005/left.jpg"), photo_of("P005/right.jpg"), photo_of("P006/left.jpg")) == {
        "P005": [["P005/right.jpg", "P005/left.jpg"]],
        "P006/left.jpg": [["P006/left.jpg"]],
    }


def test_two_visits_stand_side_by_side_in_order() -> None:
    visits = [photo_of(f"P1_{day}_os.jpg") for day in ("2024-11-02", "2023-01-30")]
    assert grouped(*visits) == {"P1": [["P1_2023-01-30_os.jpg", "P1_2024-11-02_os.jpg"]]}
    numbered = [photo_of(f"v{number}/P1.jpg") for number in (10, 2)] + [photo_of("baseline/P1.jpg")]
    assert grouped(*numbered) == {"P1": [["baseline/P1.jpg", "v2/P1.jpg"], ["v10/P1.jpg"]]}


def test_two_eyes_at_two_visits_have_a_row_for_each_visit() -> None:
    photos = [photo_of(f"P1_{eye}_{day}.jpg") for day in ("2024-11-02", "2023-01-30") for eye in ("OS", "OD")]
    assert grouped(*photos[:3]) == {
        "P1": [[None, "P1_OS_2023-01-30.jpg"],
               ["P1_OD_2024-11-02.jpg", "P1_OS_2024-11-02.jpg"]],
    }  # fmt: skip
    assert grouped(*photos) == {
        "P1": [
            ["P1_OD_2023-01-30.jpg", "P1_OS_2023-01-30.jpg"],
            ["P1_OD_2024-11-02.jpg", "P1_OS_2024-11-02.jpg"],
        ]
    }


def test_a_csv_says_who_belongs_together_whatever_the_names(tmp_path: Path) -> None:
    for name in ("1.jpg", "2.jpg", "3_left.jpg", "3_right.jpg"):
        (tmp_path / name).write_bytes(JPEG)
    (tmp_path / "list.csv").write_text(
        "path,Patient,eye,date\n1.jpg, Ann ,R,2024-01-01\n2.jpg,Ann,L,2024-01-01\n"
        "3_left.jpg,Bob,,\n3_right.jpg,,,\n"
    )
    photos = list_photos(tmp_path / "list.csv")
    assert grouped(*photos) == {
        "Ann": [["1.jpg", "2.jpg"]],
        "Bob": [["3_left.jpg"]],
        "3_right.jpg": [["3_right.jpg"]],
    }
    assert [photo.visit for photo in photos[:2]] == ["2024-01-01"] * 2
    assert len(group_photos(photos, together=False)) == 4


def test_letters_that_may_mean_anything_are_no_eye_of_a_photograph_by_itself() -> None:
    (group,) = group_photos([photo_of("img_r.jpg")])
    assert (group.title, group.photos[0].eye) == ("img_r.jpg", None)
    (group,) = group_photos([photo_of("img_right.jpg")])
    assert group.photos[0].eye == "right"
    (group,) = group_photos([photo_of("img_r.jpg", eye="left")])
    assert group.photos[0].eye == "left"


def test_places_never_leave_the_folder_and_never_meet() -> None:
    photos = [
        photo_of(f"{n}.jpg", patient=name)
        for n, name in enumerate(("../x", "a:b", "a?b", "", "/etc/x", "P.1", "P.2"))
    ]
    places = [group.place for group in group_photos(photos)]
    assert len({place.casefold() for place in places}) == len(places)
    for place in places:
        assert (Path("out") / place).resolve().is_relative_to(Path("out").resolve())
    assert {"P.1", "P.2"} <= set(places)


@settings(deadline=None)
@given(results)
def test_there_is_a_sentence_for_every_result(result: Result) -> None:
    photo = PhotoReport("a.jpg", None, None, result)
    texts = [*photo.sentences, photo.findings_sentence, photo.verdict, *photo.warnings]
    assert all(texts)


@pytest.mark.parametrize(
    ("p_value", "normals", "words"),
    [
        (1 / 37, 36, "None of the 36 healthy photographs scores as high: p = 1/37 = 0.027, the smallest value"),
        (2 / 37, 36, "1 of the 36 healthy photographs scores as high or higher: p = 2/37 = 0.0541."),
        (1.0, 36, "36 of the 36 healthy photographs score as high or higher: p = 37/37 = 1."),
        (None, 5, "There is no p-value."),
    ],
)
def test_a_p_value_is_the_number_of_healthy_photographs_that_score_as_high(
    p_value: float | None, normals: int, words: str
) -> None:
    result = replace(RESULT, p_value=p_value, normals=replace(RESULT.normals, photos=normals))
    assert wording.p_value_sentence(result).startswith(words)


def test_a_score_below_the_threshold_is_no_all_clear_and_one_near_it_is_called_so() -> None:
    below = wording.score_sentence(replace(RESULT, image_score=1.0, abnormal=False))
    assert "no all-clear" in below
    assert "close" not in below
    for score in (1.9, 2.1):
        near = wording.score_sentence(replace(RESULT, image_score=score, abnormal=score > 1.982))
        assert "close to the threshold" in near
    missing = replace(RESULT, threshold=None, abnormal=None, reason="a rate of 0.01 needs 99 normal photographs")
    assert "no verdict: a rate of 0.01 needs 99" in wording.score_sentence(missing)


@pytest.fixture
def pair(tmp_path: Path) -> Report:
    """Two photographs with details, healthy patches and names that are hostile to HTML."""
    path = tmp_path / "p.jpg"
    Image.new("RGB", (300, 200), (150, 60, 20)).save(path)
    image = open_photo(path)
    assert image is not None
    finding = replace(RESULT.findings[0], box=(100, 80, 130, 99))
    stale = IndexWarning("stale", "p-values may be too low")
    result = replace(
        RESULT, findings=tuple(replace(finding, rank=rank) for rank in range(1, 20)),
        photo=PhotoReference(300, 200, Disc(150, 100, 95)), index=replace(RESULT.index, warnings=(stale,)),
    )  # fmt: skip
    near = detail(image, finding, result.photo.field_of_view)
    patch = HealthyPatch(finding.evidence[0], near)
    right = PhotoReport(
        "<script>alert(1)</script>.jpg", "right", "2024-03-01", result,
        photo=numbered_photo(image, result.findings[:12]), overlay=JPEG,
        details=(FindingDetail(finding, near, (patch,)),),
    )  # fmt: skip
    left = replace(right, eye="left", label="P005 Łukasz 患者 \x1b[2J.jpg", result=replace(result, abnormal=False))
    return Report("P005 & <b>Łukasz</b>", ((right, left), (None, left)), "Made now.")


def test_the_page_stands_alone_and_no_name_becomes_markup(pair: Report) -> None:
    page = report_page(pair)
    assert not re.search(r"""(?:src|href)=["'](?!data:)""", page)
    assert "<script" not in page
    assert "<b>" not in page
    text = html.unescape(page)
    for words in (
        "P005 & <b>Łukasz</b>", "<script>alert(1)</script>.jpg", "P-values may be too low.",
        "Right eye, 2024-03-01",
        INTENDED_USE, "superior temporal", "r-00041 at 2.31 (mirrored)", "The 12 strongest are listed",
        "not abnormal", "20261122T101500Z-3f9c", "no photograph", "2 of 134",
    ):  # fmt: skip
        assert words in text
    for url in re.findall(r"data:image/jpeg;base64,([^\"]+)", page):
        assert base64.b64decode(url).startswith(b"\xff\xd8\xff")


def test_the_pdf_has_the_same_words_in_every_script_and_the_notice_on_every_page(pair: Report) -> None:
    pdf = report_pdf(pair)
    assert pdf.startswith(b"%PDF-")
    pages = len(re.findall(rb"/Type /Page\b", pdf))
    assert pages >= 2
    assert pdf.count(b"/Subtype /Image") >= 3
    latin = replace(pair, title="P005", rows=((replace(pair.photos[0], label="a.jpg"),),))
    assert report_pdf(latin).startswith(b"%PDF-")


def test_a_damaged_font_of_the_machine_costs_no_report(
    pair: Report, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    letter = "\U00010600"  # of Linear A, which few fonts have
    fonts = tmp_path / ".fonts"
    fonts.mkdir()
    builder = FontBuilder(1000, isTTF=True)
    builder.setupGlyphOrder([".notdef", "A"])
    builder.setupCharacterMap({ord(letter): "A"})
    pen = TTGlyphPen(None)
    builder.setupGlyf({".notdef": pen.glyph(), "A": pen.glyph()})
    builder.setupHorizontalMetrics({".notdef": (500, 0), "A": (500, 0)})
    builder.setupHorizontalHeader(ascent=800, descent=-200)
    builder.setupNameTable({"familyName": "Eyes", "styleName": "Regular"})
    builder.setupOS2()
    builder.setupPost()
    for name in ("first", "second"):
        builder.save(fonts / f"{name}-Regular.ttf")
    (fonts / "first-Bold.ttf").write_bytes(b"no font")
    (fonts / "third-Regular.ttf").write_bytes(b"no font")
    assert report_pdf(replace(pair, title=f"P005 {letter}")).startswith(b"%PDF-")


def test_a_photograph_that_pillow_may_show_otherwise_is_left_to_the_service(tmp_path: Path) -> None:
    Image.new("I;16", (20, 20)).save(tmp_path / "deep.png")
    Image.new("RGB", (20, 20)).save(
        tmp_path / "page.tif", save_all=True, append_images=[Image.new("RGB", (20, 20))]
    )
    (tmp_path / "broken.jpg").write_bytes(JPEG[:40])
    for name in ("deep.png", "page.tif", "broken.jpg"):
        assert open_photo(tmp_path / name) is None
    upright = Image.new("RGB", (30, 20))
    exif = upright.getexif()
    exif[274] = 6
    upright.save(tmp_path / "turned.jpg", exif=exif)
    image = open_photo(tmp_path / "turned.jpg")
    assert image is not None
    assert image.size == (20, 30)


def test_frames_leave_the_lesion_free() -> None:
    image = Image.new("RGB", (600, 400), (150, 60, 20))
    finding = replace(RESULT.findings[0], box=(200, 100, 260, 150))
    with Image.open(io.BytesIO(numbered_photo(image, [finding]))) as picture:
        pixels = np.asarray(picture).astype(int)
    lesion, around = pixels[106:145, 206:255], pixels[80:170, 180:290]
    assert np.abs(lesion - (150, 60, 20)).max() < 12
    assert np.ptp(around) > 200


def test_the_command_writes_a_report_for_each_patient(
    service: Service,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for name, shade in (("P1_OD.jpg", 20), ("P1_OS.jpg", 30), ("P2_OD.jpg", 40)):
        (photos / name).write_bytes(picture("JPEG", shade))
    for name in ("bad.jpg", "P2_OS.jpg"):
        (photos / name).write_bytes(BAD)
    words = ("report", photos, "--url", service.url, "--out", tmp_path / "out", "--fpr", "0.1")
    assert run(monkeypatch, *words) == 2
    output = capsys.readouterr()
    assert output.out == f"2 reports of 3 photographs in {tmp_path}/out\n{INTENDED_USE}\n"
    assert "resad-client: 2 of 5 photographs could not be scored\n" in output.err
    names = {"P1.html", "P1.pdf", "P2.html", "P2.pdf"}
    assert {path.name for path in (tmp_path / "out").iterdir()} == names
    assert "422 Some trouble" in (tmp_path / "out/P2.html").read_text()
    assert "422" not in (tmp_path / "out/P1.html").read_text()
    assert {tuple(query.get("eye", [])) for _, query, _ in service.requests} == {(), ("left",), ("right",)}
    assert all(query["fpr"] == ["0.1"] for _, query, _ in service.requests)
    assert run(monkeypatch, *words) == 2
    assert "exists: --overwrite replaces it, --out names another folder" in capsys.readouterr().err
    assert run(monkeypatch, *words, "--overwrite", "--format", "html", "--separate") == 2
    assert (tmp_path / "out/P1_OD.html").is_file()
    assert not (tmp_path / "out/P1_OD.pdf").exists()


def test_importing_the_command_loads_no_library_for_reports() -> None:
    code = "import sys, resad_client.cli; print(*sorted({name.split('.')[0] for name in sys.modules}))"
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert not set(process.stdout.split()) & {"fpdf", "jinja2", "fontTools"}
