"""The node's peers: the ReSAD service, and the PACS by C-STORE or by STOW-RS."""

import json
import random
import ssl
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

import httpx
from pynetdicom import AE, _config, evt
from pynetdicom.association import Association
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]
from resad_client.client import BlockingPort, finish
from resad_client.errors import ProtocolError
from resad_client.http import DEFAULT_TIMEOUT, Attachment, Call, RetryPolicy, base_url, once, standing_headers
from resad_client.protocol import ScoreQuery

from resad_dicom.multipart import DICOM, RELATED, MultipartError, read_parts, write_parts
from resad_dicom.objects import Header, read_header
from resad_dicom.queue import StoredResult
from resad_dicom.settings import Address, DicomAddress, Settings, WebAddress
from resad_dicom.storage_scp import close_socket
from resad_dicom.work import PeerAway

_STORED: Final = 0x0000
_WARNINGS: Final = (0xB000, 0xB006, 0xB007, 0x0001, 0x0107, 0x0116)
"""C-STORE statuses of an object that is stored, though not in each element as it was sent."""
_DUPLICATE: Final = 0x0111
"""The PACS has the object already: an earlier attempt's, whose answer was lost."""
_UNANSWERED: Final = 0x0110
"""Processing failure: of an object that the answer does not list."""
_FAILED: Final = "00081198"
_REFERENCED: Final = "00081199"
_INSTANCE: Final = "00081155"
_REASON: Final = "00081197"
_SECONDS: Final = 60.0


class HttpService:
    """The ReSAD service by HTTP, asked once for each call; may be shared by threads."""

    def __init__(self, settings: Settings, transport: httpx.BaseTransport | None = None) -> None:
        self._http = httpx.Client(
            base_url=base_url(settings.service),
            headers=standing_headers(settings.service_key),
            timeout=DEFAULT_TIMEOUT,
            transport=transport,
        )
        self._port = BlockingPort(self._http, time.sleep, RetryPolicy(retries=0), random.Random())
        self._query = ScoreQuery(
            index=settings.index, fpr=settings.fpr, false_regions=settings.false_regions
        ).pairs

    def results(self, photo: bytes) -> list[bytes]:
        """The result objects of a photograph; raises an error of `resad_client.errors`."""
        body = Attachment("object", DICOM, photo)
        response = finish(once(self._port, Call("POST", "/v1/score", RELATED, self._query, body)))
        try:
            return read_parts(response.headers.get("Content-Type", ""), response.content)
        except MultipartError as error:
            raise ProtocolError(str(error)) from error

    def ready(self) -> None:
        """Raise an error of `resad_client.errors` unless the service can score."""
        finish(once(self._port, Call("GET", "/readyz", "*/*")))

    def close(self) -> None:
        """Give back the connections."""
        self._http.close()


class StoreDestination:
    """A PACS by C-STORE (Storage SCU)."""

    def __init__(self, title: str, address: DicomAddress, tls: ssl.SSLContext | None) -> None:
        # Objects are sent from their files as they are: neither decoded nor encoded again.
        _config.STORE_SEND_CHUNKED_DATASET = True
        self._title = title
        self._address = address
        self._tls = tls

    def send(self, results: Sequence[StoredResult], answer: Callable[[StoredResult, str | None], None]) -> None:
        """Send objects on one association; see `Destination.send`."""
        headers = {result: read_header(result.path.read_bytes()) for result in results}
        contexts = {(header.sop_class, header.transfer_syntax) for header in headers.values()}
        with self._association(sorted(contexts)) as association:
            accepted = {
                (str(context.abstract_syntax), str(context.transfer_syntax[0]))
                for context in association.accepted_contexts
            }
            for result, header in headers.items():
                if (header.sop_class, header.transfer_syntax) not in accepted:
                    answer(result, f"SOP class {header.sop_class} with transfer syntax {header.transfer_syntax}: "
                           "no presentation context was accepted")  # fmt: skip
                else:
                    self._store(association, result, header, answer)

    def echo(self) -> None:
        """C-ECHO; raises `PeerAway` unless it is answered with success."""
        with self._association(()) as association:
            status = association.send_c_echo().get("Status")
            if status != _STORED:
                raise PeerAway("C-ECHO was not answered" if status is None else f"C-ECHO: status 0x{status:04X}")

    def close(self) -> None:
        """Nothing: each association ends with its call."""

    def _store(
        self,
        association: Association,
        result: StoredResult,
        header: Header,
        answer: Callable[[StoredResult, str | None], None],
    ) -> None:
        try:
            status = association.send_c_store(result.path).get("Status")
        except RuntimeError as error:  # no association any more
            raise PeerAway("the association was lost") from error
        if status is None:
            raise PeerAway("C-STORE was not answered: the association was lost")
        if status in (_STORED, _DUPLICATE, *_WARNINGS):
            answer(result, None)
        elif status >> 8 == 0xA7:
            raise PeerAway(f"C-STORE: status 0x{status:04X}, out of resources")
        else:
            answer(result, f"SOP class {header.sop_class}: C-STORE status 0x{status:04X}")

    @contextmanager
    def _association(self, contexts: Sequence[tuple[str, str]]) -> Iterator[Association]:
        entity = AE(self._title)
        entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = _SECONDS
        entity.connection_timeout = 10.0
        entity.add_requested_context(Verification)
        for sop_class, syntax in contexts:
            entity.add_requested_context(sop_class, syntax)
        address = self._address
        tls = (self._tls, address.host) if self._tls is not None else None
        association = entity.associate(
            address.host,
            address.port,
            ae_title=address.title,
            tls_args=tls,
            evt_handlers=[(evt.EVT_CONN_CLOSE, close_socket)],
        )
        try:
            if association.is_rejected:
                raise PeerAway("the PACS rejected the association: does it know this AE title and host?")
            if not association.is_established:
                raise PeerAway("no association with the PACS: it is away, or refuses TLS")
            yield association
        finally:
            if association.is_established:
                association.release()


