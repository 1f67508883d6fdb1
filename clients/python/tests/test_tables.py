"""What a run prints: the doubt stands where the verdict does, and sound photographs are printed as ever."""

import csv
import io
import json
from dataclasses import replace

from playing import rows
from resad_client import Result, from_json
from resad_client.exports import Outcome, coco, findings_csv, geojson, photos_csv
from resad_client.records import IndexInfo, IndexWarning, QualityReason, ScoreRow
from resad_client.tables import print_scores, score_line, warning_lines
from resad_client.terminal import SafeConsole
from samples import EXAMPLE

SOUND = ScoreRow("sound.jpg", from_json(Result, EXAMPLE), 4)


def doubtful_row(label: str, *reasons: QualityReason, abnormal: bool | None = True) -> ScoreRow:
    quality = replace(SOUND.result.quality, acceptable=False, reasons=reasons)
    return ScoreRow(label, replace(SOUND.result, quality=quality, abnormal=abnormal), 1)


def printed_table(*score_rows: ScoreRow) -> str:
    console = SafeConsole(file=io.StringIO(), width=70)
    print_scores(console, score_rows, before=0)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_a_doubtful_verdict_has_a_mark_that_is_explained_below_the_table() -> None:
    out = printed_table(
        SOUND,
        doubtful_row("black[1].png", "too-dark", "no-field-of-view"),
        doubtful_row("blurred.jpg", "blurred", abnormal=False),
        doubtful_row("few.jpg", "blurred", abnormal=None),
    )
    assert [row[3] for row in rows(out)] == ["abnormal", "abnormal?", "normal?", "-?"]
    assert out.split("┘\n")[1].splitlines() == [
        "? not like the photographs of the index, so that score, verdict and findings may not be trusted:",
        "  black[1].png: too-dark, no-field-of-view",
        "  blurred.jpg: blurred",
        "  few.jpg: blurred",
    ]


def test_nothing_is_added_where_all_are_sound() -> None:
    out = printed_table(SOUND)
    assert out.endswith("┘\n")
    assert "?" not in out
    assert score_line(SOUND) == "sound.jpg: score 2.314, p 0.0196, abnormal, findings 4"


def test_of_many_photographs_those_in_doubt_are_counted_by_themselves() -> None:
    sound_rows = [replace(SOUND, label=f"{number}.jpg") for number in range(50)]
    out = printed_table(*sound_rows)
    assert out.startswith("50 photographs: 50 abnormal\n")
    assert "doubtful" not in out
    dark_rows = [doubtful_row(f"dark-{number}.jpg", "too-dark") for number in range(43)]
    out = printed_table(*sound_rows, *dark_rows)
    assert out.startswith("93 photographs: 50 abnormal, 43 doubtful\n")
    assert out.endswith("  dark-39.jpg: too-dark\n  and 3 more; the column quality of --csv has them all\n")


def test_an_index_that_is_not_sound_is_named_below_the_table_once_for_each_warning() -> None:
    stale = IndexWarning("stale", "p-values may be too low")
    index = replace(SOUND.result.index, warnings=(stale, IndexWarning("outliers", "2 of 24 move the threshold")))
    out = printed_table(*(ScoreRow(f"{n}.jpg", replace(SOUND.result, index=index), 0) for n in range(3)))
    assert " ".join(out.split("┘\n")[1].split()) == (
        "! index idrid: p-values may be too low ! index idrid: 2 of 24 move the threshold"
    )
    versions = [IndexInfo("other", "v1", warnings=(stale,)), IndexInfo("other", "v2"), IndexInfo("sound", "v1")]
    assert warning_lines(versions) == ["! index other v1: p-values may be too low"]


def test_tables_of_files_say_which_index_is_not_sound() -> None:
    index = replace(SOUND.result.index, warnings=(IndexWarning("stale", "too low"), IndexWarning("outliers", "x")))
    outcome = Outcome("a.jpg", replace(SOUND.result, index=index))
    for lines in (photos_csv([outcome]), findings_csv([outcome])):
        assert next(csv.DictReader(lines))["index_warnings"] == "stale;outliers"
    (photo,) = csv.DictReader(photos_csv([Outcome("a.jpg", SOUND.result)]))
    assert photo["index_warnings"] == ""
    assert json.loads(geojson("a.jpg", outcome.result or SOUND.result))["index"] == {
        "name": "idrid", "version": index.version, "warnings": ["too low", "x"],
    }  # fmt: skip
    (image,) = json.loads("".join(coco([outcome])))["images"]
    assert image["index_warnings"] == ["too low", "x"]
