"""What is typed on the command line -> settings."""

from collections.abc import Sequence
from dataclasses import replace
from typing import cast, get_args

import torch
from pydantic import ValidationError

from resad import runtime
from resad.config import CoresetConfig, MethodConfig, Part, Preset, preset, updated, without
from resad.errors import SettingError, first_fault


def method(
    name: Preset,
    *,
    backbone: str | None = None,
    size: int | None = None,
    coreset: str | None = None,
    precision: str | None = None,
    seed: int | None = None,
    settings: Sequence[str] = (),
    leave_out: Sequence[str] = (),
) -> MethodConfig:
    """The preset with what was given changed; raises `SettingError` naming what cannot be.

    Args:
        coreset: `0.1` (share), `20000` (count) or `radius:0.8`.
        settings: `SECTION.FIELD=VALUE`, any field of `MethodConfig`.
    """
    config = preset(name)
    if coreset is not None:
        config = replace(config, coreset=_coreset(config.coreset, coreset))
    given = {
        "backbone.name": backbone,
        "preparation.size": size,
        "precision": precision,
        "coreset.seed": seed,
    }
    for path, value in given.items():
        if value is not None:
            config = updated(config, path, str(value))
    for setting in settings:
        path, equals, value = setting.partition("=")
        if not equals:
            raise SettingError(f"--set {setting!r}: expected SECTION.FIELD=VALUE, as in resc.region_radius=8")
        config = updated(config, path, value)
    for name_of_part in leave_out:
        config = without(config, _part(name_of_part))
    return config


def pick_devices(name: str) -> list[torch.device]:
    """What `--device` names: `auto` and `cuda` are all GPUs like the first one, `cuda:N` is that one alone.

    Raises `SettingError` for a device that is not there.
    """
    first = runtime.pick_device(name)
    if first.type != "cuda" or name not in ("auto", "cuda"):
        return [first]
    kind = torch.cuda.get_device_name(0)
    numbers = range(torch.cuda.device_count())
    return [torch.device("cuda", number) for number in numbers if torch.cuda.get_device_name(number) == kind]


def _part(text: str) -> Part:
    for part in get_args(Part):
        if text == part:
            return cast(Part, part)
    raise SettingError(f"--without {text!r}: expected one of {', '.join(get_args(Part))}")


def _coreset(config: CoresetConfig, text: str) -> CoresetConfig:
    """`text` as the one limit of a coreset."""
    kind, colon, number = text.rpartition(":")
    try:
        if colon and kind == "radius":
            return replace(config, share=None, count=None, radius=float(number))
        if text.isdecimal():
            return replace(config, share=None, count=int(text), radius=None)
        return replace(config, share=float(text), count=None, radius=None)
    except ValidationError as error:
        raise SettingError(f"--coreset {text}: {first_fault(error)}") from error
    except ValueError as error:
        raise SettingError(
            f"--coreset {text!r}: expected a share (0.1), a count (20000) or radius:DISTANCE (radius:0.8)"
        ) from error
