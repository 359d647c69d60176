"""The keeper of programmes: taken whole or refused, in force at its time, rolled back.

The contract under test: what was acknowledged is there after any restart; what was refused has
changed nothing; what records otherwise begins at a midnight, and no interval is lost or doubled
over it; each change is told once.
"""

from __future__ import annotations

import dataclasses
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amistack.coap.codes import Code
from amistack.errors import ConfigError, ModelError, StoreError
from amistack.model.event_catalogue import (
    PROGRAMME_CHANGED,
    PROGRAMME_REFUSED,
    VOLTAGE_LOW,
    Delivery,
    Importance,
)
from amistack.model.event_notice import EventRule
from amistack.model.programme import Programme, Threshold, ThresholdKind
from amistack.model.programme_state import (
    ProgrammeRefusal,
    ProgrammeStamp,
    ProgrammeState,
    RollBack,
)
from amistack.model.quantity import Quantity
from meterd.metrology import Flow
from meterd.programme.fit import HISTORY_DAYS, octets_of
from meterd.recorder import CHANNEL_SET
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
from tests.support.power import PowerCut, TornFiles


def put(meter: Meter, wanted: Programme) -> ProgrammeStamp:
    answer = meter.ask(Code.PUT, wanted.encode())
    assert answer.code == Code.CHANGED, ProgrammeRefusal.decode(answer.payload)
    return ProgrammeStamp.decode(answer.payload)


def refusal(meter: Meter, wanted: Programme) -> list[str]:
    answer = meter.ask(Code.PUT, wanted.encode())
    assert answer.code == Code.UNPROCESSABLE_ENTITY
    told = ProgrammeRefusal.decode(answer.payload)
    assert told.version == wanted.version
    return [str(fault) for fault in told.faults]


def state(meter: Meter) -> ProgrammeState:
    answer = meter.ask(Code.GET)
    assert answer.code == Code.CONTENT
    return ProgrammeState.decode(answer.payload)


def check_intervals(meter: Meter, days: range) -> None:
    """Every day whole, each register going on from the one before, all as the source has it."""
    closing: dict[int, int] = {}
    for day in days:
        blocks = {block.channel: block for block in meter.recorder.block(day)}
        begin = meter.recorder.start_of(day)
        for number, flow in ((1, Flow.DELIVERED), (2, Flow.RECEIVED)):
            block = blocks[number]
            assert block.count * block.interval_s == DAY
            assert block.values() == tuple(
                sum(
                    meter.source.value(second, flow) or 0
                    for second in range(start, start + block.interval_s, 300)
                )
                for start in range(begin, begin + DAY, block.interval_s)
            )
            assert block.is_consistent
            assert closing.get(number, block.opening) == block.opening
            closing[number] = block.closing


# Taken, and in force


@pytest.mark.requirement("B1-FR-126")
@pytest.mark.parametrize("minutes", [5, 10, 15, 30])
def test_interval_length_changes_from_afar_without_losing_or_doubling_an_interval(
    minutes: int,
) -> None:
    meter = Meter(utc=MIDNIGHT + 10 * 3600 + 17)
    stamp = put(meter, programme(1, minutes=minutes))
    assert stamp.since == MIDNIGHT + DAY
    meter.run_until(MIDNIGHT + 3 * DAY)
    lengths = [
        {block.interval_s for block in meter.recorder.block(day)}
        for day in range(TODAY - 1, TODAY + 3)
    ]
    assert lengths == [{3600}, {3600}, {minutes * 60}, {minutes * 60}]
    check_intervals(meter, range(TODAY - 1, TODAY + 3))


@pytest.mark.requirement("B1-FR-126")
def test_days_are_read_as_they_were_recorded_as_long_as_they_are_kept() -> None:
    meter = Meter()
    lengths = {}
    for version, minutes in enumerate((5, 10, 15, 30), start=1):
        put(meter, programme(version, minutes=minutes))
        lengths[TODAY + version - 1] = minutes * 60
        meter.run_until(MIDNIGHT + version * DAY)
    # 45 days whole, and the running one: the first is still there, the next day it is not.
    meter.run_until(MIDNIGHT + 46 * DAY - 1)
    meter.restart()
    for day, length in lengths.items():
        assert [block.interval_s for block in meter.recorder.block(day)] == [length] * 2
    check_intervals(meter, range(TODAY, TODAY + 45))
    meter.run_until(MIDNIGHT + 46 * DAY)
    assert meter.recorder.block(TODAY) == []
    check_intervals(meter, range(TODAY + 1, TODAY + 46))


