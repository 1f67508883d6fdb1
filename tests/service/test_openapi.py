"""The contract: what is checked in is what is served, its examples are true, and the service keeps to it."""

import json
import shutil
from collections.abc import Callable, Iterator
from inspect import Parameter, signature
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter
from resad_client import AsyncClient, Client
from resad_client.cli import app
from resad_client.records import Result
from schemathesis import GenerationMode
from schemathesis.checks import CHECKS, load_all_checks
from typer.main import get_command

import service.openapi
from service.middleware import new_id
from service.problems import MEDIA_TYPE, Problem
from service.schemas import Results
from service.uploads import PHOTO_TYPES
from tests.service.running import Served, key_for, served

CHECKED_IN = Path(service.openapi.__file__).with_name("openapi.json")
DOCUMENT = json.loads(CHECKED_IN.read_text())


def test_the_document_checked_in_is_the_one_served(running: Served) -> None:
    document = service.openapi.document() + "\n"
    assert document == CHECKED_IN.read_text(), "run: python -m service.openapi > service/openapi.json"
    assert running.client.get("/openapi.json").json() == DOCUMENT


def test_examples_are_what_they_show() -> None:
    examples = DOCUMENT["paths"]["/v1/score"]["post"]["responses"]["200"]["content"]["application/json"][
        "examples"
    ]
    for name, kind in (("one", TypeAdapter(Result)), ("several", TypeAdapter(Results))):
        adapter: TypeAdapter[Any] = kind
        value = examples[name]["value"]
        assert adapter.dump_python(adapter.validate_python(value), mode="json") == value
    problems = TypeAdapter(Problem)
    slugs = set()
    for call in (call for path in DOCUMENT["paths"].values() for call in path.values()):
        for status, answer in call["responses"].items():
            if not status.startswith("2"):
                for slug, example in answer["content"][MEDIA_TYPE]["examples"].items():
                    problem = problems.validate_python(example["value"])
                    assert (str(problem.status), problem.type) == (status, f"urn:resad:problem:{slug}")
                    slugs.add(slug)
    assert {"photo-too-large", "busy", "deadline", "internal", "invalid-request"} <= slugs


@pytest.mark.parametrize("client", [Client, AsyncClient])
def test_the_python_clients_take_every_option_that_the_service_takes(client: type) -> None:
    for call in ("score", "score_many"):
        assert _options(getattr(client, call)) == _service_options("/v1/score")
    # How the map is drawn is which call it is; what the picture is encoded as is asked for by Accept.
    assert _options(client.overlay) - {"kind"} == _service_options("/v1/anomaly-map") - {"style"}  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", ["score", "watch"])
def test_the_command_takes_every_option_that_the_service_takes(name: str) -> None:
    command_options = {option for parameter in get_command(app).commands[name].params for option in parameter.opts}  # type: ignore[attr-defined]
    # A picture is asked for by the file that it goes to; what a watched folder's looks like is not asked.
    service_options = _service_options("/v1/score") - {"map", *(("size", "layout") if name == "watch" else ())}
    options = {f"--{option.replace('_', '-')}" for option in service_options - {"quality"}}
    assert options | {"--require-quality"} <= command_options


def _options(call: Callable[..., Any]) -> set[str]:
    parameters = signature(call).parameters.values()
    return {parameter.name for parameter in parameters if parameter.kind is Parameter.KEYWORD_ONLY}


def _service_options(path: str) -> set[str]:
    return {parameter["name"] for parameter in DOCUMENT["paths"][path]["post"]["parameters"]}


def test_docs_need_nothing_from_elsewhere(running: Served) -> None:
    for address in ("/docs", "/"):
        page = running.client.get(address)
        assert page.status_code == 200
        assert "https://" not in page.text
    assert "Research use only" in running.client.get("/").text
    assert running.client.get("/static-offline-docs/swagger-ui-bundle.js").status_code == 200


def test_ids_sort_by_time() -> None:
    ids = [new_id() for _ in range(100)]
    assert len(set(ids)) == 100
    assert [request_id[:10] for request_id in ids] == sorted(request_id[:10] for request_id in ids)


CALLS = [(path, method) for path, calls in DOCUMENT["paths"].items() for method in calls]
CASES = [(*call, GenerationMode.POSITIVE) for call in CALLS]
CASES += [(*call, GenerationMode.NEGATIVE) for call in CALLS if call[1] != "get"]  # the others take nothing
# Which bytes are a photograph cannot be said in a schema, so that neither can it say what is accepted.
SKIPPED_CHECKS = ("positive_data_acceptance", "negative_data_rejection")


@pytest.fixture(scope="module")
def keyed_service(small_index: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """On a copy of the index, beside which marks may be written."""
    folder = tmp_path_factory.mktemp("keys")
    shutil.copytree(small_index, folder / "root" / small_index.name)
    key = key_for(folder / "keys", "score", "evidence", "teach", "admin")
    with served(folder / "root", keys_file=folder / "keys", headers=key) as service:
        yield service


@pytest.mark.parametrize(("path", "method", "mode"), CASES)
def test_the_service_keeps_its_contract(
    keyed_service: Served, photo: bytes, path: str, method: str, mode: GenerationMode
) -> None:
    """No 5xx, and no status, type, header or body that the document does not have."""
    for name in PHOTO_TYPES:
        schemathesis.openapi.media_type(name, st.one_of(st.just(photo), st.binary(max_size=200)))
    contract = schemathesis.openapi.from_url(f"{keyed_service.url}/openapi.json")
    load_all_checks()
    checks: Any = [check for check in CHECKS.get_all() if check.__name__ not in SKIPPED_CHECKS]
    statuses = set()

    @settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    @seed(0)
    @given(case=contract[path][method.upper()].as_strategy(mode), existing_index=st.booleans())
    def probe(case: Any, existing_index: bool) -> None:
        if existing_index and "name" in (case.path_parameters or {}):
            case.path_parameters["name"] = "drawn"
        case.headers["Authorization"] = keyed_service.client.headers["Authorization"]
        statuses.add(case.call_and_validate(checks=checks).status_code)

    probe()
    if mode == GenerationMode.POSITIVE:
        # Generated names are of nothing, and a generated part is no photograph.
        unknown = path.endswith(("/current", "/{mark}")) or "/evidence/" in path
        assert statuses & ({404} if unknown else {415, 422} if (path, method) == ("/v1/marks", "post") else {200})
    assert all(status < 500 for status in statuses)
