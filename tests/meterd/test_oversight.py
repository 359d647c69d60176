"""A whole meter that watches over itself, in conversation with a head-end by the book.

The contract under test: what happens is at the head-end as soon as its rule says, through the real
session; the clock is kept right by what the head-end tells, and by nobody else; a meter that lost
the time loses no interval and dates what it can; a network that fails is on record afterwards.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import pytest

from amistack.coap.codes import Code
from amistack.coap.message import Message
from amistack.errors import StoreError
from amistack.machine import Peer
from amistack.model import CONTENT_FORMAT_V1, ClockState, EndDeviceEventType, LogEntry, Quality
from amistack.model import event_catalogue as types
from amistack.model.clock import ClockSetting, ClockStatus
from amistack.model.diagnosis import Diagnosis, DiagnosisWish, Outcome
from amistack.model.event_catalogue import Delivery, Importance
from amistack.model.event_notice import EventRule, EventRules
from amistack.model.events import (
    CLOCK_SET,
    COLD_STARTED,
    PRIMARY_POWER_FAILED,
    PRIMARY_POWER_RESTORED,
)
from amistack.model.resources import CLOCK, DIAGNOSIS, EVENTS, TIME
from amistack.stack import RequestId
from meterd.agent import Agent, AgentEvent
from meterd.oversight import Oversight, clock_of
from meterd.recorder import RETENTION_DAYS, Recorder
from meterd.storage import LOG, Storage, entry_of
from tests.meterd.bench import DAY, METER, Bench, meter_key
from tests.support.head_end import Heard

HOUR = 3600


@dataclass
class Overseen:
    """An agent whose happenings are told to its oversight, as the daemon does it."""

    agent: Agent
    oversight: Oversight
    now: float = 0.0

    def receive_datagram(self, data: bytes, peer: Peer, *, now: float) -> None:
        self.now = now
        self.agent.receive_datagram(data, peer, now=now)

    def handle_timer(self, *, now: float) -> None:
        self.now = now
        self.agent.handle_timer(now=now)

    def data_to_send(self) -> list[tuple[Peer, bytes]]:
        return self.agent.data_to_send()

    def events(self) -> list[AgentEvent]:
        events = self.agent.events()
        for event in events:
            self.oversight.take(event, now=self.now)
        return events

    def next_timer(self) -> float | None:
        return self.agent.next_timer()


@dataclass
class OverseenBench(Bench):
    """A bench whose meter has all of it."""

    host_utc: float | None = None
    """What the host's clock shows at a start, if not the time."""
    oversight: Oversight = field(init=False)

    def power_on(self) -> object:  # type: ignore[override]
        self.start_count += 1
        dice = random.Random(f"meter {self.seed} {self.start_count}")
        now = self.world.now
        self.storage = Storage.on(self.files)
        utc = self.utc(now) + self.clock_error if self.host_utc is None else self.host_utc
        clock = clock_of(self.storage, utc=utc, now=now)
        source = self.make_source()
        recorder = Recorder(self.storage, source, offset_min=self.offset_min)
        self.oversight = Oversight(
            meter=METER,
            storage=self.storage,
            clock=clock,
            recorder=recorder,
            source=source,
            offset_min=self.offset_min,
            folder=None,
            dice=dice,
            now=now,
        )
        self.agent = Agent(
            meter=METER,
            key=meter_key(),
            head_end=self.head_end.key.credential,
            head_end_peer="head-end",
            storage=self.storage,
            recorder=recorder,
            clock=clock,
            schedule=self.schedule,
            offset_min=self.offset_min,
            entropy=dice.randbytes,
            dice=dice,
            parts=self.oversight.parts,
            voices=self.oversight.voices,
            log=self.oversight.events.log,
        )
        self.agent.start(now=now)
        self.host = self.world.add("meter", Overseen(self.agent, self.oversight, now))
        return self.host

    def logged(self) -> list[EndDeviceEventType]:
        return [entry_of(key, row).event for key, row in sorted(self.storage.items(LOG))]

    def entries(self, event: EndDeviceEventType) -> list[LogEntry]:
        entries = (entry_of(key, row) for key, row in sorted(self.storage.items(LOG)))
        return [entry for entry in entries if entry.event == event]

    def noticed(self) -> list[EndDeviceEventType]:
        return [one.entry.event for notice in self.head_end.notices for one in notice.events]

    def ask(self, code: Code, path: str, payload: bytes = b"") -> Message:
        """What the meter answers to the head-end."""
        message = Message.request(
            code, path, payload=payload, content_format=CONTENT_FORMAT_V1 if payload else None
        )
        count = len(self.head_end.answers)
        _: RequestId = self.head_end.ask(METER, message, "meter", now=self.world.now)
        self.settle_head_end()
        self.world.elapse(5)
        (answer,) = self.head_end.answers[count:]
        return answer.message

    def error_s(self) -> float:
        now = self.world.now
        return self.agent.clock.utc(now) - self.utc(now)


