"""How far a run is: a bar on a terminal, otherwise a line now and then."""

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Final

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from resad_client.batch import ScoreFailure
from resad_client.errors import ResadClientError
from resad_client.records import ScoreRow
from resad_client.terminal import SafeConsole
from resad_client.text import counted, printable

_FIRST_S: Final = 5.0
"""Seconds until the first line: shorter runs print none."""
_FEW: Final = 4
_FEW_QUIET_S: Final = 60.0
"""A run of few photographs prints no line for so long, unless it waits."""
_SHORTEST_S: Final = 15.0
_SHARE: Final = 0.05
"""Between two lines, of the time since the start: a run of a night prints some tens of lines."""
_LONGEST_S: Final = 600.0
_WAITS_S: Final = 5.0
"""A wait is mentioned once photographs have waited so long."""


@dataclass(slots=True)
class RunProgress:
    """Counts the photographs of a run and remembers what it waits for.

    total: photographs to score.  clock: seconds, monotonic.
    """

    total: int
    clock: Callable[[], float] = time.monotonic
    started: float = field(init=False)
    scored: int = 0
    failed: int = 0
    waiting: ResadClientError | None = None
    waiting_since: float = 0.0

    def __post_init__(self) -> None:
        self.started = self.clock()

    def count(self, outcome: ScoreRow | ScoreFailure) -> None:
        """A photograph has its outcome."""
        self.scored += isinstance(outcome, ScoreRow)
        self.failed += isinstance(outcome, ScoreFailure)
        self.waiting = None

    def wait(self, error: ResadClientError, _seconds: float = 0.0) -> None:
        """A photograph waits because of `error`; `count` ends the wait."""
        if self.waiting is None:
            self.waiting_since = self.clock()
        self.waiting = error

    @property
    def wait_line(self) -> str:
        """What the run waits for and for how long; empty if it does not wait."""
        if self.waiting is None:
            return ""
        seconds = self.clock() - self.waiting_since
        return f"waiting for {in_words(seconds)}: {self.waiting}" if seconds >= _WAITS_S else ""

    @property
    def line(self) -> str:
        """The state of the run in one line."""
        done, elapsed = self.scored + self.failed, self.clock() - self.started
        parts = [f"{done:,} of {counted(self.total, 'photograph')} done"]
        if self.failed:
            parts.append(f"{self.failed:,} without a score")
        if self.scored and done < self.total:
            parts.append(f"about {in_words(elapsed / done * (self.total - done))} left")
        return "; ".join([", ".join(parts), *filter(None, [self.wait_line])])


def in_words(seconds: float) -> str:
    """A time span for people: `40 s`, `12 min`, `3.5 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 90 * 60 else f"{seconds / 3600:.1f} h"


@contextmanager
def shown(progress: RunProgress, console: SafeConsole, *, first_s: float = _FIRST_S) -> Iterator[None]:
    """Show `progress` on the console while the block runs; needs a running event loop.

    Args:
        first_s: seconds until the first line where the console is no terminal.
    """
    show = _show_bar(progress, console) if console.is_terminal else _print_lines(progress, console, first_s)
    task = asyncio.get_running_loop().create_task(show)
    try:
        yield
    finally:
        task.cancel()


async def _show_bar(progress: RunProgress, console: SafeConsole) -> None:
    columns = (
        TextColumn("score"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
        TextColumn("{task.fields[wait]}", markup=False),
    )  # fmt: skip
    with Progress(*columns, console=console, transient=True) as bar, suppress(asyncio.CancelledError):
        task = bar.add_task("score", total=progress.total, wait="")
        while True:
            bar.update(task, completed=progress.scored + progress.failed, wait=printable(progress.wait_line))
            await asyncio.sleep(0.1)


async def _print_lines(progress: RunProgress, console: SafeConsole, pause: float) -> None:
    while True:
        await asyncio.sleep(pause)
        elapsed = progress.clock() - progress.started
        if progress.total > _FEW or elapsed >= _FEW_QUIET_S or progress.wait_line:
            console.say(progress.line)
            pause = min(max(_SHORTEST_S, _SHARE * elapsed), _LONGEST_S)