@pytest.mark.parametrize("second", [0, 1, 7 * 3600, DAY - 1])
@pytest.mark.parametrize("offset_min", [-330, 0, 345])
def test_what_records_otherwise_begins_at_a_midnight_of_the_meters_standard_time(
    second: int, offset_min: int
) -> None:
    start = MIDNIGHT - offset_min * 60
    meter = Meter(utc=start, offset_min=offset_min)
    meter.run_until(start + second)
    stamp = put(meter, programme(1, offset_min=offset_min))
    assert stamp.since == (start if second == 0 else start + DAY)
    meter.run_until(start + 2 * DAY)
    assert [block.interval_s for block in meter.recorder.block(TODAY)] == [
        900 if second == 0 else 3600
    ] * 2
    check_intervals(meter, range(TODAY - 1, TODAY + 2))


def test_programme_waits_for_its_time_and_is_then_told_once() -> None:
    meter = Meter()
    stamp = put(meter, programme(1, applies_at=MIDNIGHT + 3 * DAY + 5))
    assert stamp.since == MIDNIGHT + 4 * DAY
    meter.run_until(MIDNIGHT + 4 * DAY - 1)
    told = state(meter)
    assert (told.running.version, told.waiting) == (0, stamp)
    assert meter.details(PROGRAMME_CHANGED) == []
    meter.restart()
    meter.run_until(MIDNIGHT + 4 * DAY + 1)
    told = state(meter)
    assert (told.running, told.waiting) == (stamp, None)
    meter.restart()
    meter.run_until(MIDNIGHT + 4 * DAY + 2)
    assert meter.details(PROGRAMME_CHANGED) == ["version 1"]


def test_thresholds_and_events_alone_are_in_force_at_their_second() -> None:
    seen: list[tuple[int, float]] = []
    meter = Meter(on_change=lambda one, now: seen.append((one.version, now)))
    put(meter, programme(1))
    meter.run_until(MIDNIGHT + DAY + 100)
    rule = EventRule(VOLTAGE_LOW, Delivery.AT_ONCE, Importance.SERVICE)
    second = dataclasses.replace(programme(2), events=(rule,))
    assert put(meter, second).since == MIDNIGHT + DAY + 100
    third = dataclasses.replace(programme(3), applies_at=MIDNIGHT + DAY + 500)
    assert put(meter, third).since == MIDNIGHT + DAY + 500
    meter.run_until(MIDNIGHT + DAY + 499)
    assert meter.keeper.running(now=meter.utc) == second
    meter.run_until(MIDNIGHT + DAY + 501)
    assert meter.keeper.running(now=meter.utc) == third
    assert [version for version, _ in seen] == [1, 2, 3]
    assert 0 <= seen[-1][1] - (MIDNIGHT + DAY + 500) <= 0.1


def test_state_shows_what_runs_by_version_and_digest_and_whole() -> None:
    meter = Meter()
    first = state(meter)
    assert first.running.version == 0
    assert first.programme.digest == first.running.digest
    assert first.previous is None
    wanted = programme(7)
    stamp = put(meter, wanted)
    meter.run_until(MIDNIGHT + DAY)
    after = state(meter)
    assert after.running == stamp == ProgrammeStamp(7, wanted.digest, MIDNIGHT)
    assert after.programme == wanted
    assert after.previous == first.running


def test_same_programme_again_is_the_same() -> None:
    meter = Meter(utc=MIDNIGHT + 5)
    stamp = put(meter, programme(1))
    assert put(meter, programme(1)) == stamp
    meter.run_until(MIDNIGHT + DAY + 5)
    assert put(meter, programme(1)) == stamp
    assert meter.details(PROGRAMME_CHANGED) == ["version 1"]


def test_later_programme_takes_the_place_of_one_that_waits() -> None:
    meter = Meter(utc=MIDNIGHT + 5)
    put(meter, programme(1))
    put(meter, programme(2, minutes=30))
    meter.run_until(MIDNIGHT + DAY + 5)
    told = state(meter)
    assert (told.running.version, told.waiting) == (2, None)
    assert told.previous is not None
    assert told.previous.version == 0
    versions = [row.programme.version for row in meter.recorder.shelf.rows()]
    assert versions == [0, 2]


