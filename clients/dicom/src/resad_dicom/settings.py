"""The settings of the node: `RESAD_DICOM_*` variables, overridden by the command line; and the files they name."""

import ipaddress
import re
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict
from resad_client.errors import SettingError
from resad_client.http import DEFAULT_URL, base_url

ResultKind = Literal["map", "segmentation", "report", "overlay"]
"""A result object: Parametric Map, Segmentation, Structured Report, Secondary Capture."""
KINDS: Final[tuple[ResultKind, ...]] = ("map", "segmentation", "report", "overlay")
_TITLE: Final = re.compile(r"[ -\[\]-~]{1,16}")
"""An AE title (PS3.5, VR AE): up to 16 characters of ASCII without backslash."""


@dataclass(frozen=True, slots=True)
class DicomAddress:
    """A node that is reached by the DICOM protocol.  tls: whether the connection is encrypted."""

    title: str
    host: str
    port: int
    tls: bool

    def __str__(self) -> str:
        return f"{'dicoms' if self.tls else 'dicom'}://{self.title}@{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class WebAddress:
    """A PACS that is reached by DICOMweb.  url: of the service, without its /studies."""

    url: str

    def __str__(self) -> str:
        return self.url


Address = DicomAddress | WebAddress


class Settings(BaseSettings):
    """Every setting with its unit; its variable is `RESAD_DICOM_` and the name in capitals."""

    model_config = SettingsConfigDict(env_prefix="RESAD_DICOM_", frozen=True, extra="forbid")

    queue: Path
    """Folder of the queue, on a local disk; the only place that the node writes to."""
    destination: str
    """Where results go: dicom://AET@HOST:PORT, dicoms:// for TLS, or the address of a DICOMweb service."""
    destination_auth_file: Path | None = None
    """File with the value of the header Authorization for a DICOMweb destination."""
    results: Annotated[tuple[ResultKind, ...], NoDecode] = KINDS
    """Which objects are sent; separated by commas in the variable."""

    service: str = DEFAULT_URL
    """Address of the ReSAD service."""
    service_key_file: Path | None = None
    """File with the service's key."""
    index: str | None = None
    """Index to score with; the service's default if None."""
    fpr: Annotated[float, Field(gt=0, lt=1)] | None = None
    """False-positive rate of the verdict; the service's default if None."""
    false_regions: Annotated[float, Field(gt=0)] | None = None
    """Findings that a healthy photograph shows on average; the service's default if None."""
    parallel: Annotated[int, Field(gt=0, le=64)] = 2
    """Photographs that are at the service at a time."""

    title: str = "RESAD"
    """AE title of the node; an association that calls another one is rejected."""
    callers: Annotated[tuple[str, ...], NoDecode] = ()
    """AE titles that may send; separated by commas in the variable."""
    host: str = "127.0.0.1"
    """Address to listen on, for DICOM and DICOMweb."""
    port: Annotated[int, Field(ge=0, le=65535)] = 11112
    """For DICOM; 0 for a free one."""
    web_port: Annotated[int, Field(ge=0, le=65535)] = 8104
    """For STOW-RS, probes and metrics; 0 for a free one."""
    web_key_file: Path | None = None
    """File with the key that callers of STOW-RS and /metrics send as `Authorization: Bearer KEY`."""
    tls_certificate: Path | None = None
    """Certificate of the node (PEM): its listeners then speak TLS only, and it shows it to the destination."""
    tls_key: Path | None = None
    """Private key of the certificate (PEM)."""
    tls_ca: Path | None = None
    """Certificates (PEM) by which DICOM callers, who then need one, and the destination are verified."""
    insecure: bool = False
    """Allow a public address on which any DICOM caller, or any caller of STOW-RS, may send."""

    max_items: Annotated[int, Field(gt=0)] = 10_000
    """Most photographs in the queue; then associations are rejected."""
    max_bytes: Annotated[int, Field(gt=0)] = 20_000_000_000
    """Most bytes in the queue; then associations are rejected."""
    min_free_bytes: Annotated[int, Field(ge=0)] = 1_000_000_000
    """Least free space on the queue's disk; below it associations are rejected."""
    max_object_bytes: Annotated[int, Field(gt=0)] = 100_000_000
    """Most bytes of an object; the association of a larger one is aborted."""
    max_associations: Annotated[int, Field(gt=0, le=256)] = 8
    """Most associations at a time."""

    @field_validator("callers", "results", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return (
            tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value
        )

    @field_validator("callers")
    @classmethod
    def _check_callers(cls, titles: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(_checked_title(title) for title in titles)

    @field_validator("title")
    @classmethod
    def _check_title(cls, title: str) -> str:
        return _checked_title(title)

    @field_validator("destination")
    @classmethod
    def _check_destination(cls, text: str) -> str:
        parse_address(text)
        return text

    @field_validator("service")
    @classmethod
    def _check_service(cls, text: str) -> str:
        base_url(text)
        return text

    @model_validator(mode="after")
    def _check_access(self) -> Self:
        if self.insecure or is_loopback(self.host):
            return self
        if not self.callers:
            raise SettingError(
                f"host {self.host} is public, and every AE title may send: name those that may with --caller, "
                "use 127.0.0.1, or add --insecure"
            )
        if not self.web_key_file:
            raise SettingError(
                f"host {self.host} is public, and STOW-RS needs no key: add --web-key-file, use 127.0.0.1, or "
                "add --insecure"
            )
        return self

    @model_validator(mode="after")
    def _check_tls(self) -> Self:
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise SettingError("--tls-certificate and --tls-key go together: give both, or none")
        return self

    @property
    def address(self) -> Address:
        """The destination, parsed."""
        return parse_address(self.destination)

    @property
    def service_key(self) -> str | None:
        """The service's key, from its file; raises `SettingError`."""
        return read_secret(self.service_key_file, "--service-key-file")

    @property
    def web_key(self) -> str | None:
        """The key of STOW-RS, from its file; raises `SettingError`."""
        return read_secret(self.web_key_file, "--web-key-file")

    @property
    def destination_auth(self) -> str | None:
        """The value of the header Authorization for the destination, from its file; raises `SettingError`."""
        return read_secret(self.destination_auth_file, "--destination-auth-file")

    def acceptor_tls(self) -> ssl.SSLContext | None:
        """TLS of the DICOM listener, None without a certificate; raises `SettingError`."""
        if self.tls_certificate is None:
            return None
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self._load(context)
        if self.tls_ca is not None:
            context.verify_mode = ssl.CERT_REQUIRED
        return context

    def requestor_tls(self) -> ssl.SSLContext:
        """TLS towards the destination, which must have a valid certificate; raises `SettingError`."""
        context = ssl.create_default_context(ssl.Purpose.SERVER_AUTH)
        self._load(context)
        return context

    def _load(self, context: ssl.SSLContext) -> None:
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        try:
            if self.tls_ca is not None:
                context.load_verify_locations(self.tls_ca)
            if self.tls_certificate is not None:
                context.load_cert_chain(self.tls_certificate, self.tls_key)
        except (OSError, ssl.SSLError) as error:
            raise SettingError(
                f"the certificate, its key or the CA cannot be used ({error.strerror or error}): give PEM files "
                "with --tls-certificate, --tls-key and --tls-ca"
            ) from error


def read_settings(**options: Any) -> Settings:
    """The settings: options that are not None, then the variables; raises `SettingError`, one line."""
    try:
        return Settings(**{name: value for name, value in options.items() if value is not None})
    except ValidationError as error:
        fault = error.errors(include_url=False, include_context=False, include_input=False)[0]
        message = fault["msg"].removeprefix("Value error, ")
        if not fault["loc"]:  # of several settings together
            raise SettingError(message) from error
        name = str(fault["loc"][0])
        option = {"callers": "caller", "results": "result"}.get(name, name).replace("_", "-")
        if fault["type"] == "missing":
            raise SettingError(f"{name} is not given: use --{option} or RESAD_DICOM_{name.upper()}") from error
        raise SettingError(f"{name}: {message} (--{option} or RESAD_DICOM_{name.upper()})") from error


def parse_address(text: str) -> Address:
    """A destination from its address; raises `SettingError`."""
    example = "expected dicom://AET@HOST:PORT, dicoms://AET@HOST:PORT, or https://HOST/dicom-web"
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError as error:
        raise SettingError(f"{text!r} is no destination ({error}): {example}") from error
    if parts.scheme in ("http", "https"):
        if parts.username or parts.password:
            raise SettingError("the destination holds a password: give it with --destination-auth-file")
        base_url(text)
        return WebAddress(text.rstrip("/"))
    if parts.scheme not in ("dicom", "dicoms") or not parts.hostname or not parts.username or port is None:
        raise SettingError(f"{text!r} is no destination: {example}")
    return DicomAddress(_checked_title(parts.username), parts.hostname, port, parts.scheme == "dicoms")


def read_secret(file: Path | None, option: str) -> str | None:
    """The line in a file, None without a file; raises `SettingError` without the line in it."""
    if file is None:
        return None
    try:
        secret = file.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise SettingError(f"{option} {file} cannot be read") from error
    if not secret or not secret.isprintable() or not secret.isascii():
        raise SettingError(f"{option} {file} is empty or holds something else than a line of ASCII")
    return secret


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach `host`."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _checked_title(title: str) -> str:
    if not _TITLE.fullmatch(title) or not title.strip():
        raise SettingError(f"{title!r} is no AE title: 1 to 16 characters of ASCII, no backslash")
    return title.strip()
