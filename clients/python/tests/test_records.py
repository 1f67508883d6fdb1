"""What is written is read back; what is missing or of another type is named; what is unknown is passed over."""

import copy
import dataclasses
import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resad_client import Disc, Evidence, Problem, ProtocolError, Result, from_json, records, to_json
from samples import EXAMPLE, results

Path = tuple[str | int, ...]


def members(value: Any, path: Path = ()) -> Iterator[Path]:
    """The path of every member of every object in parsed JSON."""
    entries = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, member in entries:
        if isinstance(value, dict):
            yield (*path, name)
        yield from members(member, (*path, name))


def dotted_path(path: Path) -> str:
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path).lstrip(".")


def parent_of(value: Any, path: Path) -> Any:
    for step in path[:-1]:
        value = value[step]
    return value


EXAMPLE_MEMBERS = tuple(members(json.loads(EXAMPLE)))


def test_the_contracts_example_field_by_field() -> None:
    result = from_json(Result, EXAMPLE)
    assert (result.request_id, result.image_score, result.p_value) == ("01J7", 2.314, 0.0196)
    assert (result.fpr, result.threshold, result.abnormal, result.reason) == (0.05, 1.982, True, None)
    assert result.index.version == "20261122T101500Z-3f9c"
    assert result.photo.field_of_view == Disc(2140.5, 1424.0, 1710.2)
    assert result.quality.acceptable
    assert result.quality.reasons == ()
    (finding,) = result.findings
    assert finding.box == (2960, 1330, 3071, 1422)
    assert finding.contour == ((2960, 1377), (2961, 1380))
    assert finding.evidence[0].photo == "r-00041"
    assert (result.timings_ms.decode, result.timings_ms.total) == (61.0, 2350.0)
    assert type(result.timings_ms.decode) is float
    assert result.intended_use == "Research use only. Not for diagnosis."


OPTIONAL = {
    field.name
    for kind in vars(records).values()
    if isinstance(kind, type) and dataclasses.is_dataclass(kind) and kind is not records.IndexInfo
    for field in dataclasses.fields(kind)
    if field.default is not dataclasses.MISSING
}
"""Fields that answers of earlier versions lack."""


def assert_extends(value: Any, example: Any) -> None:
    """`value` is `example`, in the same order, but for optional fields that the example lacks."""
    if isinstance(example, dict):
        assert [name for name in value if name in example] == list(example)
        assert set(value) - set(example) <= OPTIONAL
        for name, member in example.items():
            assert_extends(value[name], member)
    elif isinstance(example, list):
        assert len(value) == len(example)
        for pair in zip(value, example, strict=True):
            assert_extends(*pair)
    else:
        assert value == example


def test_writing_keeps_the_contracts_names_and_order() -> None:
    assert_extends(json.loads(to_json(from_json(Result, EXAMPLE))), json.loads(EXAMPLE))


@given(results)
def test_any_result_comes_back_equal(result: Result) -> None:
    assert from_json(Result, to_json(result)) == result
    assert from_json(Result, to_json(result).encode()) == result


@given(results, st.data())
def test_a_missing_field_is_named_and_an_extra_one_passed_over(result: Result, data: st.DataObject) -> None:
    document = json.loads(to_json(result))
    required = [path for path in members(document) if path[-1] not in OPTIONAL]
    path = data.draw(st.sampled_from(required))
    parent = parent_of(document, path)
    parent["added in version 2"] = {"anything": [1, None]}
    assert from_json(Result, json.dumps(document)) == result
    del parent[path[-1]]
    with pytest.raises(ProtocolError) as caught:
        from_json(Result, json.dumps(document))
    assert str(caught.value) == f"the answer has no {dotted_path(path)}"


def test_evidence_without_the_field_mirrored_is_read() -> None:
    assert ', "mirrored": true' in EXAMPLE
    older_result = from_json(Result, EXAMPLE.replace(', "mirrored": true', ""))
    assert older_result.findings[0].evidence == (Evidence("r-00041", 2.314, 31, 64, mirrored=False),)
    assert from_json(Result, EXAMPLE).findings[0].evidence[0].mirrored


def test_answers_of_an_earlier_version_have_no_rate_of_findings() -> None:
    assert '"false_regions": 0.25, ' in EXAMPLE
    older_normals = from_json(Result, EXAMPLE.replace('"false_regions": 0.25, ', "")).normals
    assert (older_normals.finding_level, older_normals.false_regions) == (2.1, None)
    assert from_json(Result, EXAMPLE).normals.false_regions == 0.25


@pytest.mark.parametrize("path", EXAMPLE_MEMBERS, ids=dotted_path)
def test_another_type_is_named(path: Path) -> None:
    document = copy.deepcopy(json.loads(EXAMPLE))
    parent = parent_of(document, path)
    # No field is an array where it was a scalar, none a scalar where it was a structure.
    parent[path[-1]] = 7 if isinstance(parent[path[-1]], dict | list) else [7]
    with pytest.raises(ProtocolError, match=r"is an? (array|integer), not an? ") as caught:
        from_json(Result, json.dumps(document))
    assert f"the answer's {dotted_path(path)} is" in str(caught.value)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"abnormal": true', '"abnormal": 1', "abnormal is an integer, not a boolean"),
        ('"image_score": 2.314', '"image_score": true', "image_score is a boolean, not a number"),
        ('"image_score": 2.314', '"image_score": null', "image_score is null, not a number"),
        ('"image_score": 2.314', '"image_score": NaN', "not JSON"),
        ('"image_score": 2.314', '"image_score": 1e999', "image_score is beyond"),
        ('"image_score": 2.314', f'"image_score": {10**400}', "image_score is beyond"),
        ('"x": 3012', '"x": 3012.5', r"findings\[0\].x is a number, not an integer"),
        ("[2960, 1330, 3071, 1422]", "[1, 2, 3]", r"findings\[0\].box has 3 items, not 4"),
        ("[2961, 1380]", '["...", 2]', r"findings\[0\].contour\[1\]\[0\] is a string, not an integer"),
    ],
)
def test_near_misses_are_refused(old: str, new: str, message: str) -> None:
    assert old in EXAMPLE
    with pytest.raises(ProtocolError, match=message):
        from_json(Result, EXAMPLE.replace(old, new))


@given(st.binary() | st.text() | st.sampled_from([b"[" * 100_000, "1" * 5000, "[]", "null", b"\xff\xfe{"]))
def test_anything_else_is_a_protocol_error(text: str | bytes) -> None:
    with pytest.raises(ProtocolError):
        from_json(Result, text)


def test_a_problem_may_leave_out_what_rfc_9457_lets_it() -> None:
    assert from_json(Problem, '{"title": "T", "status": 418}') == Problem("T", 418, "about:blank", None, None)
    with pytest.raises(ProtocolError, match="the answer has no status"):
        from_json(Problem, '{"title": "T"}')
