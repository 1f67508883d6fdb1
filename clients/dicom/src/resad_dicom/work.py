"""The two halves of the node's work, each in threads of its own: score what was received, send what was scored.

A fault of a peer (the service or the PACS is away, overloaded, or set up wrongly) stops the half that needs it,
with waits that double up to half a minute; it costs no photograph an attempt.  A fault of a photograph postpones
that photograph alone.  After `ATTEMPTS` of these, or a plain refusal, it is given up and kept for a person.
"""

import random
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Final, Protocol

import structlog
from resad_client.errors import (
    OUT_OF_MEMORY,
    ConnectionFailed,
    ConnectionLost,
    DeadlinePassed,
    PhotoRefused,
    ProtocolError,
    ServerFault,
    ServerProblem,
    TimedOut,
)

from resad_dicom.metrics import Metrics
from resad_dicom.objects import ObjectRefused, kind_of, read_header
from resad_dicom.queue import Item, Peer, Queue, StoredResult
from resad_dicom.settings import ResultKind

_log = structlog.get_logger("resad_dicom")

ATTEMPTS: Final = 10
_SENT_TOGETHER: Final = 16
"""Photographs whose results share an association."""
_POLL_S: Final = 1.0
_FIRST_WAIT_S: Final = 0.5
_LONGEST_WAIT_S: Final = 30.0
_SETTING_FAULTS: Final = ("urn:resad:problem:index-not-named", "urn:resad:problem:invalid-request")
"""Problems with status 422 that are not the photograph's."""


class PeerAway(Exception):
    """The service or the PACS cannot be used now.  wait_s: seconds that it asked for."""

    def __init__(self, reason: str, wait_s: float = 0.0) -> None:
        super().__init__(reason)
        self.reason = reason
        self.wait_s = wait_s


class Service(Protocol):
    """The ReSAD service, from outside."""

    def results(self, photo: bytes) -> list[bytes]:
        """The result objects of a photograph; raises an error of `resad_client.errors`."""


class Destination(Protocol):
    """The PACS, from outside."""

    def send(self, results: Sequence[StoredResult], answer: Callable[[StoredResult, str | None], None]) -> None:
        """Send objects; `answer` gets each with None where it is stored, else with the reason of its refusal.

        Raises `PeerAway` where the rest was not answered.
        """


class _Half(ABC):
    """A loop that claims photographs, and waits while its peer is away."""

    peer: Peer

    def __init__(self, queue: Queue, metrics: Metrics, stop: threading.Event) -> None:
        self._queue = queue
        self._metrics = metrics
        self._stop = stop
        self._failures = 0

    def run(self) -> None:
        """Work until told to stop."""
        while not self._stop.is_set():
            try:
                changes = self._queue.changes
                if not self.step():
                    self._queue.wait_for_change(changes, _POLL_S)
            except PeerAway as fault:
                self._away(fault)
            except Exception as error:
                # Nothing is lost: rows and files stay.  The message may quote a value of a header.
                _log.error("unexpected fault", half=self.peer, fault=type(error).__name__, at=_place(error))
                self._stop.wait(_LONGEST_WAIT_S)

    @abstractmethod
    def step(self) -> bool:
        """Do a piece of work; false if there is none."""

    def _reached(self) -> None:
        if self._failures:
            _log.info(f"{self.peer} answers again", failures=self._failures)
        self._failures = 0
        self._metrics.reached(self.peer, True)

    def _away(self, fault: PeerAway) -> None:
        self._metrics.retry(self.peer)
        self._metrics.reached(self.peer, False)
        wait = min(_FIRST_WAIT_S * 2.0 ** min(self._failures, 16), _LONGEST_WAIT_S) * random.uniform(0.7, 1.0)
        wait = max(wait, fault.wait_s)
        if self._failures == 0 or wait >= _LONGEST_WAIT_S / 2:
            _log.warning(f"{self.peer} cannot be used", reason=fault.reason, retry_in_s=round(wait, 1))
        self._failures += 1
        self._stop.wait(wait)

    def _postpone(self, item: Item, reason: str, *, forever: bool = False) -> None:
        """Try a photograph again later, or give it up after its last attempt."""
        if item.attempts + 1 >= ATTEMPTS and not forever:
            self._refuse(item, reason)
            return
        wait = self._queue.postpone(item)
        self._metrics.retry(self.peer)
        _log.warning("photograph postponed", photo=item.number, peer=self.peer, reason=reason, retry_in_s=wait)

    def _refuse(self, item: Item, reason: str) -> None:
        self._queue.refuse(item, self.peer, reason)
        self._metrics.refused(self.peer)
        _log.warning("photograph refused", photo=item.number, peer=self.peer, reason=reason)


