"""Which replica of Ray Serve gets a request: one that has the request's index in memory.

Runs in Ray Serve's proxies.  Replicas say every second what they have in memory, or will have in a moment
(`Replica.record_routing_stats`); until then it is remembered who was sent the first request for an index.  Which
index a request asks for is told by `requested_index`; without that, requests are spread over all replicas.
"""

import logging
import os
import random
import time
from collections.abc import Sequence
from typing import Any, Final

from ray.serve.request_router import LocalityMixin, PendingRequest, RequestRouter, RunningReplica

from cluster.routing import CALLBACK, VARIABLE, Holding, home_of, told_in

_log: Final = logging.getLogger("ray.serve")
"""What Ray Serve writes to the log of its proxies."""
STATS_S: Final = 1.0
"""Seconds between a replica's words."""
BUSY: Final = 8
"""Requests that a replica has in hand, from which on the index may be loaded by another one, too."""
_SOON_S: Final = 3.0
"""For which somebody who was sent a request for an index counts as having it."""


class ByIndex(LocalityMixin, RequestRouter):  # type: ignore[misc]
    """Prefers replicas with the index, near ones among equals; then the one that `homes` names."""

    def initialize_state(self, **_: Any) -> None:
        """Nobody was sent anything yet."""
        self._sent: dict[str, tuple[str, float]] = {}
        self._told = VARIABLE in os.environ

    async def choose_replicas(
        self, candidate_replicas: list[RunningReplica], pending_request: PendingRequest | None = None
    ) -> list[list[RunningReplica]]:
        """The replicas in the order in which they are asked for room."""
        if pending_request is not None:
            pending_request.routing_context.should_backoff = True
        wanted = None if pending_request is None else self._index(pending_request, candidate_replicas)
        if wanted is None:
            return self._near(candidate_replicas)
        told = {name_of(one): told_by(one) for one in candidate_replicas}
        holders = [one for one in candidate_replicas if wanted in told[name_of(one)].unasked_s]
        if not holders:
            holders = [one for one in candidate_replicas if name_of(one) == self._just_sent(wanted)]
        free = [one for one in holders if (self.replica_queue_len_cache.get(one.replica_id) or 0) < BUSY]
        if free:
            return [*self._near(free), *self._near(candidate_replicas)]
        chosen = home_of(wanted, told, {name_of(one) for one in holders})
        if chosen is None:
            return self._near(holders)
        (next_one,) = (one for one in candidate_replicas if name_of(one) == chosen)
        self._sent[wanted] = chosen, time.monotonic()
        return [[*holders, next_one], candidate_replicas]

    def _just_sent(self, wanted: str) -> str | None:
        """Who was sent the first request for an index, if that is not long ago."""
        now = time.monotonic()
        self._sent = {name: sent for name, sent in self._sent.items() if now - sent[1] < _SOON_S}
        return self._sent.get(wanted, (None,))[0]

    def _index(self, request: PendingRequest, replicas: Sequence[RunningReplica]) -> str | None:
        """The index that is asked for; None for requests that need none."""
        if request.metadata.is_http_request and not self._told:
            self._told = True
            _log.warning("requests are spread whatever their index: no %s=%s in this proxy", VARIABLE, CALLBACK)
        named = told_in(request.metadata.session_id)
        if named == "":
            named = next((default for one in replicas if (default := one.routing_stats.get("default"))), None)
        return named

    def _near(self, replicas: Sequence[RunningReplica]) -> list[list[RunningReplica]]:
        """Two at random of each distance: asking all of them how busy they are would cost more than it gains."""
        ranks = self.rank_replicas_via_locality(list(replicas))
        return [random.sample(some, min(2, len(some))) for some in ranks if some]


def told_by(replica: RunningReplica) -> Holding:
    """What it last said to have in memory."""
    stats = replica.routing_stats
    return Holding(stats.get("unasked_s", {}), bool(stats.get("room", True)))


def name_of(replica: RunningReplica) -> str:
    """Its own, for as long as it lives."""
    name: str = replica.replica_id.unique_id
    return name
