"""The ledger of uplinks: of everything received, what became of it.

An uplink is one authentic, fresh request that the session layer handed up. Each has exactly one
end: stored (its records are committed), answered (it brought nothing to store), or refused with a
reason; until then it is pending. So, for every kind and at every moment between two uplinks,

    received = stored + answered + refused + pending

where pending is not counted but looked up in the table of those that really wait. A difference
means that an uplink was lost, or ended twice: a defect of this program.

Raises  nothing
Limit   the table holds what the store's queue does: an uplink waits only for a submitted write
"""

from __future__ import annotations

import enum
import itertools
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NewType

from amistack.coap.message import Message
from amistack.errors import CoapError
from amistack.model.resources import EVENTS, REGISTRATION, REPORT, TIME

Ticket = NewType("Ticket", int)
"""One uplink that waits for its commit."""


class UplinkKind(enum.StrEnum):
    """What an uplink is about, by the resource that it asks for."""

    REGISTRATION = "registration"
    REPORT = "report"
    EVENTS = "events"
    TIME = "time"
    OTHER = "other"


_KINDS = {
    REGISTRATION: UplinkKind.REGISTRATION,
    REPORT: UplinkKind.REPORT,
    EVENTS: UplinkKind.EVENTS,
    TIME: UplinkKind.TIME,
}


def kind_of(message: Message) -> UplinkKind:
    """The kind of a request; OTHER where its path cannot be read or is none of ours."""
    try:
        return _KINDS.get(message.path, UplinkKind.OTHER)
    except CoapError:
        return UplinkKind.OTHER


@dataclass(frozen=True, slots=True)
class Tally:
    """The uplinks of one kind since the start; `pending` as of now."""

    received: int = 0
    stored: int = 0
    answered: int = 0
    refused: int = 0
    pending: int = 0

    @property
    def difference(self) -> int:
        """Uplinks that came and have no end (above zero), or ended and never came (below)."""
        return self.received - self.stored - self.answered - self.refused - self.pending


class Ledger:
    """The account of every uplink since the start."""

    def __init__(self) -> None:
        self._received: Counter[UplinkKind] = Counter()
        self._stored: Counter[UplinkKind] = Counter()
        self._answered: Counter[UplinkKind] = Counter()
        self._refused: Counter[tuple[UplinkKind, str]] = Counter()
        self._waiting: dict[Ticket, tuple[UplinkKind, float]] = {}
        self._tickets: Iterator[int] = itertools.count(1)

    # What happens to an uplink

    def receive(self, kind: UplinkKind) -> None:
        """It came."""
        self._received[kind] += 1

    def answer(self, kind: UplinkKind) -> None:
        """It brought nothing to store and is answered."""
        self._answered[kind] += 1

    def refuse(self, kind: UplinkKind, reason: str) -> None:
        """Nothing comes of it; `reason` is one of a fixed set."""
        self._refused[kind, reason] += 1

    def wait(self, kind: UplinkKind, *, now: float) -> Ticket:
        """Its records are submitted; one of the next two follows. `now` in s, of any clock."""
        ticket = Ticket(next(self._tickets))
        self._waiting[ticket] = (kind, now)
        return ticket

    def store(self, kind: UplinkKind, ticket: Ticket) -> None:
        """Its records are committed."""
        self._waiting.pop(ticket, None)
        self._stored[kind] += 1

    def fail(self, kind: UplinkKind, ticket: Ticket, reason: str) -> None:
        """Its records could not be committed, and nothing of them is kept."""
        self._waiting.pop(ticket, None)
        self._refused[kind, reason] += 1

    # What it comes to

    @property
    def tallies(self) -> dict[UplinkKind, Tally]:
        """The account of every kind."""
        refused: Counter[UplinkKind] = Counter()
        for (kind, _), count in self._refused.items():
            refused[kind] += count
        pending = Counter(kind for kind, _ in self._waiting.values())
        return {
            kind: Tally(
                self._received[kind],
                self._stored[kind],
                self._answered[kind],
                refused[kind],
                pending[kind],
            )
            for kind in UplinkKind
        }

    @property
    def refused(self) -> Mapping[tuple[UplinkKind, str], int]:
        """What was refused, by kind and reason."""
        return self._refused

    def oldest_age(self, *, now: float) -> float:
        """Seconds that the oldest pending uplink has waited; 0 when none is pending."""
        # They wait in the order in which they came.
        for _, since in self._waiting.values():
            return max(0.0, now - since)
        return 0.0
