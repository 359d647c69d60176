"""CoAP's octets: messages, options, link format."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from amistack.coap import layout
from amistack.coap.codes import Code, Type
from amistack.coap.link_format import Link, build, parse, select
from amistack.coap.message import (
    OPTION_COUNT_MAX,
    OPTION_NUMBER_MAX,
    Message,
    decode_body,
    encode_body,
)
from amistack.coap.options import (
    DEFINITIONS,
    Option,
    OptionNumber,
    check_options,
    read_text,
    read_uint,
    uint_value,
)
from amistack.errors import CoapError, LocalProtocolError
from interop.fuzz.target import Outcome, Target, promise, refusal, size_class

OWN_BOUNDS: Final = frozenset({"too long", "too many options", "bad option number"})
"""What the codec refuses and the layout does not know of."""
LAYOUT_SIZE_MAX: Final = 40
"""A layout is slow, and a long message tells nothing that short ones do not."""


def run_message(data: bytes) -> Outcome:
    """A datagram: decoded, asked for everything, and encoded again."""
    try:
        message = Message.decode(data)
    except CoapError as error:
        return refusal(error)
    promise(message.encode() == data, "a message has one encoding, and this is another")
    str(message)
    seen: list[Outcome] = [message.code >> 5, message.type, len(message.options) > 1]
    for read in (lambda: message.path, lambda: check_options(message.options)):
        try:
            read()
            seen.append(True)
        except CoapError as error:
            seen.append(refusal(error))
    for number in (OptionNumber.ACCEPT, OptionNumber.OBSERVE, OptionNumber.MAX_AGE):
        value = message.uint_option(number)
        promise(value is None or value < 1 << 32, "an uint option of more than 4 octets is none")
        seen.append(value is None)
    promise(
        message.content_format is None or message.content_format <= 0xFFFF,
        "a Content-Format of more than 2 octets is none",
    )
    return tuple(seen)


def run_layout(data: bytes) -> Outcome:
    """A datagram: the codec and the declared layout must agree about it."""
    try:
        message = Message.decode(data)
    except CoapError as error:
        if error.reason not in OWN_BOUNDS:
            try:
                layout.parse(data)
            except CoapError:
                pass
            else:
                promise(False, f"the layout has a place for what is refused: {error}")  # noqa: FBT003
        return refusal(error)
    promise(layout.parse(data) == message, "the layout reads another message")
    # Writing is as slow as reading, and goes wrong for fewer reasons: a part of all inputs will do.
    if not data[-1] & 3:
        promise(layout.build(message) == data, "the layout writes other octets")
    return (
        message.code >> 5,
        not message.payload,
        tuple(size_class(len(value)) for _, value in message.options[:2]),
    )


def run_options(data: bytes) -> Outcome:
    """Options and payload, as they stand in a message and inside OSCORE."""
    try:
        options, payload = decode_body(data, 0)
    except CoapError as error:
        return refusal(error)
    promise(encode_body(options, payload) == data, "a body has one encoding, and this is another")
    promise(len(options) <= OPTION_COUNT_MAX, "too many options")
    previous = 0
    for option in options:
        promise(previous <= option.number <= OPTION_NUMBER_MAX, "options are not in order")
        previous = option.number
        definition = DEFINITIONS.get(option.number)
        if definition is not None and len(option.value) <= definition.length_max <= 8:
            read_uint(option.value)
        try:
            read_text(option)
        except CoapError:
            pass
    try:
        check_options(options)
    except CoapError as error:
        return refusal(error), error.detail[:10]
    return tuple(size_class(len(value)) for _, value in options[:3]), not payload


def run_link_format(data: bytes) -> Outcome:
    """A link-format document, and after a NUL a query's filter."""
    document, _, query = data.partition(b"\x00")
    try:
        links = parse(document)
    except CoapError as error:
        return refusal(error)
    outcome: list[Outcome] = [size_class(len(links))]
    try:
        again = build(links)
    except LocalProtocolError as error:
        outcome.append(refusal(error))
    else:
        promise(parse(again) == links, "what was listed is not what is read again")
        outcome.append(len(again) == len(document))
    if query:
        try:
            chosen = select(links, query.decode(errors="replace").split("&"))
        except CoapError as error:
            outcome.append(refusal(error))
        else:
            promise(set(chosen) <= set(links), "a filter makes no links")
            outcome.append((len(chosen) == len(links), not chosen))
    first = links[0] if links else Link("/")
    outcome.append((bool(first.resource_types), bool(first.interfaces), first.size is None))
    outcome.append((size_class(len(first.content_formats)), first.title is None))
    return tuple(outcome)


