"""C-STORE, STOW-RS and TLS towards the PACS, and the settings that name it."""

import datetime
import gc
import ipaddress
import json
import socket
import ssl
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st
from pydicom import dcmread
from pydicom.uid import ExplicitVRLittleEndian, OphthalmicPhotography8BitImageStorage, ParametricMapStorage
from pynetdicom import AE
from resad_client.errors import SettingError

from dicom_samples import photo_object, result_objects
from resad_dicom.multipart import DicomParts, MultipartError, read_parts, write_parts
from resad_dicom.objects import ObjectRefused, as_file, is_uid, read_header
from resad_dicom.peers import StoreDestination, WebDestination, destination
from resad_dicom.queue import StoredResult
from resad_dicom.settings import DicomAddress, Settings, WebAddress, parse_address, read_settings
from resad_dicom.work import PeerAway
from stand_ins import StandInPacs, free_port, running_node, stand_in_pacs, stand_in_service, until

Answers = dict[int, str | None]


def results(folder: Path) -> list[StoredResult]:
    stored = []
    for number, data in enumerate(result_objects(photo_object(0))):
        path = folder / f"{number}.dcm"
        path.write_bytes(data)
        stored.append(StoredResult(1, number, path))
    return stored


def send(pacs: StoreDestination | WebDestination, objects: list[StoredResult]) -> Answers:
    answers: Answers = {}

    def note(result: StoredResult, refusal: str | None) -> None:
        answers[result.number] = refusal

    pacs.send(objects, note)
    return answers


def scu(address: str) -> StoreDestination:
    parsed = parse_address(address)
    assert isinstance(parsed, DicomAddress)
    return StoreDestination("RESAD", parsed, None)


def test_objects_arrive_as_they_are(tmp_path: Path, pacs: StandInPacs) -> None:
    objects = results(tmp_path)
    assert send(scu(pacs.address), objects) == {0: None, 1: None, 2: None}
    for result in objects:
        header = read_header(result.path.read_bytes())
        dataset = pacs.datasets[header.sop_instance]
        assert dataset.StudyInstanceUID == header.study


@pytest.mark.parametrize(
    ("status", "stored"), [(0xB000, True), (0x0111, True), (0xA900, False), (0xC123, False), (0x0122, False)]
)
def test_statuses_of_c_store(tmp_path: Path, pacs: StandInPacs, status: int, stored: bool) -> None:
    pacs.statuses = [status]
    answers = send(scu(pacs.address), results(tmp_path))
    assert (answers[0] is None) is stored
    assert stored or f"0x{status:04X}" in str(answers[0])
    assert answers[1] is answers[2] is None


def test_a_pacs_without_room_is_away(tmp_path: Path, pacs: StandInPacs) -> None:
    pacs.statuses = [0xA700]
    with pytest.raises(PeerAway, match="out of resources"):
        send(scu(pacs.address), results(tmp_path))


def test_a_pacs_that_does_not_take_maps_gets_the_rest(tmp_path: Path) -> None:
    with stand_in_pacs(without=(ParametricMapStorage,)) as pacs:
        answers = send(scu(pacs.address), results(tmp_path))
    assert "no presentation context" in str(answers[0])
    assert answers[1] is answers[2] is None


def test_echo_and_a_pacs_with_another_title(pacs: StandInPacs) -> None:
    scu(pacs.address).echo()
    with pytest.raises(PeerAway, match="rejected the association"):
        scu(pacs.address.replace("PACS", "OTHER")).echo()


def test_nobody_there() -> None:
    with pytest.raises(PeerAway, match="is away"):
        scu(f"dicom://PACS@127.0.0.1:{free_port()}").echo()


def stow(answer: Callable[[httpx.Request], httpx.Response], authorization: str | None = None) -> WebDestination:
    return WebDestination(
        WebAddress("http://pacs/dicom-web"),
        authorization,
        ssl.create_default_context(),
        httpx.MockTransport(answer),
    )


def entry(data: bytes, reason: int | None = None) -> dict[str, Any]:
    reference: dict[str, Any] = {"00081155": {"vr": "UI", "Value": [read_header(data).sop_instance]}}
    return reference if reason is None else reference | {"00081197": {"vr": "US", "Value": [reason]}}


