"""A head-end whose own clock is wild, or seems to be.

The contract under test: a clock before this program was made, or behind the newest thing stored, or
outvoted by meters that had the right time, is in doubt, each on both sides of its limit; the
kernel's word and the operator's end the doubt; while there is one no time is told, and no report is
judged by the clock or set aside for its day; what the doubt is can be seen.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amistack.coap.codes import Code
from amistack.coap.message import Message
from amistack.model import (
    ClockReading,
    ClockState,
    RegistrationAcknowledgement,
    ReportAcknowledgement,
)
from amistack.model.resources import REGISTRATION, REPORT, TIME
from headend.domain.readings import BlockFlag, DayBlock
from headend.southbound.intake import DAY_AGE_MAX, Intake, Refused, Uplink, record_of
from headend.southbound.known import KnownMeters
from headend.southbound.own_clock import (
    BEHIND_MAX_S,
    MADE_AT,
    METERS_MAX,
    METERS_MIN,
    OFF_MAX_S,
    OwnClock,
)
from headend.store.interface import Kept
from tests.headend.test_southbound import Street
from tests.support import headend as world
from tests.support.headend import NOW, TODAY, meter_id, post

METER = meter_id(1)


def clock(
    now: float = NOW, *, newest: int = 0, kernel: bool = False, vouched: bool = False
) -> OwnClock:
    made = OwnClock(wall=lambda: now, is_synchronised=lambda: kernel, is_vouched_for=vouched)
    made.newest_stored = newest
    return made


# What speaks against it


@pytest.mark.parametrize(("now", "is_doubted"), [(MADE_AT - 1, True), (MADE_AT, False)])
def test_time_before_the_program_was_made_is_doubted(now: int, is_doubted: bool) -> None:
    assert (clock(now).doubt is not None) is is_doubted
    assert (clock(now, kernel=True).doubt is not None) is is_doubted, "no kernel is that wrong"


@pytest.mark.parametrize(
    ("behind_s", "is_doubted"), [(BEHIND_MAX_S, False), (BEHIND_MAX_S + 1, True)]
)
def test_time_behind_the_store_is_doubted(behind_s: int, is_doubted: bool) -> None:
    assert (clock(newest=NOW + behind_s).doubt is not None) is is_doubted


@pytest.mark.parametrize("direction", [1, -1])
@pytest.mark.parametrize(
    ("count", "off_s", "is_doubted"),
    [
        (METERS_MIN, OFF_MAX_S + 1, True),
        (METERS_MIN, OFF_MAX_S, False),
        (METERS_MIN - 1, OFF_MAX_S + 1, False),
    ],
)
def test_meters_outvote_it_when_enough_are_off_by_enough(
    direction: int, count: int, off_s: float, is_doubted: bool
) -> None:
    judged = clock()
    for number in range(count):
        judged.hear(meter_id(number), direction * off_s)
    assert (judged.doubt is not None) is is_doubted


def test_meters_that_disagree_among_themselves_outvote_nothing() -> None:
    judged = clock()
    for number in range(20):
        judged.hear(meter_id(number), 10_000.0 if number % 2 else -10_000.0)
    assert judged.doubt is None


@given(st.integers(METERS_MIN, 40), st.data())
def test_three_in_four_are_needed(total: int, data: st.DataObject) -> None:
    off = data.draw(st.integers(0, total))
    judged = clock()
    for number in range(total):
        judged.hear(meter_id(number), 9_999.0 if number < off else 0.0)
    assert (judged.doubt is not None) is (4 * off >= 3 * total)


def test_one_meter_has_one_voice_and_old_voices_give_way() -> None:
    judged = clock()
    for _ in range(50):
        judged.hear(METER, 9_999.0)
    assert judged.doubt is None
    for number in range(METERS_MAX):
        judged.hear(meter_id(100 + number), 9_999.0)
    assert judged.doubt is not None
    for number in range(METERS_MAX):
        judged.hear(meter_id(1_000 + number), 0.0)
    assert judged.doubt is None


# What ends the doubt


@pytest.mark.parametrize("ends", [{"kernel": True}, {"vouched": True}])
def test_kernel_and_operator_overrule_store_and_meters(ends: dict[str, bool]) -> None:
    judged = clock(newest=NOW + 10**6, **ends)
    for number in range(10):
        judged.hear(meter_id(number), 10_000.0)
    assert judged.doubt is None


def test_operator_overrules_everything() -> None:
    assert clock(0, vouched=True).doubt is None


# What is done meanwhile


@pytest.fixture
def intake() -> Intake:
    sets = KnownMeters()
    registered = record_of(world.registration(METER), NOW)
    sets.add(METER, registered.channel_set, registered.channels)
    return Intake(sets)


def take(
    intake: Intake, message: Message, *, received_s: int = 1_000
) -> tuple[list[object], Message]:
    taken = intake.take(Uplink(METER, message, received_s * 1000, is_time_known=False))
    return list(taken.records), taken.answer((Kept.NEW,) * len(taken.records), 3)


def test_report_is_taken_unjudged_and_no_time_is_told(intake: Intake) -> None:
    records, answer = take(intake, post(REPORT, world.report().encode()))
    (block,) = [record for record in records if isinstance(record, DayBlock)]
    assert block.flags == BlockFlag(0)
    told = ReportAcknowledgement.decode(answer.payload)
    assert (told.received_ms, told.verdicts) == (0, ())
    assert not intake.quarantined


def test_the_same_report_is_set_aside_where_the_clock_is_believed(intake: Intake) -> None:
    old = (TODAY + DAY_AGE_MAX + 2) * 86_400
    uplink = Uplink(METER, post(REPORT, world.report().encode()), old * 1000)
    intake.take(uplink)
    assert intake.quarantined


def test_meter_that_doubts_its_own_clock_is_flagged_all_the_same(intake: Intake) -> None:
    report = world.report(clock=ClockReading(NOW, ClockState.DOUBTFUL))
    records, _ = take(intake, post(REPORT, report.encode()))
    (block,) = [record for record in records if isinstance(record, DayBlock)]
    assert block.flags == BlockFlag.CLOCK_DOUBTFUL


def test_registration_is_taken_and_no_time_is_told(intake: Intake) -> None:
    _, answer = take(intake, post(REGISTRATION, world.registration(METER).encode()))
    assert RegistrationAcknowledgement.decode(answer.payload).received_ms == 0


def test_question_for_the_time_is_put_off(intake: Intake) -> None:
    with pytest.raises(Refused, match="own clock in doubt") as caught:
        take(intake, Message.request(Code.GET, TIME))
    assert caught.value.answer.code == Code.SERVICE_UNAVAILABLE


# The whole head-end


async def test_head_end_started_with_a_wild_clock_says_so_and_serves_no_time(
    tmp_path: Path,
) -> None:
    street = Street(tmp_path / "s.sqlite")
    await street.start()
    await street.enrol(METER)
    await street.stop()
    street.wall = float(NOW - 400 * 86_400)
    await street.start()
    try:
        assert street.southbound.clock_doubt is not None
        meter = street.meter(METER)
        await meter.join()
        answer = await meter.ask(post(REGISTRATION, world.registration(METER).encode()))
        assert RegistrationAcknowledgement.decode(answer.payload).received_ms == 0
        answer = await meter.ask(post(REPORT, world.report().encode()))
        assert ReportAcknowledgement.decode(answer.payload).verdicts == ()
        refused = await meter.ask(Message.request(Code.GET, TIME))
        assert refused.code == Code.SERVICE_UNAVAILABLE
        assert street.southbound.refused["model: own clock in doubt"] == 1
        meter.close()
    finally:
        await street.stop()