class Scoring(_Half):
    """Sends photographs to the service and keeps what it answers.

    Args:
        kinds: the result objects that are kept; others of the service's answer are dropped.
    """

    peer = "service"

    def __init__(
        self,
        queue: Queue,
        service: Service,
        kinds: Sequence[ResultKind],
        metrics: Metrics,
        stop: threading.Event,
    ) -> None:
        super().__init__(queue, metrics, stop)
        self._service = service
        self._kinds = kinds

    def step(self) -> bool:
        """Score a photograph; false if none is due."""
        items = self._queue.claim("received")
        for item in items:
            try:
                self._score(item)
            finally:
                self._queue.release(item)
        return bool(items)

    def _score(self, item: Item) -> None:
        try:
            photo = self._queue.photo(item)
            objects = self._checked(photo, self._service.results(photo))
        except FileNotFoundError:
            self._refuse(item, "its file is missing from the queue")
        except PhotoRefused as error:
            if error.type in _SETTING_FAULTS:
                raise PeerAway(_reason(error)) from error
            self._reached()
            self._refuse(item, _reason(error))
        except (ConnectionLost, TimedOut, DeadlinePassed) as error:
            # Perhaps of this photograph, which ends or holds up the service, perhaps of the service alone: the
            # others go first, none is given up.
            self._postpone(item, type(error).__name__, forever=True)
        except (ProtocolError, ObjectRefused) as error:
            self._postpone(item, f"the service's answer cannot be used: {error}")
        except ServerFault as error:
            if error.stands_in:
                raise PeerAway(_reason(error)) from error
            self._postpone(item, _reason(error))
        except ServerProblem as error:
            if error.type != OUT_OF_MEMORY:
                raise PeerAway(_reason(error), error.retry_after or 0.0) from error
            self._postpone(item, _reason(error), forever=True)
        except ConnectionFailed as error:
            raise PeerAway(str(error)) from error
        else:
            self._reached()
            self._queue.add_results(item, objects)
            self._metrics.scored()
            _log.info("photograph scored", photo=item.number, objects=len(objects))

    def _checked(self, photo: bytes, objects: Sequence[bytes]) -> list[bytes]:
        """The objects that are to be sent; raises unless they belong to the photograph's study."""
        study = read_header(photo).study
        headers = [read_header(data) for data in objects]
        if not headers:
            raise ProtocolError("it holds no object")
        if any(header.study != study for header in headers):
            raise ProtocolError("an object is of another study")
        if len({header.sop_instance for header in headers}) < len(headers):
            raise ProtocolError("two objects have the same UID")
        return [
            data
            for data, header in zip(objects, headers, strict=True)
            if (kind := kind_of(header.sop_class)) is None or kind in self._kinds
        ]


class Sending(_Half):
    """Sends result objects to the PACS and forgets photographs whose results it has."""

    peer = "pacs"

    def __init__(
        self,
        queue: Queue,
        destination: Destination,
        metrics: Metrics,
        stop: threading.Event,
        clock: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(queue, metrics, stop)
        self._destination = destination
        self._clock = clock

    def step(self) -> bool:
        """Send the results of some photographs; false if none is due."""
        items = self._queue.claim("scored", _SENT_TOGETHER)
        try:
            if items:
                self._send(items)
        finally:
            for item in items:
                self._queue.release(item)
        return bool(items)

    def _send(self, items: Sequence[Item]) -> None:
        refusals: dict[int, str] = {}

        def note(result: StoredResult, refusal: str | None) -> None:
            if refusal is None:
                self._queue.sent(result)
                self._metrics.sent()
            else:
                refusals.setdefault(result.item, refusal)

        results = [result for item in items for result in self._queue.unsent(item)]
        try:
            if results:
                self._destination.send(results, note)
                self._reached()
        finally:
            for item in items:
                if item.number in refusals:
                    self._postpone(item, refusals[item.number])
                elif not self._queue.unsent(item):
                    self._queue.finish(item)
                    seconds = max(0.0, self._clock() - item.received)
                    self._metrics.answered(seconds)
                    _log.info("photograph answered", photo=item.number, seconds=round(seconds, 2))


def _reason(error: ServerProblem) -> str:
    """Status and kind of a problem.  Not its detail, which may quote the photograph."""
    kind = error.type.removeprefix("urn:resad:problem:")
    return f"{error.status} {error.title if kind == 'about:blank' else kind}"


def _place(error: Exception) -> str:
    """File and line where it was raised."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return "" if trace is None else f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}"
