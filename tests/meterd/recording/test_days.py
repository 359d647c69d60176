"""Days under a programme: intervals of every length, tariff registers, net energy.

The contract under test, with sums over the source's five minutes as the oracle: however the calls
of `advance` fall and however often the meter restarts, intervals are the source's, tariff registers
add up to the register of all, and no register falls or begins anew.
"""

from __future__ import annotations

import datetime as dt

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amistack.model.programme import Programme
from amistack.model.quantity import Quantity
from meterd.metrology import Flow, LiveSource
from meterd.metrology.registers import Reading, Register, RegisterTracker
from meterd.metrology.supply import MadeUpSupply
from meterd.recorder import RETENTION_DAYS, Recorder
from meterd.storage import Storage
from tests.meterd.programme.bench import (
    DAY,
    MIDNIGHT,
    TARIFF_CHANNELS,
    TODAY,
    TWO_TIERS,
    FineSource,
    Meter,
    channel,
    programme,
)
from tests.meterd.programme.test_fit import LARGEST

TARIFF = programme(1, *TARIFF_CHANNELS, calendar=TWO_TIERS)


def tier_at(second: int) -> int:
    """TWO_TIERS in a few words: tier 2 on working days from 07:00 to 21:30."""
    when = dt.datetime.fromtimestamp(second, dt.UTC)
    return 2 if when.weekday() < 5 and dt.time(7) <= when.time() < dt.time(21, 30) else 1


def energy_of(source: FineSource, first: int, end: int, tier: int = 0) -> int:
    return sum(
        source.value(second, Flow.DELIVERED) or 0
        for second in range(first, end, 300)
        if tier in (0, tier_at(second))
    )


def programmed(
    wanted: Programme, *, source: FineSource | None = None, has_supply: bool = False
) -> Meter:
    """A meter on which `wanted` runs from TODAY on."""
    meter = Meter(utc=MIDNIGHT, source=source, has_supply=has_supply)
    meter.keeper.take(wanted, now=MIDNIGHT)
    assert meter.keeper.running(now=MIDNIGHT) == wanted
    return meter


def registers(meter: Meter) -> dict[int, int]:
    return dict(meter.recorder.registers(meter.utc))


# Tariffs


@pytest.mark.parametrize("days", [1, 8])
def test_tariff_registers_add_up_to_the_register_of_all(days: int) -> None:
    meter = programmed(TARIFF)
    at_start = registers(meter)
    for step in range(1, 24 * days, 5):
        meter.run_until(MIDNIGHT + step * 3600 + 137)
        now = registers(meter)
        assert now[11] + now[12] == now[1] - at_start[1]
    end = MIDNIGHT + days * DAY
    meter.run_until(end)
    now = registers(meter)
    assert now[11] == energy_of(meter.source, MIDNIGHT, end, 1)
    assert now[12] == energy_of(meter.source, MIDNIGHT, end, 2)


@pytest.mark.requirement("B1-FR-85")
def test_every_midnight_has_a_register_read_on_every_channel_tariffs_too() -> None:
    meter = programmed(TARIFF)
    meter.run_until(MIDNIGHT + 7 * DAY + 1)
    for day in range(TODAY, TODAY + 7):
        blocks = {block.channel: block for block in meter.recorder.block(day)}
        assert sorted(blocks) == [1, 2, 11, 12]
        for tier in (1, 2):
            block = blocks[10 + tier]
            assert block.opening == energy_of(meter.source, MIDNIGHT, day * DAY, tier)
            assert block.values() == (energy_of(meter.source, day * DAY, (day + 1) * DAY, tier),)
            assert block.is_consistent
        assert blocks[11].advance + blocks[12].advance == blocks[1].advance


def test_gap_is_missing_in_the_tariff_that_it_fell_in_alone() -> None:
    gap = MIDNIGHT + 12 * 3600  # A Friday noon: tier 2.
    meter = programmed(TARIFF, source=FineSource(gaps=[gap]))
    meter.run_until(MIDNIGHT + DAY)
    blocks = {block.channel: block for block in meter.recorder.block(TODAY)}
    assert blocks[11].values() == (energy_of(meter.source, MIDNIGHT, MIDNIGHT + DAY, 1),)
    assert blocks[12].values() == (None,)
    # The quarter of an hour that has the gap in it adds nothing.
    quarter = energy_of(meter.source, gap, gap + 900)
    assert blocks[12].advance == energy_of(meter.source, MIDNIGHT, MIDNIGHT + DAY, 2) - quarter
    assert blocks[1].values()[48] is None
    assert blocks[11].advance + blocks[12].advance == blocks[1].advance


