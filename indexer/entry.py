"""What `resad-indexer` starts: first how threads wait, then everything else."""

import os
import signal

from resad.runtime import wait_passively


def main() -> None:
    """Entry point of `resad-indexer`."""
    # Loading takes seconds; Ctrl-C meanwhile ends in silence, as it does later.
    signal.signal(signal.SIGINT, lambda number, frame: os._exit(130))
    wait_passively()
    from indexer import cli  # only now, because torch and FAISS read the environment when they load

    signal.signal(signal.SIGINT, signal.default_int_handler)
    cli.main()
