"""A photograph's steps on a bounded pool of threads, and how long each of them takes."""

import time
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import TypeVar

from service.account import PhotoAccount, Stage
from service.metrics import Metrics
from service.waiting import ended

Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True)
class Steps:
    """Decodes and draws on the pool; tells the metrics and the photograph's own account."""

    pool: Executor
    metrics: Metrics

    async def pooled(self, stage: Stage, work: Callable[[], Answer], own: PhotoAccount) -> Answer:
        """`work` on a thread of the pool; how long it waited for one, and how long it took there."""
        asked = time.perf_counter()

        def timed() -> tuple[float, Answer]:
            began = time.perf_counter()
            return began, work()

        began, answer = await ended(self.pool.submit(timed))
        self.over("wait", began - asked, own)
        self.over(stage, time.perf_counter() - began, own)
        return answer

    def over(self, stage: Stage, seconds: float, own: PhotoAccount) -> None:
        """A step has just ended."""
        self.metrics.stage(stage, seconds)
        own.over(stage, seconds)
