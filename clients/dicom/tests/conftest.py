"""Fixtures of the node's tests."""

import gc
from collections.abc import Iterator

import pytest

from resad_dicom.node import silence_libraries
from stand_ins import StandInPacs, StandInService, stand_in_pacs, stand_in_service

silence_libraries()


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[StandInService]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with stand_in_service() as server:
        yield server


@pytest.fixture
def pacs() -> Iterator[StandInPacs]:
    with stand_in_pacs() as pacs:
        yield pacs


@pytest.fixture(autouse=True)
def collected() -> Iterator[None]:
    """pynetdicom leaves some sockets to the garbage collector, whose complaint would hit any later test."""
    yield
    gc.collect()
