"""The settings of the service: `RESAD_*` variables, overridden by the command line."""

import ipaddress
import os
import re
from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Final, Self

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_core import PydanticCustomError
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from resad.config import PhotoLimits
from resad.errors import SettingError

_LIMITS: Final = PhotoLimits()
_PILLOW_ALARM: Final = 89_478_485
"""Pixels from which Pillow itself refuses."""
_DEVICE: Final = re.compile(r"auto|cpu|cuda(:\d{1,3})?")
_ORIGIN: Final = re.compile(r"https?://[a-z0-9.-]+(:\d{1,5})?|https?://\[[0-9a-f:]+\](:\d{1,5})?")
_HOST: Final = re.compile(r"\*|(\*\.)?[a-z0-9_-]+(\.[a-z0-9_-]+)*|\[?[0-9a-f:.]+\]?")


class Settings(BaseSettings):
    """Every setting with its unit; its variable is `RESAD_` and the name in capitals."""

    model_config = SettingsConfigDict(env_prefix="RESAD_", frozen=True, extra="forbid")

    root: Path
    """Folder that holds the indexes."""
    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8000
    """0 for a free one."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    index: str | None = None
    """Index for requests that name none; a single index needs no such setting."""
    hold: Annotated[int, Field(gt=0)] | None = None
    """Most indexes in memory, all if None; others are loaded at their next request."""
    keys_file: Path | None = None
    """Keys of the callers, made by `resad-keys`; without one everybody may score and nobody may administer."""
    insecure: bool = False
    """Allow a public address without keys."""
    allowed_origins: Annotated[tuple[str, ...], NoDecode] = ()
    """Origins of other web pages that may call, as `https://host`; separated by commas in the variable."""
    allowed_hosts: Annotated[tuple[str, ...], NoDecode] = ()
    """Names by which callers may address the service beside `localhost`: `eyes.example`, `*.example`, or `*` for
    any; separated by commas in the variable."""
    root_path: Annotated[str, Field(pattern=r"^(/[\w.~-]+)*$")] = ""
    """Prefix under which a proxy serves this service and which it takes away, as `/resad`."""
    docs: bool = True
    """Serve `/docs` and `/openapi.json`."""
    log_secret: Annotated[SecretStr, Field(min_length=16)] | None = None
    """Key of the content hashes in the log; a new one for each process if None.  Not on the command line, where
    others could read it."""

    max_bytes: Annotated[int, Field(gt=0)] = _LIMITS.max_bytes
    """Most bytes of a photograph."""
    max_request_bytes: Annotated[int, Field(gt=0)] = 100_000_000
    """Most bytes of a request with several photographs."""
    max_pixels: Annotated[int, Field(gt=0, le=_PILLOW_ALARM)] = _LIMITS.max_pixels
    """Most pixels of a photograph, width times height."""
    max_photos: Annotated[int, Field(gt=0)] = 32
    """Most photographs in a request; never more than the queue holds."""
    max_held_bytes: Annotated[int, Field(gt=0)] = 500_000_000
    """Most bytes of all uploads and answers in memory; more are refused with 429."""
    max_overlay_side: Annotated[int, Field(ge=16)] = 4096
    """Longest side of an overlay, px; drawing takes time for each pixel."""
    queue_size: Annotated[int, Field(gt=0)] = 64
    """Most photographs in the queue, from before their upload until their last step; more are refused with 429."""
    batch_size: Annotated[int, Field(gt=0)] = 4
    """Most photographs in a batch; 4 at 784 px with 1536 channels take a few GB."""
    upload_s: Annotated[float, Field(gt=0)] = 60.0
    """Seconds in which a request's body must arrive."""
    min_upload_rate: Annotated[float, Field(ge=0)] = 10_000.0
    """Bytes per second; a slower body is refused after its first 5 s."""
    head_s: Annotated[float, Field(gt=0)] = 10.0
    """Seconds in which a connection must send a request's headers."""
    unread_s: Annotated[float, Field(gt=0)] = 20.0
    """Seconds after which a caller that is behind in reading must have read at `min_read_rate`."""
    min_read_rate: Annotated[float, Field(ge=0)] = 10_000.0
    """Bytes per second; a caller that reads an answer more slowly is disconnected."""
    deadline_s: Annotated[float, Field(gt=0)] = 30.0
    """Seconds from the body's arrival to the answer."""
    drain_s: Annotated[int, Field(ge=0)] = 30
    """Seconds to finish accepted requests when the service is stopped."""
    decode_workers: Annotated[int, Field(gt=0)] = 2
    """Processes that decode photographs, and as many threads that draw."""
    decode_s: Annotated[float, Field(gt=0)] = 10.0
    """Most seconds of processor time to decode a photograph; the process that takes longer is ended."""
    threads: Annotated[int, Field(gt=0)] | None = None
    """Cores for torch and FAISS, all if None."""
    poll_s: Annotated[float, Field(gt=0)] = 1.0
    """Seconds between checks of CURRENT of every index."""

    @field_validator("device")
    @classmethod
    def _check_device(cls, device: str) -> str:
        if not _DEVICE.fullmatch(device):
            raise PydanticCustomError("device", f"{device!r} is not known; use auto, cpu, cuda or cuda:N")
        return device

    @field_validator("allowed_origins", "allowed_hosts", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return (
            tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value
        )

    @field_validator("allowed_origins")
    @classmethod
    def _check_origins(cls, origins: tuple[str, ...]) -> tuple[str, ...]:
        for origin in origins:
            if not _ORIGIN.fullmatch(origin):
                raise PydanticCustomError("origin", f"{origin!r} is no origin such as https://clinic.example")
        return origins

    @field_validator("allowed_hosts")
    @classmethod
    def _check_hosts(cls, hosts: tuple[str, ...]) -> tuple[str, ...]:
        for host in hosts:
            if not _HOST.fullmatch(host.lower()):
                raise PydanticCustomError("host", f"{host!r} is no host such as eyes.example, without a port")
        return tuple(host.lower() for host in hosts)

    @model_validator(mode="after")
    def _check_address(self) -> Self:
        if not (self.insecure or self.local or self.keys_file):
            raise SettingError(
                f"host {self.host} is public, and callers would need no key: add --keys-file (resad-keys makes "
                "one), use 127.0.0.1, or add --insecure"
            )
        return self

    @model_validator(mode="after")
    def _check_upload_bytes(self) -> Self:
        largest = max(self.max_bytes, self.max_request_bytes)
        if self.max_held_bytes < largest:
            raise SettingError(
                f"max_held_bytes {self.max_held_bytes} is less than one request may bring ({largest}): raise it, "
                "or lower --max-bytes and --max-request-bytes"
            )
        return self

    @property
    def local(self) -> bool:
        """Whether only this machine can reach the service."""
        return is_loopback(self.host)

    @property
    def photo_limits(self) -> PhotoLimits:
        """Limits that are checked before decoding."""
        return PhotoLimits(max_bytes=self.max_bytes, max_pixels=self.max_pixels)

    @property
    def photos_per_request(self) -> int:
        """Most photographs in a request: more than the queue, or with keys half of it, could never be accepted."""
        places = (self.queue_size + 1) // 2 if self.keys_file else self.queue_size
        return min(self.max_photos, places)


def read_settings(**options: Any) -> Settings:
    """The settings: options that are not None, then the variables; raises `SettingError`, one line.

    A variable that is nearly a setting's is an error, too: it would have no effect.
    """
    _check_names(os.environ)
    try:
        return Settings(**{name: value for name, value in options.items() if value is not None})
    except ValidationError as error:
        fault = error.errors(include_url=False, include_context=False, include_input=False)[0]
        name = str(fault["loc"][0]) if fault["loc"] else "settings"
        option = name.replace("_", "-")
        raise SettingError(f"{name}: {fault['msg']} (--{option} or RESAD_{name.upper()})") from error


_PREFIX: Final = "RESAD_"


def _check_names(variables: Iterable[str]) -> None:
    names = {name.upper() for name in Settings.model_fields}
    for variable in variables:
        name = variable.upper()
        if name.startswith(_PREFIX) and name.removeprefix(_PREFIX) not in names:
            similar = get_close_matches(name.removeprefix(_PREFIX), names, n=1, cutoff=0.8)
            if similar:
                raise SettingError(f"{variable} is no setting; did you mean {_PREFIX}{similar[0]}?")


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach `host`."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
