"""A packet of the mesh, and its octets: what crosses hops.

Spec    docs/protocol/mesh.md, "The packet"; `mesh.layout` declares the same
Gives   `Packet.encode` and `Packet.decode`, exact inverses; elective options that we do not know
        stay as they came, so that whoever forwards a packet changes none of them
Raises  MeshError on octets, LocalProtocolError on a value, that is no packet
Limit   PAYLOAD_SIZE_MAX octets of payload, OPTIONS_SIZE_MAX of options, ROUTE_LENGTH_MAX relays
Never   protects anything: that is the frame's part (`mesh.security`)
"""

from __future__ import annotations

import enum
import struct
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, NewType

from amistack.errors import LocalProtocolError, MeshError
from amistack.framing import Priority
from amistack.values import frozen_value

ShortAddress = NewType("ShortAddress", int)
"""16 bits, unique in an area, bound to an EUI-64 by the head-end."""

ROOT: Final = ShortAddress(0x0000)
"""The virtual root of an area: whichever collector a packet reaches first."""
NODE_ADDRESS_MAX: Final = ShortAddress(0xEA60)
"""Nodes of an area, collectors too, have 1 to 60,000."""
NO_ADDRESS: Final = ShortAddress(0xFFFE)
"""The source of a node that has no address yet."""
BROADCAST: Final = ShortAddress(0xFFFF)
"""Everybody that a frame, or with the option FLOOD a flood, reaches."""
ADDRESS_MAX: Final = 0xFFFF

VERSION: Final = 1
VERSION_SHIFT: Final = 5
PRIORITY_SHIFT: Final = 2
PRIORITY_MASK: Final = 0x07
HAS_OPTIONS: Final = 0x02
RESERVED_BIT: Final = 0x01

HEADER: Final = struct.Struct("!BBBHH")  # version, priority, flag; kind; hop limit; addresses
ROUTE_HEAD: Final = struct.Struct("!B")
RPL_VALUE: Final = struct.Struct("!BH")  # flags, sender rank

PAYLOAD_SIZE_MAX: Final = 1280
"""The network MTU: what the layer above may hand over."""
OPTIONS_SIZE_MAX: Final = 255
PACKET_SIZE_MIN: Final = HEADER.size
PACKET_SIZE_MAX: Final = HEADER.size + 1 + OPTIONS_SIZE_MAX + PAYLOAD_SIZE_MAX
HOP_LIMIT_MAX: Final = 255
HOP_LIMIT_DEFAULT: Final = 64
RANK_MAX: Final = 0xFFFF

ROUTE_LENGTH_MAX: Final = 24
OPTION_NUMBER_MAX: Final = 15
CRITICAL_BIT: Final = 0x80
NUMBER_SHIFT: Final = 3
NUMBER_MASK: Final = 0x0F
SIZE_MASK: Final = 0x07
LONG_SIZE: Final = 7  # and then an octet that says by how much the value is longer than this
OPTION_VALUE_SIZE_MAX: Final = OPTIONS_SIZE_MAX - 2


class PacketKind(enum.IntEnum):
    """What a packet's payload is. Others are forwarded, and dropped by their destination."""

    COAP = 0  # A datagram as RFC 7252 section 3 has it.
    RPL = 1  # Code and body of an RPL control message (RFC 6550 section 6).
    TOPOLOGY = 2  # A node's report about its neighbours.
    PROBE = 3  # Asked for and answered along a path: `ping`, `trace`, `isolate`.
    ROUTE_ERROR = 4  # A relay tells the root that a source route is broken, and where.


UNPROTECTED: Final = frozenset({PacketKind.RPL, PacketKind.TOPOLOGY, PacketKind.ROUTE_ERROR})
"""Kinds that the links alone protect, and that are believed. All else is protected from end to end,
or answered by a number that its sender drew."""


class OptionNumber(enum.IntEnum):
    """The options there are. 0 is not given out."""

    RPL = 1
    SOURCE_ROUTE = 2
    FLOOD = 3
    ATTEMPT = 4


