"""A field tool's side of a meter's local port: proves who it is, asks, one thing after the other.

In      a line that opens and closes, datagrams, time (`LineMachine`); `ask`
Out     datagrams; `Ready`, `Answered`, `Failed`
Raises  LocalProtocolError on a request while another is under way
Never   talks to another meter than the one whose key it was given
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from amistack.coap.message import Message
from amistack.errors import LocalProtocolError
from amistack.machine import Peer
from amistack.session.credentials import AuthenticationKey, Credential
from amistack.session.handshakes import SessionProposed
from amistack.stack import (
    SEQUENCE_BLOCK,
    HandshakeFailed,
    NumbersWanted,
    RequestFailed,
    RequestId,
    SecureResponse,
    Stack,
)
from meterd.local.framed import LINE

METER: Final = b"meter"
"""The name of the session."""
C_I: Final = b"\x00"


@dataclass(frozen=True, slots=True)
class Ready:
    """The meter is who it should be: ask."""


@dataclass(frozen=True, slots=True)
class Answered:
    """The answer to what was asked."""

    message: Message


@dataclass(frozen=True, slots=True)
class Failed:
    """It came to nothing, for `reason`; the line may be opened again."""

    reason: str


ToolEvent = Ready | Answered | Failed


class ToolStation:
    """One field tool at one meter."""

    def __init__(
        self,
        *,
        key: AuthenticationKey,
        meter: Credential,
        entropy: Callable[[int], bytes],
        dice: random.Random,
    ) -> None:
        self._stack = Stack(key=key, entropy=entropy, dice=dice, links=(), is_responder=False)
        self._meter = meter
        self._under_way: RequestId | None = None
        self._events: list[ToolEvent] = []

    # Commands from above

    def ask(self, message: Message, *, now: float) -> None:
        """Send a request; Answered or Failed follows."""
        if self._under_way is not None:
            raise LocalProtocolError("a request is under way, expected its end first")
        self._under_way = self._stack.request(METER, message, LINE, now=now)
        self._turn(now)

    # The line

    def line_opened(self, *, now: float) -> None:
        """The meter, or something else, is there: who is it?"""
        self._stack.connect(LINE, (self._meter,), c_i=C_I, now=now)
        self._turn(now)

    def line_closed(self) -> None:
        """Nobody is there any more."""
        self._stack.remove_session(METER)
        self._under_way = None
        self._events.append(Failed("the line ended"))

    # A datagram machine

    def receive_datagram(self, data: bytes, peer: Peer, *, now: float) -> None:
        """Take one datagram."""
        self._stack.receive_datagram(data, peer, now=now)
        self._turn(now)

    def handle_timer(self, *, now: float) -> None:
        """Act on whatever is due."""
        self._stack.handle_timer(now=now)
        self._turn(now)

    def data_to_send(self) -> list[tuple[Peer, bytes]]:
        """Datagrams for the line."""
        return self._stack.data_to_send()

    def events(self) -> list[ToolEvent]:
        """What happened, oldest first. Each is handed over once."""
        events, self._events = self._events, []
        return events

    def next_timer(self) -> float | None:
        """When to wake."""
        return self._stack.next_timer()

    def _turn(self, now: float) -> None:
        while events := self._stack.events():
            for event in events:
                match event:
                    case SessionProposed():
                        self._stack.accept_session(
                            event, METER, reserved_until=SEQUENCE_BLOCK, now=now
                        )
                        self._events.append(Ready())
                    case NumbersWanted():
                        self._stack.numbers_reserved(event.recipient_id, event.until, now=now)
                    case SecureResponse() if event.request == self._under_way:
                        self._under_way = None
                        self._events.append(Answered(event.message))
                    case RequestFailed() if event.request == self._under_way:
                        self._under_way = None
                        self._events.append(Failed(event.reason))
                    case HandshakeFailed():
                        self._events.append(Failed(f"not let in: {event.reason}"))
                    case _:
                        pass
