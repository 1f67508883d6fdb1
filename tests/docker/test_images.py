"""Both images as they are built from docker/Dockerfile: what is in them, and what is not."""

import json
import re

import pytest

from tests.docker.engine import INDEXER, SERVICE, docker, inspect, run_in

pytestmark = [pytest.mark.docker, pytest.mark.usefixtures("images")]


def test_the_images_share_all_layers_but_the_health_check() -> None:
    indexer, service = (inspect(image)["RootFS"]["Layers"] for image in (INDEXER, SERVICE))
    assert service[: len(indexer)] == indexer
    assert len(service) == len(indexer) + 1


def test_nothing_is_left_that_only_building_needs() -> None:
    output = run_in(
        SERVICE,
        "for program in gcc cc g++ make ld nvcc; do command -v $program; done;"
        "find /opt /root /tmp /home /source /requirements 2>/dev/null \\( -name '*.a' -o -name .cache"
        "  -o -name '*.whl' -o -path '*/site-packages/pip' -o -path '*/site-packages/triton' \\);"
        "find /opt -type d \\( -path '*/nvidia/*/include' -o -path '*/torch/include' \\)",
        "--user",
        "0",
    )
    assert output == ""


def test_the_image_has_the_bundled_weights_alone_and_no_index() -> None:
    output = run_in(
        SERVICE,
        "find /indexes /weights -mindepth 1;"
        "find / -xdev \\( -name '*.safetensors' -o -name '*.faiss' -o -name '*.pth' -size +100k \\);"
        "find /opt/resad \\( -name '*.jpg' -o -name 'test_*.py' -o -name .git \\)",
        "--user",
        "0",
    )
    assert output == "/opt/resad/resad/weights/bundled.safetensors"


def test_both_images_run_unprivileged_on_a_read_only_root() -> None:
    restrictions = (
        "--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges:true", "--tmpfs", "/tmp",
    )  # fmt: skip
    for image in (INDEXER, SERVICE):
        output = run_in(
            image,
            "id -u; grep CapEff /proc/self/status; grep NoNewPrivs /proc/self/status;"
            "for place in / /opt/resad /opt/venv /usr/share/resad /var; do"
            "  touch $place/x 2>/dev/null && echo wrote $place;"
            "done; touch /tmp/x && echo wrote /tmp",
            *restrictions,
        )
        assert output.split() == ["10001", "CapEff:", "0" * 16, "NoNewPrivs:", "1", "wrote", "/tmp"]
    assert "Usage" in docker("run", "--rm", "--network", "host", *restrictions, INDEXER, "--help")


def test_labels_and_health_check() -> None:
    for image, title in ((INDEXER, "resad-indexer"), (SERVICE, "resad-service")):
        config = inspect(image)["Config"]
        labels = {name.removeprefix("org.opencontainers.image."): text for name, text in config["Labels"].items()}
        assert labels["title"] == title
        assert labels["licenses"] == "Apache-2.0"
        assert len(labels["revision"]) == 40
        assert "not for diagnosis" in labels["description"]
        assert config["User"] == "10001:10001"
        assert ("Healthcheck" in config) == (image == SERVICE)


def test_the_bill_names_what_is_there() -> None:
    bill = json.loads(run_in(SERVICE, "cat /usr/share/resad/bill.cdx.json"))
    assert bill["bomFormat"] == "CycloneDX"
    assert bill["metadata"]["component"]["name"] == "resad"
    # What is built from this repository has no package URL: no registry has it.
    own = {normal(part["name"]) for part in bill["components"] if "purl" not in part}
    assert own == {"resad-client", "resad-dicom"}
    bill_components = {
        (kind(part["purl"]), normal(part["name"]), part["version"])
        for part in bill["components"]
        if "purl" in part
    }
    python = (
        "from importlib.metadata import distributions as all; print(*{f'{x.name}=={x.version}' for x in all()})"
    )
    distributions = run_in(SERVICE, f'python -c "{python}"').split()
    packages = run_in(SERVICE, "dpkg-query -Wf '${Package}==${Version} '").split()
    installed = {parts(line) for line in distributions}
    image_components = {("pypi", *part) for part in installed if part[0] not in {"resad", *own}}
    image_components |= {("deb", *parts(line)) for line in packages}
    assert {("pypi", "torch"), ("deb", "libc6")} <= {component[:2] for component in image_components}
    assert image_components - bill_components == set()


def kind(url: str) -> str:
    """Of a package URL."""
    return url.removeprefix("pkg:").partition("/")[0]


def parts(line: str) -> tuple[str, str]:
    name, _, version = line.partition("==")
    return normal(name), version


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
