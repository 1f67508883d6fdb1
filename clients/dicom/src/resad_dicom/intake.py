"""What becomes of an object that arrives, by C-STORE and by STOW-RS alike."""

import sqlite3
from dataclasses import dataclass
from typing import Final

import structlog

from resad_dicom.metrics import Metrics, Way
from resad_dicom.objects import MISMATCH, OUT_OF_RESOURCES, Header, ObjectRefused, read_photo_header
from resad_dicom.queue import Limit, Queue

_log: Final = structlog.get_logger("resad_dicom")


@dataclass(frozen=True, slots=True, eq=False)
class Intake:
    """Checks objects and puts them into the queue; may be shared by threads."""

    queue: Queue
    metrics: Metrics

    def full(self) -> Limit | None:
        """Which limit of the queue is reached; None while there is room."""
        return self.queue.full()

    def take(self, data: bytes, way: Way, *, instance: str | None = None, study: str | None = None) -> Header:
        """Keep an object durably; returns its identifiers.

        A result of a ReSAD service is dropped as if it were kept: a PACS that routes all objects of a study would
        have results scored for ever.

        Args:
            instance: SOP Instance UID that the caller announced.
            study: Study Instance UID of the address that the caller used.
        Raises:
            ObjectRefused: the object is not taken.
        """
        try:
            header = read_photo_header(data)
            if instance not in (None, header.sop_instance) or study not in (None, header.study):
                raise ObjectRefused(MISMATCH, "the object has another UID than was announced")
            if header.made_by_resad:
                self.metrics.arrived(way, "result")
                return header
            limit = self.full()
            if limit is not None:
                raise ObjectRefused(OUT_OF_RESOURCES, f"the queue is full ({limit})")
            queued = self.queue.add(data)
        except ObjectRefused as refusal:
            self.metrics.arrived(way, "full" if refusal.status == OUT_OF_RESOURCES else "refused")
            _log.warning("object not taken", way=way, status=f"0x{refusal.status:04X}", reason=refusal.reason)
            raise
        except (OSError, sqlite3.Error) as error:
            self.metrics.arrived(way, "full")
            _log.error("the queue cannot be written", fault=type(error).__name__)
            raise ObjectRefused(OUT_OF_RESOURCES, "the queue cannot be written") from error
        self.metrics.arrived(way, "queued" if queued else "repeated")
        _log.info("object received", way=way, bytes=len(data), repeated=not queued)
        return header
