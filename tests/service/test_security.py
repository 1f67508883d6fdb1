"""Keys: who may call what, taken up as the file changes, and nothing of a key anywhere."""

import json
import logging
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from resad_client.files import locked
from typer.testing import CliRunner

from resad.errors import SettingError
from service import keys
from service.keys import SCOPES, KeyRecord, Scope, new_key, read_keys, sha256_of, write_keys
from service.problems import CALL_OFF, Refusal
from service.security import Guard, KeyRing
from tests.readme_session import README
from tests.service.running import JPEG, Served, bearer, served, until
from tests.service.test_problems import check

CALLS = (
    ("POST", "/v1/score", ("score",)),
    ("POST", "/v1/anomaly-map", ("score",)),
    ("GET", "/v1/indexes", ("score", "admin")),
    ("GET", "/v1/indexes/drawn", ("score", "admin")),
    ("PUT", "/v1/indexes/drawn/current", ("admin",)),
    ("GET", "/metrics", ("metrics", "admin")),
)
OPEN = ("/livez", "/readyz", "/", "/docs", "/openapi.json")
KEYS: dict[Scope, str] = {scope: new_key() for scope in SCOPES}
HASH = "0" * 64


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("keys") / "keys.json"
    write_keys(path, [KeyRecord(f"of-{scope}", sha256_of(key), (scope,)) for scope, key in KEYS.items()])
    return path


@pytest.fixture(scope="module")
def keyed_service(root: Path, file: Path) -> Iterator[Served]:
    with served(root, keys_file=file) as service:
        yield service


def ask(service: Served, method: str, path: str, photo: bytes, key: str | None = None) -> httpx.Response:
    headers = JPEG | (bearer(key) if key else {})
    return service.client.request(method, path, content=photo if method != "GET" else None, headers=headers)


@pytest.mark.parametrize(("method", "path", "scopes"), CALLS)
def test_a_call_takes_a_key_with_its_scope(
    keyed_service: Served, photo: bytes, method: str, path: str, scopes: tuple[Scope, ...]
) -> None:
    for wrong_key in (None, "x", KEYS["score"][:-1], KEYS["score"] + "x", sha256_of(KEYS["score"]), new_key()):
        refusal = ask(keyed_service, method, path, photo, wrong_key)
        detail = check(refusal, 401, "key-needed")
        assert ("none of this service's" in detail) == (wrong_key is not None)
        assert refusal.headers["www-authenticate"] == "Bearer"
        assert wrong_key in (None, "x") or wrong_key not in refusal.text
    for scope, key in KEYS.items():
        answer = ask(keyed_service, method, path, photo, key)
        if scope in scopes:
            assert answer.status_code == (413 if method == "PUT" else 200)
        else:
            assert scopes[0] in check(answer, 403, "key-scope")