@frozen_value(frozen=True, slots=True)
class RplMark:
    """What each hop checks and writes anew, to find loops (RFC 6553; RFC 6550 section 11.2).

    ::

        octet   0              1..2
                O R F 00000    sender rank

    `is_down` is O, `has_rank_error` is R, `has_forwarding_error` is F.
    """

    sender_rank: int
    is_down: bool = False
    has_rank_error: bool = False
    has_forwarding_error: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.sender_rank <= RANK_MAX:
            raise LocalProtocolError(f"rank {self.sender_rank}, expected 0 to {RANK_MAX}")

    def from_rank(self, sender_rank: int) -> RplMark:
        """The same mark, written anew by a sender of that rank."""
        return RplMark(sender_rank, self.is_down, self.has_rank_error, self.has_forwarding_error)


@frozen_value(frozen=True, slots=True)
class SourceRoute:
    """The relays of a packet between its source and its destination, neither of them included.

    ::

        octet   0       1..2     3..4     ...
                index   relay    relay

    `index` says which relay is next, counted from 0; as many as there are relays when the
    destination is. At most ROUTE_LENGTH_MAX relays, none of them twice.
    """

    relays: tuple[ShortAddress, ...]
    index: int = 0

    def __post_init__(self) -> None:
        if (fault := _fault_in_route(self.relays, self.index)) is not None:
            raise LocalProtocolError(fault)

    @property
    def next_relay(self) -> ShortAddress | None:
        """Where the packet goes next; None for straight to the destination."""
        return self.relays[self.index] if self.index < len(self.relays) else None

    def advanced(self) -> SourceRoute:
        """The same route one relay on. Raises LocalProtocolError at its end."""
        return SourceRoute(self.relays, self.index + 1)


@dataclass(frozen=True, slots=True)
class Flood:
    """A packet that everybody passes on once.

    ::

        octet   0..1        2..3, if for a subtree alone
                sequence    its topmost node

    Source and `sequence` tell one flood from the next; `subtree` None means the whole area.
    """

    sequence: int
    subtree: ShortAddress | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.sequence <= 0xFFFF:
            raise LocalProtocolError(f"flood {self.sequence}, expected 0 to 65535")
        if self.subtree is not None and not 0 <= self.subtree <= ADDRESS_MAX:
            raise LocalProtocolError(f"address {self.subtree}, expected 0 to {ADDRESS_MAX}")


@dataclass(frozen=True, slots=True)
class Attempt:
    """Which path of its source's a packet belongs to, and the how many-eth try it is, from 0.

    ::

        octet   0                1
                path sequence    attempt

    `path_sequence` counts as RFC 6550 section 7.2 has it. A root, which has none, says there on how
    many ways of its own the packet failed, or 3 for a way that was given (docs/decisions/0024).
    """

    path_sequence: int
    number: int = 0

    def __post_init__(self) -> None:
        if not (0 <= self.path_sequence <= 0xFF and 0 <= self.number <= 0xFF):
            raise LocalProtocolError(
                f"path sequence {self.path_sequence}, attempt {self.number}, expected 0 to 255"
            )


@dataclass(frozen=True, slots=True)
class StrangeOption:
    """An elective option that this version does not know: carried, never understood."""

    number: int
    value: bytes = b""

    def __post_init__(self) -> None:
        if not 1 <= self.number <= OPTION_NUMBER_MAX or self.number in _KNOWN:
            raise LocalProtocolError(f"option {self.number}, expected a number not given out")
        if len(self.value) > OPTION_VALUE_SIZE_MAX:
            raise LocalProtocolError(
                f"option of {len(self.value)} octets, at most {OPTION_VALUE_SIZE_MAX}"
            )


