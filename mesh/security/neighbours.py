"""Which counters each neighbour has used: what a replay is told by.

Spec    docs/protocol/mesh.md, "Replay and freshness"
Gives   for each frame whether it is new, a repetition, or too old to tell; who has proved to be
        there now
Limit   PROVEN_COUNT_MAX neighbours that have proved themselves, UNPROVEN_COUNT_MAX that have not.
        At either bound the one that was heard longest ago goes, and has to prove itself again; an
        unproven one never displaces a proven one, so that no flood of recorded frames does
Never   takes a proof back because of anything heard; `forget` does
"""

from __future__ import annotations

import enum
from typing import Final

from amistack.identifiers import Eui64

WINDOW_SIZE: Final = 64
"""A repetition may come after so many other frames of its sender's and still be recognised."""
PROVEN_COUNT_MAX: Final = 512
UNPROVEN_COUNT_MAX: Final = 64

_ALL_SEEN: Final = (1 << WINDOW_SIZE) - 1


class Verdict(enum.Enum):
    """What a counter says about its frame."""

    NEW = "new"
    REPEATED = "repeated"
    TOO_OLD = "too old"


class Window:
    """The counters of one neighbour: the highest, and which of the last WINDOW_SIZE were seen."""

    __slots__ = ("heard_as", "highest", "highest_broadcast", "proven_until", "seen")

    def __init__(self) -> None:
        self.heard_as = 0
        """The how many-eth frame of any neighbour its latest was: who was heard longest ago."""
        self.highest = -1
        self.highest_broadcast = -1
        self.seen = 0  # bit i stands for counter highest - i
        self.proven_until = -1

    @property
    def is_proven(self) -> bool:
        """Whether its neighbour has proved to be there."""
        return self.proven_until >= 0

    def verdict(self, counter: int, *, is_broadcast: bool) -> Verdict:
        """Changes nothing. Broadcasts are never repeated, so none may come after a later one."""
        age = self.highest - counter
        if age < 0:
            return Verdict.NEW
        if is_broadcast and counter < max(self.highest_broadcast, self.proven_until):
            return Verdict.TOO_OLD
        if age >= WINDOW_SIZE:
            return Verdict.TOO_OLD
        if self.seen >> age & 1:
            return Verdict.REPEATED
        # Never seen here, and said before the proof: to acknowledge it as a repetition would be a
        # lie to its sender, if it is not a recording at all.
        return Verdict.TOO_OLD if counter <= self.proven_until else Verdict.NEW

    def mark(self, counter: int, *, is_broadcast: bool) -> None:
        """The frame with `counter` was true."""
        ahead = counter - self.highest
        if ahead > 0:
            self.seen = (self.seen << ahead | 1) & _ALL_SEEN if ahead < WINDOW_SIZE else 1
            self.highest = counter
        else:
            self.seen |= 1 << -ahead
        if is_broadcast and counter > self.highest_broadcast:
            self.highest_broadcast = counter

    def unmark(self, counter: int) -> None:
        """The frame with `counter` was not taken: a repetition of it is new."""
        age = self.highest - counter
        if 0 <= age < WINDOW_SIZE:
            self.seen &= ~(1 << age)

    def prove(self, counter: int) -> None:
        """What has `counter` was sent after we asked; all before it may have been recorded."""
        self.mark(counter, is_broadcast=False)
        self.proven_until = self.highest


class Neighbours:
    """All of them."""

    __slots__ = (
        "_heard_count",
        "_proven",
        "_proven_count_max",
        "_unproven",
        "_unproven_count_max",
        "displaced_count",
    )

    def __init__(
        self,
        *,
        proven_count_max: int = PROVEN_COUNT_MAX,
        unproven_count_max: int = UNPROVEN_COUNT_MAX,
    ) -> None:
        self._proven_count_max = proven_count_max
        self._unproven_count_max = unproven_count_max
        # Frames come by the dozen for each that makes room: the order is looked for then.
        self._proven: dict[Eui64, Window] = {}
        self._unproven: dict[Eui64, Window] = {}
        self._heard_count = 0
        self.displaced_count = 0

    def __len__(self) -> int:
        return len(self._proven) + len(self._unproven)

    @property
    def proven(self) -> list[Eui64]:
        """Those that have proved themselves, heard longest ago first."""
        return sorted(self._proven, key=lambda neighbour: self._proven[neighbour].heard_as)

    def is_proven(self, neighbour: Eui64) -> bool:
        """Whether its control frames count."""
        return neighbour in self._proven

    def find(self, neighbour: Eui64) -> Window | None:
        """Its window; None if nothing true was heard of it, or it was displaced."""
        return self._proven.get(neighbour) or self._unproven.get(neighbour)

    def heard(self, neighbour: Eui64, found: Window | None = None) -> Window:
        """Its window, made if there is none; a true frame of it was heard now.

        `found` is what `find` gave just before, to whom that is known.
        """
        window = found or self.find(neighbour)
        if window is None:
            window = Window()
            self._put(self._unproven, neighbour, window, self._unproven_count_max)
        self._heard_count += 1
        window.heard_as = self._heard_count
        return window

    def prove(self, neighbour: Eui64, counter: int) -> Window:
        """It answered a challenge of ours in the frame with `counter`."""
        window = self._proven.get(neighbour) or self._unproven.pop(neighbour, None) or Window()
        window.prove(counter)
        if neighbour not in self._proven:
            self._put(self._proven, neighbour, window, self._proven_count_max)
        self._heard_count += 1
        window.heard_as = self._heard_count
        return window

    def forget(self, neighbour: Eui64) -> None:
        """It has to prove itself again."""
        self._proven.pop(neighbour, None)
        self._unproven.pop(neighbour, None)

    def _put(
        self, rows: dict[Eui64, Window], neighbour: Eui64, window: Window, count_max: int
    ) -> None:
        if len(rows) >= count_max:
            del rows[min(rows, key=lambda each: rows[each].heard_as)]
            self.displaced_count += 1
        rows[neighbour] = window
