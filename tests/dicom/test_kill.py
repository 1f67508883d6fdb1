"""Node, service and PACS are killed in turn while 200 photographs are on their way."""

import itertools
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from pydicom import dcmread
from pydicom.uid import (
    ComprehensiveSRStorage,
    ExplicitVRLittleEndian,
    OphthalmicPhotography8BitImageStorage,
    ParametricMapStorage,
    SecondaryCaptureImageStorage,
    SegmentationStorage,
)
from pynetdicom import AE, evt
from resad_dicom.queue import read_state
from resad_dicom.storage_scp import close_socket

from tests.dicom.nodes import Node, node
from tests.dicom.pacs import Orthanc, Photo, dicom_photo, orthanc, results_by_study, until
from tests.ports import free_port

PHOTOS = 200
_PAUSE_S = 0.3
"""Between photographs, so that they still come when each of the three has been killed three times."""
_MOST_KILLS = 4
STAND_INS = Path(__file__).parents[2] / "clients/dicom/tests/stand_ins.py"
ONCE_A_PHOTO = (ParametricMapStorage, ComprehensiveSRStorage, SecondaryCaptureImageStorage)


class Service:
    """A service on a port that outlives it: resad-service on the indexes under `root`, or a fast stand-in."""

    def __init__(self, root: Path | None, log: Path) -> None:
        self._root = root
        self._log = log
        self._port = free_port()
        self.url = f"http://127.0.0.1:{self._port}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        if self._root is None:
            words = [sys.executable, str(STAND_INS), str(self._port), "0.05"]
        else:
            command = str(Path(sys.executable).with_name("resad-service"))
            words = [command, "--root", str(self._root), "--port", str(self._port), "--device", "cpu"]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("RESAD_")}
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                words, env=environment | {"OMP_NUM_THREADS": "1"}, stdout=log, stderr=log
            )

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def ready(self) -> bool:
        try:
            return httpx.get(f"{self.url}/readyz", timeout=5).status_code == 200
        except httpx.TransportError:
            return False


@contextmanager
def running_service(root: Path | None, log: Path) -> Iterator[Service]:
    process = Service(root, log)
    try:
        process.start()
        yield process
    finally:
        process.kill()


class Camera(threading.Thread):
    """Sends each photograph until it is told "stored", as a modality does."""

    def __init__(self, photos: list[Photo], port: int, folder: Path) -> None:
        super().__init__(daemon=True)
        self._photos = photos
        self._port = port
        self._file = folder / "photo.dcm"
        self.attempts = 0
        self.stored = 0

    def run(self) -> None:
        for photo in self._photos:
            self._file.write_bytes(photo.data)
            while not self._send():
                time.sleep(0.2)
            self.stored += 1
            time.sleep(_PAUSE_S)

    def _send(self) -> bool:
        self.attempts += 1
        entity = AE("CAMERA")
        entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = 30
        entity.add_requested_context(OphthalmicPhotography8BitImageStorage, ExplicitVRLittleEndian)
        closing: list[evt.EventHandlerType] = [(evt.EVT_CONN_CLOSE, close_socket)]
        association = entity.associate("127.0.0.1", self._port, ae_title="RESAD", evt_handlers=closing)
        if not association.is_established:
            return False
        try:
            return bool(association.send_c_store(dcmread(self._file)).get("Status") == 0)
        except RuntimeError:
            return False
        finally:
            if association.is_established:
                association.release()


@pytest.mark.dicom
# Where the node is away, pynetdicom drops the camera's socket without closing it.
@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning:pynetdicom.transport")
@pytest.mark.parametrize("scorer", ["stand-in", "service"])
def test_every_photograph_is_answered_once(small_index: Path, drawn: Path, tmp_path: Path, scorer: str) -> None:
    root = small_index.parent if scorer == "service" else None
    images = sorted(drawn.glob("test/*/*.jpg"))
    photos = [dicom_photo(images[number % len(images)], number // 2, "RL"[number % 2]) for number in range(PHOTOS)]
    with (
        running_service(root, tmp_path / "service.log") as service,
        node(tmp_path / "node") as resad,
        orthanc(tmp_path / "pacs") as pacs,
    ):
        resad.configure(pacs.address, service.url, "--caller", "CAMERA", "--fpr", "0.9", "--false-regions", "2")
        resad.start()
        until(service.ready, 1800)
        camera = Camera(photos, resad.port, tmp_path)
        camera.start()
        peers: dict[str, Node | Service | Orthanc] = {"node": resad, "service": service, "PACS": pacs}
        kills = dict.fromkeys(peers, 0)
        victims = itertools.cycle(peers.items())
        seconds = itertools.cycle((0.5, 2.0, 1.0, 3.5))
        end = time.monotonic() + 3600
        while camera.is_alive() or waiting_photos(resad.queue):
            assert time.monotonic() < end, f"{waiting_photos(resad.queue)} wait, {camera.stored} were stored"
            time.sleep(next(seconds) + 2.0)
            if min(kills.values()) < _MOST_KILLS:
                name, victim = next(victims)
                victim.kill()
                kills[name] += 1
                time.sleep(next(seconds))
                victim.start()
                if name == "service":
                    until(service.ready, 1800)
        print(f"kills: {kills}; {camera.attempts} attempts to store {camera.stored} photographs")
        assert min(kills.values()) >= 3
        assert camera.stored == PHOTOS

        state, refused = read_state(resad.queue)
        assert (state.received, state.scored, refused) == (0, 0, [])
        studies = results_by_study(pacs)
        assert set(studies) == {photo.study for photo in photos}
        for results in studies.values():
            for sop_class in ONCE_A_PHOTO:
                assert results[sop_class] == 2, "one for each eye"
            assert results[SegmentationStorage] <= 2
            assert set(results) <= {*ONCE_A_PHOTO, SegmentationStorage}
        assert not list(resad.queue.rglob("*.dcm"))
        log = resad.log_file.read_text()
        assert not re.search(r"SECRET|MRN\d|2\.25\.", log)


def waiting_photos(queue: Path) -> int:
    state, _ = read_state(queue)
    return state.received + state.scored