def message_seeds() -> Sequence[bytes]:
    """What clients and servers send."""
    observe = Option(OptionNumber.OBSERVE, b"")
    every = [
        Message(Code.EMPTY, Type.ACK, 7),
        Message(Code.EMPTY, Type.RST, 0xFFFF),
        Message(Code.EMPTY, Type.CON, 1),
        Message.request(Code.GET, "time"),
        Message.request(Code.GET, ".well-known/core", accept=40),
        Message.request(Code.POST, "rep", payload=b"\x86\x00" * 20, content_format=65001),
        Message.request(Code.GET, "rep", options=(observe,)),
        Message.request(Code.POST, options=(Option(OptionNumber.OSCORE, b"\x09\x14\x01"),)),
        Message.request(Code.FETCH, "a/b/c", payload=b"\x80", content_format=60),
        Message.response(Code.CONTENT, payload=b"\x82\x00\x00", max_age=0),
        Message.response(Code.BAD_OPTION, payload=b"critical option 9"),
        Message.response(Code.CHANGED, options=(Option(OptionNumber.ETAG, b"\x01" * 8),)),
        Message.request(
            Code.PUT,
            "x",
            options=(
                Option(23, uint_value(0x1E)),
                Option(27, uint_value(0x0E)),
                Option(60, b"\x01"),
            ),
        ),
        Message.request(Code.GET, options=(Option(35, b"coap://host/" + b"x" * 300),)),
        Message.request(Code.GET, options=(Option(65_000, b"y" * 20), Option(65_001, b""))),
    ]
    return [
        message.addressed(
            type=message.type,
            message_id=number if not message.is_empty else message.message_id,
            token=b"" if message.is_empty else bytes(range(number % 9)),
        ).encode()
        for number, message in enumerate(every)
    ]


def body_seeds() -> Sequence[bytes]:
    """The same, without their heads."""
    bodies = []
    for octets in message_seeds():
        message = Message.decode(octets)
        bodies.append(encode_body(message.options, message.payload))
    return bodies


def link_seeds() -> Sequence[bytes]:
    """Documents of servers, and filters."""
    links = (
        Link("/read", ("amistack.read",), content_formats=(65001,)),
        Link("/a%20b", ("one", "two"), ("if",), (0, 40), 1024, 'a "title" \\', is_observable=True),
    )
    return [
        build(links),
        build(links) + b"\x00rt=amistack.*",
        build(links[1:]) + b"\x00href=/a*&ct=40",
        build(links[1:]) + b"\x00obs=&title=a*&sz=1024&if=if&what=1",
        b'</sensors>;ct=40;title="Sensor Index",\n</t>;anchor="/x";rel="alternate";rt="a b";sz=0',
        b"</x>;title*=UTF-8'en'%e2%82%ac;obs;;obs\x00broken",
        b"",
    ]


TOKENS: Final = (
    b"\xff",
    b"\xd0\x00",
    b"\xe0\x00\x00",
    b"\xdd\x00\x00",
    b"\xf0",
    b"\x0f",
    b"\xb3rep",
)
LINK_TOKENS: Final = (
    *(b"</", b">", b";", b",", b'"', b'\\"', b"=", b";rt=", b";ct=", b";sz=", b";obs", b";title="),
    *(b"\x00", b"&", b"href=", b"*", b"9999999999", b"99999999999", b"00", b"\xc3\xa9", b"\xff"),
)

TARGETS: Final = (
    Target(
        "coap_message",
        "a datagram is refused by CoapError, or encodes again to the same octets",
        run_message,
        message_seeds,
        TOKENS,
        size_max=4200,
    ),
    Target(
        "coap_layout",
        "the codec and the layout declared in `amistack.coap.layout` agree about every datagram",
        run_layout,
        lambda: [data for data in message_seeds() if len(data) <= LAYOUT_SIZE_MAX],
        TOKENS,
        size_max=LAYOUT_SIZE_MAX,
    ),
    Target(
        "coap_options",
        "options and payload are refused by CoapError, or encode again to the same octets",
        run_options,
        body_seeds,
        TOKENS,
    ),
    Target(
        "link_format",
        "a document and its filter: CoapError, or links that are written and read again",
        run_link_format,
        link_seeds,
        LINK_TOKENS,
    ),
)
