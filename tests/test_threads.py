"""How many threads compute, and how they wait: in processes of their own, as the commands start them."""

import os
import subprocess
import sys

import pytest

_ASK = """
import threading, json
from resad import runtime
import torch, faiss
runtime.use_threads(1)
seen = {}
def ask():
    runtime.use_threads()
    seen.update(torch=torch.get_num_threads(), faiss=faiss.omp_get_max_threads())
thread = threading.Thread(target=ask); thread.start(); thread.join()
print(json.dumps(seen))
"""


def _run(code: str, **variables: str) -> str:
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("OMP_", "MKL_"))}
    done = subprocess.run(
        (sys.executable, "-c", code), capture_output=True, text=True, env=environment | variables, check=False
    )
    return done.stdout + done.stderr


def test_faiss_follows_torch_on_every_thread_that_says_so() -> None:
    assert '{"torch": 1, "faiss": 1}' in _run(_ASK, OMP_NUM_THREADS="4")


@pytest.mark.parametrize("module", ["indexer", "service"])
def test_the_commands_threads_sleep_while_they_wait(module: str) -> None:
    # libgomp says what it was told when it loads, which is before the command answers.
    code = f"import sys; sys.argv = ['x', '--help']; from {module}.entry import main; main()"
    said = _run(code, OMP_DISPLAY_ENV="true")
    assert "OMP_WAIT_POLICY = 'PASSIVE'" in said
    assert "OMP_WAIT_POLICY = 'ACTIVE'" not in said


def test_what_the_environment_says_of_threads_is_kept() -> None:
    code = "import os; from resad.threads import wait_passively as w; w(); print(os.environ['OMP_WAIT_POLICY'])"
    assert _run(code, OMP_WAIT_POLICY="ACTIVE").strip() == "ACTIVE"


def test_the_tests_threads_sleep_while_they_wait() -> None:
    said = _run("import tests.conftest", OMP_DISPLAY_ENV="true")
    assert "OMP_WAIT_POLICY = 'PASSIVE'" in said
    assert "OMP_WAIT_POLICY = 'ACTIVE'" not in said


@pytest.mark.parametrize("module", ["indexer", "service"])
def test_nothing_that_computes_is_loaded_before(module: str) -> None:
    code = f"import sys, {module}.entry; print('torch' in sys.modules, 'faiss' in sys.modules)"
    assert _run(code).strip() == "False False"
