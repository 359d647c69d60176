"""A whole meter that is programmed: agent, sessions and all, in a world with a head-end.

The contract under test: what the head-end sets is acknowledged, in force at its midnight, declared
before anything of it is reported, and every day is reported under the channels that it was
recorded on, whatever is lost on the way and whenever the power goes.
"""

from __future__ import annotations

import dataclasses
import random

import pytest

from amistack.coap.codes import Code
from amistack.coap.message import Message
from amistack.model import (
    CONTENT_FORMAT_V1,
    ReadParts,
    RegistrationReason,
)
from amistack.model.event_catalogue import VOLTAGE_LOW, Delivery, Importance
from amistack.model.event_notice import EventRule, EventRules
from amistack.model.programme import DemandRules, Programme
from amistack.model.programme_state import ProgrammeStamp, ProgrammeState
from amistack.model.quantity import Quantity
from amistack.model.registers import DemandReset, RegistersAnswer
from amistack.model.resources import EVENTS, PROGRAMME, REGISTERS
from amistack.model.schedule import ReadSchedule
from meterd.agent import Agent, AgentEvent
from meterd.clock import MeterClock
from meterd.events import EventLog
from meterd.programme.declaring import Declaring
from meterd.programme.parts import programme_parts
from meterd.recorder import Recorder
from meterd.storage import Storage
from tests.meterd.bench import DAY, EPOCH, METER, Bench, meter_key
from tests.meterd.programme.bench import (
    TARIFF_CHANNELS,
    TWO_TIERS,
    FineSource,
    channel,
    programme,
)
from tests.meterd.recording.test_days import energy_of
from tests.support.worlds import Host, LinkQuality

TODAY = int(EPOCH) // DAY
DEMAND = DemandRules(900, 300)
FULL = (*TARIFF_CHANNELS, channel(20, Quantity.NET, 60))


class Programmed(Bench):
    """A meter with its programme parts, as the daemon composes it."""

    def power_on(self) -> Host[AgentEvent]:
        self.start_count += 1
        dice = random.Random(f"meter {self.seed} {self.start_count}")
        now = self.world.now
        self.storage = Storage.on(self.files)
        recorder = Recorder(
            self.storage,
            FineSource(known_from=(TODAY - 2) * DAY),
            offset_min=self.offset_min,
            interval_s=3600,
        )
        clock = MeterClock(utc=self.utc(now), now=now)
        # Its rules are followed; what it would tell by itself is not this test's.
        events = EventLog(self.storage, clock, meter=METER, dice=dice, now=now)

        def follow(wanted: Programme, now: float) -> None:
            events.take_rules(EventRules(wanted.version, wanted.events), now=now)

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
            parts=(
                events,
                *programme_parts(
                    self.storage,
                    recorder,
                    clock,
                    offset_min=self.offset_min,
                    log=events.log,
                    on_change=follow,
                ),
            ),
            voices=(Declaring(self.storage, recorder, clock, meter=METER, dice=dice),),
        )
        self.agent.start(now=now)
        self.host = self.world.add("meter", self.agent)
        self.log += self.host.log
        self.host.log = self.log
        return self.host

    def ask(self, code: Code, path: str, payload: bytes = b"") -> Message:
        """The meter's answer to any request."""
        message = Message.request(
            code,
            path,
            payload=payload,
            content_format=None if code == Code.GET else CONTENT_FORMAT_V1,
        )
        before = len(self.head_end.answers)
        self.head_end.ask(METER, message, "meter", now=self.world.now)
        self.settle_head_end()
        self.world.elapse(60)
        (answer,) = self.head_end.answers[before:]
        return answer.message

    def run_to(self, day: int, second: float = 0.0) -> None:
        self.world.run(until=self.midnight(day) + second)


def put(one: Programmed, wanted: Programme) -> ProgrammeStamp:
    answer = one.ask(Code.PUT, PROGRAMME, wanted.encode())
    assert answer.code == Code.CHANGED, answer.payload
    return ProgrammeStamp.decode(answer.payload)


def check_heard(one: Programmed) -> None:
    """Every report's blocks are of the channels that were last declared for its set by then."""
    declared: dict[int, dict[int, int]] = {}
    for heard in one.head_end.heard:
        if heard.registration is not None:
            channels = heard.registration.channels
            declared[heard.registration.channel_set] = {c.number: c.interval_s for c in channels}
        if heard.report is not None:
            blocks = {block.channel: block.interval_s for block in heard.report.blocks}
            assert blocks == declared[heard.report.channel_set]


