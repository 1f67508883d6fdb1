"""How the libraries' threads wait: said before torch and FAISS load, which is when they read it."""

import os


def wait_passively() -> None:
    """Have OpenMP's threads sleep at the end of a step instead of spinning, unless the caller said otherwise.

    torch and FAISS each bring an OpenMP of their own.  On cores that are busy with anything else, spinning threads
    of the one keep those of the other, and those of other processes, from the work they wait for: measured up to
    twenty times slower.  On quiet cores it costs nothing that was measurable.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
