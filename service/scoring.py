"""A batch on the worker's thread: what one photograph does wrong, or asks of memory, is its own affair."""

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

import torch

from resad.detector import Detection, Detector
from resad.preparation import PreparedPhoto
from service.memory import is_out_of_memory
from service.problems import NOT_LIVE, OUT_OF_MEMORY, Refusal


@dataclass(frozen=True, slots=True, eq=False)
class WaitingPhoto:
    """A photograph in the queue.

    begin: called when its turn has come.  finish: makes the answer of its detection.  Both on the worker's thread.
    """

    detector: Detector
    photo: PreparedPhoto
    begin: Callable[[], None]
    finish: Callable[[Detection], Any]
    future: Future[Any]


def score(photos: Sequence[WaitingPhoto]) -> int:
    """Settle every photograph's future; how many of them memory had no room for.

    A batch that fails is halved, until it is clear whose fault it is.
    """
    found, full = None, False
    try:
        found = photos[0].detector.detect([one.photo for one in photos])
    except Exception as error:
        full = is_out_of_memory(error)
        if not full and len(photos) == 1:
            photos[0].future.set_exception(error)
            return 0
    # Out here, where the error is gone and with it what its frames held in memory.
    if full and torch.cuda.is_available():
        torch.cuda.empty_cache()
    if found is None and len(photos) == 1:
        photos[0].future.set_exception(Refusal(OUT_OF_MEMORY, OUT_OF_MEMORY.example, {"Retry-After": "5"}))
        return 1
    if found is None:
        half = len(photos) // 2
        return score(photos[:half]) + score(photos[half:])
    for one, detection in zip(photos, found, strict=True):
        settle(one.future, lambda one=one, detection=detection: one.finish(detection))  # type: ignore[misc]
    return 0


def settle(future: Future[Any], work: Callable[[], Any]) -> None:
    """Put what `work` returns or raises into `future`; what is no `Exception` goes on, too."""
    try:
        answer = work()
    except Exception as error:
        future.set_exception(error)
    except BaseException:
        future.set_exception(Refusal(NOT_LIVE, NOT_LIVE.example))
        raise
    else:
        future.set_result(answer)
