"""The DICOM listener: Verification SCP and Storage SCP; checks AE titles, speaks TLS, rejects what has no room."""

import socket
import ssl
import sys
import threading
from socketserver import BaseServer
from typing import Any, Final

import structlog
from pynetdicom import AE, evt
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.pdu import P_DATA_TF
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]
from pynetdicom.transport import ThreadedAssociationServer
from resad_client.errors import SettingError

from resad_dicom.intake import Intake
from resad_dicom.metrics import Metrics
from resad_dicom.objects import PHOTO_CLASSES, TRANSFER_SYNTAXES, UNREADABLE, ObjectRefused, as_file
from resad_dicom.settings import Settings

_log: Final = structlog.get_logger("resad_dicom")

_SUCCESS: Final = 0x0000
_TRANSIENT: Final = 0x02
_PRESENTATION: Final = 0x03
_LOCAL_LIMIT: Final = 0x02
_SECONDS: Final = 60.0
_HANDSHAKE_S: Final = 10.0


class _Server(ThreadedAssociationServer):
    """A thread for each connection, in which its TLS handshake takes place.

    The library shakes hands in the thread that accepts: a caller that connects and says nothing would shut out all
    others.
    """

    def get_request(self) -> tuple[socket.socket, tuple[str, int]]:
        assert self.socket is not None
        connection, address = self.socket.accept()
        return connection, address

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        if self.ssl_context is not None:
            try:
                request.settimeout(_HANDSHAKE_S)
                request = self.ssl_context.wrap_socket(request, server_side=True)
                request.settimeout(None)
            except OSError as error:
                request.close()
                _log.warning("connection refused: no TLS handshake", fault=type(error).__name__)
                return
        super().process_request_thread(request, client_address)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say that a connection failed, without the address and the message."""
        _log.warning("connection failed", fault=type(sys.exception()).__name__)

    def shutdown(self) -> None:
        BaseServer.shutdown(self)
        self.server_close()


def close_socket(event: evt.Event) -> None:
    """Close the socket of an association that has ended; a handler of `EVT_CONN_CLOSE`.

    The library shuts a socket down before it closes it.  Where the peer was faster that fails, and the socket
    stays open until the garbage collector finds the association.
    """
    transport = event.assoc.dul.socket
    if transport is not None and transport.socket is not None:
        transport.socket.close()


class StorageScp:
    """Listens from `start` to `stop`.

    An association that proposes storage while the queue is full is rejected as a transient fault ("local limit
    exceeded"), so that the sender keeps the object and tries again; C-ECHO alone is always answered.
    """

    def __init__(self, settings: Settings, intake: Intake, metrics: Metrics) -> None:
        self._settings = settings
        self._intake = intake
        self._metrics = metrics
        self._tls: ssl.SSLContext | None = settings.acceptor_tls()
        self._server: _Server | None = None
        self._arriving: dict[int, int] = {}
        """Association -> bytes of the object that it is sending."""
        self._lock = threading.Lock()
        entity = AE(settings.title)
        entity.require_called_aet = True
        entity.require_calling_aet = list(settings.callers)
        entity.maximum_associations = settings.max_associations
        entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = _SECONDS
        entity.add_supported_context(Verification)
        for sop_class in PHOTO_CLASSES:
            entity.add_supported_context(sop_class, list(TRANSFER_SYNTAXES))
        self._entity = entity

    def start(self) -> int:
        """Listen; returns the port.  Raises `SettingError`."""
        settings = self._settings
        try:
            server = self._entity.make_server(
                (settings.host, settings.port),
                ssl_context=self._tls,
                server_class=_Server,
                evt_handlers=[
                    (evt.EVT_REQUESTED, self._requested),
                    (evt.EVT_ACCEPTED, self._accepted),
                    (evt.EVT_REJECTED, self._rejected),
                    (evt.EVT_ABORTED, self._aborted),
                    (evt.EVT_CONN_CLOSE, self._closed),
                    (evt.EVT_PDU_RECV, self._pdu_received),
                    (evt.EVT_C_ECHO, self._echo),
                    (evt.EVT_C_STORE, self._store),
                ],
            )
        except OSError as error:
            raise SettingError(
                f"cannot listen on {settings.host}, port {settings.port}: {error.strerror or error}"
            ) from error
        assert isinstance(server, _Server)
        self._server = server
        threading.Thread(target=server.serve_forever, name="acceptor", daemon=True).start()
        port: int = server.server_address[1]
        return port

    def stop(self) -> None:
        """Take no more associations, and abort those that are open: their senders send again."""
        if self._server is not None:
            self._entity.shutdown()
            self._server.shutdown()

    def _requested(self, event: evt.Event) -> None:
        limit = self._intake.full()
        if limit is None:
            return
        primitive = event.assoc.requestor.primitive
        callers = self._settings.callers
        if primitive is None or (callers and primitive.calling_ae_title not in callers):
            return  # rejected for its title, which says more
        contexts = primitive.presentation_context_definition_list
        if all(context.abstract_syntax == Verification for context in contexts):
            return
        event.assoc.acse.send_reject(_TRANSIENT, _PRESENTATION, _LOCAL_LIMIT)
        event.assoc.kill()
        self._metrics.association("full")
        _log.warning("association rejected: the queue is full", limit=limit)

    def _accepted(self, event: evt.Event) -> None:
        self._metrics.association("accepted")

    def _rejected(self, event: evt.Event) -> None:
        self._metrics.association("rejected")
        _log.warning("association rejected: AE title, or too many associations")

    def _aborted(self, event: evt.Event) -> None:
        self._metrics.association("aborted")

    def _closed(self, event: evt.Event) -> None:
        close_socket(event)
        with self._lock:
            self._arriving.pop(id(event.assoc), None)

    def _pdu_received(self, event: evt.Event) -> None:
        """Abort an association that sends a larger object than is allowed, before memory is full of it."""
        if not isinstance(event.pdu, P_DATA_TF):
            return
        with self._lock:
            size = self._arriving.get(id(event.assoc), 0) + event.pdu.pdu_length
            self._arriving[id(event.assoc)] = size
        limit = self._settings.max_object_bytes
        if size > limit and not event.assoc.is_aborted:
            _log.warning("association aborted: the object is too large", limit_bytes=limit)
            event.assoc.abort(block=False)

    def _echo(self, event: evt.Event) -> int:
        return _SUCCESS

    def _store(self, event: evt.Event) -> int:
        with self._lock:
            self._arriving[id(event.assoc)] = 0
        try:
            request = event.request
            assert isinstance(request, C_STORE)
            instance = str(request.AffectedSOPInstanceUID)
            data = as_file(
                str(request.AffectedSOPClassUID),
                instance,
                str(event.context.transfer_syntax),
                event.encoded_dataset(include_meta=False),
            )
            self._intake.take(data, "c-store", instance=instance)
        except ObjectRefused as refusal:
            return refusal.status
        except Exception as error:
            # The library's log would show the message, which may quote the object.
            _log.error("unexpected fault", half="c-store", fault=type(error).__name__)
            return UNREADABLE
        return _SUCCESS
