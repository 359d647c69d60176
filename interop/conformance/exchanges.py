"""The message figures of RFC 7252, replayed: our endpoint plays the client, then the server.

Spec    RFC 7252 figures 4 to 6 and appendix A
Gives   two cases for each figure: a transcript of who sent what, as the figure has it, against one
        in which our machine made up its own side
Limit   a machine chooses message ids and tokens by itself; the first of its own is taken for the
        figure's, and every later one must be the same
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, Literal, TypedDict, cast

from amistack.coap.codes import Type, format_code, is_request
from amistack.coap.endpoint import (
    Endpoint,
    Event,
    ExchangeId,
    RequestId,
    RequestReceived,
    ResponseReceived,
)
from amistack.coap.message import Message
from interop.conformance.coap import MessageFields, message_of
from interop.conformance.suite import Case, VectorSuite
from interop.vectors import load

Role = Literal["client", "server"]

PEER: Final = "peer"
BEGIN_S: Final = 1000.0
DRAIN_COUNT_MAX: Final = 50


class Arrow(MessageFields, total=False):
    """One message of a figure; or, without any of a message's fields, what happens meanwhile."""

    lost: bool
    crash: bool
    stale: bool


class Figure(TypedDict):
    """One sequence of messages."""

    where: str
    title: str
    arrows: Sequence[Arrow]


class Figures(TypedDict):
    """The file `coap-exchanges`."""

    figures: Sequence[Figure]


def sender_of(arrow: MessageFields) -> Role:
    """Who sends it; a keyword cannot be a field."""
    return cast("Mapping[str, Role]", arrow)["from"]


def is_interlude(arrow: Arrow) -> bool:
    """Whether it is no message."""
    return "code" not in arrow


@dataclass(slots=True)
class Names:
    """Which message id and token of ours stand for those of the figure."""

    ids: dict[int, int] = field(default_factory=dict)
    tokens: dict[bytes, bytes] = field(default_factory=dict)

    def learn(self, published: Message, ours: Message) -> None:
        """Ours was sent where the figure has that one. The first counts."""
        self.ids.setdefault(published.message_id, ours.message_id)
        self.tokens.setdefault(published.token, ours.token)

    def to_ours(self, published: Message) -> Message:
        """What the peer would send, had it met us instead of the figure's machine."""
        return replace(
            published,
            message_id=self.ids.get(published.message_id, published.message_id),
            token=self.tokens.get(published.token, published.token),
        )

    def to_published(self, ours: Message) -> Message:
        """A message of ours in the figure's names; one that it does not have stays as it is."""
        ids = {own: theirs for theirs, own in self.ids.items()}
        tokens = {own: theirs for theirs, own in self.tokens.items()}
        return replace(
            ours,
            message_id=ids.get(ours.message_id, ours.message_id),
            token=tokens.get(ours.token, ours.token),
        )


