"""Every error a caller can get, as a problem document (RFC 9457, `application/problem+json`)."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch
from pydantic import TypeAdapter
from pydantic.dataclasses import dataclass as model
from starlette.responses import Response

from resad.decoder_pool import DecodingStopped
from resad.errors import NotAFundusPhoto, PhotoError, PhotoPoor, PhotoTooLarge, PhotoUnreadable, PhotoUnsupported

_log: Final = logging.getLogger(__name__)

MEDIA_TYPE: Final = "application/problem+json"


@model(frozen=True)
class Problem:
    """Why there is no answer.  type: what kind, for programs.  detail: this case, for people."""

    type: str
    title: str
    status: int
    detail: str
    request_id: str | None


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of problem; `example` is an example of its detail."""

    slug: str
    title: str
    status: int
    example: str


MALFORMED_UPLOAD: Final = Kind("malformed-upload", "Malformed upload", 400, "the body is empty")
KEY_NEEDED: Final = Kind("key-needed", "Key needed", 401, "this call takes Authorization: Bearer KEY")
KEY_SCOPE: Final = Kind("key-scope", "Key does not suffice", 403, "the key lacks the scope admin")
CALL_OFF: Final = Kind("call-off", "Call switched off", 403, "start the service with --keys-file to allow it")
NOT_FOUND: Final = Kind("not-found", "Not found", 404, "there is no such address")
UNKNOWN_INDEX: Final = Kind("unknown-index", "Unknown index", 404, "no index 'eyes'; there is: idrid")
UNKNOWN_VERSION: Final = Kind("unknown-version", "Unknown version", 404, "idrid has no such version")
NO_EVIDENCE: Final = Kind(
    "no-evidence", "No picture of evidence", 404, "the index keeps no pictures of its reference photos"
)
UNKNOWN_MARK: Final = Kind("unknown-mark", "Unknown mark", 404, "the journal of idrid has no such mark")
WRONG_METHOD: Final = Kind("method-not-allowed", "Method not allowed", 405, "allowed here: GET")
NOT_ACCEPTABLE: Final = Kind(
    "not-acceptable", "Not acceptable", 406, "maps come as image/png, image/tiff, application/x-npy"
)
UPLOAD_SLOW: Final = Kind("upload-slow", "Upload too slow", 408, "the body did not arrive within 60 s")
READ_ONLY: Final = Kind("read-only", "Volume read-only", 409, "CURRENT cannot be written here")
INDEX_INVALID: Final = Kind("index-invalid", "Index invalid", 409, "memory_bank.faiss is missing")
PHOTO_TOO_LARGE: Final = Kind("photo-too-large", "Photograph too large", 413, "91.2 MB, the limit is 80 MB")
WRONG_HOST: Final = Kind(
    "wrong-host",
    "Wrong host",
    421,
    "this service does not answer for 'eyes.example'; --allowed-hosts names its hosts",
)
UPLOAD_TOO_LARGE: Final = Kind("upload-too-large", "Upload too large", 413, "120.0 MB, the limit is 100 MB")
UNSUPPORTED: Final = Kind(
    "photo-unsupported",
    "File type not supported",
    415,
    "the file is GIF; JPEG, PNG, TIFF, BMP and WebP are supported",
)
PHOTO_UNREADABLE: Final = Kind("photo-unreadable", "Photograph unreadable", 422, "not an image, or a damaged one")
NOT_FUNDUS: Final = Kind("not-a-fundus-photo", "Not a fundus photograph", 422, "no field of view is left")
POOR_QUALITY: Final = Kind(
    "photo-quality", "Photograph of insufficient quality", 422,
    "the photograph's quality is too low: blurred, too-dark",
)  # fmt: skip
INVALID_REQUEST: Final = Kind("invalid-request", "Invalid request", 422, "fpr: input should be less than 1")
ANSWER_TOO_LARGE: Final = Kind(
    "answer-too-large", "Answer too large", 422,
    "the answer has 612.0 MB, the limit is 500.0 MB; send fewer photographs at once",
)  # fmt: skip
INDEX_NOT_NAMED: Final = Kind("index-not-named", "Index not named", 422, "several are served: add index=NAME")
BUSY: Final = Kind("busy", "Too many photographs waiting", 429, "64 are waiting, the limit is 64; retry in 9 s")
INTERNAL: Final = Kind("internal", "Internal error", 500, "the log has more under this request_id")
NOT_LIVE: Final = Kind("not-live", "Not alive", 503, "the thread that scores has died; restart the service")
NOT_READY: Final = Kind("not-ready", "Not ready", 503, "idrid: loading")
OUT_OF_MEMORY: Final = Kind("out-of-memory", "Out of memory", 503, "memory is full; retry later")
DEADLINE: Final = Kind("deadline", "Deadline passed", 504, "no answer within 30 s")
INDEX_TOO_LARGE: Final = Kind(
    "index-too-large", "Index too large", 507, "the version does not fit in memory beside what is served"
)

