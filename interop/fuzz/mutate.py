"""Make new inputs of old ones, by dice.

Gives   `Mutator.mutate`: an input that is one to eight changes away from one that is known
Never   draws from anything but the dice it was given: one seed, one sequence of inputs
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any, Final

import cbor2

from interop.fuzz.target import Target

STACKED_MAX: Final = 8
"""Changes made to one input before it is run."""
INSERTED_MAX: Final = 16
REPEATED_MAX: Final = 256
CBOR_SHARE: Final = 0.5
"""How many of the inputs of a CBOR target are changed item by item."""
NODE_COUNT_MAX: Final = 512
NESTING_MAX: Final = 64

INTERESTING: Final = tuple(
    sorted(
        {
            number & (1 << bits) - 1
            for bits in (8, 16, 32, 64)
            for power in (0, 4, 7, 8, 12, 15, 16, 31, 32, 53, 63, 64)
            for number in ((1 << power) - 1, 1 << power, (1 << power) + 1, -(1 << power))
        }
    )
)
"""Numbers at the edge of something."""

_CBOR_LEAVES: Final[tuple[object, ...]] = (
    *(0, 1, -1, 23, 24, 255, 256, 65_535, 65_536, 2**31, 2**32 - 1, 2**32, 2**53 - 1, 2**53),
    *(2**64 - 1, -(2**64), 2**64, -(2**31), 86_400, -86_400, 49_710, 49_711),
    *(b"", b"\x00", b"\x00" * 8, b"\xff" * 16, b"\xff" * 64),
    *("", "a", "0", "\x00", "1.2.3.4", "x" * 64, "x" * 65, "\u00e9" * 32),
    *(True, False, None, 0.0, 1.5, float("inf"), float("nan")),
    *([], [0], [[]], {}, {1: 2}, cbor2.undefined),
)
_CBOR_OCTETS: Final = (
    *(b"\x9f\xff", b"\xbf\xff", b"\x5f\xff", b"\x7f\xff", b"\xff", b"\x1c", b"\xf8\x18"),
    *(
        b"\xc2\x40",
        b"\xc2\x49\x01\x00\x00\x00\x00\x00\x00\x00\x00",
        b"\xd8\x1c\x00",
        b"\xd8\x1d\x00",
    ),
    *(
        b"\xc0\x60",
        b"\xc1\xfb\x7f\xf0\x00\x00\x00\x00\x00\x00",
        b"\xc4\x82\x00\x00",
        b"\xd8\x23\x60",
    ),
    *(
        b"\x18\x00",
        b"\x19\x00\x01",
        b"\x1b" + b"\x00" * 8,
        b"\x3b" + b"\xff" * 8,
        b"\x5b" + b"\xff" * 8,
    ),
    *(
        b"\x9b" + b"\xff" * 8,
        b"\xbb" + b"\xff" * 8,
        b"\x82" * 40,
        b"\xa1" * 40,
        b"\xd8\x1e\x82\x00\x00",
    ),
)
"""Items, and beginnings of items, that are cumbersome."""

_Change = Callable[[bytearray, random.Random], None]


class Mutator:
    """Changes inputs of one target."""

    def __init__(self, target: Target, dice: random.Random) -> None:
        self._dice = dice
        self._is_cbor = target.is_cbor
        self._size_max = target.size_max
        self._tokens = target.tokens + (_CBOR_OCTETS if target.is_cbor else ())
        self._changes: tuple[_Change, ...] = (*_CHANGES, self._put_token)

    def mutate(self, corpus: Sequence[bytes]) -> bytes:
        """A changed copy of some entry of `corpus`, which has at least one."""
        dice = self._dice.random
        # The newest entries most: what was found last has been looked into least.
        share = dice()
        entry = corpus[int((1.0 - share * share) * len(corpus)) - 1]
        if self._is_cbor and dice() < CBOR_SHARE:
            changed = self._change_item(entry)
            if changed is not None:
                return changed[: self._size_max]
        octets = bytearray(entry)
        if dice() < 0.1:
            self._splice(octets, corpus[int(dice() * len(corpus))])
        changes = self._changes
        count = len(changes)
        # Half of all inputs get one change, a quarter two, and so on.
        for _ in range(STACKED_MAX):
            changes[int(dice() * count)](octets, self._dice)
            if dice() < 0.5:
                break
        return bytes(octets[: self._size_max])

    def _splice(self, octets: bytearray, other: bytes) -> None:
        """The beginning of one, then the end of another."""
        dice = self._dice.random
        octets[int(dice() * (len(octets) + 1)) :] = other[int(dice() * (len(other) + 1)) :]

    def _put_token(self, octets: bytearray, dice: random.Random) -> None:
        if not self._tokens:
            _insert(octets, dice)
            return
        token = self._tokens[int(dice.random() * len(self._tokens))]
        at = int(dice.random() * (len(octets) + 1))
        octets[at : at + (len(token) if dice.random() < 0.5 else 0)] = token

    # Item by item

    def _change_item(self, entry: bytes) -> bytes | None:
        """`entry` with one item of its CBOR changed, or None if it is no CBOR."""
        try:
            tree = cbor2.loads(entry)
            places: list[tuple[Any, Any]] = []
            box = [tree]
            _list_places(box, places)
            container, key = places[int(self._dice.random() * len(places))]
            container[key] = self._other(container[key])
            return cbor2.dumps(box[0])
        except Exception:  # noqa: BLE001  whatever cannot be taken apart is changed as octets
            return None

    def _other(self, item: object) -> object:
        """Something that may stand in the place of `item`."""
        dice = self._dice.random
        draw = dice()
        if draw < 0.3:
            return _CBOR_LEAVES[int(dice() * len(_CBOR_LEAVES))]
        if isinstance(item, bool):
            return not item
        if isinstance(item, int):
            return item + int(dice() * 9) - 4 if draw < 0.7 else int(item * 4 * dice())
        if isinstance(item, bytes):
            octets = bytearray(item)
            _CHANGES[int(dice() * len(_CHANGES))](octets, self._dice)
            return bytes(octets)
        if isinstance(item, str):
            octets = bytearray(item.encode())
            _CHANGES[int(dice() * len(_CHANGES))](octets, self._dice)
            return octets.decode(errors="ignore")
        if isinstance(item, list):
            return self._other_list(item)
        return _CBOR_LEAVES[int(dice() * len(_CBOR_LEAVES))]

    def _other_list(self, items: list[object]) -> list[object]:
        dice = self._dice.random
        changed = list(items)
        at = int(dice() * (len(changed) + 1))
        match int(dice() * 5):
            case 0:
                del changed[at : at + 1]
            case 1:
                changed.insert(at, _CBOR_LEAVES[int(dice() * len(_CBOR_LEAVES))])
            case 2:
                changed[at:at] = changed[at : at + 2]
            case 3:
                changed[at:at] = changed[at : at + 1] * int(dice() * 20)
            case _:
                changed.reverse()
        return changed


def _list_places(box: Any, places: list[tuple[Any, Any]], depth: int = 0) -> None:
    """Every place of a tree where an item stands: its container and the key in there."""
    keys = range(len(box)) if isinstance(box, list) else list(box)
    for key in keys:
        if len(places) >= NODE_COUNT_MAX or depth >= NESTING_MAX:
            return
        places.append((box, key))
        item = box[key]
        if isinstance(item, list | dict):
            _list_places(item, places, depth + 1)


# Octet by octet. Each changes in place; an empty input stays or grows.


def _flip_bit(octets: bytearray, dice: random.Random) -> None:
    if octets:
        octets[int(dice.random() * len(octets))] ^= 1 << int(dice.random() * 8)


def _set_octet(octets: bytearray, dice: random.Random) -> None:
    if octets:
        octets[int(dice.random() * len(octets))] = int(dice.random() * 256)


def _add(octets: bytearray, dice: random.Random) -> None:
    if octets:
        at = int(dice.random() * len(octets))
        octets[at] = octets[at] + int(dice.random() * 17) - 8 & 0xFF


def _set_number(octets: bytearray, dice: random.Random) -> None:
    """An interesting number in one, two, four or eight octets."""
    size = 1 << int(dice.random() * 4)
    at = int(dice.random() * (len(octets) + 1))
    number = INTERESTING[int(dice.random() * len(INTERESTING))] & (1 << 8 * size) - 1
    octets[at : at + size] = number.to_bytes(size, "big")


def _insert(octets: bytearray, dice: random.Random) -> None:
    at = int(dice.random() * (len(octets) + 1))
    octets[at:at] = dice.randbytes(1 + int(dice.random() * INSERTED_MAX))


def _delete(octets: bytearray, dice: random.Random) -> None:
    if octets:
        at = int(dice.random() * len(octets))
        share = dice.random()
        del octets[at : at + 1 + int(share * share * (len(octets) - at))]


def _duplicate(octets: bytearray, dice: random.Random) -> None:
    if octets:
        at = int(dice.random() * len(octets))
        share = dice.random()
        piece = octets[at : at + 1 + int(share * share * (len(octets) - at))]
        to = int(dice.random() * (len(octets) + 1))
        octets[to:to] = piece


def _repeat(octets: bytearray, dice: random.Random) -> None:
    if octets:
        at = int(dice.random() * len(octets))
        share = dice.random()
        octets[at:at] = octets[at : at + 1] * int(share * share * REPEATED_MAX)


def _swap(octets: bytearray, dice: random.Random) -> None:
    if octets:
        one, other = int(dice.random() * len(octets)), int(dice.random() * len(octets))
        octets[one], octets[other] = octets[other], octets[one]


def _truncate(octets: bytearray, dice: random.Random) -> None:
    del octets[int(dice.random() * (len(octets) + 1)) :]


_CHANGES: Final[tuple[_Change, ...]] = (
    *(_flip_bit, _flip_bit, _set_octet, _set_octet, _add, _set_number, _set_number),
    *(_insert, _insert, _delete, _delete, _duplicate, _repeat, _swap, _truncate),
)
"""Twice what is small."""