def test_registers_go_on_where_they_stood_when_a_programme_brings_them_back() -> None:
    meter = programmed(TARIFF)
    meter.run_until(MIDNIGHT + DAY + 60)
    meter.keeper.take(programme(2, channel(5, Quantity.RECEIVED)), now=meter.utc)
    meter.run_until(MIDNIGHT + 2 * DAY)
    stood = {block.channel: block.closing for block in meter.recorder.block(TODAY + 1)}
    meter.keeper.take(programme(3, *TARIFF_CHANNELS, calendar=TWO_TIERS), now=meter.utc + 60)
    meter.run_until(MIDNIGHT + 4 * DAY)
    (only,) = meter.recorder.block(TODAY + 2)
    assert (only.channel, only.opening) == (5, stood[2])
    back = {block.channel: block.opening for block in meter.recorder.block(TODAY + 3)}
    assert back == {**stood, 2: only.closing}


# Quantities


def test_net_is_delivered_less_received_and_may_be_negative() -> None:
    wanted = programme(
        1,
        channel(1, Quantity.DELIVERED),
        channel(2, Quantity.RECEIVED),
        channel(3, Quantity.NET, 5),
    )
    meter = programmed(wanted)
    assert registers(meter)[3] == registers(meter)[1] - registers(meter)[2]
    meter.run_until(MIDNIGHT + DAY + 450)
    assert registers(meter)[3] == registers(meter)[1] - registers(meter)[2]
    net = meter.recorder.block(TODAY)[2]
    expected = []
    for second in range(MIDNIGHT, MIDNIGHT + DAY, 300):
        delivered = meter.source.value(second, Flow.DELIVERED)
        received = meter.source.value(second, Flow.RECEIVED)
        assert delivered is not None
        assert received is not None
        expected.append(delivered - received)
    assert net.values() == tuple(expected)
    assert min(expected) < 0
    assert net.is_consistent


@pytest.mark.parametrize("minutes", [5, 15, 60])
def test_demand_channel_holds_the_mean_power_of_each_interval(minutes: int) -> None:
    wanted = programme(
        1, channel(1, Quantity.DELIVERED, minutes), channel(2, Quantity.DEMAND, minutes)
    )
    meter = programmed(wanted)
    meter.run_until(MIDNIGHT + DAY)
    energy, power = meter.recorder.block(TODAY)
    for wh, watts in zip(energy.values(), power.values(), strict=True):
        assert wh is not None
        assert watts is not None
        assert abs(watts - wh * 60 / minutes) <= 0.5
    assert power.is_consistent


