"""Runs `serve_inside` and `several_inside` in a network namespace of its own: replicas listen to everyone."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cluster.conftest import NAMESPACE_REASON, need_ray

_LOOPBACK_UP = """
import fcntl, socket, struct
fcntl.ioctl(socket.socket(), 0x8914, struct.pack('16sh14x', b'lo', 0x49))
"""
"""SIOCSIFFLAGS with IFF_UP | IFF_LOOPBACK | IFF_RUNNING, for hosts without iproute2."""


def _isolation_command() -> list[str] | None:
    """What starts a command without any network but its own loopback; None where that is not allowed."""
    for unshare in (["unshare", "--net"], ["unshare", "--user", "--map-root-user", "--net"]):
        try:
            if subprocess.run([*unshare, "true"], capture_output=True, check=False).returncode == 0:
                return unshare
        except FileNotFoundError:
            return None
    return None


@pytest.mark.slow
def test_two_replicas_under_load_one_killed_a_version_changed_and_several_indexes() -> None:
    need_ray()
    unshare = _isolation_command()
    if unshare is None:
        pytest.skip(NAMESPACE_REASON)
    files = " ".join(str(Path(__file__).with_name(f"{name}_inside.py")) for name in ("serve", "several"))
    tests = f"{sys.executable} -m pytest -q -p no:cacheprovider {files}"
    command = [*unshare, "sh", "-c", f'{sys.executable} -c "{_LOOPBACK_UP}" && {tests}']
    environment = {name: value for name, value in os.environ.items() if name not in ("CI", "PYTEST_CURRENT_TEST")}
    process = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert process.returncode == 0, process.stdout[-4000:] + process.stderr[-2000:]
    assert re.match(r"\.{8} ", process.stdout), process.stdout
