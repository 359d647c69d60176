"""The common form of a daily report, read in one pass: what nearly every meter sends every day.

In a report of that form every record can be read, no interval has a quality flag and no log entry
a detail. Any other is for `DailyReport`, which says what is wrong with which record.

Spec    docs/protocol/model.md, "Daily report" and "Packed values"
Gives   exactly what `DailyReport.decode_leniently` gives for such a report, as plain tuples, with
        the sum and the smallest of the values of each block; None for any other octets
Raises  nothing
"""

from __future__ import annotations

import functools
import io
from typing import Final, NamedTuple

from amistack.cbor import read_item
from amistack.errors import CborError, ModelError
from amistack.model import wire
from amistack.model.clock import ClockState
from amistack.model.events import ENTRY_COUNT_MAX, SEQUENCE_MAX, EndDeviceEventType
from amistack.model.packing import total_and_floor
from amistack.model.readings import BLOCK_COUNT_MAX, CHANNEL_MAX, PACKED_SIZE_MAX
from amistack.model.report import CHANNEL_SET_MAX


class PlainBlock(NamedTuple):
    """A channel's day without a quality flag; `total` and `least` are of its values."""

    channel: int
    interval_s: int
    opening: int
    advance: int
    packed: bytes
    total: int
    least: int


class PlainEntry(NamedTuple):
    """A log entry without detail whose time is not doubtful; `event` is the code as text."""

    sequence: int
    at: int
    event: str


class PlainReport(NamedTuple):
    """What `DailyReport` says, in fewer words."""

    channel_set: int
    day: int
    utc_s: int
    state: ClockState
    blocks: list[PlainBlock]
    entries: list[PlainEntry]


def _intervals() -> dict[int, int]:
    found = {}
    for written in range(-wire.DAY_S, wire.DAY_S // 60 + 1):
        try:
            found[written] = wire.interval_from_tree(written)
        except ModelError:
            continue
    return found


INTERVALS: Final = _intervals()
"""Seconds of an interval by what is written for it: every one that there can be."""

_STATES: Final = tuple(ClockState)
_BLOCK_ITEMS: Final = [int, int, int, int, bytes]
_ENTRY_ITEMS: Final = [int, int, int, int, int, int]
_REPORT_ITEMS: Final = [int, int, int, int, list, list]


def read_plain(data: bytes) -> PlainReport | None:
    """The report in `data` if it has the common form."""
    if len(data) > wire.PAYLOAD_SIZE_MAX:
        return None
    stream = io.BytesIO(data)
    try:
        tree: object = read_item(stream)
    except CborError:
        return None
    if stream.tell() != len(data) or type(tree) is not list:
        return None
    # Exact types: a boolean is an int to Python, and is none to the model.
    if list(map(type, tree)) != _REPORT_ITEMS:
        return None
    channel_set, day, utc_s, state, block_items, entry_items = tree
    if not (
        0 <= channel_set <= CHANNEL_SET_MAX
        and 0 <= day <= wire.DAY_MAX
        and 0 <= utc_s <= wire.UTC_S_MAX
        and 0 <= state < len(_STATES)
        and len(block_items) <= BLOCK_COUNT_MAX
        and len(entry_items) <= ENTRY_COUNT_MAX
    ):
        return None
    blocks = []
    for item in block_items:
        block = _read_block(item)
        if block is None:
            return None
        blocks.append(block)
    if len(blocks) > 1 and len({block[0] for block in blocks}) < len(blocks):
        return None
    entries = []
    for item in entry_items:
        entry = _read_entry(item, day * wire.DAY_S)
        if entry is None:
            return None
        entries.append(entry)
    return PlainReport(channel_set, day, utc_s, _STATES[state], blocks, entries)


def _read_block(item: object) -> PlainBlock | None:
    if type(item) is not list or list(map(type, item)) != _BLOCK_ITEMS:
        return None
    channel, written, opening, advance, packed = item
    interval_s = INTERVALS.get(written)
    if (
        interval_s is None
        or not 0 <= channel <= CHANNEL_MAX
        or not -wire.REGISTER_MAX <= opening <= wire.REGISTER_MAX
        or not -wire.REGISTER_MAX <= advance <= wire.REGISTER_MAX
        or not -wire.REGISTER_MAX <= opening + advance <= wire.REGISTER_MAX
        or len(packed) > PACKED_SIZE_MAX
    ):
        return None
    values = total_and_floor(packed, wire.DAY_S // interval_s)
    if values is None:
        return None
    return PlainBlock(channel, interval_s, opening, advance, packed, *values)


def _read_entry(item: object, base_s: int) -> PlainEntry | None:
    if type(item) is not list or list(map(type, item)) != _ENTRY_ITEMS:
        return None
    sequence, offset, kind, domain, sub_domain, event_or_action = item
    at = base_s + offset
    if not (
        0 <= sequence <= SEQUENCE_MAX
        and -wire.UTC_S_MAX <= offset <= wire.UTC_S_MAX
        and 0 <= at <= wire.UTC_S_MAX
    ):
        return None
    event = _event(kind, domain, sub_domain, event_or_action)
    return None if event is None else PlainEntry(sequence, at, event)


@functools.lru_cache(maxsize=1024)
def _event(kind: int, domain: int, sub_domain: int, event_or_action: int) -> str | None:
    """An event's code as text, or None if it is none; a fleet logs a handful of them."""
    try:
        return str(EndDeviceEventType(kind, domain, sub_domain, event_or_action))
    except ModelError:
        return None


def write_plain_acknowledgement(received_ms: int, held_ms: int) -> bytes | None:
    """`ReportAcknowledgement` without a verdict as octets; None where it would be none."""
    if not 0 <= held_ms < 1 << 16 or not 1 << 32 <= received_ms <= wire.UTC_MS_MAX:
        return None
    if held_ms < 24:
        held = bytes((held_ms,))
    elif held_ms < 1 << 8:
        held = bytes((0x18, held_ms))
    else:
        held = b"\x19" + held_ms.to_bytes(2, "big")
    return b"\x83\x1b" + received_ms.to_bytes(8, "big") + held + b"\x80"
