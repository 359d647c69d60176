"""A frame, and its octets: what goes over a TCP stream or a serial line.

Spec    docs/protocol/framing.md, "The frame"; `amistack.framing.layout` declares the same
Gives   `Frame.encode` and `Frame.decode`, exact inverses; options that we do not know stay as
        they came, in their place, so that whoever passes a frame on changes none of them
Raises  FrameError on octets, LocalProtocolError on a value, that is no frame
Limit   PAYLOAD_SIZE_MAX octets of payload, OPTIONS_SIZE_MAX of options
Never   says where a frame begins in a stream, or protects it: that is the carrier's part
"""

from __future__ import annotations

import enum
import struct
from dataclasses import dataclass
from typing import Final

from amistack.errors import FrameError, LocalProtocolError
from amistack.identifiers import EUI64_SIZE, Eui64

VERSION: Final = 1
HEADER: Final = struct.Struct("!BBBB8s")  # version, kind, priority, options' size, source
PRIORITY_SHIFT: Final = 5
RESERVED_BITS: Final = 0x1F

OPTION_HEAD_SIZE: Final = 2  # critical bit and number, size of the value
OPTIONS_SIZE_MAX: Final = 255
OPTION_VALUE_SIZE_MAX: Final = OPTIONS_SIZE_MAX - OPTION_HEAD_SIZE
CRITICAL_BIT: Final = 0x80
OPTION_NUMBER_MAX: Final = 0x7F
PAYLOAD_SIZE_MAX: Final = 2048

FRAME_SIZE_MIN: Final = HEADER.size
FRAME_SIZE_MAX: Final = HEADER.size + OPTIONS_SIZE_MAX + PAYLOAD_SIZE_MAX


class Kind(enum.IntEnum):
    """What a frame is for. Below 16 it is for the link itself, from 16 on for whoever is above."""

    HELLO = 0
    GOODBYE = 1
    KEEP_ALIVE = 2
    COAP = 16  # A datagram as RFC 7252 section 3 has it, not RFC 8323.
    MESH = 17  # One packet of the mesh.
    TOPOLOGY = 18  # A collector's report about its part of the mesh.
    BACKHAUL = 19  # A message between a collector and the head-end.


CONTROL_KIND_MAX: Final = 15


class Priority(enum.IntEnum):
    """The one order of priority, the same in every queue and budget; 0 goes first."""

    CONTROL = 0
    ALARM = 1
    ON_DEMAND = 2
    FREQUENT = 3
    SCHEDULED = 4
    RECOVERY = 5
    FIRMWARE = 6
    JOINING = 7


class OptionNumber(enum.IntEnum):
    """The options there are. Number 0 is not given out."""

    DESTINATION = 1  # Critical: the EUI-64 that the frame is for, if not the neighbour.