def test_new_channels_are_declared_before_their_days_are_reported() -> None:
    one = Programmed()
    one.power_on()
    one.run_to(TODAY, 18 * 3600)
    stamp = put(one, programme(1, *FULL, calendar=TWO_TIERS))
    assert stamp.since == (TODAY + 1) * DAY
    one.run_to(TODAY + 3, 3600)
    check_heard(one)
    said = [(said.channel_set, said.reason) for said in one.head_end.registrations]
    assert said == [
        (1, RegistrationReason.COLD_BOOT),
        (2, RegistrationReason.PROGRAMME_CHANGED),
    ]
    sets = {report.day: report.channel_set for report in one.head_end.reports}
    assert (sets[TODAY - 1], sets[TODAY], sets[TODAY + 1], sets[TODAY + 2]) == (1, 1, 2, 2)


def test_every_declaration_says_the_same_standard_offset() -> None:
    one = Programmed(offset_min=60)
    one.power_on()
    one.run_to(TODAY, 18 * 3600)
    assert put(one, programme(1, offset_min=60)).since == (TODAY + 1) * DAY - 3600
    one.run_to(TODAY + 2, 3600)
    assert [said.standard_offset_min for said in one.head_end.registrations] == [60, 60]


def test_days_of_a_set_that_was_never_declared_are_declared_first() -> None:
    one = Programmed()
    one.power_on()
    one.run_to(TODAY, 18 * 3600)
    put(one, programme(1, minutes=15))
    one.silence_head_end()
    one.run_to(TODAY + 1, 3600)
    # By hand, while nobody hears it.
    one.recorder.shelf.add(
        programme(2, minutes=30), since=(TODAY + 2) * DAY, utc=one.utc(one.world.now)
    )
    one.run_to(TODAY + 3, 3600)
    one.restart()
    one.open_head_end()
    one.run_to(TODAY + 4, 3600)
    check_heard(one)
    assert {2, 3} <= {report.channel_set for report in one.head_end.reports}
    assert one.head_end.registrations[-1].channel_set == 3


@pytest.mark.requirement("B1-FR-01")
def test_intervals_energy_demand_and_every_tariff_register_reach_the_head_end() -> None:
    one = Programmed()
    one.power_on()
    one.run_to(TODAY, 18 * 3600)
    put(one, programme(1, *FULL, calendar=TWO_TIERS, demand=DEMAND))
    one.run_to(TODAY + 2, 12 * 3600)
    report = next(report for report in one.head_end.reports if report.day == TODAY + 1)
    blocks = {block.channel: block for block in report.blocks}
    assert blocks[1].count == 96
    assert None not in blocks[1].values()
    source = FineSource(known_from=0)
    begin, end = (TODAY + 1) * DAY, (TODAY + 2) * DAY
    assert [blocks[channel].advance for channel in (1, 11, 12)] == [
        energy_of(source, begin, end, tier) for tier in (0, 1, 2)
    ]

    answer = one.ask(Code.GET, REGISTERS)
    assert answer.code == Code.CONTENT
    told = RegistersAnswer.decode(answer.payload)
    by_type = {str(reading.reading_type): reading.value for reading in told.registers}
    total = by_type["0.0.0.1.1.1.12.0.0.0.0.0.0.0.0.0.72.0"]
    first = by_type["0.0.0.9.1.1.12.0.0.0.0.1.0.0.0.0.72.0"]
    second = by_type["0.0.0.9.1.1.12.0.0.0.0.2.0.0.0.0.72.0"]
    # Up to noon; the answer came within seconds.
    noon = end + DAY // 2
    assert first == pytest.approx(energy_of(source, begin, noon, 1), abs=2)
    assert second == pytest.approx(energy_of(source, begin, noon, 2), abs=2)
    assert first + second == total - blocks[1].opening
    assert told.demand is not None
    assert str(told.demand.peak_type) == "8.8.71.6.1.1.8.0.0.0.0.0.0.0.0.0.38.0"
    energies = [values[0] or 0 for values in source.energy(begin, 288 + 144)]
    peaks = [sum(energies[at : at + 3]) * 4 for at in range(len(energies) - 2)]
    assert told.demand.running.peak == max(peaks)
    assert told.demand.running.peak_at == begin + (peaks.index(max(peaks)) + 3) * 300


@pytest.mark.requirement("RP-FR-01")
def test_interval_tariffs_reporting_and_events_are_reprogrammed_from_afar() -> None:
    one = Programmed()
    one.power_on()
    one.run_to(TODAY, 18 * 3600)

    put(one, programme(1, minutes=15))
    one.run_to(TODAY + 2, 3600)
    lengths = [(block.interval_s, block.count) for block in one.recorder.block(TODAY + 1)]
    assert lengths == [(900, 96), (900, 96)]

    put(one, programme(2, *FULL, calendar=TWO_TIERS))
    one.run_to(TODAY + 4, 3600)
    blocks = {block.channel: block for block in one.recorder.block(TODAY + 3)}
    assert blocks[11].advance + blocks[12].advance == blocks[1].advance

    hourly = ReadSchedule(1, 3600, 60)
    reporting = programme(3, *FULL, calendar=TWO_TIERS)
    put(one, dataclasses.replace(reporting, schedules=(hourly,)))
    before = len(one.head_end.reads)
    one.world.elapse(3 * 3600)
    assert len(one.head_end.reads) == before + 3

    rule = EventRule(VOLTAGE_LOW, Delivery.LOG_ONLY, Importance.BILLING)
    put(one, dataclasses.replace(reporting, version=4, events=(rule,)))
    answer = one.ask(Code.GET, EVENTS)
    assert EventRules.decode(answer.payload).rules == (rule,)
    # A programme that says nothing of schedules leaves them as they are.
    before = len(one.head_end.reads)
    one.world.elapse(3600)
    assert len(one.head_end.reads) == before + 1


