"""HTTP: requests, retries, and errors from answers; shared by the blocking and the async client."""

import random
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from importlib.metadata import version
from pathlib import Path
from typing import Final, Literal, TypeAlias

import httpx

from resad_client.errors import (
    OUT_OF_MEMORY,
    Busy,
    ConnectionFailed,
    ConnectionLost,
    NotReady,
    Problem,
    ProtocolError,
    ResadClientError,
    ServerProblem,
    SettingError,
    TimedOut,
    problem_error,
)
from resad_client.records import from_json
from resad_client.text import printable

_FIRST_S: Final = 0.25
_LONGEST_S: Final = 8.0


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """When to repeat a request, and when to give up.

    retries: repeats after the first attempt, at least 0.  max_wait_s: all waits together, seconds, at least 0.
    lost: repeats after a lost connection, after a proxy's report of one, or while the service lacks memory for the
    photograph; at least 0.
    Raises `SettingError` for lower values.
    """

    retries: int = 5
    max_wait_s: float = 60.0
    lost: int = 5

    def __post_init__(self) -> None:
        if self.retries < 0:
            raise SettingError(f"retries {self.retries}: must be at least 0")
        if self.lost < 0:
            raise SettingError(f"lost {self.lost}: must be at least 0")
        if not self.max_wait_s >= 0:
            raise SettingError(f"max_wait_s {self.max_wait_s}: must be at least 0")

    def wait(self, repeat: int, requested: float | None, waited: float, rng: random.Random) -> float | None:
        """Seconds to wait before repeat number `repeat` (from 0), or None to give up.

        requested: the service's Retry-After, seconds, the shortest wait.  waited: seconds waited so far.
        """
        remaining = self.max_wait_s - waited
        least = requested or 0.0
        if repeat >= self.retries or remaining <= 0 or least > remaining:
            return None
        # Clients that were all refused with "1 second" must not all return at once, and if many wait for few
        # places, equally spaced repeats would be used up before a place is free: so the random part doubles.
        spread = min(max(least, _FIRST_S) * 2.0 ** min(repeat, 16), _LONGEST_S)
        return min(least + spread * rng.uniform(0.0 if least else 0.5, 1.0), remaining)


def _utc_now() -> datetime:
    return datetime.now(UTC)


def retry_after(headers: httpx.Headers, now: Callable[[], datetime] = _utc_now) -> float | None:
    """Seconds of a Retry-After header (RFC 9110: a number, or a date), at least 0; None without one.

    A date is compared with the answer's own Date, if any, because the two machines' clocks may differ.  A header
    that cannot be parsed counts as absent.
    """
    text = headers.get("Retry-After", "").strip()
    if text.isascii() and text.isdecimal():
        return float(text)
    until = _date(text)
    if until is None:
        return None
    seconds = (until - (_date(headers.get("Date", "")) or now())).total_seconds()
    return max(0.0, seconds)


def _date(text: str) -> datetime | None:
    try:
        date = parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    return date if date.tzinfo else date.replace(tzinfo=UTC)


DEFAULT_URL: Final = "http://127.0.0.1:8000"
DEFAULT_TIMEOUT: Final = httpx.Timeout(120.0, connect=10.0)
"""Seconds.  Longer than the service's own deadline, so that its word for it arrives first."""


@dataclass(frozen=True, slots=True)
class Attachment:
    """A photograph, or what belongs to it, as it is sent.

    name: never the file's own, which may be a patient's.  part: its name in a multipart.
    """

    name: str
    media_type: str
    data: bytes
    part: str = "photo"


@dataclass(frozen=True, slots=True)
class Call:
    """One request.  body: a photograph as the raw body, or several as multipart."""

    method: Literal["GET", "POST", "DELETE"]
    path: str
    accept: str
    query: tuple[tuple[str, str], ...] = ()
    body: Attachment | tuple[Attachment, ...] | None = None


OnWait: TypeAlias = Callable[[ResadClientError, float], None]
"""Gets the error that a request is repeated for, and the seconds until then."""


class Port(ABC):
    """Files, network and time, as a blocking or an async client uses them."""

    def __init__(self, policy: RetryPolicy, rng: random.Random, on_wait: OnWait | None = None) -> None:
        self.policy = policy
        self.rng = rng
        self.on_wait = on_wait

    @abstractmethod
    async def read(self, path: Path) -> bytes:
        """The file's bytes; may raise `OSError`."""

    @abstractmethod
    async def send(self, call: Call) -> httpx.Response:
        """The whole answer; may raise `httpx.RequestError`."""

    @abstractmethod
    async def pause(self, seconds: float) -> None:
        """Wait."""