@frozen_value(frozen=True, slots=True)
class Packet:
    """One packet.

    ::

        octet   0                       1      2           3..4     5..6
                version 3, priority 3   kind   hop limit   source   destination
                bits, options?, 0

                7, if options?    8..m+7     then
                m                 options    payload

    `kind` is a `PacketKind`, or a number that this version does not know. Options stand in the
    order of their numbers. Raises LocalProtocolError for what has no place.
    """

    kind: int
    priority: Priority
    source: ShortAddress
    destination: ShortAddress
    payload: bytes = b""
    hop_limit: int = HOP_LIMIT_DEFAULT
    rpl: RplMark | None = None
    route: SourceRoute | None = None
    flood: Flood | None = None
    attempt: Attempt | None = None
    strange: tuple[StrangeOption, ...] = ()

    def __post_init__(self) -> None:
        if not (
            0 <= self.kind <= 0xFF
            and 0 <= self.hop_limit <= HOP_LIMIT_MAX
            and 0 <= self.source <= ADDRESS_MAX
            and 0 <= self.destination <= ADDRESS_MAX
            and len(self.payload) <= PAYLOAD_SIZE_MAX
        ):
            raise LocalProtocolError(self._out_of_bounds())
        if self.strange:
            numbers = [option.number for option in self.strange]
            if numbers != sorted(numbers):
                raise LocalProtocolError("strange options out of order, expected it by number")
            if (size := len(self._encode_options())) > OPTIONS_SIZE_MAX:
                raise LocalProtocolError(f"options of {size} octets, at most {OPTIONS_SIZE_MAX}")

    def __str__(self) -> str:
        try:
            name = PacketKind(self.kind).name
        except ValueError:
            name = f"kind {self.kind}"
        route = f" via {len(self.route.relays)} relays" if self.route is not None else ""
        return (
            f"{name} [{len(self.payload)} octets] {self.source:04x} -> {self.destination:04x}"
            f"{route}, priority {int(self.priority)}, hop limit {self.hop_limit}"
        )

    def marked(self, rpl: RplMark | None) -> Packet:
        """The same packet with that mark: `dataclasses.replace`, four times as fast."""
        return self.passed_on(self.hop_limit, rpl, self.route)

    def passed_on(self, hop_limit: int, rpl: RplMark | None, route: SourceRoute | None) -> Packet:
        """The same packet with what a hop writes anew."""
        return Packet(
            self.kind,
            self.priority,
            self.source,
            self.destination,
            self.payload,
            hop_limit,
            rpl,
            route,
            self.flood,
            self.attempt,
            self.strange,
        )

    def encode(self) -> bytes:
        """The octets, all of them."""
        options = self._encode_options()
        first = (VERSION << VERSION_SHIFT) | (self.priority << PRIORITY_SHIFT)
        if not options:
            head = HEADER.pack(first, self.kind, self.hop_limit, self.source, self.destination)
            return head + self.payload
        head = HEADER.pack(
            first | HAS_OPTIONS, self.kind, self.hop_limit, self.source, self.destination
        )
        return b"%b%c%b%b" % (head, len(options), options, self.payload)

    def _encode_options(self) -> bytes:
        options = b""
        if (mark := self.rpl) is not None:
            flags = mark.is_down << 7 | mark.has_rank_error << 6 | mark.has_forwarding_error << 5
            options = _RPL_HEAD + RPL_VALUE.pack(flags, mark.sender_rank)
        if (route := self.route) is not None:
            value = struct.pack(f"!B{len(route.relays)}H", route.index, *route.relays)
            options += _encode_option(OptionNumber.SOURCE_ROUTE, value, is_critical=True)
        if (flood := self.flood) is not None:
            value = flood.sequence.to_bytes(2)
            if flood.subtree is not None:
                value += flood.subtree.to_bytes(2)
            options += _encode_option(OptionNumber.FLOOD, value, is_critical=True)
        if (attempt := self.attempt) is not None:
            value = bytes((attempt.path_sequence, attempt.number))
            options += _encode_option(OptionNumber.ATTEMPT, value, is_critical=False)
        for option in self.strange:
            options += _encode_option(option.number, option.value, is_critical=False)
        return options

    def _out_of_bounds(self) -> str:
        if len(self.payload) > PAYLOAD_SIZE_MAX:
            return f"payload of {len(self.payload)} octets, at most {PAYLOAD_SIZE_MAX}"
        return (
            f"kind {self.kind}, hop limit {self.hop_limit}, addresses {self.source} and "
            f"{self.destination}: one of them has no place in the header"
        )

    @classmethod
    @lru_cache(maxsize=64)
    def decode(cls, octets: bytes) -> Packet:
        """The packet that `octets` hold: all of them, and nothing else.

        Pure, and remembers what it read last: a retransmission costs nothing. Raises MeshError,
        `unknown version` before anything else that may be wrong.
        """
        if octets and octets[0] >> VERSION_SHIFT != VERSION:
            raise MeshError("unknown version", f"{octets[0] >> VERSION_SHIFT}, expected {VERSION}")
        if not PACKET_SIZE_MIN <= len(octets) <= PACKET_SIZE_MAX:
            raise MeshError(
                "wrong size",
                f"{len(octets)} octets, expected {PACKET_SIZE_MIN} to {PACKET_SIZE_MAX}",
            )
        first, kind, hop_limit, source, destination = HEADER.unpack_from(octets)
        if first & RESERVED_BIT:
            raise MeshError("reserved bits set", f"{first:#04x}, expected an even number")
        found: _Options | None = None
        payload_at = PACKET_SIZE_MIN
        if first & HAS_OPTIONS:
            options_at = PACKET_SIZE_MIN + 1
            if len(octets) < options_at:
                raise MeshError("options cut off", "nothing after the header")
            payload_at = options_at + octets[PACKET_SIZE_MIN]
            if payload_at > len(octets):
                raise MeshError(
                    "options cut off",
                    f"{len(octets) - options_at} octets, expected {octets[PACKET_SIZE_MIN]}",
                )
            if payload_at == options_at:
                raise MeshError("options empty", "expected at least one after the flag")
            found = _decode_options(octets, options_at, payload_at)
        if len(octets) - payload_at > PAYLOAD_SIZE_MAX:
            raise MeshError(
                "payload too long", f"{len(octets) - payload_at} octets, at most {PAYLOAD_SIZE_MAX}"
            )
        priority = _PRIORITIES[(first >> PRIORITY_SHIFT) & PRIORITY_MASK]
        payload = octets[payload_at:]
        if found is None:
            return cls(kind, priority, source, destination, payload, hop_limit)
        return cls(kind, priority, source, destination, payload, hop_limit, *found)


