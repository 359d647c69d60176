"""The meter's log: what goes on record, and what of it is told at once.

The contract under test: everything that may be kept is on record before `log` returns; by its
type's rule it is told at once, with the next read, or never; safety and service go first and
within 15 minutes; what is told is settled when it is acknowledged and not before, whatever happens
between; no chattering sensor fills the log or silences another.
"""

from __future__ import annotations

import itertools
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amistack.coap.codes import Code
from amistack.coap.message import Message
from amistack.errors import ModelError, StoreError
from amistack.model import CONTENT_FORMAT_V1, ClockState, EndDeviceEventType
from amistack.model import event_catalogue as types
from amistack.model.event_catalogue import CATALOGUE, Delivery, Importance, kind_of
from amistack.model.event_notice import EventRule, EventRules
from amistack.model.events import PRIMARY_POWER_FAILED, REGISTERED
from amistack.model.resources import EVENTS
from meterd.events.budget import ALL_BURST, ALL_PER_DAY, FIRST_TYPES_MAX, TYPE_BURST
from meterd.events.log import GAP_S, NOTICE_SIZE_MAX, UNDATED_AT
from meterd.parts import Urgency
from meterd.storage import ENTRY_COUNT_MAX
from tests.meterd.events.bench import EPOCH, METER, EventBench

DAY = 86_400
HOUR = 3600
KNOWN = list(CATALOGUE)


@pytest.mark.requirement("B1-FR-35")
@pytest.mark.parametrize("unmarked", [Delivery.LOG_ONLY, Delivery.NEXT_READ])
def test_all_events_are_logged_and_only_those_marked_are_sent(unmarked: Delivery) -> None:
    bench = EventBench()
    marked = KNOWN[::2]
    rules = tuple(
        EventRule(
            event,
            Delivery.AT_ONCE if event in marked else unmarked,
            Importance.INFORMATION,
        )
        for event in KNOWN
    )
    assert bench.put_rules(EventRules(7, rules)).code == Code.CHANGED
    for event in KNOWN:
        bench.log.log(event, now=bench.now)
    bench.elapse(HOUR)
    logged = [entry.event for entry in bench.logged()]
    assert logged[1:] == KNOWN
    # The change of the rules is an event as well.
    sent = [entry.event for entry in bench.sent]
    assert sorted(map(str, set(sent))) == sorted(map(str, marked))
    # What goes with the next read waits for it; what is only logged is settled.
    left = [entry.event for entry, is_settled in bench.rows()[1:] if not is_settled]
    assert left == [
        event for event in KNOWN if event not in marked and unmarked is Delivery.NEXT_READ
    ]


@pytest.mark.requirement("B1-FR-95")
def test_message_type_that_is_set_in_the_meter_is_what_its_messages_carry() -> None:
    bench = EventBench()
    rules = (
        EventRule(types.COVER_CLOSED, Delivery.AT_ONCE, Importance.CUSTOMER),
        EventRule(types.BATTERY_LOW, Delivery.AT_ONCE, Importance.SAFETY),
    )
    bench.put_rules(EventRules(1, rules))
    bench.restart()
    bench.log.log(types.COVER_CLOSED, now=bench.now)
    bench.log.log(types.BATTERY_LOW, now=bench.now)
    bench.elapse(60)
    (_, notice), *_ = bench.notices
    assert [(one.entry.event, one.importance) for one in notice.events] == [
        (types.BATTERY_LOW, Importance.SAFETY),
        (types.COVER_CLOSED, Importance.CUSTOMER),
    ]


