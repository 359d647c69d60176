"""One CoAP message, and its octets.

Spec    RFC 7252 section 3; RFC 8974 section 2.1 (a token may fill the message)
Raises  CoapError on octets that are not a message; LocalProtocolError on a value that cannot be
        written
Limit   MESSAGE_SIZE_MAX octets and OPTION_COUNT_MAX options
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from functools import lru_cache
from operator import itemgetter
from typing import Final

from amistack.coap.codes import Code, Type, format_code, is_request, is_response
from amistack.coap.options import (
    DEFINITIONS,
    Option,
    OptionNumber,
    read_text,
    read_uint,
    uint_value,
)
from amistack.errors import CoapError, LocalProtocolError
from amistack.values import frozen_value

VERSION: Final = 1
HEADER: Final = struct.Struct("!BBH")  # version, type and token length; code; message id
PAYLOAD_MARKER: Final = 0xFF
RESERVED_NIBBLE: Final = 15

MESSAGE_SIZE_MAX: Final = 4096
MESSAGE_ID_MAX: Final = 0xFFFF
TOKEN_SIZE_PLAIN_MAX: Final = 12
"""Longer tokens have their length in octets of its own; RFC 7252 alone knows tokens up to 8."""
OPTION_COUNT_MAX: Final = 64
OPTION_NUMBER_MAX: Final = 0xFFFF

_TYPES: Final = tuple(Type)

# Plain ints, as the members of an IntEnum cost a call each time that they are hashed.
_URI_PATH: Final = int(OptionNumber.URI_PATH)
_CONTENT_FORMAT: Final = int(OptionNumber.CONTENT_FORMAT)
_ACCEPT: Final = int(OptionNumber.ACCEPT)
_MAX_AGE: Final = int(OptionNumber.MAX_AGE)


@frozen_value(frozen=True, slots=True)
class Message:
    """One CoAP message (RFC 7252 section 3).

    ::

        octet   0                1      2..3         4 .. t+3   then           then
                1 | type | t     code   message id   token      options ...    0xff payload

    Where the token is longer than 12 octets, t is 13 or 14 and one or two octets before the token
    hold the rest of its length (RFC 8974 figure 1).
    `options` stand in ascending order of their numbers; those of one number in their own order.
    """

    code: int
    type: Type = Type.CON
    message_id: int = 0
    token: bytes = b""
    options: tuple[Option, ...] = ()
    payload: bytes = b""

    def __str__(self) -> str:
        path = ""
        if is_request(self.code):
            segments = self.option_values(OptionNumber.URI_PATH)
            path = " /" + "/".join(segment.decode(errors="replace") for segment in segments)
        return (
            f"{self.type.name} {format_code(self.code)}{path} mid={self.message_id} "
            f"token={self.token.hex()} [{len(self.payload)} octets]"
        )

    # Reading

    def option(self, number: int) -> bytes | None:
        """The value of the first option of that number, or None."""
        for option in self.options:
            if option.number == number:
                return option.value
        return None

    def option_values(self, number: int) -> list[bytes]:
        """The values of every option of that number, in order."""
        return [option.value for option in self.options if option.number == number]

    def uint_option(self, number: int) -> int | None:
        """The number that an uint option holds, or None.

        None as well where it is longer than it may be: like an unknown one (section 5.4.3).
        """
        value = self.option(number)
        definition = DEFINITIONS.get(number)
        if value is None or (definition is not None and len(value) > definition.length_max):
            return None
        return read_uint(value)

    @property
    def path(self) -> str:
        """The Uri-Path joined by `/`, without one in front. Raises CoapError if it is not UTF-8."""
        return _path_of(self.options)

    @property
    def content_format(self) -> int | None:
        """The Content-Format, or None where none was sent."""
        return _content_format_of(self.options)

    @property
    def is_empty(self) -> bool:
        """Whether this is the empty message: an acknowledgement, a reset or a ping."""
        return self.code == Code.EMPTY

    # Making

    @classmethod
    def request(
        cls,
        code: int,
        path: str = "",
        *,
        payload: bytes = b"",
        content_format: int | None = None,
        accept: int | None = None,
        options: Iterable[Option] = (),
    ) -> Message:
        """A request; the endpoint gives it its type, message id and token."""
        every = [Option(_URI_PATH, segment.encode()) for segment in path.split("/") if segment]
        if content_format is not None:
            every.append(Option(_CONTENT_FORMAT, uint_value(content_format)))
        if accept is not None:
            every.append(Option(_ACCEPT, uint_value(accept)))
        every += options
        return cls(code, options=in_order(every), payload=payload)

    @classmethod
    def response(
        cls,
        code: int,
        *,
        payload: bytes = b"",
        content_format: int | None = None,
        max_age: int | None = None,
        options: Iterable[Option] = (),
    ) -> Message:
        """A response; the endpoint gives it its type, message id and token. `max_age` in s."""
        every = _response_options(content_format, max_age)
        if options:
            every = in_order((*options, *every))
        return cls(code, options=every, payload=payload)

    def addressed(self, *, type: Type, message_id: int, token: bytes) -> Message:  # noqa: A002
        """The same message with the header that the endpoint chose."""
        # Not `replace`: it takes twice as long, and this is done for every message.
        return Message(self.code, type, message_id, token, self.options, self.payload)

    # Octets

    def encode(self) -> bytes:
        """The message as octets. Raises LocalProtocolError on what `decode` would refuse."""
        if not self.code:
            if self.token or self.options or self.payload:
                raise LocalProtocolError("empty message with content, expected none")
        elif not (is_request(self.code) or is_response(self.code)):
            raise LocalProtocolError(f"code {self.code:#04x} is of a reserved class")
        if not 0 <= self.message_id <= MESSAGE_ID_MAX:
            raise LocalProtocolError(f"message id {self.message_id}, at most {MESSAGE_ID_MAX}")
        if len(self.options) > OPTION_COUNT_MAX:
            raise LocalProtocolError(
                f"{len(self.options)} options, at most {OPTION_COUNT_MAX} are sent"
            )
        token, size = self.token, len(self.token)
        if size > TOKEN_SIZE_PLAIN_MAX:
            if size > MESSAGE_SIZE_MAX:
                raise LocalProtocolError(f"token of {size} octets fits no message")
            size, more = _extended(size)
            token = more + token
        head = HEADER.pack(VERSION << 6 | self.type << 4 | size, self.code, self.message_id)
        body = encode_body(self.options, self.payload)
        octets = head + token + body
        if len(octets) > MESSAGE_SIZE_MAX:
            raise LocalProtocolError(
                f"message of {len(octets)} octets, at most {MESSAGE_SIZE_MAX} are sent"
            )
        return octets

    @classmethod
    def decode(cls, octets: bytes) -> Message:
        """The message that `octets` hold: all of them. Raises CoapError."""
        if len(octets) < HEADER.size:
            raise CoapError("truncated", f"{len(octets)} octets, at least {HEADER.size}")
        if len(octets) > MESSAGE_SIZE_MAX:
            raise CoapError("too long", f"{len(octets)} octets, at most {MESSAGE_SIZE_MAX}")
        first, code, message_id = HEADER.unpack_from(octets)
        if first >> 6 != VERSION:
            raise CoapError("unknown version", f"version {first >> 6}, expected {VERSION}")
        token_size = first & 0x0F
        token_start = HEADER.size
        if code == Code.EMPTY:
            if len(octets) != HEADER.size or token_size:
                raise CoapError("empty message with content", f"{len(octets)} octets, expected 4")
            return cls(code, _TYPES[first >> 4 & 3], message_id)
        if not (is_request(code) or is_response(code)):
            raise CoapError("reserved code class", format_code(code))
        if token_size > TOKEN_SIZE_PLAIN_MAX:
            if token_size == RESERVED_NIBBLE:
                raise CoapError("bad token length", f"{token_size} is reserved")
            token_size, token_start = _read_extended(octets, token_size, token_start)
        start = token_start + token_size
        if len(octets) < start:
            raise CoapError("truncated", f"token of {token_size} octets is cut off")
        options, payload = decode_body(octets, start)
        return cls(
            code, _TYPES[first >> 4 & 3], message_id, octets[token_start:start], options, payload
        )


# A server sees the same few options in nearly every request.


@lru_cache(maxsize=256)
def _path_of(options: tuple[Option, ...]) -> str:
    return "/".join(read_text(option) for option in options if option.number == _URI_PATH)


@lru_cache(maxsize=256)
def _content_format_of(options: tuple[Option, ...]) -> int | None:
    return Message(Code.GET, options=options).uint_option(_CONTENT_FORMAT)


@lru_cache(maxsize=64)
def _response_options(content_format: int | None, max_age: int | None) -> tuple[Option, ...]:
    """These two, in order: a server gives the same few in nearly every response."""
    options = []
    if content_format is not None:
        options.append(Option(_CONTENT_FORMAT, uint_value(content_format)))
    if max_age is not None:
        options.append(Option(_MAX_AGE, uint_value(max_age)))
    return tuple(options)


def in_order(options: Iterable[Option]) -> tuple[Option, ...]:
    """`options` by ascending number; those of one number keep their order."""
    every = tuple(options)
    return every if len(every) < 2 else tuple(sorted(every, key=itemgetter(0)))


def encode_body(options: Iterable[Option], payload: bytes) -> bytes:
    """Options and payload as octets: what follows the token, and what OSCORE encrypts.

    Raises LocalProtocolError when the options are not in order or too large.
    """
    out = bytearray()
    previous = 0
    for number, value in options:
        delta, size = number - previous, len(value)
        if delta < 0 or number > OPTION_NUMBER_MAX:
            raise LocalProtocolError(f"option {number} after {previous}, expected ascending order")
        if delta < 13 and size < 13:
            out.append(delta << 4 | size)
        else:
            delta_nibble, delta_more = _extended(delta)
            size_nibble, size_more = _extended(size)
            out.append(delta_nibble << 4 | size_nibble)
            out += delta_more
            out += size_more
        out += value
        previous = number
    if payload:
        out.append(PAYLOAD_MARKER)
        out += payload
    return bytes(out)


def decode_body(octets: bytes, start: int) -> tuple[tuple[Option, ...], bytes]:
    """Options and payload of `octets` from `start` on; the inverse of `encode_body`.

    Raises CoapError. A payload marker with nothing after it is a format error (section 3).
    """
    options: list[Option] = []
    number = 0
    end = len(octets)
    at = start
    while at < end:
        first = octets[at]
        at += 1
        if first == PAYLOAD_MARKER:
            if at == end:
                raise CoapError("payload marker without payload", f"at octet {at - 1}")
            return tuple(options), octets[at:]
        delta, size = first >> 4, first & 0x0F
        if delta >= 13:
            delta, at = _read_extended(octets, delta, at)
        if size >= 13:
            size, at = _read_extended(octets, size, at)
        number += delta
        if number > OPTION_NUMBER_MAX:
            raise CoapError("bad option number", f"{number}, at most {OPTION_NUMBER_MAX}")
        if at + size > end:
            raise CoapError("truncated", f"option {number} of {size} octets is cut off")
        if len(options) == OPTION_COUNT_MAX:
            raise CoapError("too many options", f"at most {OPTION_COUNT_MAX}")
        options.append(Option(number, octets[at : at + size]))
        at += size
    return tuple(options), b""


def _extended(value: int) -> tuple[int, bytes]:
    if value < 13:
        return value, b""
    if value < 269:
        return 13, bytes((value - 13,))
    if value < 269 + 0x10000:
        return 14, (value - 269).to_bytes(2, "big")
    raise LocalProtocolError(f"option of {value} octets, at most {269 + 0xFFFF}")


def _read_extended(octets: bytes, nibble: int, at: int) -> tuple[int, int]:
    size = nibble - 12
    if nibble == RESERVED_NIBBLE:
        raise CoapError("reserved option nibble", f"at octet {at - 1}")
    if at + size > len(octets):
        raise CoapError("truncated", "extended length is cut off")
    return int.from_bytes(octets[at : at + size], "big") + (13 if size == 1 else 269), at + size
