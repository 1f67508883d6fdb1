"""A deployment from photographs to answers, and through what happens to one; the tests follow each other."""

import json
import subprocess
from pathlib import Path

import httpx
import pytest

from tests.docker.conftest import build_index
from tests.docker.edge import Edge, edge, fixed_services
from tests.docker.engine import SERVICE, START_S, Stack, docker, inspect, kill, run_in
from tests.docker.files import ALERTS, monitoring, need, queries
from tests.docker.load import JPEG, load
from tests.ports import free_port
from tests.service.running import until

pytestmark = pytest.mark.docker


@pytest.fixture(scope="module")
def photo(photos: Path) -> bytes:
    return sorted(photos.iterdir())[0].read_bytes()


@pytest.fixture(scope="module")
def stack_of_two(deployed: Stack) -> Stack:
    """With the second container of the service."""
    deployed.up("service-b")
    return deployed


def test_a_photograph_is_answered(deployed: Stack, photo: bytes) -> None:
    with deployed.client() as client:
        answer = client.post("/v1/score", content=photo, headers=JPEG)
        document = answer.json()
        assert answer.status_code == 200, document
        assert document["image_score"] > 0
        assert document["intended_use"] == "Research use only. Not for diagnosis."
        assert client.get("/v1/indexes").json()["indexes"][0]["state"] == "serving"


def test_callers_without_a_key_are_turned_away(deployed: Stack, photo: bytes) -> None:
    answer = httpx.post(f"http://127.0.0.1:{deployed.ports[0]}/v1/score", content=photo, headers=JPEG)
    assert answer.status_code == 401


def test_the_service_runs_unprivileged_on_a_read_only_root(deployed: Stack) -> None:
    container = deployed.compose("ps", "-q", "service").strip()
    description = inspect(container)
    assert description["HostConfig"]["ReadonlyRootfs"]
    assert description["HostConfig"]["CapDrop"] == ["ALL"]
    assert description["HostConfig"]["RestartPolicy"]["Name"] == "unless-stopped"
    assert description["HostConfig"]["Memory"] == 6 << 30
    output = docker("exec", container, "sh", "-c", "id -u; cat /proc/1/status; touch /x /opt/resad/x 2>&1 || true")
    assert output.startswith("10001\n")
    assert "Uid:\t10001\t10001" in output
    assert "CapEff:\t0000000000000000" in output
    assert "NoNewPrivs:\t1" in output
    assert output.count("Read-only file system") == 2


def test_another_version_goes_live_without_a_failed_request(deployed: Stack, photo: bytes) -> None:
    first = deployed.version()
    with load(deployed.client, photo) as traffic:
        until(lambda: traffic.answered >= 5, 60)
        build_index(deployed, "0.02")
        until(lambda: deployed.version() != first, 60)
        second = deployed.version()
        until(lambda: second in traffic.versions, 60)
        # Back, as in docs/deployment.md.
        deployed.indexer("activate", "/indexes/clinic", first, "--device", "cpu")
        until(lambda: deployed.version() == first, 60)
        with deployed.client() as client:
            answer = client.put("/v1/indexes/clinic/current", json={"version": second})
        assert answer.status_code == 200, answer.text
        assert deployed.version() == second
    assert traffic.failed == {}
    assert traffic.versions == {first, second}


def test_a_container_that_was_killed_comes_back(deployed: Stack, photo: bytes) -> None:
    container = deployed.compose("ps", "-q", "service").strip()
    kill(container)
    until(lambda: inspect(container)["RestartCount"] == 1, START_S)
    until(lambda: deployed.health(container) == "healthy", START_S)
    with deployed.client() as client:
        assert client.post("/v1/score", content=photo, headers=JPEG).status_code == 200


def test_two_behind_the_edge_lose_nothing_when_one_is_killed(
    stack_of_two: Stack, photo: bytes, tmp_path: Path
) -> None:
    container = stack_of_two.compose("ps", "-q", "service-b").strip()
    with (
        edge(tmp_path, fixed_services(stack_of_two.ports)) as proxy,
        load(lambda: with_key(proxy, stack_of_two), photo) as traffic,
    ):
        until(lambda: traffic.answered >= 5, 60)
        log = (tmp_path / "calls.log").read_text()
        assert all(f"127.0.0.1:{port}: 200" in log for port in stack_of_two.ports)
        answer_count = traffic.answered
        kill(container)
        until(lambda: traffic.answered >= answer_count + 10, 120)
        until(
            lambda: inspect(container)["RestartCount"] == 1 and stack_of_two.health(container) == "healthy",
            START_S,
        )
        log_length = len((tmp_path / "calls.log").read_text())
        until(
            lambda: f"127.0.0.1:{stack_of_two.ports[1]}: 200" in (tmp_path / "calls.log").read_text()[log_length:],
            60,
        )
    assert traffic.failed == {}