class WebDestination:
    """A PACS by STOW-RS."""

    def __init__(
        self,
        address: WebAddress,
        authorization: str | None,
        tls: ssl.SSLContext,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        headers = {"Accept": "application/dicom+json"}
        if authorization is not None:
            headers["Authorization"] = authorization
        self._url = f"{address.url}/studies"
        self._http = httpx.Client(
            headers=headers, verify=tls, timeout=httpx.Timeout(_SECONDS, connect=10.0), transport=transport
        )

    def send(self, results: Sequence[StoredResult], answer: Callable[[StoredResult, str | None], None]) -> None:
        """Send the objects of each photograph in one request; see `Destination.send`."""
        for item in dict.fromkeys(result.item for result in results):
            self._send([result for result in results if result.item == item], answer)

    def echo(self) -> None:
        """Ask for no study; raises `PeerAway` unless the PACS answers."""
        response = self._request("GET", params={"limit": "1"})
        if response.is_error:
            raise PeerAway(f"GET /studies: status {response.status_code}")

    def close(self) -> None:
        """Give back the connections."""
        self._http.close()

    def _send(self, results: Sequence[StoredResult], answer: Callable[[StoredResult, str | None], None]) -> None:
        files = [result.path.read_bytes() for result in results]
        content_type, body = write_parts(files)
        response = self._request("POST", content=body, headers={"Content-Type": content_type})
        if response.status_code not in (200, 202, 409):
            raise PeerAway(f"STOW-RS: status {response.status_code}")
        outcomes = _outcomes(response)
        for result, data in zip(results, files, strict=True):
            reason = outcomes.get(read_header(data).sop_instance, _UNANSWERED)
            if reason >> 8 == 0xA7:
                raise PeerAway(f"STOW-RS: failure 0x{reason:04X}, out of resources")
            stored = reason in (_STORED, _DUPLICATE)
            answer(result, None if stored else f"STOW-RS: failure reason 0x{reason:04X}")

    def _request(self, method: str, **options: Any) -> httpx.Response:
        try:
            return self._http.request(method, self._url, **options)
        except httpx.RequestError as error:
            raise PeerAway(f"no answer from the PACS ({type(error).__name__})") from error


def _outcomes(response: httpx.Response) -> dict[str, int]:
    """SOP Instance UID -> 0 where it is stored, else the failure reason; `PeerAway` for another answer.

    Only an answer that lists the objects is trusted: a proxy's page with status 200 says nothing of them.
    """
    try:
        document = json.loads(response.content)
        stored = document.get(_REFERENCED, {}).get("Value", [])
        failed = document.get(_FAILED, {}).get("Value", [])
        outcomes = {_first(entry, _INSTANCE): _STORED for entry in stored}
        outcomes |= {_first(entry, _INSTANCE): int(_first(entry, _REASON)) for entry in failed}
    except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        raise PeerAway("STOW-RS: the answer is no DICOM JSON") from error
    if not outcomes:
        raise PeerAway("STOW-RS: the answer lists no object")
    return outcomes


def _first(entry: Any, tag: str) -> Any:
    return entry[tag]["Value"][0]


def destination(settings: Settings, address: Address) -> StoreDestination | WebDestination:
    """The PACS that the settings name; raises `SettingError`."""
    if isinstance(address, WebAddress):
        return WebDestination(address, settings.destination_auth, settings.requestor_tls())
    return StoreDestination(settings.title, address, settings.requestor_tls() if address.tls else None)
