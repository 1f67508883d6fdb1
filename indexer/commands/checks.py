"""Checks of options by themselves: before anything is imported, listed, loaded or downloaded."""

import os
import re
from pathlib import Path
from typing import Final

from indexer.photos.remote import as_path, starts_like_address
from resad import index as index_store
from resad.errors import SettingError

_DEVICE: Final = re.compile(r"auto|cpu|cuda(:\d+)?")
_TRUNK: Final = re.compile(r"bundled|(wide_)?resnex?t\d+(_\w+)?")
_WEIGHT_FILES: Final = (".safetensors", ".pth", ".pt")


def check_device(name: str) -> None:
    """Raise `SettingError` for what can be no device; whether it exists only torch knows."""
    if not _DEVICE.fullmatch(name):
        raise SettingError(f"unknown device {name!r}; use auto, cpu, cuda or cuda:N")


def check_place(root: Path, name: str) -> None:
    """Raise `SettingError` unless an index ROOT/NAME can be written, which need not exist yet."""
    index_store.check_name(name)
    for folder in (root, root / name):
        if folder.exists() and not folder.is_dir():
            raise SettingError(f"{folder} is a file, and a folder is to be made there")
    existing = next(folder for folder in (root / name, root, *root.absolute().parents) if folder.is_dir())
    if not os.access(existing, os.W_OK):
        raise SettingError(f"{existing} cannot be written: no permission")


def check_source(photos: Path) -> None:
    """Raise `SettingError` for photographs that are not there; addresses are not asked."""
    if not starts_like_address(str(photos)) and not photos.exists():
        raise SettingError(f"{photos}: no such file or folder")
    as_path(photos)  # refuses an address with a password, or of a kind that nothing here reads


def check_trunk(backbone: str | None, weights: str | None) -> None:
    """Raise `SettingError` for a name of no trunk, a file of weights that is not there, or a seed that is none."""
    if backbone is not None and not _TRUNK.fullmatch(backbone):
        raise SettingError(
            f"--backbone {backbone}: no trunk of this name; use bundled, or a ResNet of torchvision, as in "
            "wide_resnet50_2"
        )
    if weights is None:
        return
    if weights.endswith(_WEIGHT_FILES) and not Path(weights).is_file():
        raise SettingError(f"--weights {weights}: no such file")
    seed = weights.removeprefix("random:")
    if seed != weights and not seed.isdecimal():
        raise SettingError(f"--weights {weights}: the seed is a whole number, as in random:0")


def check_outputs(**files: Path | None) -> None:
    """Raise `SettingError` for a file to be written into a folder that is not there.  files: by their options."""
    for option, file in files.items():
        if file is not None and not file.parent.is_dir():
            raise SettingError(f"--{option} {file}: {file.parent} is no folder")
