"""The layouts of the mesh, declared: readable, normative, and the oracle of the codecs.

Spec    docs/protocol/mesh.md
Gives   `PACKET`, `OPTIONS`, `FRAME_HEADER`, `ACK_FRAME`, `FRAGMENT` and `FRAGMENT_ACK` for
        documentation and dissectors; `parse_packet` and the like between octets and values,
        slowly. The values' own `decode` and `encode` are fast
Raises  MeshError on octets, LocalProtocolError on a value, that the layout has no place for
Never   opens a seal, or says what an option means
"""

from __future__ import annotations

from typing import Final

from construct import (
    BitsInteger,
    BitStruct,
    Byte,
    Bytes,
    Check,
    Const,
    ConstructError,
    Container,
    Flag,
    GreedyBytes,
    GreedyRange,
    If,
    Int16ub,
    Int32ub,
    Struct,
    Terminated,
    this,
)

from amistack.errors import LocalProtocolError, MeshError
from amistack.framing import Priority
from amistack.identifiers import Eui64
from mesh.packet import (
    LONG_SIZE,
    NODE_ADDRESS_MAX,
    PAYLOAD_SIZE_MAX,
    ROUTE_LENGTH_MAX,
    VERSION,
    Attempt,
    Flood,
    OptionNumber,
    Packet,
    RplMark,
    ShortAddress,
    SourceRoute,
    StrangeOption,
)
from mesh.security import frame as frames

OPTION: Final = Struct(
    "head"
    / BitStruct("is_critical" / Flag, "number" / BitsInteger(4), "short_size" / BitsInteger(3)),
    Check(this.head.number > 0),
    "long_size" / If(this.head.short_size == LONG_SIZE, Byte),
    "value" / Bytes(lambda at: at.head.short_size + (at.long_size or 0)),
)
"""One option: a critical bit, a number, the size of the value in three bits or a further octet."""

OPTIONS: Final = Struct("options" / GreedyRange(OPTION), Terminated)
"""The options of a packet: one behind the other in the order of their numbers."""

PACKET: Final = Struct(
    "head"
    / BitStruct(
        "version" / Const(VERSION, BitsInteger(3)),
        "priority" / BitsInteger(3),
        "has_options" / Flag,
        "reserved" / Const(0, BitsInteger(1)),
    ),
    "kind" / Byte,
    "hop_limit" / Byte,
    "source" / Int16ub,
    "destination" / Int16ub,
    "options_size" / If(this.head.has_options, Byte),
    Check(lambda at: at.options_size is None or at.options_size > 0),
    "options_octets" / If(this.head.has_options, Bytes(this.options_size)),
    "payload" / GreedyBytes,
    Check(lambda at: len(at.payload) <= PAYLOAD_SIZE_MAX),
)
"""One packet, all of its octets; what `OPTIONS` says about those in the middle holds as well."""

RPL_MARK: Final = Struct(
    "flags"
    / BitStruct(
        "is_down" / Flag,
        "has_rank_error" / Flag,
        "has_forwarding_error" / Flag,
        "reserved" / Const(0, BitsInteger(5)),
    ),
    "sender_rank" / Int16ub,
    Terminated,
)
"""The value of the option RPL."""

SOURCE_ROUTE: Final = Struct(
    "index" / Byte,
    "relays" / GreedyRange(Int16ub),
    Terminated,
    Check(lambda at: 1 <= len(at.relays) <= ROUTE_LENGTH_MAX),
    Check(lambda at: at.index <= len(at.relays)),
    Check(lambda at: all(1 <= relay <= NODE_ADDRESS_MAX for relay in at.relays)),
    Check(lambda at: len(set(at.relays)) == len(at.relays)),
)
"""The value of the option SOURCE_ROUTE."""

FLOOD: Final = Struct(
    "sequence" / Int16ub,
    "rest" / GreedyBytes,
    Check(lambda at: len(at.rest) in {0, 2}),
)
"""The value of the option FLOOD; `rest` is the topmost node of the subtree, if there is one."""