_PHOTO_PROBLEMS: Final[tuple[tuple[type[PhotoError], Kind], ...]] = (
    (PhotoTooLarge, PHOTO_TOO_LARGE),
    (PhotoUnsupported, UNSUPPORTED),
    (NotAFundusPhoto, NOT_FUNDUS),
    (PhotoPoor, POOR_QUALITY),
    (PhotoUnreadable, PHOTO_UNREADABLE),
)
_PROBLEM: Final = TypeAdapter(Problem)
_MEMORY_MESSAGES: Final = (
    "not enough memory",
    "can't allocate memory",
    "cannot allocate memory",
    "bad_alloc",
    "out of memory",
)
"""Messages of the plain `RuntimeError` that torch and FAISS raise, in lower case."""


class Refusal(Exception):
    """Ends a request with a problem document.

    Args:
        detail: what happened, for people, without anything about this machine.
        headers: of the answer.
    """

    def __init__(self, kind: Kind, detail: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(detail)
        self.kind = kind
        self.detail = detail
        self.headers = headers or {}

    def problem(self, request_id: str | None) -> Problem:
        """The problem document."""
        kind = self.kind
        return Problem(f"urn:resad:problem:{kind.slug}", kind.title, kind.status, self.detail, request_id)


def refusal(error: Exception, request_id: str) -> Refusal:
    """The refusal for any error; an unexpected one is logged, and the caller gets only its request id."""
    if isinstance(error, Refusal):
        return error
    for error_type, kind in _PHOTO_PROBLEMS:
        if isinstance(error, error_type):
            return Refusal(kind, str(error))
    if is_out_of_memory(error):
        _log.error("request %s: memory is full", request_id)
        return Refusal(OUT_OF_MEMORY, OUT_OF_MEMORY.example, {"Retry-After": "5"})
    if isinstance(error, DecodingStopped):
        return Refusal(NOT_READY, "the service is stopping", {"Retry-After": "5"})
    _log.error("request %s failed", request_id, exc_info=error)
    return Refusal(INTERNAL, INTERNAL.example)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether `error`, or an error that caused it, says that the memory of the GPU or the machine is full."""
    return any(
        isinstance(cause, MemoryError | torch.OutOfMemoryError)
        or (isinstance(cause, RuntimeError) and any(words in str(cause).lower() for words in _MEMORY_MESSAGES))
        for cause in _causes(error)
    )


def _causes(error: BaseException) -> Iterator[BaseException]:
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__


def problem_response(refused: Refusal, request_id: str | None) -> Response:
    """The HTTP answer of a refusal."""
    body = _PROBLEM.dump_json(refused.problem(request_id))
    return Response(body, refused.kind.status, dict(refused.headers), MEDIA_TYPE)


def faults(errors: Sequence[Any]) -> str:
    """The field and reason of each validation error of pydantic, without the value that was sent."""
    return "; ".join(f"{'.'.join(map(str, fault['loc'])) or 'body'}: {fault['msg']}" for fault in errors)


def documented(kinds: Sequence[Kind]) -> dict[int | str, dict[str, Any]]:
    """The OpenAPI responses for `kinds` and `INTERNAL`: by status, with an example of each kind."""
    kinds = (*kinds, INTERNAL)
    answers: dict[int | str, dict[str, Any]] = {}
    for status in sorted({kind.status for kind in kinds}):
        matching = [kind for kind in kinds if kind.status == status]
        examples = {kind.slug: {"summary": kind.title, "value": _example(kind)} for kind in matching}
        content = {"schema": {"$ref": "#/components/schemas/Problem"}, "examples": examples}
        answers[status] = {
            "description": " / ".join(kind.title for kind in matching),
            "content": {MEDIA_TYPE: content},
        }
    if BUSY.status in answers:
        seconds = {"description": "Seconds, from the measured rate.", "schema": {"type": "integer", "minimum": 1}}
        answers[BUSY.status]["headers"] = {"Retry-After": seconds}
    if KEY_NEEDED.status in answers:
        scheme = {"description": "Bearer", "schema": {"type": "string"}}
        answers[KEY_NEEDED.status]["headers"] = {"WWW-Authenticate": scheme}
    return answers


def _example(kind: Kind) -> Any:
    return _PROBLEM.dump_python(Refusal(kind, kind.example).problem("01KAPW6ZT0Q8V4M2N5E7R9X3YB"), mode="json")