@pytest.mark.requirement("B1-FR-98", "B1-FR-99")
def test_message_says_meter_clock_and_code_and_the_log_has_it_with_the_time_of_the_event() -> None:
    bench = EventBench()
    bench.is_reachable = False
    bench.elapse(1000)
    bench.log.log(types.TILTED, "north", now=bench.now)
    bench.log.log(types.VOLTAGE_LOW, now=bench.now)
    bench.elapse(500)
    bench.is_reachable = True
    bench.elapse(900)
    (at, notice) = bench.notices[0]
    assert notice.meter == METER
    assert notice.clock.utc_s == int(EPOCH + at)
    assert notice.clock.state is ClockState.SET
    assert [one.entry.event for one in notice.events] == [types.TILTED, types.VOLTAGE_LOW]
    assert {one.entry.at for one in notice.events} == {int(EPOCH + 1000)}
    assert [one.entry for one in notice.events] == bench.logged()


def test_what_goes_with_the_next_read_stays_unsettled_for_it() -> None:
    bench = EventBench()
    bench.log.log(REGISTERED, now=0.0)
    bench.elapse(DAY)
    assert bench.notices == []
    ((_, is_settled),) = bench.rows()
    assert not is_settled


@pytest.mark.requirement("I2-NFR-04")
@given(
    moments=st.lists(st.floats(0, 2 * HOUR), min_size=1, max_size=12),
    noise=st.lists(st.floats(0, 2 * HOUR), max_size=30),
    seed=st.integers(0, 1000),
)
@settings(deadline=None, max_examples=40)
def test_safety_and_service_are_sent_within_fifteen_minutes_whatever_else_happens(
    moments: list[float], noise: list[float], seed: int
) -> None:
    bench = EventBench(seed=seed)
    high = [event for event in KNOWN if kind_of(event).importance.is_high]
    low = [event for event in KNOWN if not kind_of(event).importance.is_high]
    dice = random.Random(seed)
    plan = [(at, dice.choice(high)) for at in moments] + [(at, dice.choice(low)) for at in noise]
    for at, event in sorted(plan, key=lambda one: one[0]):
        bench.elapse(max(at - bench.now, 0))
        bench.log.log(event, now=bench.now)
    bench.elapse(HOUR)
    arrived = {one.entry.sequence: at for at, notice in bench.notices for one in notice.events}
    for entry in bench.logged():
        if kind_of(entry.event).importance.is_high:
            assert arrived[entry.sequence] - (entry.at - EPOCH) <= 15 * 60


@pytest.mark.requirement("I2-NFR-04")
def test_failure_that_waits_for_the_link_is_sent_within_fifteen_minutes_of_its_return() -> None:
    bench = EventBench()
    bench.is_reachable = False
    bench.log.log(types.VOLTAGE_HIGH, now=0.0)
    bench.elapse(2 * DAY)
    bench.is_reachable = True
    back = bench.now
    bench.elapse(HOUR)
    assert 0 < bench.notices[0][0] - back <= 15 * 60
    # And it does not shout while nobody hears.
    assert len([at for at in bench.tries if at < back]) < 2 * DAY / 300 + 10


@pytest.mark.requirement("I2-FR-16")
def test_two_high_classes_leave_first_and_the_others_no_later_than_the_report() -> None:
    bench = EventBench()
    bench.is_reachable = False
    five = {
        types.BATTERY_LOW: Importance.INFORMATION,
        types.DEMAND_EXCEEDED: Importance.CUSTOMER,
        types.FLOW_REVERSED: Importance.BILLING,
        types.VOLTAGE_LOW: Importance.SERVICE,
        types.TILTED: Importance.SAFETY,
    }
    for event, importance in five.items():
        assert kind_of(event).importance is importance
        bench.log.log(event, now=bench.now)
    bench.elapse(HOUR)
    bench.is_reachable = True
    bench.elapse(HOUR)
    sent = [entry.event for entry in bench.sent]
    assert sent[:2] == [types.TILTED, types.VOLTAGE_LOW]
    left = {entry.event for entry, is_settled in bench.rows() if not is_settled}
    # What is not sent at once is what the next report takes: `entries_due` gives it all.
    assert set(sent) | left == set(five)
    due = bench.storage.entries(0, int(EPOCH + DAY), limit=64)
    assert {entry.event for entry in due} == left