ATTEMPT: Final = Struct("path_sequence" / Byte, "number" / Byte, Terminated)
"""The value of the option ATTEMPT."""

FRAME_HEADER: Final = Struct(
    "head"
    / BitStruct(
        "version" / Const(frames.VERSION, BitsInteger(3)),
        "type" / BitsInteger(3),
        "wants_ack" / Flag,
        "to_one" / Flag,
    ),
    "key" / BitStruct("reserved" / Const(0, BitsInteger(1)), "index" / BitsInteger(7)),
    "counter" / Int32ub,
    "source" / Bytes(8),
    "hint" / If(this.head.to_one, Int16ub),
)
"""What a frame begins with, unless it is a link acknowledgement; the sealed octets follow."""

ACK_FRAME: Final = Struct(
    "head" / Const(frames.ACK_FIRST_OCTET, Byte),
    "hint" / Int16ub,
    "counter_low" / Int16ub,
    "tag" / Bytes(frames.ACK_TAG_SIZE),
    Terminated,
)
"""A link acknowledgement."""

FRAGMENT: Final = Struct(
    "head" / BitStruct("dispatch" / Const(0b1110100, BitsInteger(7)), "has_congestion" / Flag),
    "tag" / Byte,
    "place" / BitStruct("wants_ack" / Flag, "sequence" / BitsInteger(5), "size" / BitsInteger(10)),
    "offset" / Int16ub,
    "octets" / Bytes(this.place.size),
    Terminated,
)
"""RFRAG (RFC 8931 section 5.1) and the octets of the packet that it carries."""

FRAGMENT_ACK: Final = Struct(
    "head" / BitStruct("dispatch" / Const(0b1110101, BitsInteger(7)), "has_congestion" / Flag),
    "tag" / Byte,
    "bitmap" / Int32ub,
    Terminated,
)
"""RFRAG-ACK (RFC 8931 section 5.2); the highest bit of `bitmap` stands for sequence 0."""


def _said(error: Exception) -> str:
    return str(error).replace("\n", "; ")


def parse_packet(octets: bytes) -> Packet:
    """The packet in `octets`. Raises MeshError, reason `not the layout`."""
    try:
        found = PACKET.parse(octets)
        options = OPTIONS.parse(found.options_octets).options if found.options_octets else []
        return _packet_of(found, options)
    except (ConstructError, LocalProtocolError) as error:
        raise MeshError("not the layout", _said(error)) from None


def _packet_of(found: Container, options: list[Container]) -> Packet:
    rpl: RplMark | None = None
    route: SourceRoute | None = None
    flood: Flood | None = None
    attempt: Attempt | None = None
    strange: list[StrangeOption] = []
    numbers = [option.head.number for option in options]
    known = [number for number in numbers if number in list(OptionNumber)]
    if numbers != sorted(numbers) or len(known) != len(set(known)):
        raise MeshError("not the layout", f"options {numbers}, expected in order, each once")
    for option in options:
        number, value, is_critical = option.head.number, option.value, option.head.is_critical
        if is_critical != (
            number in {OptionNumber.RPL, OptionNumber.SOURCE_ROUTE, OptionNumber.FLOOD}
        ):
            raise MeshError("not the layout", f"critical bit of option {number}")
        if number == OptionNumber.RPL:
            at = RPL_MARK.parse(value)
            flags = at.flags
            rpl = RplMark(
                at.sender_rank, flags.is_down, flags.has_rank_error, flags.has_forwarding_error
            )
        elif number == OptionNumber.SOURCE_ROUTE:
            at = SOURCE_ROUTE.parse(value)
            route = SourceRoute(tuple(ShortAddress(relay) for relay in at.relays), at.index)
        elif number == OptionNumber.FLOOD:
            at = FLOOD.parse(value)
            subtree = ShortAddress(Int16ub.parse(at.rest)) if at.rest else None
            flood = Flood(at.sequence, subtree)
        elif number == OptionNumber.ATTEMPT:
            at = ATTEMPT.parse(value)
            attempt = Attempt(at.path_sequence, at.number)
        else:
            strange.append(StrangeOption(number, value))
    return Packet(
        found.kind,
        Priority(found.head.priority),
        ShortAddress(found.source),
        ShortAddress(found.destination),
        found.payload,
        found.hop_limit,
        rpl,
        route,
        flood,
        attempt,
        tuple(strange),
    )


