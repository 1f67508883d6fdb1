"""What `resad-indexer` starts: first how threads wait, then everything else."""

from resad.threads import wait_passively


def main() -> None:
    """Entry point of `resad-indexer`."""
    wait_passively()
    from indexer import cli  # only now, because torch and FAISS read the environment when they load

    cli.main()
