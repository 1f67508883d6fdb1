"""How a run goes on after a photograph that has no result: a sentence for each error."""

from typing import Final

from resad_client.errors import (
    OUT_OF_MEMORY,
    Busy,
    ConnectionFailed,
    DeadlinePassed,
    NotReady,
    PhotoRefused,
    PhotoUnusable,
    ProtocolError,
    ResadClientError,
    ServerFault,
    ServerProblem,
)

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