def build_packet(packet: Packet) -> bytes:
    """The octets of `packet`. Raises LocalProtocolError where it has no place in the layout."""
    try:
        options_octets = OPTIONS.build({"options": _options_of(packet)})
        has_options = bool(options_octets)
        octets: bytes = PACKET.build(
            {
                "head": {"priority": int(packet.priority), "has_options": has_options},
                "kind": packet.kind,
                "hop_limit": packet.hop_limit,
                "source": packet.source,
                "destination": packet.destination,
                "options_size": len(options_octets) if has_options else None,
                "options_octets": options_octets if has_options else None,
                "payload": packet.payload,
            }
        )
    except ConstructError as error:
        raise LocalProtocolError(_said(error)) from None
    return octets


def _options_of(packet: Packet) -> list[dict[str, object]]:
    values: list[tuple[int, bool, bytes]] = []
    if (mark := packet.rpl) is not None:
        flags = {
            "is_down": mark.is_down,
            "has_rank_error": mark.has_rank_error,
            "has_forwarding_error": mark.has_forwarding_error,
        }
        value = RPL_MARK.build({"flags": flags, "sender_rank": mark.sender_rank})
        values.append((OptionNumber.RPL, True, value))
    if (route := packet.route) is not None:
        value = SOURCE_ROUTE.build({"index": route.index, "relays": list(route.relays)})
        values.append((OptionNumber.SOURCE_ROUTE, True, value))
    if (flood := packet.flood) is not None:
        rest = b"" if flood.subtree is None else Int16ub.build(flood.subtree)
        value = FLOOD.build({"sequence": flood.sequence, "rest": rest})
        values.append((OptionNumber.FLOOD, True, value))
    if (attempt := packet.attempt) is not None:
        value = ATTEMPT.build({"path_sequence": attempt.path_sequence, "number": attempt.number})
        values.append((OptionNumber.ATTEMPT, False, value))
    values += [(option.number, False, option.value) for option in packet.strange]
    return [
        {
            "head": {
                "is_critical": is_critical,
                "number": int(number),
                "short_size": min(len(value), LONG_SIZE),
            },
            "long_size": len(value) - LONG_SIZE if len(value) >= LONG_SIZE else None,
            "value": value,
        }
        for number, is_critical, value in values
    ]


def parse_frame_header(octets: bytes) -> frames.FrameHeader:
    """The header that a frame begins with. Raises MeshError, reason `not the layout`."""
    try:
        found = FRAME_HEADER.parse(octets)
        return frames.FrameHeader(
            frames.FrameType(found.head.type),
            found.key.index,
            found.counter,
            Eui64(found.source),
            found.hint,
            found.head.wants_ack,
        )
    except (ConstructError, LocalProtocolError, ValueError) as error:
        raise MeshError("not the layout", _said(error)) from None


def build_frame_header(header: frames.FrameHeader) -> bytes:
    """The octets of `header`."""
    octets: bytes = FRAME_HEADER.build(
        {
            "head": {
                "type": int(header.type),
                "wants_ack": header.wants_ack,
                "to_one": header.hint is not None,
            },
            "key": {"index": header.key_index},
            "counter": header.counter,
            "source": bytes(header.source),
            "hint": header.hint,
        }
    )
    return octets
