"""Tests of the DICOM node with a real PACS; the long one runs only when asked for by name."""

import pytest


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what takes minutes, unless `-m dicom` asks for it."""
    if "dicom" in config.option.markexpr:
        return
    deselected = [item for item in items if item.get_closest_marker("dicom")]
    if deselected:
        config.hook.pytest_deselected(items=deselected)
        items[:] = [item for item in items if item not in deselected]
