"""Every error this package raises on purpose, and how a run goes on after it.

    ResadClientError (a ResadError)
    ├── SettingError        a value that cannot be used: an address, a key, an option (a `ValueError` too)
    ├── PhotoUnusable       never sent: no such file, or of a type that is not supported
    ├── ConnectionFailed    no answer, or none in full
    │   ├── ConnectionLost      the connection broke before the whole answer was there
    │   └── TimedOut            none in time
    ├── ProtocolError       an answer, but not one of a ReSAD service as this package knows it
    └── ServerProblem       the service said what is wrong: status, type, title, detail, request_id
        ├── PhotoRefused        400, 413, 415, 422: the photograph, or another value of the call
        ├── NotAllowed          401, 403: the key
        ├── NotFound            404: the index, or the address
        ├── Busy                429: the queue was full
        ├── NotReady            503: starting, or shutting down
        ├── DeadlinePassed      504: the service gave up, or a proxy before it; not asked again
        └── ServerFault         any other 5xx

Any other refusal (405, 406, 409, ...) is a plain `ServerProblem`.  No message holds a key.
"""

from dataclasses import dataclass
from typing import Final

_IN_PLACE: Final = (500, 502)
_OWN_KINDS: Final = "urn:resad:problem:"
OUT_OF_MEMORY: Final = f"{_OWN_KINDS}out-of-memory"
"""Type of a 503 that another photograph may not get."""


@dataclass(frozen=True, slots=True)
class Problem:
    """What went wrong (RFC 9457).  type: a URN to tell problems apart by.  status: HTTP's."""

    title: str
    status: int
    type: str = "about:blank"
    detail: str | None = None
    request_id: str | None = None


class ResadError(Exception):
    """Base of all errors raised on purpose, by the client and by the server."""


class ResadClientError(ResadError):
    """Base of the client's errors."""


class SettingError(ResadClientError, ValueError):
    """A value that cannot be used, given to a client or on the command line."""


class PhotoUnusable(ResadClientError):
    """A photograph that was not sent."""


class ConnectionFailed(ResadClientError):
    """No answer from the service."""


class ConnectionLost(ConnectionFailed):
    """The connection broke after the request was sent, or while it was."""


class TimedOut(ConnectionFailed):
    """No answer within the client's timeout."""


class ProtocolError(ResadClientError):
    """An answer that cannot be read."""


class ServerProblem(ResadClientError):
    """The service refused or failed, and said so.

    retry_after: the wait in seconds that the service asked for; None where it did not.
    """

    def __init__(self, problem: Problem, retry_after: float | None = None) -> None:
        super().__init__(problem, retry_after)
        self.problem = problem
        self.retry_after = retry_after

    @property
    def status(self) -> int:
        """HTTP's status."""
        return self.problem.status

    @property
    def type(self) -> str:
        """URN of the kind of problem; `about:blank` where the status says all."""
        return self.problem.type

    @property
    def stands_in(self) -> bool:
        """Whether a proxy answered in the service's place, which is gone or cannot be reached: 500 or 502.

        What the service says itself is a problem of its own kinds.  A proxy's 504 is none of them: the service may
        still be at it.
        """
        return self.status in _IN_PLACE and not self.type.startswith(_OWN_KINDS)

    @property
    def title(self) -> str:
        """The kind of problem, for people."""
        return self.problem.title

    @property
    def detail(self) -> str | None:
        """This occurrence of it, for people."""
        return self.problem.detail

    @property
    def request_id(self) -> str | None:
        """By which the operator finds the request."""
        return self.problem.request_id

    def __str__(self) -> str:
        detail = f": {self.detail}" if self.detail else ""
        request = f" (request {self.request_id})" if self.request_id else ""
        return f"{self.status} {self.title}{detail}{request}"


class PhotoRefused(ServerProblem):
    """The photograph, or another value of the call, cannot be used."""


class NotAllowed(ServerProblem):
    """The key is missing, unknown, or not enough."""


class NotFound(ServerProblem):
    """There is no such index or address."""


class Busy(ServerProblem):
    """The service's queue was full, every time it was asked."""


class NotReady(ServerProblem):
    """The service is starting or shutting down."""


class DeadlinePassed(ServerProblem):
    """The service did not finish within its own deadline."""


class ServerFault(ServerProblem):
    """A fault at the server."""


_BY_STATUS: Final = {
    400: PhotoRefused,
    401: NotAllowed,
    403: NotAllowed,
    404: NotFound,
    413: PhotoRefused,
    415: PhotoRefused,
    422: PhotoRefused,
    429: Busy,
    503: NotReady,
    504: DeadlinePassed,
}


def problem_error(problem: Problem, retry_after: float | None = None) -> ServerProblem:
    """`problem` as the error of its status."""
    kind = _BY_STATUS.get(problem.status, ServerFault if problem.status >= 500 else ServerProblem)
    return kind(problem, retry_after)


_POOR_QUALITY: Final = "urn:resad:problem:photo-quality"
_REFUSED: Final = {
    413: "save it smaller",
    415: "save it as JPEG or PNG",
}


def with_remedy(error: ResadClientError, *, resumable: bool) -> str:
    """The error's message and what to do about it.

    Args:
        resumable: the run has a journal, so that `--resume` scores only what has no result.
    """
    again = "repeat the command with --resume" if resumable else "score it again"
    return f"{error}; to go on: {_remedy(error)}, then {again}"


def _remedy(error: ResadClientError) -> str:
    if isinstance(error, PhotoUnusable):
        return "correct its path, mend it or replace it"
    if isinstance(error, PhotoRefused):
        if error.type == _POOR_QUALITY:
            return "take the photograph again or leave out --require-quality"
        return _REFUSED.get(error.status, "replace it by one that is whole and shows a retina")
    if isinstance(error, Busy):
        return "wait until the service has less to do, or leave out --patience"
    if isinstance(error, NotReady) and error.type == OUT_OF_MEMORY:
        return "save it smaller, or ask for a service with more memory"
    if isinstance(error, NotReady):
        return "wait until the service is ready, or leave out --patience"
    if isinstance(error, DeadlinePassed):
        return "wait until the service has less to do, or ask its operator for a longer --deadline-s"
    if isinstance(error, ConnectionFailed):
        return "ask the service's operator what becomes of this photograph"
    if isinstance(error, ServerFault):
        return "tell the service's operator the request"
    if isinstance(error, ProtocolError):
        return "check that --url names a ReSAD service, and that it is not newer than resad-client"
    if isinstance(error, ServerProblem):
        return "mend what the service names"
    return "mend what is named"