def test_high_importance_speaks_as_an_alarm_and_the_rest_before_reports() -> None:
    bench = EventBench()
    assert bench.log.next_word(now=0.0) is None
    bench.log.log(types.CLOCK_SYNC_FAILED, now=0.0)
    due = bench.log.next_word(now=0.0)
    assert due == (0.0, Urgency.FREQUENT)
    bench.log.log(types.VOLTAGE_LOW, now=0.0)
    due = bench.log.next_word(now=0.0)
    assert due == (0.0, Urgency.ALARM)


def test_power_failure_waits_for_no_other_notice() -> None:
    bench = EventBench()
    bench.log.log(types.VOLTAGE_LOW, now=0.0)
    bench.elapse(1)
    bench.log.log(types.TILTED, now=bench.now)
    assert bench.log.next_word(now=bench.now) == (GAP_S, Urgency.ALARM)
    bench.log.log(PRIMARY_POWER_FAILED, now=bench.now)
    assert bench.log.next_word(now=bench.now) == (1.0, Urgency.ALARM)
    # Whoever drives the meter is woken for it.
    assert bench.log.next_timer() == 1.0


def test_events_go_in_notices_of_bounded_size_and_rate_each_exactly_once() -> None:
    bench = EventBench()
    at_once = [event for event in KNOWN if kind_of(event).delivery is Delivery.AT_ONCE]
    for event in at_once:
        bench.log.log(event, "x" * 64, now=0.0)
    bench.elapse(HOUR)
    assert sorted(entry.sequence for entry in bench.sent) == list(range(len(at_once)))
    times = [at for at, _ in bench.notices]
    assert len(times) > 1
    assert all(after - before >= GAP_S for before, after in itertools.pairwise(times))
    assert all(len(notice.encode()) <= NOTICE_SIZE_MAX for _, notice in bench.notices)
    assert bench.log.pending_count == 0


def test_what_is_not_acknowledged_is_told_after_a_power_cut() -> None:
    bench = EventBench()
    bench.is_reachable = False
    bench.log.log(types.TILTED, now=0.0)
    bench.elapse(30)
    bench.restart()
    bench.is_reachable = True
    bench.elapse(60)
    assert [entry.event for entry in bench.sent] == [types.TILTED]
    bench.restart()
    bench.elapse(60)
    assert len(bench.notices) == 1


def test_what_a_report_told_meanwhile_is_not_told_again() -> None:
    bench = EventBench()
    entry = bench.log.log(types.TILTED, now=0.0)
    assert entry is not None
    bench.storage.settle_entries([entry.sequence])
    bench.elapse(HOUR)
    assert bench.notices == []


def test_head_end_that_knows_no_notices_is_left_alone_for_a_day() -> None:
    bench = EventBench(answer=Message.response(Code.NOT_FOUND))
    bench.log.log(types.TILTED, now=0.0)
    bench.elapse(2 * DAY + 60)
    assert len(bench.tries) == 3
    ((_, is_settled),) = bench.rows()
    assert not is_settled


def test_entries_that_others_write_are_told_by_the_same_rules() -> None:
    bench = EventBench()
    rules = (EventRule(REGISTERED, Delivery.LOG_ONLY, Importance.INFORMATION),)
    bench.put_rules(EventRules(1, rules))
    for event in (types.TILTED, REGISTERED):
        bench.storage.keep_entry(int(EPOCH), event, None, is_time_doubtful=False)
    bench.elapse(60)
    assert [entry.event for entry in bench.sent] == [types.TILTED]
    assert bench.rows()[-1][1]


# Too much of it


