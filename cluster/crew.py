"""The workers of a build: begun, asked all at once, and replaced when they are lost."""

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Generic, NamedTuple, TypeVar

from cluster.connection import Cluster, Gone, WorkerSize
from resad.errors import ResadError, SettingError

_BEGIN_S: Final = 180.0
"""Seconds in which the first worker must have begun."""
_LEAVE_S: Final = 30.0
"""Seconds for the workers to delete what they have."""
_LOSSES: Final = 3
"""Of each worker."""

_Key = TypeVar("_Key")


@dataclass(frozen=True, slots=True)
class Hello:
    """Who a worker is.  node: its machine's name.  folder: where it writes, if it does."""

    node: str
    process: int
    folder: Path | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Member:
    """A worker that has begun."""

    number: int
    actor: Any
    hello: Hello


class Ask(NamedTuple, Generic[_Key]):
    """Something to be asked of a worker.  key: what the answer is known by."""

    member: Member
    key: _Key
    method: str
    arguments: tuple[Any, ...]


class Answer(NamedTuple, Generic[_Key]):
    """What became of it.  lost: the worker was, and there is no value."""

    member: Member
    key: _Key
    value: Any
    lost: bool


class Crew:
    """Workers on a cluster, all with the same task.

    Args:
        kind: of the workers; it is begun with `begin(task)`, which says `Hello`, and told to `leave()` at the end.
        count: how many there shall be.
        losses: workers that may be lost, until it is no accident any more; some for each unless given.
    """

    def __init__(
        self,
        cluster: Cluster,
        kind: type[Any],
        task: object,
        size: WorkerSize,
        count: int,
        losses: int | None = None,
    ) -> None:
        self.members: list[Member] = []
        self.count = count
        self.lost = 0
        self._cluster = cluster
        self._kind = kind
        self._losses = _LOSSES * count if losses is None else losses
        self._shared_task = cluster.share(task)
        self._size = size
        self._arriving: dict[Any, Any] = {}
        """Calls that end when an actor runs somewhere, with the actor: it was told nothing and has made nothing,
        so that it may be killed."""
        self._joining: dict[Any, Any] = {}
        """Calls of `begin`, with the actor."""
        self._begun = 0
        for _ in range(count):
            self._hire()

    def __enter__(self) -> "Crew":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """The workers end.  Their folders go where those of an interrupted build on one machine would."""
        try:
            if error is None or isinstance(error, ResadError):
                self._leave()
        finally:
            members = (member.actor for member in self.members)
            for actor in [*self._arriving.values(), *self._joining.values(), *members]:
                self._cluster.end(actor)

    def share(self, value: object) -> Any:
        """As `Cluster.share`."""
        return self._cluster.share(value)

    def start(self, ask: Ask[_Key]) -> Any:
        """Begin to ask; the call, to be waited for."""
        return getattr(ask.member.actor, ask.method).remote(*ask.arguments)

    def ended(self, calls: Iterable[Any]) -> list[Any]:
        """Those of `calls` that have ended, none of them where only a worker has joined meanwhile."""
        waiting = {*calls}
        if not self.members:
            self._wait_for_one()
        if not waiting:
            return []
        ended = self._cluster.wait([*waiting, *self._coming()], None)
        self._take_in(ended)
        return [call for call in ended if call in waiting]

    def answer(self, ask: Ask[_Key], call: Any) -> Answer[_Key]:
        """What an ended call came to; a worker that was lost is replaced.  Raises what the worker raised."""
        try:
            return Answer(ask.member, ask.key, self._cluster.result(call), lost=False)
        except Gone:
            self._lose(ask.member)
            return Answer(ask.member, ask.key, None, lost=True)

    def ask(self, asks: Iterable[Ask[_Key]]) -> Iterator[Answer[_Key]]:
        """Ask all at once; the answers as they come."""
        begun = {self.start(ask): ask for ask in asks}
        while begun:
            for call in self.ended(begun):
                yield self.answer(begun.pop(call), call)

    def _leave(self) -> None:
        """An actor does one thing after the other: one that is still at its `begin` deletes what that makes."""
        actors = [*self._joining.values(), *(member.actor for member in self.members)]
        self._cluster.wait([actor.leave.remote() for actor in actors], _LEAVE_S, all_of_them=True)

    def _hire(self) -> None:
        actor = self._cluster.begin(self._kind, self._size)
        self._arriving[self._cluster.arrival(actor)] = actor

    def _coming(self) -> list[Any]:
        return [*self._arriving, *self._joining]

    def _take_in(self, ended: Iterable[Any]) -> None:
        """Tell those that have arrived to begin, and count those that have begun among the members."""
        for call in ended:
            if call in self._arriving:
                actor = self._arriving.pop(call)
                self._joining[actor.begin.remote(self._shared_task)] = actor
            elif call in self._joining:
                self._join(self._joining.pop(call), call)

    def _join(self, actor: Any, call: Any) -> None:
        try:
            hello: Hello = self._cluster.result(call)
        except Gone:
            self._count_loss()
            self._hire()
            return
        self.members.append(Member(self._begun, actor, hello))
        self._begun += 1

    def _wait_for_one(self) -> None:
        deadline = time.monotonic() + _BEGIN_S
        while not self.members:
            left = deadline - time.monotonic()
            if left <= 0:
                raise SettingError(
                    f"no worker of the cluster has begun within {_BEGIN_S:.0f} s: each wants {self._size.cpus} "
                    f"CPU cores and {self._size.gpus} GPUs; `ray status` says what is free"
                )
            self._take_in(self._cluster.wait(self._coming(), left))

    def _lose(self, member: Member) -> None:
        if member in self.members:
            self.members.remove(member)
            self._cluster.end(member.actor)
            self._count_loss()
            self._hire()

    def _count_loss(self) -> None:
        self.lost += 1
        if self.lost > self._losses:
            raise SettingError(
                f"{self.lost} workers were lost, of {self.count} that work together; the cluster's own log says "
                "why (often: no memory left)"
            )
