"""What is remembered of a request while it is answered: times and hashes, nothing that a caller sent."""

import hashlib
import hmac
import secrets
import time
from dataclasses import dataclass, field
from typing import Final, Literal

Stage = Literal["receive", "wait", "decode", "judge", "queue", "detect", "score", "render"]
POOLED: Final[frozenset[Stage]] = frozenset(("decode", "judge", "render"))
"""What takes a thread of the pool."""
_HEX_DIGITS: Final = 32


@dataclass(frozen=True, slots=True)
class Step:
    """A stage that is over.  ended: seconds since the epoch.  seconds: it took."""

    stage: Stage
    ended: float
    seconds: float


@dataclass(slots=True, eq=False)
class PhotoAccount:
    """One photograph's way.  content: keyed hash of its bytes, once they were looked at."""

    content: str | None = None
    steps: list[Step] = field(default_factory=list)

    def over(self, stage: Stage, seconds: float) -> None:
        """A stage has just ended."""
        self.steps.append(Step(stage, time.time(), seconds))

    @property
    def pooled(self) -> float:
        """Seconds on threads of the pool."""
        return sum(step.seconds for step in self.steps if step.stage in POOLED)


@dataclass(slots=True, eq=False)
class Account:
    """One request.  key: the name of the key it came with.  began: seconds since the epoch."""

    request_id: str
    began: float = field(default_factory=time.time)
    key: str | None = None
    received: Step | None = None
    photos: list[PhotoAccount] = field(default_factory=list)

    def photo(self) -> PhotoAccount:
        """The account of one photograph more."""
        self.photos.append(PhotoAccount())
        return self.photos[-1]


class ContentHash:
    """HMAC-SHA-256 of a photograph's bytes, 128 bits of it: equal photographs are known for equal in one log, and
    nobody without the secret can look for one.

    Args:
        secret: the same on every replica to compare their logs; a random one unless given.
    """

    def __init__(self, secret: str | None) -> None:
        self._secret = secret.encode() if secret else secrets.token_bytes(32)

    def of(self, data: bytes) -> str:
        """Hexadecimal."""
        return hmac.new(self._secret, data, hashlib.sha256).hexdigest()[:_HEX_DIGITS]
