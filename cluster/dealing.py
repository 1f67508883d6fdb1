"""Pieces of work dealt to the workers as they are free, so that no worker waits and nothing piles up with one."""

from collections import defaultdict
from collections.abc import Callable, Collection, Generator, Sequence
from typing import Any, Final

from cluster.crew import Answer, Ask, Crew, Member
from cluster.pieces import Dealer

_AT_ONCE: Final = 2
"""Pieces that a worker has been given and not yet made: one that it works on, one that waits."""


def deal(
    crew: Crew,
    pieces: Sequence[int],
    method: str,
    arguments: Callable[[int], tuple[Any, ...]],
    on_lost: Callable[[Member, Sequence[int]], Collection[int]],
) -> Generator[Answer[int], None, None]:
    """What the workers answer about each piece, as it comes.

    Args:
        on_lost: told of a worker that was lost and the pieces that it had been given, first the one that it worked
            on; says which pieces are to be dealt (again).
    """
    dealer, todo = Dealer(pieces, crew.count), {*pieces}
    begun: dict[Any, Ask[int]] = {}
    while todo:
        _give(crew, dealer, begun, method, arguments)
        for call in crew.ended(begun):
            if call not in begun:  # its worker was found to be lost by another call
                continue
            ask = begun[call]
            answer = crew.answer(ask, call)
            if not answer.lost:
                del begun[call]
                todo.discard(ask.key)
                yield answer
                continue
            theirs = [other for other, asked in begun.items() if asked.member is ask.member]
            given = [begun.pop(other).key for other in theirs]
            todo.difference_update(given)
            again = on_lost(ask.member, given)
            todo.update(again)
            dealer.give_back(again, ask.member.number)


def _give(
    crew: Crew,
    dealer: Dealer,
    begun: dict[Any, Ask[int]],
    method: str,
    arguments: Callable[[int], tuple[Any, ...]],
) -> None:
    load: dict[int, int] = defaultdict(int)
    for ask in begun.values():
        load[ask.member.number] += 1
    for member in crew.members:
        while load[member.number] < _AT_ONCE and (number := dealer.next(member.number)) is not None:
            ask = Ask(member, number, method, arguments(number))
            begun[crew.start(ask)] = ask
            load[member.number] += 1