def test_voltage_is_the_mean_and_reactive_energy_the_sum_of_what_the_supply_says() -> None:
    wanted = programme(
        1,
        channel(1, Quantity.DELIVERED),
        channel(6, Quantity.VOLTAGE, 30),
        channel(7, Quantity.REACTIVE, 60),
    )
    meter = programmed(wanted, has_supply=True)
    for hour in (3, 7, 20, 24):
        meter.run_until(MIDNIGHT + hour * 3600 + 450)
        meter.restart()
        assert registers(meter)[7] >= 0
    _, volts, reactive = meter.recorder.block(TODAY)
    # The plan's grid is a quarter of an hour: half an hour is the mean of two of them.
    quarters = [
        part.decivolts or 0
        for part in MadeUpSupply(meter.source).quality(MIDNIGHT, 96, length_s=900)
    ]
    assert volts.values() == tuple((sum(quarters[at : at + 2]) + 1) // 2 for at in range(0, 96, 2))
    parts = MadeUpSupply(meter.source).quality(MIDNIGHT, 288, length_s=300)
    varhs = [part.varh or 0 for part in parts]
    assert reactive.values() == tuple(sum(varhs[at : at + 12]) for at in range(0, 288, 12))
    assert volts.is_consistent
    assert reactive.is_consistent
    assert registers(meter)[7] == reactive.closing + sum(
        part.varh or 0
        for part in MadeUpSupply(meter.source).quality(MIDNIGHT + DAY, 1, length_s=300)
    )


# However the calls fall


@settings(max_examples=25, deadline=None)
@given(
    minutes=st.lists(st.sampled_from([5, 10, 15, 30, 60]), min_size=2, max_size=2),
    steps=st.lists(st.tuples(st.integers(1, DAY), st.booleans()), min_size=1, max_size=8),
    gaps=st.sets(st.integers(0, 3 * 288).map(lambda n: MIDNIGHT + 300 * n), max_size=6),
)
def test_intervals_are_the_sources_however_the_calls_fall(
    minutes: list[int], steps: list[tuple[int, bool]], gaps: set[int]
) -> None:
    wanted = programme(
        1,
        channel(1, Quantity.DELIVERED, minutes[0]),
        channel(2, Quantity.RECEIVED, minutes[1]),
        *TARIFF_CHANNELS[2:],
        calendar=TWO_TIERS,
    )
    meter = programmed(wanted, source=FineSource(gaps=sorted(gaps)))
    for step, restarts in steps:
        meter.utc += step
        meter.recorder.advance(meter.utc)
        partial = meter.recorder.block(meter.recorder.day_of(meter.utc))
        for block in partial:
            assert block.is_consistent
        if restarts:
            meter.restart()
    last = meter.recorder.day_of(meter.utc)
    for day in range(TODAY, last + 1):
        for block in meter.recorder.block(day)[:2]:
            flow = FineSource.flows[block.channel - 1]
            for place, value in enumerate(block.values()):
                first = day * DAY + place * block.interval_s
                parts = [
                    meter.source.value(second, flow)
                    for second in range(first, first + block.interval_s, 300)
                ]
                known = [part for part in parts if part is not None]
                assert value == (sum(known) if len(known) == len(parts) else None)
    now = registers(meter)
    assert now[11] + now[12] == now[1] - 1_000 - energy_of(
        meter.source, meter.source.known_from, MIDNIGHT
    )


# 45 days of everything


@pytest.mark.requirement("B1-FR-123", "B1-NFR-19")
def test_45_days_of_five_minutes_on_every_channel_are_there_and_the_46th_is_gone() -> None:
    meter = programmed(LARGEST, has_supply=True)
    meter.utc += 46 * DAY
    meter.recorder.advance(meter.utc)
    meter.restart()
    newest = TODAY + 45
    for day in range(newest - RETENTION_DAYS + 1, newest + 1):
        blocks = meter.recorder.block(day)
        assert [block.count for block in blocks] == [288] * 8
        assert all(block.is_consistent and not block.qualities for block in blocks)
        energies = meter.source.energy(day * DAY, 288)
        assert blocks[0].values() == tuple(delivered for delivered, _ in energies)
        assert blocks[1].values() == tuple(received for _, received in energies)
        assert blocks[2].values() == tuple((one[0] or 0) - (one[1] or 0) for one in energies)
        assert blocks[6].advance + blocks[7].advance == blocks[0].advance
    assert RETENTION_DAYS == 45
    assert meter.recorder.block(newest - RETENTION_DAYS) == []


# A storage that was recorded before there were programmes


def test_storage_of_a_meter_without_programmes_goes_on_and_takes_one() -> None:
    class Quarter(FineSource):
        interval_s = 900

        def value(self, start: int, flow: Flow) -> int | None:
            parts = [FineSource.value(self, start + 300 * i, flow) for i in range(3)]
            return sum(part or 0 for part in parts)

    meter = Meter(interval_s=900)
    storage = Storage.on(meter.files)
    old = Recorder(storage, Quarter(), offset_min=0, register_start=(1_000, 2_000))
    old.advance(MIDNIGHT + 7200)
    before = old.block(TODAY)
    storage.close()
    meter.utc = MIDNIGHT + 7200
    meter.restart()
    assert meter.recorder.block(TODAY) == before
    meter.keeper.take(programme(1, minutes=5), now=meter.utc)
    meter.run_until(MIDNIGHT + 2 * DAY)
    assert [block.interval_s for block in meter.recorder.block(TODAY)] == [900, 900]
    assert [block.interval_s for block in meter.recorder.block(TODAY + 1)] == [300, 300]
    first, second = meter.recorder.block(TODAY), meter.recorder.block(TODAY + 1)
    assert [block.closing for block in first] == [block.opening for block in second]


# Behind a real meter


def test_dial_that_moved_in_a_gap_goes_to_the_tariff_in_force_when_it_is_seen_again() -> None:
    tracker = RegisterTracker((Flow.DELIVERED,))
    source = LiveSource(tracker, interval_s=300, known_from=MIDNIGHT)

    def show(utc: int, wh: int) -> None:
        source.take(
            Reading((Register("1.8.0", Flow.DELIVERED, wh * 1000),), meter="M1"), utc=float(utc)
        )

    meter = Meter(utc=MIDNIGHT + 1)
    storage = Storage.on(type(meter.files)(meter.files.dice))
    recorder = Recorder(storage, source, offset_min=0, interval_s=900)
    wanted = programme(
        1,
        channel(1, Quantity.DELIVERED),
        *TARIFF_CHANNELS[2:],
        calendar=TWO_TIERS,
    )
    recorder.shelf.add(wanted, since=MIDNIGHT, utc=MIDNIGHT)
    for minute in range(0, 6 * 60 + 1, 1):
        show(MIDNIGHT + minute * 60, 5_000 + minute)
        recorder.advance(MIDNIGHT + minute * 60)
    # An hour and a half of silence, over the switch of tariffs at 07:00.
    for minute in range(7 * 60 + 30, 9 * 60 + 1):
        show(MIDNIGHT + minute * 60, 5_000 + minute)
        recorder.advance(MIDNIGHT + minute * 60)
    (total, low, high) = (one for _, one in recorder.registers(MIDNIGHT + 9 * 3600))
    assert total == 5_000 + 9 * 60
    assert low + high == 9 * 60
    assert low == 6 * 60
    (block, _, _) = recorder.block(TODAY)
    assert block.values()[23] == 15
    assert block.values()[24:30] == (None,) * 6
    assert block.closing == total