def started(**settings: object) -> OverseenBench:
    bench = OverseenBench(**settings)  # type: ignore[arg-type]
    bench.power_on()
    bench.world.elapse(60)
    return bench


def test_restart_is_told_at_once_before_all_that_is_owed() -> None:
    bench = started()
    assert bench.noticed() == []
    assert bench.logged()[0] == COLD_STARTED
    bench.power_off()
    bench.world.elapse(5 * DAY)
    heard = len(bench.head_end.heard)
    bench.power_on()
    bench.world.elapse(120)
    after = bench.head_end.heard[heard:]
    paths = [one.message.path for one in after]
    assert paths[:2] == ["reg", "ev"]
    assert paths.count("rep") == 5
    assert bench.noticed() == [PRIMARY_POWER_RESTORED]
    # Told once: the reports have the others.
    reported = [entry.event for report in bench.head_end.reports for entry in report.entries]
    assert PRIMARY_POWER_RESTORED not in reported


def test_last_gasp_leaves_within_the_turn_in_which_it_is_noticed() -> None:
    bench = started()
    bench.oversight.sources.power(is_there=False, now=bench.world.now)
    bench.host.settle()
    bench.world.elapse(0.5)
    assert bench.noticed() == [PRIMARY_POWER_FAILED]


def test_power_that_is_back_says_how_long_it_was_away_if_its_failure_was_noticed() -> None:
    bench = started()
    bench.oversight.sources.power(is_there=False, now=bench.world.now)
    bench.oversight.sources.battery(2.0, now=bench.world.now)
    bench.world.elapse(1)
    bench.power_off()
    bench.world.elapse(300)
    bench.power_on()
    bench.world.elapse(60)
    bench.restart()
    bench.world.elapse(60)
    details = [entry.detail for entry in bench.entries(PRIMARY_POWER_RESTORED)]
    # The second time it went without a word.
    assert details == ["after 301 s", None]
    assert bench.noticed() == [PRIMARY_POWER_FAILED, *[PRIMARY_POWER_RESTORED] * 2]


@pytest.mark.parametrize("ahead", [-60.0, 60.0])
def test_clock_is_corrected_by_what_the_head_end_tells(ahead: float) -> None:
    bench = started(clock_error=ahead)
    bench.world.elapse(2 * HOUR)
    assert abs(bench.error_s()) < 0.1
    assert bench.agent.clock.state_at(bench.world.now) is ClockState.SET
    assert bench.logged().count(CLOCK_SET) == 1


def flags_of(bench: OverseenBench, day: int) -> list[Quality]:
    (block,) = next(one for one in bench.head_end.reports if one.day == day).blocks
    return block.flags()


