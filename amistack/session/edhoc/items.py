"""CBOR items as EDHOC writes them: one encoding for each value, and no other is taken.

Spec    RFC 9528 3.1 and 3.3.2; RFC 8949 4.2.1
Gives   items of a CBOR sequence, one after the other, each of the type asked for
Raises  EdhocError at the first octet that is not what was asked for
Limit   SEQUENCE_SIZE_MAX octets
Never   guesses, recurses, or builds a value of a type nobody asked for

A general decoder takes every encoding of a value, and a transcript hash covers octets;
hence a reader that knows only the forms which occur.
"""

from __future__ import annotations

from typing import Final

import cbor2

from amistack.errors import EdhocError
from amistack.session.cose import encode_bytes
from amistack.session.edhoc.faults import Fault

SEQUENCE_SIZE_MAX: Final = 3072
"""Room for a short chain of certificates, and still one CoAP message."""

UNSIGNED: Final = 0
NEGATIVE: Final = 1
BYTES: Final = 2
TEXT: Final = 3
ARRAY: Final = 4
MAP: Final = 5
TAG: Final = 6
SIMPLE: Final = 7

_TYPE_NAMES: Final = ("uint", "nint", "bstr", "tstr", "array", "map", "tag", "simple")

# The least argument that needs 1, 2, 4 or 8 octets after the initial one.
_ARGUMENT_MINS: Final = (24, 0x100, 0x1_0000, 0x1_0000_0000)

_FLOAT_SIZES: Final = {25: 2, 26: 4, 27: 8}


_SMALL_INTS: Final = tuple(cbor2.dumps(number) for number in range(0x100))


def encode_int(number: int) -> bytes:
    """`number` as a CBOR integer."""
    return _SMALL_INTS[number] if 0 <= number < 0x100 else cbor2.dumps(number)


def encode_identifier(identifier: bytes) -> bytes:
    """A connection identifier or kid: one octet that is itself a CBOR int goes as that int.

    Those are 0x00 to 0x17 and 0x20 to 0x37 (RFC 9528 3.3.2 and 3.5.3.2).
    """
    if len(identifier) == 1 and is_small_int(identifier[0]):
        return identifier
    return encode_bytes(identifier)


def is_small_int(octet: int) -> bool:
    """Whether `octet` alone is the CBOR encoding of an integer, -24 to 23."""
    return octet & 0xDF < 24