_Options = tuple[
    RplMark | None,
    SourceRoute | None,
    Flood | None,
    Attempt | None,
    tuple[StrangeOption, ...],
]

_PRIORITIES: Final = tuple(Priority)
_KNOWN: Final = frozenset(int(number) for number in OptionNumber)
_CRITICAL: Final = frozenset((OptionNumber.RPL, OptionNumber.SOURCE_ROUTE, OptionNumber.FLOOD))


def priority_of(octets: bytes) -> Priority:
    """The priority of a packet, from its octets or the first of them."""
    return _PRIORITIES[(octets[0] >> PRIORITY_SHIFT) & PRIORITY_MASK]


def header_size_of(octets: bytes) -> int:
    """How many octets of a packet come before its payload, from its octets."""
    return PACKET_SIZE_MIN + (1 + octets[PACKET_SIZE_MIN] if octets[0] & HAS_OPTIONS else 0)


def _encode_option(number: int, value: bytes, *, is_critical: bool) -> bytes:
    first = number << NUMBER_SHIFT | (CRITICAL_BIT if is_critical else 0)
    if len(value) < LONG_SIZE:
        return bytes((first | len(value),)) + value
    return bytes((first | LONG_SIZE, len(value) - LONG_SIZE)) + value


_RPL_HEAD: Final = _encode_option(OptionNumber.RPL, bytes(RPL_VALUE.size), is_critical=True)[:1]
_RPL_HEAD_OCTET: Final = _RPL_HEAD[0]
_RPL_OPTION_SIZE: Final = 1 + RPL_VALUE.size


