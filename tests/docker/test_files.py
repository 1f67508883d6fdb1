"""What is in docker/ says what it should, by the tools that read it; no engine is needed."""

import json
import re
import shutil
import sys
import tomllib
from importlib.metadata import requires
from pathlib import Path
from typing import Any, Final

import kubernetes_validate
import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.docker.files import (
    ALERTS,
    COMPOSE,
    CPU,
    DOCKER,
    ROOT,
    board,
    compose_config,
    monitoring,
    need,
    output,
    queries,
)

BIN: Final = Path(sys.executable).parent


@pytest.mark.parametrize("files", [COMPOSE, CPU], ids=["gpu", "cpu"])
def test_every_container_is_contained(files: tuple[str, ...]) -> None:
    services = compose_config(files)["services"]
    assert set(services) == {"service", "indexer", "edge", "dicom", "orthanc", "prometheus", "grafana"}
    for name, service in services.items():
        assert service["read_only"], name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["mem_limit"], name
        assert service["pids_limit"], name
        assert service["restart"] == ("no" if name == "indexer" else "unless-stopped"), name
        assert not service["image"].endswith(":latest"), name


def test_the_second_file_takes_the_gpu_away() -> None:
    for name in ("service", "indexer"):
        with_gpu, without_gpu = (compose_config(files)["services"][name] for files in (COMPOSE, CPU))
        assert with_gpu["runtime"] == "nvidia"
        assert with_gpu["environment"]["NVIDIA_VISIBLE_DEVICES"] == "0"
        assert without_gpu["runtime"] == "runc"
        assert without_gpu["environment"]["NVIDIA_VISIBLE_DEVICES"] == "void"
        assert volumes(with_gpu) == volumes(without_gpu)
        changed_keys = {key for key in with_gpu if with_gpu[key] != without_gpu[key]} - {"volumes"}
        assert changed_keys == {"runtime", "environment"}
    assert compose_config(CPU)["services"]["service"]["environment"]["RESAD_DEVICE"] == "cpu"


def test_the_service_reads_the_volume_that_the_indexer_writes() -> None:
    services = compose_config(COMPOSE)["services"]
    mounts = {name: volumes(services[name]) for name in ("service", "indexer")}
    assert mounts["service"]["/indexes"] == ("indexes", "ro")
    assert mounts["indexer"]["/indexes"] == ("indexes", "rw")
    assert mounts["indexer"]["/photos"][1] == "ro"


def volumes(service: dict[str, Any]) -> dict[str, tuple[str, str]]:
    """Target -> source, mode; Compose 2 writes them out, docker-compose 1 in short."""
    mounts = {}
    for volume in service["volumes"]:
        if isinstance(volume, dict):
            mounts[volume["target"]] = (volume["source"], "ro" if volume.get("read_only") else "rw")
        else:
            source, target, mode = volume.split(":")
            mounts[target] = (source, mode)
    return mounts


def test_nothing_but_the_edge_is_published_beyond_this_machine() -> None:
    for name, service in compose_config(COMPOSE)["services"].items():
        for port in service.get("ports", ()):
            local = port.get("host_ip") == "127.0.0.1" if isinstance(port, dict) else port.startswith("127.0.0.1:")
            assert local or name == "edge", name


def test_every_variable_is_explained() -> None:
    compose = (ROOT / "docker-compose.yml").read_text() + (DOCKER / "compose.cpu.yml").read_text()
    table = re.findall(r"^\| (`RESAD_.*?) \|", (ROOT / "docs/deployment.md").read_text(), re.MULTILINE)
    documented_names = {name for row in table for name in re.findall(r"RESAD_\w+", row)}
    assert documented_names == set(re.findall(r"\$\{(RESAD_\w+)", compose))


def test_compose_builds_the_targets_and_arguments_that_there_are() -> None:
    dockerfile = (DOCKER / "Dockerfile").read_text()
    for name in ("service", "indexer", "dicom"):
        build = compose_config(COMPOSE)["services"][name]["build"]
        assert (build["target"], build["context"]) == (name, str(ROOT))
        assert f"AS {name}\n" in dockerfile
        assert set(build["args"]) <= set(re.findall(r"^ARG (\w+)", dockerfile, re.MULTILINE))


def test_compose_files_fit_the_specification() -> None:
    output(
        str(BIN / "check-jsonschema"), "--builtin-schema", "vendor.compose-spec",
        str(ROOT / "docker-compose.yml"), str(DOCKER / "compose.cpu.yml"),
    )  # fmt: skip


def test_the_dockerfile_is_as_its_linter_wants_it() -> None:
    output(str(BIN / "hadolint"), str(DOCKER / "Dockerfile"))


def test_prometheus_takes_its_configuration(tmp_path: Path) -> None:
    output(need("promtool"), "check", "config", str(monitoring(tmp_path)))


def test_every_alert_fires_when_it_should_and_only_then(tmp_path: Path) -> None:
    promtool = need("promtool")
    shutil.copy(DOCKER / "monitoring/alerts.yml", tmp_path)
    shutil.copy(Path(__file__).parent / "alerts_test.yml", tmp_path)
    output(promtool, "test", "rules", str(tmp_path / "alerts_test.yml"))
    tests = [
        test
        for group in yaml.safe_load((tmp_path / "alerts_test.yml").read_text())["tests"]
        for test in group["alert_rule_test"]
    ]
    for rule in ALERTS:
        firing = {bool(test.get("exp_alerts")) for test in tests if test["alertname"] == rule["alert"]}
        assert firing == {True, False}, rule["alert"]