def test_channel_set_is_new_with_new_channels_and_known_with_known_ones() -> None:
    meter = Meter(utc=MIDNIGHT + 5)
    put(meter, programme(1, minutes=15))
    meter.run_until(MIDNIGHT + DAY + 5)
    put(meter, programme(2, minutes=30))
    meter.run_until(MIDNIGHT + 2 * DAY + 5)
    put(meter, programme(3, minutes=15))
    meter.run_until(MIDNIGHT + 3 * DAY + 5)
    sets = [meter.recorder.channel_set_of(day) for day in range(TODAY, TODAY + 4)]
    assert sets == [CHANNEL_SET, 2, 3, 2]
    assert meter.recorder.channel_set == 2
    assert [one.interval_s for one in meter.recorder.channels] == [900, 900]
    assert [one.interval_s for one in meter.recorder.channels_of(TODAY + 2)] == [1800, 1800]


def test_number_of_a_channel_set_that_is_forgotten_is_not_given_again() -> None:
    meter = Meter(utc=MIDNIGHT + 5)
    for version, minutes in ((1, 15), (2, 30), (3, 10)):
        put(meter, programme(version, minutes=minutes))
        meter.run_until(meter.utc + DAY)
    meter.utc += 60 * DAY
    meter.recorder.advance(meter.utc)
    assert len(meter.recorder.shelf.rows()) == 3
    put(meter, programme(4, minutes=15))
    meter.run_until(meter.utc + DAY)
    assert meter.recorder.channel_set == 5


def test_number_of_a_channel_set_stays_used_when_its_programmes_are_forgotten() -> None:
    meter = Meter(utc=MIDNIGHT + 5)
    for version, minutes in ((1, 15), (2, 30), (3, 60)):
        put(meter, programme(version, minutes=minutes))
        meter.run_until(meter.utc + DAY)
    assert meter.recorder.channel_set == CHANNEL_SET
    rule = EventRule(VOLTAGE_LOW, Delivery.AT_ONCE, Importance.SERVICE)
    put(meter, dataclasses.replace(programme(4, minutes=60), events=(rule,)))
    meter.utc += 60 * DAY
    meter.recorder.advance(meter.utc)
    assert {row.channel_set for row in meter.recorder.shelf.rows()} == {CHANNEL_SET}
    put(meter, programme(5, minutes=10))
    meter.run_until(meter.utc + DAY)
    assert meter.recorder.channel_set == 4


def test_programme_stays_in_force_when_the_clock_goes_back() -> None:
    meter = Meter(utc=MIDNIGHT + 5)
    stamp = put(meter, programme(1))
    meter.run_until(MIDNIGHT + DAY + 7200)
    meter.utc -= 4 * 3600
    meter.restart()
    assert state(meter).running == stamp
    later = put(meter, programme(2, minutes=30))
    assert later.since == MIDNIGHT + 2 * DAY
    meter.run_until(MIDNIGHT + 3 * DAY)
    check_intervals(meter, range(TODAY, TODAY + 3))


# Rolled back


def test_roll_back_returns_to_the_programme_before_at_the_next_midnight() -> None:
    meter = Meter(utc=MIDNIGHT + 5)
    first = put(meter, programme(1, minutes=15))
    meter.run_until(MIDNIGHT + DAY + 5)
    put(meter, programme(2, minutes=5))
    meter.run_until(MIDNIGHT + 2 * DAY + 5)
    answer = meter.ask(Code.POST, RollBack(1).encode())
    assert answer.code == Code.CHANGED
    stamp = ProgrammeStamp.decode(answer.payload)
    assert stamp == ProgrammeStamp(1, first.digest, MIDNIGHT + 3 * DAY)
    again = meter.ask(Code.POST, RollBack(1).encode())
    assert ProgrammeStamp.decode(again.payload) == stamp
    meter.restart()
    meter.run_until(MIDNIGHT + 4 * DAY)
    assert state(meter).running == stamp
    check_intervals(meter, range(TODAY, TODAY + 4))
    assert meter.details(PROGRAMME_CHANGED) == ["version 1", "version 2", "version 1"]


def test_roll_back_to_what_runs_drops_what_waits() -> None:
    meter = Meter(utc=MIDNIGHT + 5)
    put(meter, programme(1))
    answer = meter.ask(Code.POST, RollBack(0).encode())
    assert ProgrammeStamp.decode(answer.payload).version == 0
    assert state(meter).waiting is None
    meter.run_until(MIDNIGHT + 2 * DAY)
    assert state(meter).running.version == 0
    assert meter.details(PROGRAMME_CHANGED) == ["version 1 withdrawn"]


def test_roll_back_to_what_is_not_there_changes_nothing() -> None:
    meter = Meter()
    answer = meter.ask(Code.POST, RollBack(3).encode())
    assert answer.code == Code.CONFLICT
    assert answer.payload == b"no version 3 to return to"
    assert state(meter).running.version == 0