def _decode_options(octets: bytes, place: int, end: int) -> _Options:
    rpl: RplMark | None = None
    # The option of nearly every packet, and nearly always alone.
    if octets[place] == _RPL_HEAD_OCTET and place + _RPL_OPTION_SIZE <= end:
        rpl = _decode_rpl(octets[place + 1 : place + _RPL_OPTION_SIZE])
        place += _RPL_OPTION_SIZE
        if place == end:
            return rpl, None, None, None, ()
    route: SourceRoute | None = None
    flood: Flood | None = None
    attempt: Attempt | None = None
    strange: list[StrangeOption] = []
    last = 0 if rpl is None else int(OptionNumber.RPL)
    while place < end:
        first = octets[place]
        place += 1
        size = first & SIZE_MASK
        if size == LONG_SIZE:
            if place >= end:
                raise MeshError("options cut off", "inside a size")
            size += octets[place]
            place += 1
        if place + size > end:
            raise MeshError("options cut off", f"{end - place} octets, expected {size}")
        number = (first >> NUMBER_SHIFT) & NUMBER_MASK
        is_critical = bool(first & CRITICAL_BIT)
        value = octets[place : place + size]
        place += size
        if number == 0:
            raise MeshError("option number zero", f"expected 1 to {OPTION_NUMBER_MAX}")
        if number not in _KNOWN:
            if is_critical:
                raise MeshError("unknown critical option", f"number {number}")
            if number < last:
                raise MeshError("options out of order", f"{number} after {last}")
            strange.append(StrangeOption(number, value))
        else:
            if number == last:
                raise MeshError("option repeated", f"{OptionNumber(number).name}, expected once")
            if number < last:
                raise MeshError("options out of order", f"{number} after {last}")
            if is_critical != (number in _CRITICAL):
                raise MeshError("option malformed", f"{OptionNumber(number).name}: critical bit")
            if number == OptionNumber.RPL:
                rpl = _decode_rpl(value)
            elif number == OptionNumber.SOURCE_ROUTE:
                route = _decode_route(value)
            elif number == OptionNumber.FLOOD:
                flood = _decode_flood(value)
            else:
                attempt = _decode_attempt(value)
        last = number
    return rpl, route, flood, attempt, tuple(strange)


def _malformed(number: OptionNumber, detail: str) -> MeshError:
    return MeshError("option malformed", f"{number.name}: {detail}")


def _decode_rpl(value: bytes) -> RplMark:
    if len(value) != RPL_VALUE.size:
        raise _malformed(OptionNumber.RPL, f"{len(value)} octets, expected {RPL_VALUE.size}")
    flags, rank = RPL_VALUE.unpack(value)
    if flags & 0x1F:
        raise _malformed(OptionNumber.RPL, f"flags {flags:#04x}, expected zeros below bit 5")
    return RplMark(rank, bool(flags & 0x80), bool(flags & 0x40), bool(flags & 0x20))


def _decode_route(value: bytes) -> SourceRoute:
    if not value or len(value) % 2 == 0:
        raise _malformed(OptionNumber.SOURCE_ROUTE, f"{len(value)} octets, expected an odd number")
    index, *relays = struct.unpack(f"!B{len(value) // 2}H", value)
    if (fault := _fault_in_route(relays, index)) is not None:
        raise _malformed(OptionNumber.SOURCE_ROUTE, fault)
    return SourceRoute(tuple(relays), index)


def _decode_flood(value: bytes) -> Flood:
    if len(value) == 2:
        return Flood(int.from_bytes(value))
    if len(value) == 4:
        return Flood(int.from_bytes(value[:2]), ShortAddress(int.from_bytes(value[2:])))
    raise _malformed(OptionNumber.FLOOD, f"{len(value)} octets, expected 2 or 4")


def _decode_attempt(value: bytes) -> Attempt:
    if len(value) != 2:
        raise _malformed(OptionNumber.ATTEMPT, f"{len(value)} octets, expected 2")
    return Attempt(value[0], value[1])


def _fault_in_route(relays: tuple[ShortAddress, ...] | list[int], index: int) -> str | None:
    if not 1 <= len(relays) <= ROUTE_LENGTH_MAX:
        return f"{len(relays)} relays, expected 1 to {ROUTE_LENGTH_MAX}"
    if not 0 <= index <= len(relays):
        return f"index {index} of {len(relays)} relays"
    if not (min(relays) > 0 and max(relays) <= NODE_ADDRESS_MAX):
        return f"a relay that is no node: expected addresses 1 to {NODE_ADDRESS_MAX}"
    if len(set(relays)) != len(relays):
        return "a relay twice: that is a loop"
    return None
