"""The command line before the variables, one line for what cannot be, and no public address by accident."""

from pathlib import Path

import pytest

from resad.errors import SettingError
from service.settings import is_loopback, read_settings


def test_the_command_line_comes_before_the_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RESAD_ROOT", "somewhere")
    monkeypatch.setenv("RESAD_QUEUE_SIZE", "7")
    monkeypatch.setenv("RESAD_PORT", "81")
    settings = read_settings(port=82, host=None)
    assert (settings.root, settings.queue_size, settings.port) == (Path("somewhere"), 7, 82)
    assert settings.host == "127.0.0.1"


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({}, "root: .*--root or RESAD_ROOT"),
        ({"root": "x", "queue_size": 0}, "queue_size: .*greater than 0.*--queue-size"),
        ({"root": "x", "port": 70_000}, "port: "),
        ({"root": "x", "max_pixels": 10**9}, "max_pixels: "),
        ({"root": "x", "prot": 1}, "prot: "),
    ],
)
def test_an_invalid_setting_is_named(settings: dict[str, object], words: str) -> None:
    with pytest.raises(SettingError, match=words) as error:
        read_settings(**settings)
    assert "\n" not in str(error.value)


def test_a_secret_that_is_too_short_is_not_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RESAD_LOG_SECRET", "hunter2")
    with pytest.raises(SettingError, match="log_secret") as error:
        read_settings(root="x")
    assert "hunter2" not in str(error.value)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost"])
def test_loopback_is_always_allowed(host: str) -> None:
    assert read_settings(root="x", host=host).host == host


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.2", "fundus.example", ""])
def test_public_addresses_need_keys_or_insecure(host: str) -> None:
    assert not is_loopback(host)
    with pytest.raises(SettingError, match="--insecure"):
        read_settings(root="x", host=host)
    assert read_settings(root="x", host=host, insecure=True).host == host
    assert read_settings(root="x", host=host, keys_file=Path("keys")).host == host


def test_origins_are_addresses_of_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RESAD_ALLOWED_ORIGINS", "https://clinic.example, http://[::1]:8080")
    assert read_settings(root="x").allowed_origins == ("https://clinic.example", "http://[::1]:8080")
    for origin in ("*", "clinic.example", "https://clinic.example/", "https://x y"):
        with pytest.raises(SettingError, match=r"allowed_origins: .* is no origin"):
            read_settings(root="x", allowed_origins=origin)


def test_one_request_fits_into_the_bytes_of_all_uploads() -> None:
    with pytest.raises(SettingError, match="max_held_bytes 1000 is less than one request may bring"):
        read_settings(root="x", max_held_bytes=1000)
