"""One endpoint under test, and the messages that a test sends it as its peer."""

from __future__ import annotations

from collections.abc import Sized

from amistack.coap.codes import Code, Type
from amistack.coap.endpoint import (
    Endpoint,
    Event,
    ExchangeId,
    Limits,
    RequestId,
    RequestReceived,
)
from amistack.coap.message import Message
from amistack.machine import Peer
from tests.support.worlds import FixedDice

GET = Message.request(Code.GET, "temperature")
WARM = Message.response(Code.CONTENT, payload=b"22.3 C")
PEER: Peer = "peer"
ACK_WAIT = 2.0  # The shortest first timeout, which FixedDice gives.


class Bench:
    """One endpoint under test; the test itself is its peer, and its clock."""

    def __init__(self, *, limits: Limits | None = None, **settings_: float) -> None:
        self.endpoint = Endpoint(dice=FixedDice(1), limits=limits, **settings_)  # type: ignore[arg-type]
        self.now = 1000.0

    def request(self, message: Message = GET, peer: Peer = PEER, **more: object) -> RequestId:
        return self.endpoint.request(message, peer, now=self.now, **more)  # type: ignore[arg-type]

    def respond(self, exchange: ExchangeId, message: Message = WARM) -> None:
        self.endpoint.respond(exchange, message, now=self.now)

    def receive(self, message: Message | bytes, peer: Peer = PEER) -> None:
        octets = message if isinstance(message, bytes) else message.encode()
        self.endpoint.receive_datagram(octets, peer, now=self.now)

    def sent(self) -> list[Message]:
        return [Message.decode(octets) for _, octets in self.endpoint.data_to_send()]

    def sent_one(self) -> Message:
        (message,) = self.sent()
        return message

    def events(self) -> list[Event]:
        return self.endpoint.events()

    def asked(self) -> RequestReceived:
        (event,) = self.events()
        assert isinstance(event, RequestReceived)
        return event

    def wake(self) -> float:
        """Let the next deadline come; the time that passed until it."""
        due = self.endpoint.next_timer()
        assert due is not None, "nothing is due"
        passed = due - self.now
        self.now = max(self.now, due)
        self.endpoint.handle_timer(now=self.now)
        after = self.endpoint.next_timer()
        assert after is None or after > self.now, "a deadline costs more than one wakeup"
        return passed

    def settle(self) -> None:
        while self.endpoint.next_timer() is not None:
            self.wake()

    def assert_nothing_left(self) -> None:
        """Everything is settled and old: walk the tables."""
        self.settle()
        self.now += self.endpoint.timing.exchange_lifetime
        for _ in range(2):  # A peer that was busy when its time came is looked at once more.
            self.endpoint.handle_timer(now=self.now)
            self.now += self.endpoint.timing.exchange_lifetime
        self.endpoint.data_to_send(), self.endpoint.events()
        assert leftovers(self.endpoint) == {}


def leftovers(endpoint: Endpoint) -> dict[str, int]:
    """Every table of an endpoint that is not empty, found by looking at all its attributes."""
    endpoint.next_timer()  # Queues drop there what has become of no interest.
    found: dict[str, int] = {}
    rooms: list[tuple[str, object]] = [("endpoint", endpoint)]
    seen: set[int] = set()
    while rooms:
        where, room = rooms.pop()
        if id(room) in seen:
            continue
        seen.add(id(room))
        for name, value in vars(room).items():
            at = f"{where}.{name}"
            if isinstance(value, Sized) and name not in ("refused", "_refused", "_understood"):
                found[at] = len(value)
            if type(value).__module__.startswith("amistack.coap") and hasattr(value, "__dict__"):
                rooms.append((at, value))
    return {name: size for name, size in found.items() if size}


def con(code: int = Code.GET, message_id: int = 0x7D34, token: bytes = b"\x20") -> Message:
    return GET.__class__(code, Type.CON, message_id, token, GET.options)


def non(message_id: int = 0x7D40, token: bytes = b"\x75") -> Message:
    return Message(Code.GET, Type.NON, message_id, token, GET.options)


def empty(kind: Type, message_id: int) -> Message:
    return Message(Code.EMPTY, kind, message_id)


def answer(request: Message, kind: Type, message_id: int | None = None) -> Message:
    """A 2.05 that fits a request of ours; piggybacked if it has the same message id."""
    message_id = request.message_id if message_id is None else message_id
    return WARM.addressed(type=kind, message_id=message_id, token=request.token)
