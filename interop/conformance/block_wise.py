"""The block-wise transfers of RFC 7959, replayed: our machine plays the client, then the server.

Spec    RFC 7959 section 2.2 (the option's values), figures 1 to 11
Gives   two cases for each figure but one: figure 8 has a server without state, where ours takes a
        body whole or not at all (section 2.5)
Limit   what is lost or repeated in a figure is for the message layer, and played once here; options
        that the figures leave open (ETag, Size1, Size2) are not compared
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, TypedDict, cast

from amistack.coap.blockwise import BlockOption, BlockServer, Complete, Delivered, Transfer
from amistack.coap.codes import format_code
from amistack.coap.message import Message
from amistack.coap.options import OptionNumber, uint_value
from amistack.errors import CoapError
from interop.conformance.coap import MessageFields, message_of
from interop.conformance.exchanges import Role, sender_of
from interop.conformance.suite import Case, VectorSuite
from interop.vectors import load

PEER: Final = "peer"
NOW_S: Final = 1000.0
BODY_PERIOD: Final = 251

LEFT_OPEN: Final = frozenset({OptionNumber.ETAG, OptionNumber.SIZE1, OptionNumber.SIZE2})
BLOCKS: Final = (OptionNumber.BLOCK2, OptionNumber.BLOCK1)


class Arrow(MessageFields, total=False):
    """One message of a figure; its payload is a slice of a body."""

    lost: bool
    slice: tuple[int, int]


class Figure(TypedDict, total=False):
    """One transfer."""

    where: str
    title: str
    request_size: int
    response_size: int
    is_stateless: bool
    arrows: Sequence[Arrow]


class Value(TypedDict):
    """One value of a block option."""

    where: str
    option: int
    number: int
    has_more: bool
    size: int
    value: int


class RefusedValue(TypedDict):
    """Octets that are no block option."""

    where: str
    value: str


class Vectors(TypedDict):
    """The file `block-wise`."""

    values: Sequence[Value]
    refused: Sequence[RefusedValue]
    figures: Sequence[Figure]


def body(size: int) -> bytes:
    """The body of that many octets that all figures share."""
    return bytes(index % BODY_PERIOD for index in range(size))


def message_at(arrow: Arrow) -> Message:
    """The message of an arrow, with its slice of the body."""
    start, end = arrow.get("slice", (0, 0))
    return replace(message_of(arrow), payload=body(end)[start:])


def distinct(figure: Figure) -> list[tuple[Role, Message]]:
    """The figure without what is lost or repeated: who says what."""
    found: list[tuple[Role, Message]] = []
    for arrow in figure["arrows"]:
        one = (sender_of(arrow), message_at(arrow))
        if one not in found:
            found.append(one)
    return found


def line(who: Role, message: Message) -> str:
    """One arrow as text, without what the figures leave open."""
    parts = [f"{who}: {format_code(message.code)}"]
    for option in message.options:
        if option.number in BLOCKS:
            kind = 2 if option.number == OptionNumber.BLOCK2 else 1
            parts.append(f"{kind}:{BlockOption.decode(option.value)}")
        elif option.number not in LEFT_OPEN:
            parts.append(f"{option.number}={option.value.hex()}")
    return " ".join([*parts, message.payload.hex()])


@dataclass(frozen=True, slots=True)
class Sizes:
    """The block sizes that each side of a figure is for: what its machine is told beforehand."""

    request: int = 1024
    response: int | None = None
    is_early: bool = False
    server: int = 128


SIZES: Final[Mapping[str, Sizes]] = {
    "RFC 7959 figure 2": Sizes(),
    "RFC 7959 figure 3": Sizes(response=64, is_early=True),
    "RFC 7959 figure 4": Sizes(response=64),
    "RFC 7959 figure 5": Sizes(response=64),
    "RFC 7959 figure 6": Sizes(response=64),
    "RFC 7959 figure 7": Sizes(request=128),
    "RFC 7959 figure 8": Sizes(request=128),
    "RFC 7959 figure 9": Sizes(request=128, server=32),
    "RFC 7959 figure 10": Sizes(request=128),
    "RFC 7959 figure 11": Sizes(request=128, response=64, is_early=True),
}


def play_client(figure: Figure) -> list[str]:
    """Our client against the figure's server; the transcript, and what the client got."""
    arrows, sizes = distinct(figure), SIZES[figure["where"]]
    first = arrows[0][1]
    plain = [option for option in first.options if option.number not in BLOCKS]
    whole = Message(first.code, options=tuple(plain), payload=body(figure["request_size"]))
    transfer = Transfer(
        whole, block_size=sizes.request, response_size=sizes.response, is_early=sizes.is_early
    )
    transcript = []
    step: Message | Complete = transfer.first()
    for who, message in arrows:
        if who == "server":
            transcript.append(line(who, message))
            step = transfer.receive(message)
        elif isinstance(step, Message):
            transcript.append(line(who, step))
        else:
            transcript.append("client: over too early")
    return [*transcript, _ended(step)]


