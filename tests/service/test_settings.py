"""The command line before the variables, one line for what cannot be, and no public address by accident."""

from contextlib import ExitStack
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resad.errors import SettingError
from service.admission import Admission
from service.problems import Refusal
from service.settings import is_loopback, read_settings


def test_the_command_line_comes_before_the_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RESAD_ROOT", "somewhere")
    monkeypatch.setenv("RESAD_QUEUE_SIZE", "7")
    monkeypatch.setenv("RESAD_PORT", "81")
    settings = read_settings(port=82, host=None)
    assert (settings.root, settings.queue_size, settings.port) == (Path("somewhere"), 7, 82)
    assert settings.host == "127.0.0.1"


@pytest.mark.parametrize(
    ("given_settings", "words"),
    [
        ({}, "root: .*--root or RESAD_ROOT"),
        ({"root": "x", "queue_size": 0}, "queue_size: .*greater than 0.*--queue-size"),
        ({"root": "x", "port": 70_000}, "port: "),
        ({"root": "x", "max_pixels": 10**9}, "max_pixels: "),
        ({"root": "x", "prot": 1}, "prot: "),
    ],
)
def test_what_cannot_be_is_named(given_settings: dict[str, object], words: str) -> None:
    with pytest.raises(SettingError, match=words) as refused:
        read_settings(**given_settings)
    assert "\n" not in str(refused.value)


def test_a_key_that_is_too_short_is_not_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RESAD_ADMIN_KEY", "hunter2")
    with pytest.raises(SettingError, match="admin_key") as refused:
        read_settings(root="x")
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost"])
def test_here_is_always_allowed(host: str) -> None:
    assert read_settings(root="x", host=host).host == host


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.2", "fundus.example", ""])
def test_elsewhere_only_if_told(host: str) -> None:
    assert not is_loopback(host)
    with pytest.raises(SettingError, match="--insecure"):
        read_settings(root="x", host=host)
    assert read_settings(root="x", host=host, insecure=True).host == host


@given(st.integers(1, 20), st.lists(st.integers(1, 8), max_size=20), st.floats(0, 100))
def test_places_are_never_more_than_there_are(size: int, wanted: list[int], rate: float) -> None:
    admission, held = Admission(size, lambda: rate), 0
    with ExitStack() as places:
        for count in wanted:
            if held + count <= size:
                places.enter_context(admission.places(count))
                held += count
            else:
                with pytest.raises(Refusal) as refused:
                    places.enter_context(admission.places(count))
                assert 1 <= int(refused.value.headers["Retry-After"]) <= 60
            assert admission.taken == held
    assert admission.taken == 0


@pytest.mark.parametrize(("rate", "seconds"), [(0.0, 1), (0.3, 2), (2.0, 8), (50.0, 60)])
def test_retry_after_is_what_the_queue_takes(rate: float, seconds: int) -> None:
    admission = Admission(4, lambda: rate)
    with admission.places(4), pytest.raises(Refusal) as refused, admission.places(1):
        pass
    assert refused.value.headers["Retry-After"] == str(seconds)
