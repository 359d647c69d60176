"""How often proofs are asked for and given: challenges must not become the flood they stop.

Spec    docs/protocol/mesh.md, "Replay and freshness"
Limit   one neighbour is asked after CHALLENGE_INTERVAL at the earliest, twice as long after each
        time that it was silent, up to CHALLENGE_INTERVAL_MAX; all together BURST at once and RATE
        a second, for asking and for answering apart. PENDING_COUNT_MAX questions are open, the
        oldest of which is forgotten at the bound
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from amistack.identifiers import Eui64

CHALLENGE_INTERVAL: Final = 1.0
CHALLENGE_INTERVAL_MAX: Final = 60.0
CHALLENGE_LIFETIME: Final = 30.0
"""An answer that comes later proves nothing."""
ANSWER_INTERVAL: Final = 1.0
BURST: Final = 16
RATE: Final = 2.0
PENDING_COUNT_MAX: Final = 64
ASKED_COUNT_MAX: Final = 512


class Bucket:
    """BURST at once, RATE a second."""

    __slots__ = ("_at", "_left")

    def __init__(self) -> None:
        self._left = float(BURST)
        self._at: float | None = None

    def has_one(self, *, now: float) -> bool:
        """Whether there is one to take. Changes only the account of time."""
        if self._at is not None and now > self._at:
            self._left = min(float(BURST), self._left + (now - self._at) * RATE)
        self._at = now if self._at is None else max(self._at, now)
        return self._left >= 1.0

    def take(self) -> None:
        """One less."""
        self._left -= 1.0


class ChallengeLimits:
    """Whom we asked when and how often in vain, and whom we answered when."""

    __slots__ = ("_answered", "_answers", "_asked", "_challenges")

    def __init__(self) -> None:
        self._challenges = Bucket()
        self._answers = Bucket()
        self._asked: OrderedDict[Eui64, tuple[float, float]] = OrderedDict()  # not before, interval
        self._answered: OrderedDict[Eui64, float] = OrderedDict()

    def may_challenge(self, neighbour: Eui64, *, now: float) -> bool:
        """Whether it may be asked now."""
        asked = self._asked.get(neighbour)
        return (asked is None or now >= asked[0]) and self._challenges.has_one(now=now)

    def challenged(self, neighbour: Eui64, *, now: float) -> None:
        """It was."""
        self._challenges.take()
        asked = self._asked.pop(neighbour, None)
        interval = CHALLENGE_INTERVAL
        if asked is not None:
            interval = min(asked[1] * 2, CHALLENGE_INTERVAL_MAX)
        self._asked[neighbour] = (now + interval, interval)
        if len(self._asked) > ASKED_COUNT_MAX:
            self._asked.popitem(last=False)

    def proved(self, neighbour: Eui64) -> None:
        """It answered: if it must be asked again, that begins with CHALLENGE_INTERVAL."""
        self._asked.pop(neighbour, None)

    def may_answer(self, neighbour: Eui64, *, now: float) -> bool:
        """Whether it may be answered now."""
        before = self._answered.get(neighbour)
        return (before is None or now >= before) and self._answers.has_one(now=now)

    def answered(self, neighbour: Eui64, *, now: float) -> None:
        """It was."""
        self._answers.take()
        self._answered.pop(neighbour, None)
        self._answered[neighbour] = now + ANSWER_INTERVAL
        if len(self._answered) > ASKED_COUNT_MAX:
            self._answered.popitem(last=False)


class PendingChallenges:
    """Our challenges that nobody answered yet, by the counter of their frame."""

    __slots__ = ("_pending",)

    def __init__(self) -> None:
        self._pending: OrderedDict[int, tuple[Eui64, float]] = OrderedDict()

    def put(self, counter: int, neighbour: Eui64, *, now: float) -> None:
        """`neighbour` was asked in the frame with `counter`."""
        self._pending[counter] = (neighbour, now + CHALLENGE_LIFETIME)
        if len(self._pending) > PENDING_COUNT_MAX:
            self._pending.popitem(last=False)

    def take(self, counter: int, neighbour: Eui64, *, now: float) -> bool:
        """Whether that is an answer in time. Then it is none a second time."""
        pending = self._pending.get(counter)
        if pending is None or pending[0] != neighbour or now > pending[1]:
            return False
        del self._pending[counter]
        return True
