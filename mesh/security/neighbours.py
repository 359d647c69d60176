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
from collections import OrderedDict
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

    __slots__ = ("highest", "highest_broadcast", "proven_until", "seen")

    def __init__(self) -> None:
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
    """All of them, those heard last at the end."""

    def __init__(
        self,
        *,
        proven_count_max: int = PROVEN_COUNT_MAX,
        unproven_count_max: int = UNPROVEN_COUNT_MAX,
    ) -> None:
        self._proven_count_max = proven_count_max
        self._unproven_count_max = unproven_count_max
        self._proven: OrderedDict[Eui64, Window] = OrderedDict()
        self._unproven: OrderedDict[Eui64, Window] = OrderedDict()
        self.displaced_count = 0

    def __len__(self) -> int:
        return len(self._proven) + len(self._unproven)

    @property
    def proven(self) -> list[Eui64]:
        """Those that have proved themselves, heard longest ago first."""
        return list(self._proven)

    def is_proven(self, neighbour: Eui64) -> bool:
        """Whether its control frames count."""
        return neighbour in self._proven

    def find(self, neighbour: Eui64) -> Window | None:
        """Its window; None if nothing true was heard of it, or it was displaced."""
        return self._proven.get(neighbour) or self._unproven.get(neighbour)

    def heard(self, neighbour: Eui64) -> Window:
        """Its window, made if there is none; a true frame of it was heard now."""
        window = self._proven.get(neighbour)
        if window is not None:
            self._proven.move_to_end(neighbour)
            return window
        window = self._unproven.get(neighbour)
        if window is not None:
            self._unproven.move_to_end(neighbour)
            return window
        window = self._unproven[neighbour] = Window()
        if len(self._unproven) > self._unproven_count_max:
            self._unproven.popitem(last=False)
            self.displaced_count += 1
        return window

    def prove(self, neighbour: Eui64, counter: int) -> Window:
        """It answered a challenge of ours in the frame with `counter`."""
        window = self._proven.get(neighbour) or self._unproven.pop(neighbour, None) or Window()
        window.prove(counter)
        self._proven[neighbour] = window
        self._proven.move_to_end(neighbour)
        if len(self._proven) > self._proven_count_max:
            self._proven.popitem(last=False)
            self.displaced_count += 1
        return window

    def forget(self, neighbour: Eui64) -> None:
        """It has to prove itself again."""
        self._proven.pop(neighbour, None)
        self._unproven.pop(neighbour, None)
