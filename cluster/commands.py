"""What `resad-indexer build --cluster` and `resad-indexer score --cluster` call, by name."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cluster.build import ClusterWorkers
from cluster.scoring import score_over_workers
from cluster.worker_pool import PoolOptions, connected

__all__ = ["ClusterWorkers", "score_over_workers", "workers_at"]


@contextmanager
def workers_at(
    address: str, device: str, *, cpus: int, limit: int | None, scratch: Path | None = None
) -> Iterator[PoolOptions]:
    """Connect to the cluster at `address`; raises `SettingError` where there is none, or no Ray.

    Args:
        device: `auto` computes on GPUs where the cluster has any.
        cpus: cores of each worker.
        limit: most workers; as many as fit unless given.
        scratch: folder on each node's own disk; the system's temporary one unless given.
    """
    with connected(address) as cluster:
        size = cluster.worker_size(cpus, gpu=None if device == "auto" else device.startswith("cuda"))
        yield PoolOptions(cluster, size, limit, scratch)
