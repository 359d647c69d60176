"""Recorded households through the whole chain: file, meter, secured stack, store.

The contract under test: what the head-end stores is, per interval and per day, the watt-hours of
the file. The expected values are computed here from the file's lines, with nothing of the meter's.
"""

from __future__ import annotations

import csv
import gzip
import time
from collections import defaultdict
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import cbor2
import pytest

from amistack.model.packing import unpack
from headend.store.interface import StoredBlock
from tests.support.street import Street, street
from tests.support.test_data import recorded_data

DAY_S = 86_400
WINDOW_DAYS = 45

# File, minutes east of UTC of the meter's days, seconds of an interval, where windows begin.
HOUSEHOLDS = [
    ("il-electricity-cdd-hdd-hourly", -360, 3600, (1, 400)),
    ("il-electricity-cdd-only-hourly", -360, 3600, (200,)),
    ("uk-electricity-hdd-only-hourly-sample-0", 0, 3600, (1, 500)),
    ("uk-electricity-hdd-only-hourly-sample-1", 0, 1800, (1, 120, 300, 420)),
    ("uk-electricity-hdd-only-hourly-sample-2", 0, 1800, (60, 500)),
]
WINDOWS = [
    (name, offset_min, interval_s, first)
    for name, offset_min, interval_s, firsts in HOUSEHOLDS
    for first in firsts
]

Row = tuple[str, int, int]
"""The line's text, UTC second of the stamp, watt-hours."""


def rows_of(name: str) -> list[Row]:
    """Every row of a recorded file; stamps without an offset are UTC."""
    path = recorded_data() / "interval" / f"{name}.csv.gz"
    rows = []
    with gzip.open(path, "rt") as file:
        reader = csv.reader(file)
        next(reader)
        for stamp, value in reader:
            when = datetime.fromisoformat(stamp)
            if when.tzinfo is None:
                when = when.replace(tzinfo=UTC)
            energy = Decimal(value) * 1000
            # Some were written from binary fractions: 1.4529999 kWh is 1453 Wh.
            assert abs(energy - round(energy)) < Decimal("1e-3"), "expected whole watt-hours"
            rows.append((f"{stamp},{value}\n", int(when.timestamp()), round(energy)))
    return rows


def window_of(rows: list[Row], offset_min: int, first: int) -> list[Row]:
    """The rows of WINDOW_DAYS days, counted from the `first` day that the file has."""
    days = sorted({(second + offset_min * 60) // DAY_S for _, second, _ in rows})
    begin = days[min(first, len(days) - WINDOW_DAYS - 1)]
    return [
        row for row in rows if begin <= (row[1] + offset_min * 60) // DAY_S < begin + WINDOW_DAYS
    ]


def last_whole_day(window: list[Row], offset_min: int, interval_s: int) -> int:
    stamps = defaultdict(set)
    for _, second, _ in window:
        stamps[(second + offset_min * 60) // DAY_S].add(second)
    return max(day for day, seen in stamps.items() if len(seen) == DAY_S // interval_s)


@pytest.mark.timeout(180)
async def test_stored_watt_hours_are_those_of_the_file(tmp_path: Path) -> None:
    recorded = {name: rows_of(name) for name, *_ in HOUSEHOLDS}
    windows = [
        window_of(recorded[name], offset_min, first) for name, offset_min, _, first in WINDOWS
    ]
    metrology = []
    for number, window in enumerate(windows):
        file = tmp_path / f"window-{number}.csv"
        file.write_text("start,value\n" + "".join(line for line, _, _ in window))
        metrology.append(
            [
                'source = "replay"',
                f'path = "{file}"',
                'unit = "kWh"',
                'zone = "UTC"',
                'stamp = "start"',
                'shift = "last-day-is-yesterday"',
                f"interval_s = {WINDOWS[number][2]}",
            ]
        )
    offsets = [
        f"{'-' if o < 0 else '+'}{abs(o) // 60:02}:{abs(o) % 60:02}" for _, o, _, _ in WINDOWS
    ]
    begun = time.time()
    async with street(tmp_path, metrology, standard_offsets=offsets) as running:
        await running.until(
            lambda: _all_settled(running), what="every report acknowledged", timeout_s=90.0
        )
        for number, (name, offset_min, interval_s, _) in enumerate(WINDOWS):
            window = windows[number]
            yesterday = int(begun + offset_min * 60) // DAY_S - 1
            shift = yesterday - last_whole_day(window, offset_min, interval_s)
            blocks = await running.store.blocks(running.identities[number].meter, 0, 99_999)
            check(name, window, blocks, shift * DAY_S, offset_min, interval_s, yesterday)


async def _all_settled(running: Street) -> bool:
    counts = await running.store.counts()
    if counts.registered < len(running.meters):
        return False
    return not any(meter.agent.owed_count for meter in running.meters)


def check(
    name: str,
    window: list[Row],
    blocks: list[StoredBlock],
    shift_s: int,
    offset_min: int,
    interval_s: int,
    yesterday: int,
) -> None:
    """Compare a meter's stored blocks with the rows of its window, moved by `shift_s`."""
    expected: dict[int, int] = {}
    for _, second, energy in window:
        expected.setdefault(second + shift_s, energy)
    first = min((second + offset_min * 60) // DAY_S for second in expected)
    stored: dict[int, int | None] = {}
    for entry in blocks:
        block = entry.block
        start = block.day * DAY_S - offset_min * 60
        values: list[int | None] = [*unpack(block.packed, DAY_S // interval_s)]
        for at, count, flags in cbor2.loads(block.qualities) if block.qualities else ():
            if flags & 1:
                values[at : at + count] = [None] * count
        for place, value in enumerate(values):
            stored[start + place * interval_s] = value
        # Per day, too: what the register grew by is what the file says of the day.
        of_day = [
            energy
            for second, energy in expected.items()
            if (second + offset_min * 60) // DAY_S == block.day
        ]
        assert block.advance == sum(of_day), f"{name}: day {block.day}"
        assert block.flags == 0, f"{name}: day {block.day} was flagged {block.flags}"
    assert {entry.block.day for entry in blocks} >= set(range(first, yesterday + 1))
    reported = {
        second: energy
        for second, energy in expected.items()
        if (second + offset_min * 60) // DAY_S <= yesterday
    }
    assert {second: wh for second, wh in stored.items() if wh is not None} == reported, name
    assert len(reported) > 0.5 * WINDOW_DAYS * DAY_S // interval_s, "the window proves too little"
