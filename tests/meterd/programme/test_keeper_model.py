"""The keeper of programmes beside a model of it, through any order of commands, days and restarts.

The contract under test: what runs, waits and ran before is what a list of plain tuples says; every
day is recorded whole, at the interval length that was in force as it began.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from amistack.coap.codes import Code
from amistack.model.event_catalogue import VOLTAGE_LOW, Delivery, Importance
from amistack.model.event_notice import EventRule
from amistack.model.programme_state import ProgrammeState, RollBack
from meterd.metrology import Flow
from tests.meterd.programme.bench import DAY, MIDNIGHT, TODAY, Meter, programme

RULE = EventRule(VOLTAGE_LOW, Delivery.AT_ONCE, Importance.SERVICE)


class Row(NamedTuple):
    since: int
    version: int
    minutes: int


class Programmes(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.meter = Meter(utc=MIDNIGHT + 17)
        self.rows = [Row(0, 0, 60)]
        self.highest = 0

    # The model

    @property
    def now(self) -> float:
        return self.meter.utc

    def begun(self) -> list[Row]:
        return [row for row in self.rows if row.since <= self.now]

    def add(self, version: int, minutes: int, wanted: float) -> Row:
        running = self.begun()[-1]
        since = max(int(wanted), int(self.now))
        if minutes != running.minutes:
            first = max(wanted, self.now)
            since = int(-(-first // DAY)) * DAY
        row = Row(since, version, minutes)
        self.rows = [*self.begun(), row]
        return row

    # What happens

    @rule(
        minutes=st.sampled_from([5, 15, 30, 60]),
        ahead=st.sampled_from([-DAY, 0, 0, 3600, DAY, 2 * DAY + 5]),
    )
    def put(self, minutes: int, ahead: int) -> None:
        self.highest += 1
        applies_at = int(self.now) + ahead if ahead else 0
        wanted = dataclasses.replace(
            programme(self.highest, minutes=minutes, applies_at=applies_at), events=(RULE,)
        )
        answer = self.meter.ask(Code.PUT, wanted.encode())
        assert answer.code == Code.CHANGED
        self.add(self.highest, minutes, applies_at)

    @property
    def waiting(self) -> list[Row]:
        return self.rows[len(self.begun()) :]

    def ask_back(self, version: int) -> Code:
        return Code(self.meter.ask(Code.POST, RollBack(version).encode()).code)

    @precondition(lambda self: len(self.begun()) > 1)
    @rule()
    def roll_back(self) -> None:
        previous, running = self.begun()[-2:]
        is_other = previous.version not in (running.version, *[one.version for one in self.waiting])
        assert self.ask_back(previous.version) == Code.CHANGED
        if is_other:
            self.add(previous.version, previous.minutes, 0)
        elif previous.version == running.version:
            self.rows = self.begun()

    @rule()
    def roll_back_to_what_runs(self) -> None:
        version = self.begun()[-1].version
        assert self.ask_back(version) == Code.CHANGED
        if version not in [one.version for one in self.waiting]:
            self.rows = self.begun()

    @rule()
    def roll_back_to_what_waits_or_to_nothing(self) -> None:
        for one in self.waiting:
            assert self.ask_back(one.version) == Code.CHANGED
        assert self.ask_back(10**6) == Code.CONFLICT

    @rule(hours=st.sampled_from([1, 5, 24, 30]))
    def live(self, hours: int) -> None:
        self.meter.run_until(self.now + hours * 3600)

    @rule()
    def restart(self) -> None:
        self.meter.restart()

    # What must be

    @invariant()
    def state_is_the_models(self) -> None:
        answer = self.meter.ask(Code.GET)
        told = ProgrammeState.decode(answer.payload)
        begun, waiting = self.begun(), self.waiting
        assert (told.running.version, told.running.since) == (begun[-1].version, begun[-1].since)
        assert (told.waiting is None) == (not waiting)
        if told.waiting is not None:
            assert (told.waiting.version, told.waiting.since) == (
                waiting[0].version,
                waiting[0].since,
            )

    def teardown(self) -> None:
        meter = self.meter
        last = meter.recorder.day_of(self.now)
        closing: dict[int, int] = {}
        for day in range(max(TODAY, last - 44), last):
            blocks = meter.recorder.block(day)
            (minutes, *_) = [row.minutes for row in self.rows[::-1] if row.since <= day * DAY]
            assert [block.interval_s for block in blocks] == [60 * minutes] * 2
            for block in blocks:
                assert block.is_consistent
                assert not block.has_missing
                assert closing.get(block.channel, block.opening) == block.opening
                closing[block.channel] = block.closing
            total = sum(
                meter.source.value(second, Flow.DELIVERED) or 0
                for second in range(day * DAY, (day + 1) * DAY, 300)
            )
            assert blocks[0].advance == total


TestProgrammes = Programmes.TestCase
TestProgrammes.settings = settings(max_examples=40, stateful_step_count=15, deadline=None)
