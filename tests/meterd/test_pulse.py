"""Pulses, on a pin and as lines of a counter.

The contract under test: any number of pulses is counted into the register exactly; a pin that
fails is told of and opened again, with what nobody counted as a gap; strange lines change nothing.
"""

from __future__ import annotations

import asyncio
import os
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amistack.errors import ConfigError
from meterd.metrology import LiveSource
from meterd.metrology.drivers import EdgeDriver, EdgeInput
from meterd.metrology.live import Sensor
from meterd.metrology.pulse import LINE_SIZE_MAX, PULSES_MAX, PulseCounter, PulseLines
from meterd.metrology.registers import Note, NoteKind, RegisterTracker
from meterd.metrology.source import Flow

MIDNIGHT = 20_700 * 86_400


@settings(deadline=None)
@given(
    per_kwh=st.integers(1, 100_000),
    added=st.lists(st.integers(0, 5_000), max_size=40),
    start=st.integers(0, 10**15),
)
def test_any_number_of_pulses_is_exact_to_a_milliwatt_hour(
    per_kwh: int, added: list[int], start: int
) -> None:
    counter = PulseCounter(per_kwh, start_mwh=start)
    shown = [counter.add(pulses).registers[0].mwh for pulses in added]
    assert shown == sorted(shown)
    if added:
        assert 0 <= sum(added) * 1_000_000 / per_kwh - (shown[-1] - start) < 1


@pytest.mark.parametrize("per_kwh", [0, -5, 100_001])
def test_number_that_no_meter_has_printed_on_it_is_refused(per_kwh: int) -> None:
    with pytest.raises(ConfigError, match="it is printed on the meter"):
        PulseCounter(per_kwh)


def test_lines_are_counted_from_the_first_whole_one() -> None:
    counter = PulseCounter(1_000)
    lines = PulseLines(counter)
    # The 5 may be the end of 15.
    assert list(lines.receive_data(b"5\n")) == []
    assert [one.registers[0].mwh for one in lines.receive_data(b"3\r\n 0 \n1")] == [3_000, 3_000]
    assert [one.registers[0].mwh for one in lines.receive_data(b"2\n")] == [15_000]
    lines.reset()
    assert list(lines.receive_data(b"2\n")) == []
    assert counter.count == 15


@pytest.mark.parametrize(
    "line", [b"", b"-1", b"1.5", b"x", b"1 2", b"9999999", b"%d" % (PULSES_MAX + 1), b"1" * 9_999]
)
def test_strange_line_is_counted_and_changes_nothing(line: bytes) -> None:
    counter = PulseCounter(1_000)
    lines = PulseLines(counter)
    assert list(lines.receive_data(b"\n" + line + b"\n")) == []
    assert lines.refused == {"unreadable": 1}
    assert (counter.count, len(lines._buffer)) == (0, 0)
    assert len(lines.receive_data(b"1\n")) == 1


@settings(deadline=None)
@given(data=st.lists(st.binary(max_size=40), max_size=10))
def test_nothing_that_comes_raises_or_collects(data: list[bytes]) -> None:
    lines = PulseLines(PulseCounter(1_000))
    for piece in data:
        lines.receive_data(piece)
        assert len(lines._buffer) <= LINE_SIZE_MAX + 1


class Pin:
    """An input of which each octet in a pipe is an edge."""

    def __init__(self) -> None:
        self._out, self._in = os.pipe()
        os.set_blocking(self._out, False)
        self.is_broken = False

    def fileno(self) -> int:
        return self._out

    def read(self) -> int:
        octets = os.read(self._out, 64)
        if self.is_broken:
            raise OSError(5, "input/output error")
        return len(octets)

    def close(self) -> None:
        os.close(self._out)
        os.close(self._in)

    def pulse(self, count: int = 1) -> None:
        os.write(self._in, b"x" * count)