@dataclass(frozen=True, slots=True)
class FrameOption:
    """One option: a number of 1 to 127, whether it may be ignored by whom it is strange, a value.

    Raises LocalProtocolError for what has no place in the layout.
    """

    number: int
    value: bytes = b""
    is_critical: bool = False

    def __post_init__(self) -> None:
        if not 1 <= self.number <= OPTION_NUMBER_MAX:
            raise LocalProtocolError(f"option {self.number}, expected 1 to {OPTION_NUMBER_MAX}")
        if len(self.value) > OPTION_VALUE_SIZE_MAX:
            raise LocalProtocolError(
                f"option of {len(self.value)} octets, at most {OPTION_VALUE_SIZE_MAX}"
            )

    def encode(self) -> bytes:
        """Two octets and the value."""
        first = self.number | (CRITICAL_BIT if self.is_critical else 0)
        return bytes((first, len(self.value))) + self.value


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame.

    ::

        octet   0        1     2                     3             4..11   12..m+11  m+12..
                version  kind  priority,   00000     options' size source  options   payload
                               3 bits                m

    `kind` is a `Kind`, or a number that this version does not know. `source` made the frame;
    who passes it on leaves that as it is. Raises LocalProtocolError for what has no place.
    """

    kind: int
    priority: Priority
    source: Eui64
    payload: bytes = b""
    options: tuple[FrameOption, ...] = ()

    def __post_init__(self) -> None:
        if not 0 <= self.kind <= 0xFF:
            raise LocalProtocolError(f"kind {self.kind}, expected 0 to 255")
        if len(self.source) != EUI64_SIZE:
            raise LocalProtocolError(f"source of {len(self.source)} octets, expected {EUI64_SIZE}")
        if len(self.payload) > PAYLOAD_SIZE_MAX:
            raise LocalProtocolError(
                f"payload of {len(self.payload)} octets, at most {PAYLOAD_SIZE_MAX}"
            )
        options_size = sum(OPTION_HEAD_SIZE + len(option.value) for option in self.options)
        if options_size > OPTIONS_SIZE_MAX:
            raise LocalProtocolError(
                f"options of {options_size} octets, at most {OPTIONS_SIZE_MAX}"
            )
        if self.options and (fault := _fault_in(self.options)) is not None:
            raise LocalProtocolError(": ".join(fault))

    def __str__(self) -> str:
        try:
            name = Kind(self.kind).name
        except ValueError:
            name = f"kind {self.kind}"
        options = f", {len(self.options)} options" if self.options else ""
        return (
            f"{name} [{len(self.payload)} octets] from {self.source.hex()}, "
            f"priority {int(self.priority)}{options}"
        )

    def describe(self) -> str:
        """One line for a capture that shows the payload alone: what it is, and the octets before.

        With the payload behind those octets, the whole frame.
        """
        octets = self.encode()
        return f"{self}; {octets[: len(octets) - len(self.payload)].hex()}"

    @property
    def is_control(self) -> bool:
        """Whether it is for the link itself."""
        return self.kind <= CONTROL_KIND_MAX

    @property
    def destination(self) -> Eui64 | None:
        """Whom it is for; None for the neighbour that hears it."""
        for option in self.options:
            if option.number == OptionNumber.DESTINATION:
                return Eui64(option.value)
        return None

    def encode(self) -> bytes:
        """The octets, without what the carrier puts around them."""
        options = b"".join([option.encode() for option in self.options])
        head = HEADER.pack(
            VERSION, self.kind, self.priority << PRIORITY_SHIFT, len(options), self.source
        )
        return head + options + self.payload

    @classmethod
    def decode(cls, octets: bytes) -> Frame:
        """The frame that `octets` hold: all of them, and nothing else.

        Raises FrameError, `unknown version` before anything else that may be wrong.
        """
        if octets and octets[0] != VERSION:
            raise FrameError("unknown version", f"{octets[0]}, expected {VERSION}")
        if not FRAME_SIZE_MIN <= len(octets) <= FRAME_SIZE_MAX:
            raise FrameError(
                "wrong size", f"{len(octets)} octets, expected {FRAME_SIZE_MIN} to {FRAME_SIZE_MAX}"
            )
        _, kind, priority, options_size, source = HEADER.unpack_from(octets)
        if priority & RESERVED_BITS:
            raise FrameError("reserved bits set", f"{priority:#04x}, expected zeros below bit 5")
        payload_at = FRAME_SIZE_MIN + options_size
        if payload_at > len(octets):
            raise FrameError(
                "options cut off", f"{len(octets) - FRAME_SIZE_MIN} octets, expected {options_size}"
            )
        if len(octets) - payload_at > PAYLOAD_SIZE_MAX:
            raise FrameError(
                "payload too long", f"{len(octets) - payload_at} octets, at most {PAYLOAD_SIZE_MAX}"
            )
        options = _decode_options(octets[FRAME_SIZE_MIN:payload_at]) if options_size else ()
        return cls(
            kind,
            _PRIORITIES[priority >> PRIORITY_SHIFT],
            Eui64(source),
            octets[payload_at:],
            options,
        )


_PRIORITIES: Final = tuple(Priority)


def _decode_options(octets: bytes) -> tuple[FrameOption, ...]:
    options = []
    place, end = 0, len(octets)
    while place < end:
        value_at = place + OPTION_HEAD_SIZE
        next_at = value_at + octets[place + 1] if value_at <= end else end + 1
        if next_at > end:
            raise FrameError("options cut off", f"at octet {place} of {end}")
        number = octets[place] & OPTION_NUMBER_MAX
        if number == 0:
            raise FrameError("option number zero", f"expected 1 to {OPTION_NUMBER_MAX}")
        is_critical = bool(octets[place] & CRITICAL_BIT)
        options.append(FrameOption(number, octets[value_at:next_at], is_critical))
        place = next_at
    found = tuple(options)
    if (fault := _fault_in(found)) is not None:
        raise FrameError(*fault)
    return found


def _fault_in(options: tuple[FrameOption, ...]) -> tuple[str, str] | None:
    """What is wrong with options, and in detail. What we do not know must not be critical."""
    has_destination = False
    for option in options:
        if option.number != OptionNumber.DESTINATION:
            if option.is_critical:
                return "unknown critical option", f"number {option.number}"
        elif has_destination:
            return "option repeated", "DESTINATION, expected once"
        elif not option.is_critical or len(option.value) != EUI64_SIZE:
            return (
                "option malformed",
                f"DESTINATION of {len(option.value)} octets, expected {EUI64_SIZE} and critical",
            )
        else:
            has_destination = True
    return None


def destination(eui64: Eui64) -> FrameOption:
    """The option that says whom a frame is for."""
    return FrameOption(OptionNumber.DESTINATION, bytes(eui64), is_critical=True)