def _ended(step: Message | Complete) -> str:
    if isinstance(step, Message):
        return f"the client is not done: {line('client', step)}"
    return told(step.response.code, step.response.payload)


def told(code: int, payload: bytes) -> str:
    """What an application gets at the end."""
    return f"whole: {format_code(code)} {payload.hex()}"


def play_server(figure: Figure) -> list[str]:
    """Our server against the figure's client; the transcript, and the request it handed up."""
    arrows = distinct(figure)
    server = BlockServer(block_size=SIZES[figure["where"]].server)
    code = next(m.code for who, m in reversed(arrows) if who == "server")
    response = Message(code, payload=body(figure["response_size"]))
    transcript: list[str] = []
    handed: list[str] = []
    waiting: Message | None = None
    for who, message in arrows:
        if who == "client":
            transcript.append(line(who, message))
            outcome = server.receive(PEER, message, now=NOW_S)
            if isinstance(outcome, Delivered):
                handed.append(told(outcome.request.code, outcome.request.payload))
                outcome = server.respond(outcome, response, now=NOW_S)
            waiting = outcome
        else:
            transcript.append("server: silence" if waiting is None else line(who, waiting))
            waiting = None
    return [*transcript, *handed]


def published(figure: Figure, role: Role) -> list[str]:
    """The transcript that a figure is, and what the application of that role gets."""
    arrows = distinct(figure)
    transcript = [line(who, message) for who, message in arrows]
    if role == "server":
        return [*transcript, told(arrows[0][1].code, body(figure["request_size"]))]
    return [*transcript, told(arrows[-1][1].code, body(figure["response_size"]))]


def cases() -> list[Case]:
    """The option's values, then every figure."""
    vectors = cast("Vectors", load("block-wise"))
    found: list[Case] = []
    for value in vectors["values"]:
        block = BlockOption(value["number"], value["has_more"], value["size"])
        octets = uint_value(value["value"])
        name = f"{value['where']}, {value['option']}:{block}"
        found.append(Case(f"{name}: written", octets, block.encode))
        found.append(Case(f"{name}: read", block, functools.partial(BlockOption.decode, octets)))
    for refused in vectors["refused"]:
        octets = bytes.fromhex(refused["value"])
        name = f"{refused['where']}: refused"
        found.append(Case(name, "CoapError", functools.partial(_refusal_of, octets)))
    for figure in vectors["figures"]:
        name = f"{figure['where']}, {figure['title']}"
        client = functools.partial(play_client, figure)
        found.append(Case(f"{name}: our client", published(figure, "client"), client))
        if not figure.get("is_stateless", False):
            server = functools.partial(play_server, figure)
            found.append(Case(f"{name}: our server", published(figure, "server"), server))
    return found


def _refusal_of(octets: bytes) -> str:
    try:
        return f"accepted as {BlockOption.decode(octets)}"
    except CoapError as error:
        return type(error).__name__


SUITE: Final = VectorSuite(
    "block-wise",
    "Block-wise: the option's values, and the transfers, with our machines as client and server",
    "RFC 7959",
    cases,
)