def listing(status: int, stored: list[dict[str, Any]], failed: list[dict[str, Any]]) -> httpx.Response:
    document = {"00081199": {"vr": "SQ", "Value": stored}, "00081198": {"vr": "SQ", "Value": failed}}
    return httpx.Response(status, content=json.dumps(document).encode())


def test_stow_sends_the_objects_of_a_photograph_together(tmp_path: Path) -> None:
    requests: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        requests.append(request)
        parts = read_parts(request.headers["Content-Type"], request.content)
        return listing(202, [entry(parts[0]), entry(parts[1])], [entry(parts[2], 0x0110)])

    answers = send(stow(answer, "Basic cmVzYWQ="), results(tmp_path))
    assert answers == {0: None, 1: None, 2: "STOW-RS: failure reason 0x0110"}
    (request,) = requests
    assert str(request.url) == "http://pacs/dicom-web/studies"
    assert request.headers["Authorization"] == "Basic cmVzYWQ="
    parts = read_parts(request.headers["Content-Type"], request.content)
    assert parts == [result.path.read_bytes() for result in results(tmp_path)]


@pytest.mark.parametrize(
    "response",
    [
        httpx.Response(503),
        httpx.Response(401),
        httpx.Response(200, content=b"<html>welcome</html>"),
        httpx.Response(200, content=b"{}"),
        httpx.Response(200, content=b'{"00081199": {"Value": [{}]}}'),
        listing(202, [], [entry(result_objects(photo_object(0))[0], 0xA701)]),
    ],
)
def test_answers_that_say_nothing_of_the_objects_are_no_success(tmp_path: Path, response: httpx.Response) -> None:
    with pytest.raises(PeerAway):
        send(stow(lambda request: response), results(tmp_path))


def test_an_object_that_the_answer_does_not_list_is_not_stored(tmp_path: Path) -> None:
    first = result_objects(photo_object(0))[0]
    answers = send(stow(lambda request: listing(200, [entry(first)], [])), results(tmp_path))
    assert answers[0] is None
    assert "0x0110" in str(answers[1])


