"""Fixtures of the node's tests."""

from collections.abc import Iterator

import pytest

from resad_dicom.node import silence_libraries
from stand_ins import StandInPacs, StandInService, stand_in_pacs, stand_in_service

silence_libraries()


def pytest_configure(config: pytest.Config) -> None:
    """Allow what the library itself drops without closing it: sockets that the peer, or nobody, has answered.

    Python closes them at once, and warns in the library's module; a socket that is dropped anywhere else is ours.
    """
    config.addinivalue_line("filterwarnings", "ignore:unclosed:ResourceWarning:pynetdicom.transport")


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[StandInService]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with stand_in_service() as server:
        yield server


@pytest.fixture
def pacs() -> Iterator[StandInPacs]:
    with stand_in_pacs() as pacs:
        yield pacs