class Replay:
    """Our endpoint in one role of a figure."""

    def __init__(self, role: Role) -> None:
        self.role = role
        self.names = Names()
        self.now = BEGIN_S
        self.endpoint = self.new_endpoint(1)
        self.waiting: list[Message] = []
        self.answered: list[bytes] = []
        self.request: RequestId | None = None
        self.exchange: ExchangeId | None = None
        self.asked: set[tuple[int, bytes]] = set()
        self.transcript: list[str] = []

    def play(self, arrows: Sequence[Arrow]) -> list[str]:
        """Go through the figure; the transcript, and at its end what our client was told."""
        for arrow in arrows:
            if is_interlude(arrow):
                self.interlude(arrow)
                continue
            message = message_of(arrow)
            is_lost = arrow.get("lost", False)
            if sender_of(arrow) == self.role:
                self.transcript.append(line(self.role, self._said(message), is_lost=is_lost))
            else:
                self.transcript.append(line(sender_of(arrow), message, is_lost=is_lost))
                if not is_lost:
                    self.hear(message)
        self.drain()
        surplus = [f"and besides: {message}" for message in self.waiting]
        return [*self.transcript, *surplus, *_told(self.answered)]

    def interlude(self, arrow: Arrow) -> None:
        """The client crashes: it forgets everything. Our peer's crash is not ours."""
        if sender_of(arrow) == self.role:
            self.endpoint = self.new_endpoint(2)
            self.waiting.clear()

    def advance(self, seconds: float) -> None:
        """Let that time pass, and every timer in it."""
        until = self.now + seconds
        for _ in range(DRAIN_COUNT_MAX):
            due = self.endpoint.next_timer()
            if due is None or due > until:
                break
            self.now = max(self.now, due)
            self.endpoint.handle_timer(now=self.now)
            self.settle()
        self.now = until

    def drain(self) -> None:
        """Let every timer pass that is still set: nothing more may be sent."""
        for _ in range(DRAIN_COUNT_MAX):
            due = self.endpoint.next_timer()
            if due is None:
                return
            self.now = max(self.now, due)
            self.endpoint.handle_timer(now=self.now)
            self.settle()

    def hear(self, published: Message) -> None:
        """The peer sends what the figure has."""
        message = self.names.to_ours(published)
        self.endpoint.receive_datagram(message.encode(), PEER, now=self.now)
        self.settle()

    def _said(self, published: Message) -> Message | None:
        """What we send where the figure has `published`: the application is told to do its part."""
        if not self.waiting:
            self.bring_about(published)
        if not self.waiting:
            return None
        ours = self.waiting.pop(0)
        self.names.learn(published, ours)
        return self.to_published(ours, published)

    def to_published(self, ours: Message, published: Message) -> Message:  # noqa: ARG002  for heirs
        """Our message with the figure's names in it, where `published` stands."""
        return self.names.to_published(ours)

    def bring_about(self, published: Message) -> None:
        """Have the endpoint send what the figure has here, if it does not by itself."""
        key = (published.message_id, published.token)
        if is_request(published.code) and key not in self.asked:
            self.asked.add(key)
            self.request = self.endpoint.request(
                published, PEER, now=self.now, is_confirmable=published.type is Type.CON
            )
        elif not published.is_empty and self.exchange is not None:
            exchange, self.exchange = self.exchange, None
            self.endpoint.respond(exchange, published, now=self.now)
        elif (due := self.endpoint.next_timer()) is not None:
            self.now = max(self.now, due)
            self.endpoint.handle_timer(now=self.now)
        self.settle()

    def settle(self) -> None:
        """Collect what the endpoint has to say, above and below."""
        self.waiting += [Message.decode(data) for _, data in self.endpoint.data_to_send()]
        for event in self.endpoint.events():
            match event:
                case RequestReceived():
                    self.exchange = event.exchange
                case ResponseReceived():
                    self.answered.append(event.message.payload)
                case _:
                    self.on_event(event)

    def on_event(self, event: Event) -> None:
        """Any other event than a request or a response: none is expected in these figures."""
        self.transcript.append(f"and besides: {event}")

    def new_endpoint(self, seed: int) -> Endpoint:
        """An endpoint that knows nothing."""
        return Endpoint(dice=random.Random(seed))


def line(who: str, message: Message | None, *, is_lost: bool) -> str:
    """One arrow as text."""
    if message is None:
        return f"{who}: silence"
    options = " ".join(f"{number}={value.hex()}" for number, value in message.options)
    return (
        f"{who}{' (lost)' if is_lost else ''}: {message.type.name} {format_code(message.code)} "
        f"mid={message.message_id:04x} token={message.token.hex()} [{options}] "
        f"{message.payload.hex()}"
    )


def published(figure: Figure, role: Role) -> list[str]:
    """The transcript that a figure is."""
    arrows = [arrow for arrow in figure["arrows"] if not is_interlude(arrow)]
    transcript = [
        line(sender_of(arrow), message_of(arrow), is_lost=arrow.get("lost", False))
        for arrow in arrows
    ]
    has_crashed = any(arrow.get("crash") for arrow in figure["arrows"])
    if role == "server" or has_crashed:
        return [*transcript, *_told([])]
    heard = [message_of(a) for a in arrows if sender_of(a) == "server" and not a.get("lost")]
    return [*transcript, *_told([message.payload for message in heard if not message.is_empty])]


def _told(payloads: Sequence[bytes]) -> Iterator[str]:
    return (f"the client is told {payload!r}" for payload in payloads)


def cases() -> list[Case]:
    """Every figure in both roles."""
    figures = cast("Figures", load("coap-exchanges"))["figures"]
    roles: tuple[Role, Role] = ("client", "server")
    return [
        Case(
            f"{figure['where']}, {figure['title']}: our {role}",
            published(figure, role),
            _player(figure, role),
        )
        for figure in figures
        for role in roles
    ]


def _player(figure: Figure, role: Role) -> Callable[[], list[str]]:
    return lambda: Replay(role).play(figure["arrows"])


SUITE: Final = VectorSuite(
    "coap-exchanges",
    "CoAP: the message figures, with our endpoint as client and as server",
    "RFC 7252",
    cases,
)
