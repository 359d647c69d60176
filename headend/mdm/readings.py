"""Stored blocks as readings: instants, energy in units, and how far each value is to be trusted.

Gives   a channel's day with its values scaled; the multiplier is applied here and nowhere else
Raises  StoreError where a stored block cannot be unpacked
Never   fills in a value: what is missing is None and said to be missing
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import cbor2

from amistack.errors import ModelError, StoreError
from amistack.identifiers import Eui64, format_eui64
from amistack.model import IntervalBlock, Quality, ReadAnswer
from amistack.model.quality import runs_from_tree
from amistack.model.wire import DAY_S
from headend.domain.meters import ChannelRecord
from headend.domain.readings import BlockFlag, DayBlock, Method
from headend.mdm.days import format_day, start_of
from headend.store.interface import StoredBlock

Number = int | float
"""Exact where the multiplier is not negative, else the nearest double."""


@dataclass(frozen=True, slots=True)
class Interval:
    """One interval: from `start` (UTC s) for `duration_s`; None where no value is known."""

    start: int
    duration_s: int
    value: Number | None
    quality: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ChannelDay:
    """One channel of one meter for one day.

    `values` and `qualities` have an item for each interval of `interval_s` from `start` (UTC s);
    `opening` and `closing` are the register at the two midnights, `total` their difference, all in
    `unit`. `flags` is what is odd about the whole. The rest is provenance; `received_ms` UTC.
    """

    meter: Eui64
    day: int
    offset_min: int
    start: int
    channel: int
    reading_type: str
    register_type: str
    unit: str
    interval_s: int
    values: tuple[Number | None, ...]
    qualities: tuple[tuple[str, ...], ...]
    opening: Number
    closing: Number
    total: Number
    flags: tuple[str, ...]
    method: str
    path: str
    received_ms: int

    def intervals(self) -> Iterator[Interval]:
        """Each interval by itself, earliest first."""
        for index, (value, quality) in enumerate(zip(self.values, self.qualities, strict=True)):
            yield Interval(self.start + index * self.interval_s, self.interval_s, value, quality)


@dataclass(frozen=True, slots=True)
class RegisterNow:
    """A register at the instant of an on-demand read; None where its channel is not declared."""

    channel: int
    register_type: str
    unit: str
    value: Number | None


@dataclass(frozen=True, slots=True)
class ReadNow:
    """What a meter answered to an on-demand read. Instants are UTC s."""

    at: int
    clock_state: str
    day: int
    registers: tuple[RegisterNow, ...]
    channels: tuple[ChannelDay, ...]
    entries: tuple[tuple[int, int, str, str, bool], ...]


def channel_day(stored: StoredBlock) -> ChannelDay:
    """A stored block as readings. Raises StoreError if its octets are not what the intake took."""
    block = stored.block
    try:
        runs = runs_from_tree(cbor2.loads(block.qualities)) if block.qualities else ()
        readable = IntervalBlock(
            block.channel,
            block.interval_s,
            DAY_S // block.interval_s,
            block.opening,
            block.advance,
            block.packed,
            runs,
        )
        return _channel_day(
            block.meter,
            block.day,
            readable,
            stored.channel,
            offset_min=stored.offset_min,
            flags=flag_words(block.flags),
            method=Method(stored.method).name.lower().replace("_", " "),
            path=stored.path,
            received_ms=stored.received_ms,
        )
    except (ModelError, ValueError) as error:
        raise StoreError(f"{_name_of(block)} is damaged: {error}") from error


def read_now(
    meter: Eui64,
    answer: ReadAnswer,
    channels: dict[int, ChannelRecord],
    *,
    offset_min: int,
    path: str,
    received_ms: int,
) -> ReadNow:
    """An answer as readings; `channels` are those of its channel set. Raises ModelError."""
    registers = []
    for number, value in answer.registers:
        channel = channels.get(number)
        if channel is None:
            registers.append(RegisterNow(number, "", "", None))
        else:
            scaled_value = scaled(value, channel.multiplier)
            registers.append(RegisterNow(number, channel.register_type, channel.unit, scaled_value))
    days = [
        _channel_day(
            meter,
            answer.day,
            block,
            channels[block.channel],
            offset_min=offset_min,
            flags=(),
            method="on demand",
            path=path,
            received_ms=received_ms,
        )
        for block in answer.blocks
        if block.channel in channels
    ]
    return ReadNow(
        answer.clock.utc_s,
        answer.clock.state.name.lower(),
        answer.day,
        tuple(registers),
        tuple(days),
        tuple(
            (entry.sequence, entry.at, str(entry.event), entry.detail or "", entry.is_time_doubtful)
            for entry in answer.entries
        ),
    )


def _channel_day(
    meter: Eui64,
    day: int,
    block: IntervalBlock,
    channel: ChannelRecord,
    *,
    offset_min: int,
    flags: tuple[str, ...],
    method: str,
    path: str,
    received_ms: int,
) -> ChannelDay:
    power = channel.multiplier
    return ChannelDay(
        meter,
        day,
        offset_min,
        start_of(day, offset_min),
        block.channel,
        channel.reading_type,
        channel.register_type,
        channel.unit,
        block.interval_s,
        tuple(None if value is None else scaled(value, power) for value in block.values()),
        tuple(quality_words(quality) for quality in block.flags()),
        scaled(block.opening, power),
        scaled(block.closing, power),
        scaled(block.advance, power),
        flags,
        method,
        path,
        received_ms,
    )


def scaled(value: int, multiplier: int) -> Number:
    """`value` times ten to the power of `multiplier`: an int, or the double nearest to it."""
    power: int = 10 ** abs(multiplier)
    return value * power if multiplier >= 0 else value / power


def quality_words(quality: Quality) -> tuple[str, ...]:
    """Each flag in lower-case words; nothing for a plain good value."""
    return _QUALITY_WORDS[int(quality)]


def flag_words(flags: BlockFlag) -> tuple[str, ...]:
    """Each flag of a block in lower-case words."""
    return tuple((flag.name or "").lower().replace("_", " ") for flag in flags)


_QUALITY_WORDS = [
    tuple((flag.name or "").lower().replace("_", " ") for flag in Quality(number))
    for number in range(128)
]


def _name_of(block: DayBlock) -> str:
    return (
        f"the stored block of meter {format_eui64(block.meter)}, channel {block.channel}, "
        f"day {format_day(block.day)}"
    )
