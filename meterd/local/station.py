"""The meter's side of its local port: proves who it is, believes the tools it was told of, answers.

In      a line that opens and closes, datagrams, time (`LineMachine`)
Out     datagrams; every attempt to come in through `on_access`
Raises  nothing: what cannot be kept is answered 5.03
Limit   one tool on a line; a session ends with its line; REASONS_MAX refusals told of on one line
Never   answers anything that is not authentic, does for a tool what it may not, or keeps a session
        on disk: each line begins with a handshake
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Final, Protocol

from amistack.coap.codes import Code
from amistack.coap.message import Message
from amistack.errors import CoapError, LocalProtocolError, StoreError
from amistack.machine import Peer
from amistack.model.resources import DUMP
from amistack.session.credentials import AuthenticationKey, IdCred, Kid
from amistack.session.handshakes import CredentialWanted, SessionProposed
from amistack.stack import (
    SEQUENCE_BLOCK,
    NumbersWanted,
    SecureRequest,
    Stack,
)
from meterd.agent.answering import Answering
from meterd.local.gate import HOLD_S, Gate
from meterd.local.tools import Authority, Tool
from meterd.parts import Resource, refused

READING: Final = frozenset({int(Code.GET), int(Code.FETCH)})
REASONS_MAX: Final = 8
STORE_RETRY_S: Final = 30


class OnAccess(Protocol):
    """Is told of every attempt: who came, or why they were refused."""

    def __call__(self, who: str, *, is_granted: bool, now: float) -> None: ...


class LocalStation:
    """One line's."""

    def __init__(
        self,
        *,
        key: AuthenticationKey,
        tools: Mapping[bytes, Tool],
        resources: Sequence[Resource],
        gate: Gate,
        on_access: OnAccess,
        on_leave: Callable[[], None],
        on_answer: Callable[[], None] = lambda: None,
        entropy: Callable[[int], bytes],
        dice: random.Random,
    ) -> None:
        self.counters: Counter[str] = Counter()
        self._answering = Answering(resources, self.counters)
        self._stack = Stack(
            key=key, entropy=entropy, dice=dice, links=self._answering.links, is_responder=True
        )
        self._tools = tools
        self._gate = gate
        self._on_access = on_access
        self._on_leave = on_leave
        self._on_answer = on_answer
        self._tool: bytes | None = None
        self._told: set[str] = set()
        self._known_refusals: Counter[str] = Counter()

    # The line

    def line_opened(self, *, now: float) -> None:  # noqa: ARG002  as the shape has it
        """Somebody is there, of whom nothing is known."""
        self._told.clear()

    def line_closed(self) -> None:
        """Nobody is there: their session ends."""
        if self._tool is not None:
            self._stack.remove_session(self._tool)
            self._tool = None
            self._gate.end_local()
        self._on_leave()

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

    def events(self) -> list[None]:
        """None: everything is dealt with here."""
        return []

    def next_timer(self) -> float | None:
        """When to wake."""
        return self._stack.next_timer()

    # Who comes

    def _turn(self, now: float) -> None:
        while events := self._stack.events():
            for event in events:
                match event:
                    case CredentialWanted():
                        tool = self._find(event.id_cred)
                        if tool is None:
                            self._refuse(f"unknown tool {_name(event.id_cred)}", now)
                        credential = None if tool is None else tool.credential
                        self._stack.provide_credential(event, credential, now=now)
                    case SessionProposed():
                        self._admit(event, now)
                    case NumbersWanted():
                        # The session lives in memory alone: so do its numbers.
                        self._stack.numbers_reserved(event.recipient_id, event.until, now=now)
                    case SecureRequest():
                        self._answer(event, now)
                    case _:
                        pass
        self._notice_refusals(now)

    def _find(self, id_cred: IdCred) -> Tool | None:
        return self._tools.get(id_cred.value) if isinstance(id_cred, Kid) else None

    def _admit(self, proposed: SessionProposed, now: float) -> None:
        assert isinstance(proposed.id_cred, Kid), "it was found by its kid"
        if self._tool is not None and self._tool != proposed.id_cred.value:
            self._stack.remove_session(self._tool)
        self._tool = proposed.id_cred.value
        self._say(f"tool {_name(proposed.id_cred)}", is_granted=True, now=now)
        self._stack.accept_session(
            proposed, proposed.id_cred.value, reserved_until=SEQUENCE_BLOCK, now=now
        )

    def _notice_refusals(self, now: float) -> None:
        """Whoever is refused by the stack has tried, too: without a key, or with a wrong one."""
        refusals = Counter(self._stack.refused)
        for reason in refusals - self._known_refusals:
            self._refuse(reason, now)
        self._known_refusals = refusals

    def _refuse(self, reason: str, now: float) -> None:
        """Told of once on a line, and not more than REASONS_MAX in all."""
        self.counters[f"refused: {reason}"] += 1
        if reason not in self._told and len(self._told) < REASONS_MAX:
            self._told.add(reason)
            self._say(f"local port: {reason}", is_granted=False, now=now)

    def _say(self, who: str, *, is_granted: bool, now: float) -> None:
        try:
            self._on_access(who[:64], is_granted=is_granted, now=now)
        except StoreError:
            self.counters["attempt not logged"] += 1

    # What they want

    def _answer(self, request: SecureRequest, now: float) -> None:
        answer = self._answer_to(request, now)
        try:
            self._stack.respond(request.exchange, answer, is_durable=True, now=now)
        except LocalProtocolError as error:
            self.counters[f"answer not sent: {error}"] += 1
        self._on_answer()

    def _answer_to(self, request: SecureRequest, now: float) -> Message:
        message = request.message
        if not self._gate.may_local(now):
            return _later(int(HOLD_S))
        self._gate.note_local(now)
        try:
            if _needed(message) not in self._tools[request.identity].authority:
                self._refuse(f"tool {request.identity.hex()} may not do that", now)
                return refused(Code.FORBIDDEN, "may not do that")
            return self._answering.answer(message, now=now)
        except StoreError:
            self.counters["storage failed"] += 1
            return _later(STORE_RETRY_S)
        except CoapError as error:
            return refused(Code.BAD_REQUEST, error.reason)


def _needed(message: Message) -> Authority:
    """What a tool must be allowed for that. Raises CoapError on a path that is none."""
    if message.code not in READING:
        return Authority.CHANGE
    return Authority.READ if message.path == DUMP else Authority.LOOK


def _later(seconds: int) -> Message:
    return Message.response(Code.SERVICE_UNAVAILABLE, max_age=seconds)


def _name(id_cred: IdCred) -> str:
    return id_cred.value.hex()[:16] if isinstance(id_cred, Kid) else "without a kid"
