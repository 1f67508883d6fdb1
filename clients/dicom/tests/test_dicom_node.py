"""The node between stand-ins for its peers."""

import gc
import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from pydicom import dcmread
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    OphthalmicPhotography8BitImageStorage,
    SecondaryCaptureImageStorage,
)
from pynetdicom import AE, evt
from pynetdicom.association import Association
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]
from resad_client.errors import SettingError
from typer.testing import CliRunner

from dicom_samples import PATIENT, PATIENT_ID, RESULT_CLASSES, photo_object, result_objects, uid_for
from resad_dicom.cli import app
from resad_dicom.multipart import write_parts
from resad_dicom.node import Node
from resad_dicom.queue import Queue, QueueLimits
from resad_dicom.settings import Settings
from resad_dicom.storage_scp import close_socket
from stand_ins import StandInPacs, StandInService, node_process, running_node, until

PHOTO_CLASS = OphthalmicPhotography8BitImageStorage


def associate(
    port: int, *, called: str = "RESAD", calling: str = "CAMERA", sop_class: str = PHOTO_CLASS
) -> Association:
    entity = AE(calling)
    for context in {sop_class, Verification}:
        entity.add_requested_context(context, ExplicitVRLittleEndian)
    closing: list[evt.EventHandlerType] = [(evt.EVT_CONN_CLOSE, close_socket)]
    return entity.associate("127.0.0.1", port, ae_title=called, evt_handlers=closing)


def store(port: int, photo: bytes, tmp_path: Path) -> int | None:
    """C-STORE a photograph; the status, None if there is no answer."""
    path = tmp_path / "sent.dcm"
    path.write_bytes(photo)
    dataset = dcmread(path)
    association = associate(port, sop_class=dataset.SOPClassUID)
    if not association.is_established:
        return None
    status = association.send_c_store(dataset)
    association.release()
    value: int | None = status.get("Status")
    return value


def stow(url: str, photos: list[bytes], **headers: str) -> httpx.Response:
    content_type, body = write_parts(photos)
    return httpx.post(f"{url}/studies", content=body, headers={"Content-Type": content_type, **headers})


def test_photographs_go_in_and_results_come_out(
    tmp_path: Path, service: StandInService, pacs: StandInPacs
) -> None:
    with node_process(tmp_path, pacs.address, service.url, "--index", "eyes") as node:
        assert store(node.port, photo_object(0), tmp_path) == 0
        answer = stow(node.web, [photo_object(1), photo_object(2)])
        assert answer.status_code == 200
        assert len(answer.json()["00081199"]["Value"]) == 2
        until(lambda: len(pacs.stored) == 9)
        until(lambda: "resad_dicom_answer_seconds_count 3.0" in httpx.get(f"{node.web}/metrics").text)
        metrics = httpx.get(f"{node.web}/metrics").text
        assert httpx.get(f"{node.web}/livez").status_code == httpx.get(f"{node.web}/readyz").status_code == 200
        node.popen.send_signal(signal.SIGTERM)
        assert node.popen.wait(60) == 0
        log = node.log
    assert set(pacs.stored.values()) == {1}
    studies = {str(dataset.StudyInstanceUID) for dataset in pacs.datasets.values()}
    assert studies == {uid_for("study")}
    assert {dataset.SOPClassUID for dataset in pacs.datasets.values()} == set(RESULT_CLASSES)
    assert all(request["path"] == "/v1/score?index=eyes" for request in service.requests)
    assert all(request["Content-Type"] == "application/dicom" for request in service.requests)
    assert not list((tmp_path / "queue").rglob("*.dcm")), "the queue is empty again"
    for text in (log, metrics):
        for secret in (PATIENT, PATIENT_ID, "SECRET", "2.25.", "20240102", "Camera Works"):
            assert secret not in text
    assert "photograph answered" in log


def test_the_same_photograph_again_is_the_same_answer(
    tmp_path: Path, service: StandInService, pacs: StandInPacs
) -> None:
    with running_node(tmp_path, pacs.address, service.url) as node:
        for repeat in (1, 2):
            assert store(node.port, photo_object(0), tmp_path) == 0
            answered = f"resad_dicom_answer_seconds_count {repeat}.0"
            until(lambda answered=answered: answered in httpx.get(f"{node.web}/metrics").text)  # type: ignore[misc]
    assert len(pacs.stored) == 3
    assert set(pacs.stored.values()) == {2}