def test_chattering_sensor_is_held_back_counted_and_starves_nobody() -> None:
    bench = EventBench()
    chatter = 10 * 60
    for _ in range(chatter):
        bench.log.log(types.VOLTAGE_LOW, now=bench.now)
        bench.elapse(1)
    kept = [entry for entry in bench.logged() if entry.event == types.VOLTAGE_LOW]
    assert len(kept) == TYPE_BURST
    assert bench.log.log(types.TILTED, now=bench.now) is not None
    bench.elapse(2 * HOUR)
    summaries = [entry for entry in bench.logged() if entry.event == types.EVENTS_SUPPRESSED]
    assert [entry.detail for entry in summaries] == [f"{chatter - TYPE_BURST}x {types.VOLTAGE_LOW}"]
    # What was left out would have been told at once: so is how much of it there was.
    assert types.EVENTS_SUPPRESSED in [entry.event for entry in bench.sent]


def test_counts_that_do_not_fit_into_one_summary_follow_an_hour_later() -> None:
    bench = EventBench()
    many = 10
    for event in KNOWN[:8]:
        for _ in range(many):
            bench.log.log(event, now=0.0)
    bench.elapse(6 * HOUR)
    summaries = [entry for entry in bench.logged() if entry.event == types.EVENTS_SUPPRESSED]
    assert len(summaries) > 1
    told: dict[str, int] = {}
    for entry in summaries:
        for part in (entry.detail or "").split(", "):
            count, name = part.split("x ")
            assert name not in told
            told[name] = int(count)
    assert told == {str(event): many - TYPE_BURST for event in KNOWN[:8]}
    for before, after in itertools.pairwise(summaries):
        assert after.at - before.at >= HOUR