# Refused


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        (programme(0), "version: 0 is what a meter does without"),
        (programme(1, offset_min=60), "it is fixed as a meter is set up"),
        (programme(1, channel(1, Quantity.VOLTAGE)), "does not measure voltage"),
        (programme(1, channel(1, Quantity.REACTIVE)), "does not measure reactive"),
        (
            dataclasses.replace(
                programme(1), thresholds=(Threshold(ThresholdKind.VOLTAGE_LOW, 2070),)
            ),
            "does not measure voltage",
        ),
        (programme(1, *TARIFF_CHANNELS), "tier 1, but there is no calendar"),
        (programme(1, applies_at=MIDNIGHT + 367 * DAY), "more than a year ahead"),
    ],
)
def test_what_cannot_be_is_refused_with_its_reason_and_changes_nothing(
    wanted: Programme, said: str
) -> None:
    meter = Meter()
    before = state(meter)
    assert any(said in fault for fault in refusal(meter, wanted)), refusal(meter, wanted)
    assert state(meter) == before
    (entry, *_) = meter.details(PROGRAMME_REFUSED)
    assert entry is not None
    assert entry.startswith(f"version {wanted.version}, ")


def test_grid_that_is_finer_than_the_source_measures_is_refused() -> None:
    class Coarse(FineSource):
        interval_s = 900

    meter = Meter(source=Coarse())
    assert "measures every 900 s" in refusal(meter, programme(1, minutes=5))[0]
    put(meter, programme(2, minutes=15))


def test_history_beyond_the_memory_is_refused_at_the_octet() -> None:
    wanted = programme(1, minutes=5)
    octets = octets_of(wanted)
    assert octets == HISTORY_DAYS * 2 * (48 + 288 * 2)
    assert f"46 days take {octets} octets" in refusal(Meter(memory_octets=octets - 1), wanted)[0]
    put(Meter(memory_octets=octets), wanted)


def test_version_that_was_another_programme_or_is_older_is_refused() -> None:
    meter = Meter()
    put(meter, programme(5))
    assert "was another programme" in refusal(meter, programme(5, minutes=30))[0]
    assert "is older than 5, which runs" in refusal(meter, programme(4))[0]


def test_octets_that_are_no_programme_are_refused_and_put_on_record() -> None:
    meter = Meter()
    with pytest.raises(ModelError):
        meter.ask(Code.PUT, b"\x80")
    assert len(meter.details(PROGRAMME_REFUSED)) == 1
    assert meter.ask(Code.DELETE).code == Code.METHOD_NOT_ALLOWED


@pytest.mark.parametrize("is_waiting", [False, True])
def test_source_that_cannot_do_what_the_meter_was_told_is_refused_at_the_start(
    is_waiting: bool,
) -> None:
    class Coarse(FineSource):
        interval_s = 900

    meter = Meter(utc=MIDNIGHT + 5)
    put(meter, programme(1, minutes=5))
    if not is_waiting:
        meter.run_until(MIDNIGHT + DAY + 5)
    meter.source = Coarse()
    with pytest.raises(ConfigError, match="programme 1 wants more than the metrology settings"):
        meter.restart()
    meter.source = FineSource()
    meter.restart()
    put(meter, programme(2, minutes=30))
    meter.run_until(MIDNIGHT + 3 * DAY)
    meter.source = Coarse()
    meter.restart()


# Power


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), cut=st.integers(1, 40))
def test_power_cut_at_any_write_leaves_the_old_programme_or_the_new(seed: int, cut: int) -> None:
    files = TornFiles(random.Random(seed))
    meter = Meter(utc=MIDNIGHT + 5, files=files)
    old = put(meter, programme(1))
    meter.run_until(MIDNIGHT + DAY + 5)
    files.cut_after(cut)
    acknowledged = None
    try:
        acknowledged = put(meter, programme(2, *TARIFF_CHANNELS, calendar=TWO_TIERS))
        meter.run_until(MIDNIGHT + 2 * DAY + 3600)
    except (PowerCut, StoreError):
        pass
    files.crash()
    meter.start()
    told = state(meter)
    stamps = [one for one in (told.running, told.waiting) if one is not None]
    if acknowledged is not None:
        assert acknowledged in stamps
    assert old in [*stamps, told.previous]
    meter.run_until(MIDNIGHT + 4 * DAY)
    check_intervals(meter, range(TODAY, TODAY + 4))
    final = state(meter).running.version
    assert meter.details(PROGRAMME_CHANGED)[-1] == f"version {final}"
    assert final == (2 if acknowledged or len(stamps) == 2 or told.running.version == 2 else 1)