@pytest.mark.requirement("RP-1.7")
def test_meter_reports_the_new_version_and_a_corrupt_programme_leaves_the_old_one() -> None:
    one = Programmed()
    one.power_on()
    one.run_to(TODAY, 18 * 3600)
    wanted = programme(1, minutes=15)
    put(one, wanted)
    one.run_to(TODAY + 1, 60)
    answer = one.ask(Code.GET, PROGRAMME)
    running = ProgrammeState.decode(answer.payload).running
    assert (running.version, running.digest) == (1, wanted.digest)

    whole = programme(2, minutes=5).encode()
    for place in range(len(whole)):
        corrupt = whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :]
        if place % 7 == 0:
            refusal = one.ask(Code.PUT, PROGRAMME, corrupt)
            assert refusal.code in (Code.BAD_REQUEST, Code.UNPROCESSABLE_ENTITY)
    one.run_to(TODAY + 3, 60)
    assert ProgrammeState.decode(one.ask(Code.GET, PROGRAMME).payload).running == running
    assert [block.interval_s for block in one.recorder.block(TODAY + 2)] == [900, 900]


def test_demand_is_reset_by_command_once_however_often_it_is_sent() -> None:
    one = Programmed()
    one.power_on()
    one.run_to(TODAY, 18 * 3600)
    put(one, programme(1, *FULL, calendar=TWO_TIERS, demand=DEMAND))
    one.run_to(TODAY + 1, 12 * 3600)
    first = one.ask(Code.POST, REGISTERS, DemandReset(1).encode())
    again = one.ask(Code.POST, REGISTERS, DemandReset(1).encode())
    assert (first.code, again.code) == (Code.CHANGED, Code.CHANGED)
    told = RegistersAnswer.decode(again.payload)
    assert told.demand is not None
    assert told.demand.reset_count == 1
    assert told.demand.periods[0].peak == told.demand.cumulative
    soon = one.ask(Code.POST, REGISTERS, DemandReset(2).encode())
    assert (soon.code, soon.payload) == (Code.CONFLICT, b"reset less than a day ago")
    other = one.ask(Code.POST, REGISTERS, DemandReset(7).encode())
    assert (other.code, other.payload) == (Code.CONFLICT, b"1 resets so far, not 6")


@pytest.mark.parametrize("seed", range(3))
def test_programme_comes_through_loss_and_power_cuts(seed: int) -> None:
    one = Programmed(seed=seed, quality=LinkQuality(loss=0.2, delay_min=0.05, delay_max=0.8))
    dice = random.Random(seed)
    one.power_on()
    one.run_to(TODAY, 18 * 3600)
    stamp = put(one, programme(1, *FULL, calendar=TWO_TIERS, demand=DEMAND))
    for day in range(TODAY, TODAY + 4):
        one.run_to(day + 1, dice.uniform(-3600, 3600))
        one.restart()
    one.run_to(TODAY + 5, 6 * 3600)
    check_heard(one)
    assert {report.day for report in one.head_end.reports} >= set(range(TODAY - 2, TODAY + 5))
    answer = one.ask(Code.GET, PROGRAMME)
    assert ProgrammeState.decode(answer.payload).running == stamp
    closing: dict[int, int] = {}
    for day in range(TODAY + 1, TODAY + 5):
        report = next(report for report in one.head_end.reports if report.day == day)
        for block in report.blocks:
            assert block.is_consistent
            assert closing.get(block.channel, block.opening) == block.opening
            closing[block.channel] = block.closing


def test_on_demand_read_carries_every_channel_of_the_programme() -> None:
    one = Programmed()
    one.power_on()
    one.run_to(TODAY, 18 * 3600)
    put(one, programme(1, *FULL, calendar=TWO_TIERS))
    one.run_to(TODAY + 1, 3600)
    one.head_end.read(METER, ReadParts.REGISTERS | ReadParts.INTERVALS, "meter", now=one.world.now)
    one.settle_head_end()
    one.world.elapse(60)
    answer = one.head_end.read_answers[-1]
    assert answer.channel_set == 2
    assert [number for number, _ in answer.registers] == [1, 2, 11, 12, 20]
    assert {block.channel: block.count for block in answer.blocks} == {
        1: 4,
        2: 4,
        11: 0,
        12: 0,
        20: 1,
    }