def test_board_and_alerts_ask_for_what_the_service_tells() -> None:
    service_metrics = set(
        re.findall(r'"(resad_[a-z_]+)"', "".join(path.read_text() for path in ROOT.glob("service/*.py")))
    )
    queried_metrics = set(
        re.findall(r"\bresad_[a-z_]+", " ".join([*queries(), *(rule["expr"] for rule in ALERTS)]))
    )
    assert len(queried_metrics) > 15
    assert {re.sub(r"_(bucket|sum|count|total)$", "", name) for name in queried_metrics} <= service_metrics


def test_grafana_finds_its_board_and_its_source() -> None:
    """As JSON and YAML alone: there is no Grafana here to load them."""
    grafana = DOCKER / "monitoring/grafana"
    [source] = yaml.safe_load((grafana / "provisioning/datasources/prometheus.yml").read_text())["datasources"]
    [provider] = yaml.safe_load((grafana / "provisioning/dashboards/resad.yml").read_text())["providers"]
    mounts = volumes(compose_config(COMPOSE)["services"]["grafana"])
    assert mounts[provider["options"]["path"]][0] == str(grafana / "boards")
    panels = board()["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    for panel in panels:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        for target in panel.get("targets", ()):
            assert target["datasource"]["uid"] == source["uid"]
    panel_cells = [cell for panel in panels for cell in cells(panel["gridPos"])]
    assert len(set(panel_cells)) == len(panel_cells), "two panels overlap"


def cells(place: dict[str, int]) -> list[tuple[int, int]]:
    columns = range(place["x"], place["x"] + place["w"])
    return [(x, y) for x in columns for y in range(place["y"], place["y"] + place["h"])]


@pytest.mark.parametrize("version", ["1.31", "1.37"])
@pytest.mark.parametrize("variant", ["gpu", "cpu", "indexer"])
def test_manifests_fit_the_schemas_of_kubernetes(variant: str, version: str) -> None:
    documents = manifests(variant)
    assert len(documents) == (1 if variant == "indexer" else 9)
    for document in documents:
        kubernetes_validate.validate(document, version, strict=True)


def test_pods_run_as_the_image_is_meant_to() -> None:
    [job] = manifests("indexer")
    [deployment] = [document for document in manifests("gpu") if document["kind"] == "Deployment"]
    for workload in (job, deployment):
        pod = workload["spec"]["template"]["spec"]
        [container] = pod["containers"]
        assert pod["securityContext"]["runAsUser"] == 10001
        assert container["securityContext"]["readOnlyRootFilesystem"]
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        assert container["resources"]["limits"]["nvidia.com/gpu"] == "1"
        claims = {volume["name"] for volume in pod["volumes"]}
        assert {mount["name"] for mount in container["volumeMounts"]} == claims
    assert "nvidia" not in json.dumps(manifests("cpu"))


def manifests(variant: str) -> list[dict[str, Any]]:
    text = output(str(BIN / "kubectl"), "kustomize", str(DOCKER / "kubernetes" / variant))
    return list(yaml.safe_load_all(text))


def test_the_image_gets_every_dependency_once_and_torch_first(tmp_path: Path) -> None:
    lists = requirement_lists(tmp_path)
    server, *clients = (
        tomllib.loads((ROOT / folder / "pyproject.toml").read_text())["project"]
        for folder in (".", "clients/python", "clients/dicom")
    )
    lines = [line for project in reversed(clients) for line in project["dependencies"]]
    lines += server["optional-dependencies"]["dicom"] + server["dependencies"]
    requirements = {name_in(line): line for line in lines if name_in(line) != "resad-client"}
    assert sorted(lists["gpu"] + lists["rest"]) == sorted(requirements.values())
    assert [line.split(">")[0] for line in lists["gpu"]] == ["torch", "torchvision", "faiss-gpu"]
    lock = [line for line in (ROOT / "requirements.lock").read_text().splitlines() if not line.startswith("#")]
    assert lists["constraints"] == lock
    # All that the large layer brings is pinned in it, and a change to the rest leaves it alone.
    gpu_packages = {name_in(line) for line in lock} & dependencies_of(lists["gpu"])
    assert {name_in(line) for line in lists["gpu-constraints"]} == gpu_packages


def test_another_torch_comes_without_the_locks_cuda(tmp_path: Path) -> None:
    lists = requirement_lists(tmp_path, "--torch", "2.8.0", "--faiss", "faiss-cpu")
    assert "torch==2.8.0" in lists["constraints"]
    assert not [
        line for line in lists["constraints"] if line.startswith(("nvidia", "cuda", "triton", "torchvision"))
    ]
    assert "faiss-cpu>=1.13" in lists["gpu"]


def requirement_lists(folder: Path, *arguments: str) -> dict[str, list[str]]:
    output(sys.executable, str(DOCKER / "requirements.py"), str(folder), *arguments, cwd=ROOT)
    return {path.stem: path.read_text().splitlines() for path in folder.glob("*.txt")}


def dependencies_of(requirements: list[str]) -> set[str]:
    """The distributions that they bring along, as installed here."""
    distributions: set[tuple[str, str]] = set()
    pending = [(Requirement(line), "") for line in requirements]
    while pending:
        requirement, extra = pending.pop()
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": extra}):
            continue
        for part in ("", *requirement.extras):
            key = (canonicalize_name(requirement.name), part)
            if key not in distributions:
                distributions.add(key)
                pending += [(Requirement(line), part) for line in requires(requirement.name) or ()]
    return {name for name, _ in distributions}


def name_in(line: str) -> str:
    return canonicalize_name(Requirement(line).name)
