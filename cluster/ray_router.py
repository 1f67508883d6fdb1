"""Ray Serve's request router: a request goes to a replica that has its index in memory.

Runs in Ray Serve's proxies.  Every second replicas report the indexes that they have in memory or are loading
(`Replica.record_routing_stats`); until then the router remembers to which replica it sent the first request for an
index.  `cluster.routing` says which index a request asks for; where its middleware is not installed, requests are
spread over all replicas.
"""

import logging
import os
import random
import time
from collections.abc import Sequence
from typing import Any, Final

from ray.serve.request_router import LocalityMixin, PendingRequest, RequestRouter, RunningReplica

from cluster.routing import CALLBACK, VARIABLE, LoadedIndexes, index_of_session, replica_for

_log: Final = logging.getLogger("ray.serve")
"""Ray Serve's log of its proxies."""
STATS_S: Final = 1.0
"""Seconds between two reports of a replica."""
BUSY: Final = 8
"""Requests in progress on a replica from which on another replica may load the index, too."""
_LOADING_S: Final = 3.0
"""Seconds for which a replica counts as having an index after the first request for it was sent there."""


class IndexRouter(LocalityMixin, RequestRouter):  # type: ignore[misc]
    """Prefers replicas that have the index, near ones among equals; then the one of `replica_for`."""

    def initialize_state(self, **_: Any) -> None:
        """Start with no request sent."""
        self._first_sent: dict[str, tuple[str, float]] = {}
        self._has_warned = VARIABLE in os.environ

    async def choose_replicas(
        self, candidate_replicas: list[RunningReplica], pending_request: PendingRequest | None = None
    ) -> list[list[RunningReplica]]:
        """Replicas in groups; Ray Serve takes the first group that can accept the request."""
        if pending_request is not None:
            pending_request.routing_context.should_backoff = True
        index = None if pending_request is None else self._requested_index(pending_request, candidate_replicas)
        if index is None:
            return self._by_distance(candidate_replicas)
        loaded = {name_of(replica): loaded_indexes(replica) for replica in candidate_replicas}
        with_index = [replica for replica in candidate_replicas if index in loaded[name_of(replica)].idle_s]
        if not with_index:
            loading = self._loading_replica(index)
            with_index = [replica for replica in candidate_replicas if name_of(replica) == loading]
        idle = [
            replica for replica in with_index if (self.replica_queue_len_cache.get(replica.replica_id) or 0) < BUSY
        ]
        if idle:
            return [*self._by_distance(idle), *self._by_distance(candidate_replicas)]
        target = replica_for(index, loaded, {name_of(replica) for replica in with_index})
        if target is None:
            return self._by_distance(with_index)
        (next_replica,) = (replica for replica in candidate_replicas if name_of(replica) == target)
        self._first_sent[index] = target, time.monotonic()
        return [[*with_index, next_replica], candidate_replicas]

    def _loading_replica(self, index: str) -> str | None:
        """The replica to which the first request for an index was sent, if that is not long ago."""
        now = time.monotonic()
        self._first_sent = {name: sent for name, sent in self._first_sent.items() if now - sent[1] < _LOADING_S}
        return self._first_sent.get(index, (None,))[0]

    def _requested_index(self, request: PendingRequest, replicas: Sequence[RunningReplica]) -> str | None:
        """The index that a request asks for; None for requests that need none."""
        if request.metadata.is_http_request and not self._has_warned:
            self._has_warned = True
            _log.warning("requests are spread whatever their index: no %s=%s in this proxy", VARIABLE, CALLBACK)
        index = index_of_session(request.metadata.session_id)
        if index == "":
            defaults = (replica.routing_stats.get("default") for replica in replicas)
            index = next((default for default in defaults if default), None)
        return index

    def _by_distance(self, replicas: Sequence[RunningReplica]) -> list[list[RunningReplica]]:
        """Two random replicas of each distance: asking all for their queue lengths costs more than it gains."""
        groups = self.rank_replicas_via_locality(list(replicas))
        return [random.sample(group, min(2, len(group))) for group in groups if group]


def loaded_indexes(replica: RunningReplica) -> LoadedIndexes:
    """The indexes of a replica by its last report."""
    stats = replica.routing_stats
    return LoadedIndexes(stats.get("idle_s", {}), bool(stats.get("has_room", True)))


def name_of(replica: RunningReplica) -> str:
    """A replica's unique name."""
    name: str = replica.replica_id.unique_id
    return name
