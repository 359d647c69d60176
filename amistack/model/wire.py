"""Items of the model as CBOR, and the checks that every one of them passes.

Spec    RFC 8949; deterministic encoding as in section 4.2.1
Gives   the one encoding of a tree of arrays, integers, strings and booleans, and back
Raises  `ModelError`, and nothing else, whatever the octets
Limit   PAYLOAD_SIZE_MAX octets for any message
Never   coerces: a boolean is not an integer, a longer form of a number is not that number
"""

from __future__ import annotations

import enum
import io
from collections.abc import Sequence
from typing import Final, TypeVar

import cbor2

from amistack.cbor import is_array, read_item
from amistack.errors import CborError, ModelError

CONTENT_FORMAT_V1: Final = 65001
"""CoAP Content-Format of this model's version 1, from the experimental range (RFC 7252 12.3)."""

PAYLOAD_SIZE_MAX: Final = 65_535

REGISTER_MAX: Final = 2**53 - 1
"""Largest magnitude of a register or an interval value: exact also where numbers are doubles."""

UTC_S_MAX: Final = 2**32 - 1
UTC_MS_MAX: Final = UTC_S_MAX * 1000 + 999
HELD_MS_MAX: Final = 2**32 - 1
DAY_MAX: Final = 49_710  # The last whole day that UTC_S_MAX covers.
DAY_S: Final = 86_400
INTERVAL_S_MIN: Final = 30

MemberT = TypeVar("MemberT", bound=enum.IntEnum)


def dump(tree: object) -> bytes:
    """The one encoding of `tree`. Raises ModelError if it is larger than PAYLOAD_SIZE_MAX."""
    data = cbor2.dumps(tree)
    if len(data) > PAYLOAD_SIZE_MAX:
        raise ModelError("too long", f"{len(data)} octets, at most {PAYLOAD_SIZE_MAX}")
    return data


def load(data: bytes, *, is_strict: bool = True) -> object:
    """The tree that `data` hold, all of them and nothing else.

    With `is_strict` only the deterministic encoding is taken. Without it any well-formed
    encoding is, so that one badly written record does not cost its neighbours.
    """
    if len(data) > PAYLOAD_SIZE_MAX:
        raise ModelError("too long", f"{len(data)} octets, at most {PAYLOAD_SIZE_MAX}")
    stream = io.BytesIO(data)
    try:
        tree: object = read_item(stream)
        is_deterministic = not is_strict or cbor2.dumps(tree) == data
    except CborError as error:
        raise ModelError(error.reason, error.detail) from error
    except Exception as error:
        # What can be read of a tag cannot always be written.
        raise ModelError("not CBOR", str(error)[:80]) from error
    if stream.tell() != len(data):
        raise ModelError("trailing octets", f"{len(data) - stream.tell()} after the message")
    if not is_deterministic:
        raise ModelError("not deterministic", "a shorter or more regular encoding exists")
    return tree


def array(item: object, least: int, most: int, what: str) -> Sequence[object]:
    """`item` if it is an array of `least` to `most` items."""
    if not is_array(item):
        raise ModelError("wrong type", f"{what} is {type(item).__name__}, expected an array")
    if not least <= len(item) <= most:
        raise ModelError("wrong size", f"{what} has {len(item)} items, expected {least} to {most}")
    return item


def integer(item: object, least: int, most: int, what: str) -> int:
    """`item` if it is an integer, and no boolean, from `least` to `most`."""
    if type(item) is not int:
        raise ModelError("wrong type", f"{what} is {type(item).__name__}, expected an integer")
    if not least <= item <= most:
        # Not the number itself: it may be a bignum of thousands of digits.
        raise ModelError("out of range", f"{what} is not from {least} to {most}")
    return item


def octets(item: object, least: int, most: int, what: str) -> bytes:
    """`item` if it is a byte string of `least` to `most` octets."""
    if type(item) is not bytes:
        raise ModelError("wrong type", f"{what} is {type(item).__name__}, expected octets")
    if not least <= len(item) <= most:
        raise ModelError("wrong size", f"{what} has {len(item)} octets, expected {least} to {most}")
    return item


def text(item: object, least: int, most: int, what: str) -> str:
    """`item` if it is text of `least` to `most` octets of UTF-8."""
    if type(item) is not str:
        raise ModelError("wrong type", f"{what} is {type(item).__name__}, expected text")
    try:
        size = len(item.encode())
    except UnicodeEncodeError as error:
        raise ModelError("wrong type", f"{what} is text that UTF-8 cannot write") from error
    if not least <= size <= most:
        raise ModelError("wrong size", f"{what} has {size} octets, expected {least} to {most}")
    return item


def member(item: object, kind: type[MemberT], what: str) -> MemberT:
    """`item` as the member of `kind` that has this number."""
    number = integer(item, 0, 255, what)
    try:
        return kind(number)
    except ValueError:
        raise ModelError("out of range", f"{what} {number} is not known") from None


def interval_to_tree(interval_s: int) -> int:
    """An interval's length as it is written: minutes, or else negative seconds."""
    return -interval_s if interval_s % 60 else interval_s // 60


def interval_from_tree(item: object) -> int:
    """The seconds that `interval_to_tree` wrote."""
    written = integer(item, -DAY_S, DAY_S // 60, "interval length")
    if written < 0 and not written % 60:
        raise ModelError("not deterministic", f"{-written} s are whole minutes")
    return check_interval(-written if written < 0 else written * 60)


def check_interval(interval_s: int) -> int:
    """`interval_s` if a day is a whole number of such intervals, none under INTERVAL_S_MIN."""
    integer(interval_s, INTERVAL_S_MIN, DAY_S, "interval length")
    if DAY_S % interval_s:
        raise ModelError("out of range", f"intervals of {interval_s} s do not divide a day")
    return interval_s
