"""The layouts of framing, declared: readable, normative, and the oracle of the codecs.

Spec    docs/protocol/framing.md
Gives   `FRAME`, `ON_TCP`, `HELLO` and `GOODBYE` for documentation and dissectors; `parse` and
        `build` between octets and `Frame`, slowly. `Frame.decode` and `Frame.encode` are fast
Raises  FrameError on octets, LocalProtocolError on a value, that the layout has no place for
Never   knows what an option means
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
    Flag,
    GreedyBytes,
    GreedyRange,
    GreedyString,
    Int16ub,
    Int32ub,
    Prefixed,
    Struct,
    Terminated,
    this,
)

from amistack.errors import FrameError, LocalProtocolError
from amistack.framing.frame import PAYLOAD_SIZE_MAX, VERSION, Frame, FrameOption, Priority
from amistack.framing.hello import TEXT_SIZE_MAX, VERSION_COUNT_MAX
from amistack.identifiers import Eui64

OPTION: Final = Struct(
    "head" / BitStruct("is_critical" / Flag, "number" / BitsInteger(7)),
    Check(this.head.number > 0),
    "value" / Prefixed(Byte, GreedyBytes),
)
"""One option: a critical bit and a number, the size of the value, the value."""

FRAME: Final = Struct(
    "version" / Const(VERSION, Byte),
    "kind" / Byte,
    "order" / BitStruct("priority" / BitsInteger(3), "reserved" / Const(0, BitsInteger(5))),
    "options_size" / Byte,
    "source" / Bytes(8),
    "options_octets" / Bytes(this.options_size),
    "payload" / GreedyBytes,
    Check(lambda at: len(at.payload) <= PAYLOAD_SIZE_MAX),
)
"""One frame, all of its octets; what `OPTIONS` says about those in the middle holds as well."""

OPTIONS: Final = Struct("options" / GreedyRange(OPTION), Terminated)
"""The options of a frame: one behind the other, and nothing left over."""

ON_TCP: Final = Prefixed(Int16ub, FRAME)
"""A frame on a TCP stream."""

HELLO: Final = Struct(
    "versions" / Prefixed(Byte, GreedyRange(Byte)),
    Check(lambda at: 1 <= len(at.versions) <= VERSION_COUNT_MAX),
    Check(lambda at: at.versions[0] > 0 and list(at.versions) == sorted(set(at.versions))),
    "silence_max" / Int16ub,
    "run" / Int32ub,
    "heard" / Int32ub,
    Check((this.silence_max > 0) & (this.run > 0)),
    Terminated,
)
"""The payload of a HELLO frame."""

GOODBYE: Final = Struct(
    "code" / Byte,
    "text" / GreedyString("utf8"),
    Check(lambda at: len(at.text.encode()) <= TEXT_SIZE_MAX),
)
"""The payload of a GOODBYE frame."""


def parse(octets: bytes) -> Frame:
    """The frame in `octets`. Raises FrameError, reason `not the layout`."""
    try:
        found = FRAME.parse(octets)
        options = OPTIONS.parse(found.options_octets).options
        return Frame(
            found.kind,
            Priority(found.order.priority),
            Eui64(found.source),
            found.payload,
            tuple(
                FrameOption(option.head.number, option.value, option.head.is_critical)
                for option in options
            ),
        )
    except (ConstructError, LocalProtocolError) as error:
        raise FrameError("not the layout", str(error).replace("\n", "; ")) from None


def build(frame: Frame) -> bytes:
    """The octets of `frame`. Raises LocalProtocolError where it has no place in the layout."""
    options = [
        {
            "head": {"is_critical": option.is_critical, "number": option.number},
            "value": option.value,
        }
        for option in frame.options
    ]
    try:
        options_octets = OPTIONS.build({"options": options})
        octets: bytes = FRAME.build(
            {
                "kind": frame.kind,
                "order": {"priority": int(frame.priority)},
                "options_size": len(options_octets),
                "source": bytes(frame.source),
                "options_octets": options_octets,
                "payload": frame.payload,
            }
        )
    except ConstructError as error:
        raise LocalProtocolError(str(error).replace("\n", "; ")) from None
    return octets