@pytest.mark.requirement("I2-NFR-05")
def test_every_entry_is_kept_for_45_days_at_the_largest_rate_of_events() -> None:
    bench = EventBench()
    dice = random.Random(1)
    everything = [*KNOWN, EndDeviceEventType(3, 1, 1, 1), EndDeviceEventType(3, 1, 1, 2)]
    step = 1200
    first = None
    for _ in range(45 * DAY // step):
        for event in dice.sample(everything, 16):
            entry = bench.log.log(event, now=bench.now)
            first = first or entry
        timer = bench.log.next_timer()
        if timer is not None and timer <= bench.now:
            bench.log.handle_timer(now=bench.now)
        bench.now += step
    bench.storage.drop_entries_before(int(EPOCH + bench.now) - 45 * DAY)
    logged = bench.logged()
    assert logged[0] == first
    assert [entry.sequence for entry in logged] == list(range(len(logged)))
    assert len(logged) <= ENTRY_COUNT_MAX
    assert len(logged) >= 45 * ALL_PER_DAY
    assert len(logged) <= ALL_BURST + 46 * (ALL_PER_DAY + FIRST_TYPES_MAX + 24)


def test_restarts_give_no_new_budget() -> None:
    bench = EventBench()
    for _ in range(100):
        for _ in range(TYPE_BURST):
            for event in KNOWN[:8]:
                bench.log.log(event, now=bench.now)
        bench.restart()
        bench.now += 1
    # Per type the bucket is full after a start; the meter's own is not.
    assert len(bench.logged()) <= ALL_BURST + ALL_PER_DAY + FIRST_TYPES_MAX


def test_entry_that_was_taken_back_with_its_transaction_is_not_told_another_is() -> None:
    bench = EventBench()
    bench.log.log(REGISTERED, now=0.0)

    def fail() -> None:
        with bench.storage.together():
            bench.log.log(types.TILTED, now=0.0)
            raise StoreError("something else of it")

    with pytest.raises(StoreError):
        fail()
    bench.storage.keep_entry(int(EPOCH), types.VOLTAGE_LOW, None, is_time_doubtful=False)
    bench.elapse(60)
    assert [entry.event for entry in bench.sent] == [types.VOLTAGE_LOW]
    assert [entry.event for entry in bench.logged()] == [REGISTERED, types.VOLTAGE_LOW]


def test_entry_of_a_clock_in_doubt_is_flagged() -> None:
    bench = EventBench()
    bench.clock.forget_samples()
    doubtful = bench.log.log(types.TILTED, now=0.0)
    bench.tell_time()
    right = bench.log.log(types.TILTED, now=1.0)
    assert doubtful is not None
    assert right is not None
    assert (doubtful.is_time_doubtful, right.is_time_doubtful) == (True, False)


# Without a date


def test_event_of_a_lost_time_is_dated_by_counting_back_flagged_and_told_then() -> None:
    bench = EventBench(is_clock_set=False)
    bench.elapse(100)
    bench.log.log(types.TILTED, now=bench.now)
    bench.storage.keep_entry(5, types.COVER_OPENED, None, is_time_doubtful=False)
    bench.elapse(500)
    assert bench.notices == []
    assert {entry.at for entry in bench.logged()} == {UNDATED_AT}
    bench.tell_time()
    bench.elapse(60)
    assert [(entry.event, entry.at) for entry in bench.sent] == [
        (types.TILTED, int(EPOCH + 100)),
        (types.COVER_OPENED, int(EPOCH + 100)),
    ]
    assert all(entry.is_time_doubtful for entry in bench.sent)
    assert bench.log.log(types.TILTED, now=bench.now) is not None
    assert not bench.logged()[-1].is_time_doubtful


def test_event_whose_time_was_never_found_is_told_after_the_restart_as_no_older_than_the_log() -> (
    None
):
    bench = EventBench()
    bench.log.log(REGISTERED, now=0.0)
    bench.elapse(1000)
    bench.restart(is_clock_set=False)
    bench.log.log(types.TILTED, now=bench.now)
    bench.restart(is_clock_set=True)
    bench.elapse(60)
    (entry,) = bench.sent
    assert entry.at == int(EPOCH)
    assert entry.is_time_doubtful


# The rules


def read_back(bench: EventBench) -> EventRules:
    return EventRules.decode(bench.command(Message.request(Code.GET, EVENTS)).payload)


def test_rules_are_kept_and_read_back_and_their_change_is_on_record() -> None:
    bench = EventBench()
    assert EventRules.decode(
        bench.command(Message.request(Code.GET, EVENTS)).payload
    ) == EventRules(0)
    rules = EventRules(7, (EventRule(types.TILTED, Delivery.NEXT_READ, Importance.CUSTOMER),))
    assert bench.put_rules(rules).code == Code.CHANGED
    bench.restart()
    assert read_back(bench) == rules
    (entry,) = bench.logged()
    assert (entry.event, entry.detail) == (types.EVENT_RULES_CHANGED, "version 7, 1 rules")
    bench.log.log(types.TILTED, now=bench.now)
    bench.elapse(HOUR)
    assert bench.notices == []


def test_rules_that_are_none_or_cannot_be_kept_leave_the_old_ones() -> None:
    bench = EventBench()
    request = Message.request(
        Code.PUT, EVENTS, payload=b"\x82\x01", content_format=CONTENT_FORMAT_V1
    )
    with pytest.raises(ModelError):
        bench.command(request)
    assert bench.command(Message.request(Code.POST, EVENTS)).code == Code.METHOD_NOT_ALLOWED
    bench.files.fails_with = 28
    rules = EventRules(7, (EventRule(types.TILTED, Delivery.LOG_ONLY, Importance.CUSTOMER),))
    with pytest.raises(StoreError):
        bench.put_rules(rules)
    bench.files.fails_with = None
    assert bench.log.rules == EventRules(0)
    bench.log.log(types.TILTED, now=bench.now)
    bench.elapse(60)
    assert len(bench.sent) == 1


def test_log_that_cannot_be_kept_says_so_and_takes_the_next() -> None:
    bench = EventBench()
    bench.files.fails_with = 28
    with pytest.raises(StoreError):
        bench.log.log(types.TILTED, now=0.0)
    bench.files.fails_with = None
    assert bench.log.log(types.TILTED, now=1.0) is not None
    bench.elapse(60)
    assert [entry.sequence for entry in bench.sent] == [0]