def test_interval_in_which_the_clock_was_corrected_is_flagged_and_no_other() -> None:
    bench = started(clock_error=-60.0)
    bench.world.elapse(2 * DAY)
    day = int(bench.epoch) // DAY
    (hour,) = {entry.at % DAY // HOUR for entry in bench.entries(CLOCK_SET)}
    flags = flags_of(bench, day)
    assert [place for place, flag in enumerate(flags) if flag] == [hour]
    assert flags[hour] is Quality.CLOCK_ADJUSTED
    assert not any(flags_of(bench, day + 1))


def test_intervals_are_flagged_from_the_moment_the_clock_is_out_of_step_until_it_is_set() -> None:
    bench = started(clock_error=7200.0)
    bench.world.elapse(DAY)
    stamp = round(bench.utc(bench.world.now) * 1000)
    set_at = bench.utc(bench.world.now)
    assert (
        bench.ask(Code.PUT, CLOCK, ClockSetting(b"operator", stamp).encode()).code == Code.CHANGED
    )
    bench.world.elapse(3 * DAY)
    day = int(bench.epoch) // DAY
    (told,) = bench.entries(types.CLOCK_OUT_OF_STEP)
    first, last = told.at % DAY // HOUR, int(set_at + 7200) % DAY // HOUR
    doubtful = Quality.TIME_DOUBTFUL
    assert [bool(flag & doubtful) for flag in flags_of(bench, day)] == [
        hour >= first for hour in range(24)
    ]
    assert [bool(flag & doubtful) for flag in flags_of(bench, day + 1)] == [
        hour <= last for hour in range(24)
    ]
    assert not any(flags_of(bench, day + 2))


def test_doubt_ends_when_the_head_end_has_come_right() -> None:
    bench = started()
    right = bench.head_end.wall
    bench.head_end.wall = lambda now: right(now) + 500
    bench.world.elapse(12 * HOUR)
    assert len(bench.entries(types.CLOCK_OUT_OF_STEP)) == 1
    bench.head_end.wall = right
    bench.world.elapse(4 * DAY)
    day = int(bench.epoch) // DAY
    (over,) = bench.entries(types.CLOCK_IN_STEP)
    assert over.at // DAY <= day + 2
    assert any(flag & Quality.TIME_DOUBTFUL for flag in flags_of(bench, day + 1))
    assert not any(flags_of(bench, day + 3))
    assert bench.entries(CLOCK_SET) == []


@pytest.mark.requirement("B1-FR-121")
@pytest.mark.parametrize(("ahead", "is_told"), [(119, False), (120, False), (121, True)])
def test_event_message_says_that_the_clock_is_out_of_step(ahead: int, *, is_told: bool) -> None:
    bench = started(clock_error=float(ahead))
    bench.world.elapse(2 * HOUR)
    assert (types.CLOCK_OUT_OF_STEP in bench.noticed()) is is_told
    state = bench.head_end.notices[-1].clock.state if is_told else None
    assert state in (None, ClockState.DOUBTFUL)


@pytest.mark.requirement("B1-FR-89")
@pytest.mark.parametrize("noon", [1_774_699_200, 1_792_843_200])  # before 29 March, 25 October 2026
def test_stamps_are_uniform_through_summer_time_and_an_operator_sets_the_clock(noon: int) -> None:
    bench = started(epoch=float(noon), offset_min=60)
    bench.world.elapse(3 * DAY)
    days = sorted({report.day for report in bench.head_end.reports})[-3:]
    assert [bench.recorder.start_of(day) for day in days] == [
        noon // DAY * DAY - HOUR + number * DAY for number in range(3)
    ]
    counts = {block.count for report in bench.head_end.reports for block in report.blocks}
    assert counts == {24}
    now = bench.world.now
    bench.agent.clock.move(7200.0, now=now)
    assert abs(bench.error_s()) > 7000
    stamp = round(bench.utc(bench.world.now) * 1000)
    answer = bench.ask(Code.PUT, CLOCK, ClockSetting(b"operator", stamp).encode())
    assert answer.code == Code.CHANGED
    bench.world.elapse(60)
    read_back = ClockStatus.decode(bench.ask(Code.GET, CLOCK).payload)
    assert abs(read_back.clock.utc_s - bench.utc(bench.world.now)) <= 6
    assert read_back.clock.state is ClockState.SET
    assert bench.logged().count(CLOCK_SET) == 1


@pytest.mark.requirement("B1-FR-90")
def test_time_is_asked_for_within_a_day_where_no_acknowledgement_tells_it() -> None:
    bench = started()

    def tell_when_asked(heard: Heard) -> Message | None:
        bench.head_end.is_time_known = heard.message.path == TIME
        return bench.head_end.plain_answer(heard)

    bench.head_end.answer_to = tell_when_asked
    bench.agent.clock.move(30.0, now=bench.world.now)
    asked = 0
    for _ in range(3):
        bench.world.elapse(DAY)
        times = [one for one in bench.head_end.heard if one.message.path == TIME]
        assert len(times) > asked
        asked = len(times)
    assert abs(bench.error_s()) < 0.1
    assert bench.logged().count(CLOCK_SET) == 1
    assert types.CLOCK_SYNC_FAILED not in bench.logged()


@pytest.mark.requirement("I2-FR-06")
def test_synchronisation_that_fails_is_reported() -> None:
    bench = started()

    def no_time(heard: Heard) -> Message | None:
        if heard.message.path == TIME:
            return Message.response(Code.NOT_FOUND)
        bench.head_end.is_time_known = False
        return bench.head_end.plain_answer(heard)

    bench.head_end.answer_to = no_time
    bench.world.elapse(21 * HOUR)
    assert bench.noticed() == [types.CLOCK_SYNC_FAILED]
    (entry,) = [one.entry for notice in bench.head_end.notices for one in notice.events]
    assert entry.detail is not None
    assert entry.detail.startswith("4.04")


@pytest.mark.requirement("I2-FR-08")
def test_communication_that_failed_is_in_the_log_with_its_time_when_the_link_is_back() -> None:
    bench = started()
    bench.silence_head_end()
    bench.world.elapse(bench.midnight(bench.today() + 1) + 600 - bench.world.now)
    tried = bench.utc(bench.world.now)
    assert bench.logged().count(types.COMMUNICATION_FAILED) == 1
    bench.world.elapse(5 * HOUR)
    assert bench.logged().count(types.COMMUNICATION_FAILED) == 1
    bench.open_head_end()
    bench.world.elapse(DAY)
    told = [entry for report in bench.head_end.reports for entry in report.entries]
    (failure,) = [entry for entry in told if entry.event == types.COMMUNICATION_FAILED]
    assert tried - 300 <= failure.at <= tried
    assert types.COMMUNICATION_RESTORED in [entry.event for entry in told]


def test_meter_that_lost_the_time_loses_no_interval_and_takes_it_from_the_session() -> None:
    bench = started()
    bench.power_off()
    bench.world.elapse(2 * DAY)
    bench.host_utc = 1000.0
    bench.silence_head_end()
    bench.power_on()
    bench.world.elapse(HOUR)
    assert bench.agent.clock.state_at(bench.world.now) is ClockState.UNSET
    until = bench.recorder.recorded_until
    bench.oversight.sources.cover(is_open=True, now=bench.world.now)
    opened = bench.utc(bench.world.now)
    bench.world.elapse(HOUR)
    assert bench.recorder.recorded_until == until
    bench.open_head_end()
    while bench.agent.clock.state_at(bench.world.now) is ClockState.UNSET:
        bench.world.elapse(1)
    bench.world.elapse(15)
    assert abs(bench.error_s()) < 0.1
    assert bench.logged().count(types.CLOCK_LOST) == 1
    assert bench.recorder.recorded_until == int(bench.utc(bench.world.now)) // HOUR * HOUR
    noticed = [one.entry for notice in bench.head_end.notices for one in notice.events]
    (cover,) = [entry for entry in noticed if entry.event == types.COVER_OPENED]
    assert abs(cover.at - opened) <= 1
    assert cover.is_time_doubtful
    bench.world.elapse(DAY)
    days = sorted(set(bench.head_end.days))
    assert days == list(range(days[0], days[-1] + 1))
    assert days[-1] == bench.today() - 1


@pytest.mark.parametrize("was_in_doubt", [False, True])
def test_operator_who_sets_a_lost_clock_leaves_marked_what_was_in_doubt(
    *, was_in_doubt: bool
) -> None:
    bench = started()
    if was_in_doubt:
        bench.head_end.wall = lambda now: bench.utc(now) + 500
    bench.world.elapse(DAY)
    bench.power_off()
    bench.world.elapse(2 * HOUR)
    bench.host_utc = 1000.0
    bench.silence_head_end()
    bench.power_on()
    begun = bench.utc(bench.world.now)
    if was_in_doubt:
        begun = bench.entries(types.CLOCK_OUT_OF_STEP)[-1].at
    bench.world.elapse(2 * HOUR)
    bench.head_end.wall = bench.utc
    stamp = ClockSetting(b"operator", round(bench.utc(bench.world.now) * 1000))
    assert bench.oversight.clock.set_by_command(stamp, bench.world.now) is None
    at = bench.utc(bench.world.now)
    assert abs(bench.error_s()) < 0.01
    bench.open_head_end()
    bench.world.elapse(DAY)
    flags: dict[int, Quality] = {}
    for report in bench.head_end.reports:
        (block,) = report.blocks
        start = bench.recorder.start_of(report.day)
        flags |= {start + HOUR * n: flag for n, flag in enumerate(block.flags())}
    for hour, flag in flags.items():
        is_doubtful = begun < hour + HOUR and hour <= at
        assert bool(flag & Quality.TIME_DOUBTFUL) is is_doubtful, (hour, flag)
        assert bool(flag & Quality.CLOCK_ADJUSTED) is (hour <= at < hour + HOUR)


def test_first_start_with_a_lost_time_records_its_history_when_it_has_one() -> None:
    bench = OverseenBench(host_utc=1000.0)
    bench.silence_head_end()
    bench.power_on()
    bench.world.elapse(HOUR)
    assert bench.recorder.recorded_until is None
    bench.open_head_end()
    bench.world.elapse(DAY)
    assert len(set(bench.head_end.days)) >= RETENTION_DAYS


def test_rules_are_set_and_a_diagnosis_is_asked_for_over_the_session() -> None:
    bench = started()
    rules = EventRules(3, (EventRule(types.TILTED, Delivery.LOG_ONLY, Importance.CUSTOMER),))
    assert bench.ask(Code.PUT, EVENTS, rules.encode()).code == Code.CHANGED
    assert EventRules.decode(bench.ask(Code.GET, EVENTS).payload) == rules
    bench.oversight.sources.tilt(is_tilted=True, now=bench.world.now)
    answer = bench.ask(Code.POST, DIAGNOSIS, DiagnosisWish().encode())
    assert answer.code == Code.CHANGED
    diagnosis = Diagnosis.decode(answer.payload)
    assert diagnosis.failed == ()
    assert Outcome.PASSED in {one.outcome for one in diagnosis.findings}
    bench.world.elapse(HOUR)
    assert bench.noticed() == []
    assert types.TILTED in bench.logged()


def test_storage_that_fails_stops_nothing_and_is_taken_up_again() -> None:
    bench = started()
    bench.fill_disk()
    for _ in range(20):
        with pytest.raises(StoreError):
            bench.oversight.sources.cover(is_open=True, now=bench.world.now)
        bench.world.elapse(60)
    bench.mend_disk()
    bench.oversight.sources.cover(is_open=True, now=bench.world.now)
    bench.world.elapse(DAY)
    # What the looks meanwhile would have said of themselves was left out, and is counted.
    assert set(bench.noticed()) <= {types.COVER_OPENED, types.EVENTS_SUPPRESSED}
    assert bench.noticed().count(types.COVER_OPENED) == 1
