"""Fair shares between accounts: each key is an account; without keys all callers together are one."""

import asyncio
import math
from collections import Counter, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

Account = str | None
"""Name of a key; None without keys."""


class Turns:
    """Lets at most `size` callers in at a time; those who wait enter by account in turn, not in order of arrival.

    So an account with one photograph waits for one photograph of each busy account, not for all of them.  Used on
    the event loop only.
    """

    def __init__(self, size: int) -> None:
        self._free = size
        self._waiting: dict[Account, deque[asyncio.Future[None]]] = {}
        """The account whose turn it is comes first."""

    @asynccontextmanager
    async def turn(self, account: Account) -> AsyncIterator[None]:
        """Wait for a turn, which lasts until the end of the `async with` block."""
        await self._enter(account)
        try:
            yield
        finally:
            self._leave()

    async def _enter(self, account: Account) -> None:
        if self._free:
            self._free -= 1
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(account, deque()).append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.cancelled():
                self._forget(account, turn)
            else:  # its turn came at the same moment
                self._leave()
            raise

    def _leave(self) -> None:
        """Pass the turn on, to the account that has waited for one longest."""
        while self._waiting:
            account = next(iter(self._waiting))
            turns = self._waiting.pop(account)
            turn = turns.popleft()
            if turns:
                self._waiting[account] = turns  # at the end
            if not turn.done():
                turn.set_result(None)
                return
        self._free += 1

    def _forget(self, account: Account, turn: "asyncio.Future[None]") -> None:
        turns = self._waiting.get(account)
        if turns is not None and turn in turns:
            turns.remove(turn)
            if not turns:
                del self._waiting[account]


class Shares:
    """How much of something limited each account has.

    An account may have half of what the others leave: so there is always some left for one that has nothing yet.

    Args:
        total: of all accounts.
    """

    def __init__(self, total: int) -> None:
        self.total = total
        self.used = 0
        self._of: Counter[Account] = Counter()

    def of(self, account: Account) -> int:
        """What the account has."""
        return self._of[account]

    def share(self, account: Account) -> int:
        """The most that the account may have now; everything without keys."""
        if account is None:
            return self.total
        return math.ceil((self.total - self.used + self._of[account]) / 2)

    def take(self, account: Account, count: int) -> None:
        """Give the account `count` more."""
        self.used += count
        self._of[account] += count

    def release(self, account: Account, count: int) -> None:
        """Take `count` back."""
        self.used -= count
        self._of[account] -= count
        if not self._of[account]:
            del self._of[account]

    def ahead(self, account: Account, count: int) -> int:
        """How much is served until the account's `count` are, if accounts take turns; those included."""
        return count + sum(min(number, count) for name, number in self._of.items() if name != account)