def test_two_converge_on_the_version_that_is_activated(stack_of_two: Stack, photo: bytes, tmp_path: Path) -> None:
    before = {stack_of_two.version(0), stack_of_two.version(1)}
    assert len(before) == 1
    versions = json.loads(run_in(SERVICE, LIST_VERSIONS, "--volume", f"{stack_of_two.name}-indexes:/indexes:ro"))
    [next_version] = set(versions) - before
    with (
        edge(tmp_path, fixed_services(stack_of_two.ports)) as proxy,
        load(lambda: with_key(proxy, stack_of_two), photo) as traffic,
    ):
        stack_of_two.indexer("activate", "/indexes/clinic", next_version, "--device", "cpu")
        until(lambda: stack_of_two.version(0) == stack_of_two.version(1) == next_version, 60)
    assert traffic.failed == {}


LIST_VERSIONS = (
    'python -c "import json, pathlib; print(json.dumps([p.parent.name for p in '
    "pathlib.Path('/indexes/clinic').glob('[0-9]*/manifest.json')]))\""
)


def with_key(proxy: Edge, stack: Stack) -> httpx.Client:
    client = proxy.client()
    client.headers["Authorization"] = f"Bearer {stack.key}"
    return client


def test_prometheus_sees_both_and_every_question_of_the_board_has_an_answer(
    stack_of_two: Stack, photo: bytes, tmp_path: Path
) -> None:
    config = monitoring(
        tmp_path,
        targets=tuple(f"127.0.0.1:{port}" for port in stack_of_two.ports),
        key=stack_of_two.key,
        interval="1s",
    )
    port = free_port()
    command = (
        need("prometheus"), f"--config.file={config}", f"--storage.tsdb.path={tmp_path}/data",
        f"--web.listen-address=127.0.0.1:{port}",
    )  # fmt: skip
    with (
        (tmp_path / "log").open("w") as log_file,
        httpx.Client(base_url=f"http://127.0.0.1:{port}/api/v1", timeout=20) as api,
        subprocess.Popen(command, stdout=log_file, stderr=log_file) as process,
    ):
        try:
            until(lambda: ask(api, 'sum(up{job="resad"})') == ["2"], 60)
            for number in (0, 1):
                with stack_of_two.client(number) as client:
                    assert client.post("/v1/score", content=photo, headers=JPEG).status_code == 200
            # There is no GPU here.
            cpu_queries = [query for query in queries() if "gpu" not in query]
            until(lambda: all(ask(api, query) for query in cpu_queries), 60)
            until(lambda: all(rule["health"] == "ok" for rule in rules_of(api)), 60)
            assert [rule["name"] for rule in rules_of(api)] == [rule["alert"] for rule in ALERTS]
        finally:
            process.terminate()


def rules_of(api: httpx.Client) -> list[dict[str, str]]:
    return list(api.get("/rules").json()["data"]["groups"][0]["rules"])


def ask(api: httpx.Client, query: str) -> list[str]:
    """The values; none where nothing answers yet."""
    try:
        answer = api.get("/query", params={"query": query})
    except httpx.TransportError:
        return []
    if answer.status_code == 503:  # it is starting
        return []
    document = answer.json()
    assert document["status"] == "success", f"{query}: {document}"
    return [row["value"][1] for row in document["data"]["result"]]


def test_the_volume_is_backed_up_and_brought_back(deployed: Stack, tmp_path: Path) -> None:
    """As in docs/deployment.md."""
    restored_volume = f"{deployed.name}-restored"
    tar = ("run", "--rm", "--network", "none", "--user", "0", "--entrypoint", "tar")
    source, target = f"{deployed.name}-indexes:/indexes:ro", f"{restored_volume}:/indexes"
    file = ("--file", "/backup/indexes.tar", "--directory", "/indexes")
    sums = "cd /indexes && find . -name .work -prune -o -type f -print | sort | xargs sha256sum"
    try:
        docker(
            *tar, "--volume", source, "--volume", f"{tmp_path}:/backup", SERVICE, "--create", *file, "--exclude",
            ".work", ".",
        )  # fmt: skip
        docker(*tar, "--volume", target, "--volume", f"{tmp_path}:/backup:ro", SERVICE, "--extract", *file)
        run_in(SERVICE, "resad-indexer verify /indexes/clinic --device cpu", "--volume", target)
        assert run_in(SERVICE, sums, "--volume", target) == run_in(SERVICE, sums, "--volume", source)
    finally:
        docker("volume", "rm", restored_volume)


def test_a_stopping_container_answers_what_it_has_accepted(deployed: Stack, photo: bytes) -> None:
    container = deployed.compose("ps", "-q", "service").strip()
    with load(deployed.client, photo, callers=2) as traffic:
        until(lambda: traffic.answered >= 3, 60)
        docker("stop", "--time", "40", container)
    # Those that came after it had closed its door were not accepted.
    assert set(traffic.failed) <= {"ConnectError"}
    state = inspect(container)["State"]
    assert (state["ExitCode"], state["OOMKilled"]) == (0, False)
