"""What the service is told once, at its start: by `RESAD_*` variables, or by the command line, which wins."""

import ipaddress
import re
from pathlib import Path
from typing import Annotated, Any, Final, Self

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_core import PydanticCustomError
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from resad.config import PhotoLimits
from resad.errors import SettingError

_LIMITS: Final = PhotoLimits()
_PILLOW_ALARM: Final = 89_478_485
"""Pixels at which Pillow itself begins to refuse."""
_ORIGIN: Final = re.compile(r"https?://[a-z0-9.-]+(:\d{1,5})?|https?://\[[0-9a-f:]+\](:\d{1,5})?")


class Settings(BaseSettings):
    """Every setting of the service, with its unit; the variable is `RESAD_` and the name in capitals."""

    model_config = SettingsConfigDict(env_prefix="RESAD_", frozen=True, extra="forbid")

    root: Path
    """Folder that holds the indexes."""
    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8000
    """0 takes a free one."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    index: str | None = None
    """Which index answers where a call names none; with a single index, that one does."""
    hold: Annotated[int, Field(gt=0)] | None = None
    """Indexes in memory at a time, all unless given; others are loaded when they are asked for."""
    keys_file: Path | None = None
    """Who may call what, made by `resad-keys`; without one every caller may score and nobody may administer."""
    insecure: bool = False
    """Allow an address that others can reach although no caller is asked for a key."""
    allowed_origins: Annotated[tuple[str, ...], NoDecode] = ()
    """Web pages of other addresses that may call, as `https://host`; with commas between them in the variable."""
    docs: bool = True
    """Serve `/docs` and `/openapi.json`."""
    log_secret: Annotated[SecretStr, Field(min_length=16)] | None = None
    """Key of the content hashes in the log; a new one for each process unless given.  Not on the command line,
    where others could read it."""

    max_bytes: Annotated[int, Field(gt=0)] = _LIMITS.max_bytes
    """Of one photograph."""
    max_request_bytes: Annotated[int, Field(gt=0)] = 4 * _LIMITS.max_bytes
    """Of a request with several photographs."""
    max_pixels: Annotated[int, Field(gt=0, le=_PILLOW_ALARM)] = _LIMITS.max_pixels
    """Of one photograph, width times height."""
    max_photos: Annotated[int, Field(gt=0)] = 32
    """In one request; never more than the queue holds."""
    max_held_bytes: Annotated[int, Field(gt=0)] = 500_000_000
    """Of all uploads that are in memory at a time; more are refused with 429."""
    max_overlay_side: Annotated[int, Field(ge=16)] = 4096
    """Longer side of an overlay, px: drawing one costs time with its pixels."""
    queue_size: Annotated[int, Field(gt=0)] = 64
    """Photographs accepted, from before their upload until nothing works on them; more are refused with 429."""
    batch_size: Annotated[int, Field(gt=0)] = 4
    """Photographs scored together, at most; 4 at 784 px with 1536 channels take a few GB."""
    batch_wait_ms: Annotated[float, Field(ge=0)] = 0.0
    """How long a batch that is not full waits for photographs that are being decoded; a lone one never waits.
    Photographs gather while the batch before is scored, so that waiting pays only on a device that hardly notices
    a larger batch."""
    upload_s: Annotated[float, Field(gt=0)] = 60.0
    """How long a request's body may take to arrive."""
    min_upload_rate: Annotated[float, Field(ge=0)] = 10_000.0
    """Bytes a second below which a body is given up, after its first 5 s."""
    head_s: Annotated[float, Field(gt=0)] = 10.0
    """How long a connection may take to send a request's headers."""
    unread_s: Annotated[float, Field(gt=0)] = 60.0
    """How long a caller may take nothing of an answer that is there."""
    deadline_s: Annotated[float, Field(gt=0)] = 30.0
    """From the body's arrival to the answer."""
    drain_s: Annotated[int, Field(ge=0)] = 30
    """How long accepted requests may take once the service is told to stop."""
    decode_workers: Annotated[int, Field(gt=0)] = 2
    """Threads that decode photographs and encode maps."""
    threads: Annotated[int, Field(gt=0)] | None = None
    """Cores that torch and FAISS compute on; all unless given."""
    poll_s: Annotated[float, Field(gt=0)] = 1.0
    """How often CURRENT of every index is looked at."""

    @field_validator("allowed_origins", mode="before")
    @classmethod
    def _between_commas(cls, given: object) -> object:
        return (
            tuple(part.strip() for part in given.split(",") if part.strip()) if isinstance(given, str) else given
        )

    @field_validator("allowed_origins")
    @classmethod
    def _origins(cls, given: tuple[str, ...]) -> tuple[str, ...]:
        for origin in given:
            if not _ORIGIN.fullmatch(origin):
                raise PydanticCustomError("origin", f"{origin!r} is no origin such as https://clinic.example")
        return given

    @model_validator(mode="after")
    def _only_here_unless_told(self) -> Self:
        if not (self.insecure or self.local or self.keys_file):
            raise SettingError(
                f"host {self.host}: others can reach it, and nobody would be asked for a key; add --keys-file "
                "(resad-keys makes one), keep to 127.0.0.1, or add --insecure"
            )
        return self

    @model_validator(mode="after")
    def _room_for_one(self) -> Self:
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
        """What is refused before it is decoded."""
        return PhotoLimits(max_bytes=self.max_bytes, max_pixels=self.max_pixels)

    @property
    def photos_at_once(self) -> int:
        """In one request: more than the queue's places could never be accepted."""
        return min(self.max_photos, self.queue_size)


def read_settings(**given: Any) -> Settings:
    """The variables, with what was `given` (and is not None) before them; raises `SettingError`, one line."""
    try:
        return Settings(**{name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        fault = error.errors(include_url=False, include_context=False, include_input=False)[0]
        name = str(fault["loc"][0]) if fault["loc"] else "settings"
        option = name.replace("_", "-")
        raise SettingError(f"{name}: {fault['msg']} (--{option} or RESAD_{name.upper()})") from error


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach `host`."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
