"""How fast photographs go through, as measured lately."""

from typing import Final

_RECENT: Final = 0.2
"""Weight of the newest measurement."""


class Pace:
    """Seconds that a photograph adds to the wait of those behind it: what is slower of scoring and decoding.

    Only photographs that were scored count; any number of unreadable ones says nothing of the others.

    Args:
        pool_threads: that decode and draw side by side.
    """

    def __init__(self, pool_threads: int) -> None:
        self._threads = pool_threads
        self._scoring: float | None = None
        self._pooled: float | None = None

    @property
    def measured(self) -> bool:
        """Whether anything was scored yet."""
        return self._scoring is not None

    @property
    def seconds_per_photo(self) -> float:
        """1 s before anything was measured."""
        scoring = 1.0 if self._scoring is None else self._scoring
        return max(scoring, (self._pooled or 0.0) / self._threads)

    def scored(self, photos: int, seconds: float) -> None:
        """A batch took the worker so long."""
        self._scoring = _blended(self._scoring, seconds / photos)

    def pooled(self, seconds: float) -> None:
        """One photograph that was scored took a thread of the pool so long, decoding and drawing together."""
        self._pooled = _blended(self._pooled, seconds)


def _blended(before: float | None, now: float) -> float:
    return now if before is None else before + _RECENT * (now - before)
