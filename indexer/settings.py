"""Options of the command line -> settings, devices and sizes."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Final, Literal, cast, get_args

from pydantic import ByteSize, TypeAdapter, ValidationError

from resad import runtime
from resad.config import CoresetConfig, MethodConfig, Part, Preset, preset, updated, without
from resad.errors import SettingError, first_fault

if TYPE_CHECKING:
    import torch

SearchChoice = Literal["auto", "flat", "proved", "ivf"]
"""`auto` takes the faster of the exact searches, flat and proved."""

_BYTES: Final = TypeAdapter(ByteSize)


def method_config(
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
    """A preset with the given changes; raises `SettingError` for a value that is not allowed.

    Args:
        coreset: `0.1` (share), `20000` (count) or `radius:0.8`.
        settings: `SECTION.FIELD=VALUE`, any field of `MethodConfig`.
    """
    config = preset(name, backbone)
    if coreset is not None:
        config = replace(config, coreset=_coreset(config.coreset, coreset))
    changes = {
        "preparation.size": size,
        "precision": precision,
        "coreset.seed": seed,
    }
    for path, value in changes.items():
        if value is not None:
            config = updated(config, path, str(value))
    for setting in settings:
        path, equals, value = setting.partition("=")
        if not equals:
            raise SettingError(f"--set {setting!r}: expected SECTION.FIELD=VALUE, as in resc.region_radius=8")
        config = updated(config, path, value)
    for part in leave_out:
        config = without(config, _part(part))
    return config


def pick_devices(name: str) -> "list[torch.device]":
    """The devices of `--device`: for `auto` and `cuda` all GPUs of the first one's model, for `cuda:N` only that.

    Raises `SettingError` for a device that does not exist.
    """
    import torch

    first = runtime.pick_device(name)
    if first.type != "cuda" or name not in ("auto", "cuda"):
        return [first]
    model = torch.cuda.get_device_name(0)
    numbers = range(torch.cuda.device_count())
    return [torch.device("cuda", number) for number in numbers if torch.cuda.get_device_name(number) == model]


def parse_size(text: str) -> int:
    """Bytes of `8G`, `500M`, `7.5GiB` or a plain number; raises `SettingError` for anything else."""
    try:
        size = int(_BYTES.validate_python(text))
    except ValidationError:
        size = 0
    if size <= 0:
        raise SettingError(f"--max-memory {text!r}: expected a size, as in 8G, 500M or 7.5GiB")
    return size


def _part(text: str) -> Part:
    for part in get_args(Part):
        if text == part:
            return cast(Part, part)
    raise SettingError(f"--without {text!r}: expected one of {', '.join(get_args(Part))}")


def _coreset(config: CoresetConfig, text: str) -> CoresetConfig:
    """The coreset with `text` as its limit: a share, a count or a radius."""
    kind, colon, number = text.rpartition(":")
    try:
        if colon and kind == "radius":
            return replace(config, share=None, count=None, radius=float(number), most=None)
        if text.isdecimal():
            return replace(config, share=None, count=int(text), radius=None, most=None)
        return replace(config, share=float(text), count=None, radius=None, most=None)
    except ValidationError as error:
        raise SettingError(f"--coreset {text}: {first_fault(error)}") from error
    except ValueError as error:
        raise SettingError(
            f"--coreset {text!r}: expected a share (0.1), a count (20000) or radius:DISTANCE (radius:0.8)"
        ) from error
