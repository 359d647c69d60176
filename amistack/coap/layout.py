"""The layout of a CoAP message, declared: readable, normative, and the oracle of the codec.

Spec    RFC 7252 sections 3 and 3.1 (figures 7 and 8), RFC 8974 section 2.1 (figure 1)
Gives   `MESSAGE` and `OPTION` for documentation and dissectors; `parse` and `build` between
        octets and `Message`, slowly. `Message.decode` and `Message.encode` are the fast ones
Raises  CoapError on octets, LocalProtocolError on a value, that the layout has no place for
Never   knows a bound of ours: those (size, count, greatest number) are the codec's own
"""

from __future__ import annotations

from typing import Final

from construct import (
    BitsInteger,
    BitStruct,
    Bytes,
    Check,
    Computed,
    Const,
    ConstructError,
    FocusedSeq,
    GreedyBytes,
    GreedyRange,
    Int8ub,
    Int16ub,
    Nibble,
    OneOf,
    Optional,
    Pass,
    Struct,
    Switch,
    Terminated,
    this,
)

from amistack.coap.codes import Type
from amistack.coap.message import Message
from amistack.coap.options import Option
from amistack.errors import CoapError, LocalProtocolError

EXTENDED_OFFSETS: Final = {13: 13, 14: 269}
"""What a nibble of 13 or 14 adds to the number in the one or two octets that it announces."""

_BELOW_RESERVED: Final = range(15)
_CLASSES: Final = (0, 2, 4, 5)

OPTION: Final = Struct(
    "nibbles"
    / BitStruct(
        "delta" / OneOf(Nibble, _BELOW_RESERVED), "length" / OneOf(Nibble, _BELOW_RESERVED)
    ),
    "delta_extended" / Switch(this.nibbles.delta, {13: Int8ub, 14: Int16ub}, default=Pass),
    "length_extended" / Switch(this.nibbles.length, {13: Int8ub, 14: Int16ub}, default=Pass),
    "delta" / Computed(lambda at: _joined(at.nibbles.delta, at.delta_extended)),
    "length" / Computed(lambda at: _joined(at.nibbles.length, at.length_extended)),
    "value" / Bytes(this.length),
)
"""One option: a header of 1 to 5 octets, then its value (figure 8)."""

PAYLOAD: Final = FocusedSeq(
    "payload",
    "marker" / Const(b"\xff"),
    "payload" / GreedyBytes,
    Check(lambda at: len(at.payload) > 0),
)
"""The marker, and at least one octet after it."""

MESSAGE: Final = Struct(
    "head"
    / BitStruct(
        "version" / Const(1, BitsInteger(2)),
        "type" / BitsInteger(2),
        "token_length" / OneOf(Nibble, _BELOW_RESERVED),
        "code_class" / OneOf(BitsInteger(3), _CLASSES),
        "code_detail" / BitsInteger(5),
    ),
    "message_id" / Int16ub,
    "token_length_extended"
    / Switch(this.head.token_length, {13: Int8ub, 14: Int16ub}, default=Pass),
    "token_length" / Computed(lambda at: _joined(at.head.token_length, at.token_length_extended)),
    "token" / Bytes(this.token_length),
    "options" / GreedyRange(OPTION),  # Ends at the marker, whose nibbles no option may have.
    "payload" / Optional(PAYLOAD),
    "is_empty" / Computed((this.head.code_class == 0) & (this.head.code_detail == 0)),
    Check(lambda at: not at.is_empty or not (at.token_length or len(at.options) or at.payload)),
    Terminated,
)
"""One message (figure 7): all octets of a datagram."""


def parse(octets: bytes) -> Message:
    """The message in `octets`. Raises CoapError, reason `not the layout`."""
    try:
        found = MESSAGE.parse(octets)
    except ConstructError as error:
        raise CoapError("not the layout", str(error).replace("\n", "; ")) from None
    options = []
    number = 0
    for option in found.options:
        number += option.delta
        options.append(Option(number, option.value))
    return Message(
        found.head.code_class << 5 | found.head.code_detail,
        Type(found.head.type),
        found.message_id,
        found.token,
        tuple(options),
        found.payload or b"",
    )


def build(message: Message) -> bytes:
    """The octets of `message`. Raises LocalProtocolError where it has no place in the layout."""
    options = []
    previous = 0
    for number, value in message.options:
        delta_nibble, delta_extended = _split(number - previous)
        length_nibble, length_extended = _split(len(value))
        options.append(
            {
                "nibbles": {"delta": delta_nibble, "length": length_nibble},
                "delta_extended": delta_extended,
                "length_extended": length_extended,
                "value": value,
            }
        )
        previous = number
    token_nibble, token_extended = _split(len(message.token))
    content = {
        "head": {
            "type": message.type,
            "token_length": token_nibble,
            "code_class": message.code >> 5,
            "code_detail": message.code & 0x1F,
        },
        "message_id": message.message_id,
        "token_length_extended": token_extended,
        "token": message.token,
        "options": options,
        "payload": message.payload or None,
    }
    try:
        octets: bytes = MESSAGE.build(content)
    except ConstructError as error:
        raise LocalProtocolError(str(error).replace("\n", "; ")) from None
    return octets


def _joined(nibble: int, extended: int | None) -> int:
    return nibble if extended is None else EXTENDED_OFFSETS[nibble] + extended


def _split(value: int) -> tuple[int, int | None]:
    """The nibble for `value`, and the number to stand in the octets that it announces."""
    for nibble in (14, 13):
        if value >= EXTENDED_OFFSETS[nibble]:
            return nibble, value - EXTENDED_OFFSETS[nibble]
    return value, None