def base_url(text: str) -> httpx.URL:
    """The service's address; `SettingError` unless it is http or https with a host."""
    try:
        url = httpx.URL(text)
    except httpx.InvalidURL as error:
        raise SettingError(f"{printable(text)!r} is no address: {error}") from error
    if url.scheme not in ("http", "https") or not url.host:
        raise SettingError(f"{printable(text)!r} is no address of a service: expected one like {DEFAULT_URL}")
    return url


def standing_headers(key: str | None) -> dict[str, str]:
    """The headers of every request; `SettingError`, without the key in it, if the key cannot stand in one."""
    headers = {"User-Agent": f"resad-client/{version('resad-client')}"}
    if key is not None:
        if not key or not all("!" <= letter <= "~" for letter in key):
            raise SettingError("the key is empty or holds something else than visible ASCII")
        headers["Authorization"] = f"Bearer {key}"
    return headers


def request(http: httpx.Client | httpx.AsyncClient, call: Call) -> httpx.Request:
    """`call` in HTTP, below the client's base URL and with its standing headers."""
    headers = {"Accept": call.accept}
    match call.body:
        case Attachment() as photo:
            headers["Content-Type"] = photo.media_type
            return http.build_request(
                call.method, call.path, params=call.query, headers=headers, content=photo.data
            )
        case tuple() as photos:
            parts = [(photo.part, (photo.name, photo.data, photo.media_type)) for photo in photos]
            return http.build_request(call.method, call.path, params=call.query, headers=headers, files=parts)
    return http.build_request(call.method, call.path, params=call.query, headers=headers)


async def answer(port: Port, call: Call, *, changes: bool = False) -> httpx.Response:
    """The successful answer to `call`, with repeats as the port's policy allows.

    A call that changes nothing at the service may be repeated even if it was carried out and its answer was lost;
    one that does, with `changes`, is repeated only where the service has refused it.  A proxy's report that the
    service is gone counts as a lost connection.  Neither a fault that the service itself reports is repeated, nor
    a timeout of this client or of a proxy (504).
    """
    repeat, lost, waited = 0, 0, 0.0
    while True:
        try:
            return await once(port, call)
        except TimedOut:  # a repeat would only double the load
            raise
        except (ServerProblem, ConnectionFailed) as error:
            gone = isinstance(error, ConnectionFailed) or error.stands_in
            if not (gone or isinstance(error, Busy | NotReady)) or (gone and changes):
                raise
            requested = error.retry_after if isinstance(error, ServerProblem) else None
            wait = port.policy.wait(repeat, requested, waited, port.rng)
            lost += gone or (isinstance(error, NotReady) and error.type == OUT_OF_MEMORY)
            if wait is None or lost > port.policy.lost:
                raise
            if port.on_wait is not None:
                port.on_wait(error, wait)
        await port.pause(wait)
        repeat, waited = repeat + 1, waited + wait


async def once(port: Port, call: Call) -> httpx.Response:
    """As `answer`, without repeats."""
    try:
        response = await port.send(call)
    except httpx.ConnectTimeout as error:
        raise ConnectionFailed(f"{_place(error)} did not take a connection in time") from error
    except httpx.TimeoutException as error:
        raise TimedOut(f"no answer from {_place(error)} in time") from error
    except httpx.TransportError as error:
        kind = ConnectionFailed if isinstance(error, httpx.ConnectError) else ConnectionLost
        raise kind(f"no answer from {_place(error)}: {str(error) or type(error).__name__}") from error
    except httpx.RequestError as error:
        raise ProtocolError(f"the answer from {_place(error)} cannot be decoded: {error}") from error
    if response.is_error:
        raise problem_error(_problem(response), retry_after(response.headers))
    if not response.is_success:
        raise ProtocolError(
            f"status {response.status_code} from {_host(response.url)}: not what a service answers"
        )
    return response


def _problem(response: httpx.Response) -> Problem:
    """The problem document of an answer, or one made from the status if a proxy answered."""
    try:
        problem = from_json(Problem, response.content)
    except ProtocolError:
        return Problem(response.reason_phrase or "no reason given", response.status_code)
    return replace(problem, status=response.status_code)


def _place(error: httpx.RequestError) -> str:
    return _host(error.request.url)


def _host(url: httpx.URL) -> str:
    """Scheme, host and port: an address may hold a password before, and names after."""
    return f"{url.scheme}://{url.netloc.decode('ascii')}"