def test_the_readmes_program_runs_in_its_session(
    keyed_service: Served,
    photo: bytes,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The session has put the key into the environment."""
    program = README.read_text().split("```python\n")[1].split("```")[0]
    assert "http://127.0.0.1:8000" in program
    (tmp_path / "photo.jpg").write_bytes(photo)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RESAD_KEY", KEYS["score"])
    exec(program.replace("http://127.0.0.1:8000", keyed_service.url), {})
    assert float(capsys.readouterr().out.split()[0]) > 0


def test_another_scheme_is_no_key(keyed_service: Served, photo: bytes) -> None:
    basic = {"Authorization": f"Basic {KEYS['score']}"}
    check(keyed_service.client.post("/v1/score", content=photo, headers=JPEG | basic), 401, "key-needed")


def test_the_key_is_checked_before_anything_else(keyed_service: Served) -> None:
    """Neither the query nor the index nor the body is looked at."""
    check(keyed_service.client.post("/v1/score?fpr=7&index=eyes", content=b"x" * 99), 401, "key-needed")
    check(keyed_service.client.get("/v1/indexes/..."), 401, "key-needed")


def test_calls_that_reveal_nothing_need_no_key(keyed_service: Served) -> None:
    for path in OPEN:
        assert keyed_service.client.get(path).status_code == 200


def test_no_key_is_anywhere(keyed_service: Served, photo: bytes, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        for key in KEYS.values():
            ask(keyed_service, "POST", "/v1/score", photo, key)
    texts = [keyed_service.client.get(path, headers=bearer(KEYS["admin"])).text for path in (*OPEN, "/metrics")]
    texts += [repr(keyed_service.state.settings), *(repr(vars(record)) for record in caplog.records)]
    for key in KEYS.values():
        assert not any(key in text or sha256_of(key) in text for text in texts)
    assert "of-score" in {record.__dict__.get("key") for record in caplog.records}


def test_without_a_keys_file_evidence_is_for_this_machine_and_administration_for_nobody() -> None:
    for local in (True, False):
        guard = Guard(None, local)
        for scopes in (("score",), ("score", "admin"), ("metrics", "admin")):
            assert guard.admit(None, scopes) is None
        assert _is_admitted(guard, "evidence", direct=True) == local
        assert not _is_admitted(guard, "evidence", direct=False)
        assert not _is_admitted(guard, "admin", direct=True)


def _is_admitted(guard: Guard, scope: Scope, *, direct: bool) -> bool:
    try:
        guard.admit("whatever", (scope,), direct=direct)
    except Refusal as refusal:
        return refusal.kind is not CALL_OFF
    return True


def test_a_changed_file_is_taken_up_and_a_broken_one_leaves_the_keys(
    root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path, first, second = tmp_path / "keys", new_key(), new_key()
    write_keys(path, [KeyRecord("one", sha256_of(first), ("score",))])
    with served(root, keys_file=path) as service:

        def status(key: str) -> int:
            return ask(service, "GET", "/v1/indexes", b"", key).status_code

        def second_key_stays() -> bool:
            assert status(second) == 200
            return "stay valid" in caplog.text

        assert (status(first), status(second)) == (200, 401)
        write_keys(path, [KeyRecord("two", sha256_of(second), ("score",))])
        until(lambda: status(second) == 200)
        assert status(first) == 401
        for content in ("{", '{"keys": [{"name": "x", "sha256": "hunter2", "scopes": ["score"]}]}'):
            path.write_text(content)
            until(second_key_stays)
            assert "hunter2" not in caplog.text
            caplog.clear()
        path.unlink()
        until(second_key_stays)
        write_keys(path, [])
        until(lambda: status(second) == 401)


def _key_entry(name: str = "x", sha256: str = HASH, scopes: str = '"score"') -> str:
    return f'{{"name": "{name}", "sha256": "{sha256}", "scopes": [{scopes}]}}'


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "cannot be read"),
        ("", "Invalid JSON"),
        ("[]", "keys file"),
        (f'{{"keys": [{_key_entry(sha256="SECRET")}]}}', "keys.0.sha256"),
        (f'{{"keys": [{_key_entry(name="../x")}]}}', "keys.0.name"),
        (f'{{"keys": [{_key_entry(scopes=chr(34) + "everything" + chr(34))}]}}', "keys.0.scopes.0"),
        (f'{{"keys": [{_key_entry(scopes="")}]}}', "keys.0.scopes"),
        (f'{{"keys": [{_key_entry()}, {_key_entry()}]}}', "twice"),
    ],
)
def test_a_file_that_cannot_be_used_stops_the_start(tmp_path: Path, content: str | None, words: str) -> None:
    path = tmp_path / "keys"
    if content is not None:
        path.write_text(content)
    with pytest.raises(SettingError, match=words) as error:
        KeyRing(path)
    assert "SECRET" not in str(error.value)


def test_the_command_makes_lists_and_removes_keys(tmp_path: Path) -> None:
    path, run = tmp_path / "keys", CliRunner()
    result = run.invoke(keys.cli, ["add", str(path), "ward-3", "--scope", "score", "--scope", "evidence"])
    key = result.stdout.strip()
    assert len(key) > 43
    assert key not in path.read_text()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert json.loads(path.read_text())["keys"][0]["scopes"] == ["score", "evidence"]
    admin_key = run.invoke(keys.cli, ["add", str(path), "ops", "--scope", "admin"]).stdout.strip()
    holder = KeyRing(path).holder(key)
    assert (holder and holder.name, key != admin_key) == ("ward-3", True)
    assert run.invoke(keys.cli, ["list", str(path)]).stdout == "ward-3\tscore evidence\nops\tadmin\n"
    assert run.invoke(keys.cli, ["remove", str(path), "ward-3"]).exit_code == 0
    assert [record.name for record in read_keys(path)] == ["ops"]
    assert KeyRing(path).holder(key) is None
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("add", "keys", "ops", "--scope", "admin"), "already"),
        (("add", "keys", "../x", "--scope", "admin"), "cannot name a key"),
        (("add", "keys", "x", "--scope", "all"), "'all' is none of score, evidence, teach, admin, metrics"),
        (("remove", "keys", "x"), "no key 'x'; there is: ops"),
        (("list", "nowhere"), "cannot be read"),
    ],
)
def test_the_command_says_in_one_line_what_it_cannot(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    words: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    record = KeyRecord("ops", HASH, ("admin",))
    write_keys(Path("keys"), [record])
    monkeypatch.setattr(sys, "argv", ["resad-keys", *arguments])
    with pytest.raises(SystemExit) as exit_info:
        keys.main()
    assert exit_info.value.code == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert words in line
    assert read_keys(Path("keys")) == (record,)


def test_keys_that_are_made_at_the_same_time_are_all_kept(tmp_path: Path) -> None:
    """Whoever reads the file while another one changes it waits for the lock, and does not drop the new key."""
    file = tmp_path / "keys"
    names = [f"key-{number}" for number in range(8)]
    command = (sys.executable, "-c", "from service.keys import main; main()")
    processes = [
        subprocess.Popen((*command, "add", file, name, "--scope", "score"), stdout=subprocess.PIPE, text=True)
        for name in names
    ]
    printed = {sha256_of(process.communicate()[0].strip()) for process in processes}
    assert {process.returncode for process in processes} == {0}
    assert sorted(record.name for record in read_keys(file)) == names
    assert {record.sha256 for record in read_keys(file)} == printed


def test_a_change_of_the_keys_waits_for_the_one_before(tmp_path: Path) -> None:
    file, started = tmp_path / "keys", threading.Event()
    write_keys(file, [KeyRecord("ops", HASH, ("admin",))])

    def remove() -> None:
        started.set()
        keys.remove(file, "ops")

    with ThreadPoolExecutor(1) as pool:
        with locked(tmp_path / ".keys.lock", wait=False):
            change = pool.submit(remove)
            started.wait()
            time.sleep(0.1)
            write_keys(file, [*read_keys(file), KeyRecord("more", HASH, ("score",))])
        change.result()
    assert [record.name for record in read_keys(file)] == ["more"]
