"""All that a meter holds, for a field tool at its local port or the head-end: parts, in pages.

A part is what a path of the meter or of the head-end would carry, under that path's name: a read of
the registers, a daily report for each day, the switch's state. Its payload is that message of the
model, whole. What no path carries by itself has a message of its own, in `amistack.model.holdings`.

Spec    docs/protocol/model.md, "Dump"
Raises  `ModelError`, and nothing else, from every decoder
Limit   PAGE_SIZE_MAX octets of parts in a page before they are deflated, PAGE_COUNT_MAX pages
Never   inflates more than a page may hold
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from amistack.errors import ModelError
from amistack.model import wire

PATH_SIZE_MAX: Final = 16
PART_SIZE_MAX: Final = 32_768
PART_COUNT_MAX: Final = 4_096
PAGE_SIZE_MAX: Final = 49_152
PACKED_SIZE_MAX: Final = PAGE_SIZE_MAX + 512
"""What cannot be deflated grows by some octets in ten thousand."""
PAGE_COUNT_MAX: Final = 64
DEFLATE_LEVEL: Final = 6


@dataclass(frozen=True, slots=True)
class DumpPart:
    """One message of the model, and the path that carries such messages."""

    path: str
    payload: bytes

    def __post_init__(self) -> None:
        wire.text(self.path, 1, PATH_SIZE_MAX, "path")
        wire.octets(self.payload, 1, PART_SIZE_MAX, "part")


@dataclass(frozen=True, slots=True)
class DumpRequest:
    """Asks for a page, 0 the first: with that the meter takes what it holds at this moment."""

    page: int

    def __post_init__(self) -> None:
        wire.integer(self.page, 0, PAGE_COUNT_MAX - 1, "page")

    def encode(self) -> bytes:
        """The request's one encoding."""
        return wire.dump([self.page])

    @classmethod
    def decode(cls, data: bytes) -> DumpRequest:
        """The request that `data` is the encoding of."""
        items = wire.array(wire.load(data), 1, 1, "dump request")
        return cls(wire.integer(items[0], 0, PAGE_COUNT_MAX - 1, "page"))


@dataclass(frozen=True, slots=True)
class DumpPage:
    """Page `number` of `count`; `packed` are its parts, deflated (RFC 1950)."""

    number: int
    count: int
    packed: bytes

    def __post_init__(self) -> None:
        wire.integer(self.count, 1, PAGE_COUNT_MAX, "count of pages")
        wire.integer(self.number, 0, self.count - 1, "page")
        wire.octets(self.packed, 1, PACKED_SIZE_MAX, "packed parts")

    def parts(self) -> tuple[DumpPart, ...]:
        """The parts. Raises ModelError."""
        items = wire.array(wire.load(_inflated(self.packed)), 0, PART_COUNT_MAX, "parts")
        return tuple(_part_from_tree(item) for item in items)

    def encode(self) -> bytes:
        """The page's one encoding."""
        return wire.dump([self.number, self.count, self.packed])

    @classmethod
    def decode(cls, data: bytes) -> DumpPage:
        """The page that `data` is the encoding of. What is packed is not looked into."""
        number, count, packed = wire.array(wire.load(data), 3, 3, "dump page")
        pages = wire.integer(count, 1, PAGE_COUNT_MAX, "count of pages")
        return cls(
            wire.integer(number, 0, pages - 1, "page"),
            pages,
            wire.octets(packed, 1, PACKED_SIZE_MAX, "packed parts"),
        )


def pages_of(parts: Iterable[DumpPart]) -> list[DumpPage]:
    """The pages of a dump, at least one. Raises ModelError if they are more than PAGE_COUNT_MAX."""
    packed = [_deflated(some) for some in _grouped(parts)] or [_deflated([])]
    if len(packed) > PAGE_COUNT_MAX:
        raise ModelError("too long", f"{len(packed)} pages, at most {PAGE_COUNT_MAX}")
    return [DumpPage(number, len(packed), one) for number, one in enumerate(packed)]


def _grouped(parts: Iterable[DumpPart]) -> Iterator[list[DumpPart]]:
    group: list[DumpPart] = []
    size = _HEAD_SIZE
    for part in parts:
        more = len(part.payload) + len(part.path.encode()) + _HEAD_SIZE
        if group and (size + more > PAGE_SIZE_MAX or len(group) == PART_COUNT_MAX):
            yield group
            group, size = [], _HEAD_SIZE
        group.append(part)
        size += more
    if group:
        yield group


_HEAD_SIZE: Final = 8
"""Octets that CBOR's heads of a part take at most."""


def _deflated(parts: Sequence[DumpPart]) -> bytes:
    return zlib.compress(wire.dump([[one.path, one.payload] for one in parts]), DEFLATE_LEVEL)


def _inflated(packed: bytes) -> bytes:
    machine = zlib.decompressobj()
    try:
        octets = machine.decompress(packed, PAGE_SIZE_MAX + 1)
    except zlib.error as error:
        raise ModelError("not deflated", str(error)[:80]) from error
    if len(octets) > PAGE_SIZE_MAX:
        raise ModelError("too long", f"a page of more than {PAGE_SIZE_MAX} octets")
    if not machine.eof or machine.unused_data:
        raise ModelError("not deflated", "cut off, or followed by more")
    return octets


def _part_from_tree(item: object) -> DumpPart:
    path, payload = wire.array(item, 2, 2, "part")
    return DumpPart(
        wire.text(path, 1, PATH_SIZE_MAX, "path"), wire.octets(payload, 1, PART_SIZE_MAX, "part")
    )
