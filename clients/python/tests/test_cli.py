"""The command against a real HTTP server, and what it prints and returns."""

import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
from typer.testing import CliRunner

from playing import BAD, Service, rows, run, service
from resad_client import INTENDED_USE, Result, cli, from_json
from resad_client.maps import with_name
from resad_client.photos import PHOTO_SUFFIXES, unsupported_reason
from samples import EXAMPLE, JPEG, PNG

__all__ = ["service"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    photos = tmp_path / "photos"
    (photos / "b").mkdir(parents=True)
    (photos / "a.jpg").write_bytes(JPEG)
    (photos / "b" / "a.png").write_bytes(PNG)
    (photos / "b" / "bad.jpg").write_bytes(BAD)
    (photos / "broken.jpg").write_bytes(b"no photograph")
    return photos


def test_the_installed_command_from_end_to_end(service: Service, folder: Path, tmp_path: Path) -> None:
    command = Path(sys.executable).with_name("resad-client")
    key_file = tmp_path / "key"
    key_file.write_text("secret-key\n")
    words: list[str | Path] = [
        command, "score", folder, folder / "a.jpg", tmp_path / "absent.jpg",
        "--url", service.url, "--index", "idrid", "--fpr", "0.05",
        "--key-file", key_file, "--json", tmp_path / "json", "--overlays", tmp_path / "overlays",
    ]  # fmt: skip
    process = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert process.returncode == 2, process.stderr
    assert rows(process.stdout) == [
        ["a.jpg", "2.314", "0.0196", "abnormal", "1"],
        ["b/a.png", "2.314", "-", "-?", "1"],
    ]
    assert "  b/a.png: no-field-of-view\n" in process.stdout
    assert INTENDED_USE in process.stdout
    errors = process.stderr.splitlines()
    assert (
        "b/bad.jpg: 422 Some trouble: 31.2 MB, the limit is 25 MB (request 01J7); to go on: replace it by one "
        "that is whole and shows a retina, then repeat the command with --resume"
    ) in errors
    mend = "; to go on: correct its path, mend it or replace it, then repeat the command with --resume"
    assert f"{folder}/broken.jpg: {unsupported_reason(b'no photograph')}{mend}" in errors
    assert f"{tmp_path}/absent.jpg: cannot be read (No such file or directory){mend}" in errors
    assert "no verdict: a rate of 0.05 needs 19 normal photographs" in errors
    assert errors[-1] == "resad-client: 3 of 5 photographs could not be scored"
    answers = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.json"))
    assert answers == ["json/a.json", "json/b/a.json"]
    assert from_json(Result, (tmp_path / "json/a.json").read_bytes()) == from_json(Result, EXAMPLE)
    pictures = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.png"))
    assert pictures[:2] == ["overlays/a_overlay.png", "overlays/b/a_overlay.png"]
    assert (tmp_path / "overlays/b/a_overlay.png").read_bytes() == with_name(PNG, "b/a.png")
    assert len(service.requests) == 4  # three that were sent, one of them twice; a.jpg was named twice
    for path, query, headers in service.requests:
        assert (path, query) == ("/v1/score", {"index": ["idrid"], "fpr": ["0.05"], "map": ["overlay"]})
        assert headers["Authorization"] == "Bearer secret-key"
    assert "secret-key" not in process.stdout + process.stderr


def test_one_photograph_with_its_overlay(
    service: Service,
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("RESAD_KEY", "from-the-variable")
    out = tmp_path / "new" / "out.png"
    assert run(monkeypatch, "score", folder / "a.jpg", "--url", service.url, "--overlay", out) == 0
    assert out.read_bytes() == with_name(PNG, "a.jpg")
    assert rows(capsys.readouterr().out) == [["a.jpg", "2.314", "0.0196", "abnormal", "1"]]
    assert {headers["Authorization"] for _, _, headers in service.requests} == {"Bearer from-the-variable"}


def test_the_readmes_lines_run(service: Service, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    readme = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    blocking, awaited = (block.split("```")[0] for block in readme.split("```python\n")[1:])
    (folder / "photo.jpg").write_bytes(JPEG)
    monkeypatch.chdir(folder)

    def output_of(program: str) -> str:
        assert program.count("http://127.0.0.1:8000") == 1
        words = [sys.executable, "-c", program.replace("http://127.0.0.1:8000", service.url)]
        return subprocess.run(words, capture_output=True, text=True, timeout=60, check=True).stdout

    assert output_of(blocking) == "2.314 True [(2960, 1330, 3071, 1422)]\n"
    assert (folder / "overlay.png").read_bytes() == PNG
    assert output_of(awaited) == "2.314 True\n"
    assert not any("Authorization" in headers for _, _, headers in service.requests)
    service.requests.clear()
    # With the key that the README's session has in its environment.
    monkeypatch.setenv("RESAD_KEY", "from-the-variable")
    output_of(blocking)
    output_of(awaited)
    assert [headers["Authorization"] for _, _, headers in service.requests] == ["Bearer from-the-variable"] * 2


def test_without_files_no_picture_is_asked_for(
    service: Service, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(monkeypatch, "score", folder / "a.jpg", "--url", service.url) == 0
    assert service.requests[-1][1] == {}


def test_every_option_of_the_contract_is_sent(
    service: Service, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = run(
        monkeypatch, "score", folder / "a.jpg", "--url", service.url, "--index", "idrid", "--threshold", 1.5,
        "--false-regions", 2, "--camera", "Kowa", "--evidence", 0, "--eye", "left", "--require-quality",
        "--overlay", tmp_path / "out.png", "--size", 512, "--layout", "side",
    )  # fmt: skip
    assert code == 0
    assert service.requests[-1][1] == {
        "index": ["idrid"], "threshold": ["1.5"], "false_regions": ["2.0"], "camera": ["Kowa"],
        "quality": ["require"], "evidence": ["0"],
        "map": ["overlay"], "size": ["512"], "layout": ["side"], "eye": ["left"],
    }  # fmt: skip


def test_a_camera_without_enough_normals_is_reported(
    service: Service, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "score", folder / "a.jpg", "--url", service.url, "--camera", "Kowa") == 0
    assert capsys.readouterr().err == "--camera Kowa: no normal photographs of this camera\n"


def test_indexes(service: Service, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(monkeypatch, "indexes", "--url", service.url) == 0
    output = capsys.readouterr()
    assert rows(output.out) == [
        ["idrid[1]", "v2", "serving", "resnet18", "-", "16,384"],
        ["other", "-", "failed", "-", "-", "-"],
    ]
    assert INTENDED_USE in output.out
    assert output.err == "other: manifest.json is missing\n"


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (("--key-file", "wrong"), "401 Some trouble"),
        (("--index", "two"), "several are served: add --index NAME, one of idrid, other"),
    ],
)
def test_an_error_that_every_photograph_would_get_ends_the_run(
    service: Service,
    folder: Path,
    words: tuple[str, str],
    hint: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    service.busy = 0
    (folder / "wrong").write_text("wrong")
    monkeypatch.chdir(folder)
    large_folder = folder / "many"
    large_folder.mkdir()
    for number in range(9):
        (large_folder / f"{number}.jpg").write_bytes(JPEG)
    code = run(monkeypatch, "score", large_folder, "--url", service.url, *words, "--concurrency", 1)
    assert code == 2
    assert len(service.requests) == 1
    errors = capsys.readouterr().err
    assert "resad-client: stopped after 0 of 9 photographs: 4" in errors
    assert hint in errors


def test_a_folder_without_photographs_is_said_to_be_one(
    service: Service, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    empty = folder / "empty"
    empty.mkdir()
    words = (empty, "--url", service.url, "--csv", folder / "out.csv")
    assert run(monkeypatch, "score", *words) == 2
    suffixes = f"(looked for {', '.join(PHOTO_SUFFIXES)})"
    assert capsys.readouterr().err == f"resad-client: {empty}: no photographs in it {suffixes}\n"
    assert not (folder / "out.csv").exists()
    # Beside photographs it is told at the end, and counts for none of them.
    assert run(monkeypatch, "score", folder / "a.jpg", *words) == 2
    output = capsys.readouterr()
    assert rows(output.out) == [["a.jpg", "2.314", "0.0196", "abnormal", "1"]]
    assert output.err.splitlines() == [
        f"{empty}: no photographs in it {suffixes}",
        "resad-client: 1 of the given paths had no photographs",
    ]


def test_nobody_answers(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with Service() as server:
        url = server.url
    assert run(monkeypatch, "indexes", "--url", url) == 2
    assert f"resad-client: no answer from {url}: " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--fpr", "1.5"], "--fpr 1.5: a rate lies between 0 and 1"),
        (["--threshold", "0"], "--threshold 0: a score is above 0 and finite"),
        (["--false-regions", "0"], "--false-regions 0: a rate of findings is above 0 and finite"),
        (["--threshold", "inf"], "--threshold inf: a score is above 0 and finite"),
        (["--fpr", "0.1", "--threshold", "2"], "--fpr and --threshold exclude each other: give one of them"),
        (["--evidence", "51"], "--evidence"),
        (["--overlay", "out.png"], "--overlay is for one photograph, there are 4: use --overlays FOLDER"),
        (["--overlay", "out.png", "--overlays", "out"], "--overlay and --overlays: one of them"),
        (["--url", "localhost"], "'localhost' is no address of a service"),
        (["--key-file", "two-words"], "the key is empty or holds"),
        (["--key-file", "nowhere"], "--key-file nowhere cannot be read"),
        (["--concurrency", "0"], "--concurrency"),
    ],
)
def test_impossible_values_are_refused_before_anything_is_sent(
    folder: Path,
    words: list[str],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(folder)
    (folder / "two-words").write_text("two words")
    assert run(monkeypatch, "score", folder, *words) == 2
    assert message in capsys.readouterr().err


def test_importing_it_loads_neither_the_method_nor_its_libraries() -> None:
    code = (
        "import sys, resad_client, resad_client.cli; print(*sorted({name.split('.')[0] for name in sys.modules}))"
    )
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    modules = set(process.stdout.split())
    assert "resad_client" in modules
    assert not modules & {"torch", "faiss", "resad", "indexer", "service", "scipy", "skimage"}


def test_the_version() -> None:
    outcome = CliRunner().invoke(cli.app, ["--version"])
    assert (outcome.exit_code, outcome.output) == (0, f"resad-client {version('resad-client')}\n")
