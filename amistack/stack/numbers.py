"""Sender sequence numbers: none is used before it is durable that it may be.

Spec    RFC 8613 section 7.2.1 and appendix B.1.1
Gives   NumbersWanted, ahead of need; messages go out in the order in which they were given
Raises  TableFull when HELD_MAX messages of a session wait already
Limit   HELD_MAX messages a session
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from amistack.coap.endpoint import ExchangeId
from amistack.errors import LocalProtocolError, SequenceExhausted, TableFull
from amistack.session.oscore import SEQUENCE_NUMBER_MAX, SecurityContext
from amistack.stack.events import Event, NumbersWanted, RequestId

SEQUENCE_BLOCK: Final = 64
"""Sender sequence numbers reserved at a time."""
SEQUENCE_LOW: Final = 16
"""With fewer left the next block is asked for, ahead of need."""
HELD_MAX: Final = 32
"""Messages of one session that wait for the next block of numbers."""


@dataclass(frozen=True, slots=True)
class Held:
    """A message that may have to wait for sequence numbers.

    `request` if it is one of ours, `exchange` if it answers a peer's.
    """

    send: Callable[[float], None]
    request: RequestId | None = None
    identity: bytes = b""
    exchange: ExchangeId | None = None


class Numbers:
    """The numbers of all sessions: who waits for a block, and what waits with them."""

    def __init__(
        self,
        *,
        events: list[Event],
        is_in_use: Callable[[SecurityContext], bool],
        drop: Callable[[Held, str, float], None],
    ) -> None:
        """`drop` tells whoever waits for a message that it will not go out, and why."""
        self._events = events
        self._is_in_use = is_in_use
        self._drop = drop
        self._wanting: dict[bytes, int] = {}  # recipient id to the bound asked for
        self._held: dict[bytes, deque[Held]] = {}

    def send(self, context: SecurityContext, one: Held, *, now: float) -> None:
        """Send now, or when the next block of numbers is durable."""
        held = self._held.get(context.recipient_id)
        try:
            if held:
                raise SequenceExhausted("others wait already")  # Order is kept.
            one.send(now)
        except SequenceExhausted:
            if not self._is_in_use(context):
                self._drop(one, "session ended", now)
                return
            held = self._held.setdefault(context.recipient_id, deque())
            if len(held) >= HELD_MAX:
                raise TableFull(f"{HELD_MAX} messages wait for numbers already") from None
            held.append(one)
        self._want(context)

    def is_wanting(self, recipient_id: bytes) -> bool:
        """Whether a block was asked for that is not durable yet."""
        return recipient_id in self._wanting

    def reserved(self, context: SecurityContext, until: int, *, now: float) -> None:
        """A block is durable: what was held for want of it goes out."""
        del self._wanting[context.recipient_id]
        context.reserve(until)
        held = self._held.get(context.recipient_id, deque())
        while held:
            try:
                held[0].send(now)
            except SequenceExhausted:
                break  # Fewer than were wanted.
            except (LocalProtocolError, TableFull) as error:
                self._drop(held[0], str(error), now)
            held.popleft()
        if not held:
            self._held.pop(context.recipient_id, None)
        self._want(context)

    def forget(self, recipient_id: bytes, *, now: float) -> None:
        """That session ended, and what waits for its numbers with it."""
        self._wanting.pop(recipient_id, None)
        for held in self._held.pop(recipient_id, ()):
            self._drop(held, "session ended", now)

    def _want(self, context: SecurityContext) -> None:
        recipient_id = context.recipient_id
        left = context.reserved_until - context.next_sequence_number
        if left >= SEQUENCE_LOW or recipient_id in self._wanting or not self._is_in_use(context):
            return
        until = min(context.reserved_until + SEQUENCE_BLOCK, SEQUENCE_NUMBER_MAX + 1)
        if until <= context.reserved_until:
            return  # The space is used up: only a new session helps.
        self._wanting[recipient_id] = until
        self._events.append(NumbersWanted(context.owner, recipient_id, until))