class Bench:
    """An edge driver with a pin that can be broken, and a clock of the test's."""

    def __init__(self) -> None:
        self.utc = float(MIDNIGHT)
        self.notes: list[Note] = []
        self.pins: list[Pin] = []
        self.is_missing = False
        self.tracker = RegisterTracker((Flow.DELIVERED,), start_mwh=(7_000_000,))
        self.source = LiveSource(self.tracker)
        self.driver = EdgeDriver(
            Sensor(self.source),
            PulseCounter(1_000),
            self.open,
            silence_s=60,
            first_wait_s=0.01,
            check_s=0.01,
        )

    def open(self) -> EdgeInput:
        if self.is_missing:
            raise OSError(2, "No such file or directory")
        self.pins.append(Pin())
        return self.pins[-1]

    def start(self) -> None:
        self.driver.start(utc=lambda: self.utc, on_note=self.notes.append, dice=random.Random(1))

    async def until_shown(self, mwh: int) -> None:
        async with asyncio.timeout(10):
            while self.tracker.total_mwh != (mwh,):  # noqa: ASYNC110  a pipe is in between
                await asyncio.sleep(0.005)

    async def until_told(self, kind: NoteKind) -> None:
        async with asyncio.timeout(10):
            while kind not in [note.kind for note in self.notes]:  # noqa: ASYNC110
                await asyncio.sleep(0.005)

    async def stop(self) -> None:
        self.driver.stop()
        await self.driver.wait_stopped()


@pytest.mark.both_loops
async def test_pulses_of_a_pin_are_counted_from_where_the_operator_says() -> None:
    bench = Bench()
    bench.start()
    try:
        await bench.until_shown(7_000_000)
        bench.pins[0].pulse(3)
        await bench.until_shown(7_003_000)
        bench.utc += 900
        bench.pins[0].pulse(70)
        await bench.until_shown(7_073_000)
        # No pulse at all is no silence: nothing is drawn.
        bench.utc += 890
        await asyncio.sleep(0.05)
        bench.utc += 10
        await asyncio.sleep(0.05)
        assert bench.source.energy(MIDNIGHT + 900, 1) == [(0,)]
        assert bench.driver.sensor.is_there
        assert bench.notes == []
    finally:
        await bench.stop()


@pytest.mark.both_loops
async def test_pin_that_fails_is_told_of_and_opened_again_with_a_gap_between() -> None:
    bench = Bench()
    bench.start()
    try:
        await bench.until_shown(7_000_000)
        bench.is_missing = True
        bench.pins[0].is_broken = True
        bench.pins[0].pulse()
        await bench.until_told(NoteKind.VANISHED)
        assert bench.notes[0].detail == "pulse input: input/output error"
        await asyncio.sleep(0.05)
        era = bench.tracker.era
        bench.is_missing = False
        await bench.until_told(NoteKind.RETURNED)
        assert bench.tracker.era == era + 1
        bench.pins[1].pulse(2)
        await bench.until_shown(7_002_000)
        assert [note.kind for note in bench.notes] == [NoteKind.VANISHED, NoteKind.RETURNED]
    finally:
        await bench.stop()


async def test_register_goes_on_after_a_restart_and_the_running_interval_is_a_gap() -> None:
    tracker = RegisterTracker((Flow.DELIVERED,), start_mwh=(0,))
    source = LiveSource(tracker)
    counter = PulseCounter(1_000)
    source.take(counter.add(0), utc=MIDNIGHT - 1)
    source.take(counter.add(5), utc=MIDNIGHT + 1)
    kept = source.state()
    assert kept is not None
    again = RegisterTracker((Flow.DELIVERED,), start_mwh=(0,))
    later = LiveSource(again)
    later.resume(kept)
    later.break_off()
    counter = PulseCounter(1_000, start_mwh=again.shown_mwh("1.8.0") or 0)
    for second in range(100, 1_900, 10):
        later.take(counter.add(1), utc=MIDNIGHT + second)
    assert again.total_mwh == (5_000 + 180 * 1_000,)
    assert later.energy(MIDNIGHT, 2) == [(None,), (90,)]
