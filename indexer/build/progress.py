"""Progress of long steps: a bar with rate and remaining time on a terminal, plain lines elsewhere."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final, Protocol

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from resad.manifest import StageTime

_SECONDS_BETWEEN_LINES: Final = 10.0


class Advance(Protocol):
    """Reports the progress of a step."""

    def __call__(self, steps: int, note: str = "") -> None:
        """Count finished units; `note` is shown beside them."""


class _Rate(ProgressColumn):
    """Units per second."""

    def render(self, task: Task) -> Text:
        return Text(f"{task.speed:.1f}/s" if task.speed else "")


@dataclass
class Stages:
    """Times the steps of a job and shows their progress.

    done: the finished steps, in order.
    """

    console: Console
    done: list[StageTime] = field(default_factory=list)

    @contextmanager
    def stage(self, name: str, total: int, unit: str) -> Iterator[Advance]:
        """A step of `total` units; yields the function that reports progress.  A failed step is not recorded."""
        start = time.perf_counter()
        display = self._bar(name, total) if self.console.is_terminal else self._lines(name, total, unit)
        with display as advance:
            yield advance
        seconds = time.perf_counter() - start
        self.done.append(StageTime(name, seconds))
        if not self.console.is_terminal:
            self.console.print(f"{name}: {total} {unit} in {seconds:.1f} s", highlight=False)

    @contextmanager
    def _bar(self, name: str, total: int) -> Iterator[Advance]:
        columns = (
            TextColumn(f"{name:<12}"), BarColumn(), MofNCompleteColumn(), _Rate(),
            TimeElapsedColumn(), TimeRemainingColumn(), TextColumn("{task.fields[note]}"),
        )  # fmt: skip
        with Progress(*columns, console=self.console) as bar:
            task = bar.add_task(name, total=total, note="")

            def advance(steps: int, note: str = "") -> None:
                bar.update(task, advance=steps, note=note)

            yield advance

    @contextmanager
    def _lines(self, name: str, total: int, unit: str) -> Iterator[Advance]:
        start = last_line = time.monotonic()
        count = 0

        def advance(steps: int, note: str = "") -> None:
            nonlocal count, last_line
            count += steps
            now = time.monotonic()
            if now - last_line >= _SECONDS_BETWEEN_LINES and count < total:
                last_line = now
                remaining = (now - start) / max(count, 1) * (total - count)
                rate = count / (now - start)
                suffix = f", {note}" if note else ""
                line = f"{name}: {count}/{total} {unit}, {rate:.1f}/s, {remaining:.0f} s left{suffix}"
                self.console.print(line, highlight=False)

        yield advance
