"""What a build over a cluster will take: told for each worker, since they all work at the same time."""

from math import ceil
from typing import Final

from indexer.cluster.crew import Ask, Crew
from indexer.forecast import Forecast

AFTER: Final = 2
"""Pieces for each worker, until there is something to say."""


def foresee_on(crew: Crew, listed: int, max_memory: int | None) -> Forecast | None:
    """The forecast of a worker's share; None where no photograph could be used so far."""
    for member in tuple(crew.members):
        # Not all of them may have begun: those that have tell how they are spread.
        here = sum(other.hello.node == member.hello.node for other in crew.members)
        neighbors = ceil(crew.count * here / len(crew.members))
        ask = Ask(member, 0, "foresee", (ceil(listed / crew.count), neighbors, max_memory))
        for answer in crew.ask([ask]):
            if answer.value is not None:
                told: Forecast = answer.value
                return told
    return None