class ItemReader:
    """Takes the items of a CBOR sequence from front to back."""

    __slots__ = ("_at", "_octets")

    def __init__(self, octets: bytes) -> None:
        if len(octets) > SEQUENCE_SIZE_MAX:
            raise EdhocError(Fault.TOO_LARGE, f"{len(octets)} octets, at most {SEQUENCE_SIZE_MAX}")
        self._octets = octets
        self._at = 0

    @property
    def is_at_end(self) -> bool:
        """Whether every octet was taken."""
        return self._at == len(self._octets)

    def next_type(self) -> int | None:
        """The major type of the item that comes next, None at the end."""
        return None if self.is_at_end else self._octets[self._at] >> 5

    def take_int(self) -> int:
        """An integer of either sign."""
        major, argument = self._take_head()
        if major == UNSIGNED:
            return argument
        if major == NEGATIVE:
            return -1 - argument
        raise _wrong_type(major, "an int")

    def take_bytes(self) -> bytes:
        """A byte string."""
        major, size = self._take_head()
        if major != BYTES:
            raise _wrong_type(major, "a bstr")
        return self._take_octets(size)

    def take_text(self) -> str:
        """A text string."""
        major, size = self._take_head()
        if major != TEXT:
            raise _wrong_type(major, "a tstr")
        try:
            return self._take_octets(size).decode()
        except UnicodeDecodeError as error:
            raise EdhocError(Fault.BAD_TEXT, "not UTF-8") from error

    def take_array(self) -> int:
        """The head of an array: how many items follow."""
        return self._take_container(ARRAY, "an array")

    def take_map(self) -> int:
        """The head of a map: how many pairs follow."""
        return self._take_container(MAP, "a map")

    def take_identifier(self) -> bytes:
        """A byte string, or the octet of an integer of one octet (`encode_identifier`)."""
        start = self._at
        major, argument = self._take_head()
        if major == BYTES:
            identifier = self._take_octets(argument)
            if argument == 1 and is_small_int(identifier[0]):
                raise EdhocError(
                    Fault.NOT_DETERMINISTIC, f"bstr {identifier.hex()}, expected the int of it"
                )
            return identifier
        if major in (UNSIGNED, NEGATIVE) and argument < 24:
            return self._octets[start : start + 1]
        raise _wrong_type(major, "a bstr or an int of one octet")

    def take_item(self) -> bytes:
        """The octets of one item of whatever type, with all that is in it, unread.

        Heads are in their shortest form and of definite length; a float counts as it is.
        """
        start = self._at
        pending = 1
        # A count of what is still to come, not a call for each level: depth costs nothing.
        while pending:
            pending -= 1
            if self.next_type() == SIMPLE:
                self._take_simple()
                continue
            major, argument = self._take_head()
            if major in (BYTES, TEXT):
                self._take_octets(argument)
            elif major == ARRAY:
                pending += argument
            elif major == MAP:
                pending += 2 * argument
            elif major == TAG:
                pending += 1
        return self._octets[start : self._at]

    def take_rest(self) -> bytes:
        """Every octet that is left, unread."""
        rest = self._octets[self._at :]
        self._at = len(self._octets)
        return rest

    def expect_end(self) -> None:
        """Raises EdhocError unless every octet was taken."""
        if not self.is_at_end:
            raise EdhocError(Fault.SURPLUS_OCTETS, f"{len(self._octets) - self._at} after the end")

    def _take_container(self, wanted: int, name: str) -> int:
        major, count = self._take_head()
        if major != wanted:
            raise _wrong_type(major, name)
        return count

    def _take_head(self) -> tuple[int, int]:
        octets, at = self._octets, self._at
        if at >= len(octets):
            raise EdhocError(Fault.TRUNCATED, "no further item, expected one")
        initial = octets[at]
        argument = initial & 0x1F
        at += 1
        if argument >= 24:
            if argument > 27:
                raise EdhocError(Fault.NOT_DETERMINISTIC, f"{initial:#04x}, no definite length")
            argument_min = _ARGUMENT_MINS[argument - 24]
            end = at + (1 << (argument - 24))
            if end > len(octets):
                raise EdhocError(Fault.TRUNCATED, "the head of an item is cut short")
            argument = int.from_bytes(octets[at:end], "big")
            if argument < argument_min:
                raise EdhocError(Fault.NOT_DETERMINISTIC, f"{argument} is not in its shortest form")
            at = end
        self._at = at
        return initial >> 5, argument

    def _take_simple(self) -> None:
        """Pass over a simple value or a float, whose argument is no number with a shortest form."""
        argument = self._octets[self._at] & 0x1F
        if argument < 24:
            self._at += 1
        elif argument in _FLOAT_SIZES:
            self._at += 1
            self._take_octets(_FLOAT_SIZES[argument])
        else:
            raise EdhocError(Fault.NOT_DETERMINISTIC, f"simple value with argument {argument}")

    def _take_octets(self, size: int) -> bytes:
        start = self._at
        end = start + size
        if end > len(self._octets):
            raise EdhocError(
                Fault.TRUNCATED, f"{len(self._octets) - start} octets left of a string of {size}"
            )
        self._at = end
        return self._octets[start:end]


def _wrong_type(major: int, expected: str) -> EdhocError:
    return EdhocError(Fault.WRONG_TYPE, f"{_TYPE_NAMES[major]}, expected {expected}")
