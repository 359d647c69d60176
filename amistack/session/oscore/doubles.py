"""Which messages were accepted lately: tells one that comes again from another with its number.

A replay window knows that a number was used, not by what. Two devices that hold the same keys, one
of them a copy of the other, use the same numbers for different messages, or numbers out of all
order. Both can be seen by who remembers a little.

Spec    RFC 8613 section 7.2.1 forbids what is noticed here
Limit   REMEMBERED_MAX messages and as many sessions, of all together; the oldest is forgotten
Never   decides whether a message is accepted
"""

from __future__ import annotations

import enum
from typing import Final

from amistack.coap.message import Message
from amistack.session.oscore.context import SecurityContext
from amistack.session.oscore.protect import RequestBinding, unprotect_request
from amistack.session.oscore.replay import ReplayWindow

REMEMBERED_MAX: Final = 65_536
TAG_SIZE: Final = 8


class Likeness(enum.Enum):
    """What a message is to the one that was accepted under its number."""

    SAME = "the same message"
    OTHER = "another message"
    UNKNOWN = "not remembered"


class Doubles:
    """The last messages of all sessions: a tag of each, and when a session's newest came."""

    def __init__(self, *, remembered_max: int = REMEMBERED_MAX) -> None:
        self._remembered_max = remembered_max
        # Dicts keep their order, so the first is always the one to be forgotten.
        self._tags: dict[tuple[bytes, int], tuple[bytes, float]] = {}
        self._newest: dict[bytes, float] = {}
        self._complete_since: float | None = None

    def note(
        self, recipient_id: bytes, number: int, ciphertext: bytes, *, is_newest: bool, now: float
    ) -> None:
        """Remember a message that was accepted. `is_newest`: none with a higher number was."""
        if self._complete_since is None:
            self._complete_since = now
        tags, newest = self._tags, self._newest
        tags[(recipient_id, number)] = (ciphertext[-TAG_SIZE:], now)
        if len(tags) > self._remembered_max:
            self._complete_since = tags.pop(next(iter(tags)))[1]
        if is_newest:
            newest.pop(recipient_id, None)
            newest[recipient_id] = now
            if len(newest) > self._remembered_max:
                del newest[next(iter(newest))]

    def likeness(self, recipient_id: bytes, number: int, ciphertext: bytes) -> Likeness:
        """What an authentic message is to the one that was accepted under its number."""
        noted = self._tags.get((recipient_id, number))
        if noted is None:
            return Likeness.UNKNOWN
        return Likeness.SAME if noted[0] == ciphertext[-TAG_SIZE:] else Likeness.OTHER

    def newest_at(self, recipient_id: bytes) -> float | None:
        """When that session's message with the highest number came, or None if not remembered."""
        return self._newest.get(recipient_id)

    def remembered_s(self, *, now: float) -> float:
        """For how long back, in s, everything that was accepted is remembered."""
        return 0.0 if self._complete_since is None else now - self._complete_since


def open_again(context: SecurityContext, message: Message) -> tuple[Message, RequestBinding]:
    """The request inside `message`, whose number was used before. Raises OscoreError if forged.

    It changes nothing, and must change nothing: what comes out was not accepted.
    """
    return unprotect_request(context.with_window(ReplayWindow()), message)