def test_results_that_the_pacs_routes_back_are_not_scored(
    tmp_path: Path, service: StandInService, pacs: StandInPacs
) -> None:
    overlay = result_objects(photo_object(0))[-1]
    with running_node(tmp_path, pacs.address, service.url) as node:
        assert store(node.port, overlay, tmp_path) == 0
        assert stow(node.web, [overlay]).status_code == 200
        assert stow(node.web, [photo_object(1, sop_class=SecondaryCaptureImageStorage)]).status_code == 200
        until(lambda: len(pacs.stored) == 3)
        metrics = httpx.get(f"{node.web}/metrics").text
    assert 'resad_dicom_objects_total{outcome="result",way="c-store"} 1.0' in metrics
    assert len(service.bodies) == 1


def test_ae_titles_are_checked(tmp_path: Path, service: StandInService, pacs: StandInPacs) -> None:
    with running_node(tmp_path, pacs.address, service.url, callers=("CAMERA", "PACS")) as node:
        for called, calling, expected in (
            ("RESAD", "CAMERA", True),
            ("RESAD", "PACS", True),
            ("RESAD", "STRANGER", False),
            ("ANOTHER", "CAMERA", False),
        ):
            association = associate(node.port, called=called, calling=calling)
            assert association.is_established is expected, (called, calling)
            assert association.is_rejected is not expected
            if expected:
                assert association.send_c_echo().Status == 0
                association.release()


def test_a_full_queue_rejects_associations_and_answers_echo(
    tmp_path: Path, service: StandInService, pacs: StandInPacs
) -> None:
    service.faults = [(503, "not-ready")] * 1000
    with running_node(tmp_path, pacs.address, service.url, max_items=2) as node:
        association = associate(node.port)
        for number, status in ((0, 0), (1, 0), (2, 0xA700)):
            dataset = dcmread(_file(tmp_path, photo_object(number)))
            assert association.send_c_store(dataset).Status == status
        association.release()
        rejected = associate(node.port)
        assert rejected.is_rejected
        reason = rejected.acceptor.primitive
        assert reason is not None
        # Transient, by the presentation layer, local limit exceeded: the sender may try again.
        assert (reason.result, reason.result_source, reason.diagnostic) == (2, 3, 2)
        assert stow(node.web, [photo_object(3)]).status_code == 503
        assert stow(node.web, [photo_object(3)]).headers["Retry-After"] == "30"
        assert httpx.get(f"{node.web}/readyz").status_code == 503
        association = associate(node.port, sop_class=Verification)
        assert association.send_c_echo().Status == 0
        association.release()
        metrics = httpx.get(f"{node.web}/metrics").text
        assert 'resad_dicom_associations_total{outcome="full"} 1.0' in metrics
        assert "resad_dicom_queue_full 1.0" in metrics
        service.faults = []
        until(lambda: len(pacs.stored) == 6)
        # There is room again, once the node has noted that the last object arrived.
        until(lambda: store(node.port, photo_object(2), tmp_path) == 0)


def test_objects_that_are_not_photographs_are_refused_by_status(
    tmp_path: Path, service: StandInService, pacs: StandInPacs
) -> None:
    with running_node(tmp_path, pacs.address, service.url, max_object_bytes=100_000) as node:
        report = result_objects(photo_object(0))[1]
        deflated = photo_object(0, syntax=DeflatedExplicitVRLittleEndian)
        answer = stow(node.web, [report, photo_object(0)[:300], deflated, b"GIF89a"])
        assert answer.status_code == 409
        failed, unknown = (
            [entry["00081197"]["Value"][0] for entry in answer.json()[tag]["Value"]]
            for tag in ("00081198", "0008119A")
        )
        assert failed == [0x0122]
        assert unknown[1:] == [0xC122, 0xC000]
        partly = stow(node.web, [photo_object(1), report])
        assert partly.status_code == 202
        assert stow(node.web, [photo_object(5, side=400)]).status_code == 413
        association = associate(node.port)
        status = association.send_c_store(dcmread(_file(tmp_path, photo_object(6, side=300))))
        assert "Status" not in status, "the association of an object that is too large is aborted"
        until(lambda: len(pacs.stored) == 3)
    assert len(service.bodies) == 1


