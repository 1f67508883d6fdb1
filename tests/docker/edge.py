"""The edge's own configuration on this machine's nginx, before services on ports of this machine."""

import os
import re
import ssl
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from tests.docker.files import DOCKER, need, output
from tests.ports import free_port
from tests.service.running import until


@dataclass(frozen=True, slots=True)
class Edge:
    """url: over TLS.  tls: trusts its certificate."""

    url: str
    tls: ssl.SSLContext

    def client(self, seconds: float = 60) -> httpx.Client:
        return httpx.Client(base_url=self.url, verify=self.tls, timeout=seconds)


def fixed_services(ports: Sequence[int]) -> str:
    """In place of services.conf: services on ports of this machine, which no name server can tell apart."""
    servers = "".join(f"    server 127.0.0.1:{port};\n" for port in ports)
    return f'upstream all {{\n{servers}}}\nmap "" $services {{ default all; }}\n'


def services_by_name(name_server: int, port: int) -> str:
    """The real services.conf, which asks a name server on `name_server` for services that all listen on `port`."""
    text = (DOCKER / "edge/services.conf").read_text()
    for original, local in {"127.0.0.11": f"127.0.0.1:{name_server}", "service:8000": f"service:{port}"}.items():
        assert original in text, original
        text = text.replace(original, local)
    return text


@contextmanager
def edge(folder: Path, services: str, *, faster: int = 1) -> Iterator[Edge]:
    """nginx with docker/edge/nginx.conf, word for word but for the paths and ports that belong to a container.

    services: what services.conf says.  faster: divides how long it waits for services.
    """
    nginx = need("nginx")
    port, liveness_port = free_port(), free_port()
    make_certificate(folder)
    text = (DOCKER / "edge/nginx.conf").read_text()
    replacements = {
        " /tmp/": f" {folder}/",
        "/run/secrets/edge_certificate": folder / "edge.crt",
        "/run/secrets/edge_key": folder / "edge.key",
        "listen 8443": f"listen 127.0.0.1:{port}",
        "127.0.0.1:8081": f"127.0.0.1:{liveness_port}",
        "/dev/stdout": folder / "calls.log",
    }
    for original, local in replacements.items():
        assert original in text, original
        text = text.replace(original, str(local))
    text = re.sub(
        r"(proxy_\w+_timeout) (\d+)s;", lambda match: f"{match[1]} {1000 * int(match[2]) // faster}ms;", text
    )
    (folder / "nginx.conf").write_text(text)
    (folder / "services.conf").write_text(services)
    # Started by root it would give its workers to another user, who may not enter the folder.
    directives = "daemon off;" + (" user root;" if os.getuid() == 0 else "")
    with (folder / "edge.log").open("w") as log:
        process = subprocess.Popen(
            (nginx, "-c", folder / "nginx.conf", "-e", "stderr", "-g", directives), stderr=log, stdout=log
        )
        try:
            until(lambda: process.poll() is not None or answers(f"http://127.0.0.1:{liveness_port}/livez"))
            assert process.poll() is None, (folder / "edge.log").read_text()
            yield Edge(f"https://localhost:{port}", ssl.create_default_context(cafile=folder / "edge.crt"))
        finally:
            process.terminate()
            process.wait(20)


def make_certificate(folder: Path) -> None:
    """As docs/deployment.md makes one to try with."""
    output(
        need("openssl"), "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "30", "-subj", "/CN=localhost",
        "-addext", "subjectAltName=DNS:localhost", "-keyout", str(folder / "edge.key"),
        "-out", str(folder / "edge.crt"),
    )  # fmt: skip


def answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=5).status_code == 200
    except httpx.TransportError:
        return False
