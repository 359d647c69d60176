"""What a head-end's store holds, read by hand: plain SQL, and the packing as its page says it.

Nothing of the project's own code is used here, so that a codec that is wrong both ways is noticed.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cbor2

MISSING = 1
ANSWERED = 1
ASKED = 0

Values = tuple[int | None, ...]


@dataclass(frozen=True)
class StoredDay:
    """One channel's day: its values in order, None where one is missing; registers in Wh."""

    opening: int
    advance: int
    values: Values


@contextlib.contextmanager
def opened(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection that only reads; what is committed and not in the main file yet is seen."""
    connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)
    try:
        yield connection
    finally:
        connection.close()


def stored_days(path: Path) -> dict[tuple[str, int, int], StoredDay]:
    """Every stored day by meter (hex), channel and day."""
    with opened(path) as connection:
        rows = connection.execute(
            "SELECT meter, channel, day, interval_s, opening, advance, packed, qualities "
            "FROM day_block"
        ).fetchall()
    days: dict[tuple[str, int, int], StoredDay] = {}
    for meter, channel, day, interval_s, opening, advance, packed, qualities in rows:
        key = (meter.hex(), channel, day)
        assert key not in days, f"{key} is stored twice"
        values: list[int | None] = list(unpacked(packed, 86_400 // interval_s))
        for first, count, flags in cbor2.loads(qualities) if qualities else ():
            if flags & MISSING:
                values[first : first + count] = [None] * count
        days[key] = StoredDay(opening, advance, tuple(values))
    return days


def reported_days(path: Path) -> dict[str, set[int]]:
    """The days whose report is stored, by meter (hex)."""
    with opened(path) as connection:
        rows = connection.execute("SELECT meter, day FROM report").fetchall()
    found: dict[str, set[int]] = {}
    for meter, day in rows:
        assert day not in found.setdefault(meter.hex(), set()), f"{meter.hex()} {day} twice"
        found[meter.hex()].add(day)
    return found


def reads(path: Path) -> dict[str, int]:
    """The result of every on-demand read, by its identifier (hex)."""
    with opened(path) as connection:
        rows = connection.execute("SELECT identifier, result, answer FROM on_demand_read")
        return {
            identifier.hex(): result
            for identifier, result, answer in rows
            if result != ANSWERED or answer
        }


def quarantined(path: Path) -> list[str]:
    """Why records were set aside."""
    with opened(path) as connection:
        return [reason for (reason,) in connection.execute("SELECT reason FROM quarantine")]


def log_entries(path: Path) -> dict[str, list[tuple[int, int, str]]]:
    """Sequence, time and type of what is stored of each meter's (hex) log, in order."""
    found: dict[str, list[tuple[int, int, str]]] = {}
    with opened(path) as connection:
        for meter, *entry in connection.execute(
            "SELECT meter, sequence, at, event_type FROM log_entry ORDER BY meter, sequence"
        ):
            found.setdefault(meter.hex(), []).append((entry[0], entry[1], entry[2]))
    return found


def unpacked(packed: bytes, count: int) -> list[int]:
    """Packed values, bit by bit as docs/protocol/model.md draws them."""
    if not packed:
        return [0] * count
    zigzag, place = 0, 0
    while True:
        octet = packed[place]
        zigzag |= (octet & 0x7F) << 7 * place
        place += 1
        if octet < 0x80:
            break
    floor = zigzag // 2 if zigzag % 2 == 0 else -(zigzag + 1) // 2

    block_count = -(-count // 8)
    nibbles = packed[place : place + -(-block_count // 2)].hex()
    place += len(nibbles) // 2
    widths = [int(nibble, 16) for nibble in nibbles[:block_count]]
    for number, width in enumerate(widths):
        if width == 15:
            widths[number] = packed[place]
            place += 1

    bits = "".join(f"{octet:08b}" for octet in packed[place:])
    values, at = [], 0
    for number, width in enumerate(widths):
        for _ in range(min(8, count - 8 * number)):
            values.append(floor + int(bits[at : at + width] or "0", 2))
            at += width
    assert not bits[at:].strip("0"), "something behind the last value"
    assert len(bits) - at < 8, "octets behind the last value"
    return values
