"""The engine of this machine: images, containers, and the compose file as it is but for the network.

Containers use the host's network here and listen on its loopback address alone, so that an engine without a bridge
will do; published ports are therefore not tested.
"""

import copy
import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx
import yaml

from tests.docker.files import CPU, DOCKER, ROOT, compose, compose_config, output
from tests.ports import free_port
from tests.service.running import until

TAG: Final = "test"
INDEXER: Final = f"resad-indexer:{TAG}"
SERVICE: Final = f"resad-service:{TAG}"
BASE: Final = os.environ.get("RESAD_BASE_IMAGE", "python:3.11-slim-bookworm")
START_S: Final = 240
"""A container may take to load torch and an index on a busy machine."""


def docker(*arguments: str) -> str:
    """What the engine's client prints."""
    return output("docker", *arguments).strip()


def inspect(name: str) -> dict[str, Any]:
    """Everything that is known of a container or an image."""
    [description] = json.loads(docker("inspect", name))
    return dict(description)


def build_images() -> None:
    """Both targets from the one Dockerfile, with its defaults but for the base (`RESAD_BASE_IMAGE`)."""
    revision = output("git", "rev-parse", "HEAD", cwd=ROOT).strip()
    for target, tag in (("indexer", INDEXER), ("service", SERVICE)):
        docker(
            "build", "--network", "host", "--target", target, "--tag", tag, "--file", str(DOCKER / "Dockerfile"),
            "--build-arg", f"BASE_IMAGE={BASE}", "--build-arg", f"REVISION={revision}", str(ROOT),
        )  # fmt: skip


def run_in(image: str, script: str, *options: str) -> str:
    """What a shell in a fresh container prints."""
    return docker("run", "--rm", "--network", "host", *options, "--entrypoint", "sh", image, "-c", script)


def kill(container: str) -> None:
    """As the kernel does when memory is short; `docker kill` is an order, after which nothing is restarted."""
    process = inspect(container)["State"]["Pid"]
    run_in(SERVICE, f"kill -9 {process}", "--pid", "host", "--user", "0")


@dataclass(frozen=True, slots=True)
class Stack:
    """The project's compose file, CPU variant, with a second container of the service.

    ports: of `service` and `service-b`.  key: opens every call.
    """

    file: Path
    name: str
    ports: tuple[int, int]
    key: str

    def compose(self, *arguments: str) -> str:
        return compose("-p", self.name, "-f", str(self.file), *arguments)

    def indexer(self, *arguments: str) -> str:
        """The one-shot profile."""
        return self.compose("run", "--rm", "-T", "indexer", *arguments)

    def up(self, service: str) -> str:
        """Start it and wait until the engine calls it healthy; its container's name."""
        self.compose("up", "-d", "--no-deps", service)
        container = self.compose("ps", "-q", service).strip()
        until(lambda: self.health(container) == "healthy", START_S)
        return container

    def health(self, container: str) -> str:
        return str(inspect(container)["State"]["Health"]["Status"])

    def client(self, number: int = 0, seconds: float = 60) -> httpx.Client:
        """Of one container, with the key."""
        return httpx.Client(
            base_url=f"http://127.0.0.1:{self.ports[number]}",
            timeout=seconds,
            headers={"Authorization": f"Bearer {self.key}"},
        )

    def version(self, number: int = 0) -> str:
        """Which answers."""
        with self.client(number) as client:
            return str(client.get("/v1/indexes/clinic").json()["version"])


def make_key(folder: Path) -> str:
    """One that opens every call, made as docs/deployment.md makes it."""
    folder.mkdir()
    scopes = (word for scope in ("score", "evidence", "admin", "metrics") for word in ("--scope", scope))
    key = docker(
        "run", "--rm", "--network", "host", "--user", f"{os.getuid()}:{os.getgid()}",
        "--volume", f"{folder}:/secrets", "--entrypoint", "resad-keys", SERVICE,
        "add", "/secrets/resad_keys.json", "test", *scopes,
    )  # fmt: skip
    # The container's user is another one; what it reads are hashes.
    (folder / "resad_keys.json").chmod(0o444)
    return key


@contextmanager
def stack(folder: Path, photos: Path) -> Iterator[Stack]:
    """Nothing of it runs yet; at the end no container and no volume of it is left."""
    name = f"resad-test-{secrets.token_hex(3)}"
    keys = folder / "secrets"
    key = make_key(keys)
    config = compose_config(
        CPU, RESAD_TAG=TAG, RESAD_INDEXES=f"{name}-indexes", RESAD_WEIGHTS=f"{name}-weights", RESAD_MEMORY="6g",
        RESAD_INDEXER_MEMORY="6g", RESAD_PHOTOS=str(photos), RESAD_SECRETS=str(keys), RESAD_INDEXES_MODE="rw",
    )  # fmt: skip
    deployment = Stack(folder / "compose.yml", name, (free_port(), free_port()), key)
    deployment.file.write_text(yaml.safe_dump(with_host_network(config, deployment.ports)))
    try:
        yield deployment
    finally:
        deployment.compose("down", "--volumes", "--timeout", "5")


def with_host_network(config: dict[str, Any], ports: tuple[int, int]) -> dict[str, Any]:
    """The same services, bound to loopback addresses of the host, the second on a port of its own."""
    services = {name: config["services"][name] for name in ("service", "indexer")}
    services["service-b"] = copy.deepcopy(services["service"])
    for name, port in zip(("service", "service-b"), ports, strict=True):
        del services[name]["ports"]
        services[name]["environment"] |= {"RESAD_HOST": "127.0.0.1", "RESAD_PORT": str(port)}
    for service in services.values():
        service.pop("build")
        service.pop("networks", None)
        service["network_mode"] = "host"
    volume_names = {"indexes", "weights"}
    volumes = {name: volume for name, volume in config["volumes"].items() if name in volume_names}
    return {"services": services, "volumes": volumes, "secrets": {"resad_keys": config["secrets"]["resad_keys"]}}