@given(st.lists(st.binary(max_size=200), min_size=1, max_size=5), st.integers(1, 50))
def test_multipart_bodies_come_back_whole(files: list[bytes], step: int) -> None:
    content_type, body = write_parts(files)
    assert read_parts(content_type, body) == files
    parts = DicomParts(content_type)
    for start in range(0, len(body), step):
        parts.feed(body[start : start + step])
    assert parts.finish() == files
    with pytest.raises(MultipartError):
        read_parts(content_type, body[: -len(body) // 3])


@given(st.binary(max_size=300))
def test_no_bytes_are_read_as_more_than_they_are(data: bytes) -> None:
    """Damaged files are refused, and by no other error."""
    whole = photo_object(0)
    for damaged in (data, whole[: 132 + len(data)], whole[:200] + data + whole[200:], whole[:160] + data):
        with suppress(ObjectRefused):
            assert is_uid(read_header(damaged).study)


def test_a_received_data_set_becomes_a_file() -> None:
    photo = photo_object(0)
    header = read_header(photo)
    body = photo[photo.index(b"\x08\x00\x16\x00") :]
    file = as_file(header.sop_class, header.sop_instance, header.transfer_syntax, body)
    assert read_header(file) == header
    assert file.endswith(body)


def certificate(folder: Path, name: str) -> None:
    """NAME.crt and NAME.key of 127.0.0.1, which is its own authority."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    signed = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
        .sign(key, hashes.SHA256())
    )
    (folder / f"{name}.crt").write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    (folder / f"{name}.key").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )


def test_tls_needs_a_certificate_that_the_other_side_trusts(tmp_path: Path) -> None:
    """Two nodes: the first one's results would go to the second, whose listener plays the PACS here."""
    for name in ("node", "stranger"):
        certificate(tmp_path, name)

    def identity(name: str) -> dict[str, Path]:
        return {
            "tls_certificate": tmp_path / f"{name}.crt", "tls_key": tmp_path / f"{name}.key",
            "tls_ca": tmp_path / "node.crt",
        }  # fmt: skip

    with (
        stand_in_service() as service,
        stand_in_pacs() as pacs,
        running_node(tmp_path, pacs.address, service.url, **identity("node")) as node,
    ):
        address = f"dicoms://RESAD@127.0.0.1:{node.port}"

        def echo(**files: Path) -> None:
            settings = Settings(queue=tmp_path / "unused", destination=address, title="CAMERA", **files)  # type: ignore[arg-type]
            destination(settings, settings.address).echo()

        # A caller that connects and says nothing, as a load balancer's probe does, shuts out nobody.
        with socket.create_connection(("127.0.0.1", node.port)):
            echo(**identity("node"))
        for untrusted in (identity("stranger"), {"tls_ca": tmp_path / "node.crt"}, {}):
            with pytest.raises(PeerAway):
                echo(**untrusted)
        with pytest.raises(PeerAway):
            scu(f"dicom://RESAD@127.0.0.1:{node.port}").echo()

        context = ssl.create_default_context(cafile=str(tmp_path / "node.crt"))
        content_type, body = write_parts([photo_object(0)])
        answer = httpx.post(
            f"{node.web}/studies", content=body, headers={"Content-Type": content_type}, verify=context
        )
        assert answer.status_code == 200
        entity = AE("CAMERA")
        entity.add_requested_context(OphthalmicPhotography8BitImageStorage, ExplicitVRLittleEndian)
        context.load_cert_chain(tmp_path / "node.crt", tmp_path / "node.key")
        association = entity.associate("127.0.0.1", node.port, ae_title="RESAD", tls_args=(context, "127.0.0.1"))
        (tmp_path / "photo.dcm").write_bytes(photo_object(1))
        assert association.send_c_store(dcmread(tmp_path / "photo.dcm")).Status == 0
        association.release()
        until(lambda: len(pacs.stored) == 6)
    gc.collect()  # a socket that a failed handshake left open would be reported here


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("dicom://PACS@pacs.example:104", DicomAddress("PACS", "pacs.example", 104, False)),
        ("dicoms://MY_PACS@10.0.0.1:2762", DicomAddress("MY_PACS", "10.0.0.1", 2762, True)),
        ("https://pacs.example/dicom-web/", WebAddress("https://pacs.example/dicom-web")),
    ],
)
def test_destinations(text: str, address: DicomAddress | WebAddress) -> None:
    assert parse_address(text) == address
    assert parse_address(str(address)) == address


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"destination": "pacs:104"}, "expected dicom://AET@HOST:PORT"),
        ({"destination": "dicom://pacs:104"}, "expected dicom://AET@HOST:PORT"),
        ({"destination": "dicom://PACS@host"}, "expected dicom://AET@HOST:PORT"),
        ({"destination": "dicom://PACS@host:port"}, "expected dicom://AET@HOST:PORT"),
        ({"destination": "dicom://SEVENTEEN_LETTERS@host:104"}, "1 to 16 characters"),
        ({"destination": "https://user:secret@host/dicom-web"}, "--destination-auth-file"),
        ({"service": "ftp://host"}, "no address of a service"),
        ({"title": "A\\B"}, "no AE title"),
        ({"results": "map,sound"}, "--result or RESAD_DICOM_RESULTS"),
        ({"host": "0.0.0.0"}, "every AE title may send"),
        ({"host": "0.0.0.0", "callers": "PACS"}, "STOW-RS needs no key"),
        ({"tls_key": Path("key.pem")}, "go together"),
        ({"max_items": 0}, "--max-items or RESAD_DICOM_MAX_ITEMS"),
        ({"queue": None}, "queue is not given: use --queue or RESAD_DICOM_QUEUE"),
    ],
)
def test_settings_that_cannot_be_used_say_what_to_do(changes: dict[str, Any], message: str) -> None:
    values = {"queue": Path("queue"), "destination": "dicom://PACS@pacs:104"} | changes
    with pytest.raises(SettingError) as caught:
        read_settings(**values)
    assert message in str(caught.value)
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_settings_come_from_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RESAD_DICOM_QUEUE", "queue")
    monkeypatch.setenv("RESAD_DICOM_DESTINATION", "dicom://PACS@pacs:104")
    monkeypatch.setenv("RESAD_DICOM_CALLERS", "PACS, CAMERA 1")
    monkeypatch.setenv("RESAD_DICOM_RESULTS", "report,overlay")
    settings = read_settings(title="EYES", callers=None)
    assert settings.callers == ("PACS", "CAMERA 1")
    assert settings.results == ("report", "overlay")
    assert settings.title == "EYES"
