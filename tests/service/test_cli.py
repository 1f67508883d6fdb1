"""`resad-service` that cannot start: exit code 2, and one line that says what to mend; and what it says first."""

import json
import resource
import socket
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import pytest

from service import cli

Run = Callable[..., str]


@pytest.fixture
def start_error(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    for name in ("RESAD_ROOT", "RESAD_HOST", "RESAD_PORT", "RESAD_INSECURE"):
        monkeypatch.delenv(name, raising=False)

    def run(*arguments: object) -> str:
        monkeypatch.setattr(sys, "argv", ["resad-service", *map(str, arguments)])
        with pytest.raises(SystemExit) as exit_info:
            cli.main()
        assert exit_info.value.code == 2
        err = capsys.readouterr().err
        assert len(err.strip().splitlines()) == 1
        assert err.startswith("resad-service: ")
        return err

    return run


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "--root or RESAD_ROOT"),
        (("--root", "nowhere"), "nowhere is not a folder"),
        (("--root", ".", "--host", "0.0.0.0"), "--insecure"),
        (("--root", ".", "--device", "tpu"), "tpu"),
        (("--root", ".", "--queue-size", "0"), "--queue-size"),
    ],
)
def test_what_cannot_start_says_why_in_one_line(start_error: Run, arguments: tuple[str, ...], words: str) -> None:
    assert words in start_error(*arguments)


def test_an_index_is_no_root(start_error: Run, root: Path) -> None:
    (index,) = (folder for folder in root.iterdir() if (folder / "CURRENT").is_file())
    assert f"is an index; --root names the folder that holds it: {root}" in start_error("--root", index)


def test_a_port_in_use_is_named(start_error: Run, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        assert str(port) in start_error("--root", tmp_path, "--device", "cpu", "--port", port)


def test_a_root_without_an_index_is_told_at_once(command: Path, tmp_path: Path) -> None:
    words = (str(command), "--root", str(tmp_path), "--port", "0", "--device", "cpu")
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as service:
        assert service.stdout is not None
        assert "http://127.0.0.1:" in service.stdout.readline()
        assert service.stderr is not None
        line = service.stderr.readline()
        service.terminate()
    assert f"no index under {tmp_path}; one that is built there is served" in line
    assert json.loads(line)["level"] == "warning"


REFUSALS = {
    "--root nowhere": "nowhere is not a folder",
    "--root . --port 99999": "port: ",
    "--root . --host 0.0.0.0": "--keys-file",
    "--root . --device tpu": "tpu",
    "--root . --keys-file nowhere": "the keys file nowhere cannot be read",
}
PROGRAM = "import sys; from service.{module} import main; sys.argv = ['command', *{words}]; main()"


def cpu_seconds(module: str, *words: str) -> tuple[float, subprocess.CompletedProcess[str]]:
    """CPU seconds of a command in a process of its own, and what it printed."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    code = PROGRAM.format(module=module, words=list(words))
    process = subprocess.run((sys.executable, "-c", code), capture_output=True, text=True, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, process


@pytest.mark.parametrize(("module", "name"), [("cli", "resad-service"), ("keys", "resad-keys")])
@pytest.mark.parametrize("option", ["--help", "--version"])
def test_help_and_version_are_quick(module: str, name: str, option: str) -> None:
    seconds, process = cpu_seconds(module, option)
    assert process.returncode == 0
    assert f"{name} {version('resad')}" in process.stdout if option == "--version" else "Usage" in process.stdout
    assert seconds < 1


@pytest.mark.parametrize("words", REFUSALS)
def test_a_refusal_is_quick(words: str) -> None:
    seconds, process = cpu_seconds("cli", *words.split())
    assert process.returncode == 2
    assert REFUSALS[words] in process.stderr
    assert seconds < 1


def test_a_port_in_use_is_refused_quickly(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = str(listener.getsockname()[1])
        seconds, process = cpu_seconds("cli", "--root", str(tmp_path), "--device", "cpu", "--port", port)
    assert process.returncode == 2
    assert port in process.stderr
    assert seconds < 1
