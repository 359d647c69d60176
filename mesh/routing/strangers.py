"""Neighbours that may be of use and did not prove to be there: whom to ask, and whom again.

Spec    docs/protocol/mesh.md, "Replay and freshness"
In      `note` one that was heard, `drop` one that proved itself or is of no use
Out     `take_due`, whom to ask now; `deadline`
Limit   STRANGER_COUNT_MAX of them, the one that promises least goes first; ASK_TRIES questions to
        one, ASK_TRIES_MORE of a node without a way, ever further apart; SILENT_COUNT_MAX of whom
        it is known that they do not answer
Never   asks: that is `mesh.routing.control`

A question or its answer may be lost, and a DIO that would be the next reason to ask may be hours
away: without this a node would know half of the parents that it could have. And who hears the
same DIO does not hear the others who do: if all asked at once, nobody would be understood.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from amistack.identifiers import Eui64
from mesh.routing.trickle import NEVER

STRANGER_COUNT_MAX: Final = 8
ASK_TRIES: Final = 4
ASK_TRIES_MORE: Final = 2
"""As many more as long as a node is without a way: at the edge of an area every second frame may be
lost, and the next DIO as a reason to ask be minutes away."""
ASK_AGAIN: Final = 15.0
"""Seconds from the first question to the second, doubled from there on."""
ASK_AGAIN_DETACHED: Final = 1.5
"""The same of a node without a way."""
SILENT_TIME: Final = 300.0
"""Seconds for which one that answered none of the questions is not asked, by a node that has a way;
doubled each time: who is heard by chance, once an hour, is no neighbour."""
SILENT_TIME_MAX: Final = 4800.0
SILENT_COUNT_MAX: Final = 128


class _Stranger:
    __slots__ = ("due", "hoped_rank", "tries", "tries_max")

    def __init__(self, hoped_rank: int, due: float, tries_max: int) -> None:
        self.hoped_rank = hoped_rank
        """Our rank if it were our parent and its link as good as it may be."""
        self.due = due
        self.tries = 0
        self.tries_max = tries_max


class Strangers:
    """Those of one node."""

    __slots__ = ("_rows", "_silent", "deadline")

    def __init__(self) -> None:
        self._rows: dict[Eui64, _Stranger] = {}
        # Until when it is not asked, and for how long that is.
        self._silent: OrderedDict[Eui64, tuple[float, float]] = OrderedDict()
        self.deadline = NEVER
        """When somebody is to be asked."""

    def __len__(self) -> int:
        return len(self._rows)

    def note(
        self,
        eui: Eui64,
        hoped_rank: int,
        *,
        due: float,
        tries_max: int = ASK_TRIES,
        is_urgent: bool = False,
    ) -> None:
        """One that may be of use was heard: it is asked at `due`, unless it is being asked.

        Or it was, and did not answer; but `is_urgent`.
        """
        row = self._rows.get(eui)
        if row is not None:
            row.hoped_rank, row.tries_max = hoped_rank, tries_max
            return
        silent = self._silent.get(eui)
        if silent is not None and due < silent[0] and not is_urgent:
            return
        if len(self._rows) >= STRANGER_COUNT_MAX:
            worst = max(self._rows, key=lambda other: self._rows[other].hoped_rank)
            if self._rows[worst].hoped_rank <= hoped_rank:
                return
            del self._rows[worst]
        self._rows[eui] = _Stranger(hoped_rank, due, tries_max)
        self._schedule()

    def drop(self, eui: Eui64) -> None:
        """It proved itself, or is of no use any more."""
        self._silent.pop(eui, None)
        if self._rows.pop(eui, None) is not None:
            self._schedule()

    def take_due(self, *, now: float, ask_at: float, is_joined: bool = True) -> Eui64 | None:
        """Whom to ask now; None for nobody. Before `ask_at` nobody is asked."""
        again = ASK_AGAIN if is_joined else ASK_AGAIN_DETACHED
        more = 0 if is_joined else ASK_TRIES_MORE
        for eui, row in list(self._rows.items()):
            if row.due > now:
                continue
            if row.tries >= row.tries_max + more * (row.tries_max > 1):
                del self._rows[eui]
                self._remember(eui, now)
                continue
            if now < ask_at:
                row.due = ask_at
                continue
            row.due = now + again * 2.0**row.tries
            row.tries += 1
            self._schedule()
            return eui
        self._schedule()
        return None

    def _remember(self, eui: Eui64, now: float) -> None:
        """It does not answer."""
        before = self._silent.pop(eui, None)
        time = SILENT_TIME if before is None else min(2 * before[1], SILENT_TIME_MAX)
        self._silent[eui] = now + time, time
        if len(self._silent) > SILENT_COUNT_MAX:
            self._silent.popitem(last=False)

    def _schedule(self) -> None:
        self.deadline = min((row.due for row in self._rows.values()), default=NEVER)
