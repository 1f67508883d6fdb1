"""Which replica of Ray Serve gets a request: one that has the request's index in memory.

Runs in Ray Serve's proxies.  Replicas say every second what they have in memory, or will have in a moment
(`Replica.record_routing_stats`); until then it is remembered who was sent the first request for an index.  Which
index a request asks for is told by `asked_index`; without that, requests are spread over all replicas.
"""

import hashlib
import logging
import os
import random
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final

from ray.serve.request_router import LocalityMixin, PendingRequest, RequestRouter, RunningReplica

from service.asked_index import CALLBACK, VARIABLE, told_in

_log: Final = logging.getLogger("ray.serve")
"""What Ray Serve writes to the log of its proxies."""
STATS_S: Final = 1.0
"""Seconds between a replica's words."""
BUSY: Final = 8
"""Requests that a replica has in hand, from which on the index may be loaded by another one, too."""
_SOON_S: Final = 3.0
"""For which somebody who was sent a request for an index counts as having it."""


class ByIndex(LocalityMixin, RequestRouter):  # type: ignore[misc]
    """Prefers replicas with the index, then the one whose own indexes are missed least; near ones among equals.

    Where those with the index are busy, another one loads it only if nothing that no other has goes for it: two
    indexes that are asked for more than one replica can answer would else drive each other out in turn.
    """

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
        holders = [one for one in candidate_replicas if wanted in held_by(one)]
        if not holders:
            holders = [one for one in candidate_replicas if name_of(one) == self._just_sent(wanted)]
        free = [one for one in holders if (self.replica_queue_len_cache.get(one.replica_id) or 0) < BUSY]
        if free:
            return [*self._near(free), *self._near(candidate_replicas)]
        losses = losses_of({name_of(one): held_by(one) for one in candidate_replicas})
        losses |= {name_of(one): 0 for one in candidate_replicas if has_room(one)}
        others = [
            one for one in candidate_replicas if one not in holders and not (holders and losses.get(name_of(one)))
        ]
        if not others:
            return self._near(holders)
        next_one = min(others, key=lambda one: rank(name_of(one), wanted, losses))
        self._sent[wanted] = name_of(next_one), time.monotonic()
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


def losses_of(held: Mapping[str, frozenset[str]]) -> dict[str, int]:
    """How many indexes each replica has in memory that no other has."""
    count = Counter(name for names in held.values() for name in names)
    return {replica: sum(count[name] == 1 for name in names) for replica, names in held.items()}


def rank(replica: str, wanted: str, losses: Mapping[str, int]) -> tuple[int, bytes]:
    """Who is to load an index: where fewest others would be missed, and the same one by every proxy's count."""
    return losses.get(replica, 0), hashlib.sha256(f"{wanted}@{replica}".encode()).digest()


def has_room(replica: RunningReplica) -> bool:
    """Whether nothing has to leave for another index."""
    return bool(replica.routing_stats.get("room", False))


def held_by(replica: RunningReplica) -> frozenset[str]:
    """The indexes that it last said to have in memory."""
    return frozenset(replica.routing_stats.get("held", ()))


def name_of(replica: RunningReplica) -> str:
    """Its own, for as long as it lives."""
    name: str = replica.replica_id.unique_id
    return name
