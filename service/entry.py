"""What `resad-service` starts: first how threads wait, then everything else."""

from resad.runtime import wait_passively


def main() -> None:
    """Entry point of `resad-service`."""
    wait_passively()
    from service import cli  # only now, because torch and FAISS read the environment when they load

    cli.main()
