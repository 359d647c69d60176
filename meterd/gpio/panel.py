"""The contacts of a meter's case and relay, without their bounce.

A level counts when it has been steady for the debounce time of its contact. What was so when the
pins were opened is told only where it is on: an open cover is news after a start, a closed one not.

In      `take` (a level as it is seen), `lose` (the pins are gone), `handle_timer`
Out     `changes`, each once; `level`, None for what is not known; `next_timer`
Limit   CHANGE_COUNT_MAX changes wait to be collected: of more, the latest
Never   tells of a change that the pins took back within the debounce time
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

CHANGE_COUNT_MAX: Final = 64


class Role(enum.Enum):
    """What a contact stands for, and what it means that it is on."""

    COVER = "cover"  # open
    TILT = "tilt"  # tilted
    POWER = "power"  # failed
    BUTTON = "button"  # pressed
    CONTACT = "contact"  # the relay's auxiliary contact says closed
    LOAD = "load"  # voltage at the load side


DEBOUNCE_S: Final[Mapping[Role, float]] = {
    Role.COVER: 0.2,
    Role.TILT: 1.0,
    # Little: the last gasp has no time, and mains that dip for less are no failure.
    Role.POWER: 0.05,
    Role.BUTTON: 0.05,
    Role.CONTACT: 0.05,
    Role.LOAD: 0.1,
}


@dataclass(frozen=True, slots=True)
class Changed:
    """A contact is on or off, and was the other before."""

    role: Role
    is_on: bool


@dataclass(slots=True)
class _Contact:
    """`is_on` counts; `seen` is what was seen last, since `since`."""

    is_on: bool | None = None
    seen: bool | None = None
    since: float = 0.0


class Panel:
    """All contacts of one meter."""

    def __init__(self, roles: Iterable[Role]) -> None:
        self._contacts = {role: _Contact() for role in roles}
        self._changes: list[Changed] = []
        self.is_there = False
        self.trouble = "not opened yet"
        """Why the pins are not there, while they are not."""

    # Inputs from below

    def take(self, role: Role, *, is_on: bool, now: float) -> None:
        """A contact is seen so at `now`."""
        self.is_there, self.trouble = True, ""
        contact = self._contacts[role]
        self._settle(role, contact, now)
        if contact.seen is not is_on:
            contact.seen, contact.since = is_on, now

    def lose(self, trouble: str) -> None:
        """The pins are gone: nothing is known of any contact."""
        self.is_there, self.trouble = False, trouble
        for contact in self._contacts.values():
            contact.seen = None

    def handle_timer(self, *, now: float) -> None:
        """Count what has been steady for long enough."""
        for role, contact in self._contacts.items():
            self._settle(role, contact, now)

    # Outputs

    def changes(self) -> list[Changed]:
        """What changed, oldest first. Each is handed over once."""
        changes, self._changes = self._changes, []
        return changes

    def level(self, role: Role) -> bool | None:
        """Whether a contact is on; None without the contact, or while that is not known."""
        contact = self._contacts.get(role)
        return contact.is_on if contact is not None and contact.seen is not None else None

    def next_timer(self) -> float | None:
        """When a level that is seen will count."""
        waiting = [
            contact.since + DEBOUNCE_S[role]
            for role, contact in self._contacts.items()
            if contact.seen is not None and contact.seen is not contact.is_on
        ]
        return min(waiting, default=None)

    def _settle(self, role: Role, contact: _Contact, now: float) -> None:
        if contact.seen is None or contact.seen is contact.is_on:
            return
        if now < contact.since + DEBOUNCE_S[role]:
            return
        before, contact.is_on = contact.is_on, contact.seen
        if contact.is_on or before:
            self._changes = [*self._changes, Changed(role, contact.is_on)][-CHANGE_COUNT_MAX:]
