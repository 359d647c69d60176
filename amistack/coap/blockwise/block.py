"""The Block option: which part of a body a message carries, or asks for.

Spec    RFC 7959 section 2 (Block1, Block2, Size1, Size2); RFC 7252 section 5.4 and RFC 9175
        section 3.3 (which messages belong to one operation)
Raises  CoapError on an option that is none; LocalProtocolError on a value that cannot be written
Limit   blocks of 16 to 1,024 octets, numbers of 20 bits; size exponent 7 is of CoAP over TCP alone
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from amistack.coap.codes import Code
from amistack.coap.message import Message
from amistack.coap.options import DEFINITIONS, Option, OptionNumber, read_uint, uint_value
from amistack.errors import CoapError, LocalProtocolError

BLOCK_SIZES: Final = (16, 32, 64, 128, 256, 512, 1024)
"""Octets of a block by its size exponent (SZX)."""
BLOCK_SIZE_MAX: Final = BLOCK_SIZES[-1]
BLOCK_NUMBER_MAX: Final = 0xFFFFF
BODY_SIZE_MAX: Final = 65_536
"""Octets of a body, where nobody says otherwise."""

BLOCK_OPTIONS: Final = frozenset({OptionNumber.BLOCK1, OptionNumber.BLOCK2})
"""The critical options that who works block-wise understands."""

SAFE_METHODS: Final = frozenset({Code.GET, Code.FETCH})
"""Methods that may be asked again without anything being done twice."""

BAD_OPTION: Final = "bad option"
RESERVED_SIZE: Final = "reserved block size"

_EXPONENTS: Final = {size: exponent for exponent, size in enumerate(BLOCK_SIZES)}
_RESERVED_EXPONENT: Final = 7

_NO_CACHE_KEY_MASK: Final = 0x1E
_NO_CACHE_KEY: Final = 0x1C
_NOT_OF_THE_OPERATION: Final = frozenset(
    {
        OptionNumber.BLOCK1,
        OptionNumber.BLOCK2,
        # A registration and the retrieval of its further blocks are one (RFC 7641 section 2).
        OptionNumber.OBSERVE,
        # Stands in a first block only (RFC 7959 section 2.10).
        OptionNumber.IF_NONE_MATCH,
    }
)

OperationKey = tuple[int, tuple[Option, ...]]
"""Code and options: what all requests of one operation have in common."""


@dataclass(frozen=True, slots=True)
class BlockOption:
    """The value of a Block1 or Block2 option (RFC 7959 section 2.2).

    ::

        uint    number (0 to 20 bits) | has_more (1) | size exponent (3)
    """

    number: int
    has_more: bool
    size: int

    def __post_init__(self) -> None:
        if not 0 <= self.number <= BLOCK_NUMBER_MAX:
            raise LocalProtocolError(f"block {self.number}, expected 0 to {BLOCK_NUMBER_MAX}")
        check_block_size(self.size)

    def __str__(self) -> str:
        """As the figures of RFC 7959 have it."""
        return f"{self.number}/{self.has_more:d}/{self.size}"

    @property
    def offset(self) -> int:
        """Octets of the body before this block."""
        return self.number * self.size

    def encode(self) -> bytes:
        """The option's value."""
        return uint_value(self.number << 4 | self.has_more << 3 | _EXPONENTS[self.size])

    @classmethod
    def decode(cls, octets: bytes) -> BlockOption:
        """The inverse of `encode`. Raises CoapError: `bad option` or `reserved block size`."""
        length_max = DEFINITIONS[OptionNumber.BLOCK1].length_max
        if len(octets) > length_max:
            raise CoapError(BAD_OPTION, f"block option of {len(octets)} octets, up to {length_max}")
        value = read_uint(octets)
        exponent = value & 7
        if exponent == _RESERVED_EXPONENT:
            raise CoapError(RESERVED_SIZE, "size exponent 7, expected 0 to 6")
        return cls(value >> 4, bool(value & 8), BLOCK_SIZES[exponent])


def check_block_size(size: int) -> None:
    """Raises LocalProtocolError where `size` (octets) is none of `BLOCK_SIZES`."""
    if size not in _EXPONENTS:
        raise LocalProtocolError(f"blocks of {size} octets, expected one of {BLOCK_SIZES}")


def find_block(options: Iterable[Option], number: int) -> BlockOption | None:
    """The Block1 or Block2 option (by `number`) among `options`, or None.

    Raises CoapError: `bad option` for one that repeats or is too long (RFC 7252 sections 5.4.3 and
    5.4.5), `reserved block size` for size exponent 7.
    """
    found: BlockOption | None = None
    for option in options:
        if option.number == number:
            if found is not None:
                raise CoapError(BAD_OPTION, f"option {number} twice")
            found = BlockOption.decode(option.value)
    return found


def has_block_options(message: Message) -> bool:
    """Whether `message` may have an option of this layer: a look at its last option only."""
    options = message.options
    return bool(options) and options[-1].number >= OptionNumber.BLOCK2


def without(options: Iterable[Option], *numbers: int) -> list[Option]:
    """`options` but those of the `numbers`."""
    return [option for option in options if option.number not in numbers]


def operation_key(request: Message) -> OperationKey:
    """What the requests of one operation share, and no request of another has from the same peer.

    Code and options, without those that are no part of a cache key (RFC 7252 section 5.4.6),
    without Block1 and Block2 (RFC 9175 section 3.3), Observe and If-None-Match. Request-Tag is
    within, and its absence is a value of its own.
    """
    return request.code, tuple(
        option
        for option in request.options
        if option.number not in _NOT_OF_THE_OPERATION
        and option.number & _NO_CACHE_KEY_MASK != _NO_CACHE_KEY
    )