def test_a_key_opens_the_web_side(tmp_path: Path, service: StandInService, pacs: StandInPacs) -> None:
    key = tmp_path / "key"
    key.write_text("a-long-key\n")
    with running_node(tmp_path, pacs.address, service.url, web_key_file=key) as node:
        assert stow(node.web, [photo_object(0)]).status_code == 401
        assert stow(node.web, [photo_object(0)], Authorization="Bearer wrong").status_code == 401
        assert httpx.get(f"{node.web}/metrics").status_code == 401
        assert httpx.get(f"{node.web}/livez").status_code == 200
        assert stow(node.web, [photo_object(0)], Authorization="Bearer a-long-key").status_code == 200


def test_a_killed_node_goes_on_where_it_was(tmp_path: Path, service: StandInService, pacs: StandInPacs) -> None:
    """Killed again and again while photographs arrive, are scored and sent; every one is answered once."""
    for start in (0, 4):
        with node_process(tmp_path, pacs.address, service.url) as node:
            for number in range(start, start + 4):
                assert store(node.port, photo_object(number), tmp_path) == 0
            until(lambda start=start: len(service.bodies) > start)  # type: ignore[misc]
    with node_process(tmp_path, pacs.address, service.url):
        until(lambda: len(pacs.stored) == 3 * 8)
        until(lambda: not list((tmp_path / "queue").rglob("*.dcm")))
    # What came twice said the same: a photograph whose results are on disk is not scored again.
    for number in range(8):
        attempts = {
            str(pacs.datasets[uid_for("result", uid_for("photo", "study", number), kind)].SeriesDescription)
            for kind in RESULT_CLASSES
        }
        assert len(attempts) == 1


def test_a_node_that_cannot_listen_leaves_nothing_open(tmp_path: Path) -> None:
    folder = tmp_path / "queue"
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        settings = Settings(queue=folder, destination="dicom://PACS@127.0.0.1:104", port=port, web_port=0)
        with pytest.raises(SettingError, match=f"cannot listen on 127.0.0.1, port {port}"):
            Node(settings)
    gc.collect()  # an open socket is reported here
    Queue(folder, QueueLimits(1, 1, 0)).close()


def test_the_commands_tell_how_things_are(
    tmp_path: Path, service: StandInService, pacs: StandInPacs, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner = CliRunner()
    monkeypatch.setenv("RESAD_DICOM_QUEUE", str(tmp_path / "queue"))
    options = ["--service", service.url, "--destination"]
    answer = runner.invoke(app, ["check", *options, pacs.address])
    assert answer.exit_code == 0
    assert answer.output.splitlines() == [f"service {service.url}: ready", f"PACS {pacs.address}: answers"]
    answer = runner.invoke(app, ["check", *options, pacs.address.replace("PACS", "OTHER")])
    assert answer.exit_code == 1
    assert "rejected the association" in answer.output

    service.faults = [(422, "not-a-fundus-photo")]
    with running_node(tmp_path, pacs.address, service.url) as node:
        assert store(node.port, photo_object(0), tmp_path) == 0
        until(lambda: "refused: 1" in runner.invoke(app, ["queue"]).output)
        answer = runner.invoke(app, ["queue"])
        assert "refused by the service: 422 not-a-fundus-photo" in answer.output
        answer = runner.invoke(app, ["queue", "--retry"])
        assert answer.output.startswith("1 refused photographs will be tried again")
        until(lambda: len(pacs.stored) == 3)


def test_help_does_not_load_the_dicom_libraries() -> None:
    code = "import sys, resad_dicom.cli; print({'pydicom', 'pynetdicom', 'starlette'} & sys.modules.keys())"
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert process.stdout.strip() == "set()"


def _file(folder: Path, data: bytes) -> Path:
    path = folder / "sent.dcm"
    path.write_bytes(data)
    return path
