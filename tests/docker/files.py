"""The files that deploy, and the programs that check or run them."""

import json
import os
import shutil
import subprocess
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

ROOT: Final = Path(__file__).parents[2]
DOCKER: Final = ROOT / "docker"
COMPOSE: Final = ("-f", str(ROOT / "docker-compose.yml"))
CPU: Final = (*COMPOSE, "-f", str(DOCKER / "compose.cpu.yml"))
PROFILES: Final = ("indexer", "edge", "dicom", "monitoring")
ALERTS: Final = yaml.safe_load((DOCKER / "monitoring/alerts.yml").read_text())["groups"][0]["rules"]


@cache
def compose_program() -> tuple[str, ...] | None:
    """Compose 2 where the engine's client has it, else docker-compose."""
    if (
        shutil.which("docker")
        and subprocess.run(("docker", "compose", "version"), capture_output=True).returncode == 0
    ):
        return ("docker", "compose")
    return ("docker-compose",) if shutil.which("docker-compose") else None


def compose(*arguments: str, **variables: str) -> str:
    """What it prints; fails the test with what it complains of."""
    program = compose_program()
    if program is None:
        pytest.skip("docker-compose is not installed")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RESAD_")}
    return output(*program, *arguments, env=environment | variables)


def compose_config(files: tuple[str, ...], **variables: str) -> dict[str, Any]:
    """All profiles of the compose files as one, with every variable filled in."""
    profiles = (word for name in PROFILES for word in ("--profile", name))
    config: dict[str, Any] = yaml.safe_load(compose(*files, *profiles, "config", **variables))
    return config


def output(*command: str, env: Mapping[str, str] | None = None, cwd: Path | None = None) -> str:
    """stdout of a command; a failure shows all that it said."""
    process = subprocess.run(command, capture_output=True, text=True, env=env, cwd=cwd)
    assert process.returncode == 0, f"{' '.join(command)}\n{process.stdout}\n{process.stderr}"
    return process.stdout


def need(program: str) -> str:
    """Where it is; skips the test where it is not installed."""
    path = shutil.which(program) or shutil.which(program, path="/usr/sbin")
    if path is None:
        pytest.skip(f"{program} is not installed")
    return path


def monitoring(folder: Path, *, key: str = "key", targets: tuple[str, ...] = (), interval: str = "") -> Path:
    """Prometheus' configuration with its rules, in `folder`; the options replace what it has."""
    (folder / "metrics_key").write_text(key)
    text = (DOCKER / "monitoring/prometheus.yml").read_text()
    assert "/run/secrets/metrics_key" in text
    config = yaml.safe_load(text.replace("/run/secrets/metrics_key", str(folder / "metrics_key")))
    if interval:
        config["global"] = {"scrape_interval": interval, "evaluation_interval": interval}
    if targets:
        [job] = config["scrape_configs"]
        del job["dns_sd_configs"]
        job["static_configs"] = [{"targets": list(targets)}]
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    shutil.copy(DOCKER / "monitoring/alerts.yml", folder)
    return folder / "prometheus.yml"


def board() -> dict[str, Any]:
    """Grafana's."""
    document: dict[str, Any] = json.loads((DOCKER / "monitoring/grafana/boards/resad.json").read_text())
    return document


def queries() -> list[str]:
    """Of the board, for any container and over five minutes."""
    expressions = [target["expr"] for panel in board()["panels"] for target in panel.get("targets", ())]
    return [query.replace("$instance", ".*").replace("$__rate_interval", "5m") for query in expressions]
