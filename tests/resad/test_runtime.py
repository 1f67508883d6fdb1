"""How many threads compute, and how they wait: in processes of their own, as the commands start them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

_COUNT_THREADS = """
import threading, json
from resad import runtime
import torch, faiss
runtime.use_threads(1)
counts = {}
def count():
    runtime.use_threads()
    counts.update(torch=torch.get_num_threads(), faiss=faiss.omp_get_max_threads())
thread = threading.Thread(target=count); thread.start(); thread.join()
print(json.dumps(counts))
"""


_FREE_HOLES = """
import re
from resad.runtime import return_free_memory
def own_kb():
    return int(re.search(r"RssAnon:\\s+(\\d+)", open("/proc/self/status").read())[1])
blocks = [bytearray(size) for _ in range(2000) for size in (100_000, 2_000)]
small = blocks[1::2]
del blocks
before = own_kb()
return_free_memory()
print(before - own_kb())
"""


def _run(code: str, **variables: str) -> str:
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("OMP_", "MKL_"))}
    process = subprocess.run(
        (sys.executable, "-c", code), capture_output=True, text=True, env=environment | variables, check=False
    )
    return process.stdout + process.stderr


def test_faiss_follows_torch_on_every_thread_that_calls_it() -> None:
    assert '{"torch": 1, "faiss": 1}' in _run(_COUNT_THREADS, OMP_NUM_THREADS="4")


def test_the_indexers_threads_sleep_while_they_wait() -> None:
    code = (
        "import contextlib, os, sys; sys.argv = ['x', '--version']\n"
        "from indexer.cli import main\n"
        "with contextlib.suppress(SystemExit): main()\n"
        "print(os.environ['OMP_WAIT_POLICY'], 'torch' in sys.modules)"
    )
    assert _run(code).splitlines()[-1] == "PASSIVE False"


@pytest.mark.long
def test_the_services_threads_sleep_while_they_wait(tmp_path: Path) -> None:
    """The policy is set when the server is loaded, which loads torch; here a module that only prints it."""
    code = (
        f"import os, sys, types; sys.argv = ['x', '--root', {str(tmp_path)!r}, '--port', '0']\n"
        "def show(*arguments): print(os.environ['OMP_WAIT_POLICY'], 'torch' in sys.modules)\n"
        "sys.modules['service.server'] = types.SimpleNamespace(run=show)\n"
        "from service.cli import main; main()"
    )
    assert "PASSIVE False" in _run(code).splitlines()


def test_a_wait_policy_in_the_environment_is_kept() -> None:
    code = "import os; from resad.runtime import wait_passively as w; w(); print(os.environ['OMP_WAIT_POLICY'])"
    assert _run(code, OMP_WAIT_POLICY="ACTIVE").strip() == "ACTIVE"


@pytest.mark.long
def test_the_tests_threads_sleep_while_they_wait() -> None:
    output = _run("import tests.conftest", OMP_DISPLAY_ENV="true")
    assert "OMP_WAIT_POLICY = 'PASSIVE'" in output
    assert "OMP_WAIT_POLICY = 'ACTIVE'" not in output


def test_freed_memory_goes_back_to_the_system_from_between_memory_in_use() -> None:
    assert int(_run(_FREE_HOLES)) > 150_000


@pytest.mark.parametrize("module", ["indexer", "service"])
def test_the_commands_load_neither_torch_nor_faiss(module: str) -> None:
    code = f"import sys, {module}.cli; print('torch' in sys.modules, 'faiss' in sys.modules)"
    assert _run(code).strip() == "False False"
