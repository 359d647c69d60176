"""Two months of a meter's life, by a seed: what happens to it, and the facts of it.

Nothing is judged here. Each thing that happens is done to the real meter on its bench and written
down as a fact; what it said and what the head-end heard stay where they are, for others to compare.
"""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, replace

from amistack.coap.codes import Code
from amistack.coap.message import Message
from amistack.model import ClockState, ReadAnswer, ReadParts
from amistack.model.clock import ClockSetting
from amistack.model.programme import DemandRules, Programme, ProgrammeChannel
from amistack.model.programme_state import RollBack
from amistack.model.quantity import Measured, Quantity
from amistack.model.registers import DemandReset
from amistack.model.resources import CLOCK, PROGRAMME, REGISTERS, SCHEDULES
from amistack.model.schedule import ReadSchedule, ScheduleCancellation
from amistack.model.tariff import DayType, Season, SpecialDay, Switch, TariffCalendar
from meterd.metrology import Flow
from tests.meterd.bench import EPOCH, METER
from tests.meterd.months.bench import REGISTER_START
from tests.meterd.months.model import DAY, Facts
from tests.meterd.months.model import Life as Powered
from tests.meterd.months.noted import NotedBench, Written
from tests.meterd.programme.bench import FineSource
from tests.support.power import PowerCut

MONTHS_S = 61 * DAY
HOUR = 3600
QUIET_S = 2 * DAY
"""At the end nothing happens for so long."""
PERIODS = {
    1: (HOUR,),
    2: (2 * HOUR, 3 * HOUR),
    3: (8 * HOUR, 12 * HOUR),
    4: (DAY, 8 * HOUR),
    5: (DAY, 7 * DAY),
}
"""Of each schedule by its number: together they fail less than twice an hour, so that the budget of
the log leaves none of that out."""
TIERS_2 = TariffCalendar(
    (
        DayType((Switch(0, 1), Switch(7 * 60, 2), Switch(21 * 60 + 30, 1))),
        DayType((Switch(0, 1),)),
    ),
    (Season(1, 1, (0, 0, 0, 0, 0, 1, 1)),),
)
TIERS_3 = TariffCalendar(
    (
        DayType((Switch(0, 3), Switch(5 * 60 + 5, 1), Switch(17 * 60, 2), Switch(22 * 60, 3))),
        DayType((Switch(0, 3), Switch(12 * 60, 1))),
        DayType((Switch(0, 2),)),
    ),
    (Season(3, 1, (0, 0, 0, 0, 0, 1, 1)), Season(10, 15, (1, 0, 1, 0, 1, 2, 2))),
    (SpecialDay(0, 10, 3, 2), SpecialDay(2026, 11, 1, 1)),
)
DEMANDS = (
    None,
    DemandRules(900, 300, 1),
    DemandRules(3600, 900, 15),
    DemandRules(1800, 1800, 28),
    DemandRules(900, 900),
)


@dataclass(frozen=True)
class Asked:
    """An on-demand read: when it was answered, with what."""

    at: float
    answer: ReadAnswer


class Life:
    """One meter, from its first hour to the end of its second month."""

    def __init__(self, seed: int) -> None:
        self.dice = dice = random.Random(f"months {seed}")
        offset_min = dice.choice((0, 60, -300, 330))
        first_day = int(EPOCH + offset_min * 60) // DAY - 2
        begin = first_day * DAY - offset_min * 60
        gaps = [
            begin + HOUR * hour + part
            for hour in dice.sample(range(63 * 24), 20)
            for part in range(0, HOUR, 300)
        ]
        source = FineSource(known_from=begin + 5 * HOUR, gaps=gaps)
        self.facts = Facts(
            epoch=EPOCH,
            offset_s=offset_min * 60,
            delivered=lambda at: source.value(at, Flow.DELIVERED),
            received=lambda at: source.value(at, Flow.RECEIVED),
            first_day=first_day,
            default=(_channel(1, Quantity.DELIVERED, HOUR), _channel(2, Quantity.RECEIVED, HOUR)),
            start=(REGISTER_START[0], REGISTER_START[1]),
        )
        self.written: list[Written] = []
        self.bench = NotedBench(
            self.facts, self.written, seed=seed, source=source, offset_min=offset_min
        )
        self.bench.head_end.wall = self.wall
        self.happened: Counter[str] = Counter()
        self.asked: list[Asked] = []
        self.covers: list[float] = []
        self.refused: list[tuple[float, str, str]] = []
        """When an order was refused, the event that says so, and its words."""
        self.gasps: list[float] = []
        self.reset_at: list[float] = []
        self.withdrawn: list[tuple[float, str]] = []
        """When a programme that waited was withdrawn, and the words for it."""
        self.versions: list[Programme] = []
        self.settings_refused: list[float] = []
        self.commanded: list[float] = []
        """When an operator set the clock."""
        self.known: dict[int, ReadSchedule] = {}
        """What the head-end believes that the meter has."""
        self.silent_since: float | None = None
        self.wrong_until: float | None = None

    @property
    def now(self) -> float:
        return self.bench.world.now

    def wall(self, at: float) -> float:
        return self.facts.epoch + at + self.facts.wall_error(at)

    def kept(self) -> list[Written]:
        """What of all that was written is in the log for good: by number, the last of each."""
        last = {one.sequence: one for one in self.written}
        return [last[number] for number in sorted(last)]

    # Living

    def live(self) -> None:
        self.power_on()
        weights = {
            self.cut: 4,
            self.tear: 4,
            self.silence: 4,
            self.fault: 4,
            self.mislead: 1,
            self.schedule: 6,
            self.programme: 3,
            self.reset: 1,
            self.read: 3,
            self.cover: 2,
        }
        while self.now < MONTHS_S - QUIET_S:
            self.pass_time(self.dice.expovariate(1 / (9 * HOUR)))
            (happen,) = self.dice.choices([*weights], [*weights.values()])
            happen()
            if self.is_out_of_step() and self.dice.random() < 0.5:
                self.set_clock()
        self.speak()
        self.set_right()
        self.pass_time(HOUR)
        while self.is_out_of_step():
            self.set_clock()
            self.pass_time(HOUR)
        self.pass_time(QUIET_S)
        self.facts.end = self.now
        self.facts.lives[-1].end = self.now

    def pass_time(self, seconds: float) -> None:
        """Let the world go on; a power that goes in the middle of a write comes back."""
        end = self.now + seconds
        while True:
            try:
                self.bench.world.run(until=end)
            except PowerCut:
                self.die(torn=True)
                self.rest(self.dice.choice((1.0, 60.0, HOUR)))
                self.power_on()
            else:
                return

    def rest(self, seconds: float) -> None:
        self.bench.world.run(until=self.now + seconds)

    def die(self, *, torn: bool = False) -> None:
        bench = self.bench
        if "meter" in bench.world._hosts:
            bench.world.remove("meter")
        bench.files.crash()
        life = self.facts.lives[-1]
        life.end, life.was_torn = self.now, torn

    def power_on(self, *, shows: float | None = None, calls: int | None = None) -> None:
        """`shows`: the host's clock, if not the time; `calls` until the power goes again."""
        bench = self.bench
        while True:
            bench.host_utc = shows
            self.facts.lives.append(Powered(self.now))
            if calls is not None:
                bench.files.cut_after(calls)
            try:
                bench.power_on()
            except PowerCut:
                self.facts.lives[-1].has_begun = False
                self.die(torn=True)
                self.rest(1.0)
                calls = None
            else:
                bench.files._cut_at = None
                return

    # What happens

    def cut(self) -> None:
        self.happened["cut"] += 1
        if self.dice.random() < 0.4:
            self.bench.oversight.sources.power(is_there=False, now=self.now)
            self.gasps.append(self.now)
        self.die()
        self.rest(self.dice.choice((2.0, 90.0, 2 * HOUR, 9 * HOUR, 30 * HOUR)))
        right = self.bench.utc(self.now)
        kind = self.dice.randrange(6)
        shows = {0: 1_000.0, 1: right + self.off(25, 110), 2: right + self.off(130, 4000)}
        calls = self.dice.randrange(30) if self.dice.random() < 0.2 else None
        self.power_on(shows=shows.get(kind), calls=calls)
        self.happened["clock lost"] += self.facts.lives[-1].is_clock_lost

    def tear(self) -> None:
        """The power goes in the middle of some write of the next hours."""
        self.happened["tear"] += 1
        self.bench.files.cut_after(self.dice.randrange(60))
        self.pass_time(6 * HOUR)
        self.bench.files._cut_at = None

    def silence(self) -> None:
        if self.silent_since is None:
            self.happened["silence"] += 1
            self.silent_since = self.now
            self.bench.silence_head_end()
            hours = self.dice.choice((0.2, 2, 7, 30, 30, 80))
            self.pass_time(hours * HOUR * self.dice.uniform(0.7, 1.3))
        self.speak()

    def speak(self) -> None:
        if self.silent_since is not None:
            self.facts.silences.append((self.silent_since, self.now))
            self.silent_since = None
            self.bench.open_head_end()

    def fault(self) -> None:
        """The meter's crystal had a bad hour."""
        clock = self.bench.agent.clock
        if not clock.is_set:
            return
        self.happened["fault"] += 1
        kind = self.dice.randrange(4)
        by_s = self.off(2, 15) if kind == 0 else self.off(25, 115)
        by_s = self.off(130, 4000) if kind == 1 else by_s
        self.facts.faults.append(self.now)
        clock._offset += by_s
        clock.forget_samples()
        self.bench.note_clock(clock)
        self.bench.host.settle()

    def mislead(self) -> None:
        """The head-end's own clock is wrong for some hours."""
        self.happened["mislead"] += 1
        self.facts.wall.append(
            (self.now, self.dice.choice((self.off(30, 100), self.off(200, 900))))
        )
        self.pass_time(self.dice.uniform(3, 30) * HOUR)
        self.set_right()

    def set_right(self) -> None:
        if self.facts.wall[-1][1]:
            self.facts.wall.append((self.now, 0.0))

    def cover(self) -> None:
        self.bench.oversight.sources.cover(is_open=True, now=self.now)
        self.bench.oversight.sources.cover(is_open=False, now=self.now)
        self.covers.append(self.now)
        self.bench.host.settle()

    def off(self, least: float, most: float) -> float:
        return self.dice.choice((-1, 1)) * self.dice.uniform(least, most)

    # What it is told

    def is_out_of_step(self) -> bool:
        error = self.facts.error(self.now)
        return error is None or abs(error - self.facts.wall_error(self.now)) > 119

    def is_fit(self) -> bool:
        """Whether it hears orders, knows the time, and no write is about to tear."""
        state = self.bench.agent.clock.state_at(self.now)
        return self.silent_since is None and state is ClockState.SET

    def order(self, code: Code, path: str, payload: bytes) -> Message | None:
        try:
            return self.bench.ask(code, path, payload)
        except ValueError:
            return None  # No session: it is in the middle of a handshake.

    def set_clock(self) -> None:
        if self.silent_since is not None or self.facts.wall_error(self.now):
            return
        stamp = round(self.bench.utc(self.now) * 1000)
        self.happened["set clock"] += 1
        self.commanded.append(self.now)
        message = ClockSetting(self.dice.randbytes(8), stamp).encode()
        answer = self.order(Code.PUT, CLOCK, message)
        if answer is not None and answer.code == Code.CONFLICT:
            self.settings_refused.append(self.now)

    def schedule(self) -> None:
        if not self.is_fit():
            return
        number = self.dice.choice([*PERIODS])
        kind = self.dice.randrange(8)
        now = int(self.bench.utc(self.now))
        if kind == 0:
            bad = ReadSchedule(number, 300) if self.dice.random() < 0.5 else None
            if bad is None or min(self.lengths()) <= 300:
                bad = ReadSchedule(number, DAY, 777, 0, now - HOUR)
            self.put_schedule(bad, "past" if bad.end_s else "too frequent")
        elif kind <= 2:
            self.cancel(number)
        elif kind == 3 and number in self.known and not self.known[number].end_s:
            self.put_schedule(self.known[number])
        else:
            self.put_schedule(self.made(number, now))

    def made(self, number: int, now: int) -> ReadSchedule:
        """Some schedule of that number: no two numbers ever read at the same instants."""
        period = self.dice.choice(PERIODS[number])
        offset = self.dice.randrange(period // 600) * 600 + 30 + 60 * number
        start = now + self.dice.randrange(2 * DAY) if self.dice.random() < 0.3 else 0
        end = 0
        if self.dice.random() < 0.3:
            end = max(start, now) + 2 * period + self.dice.randrange(6 * DAY)
        parts = self.dice.choice((ReadParts(7), ReadParts.INTERVALS, ReadParts(3)))
        return ReadSchedule(number, period, offset, start, end, parts)

    def put_schedule(self, wanted: ReadSchedule, fault: str | None = None) -> None:
        at = self.now
        answer = self.order(Code.PUT, SCHEDULES, wanted.encode())
        if answer is None:
            return
        if fault is not None:
            assert (answer.code, answer.payload) == (Code.UNPROCESSABLE_ENTITY, fault.encode())
            self.refused.append((at, "3.7.95.35", f"schedule {wanted.number}: {fault}"))
            return
        assert answer.code == Code.CHANGED, answer.payload
        self.happened["schedule set"] += 1
        self.known[wanted.number] = wanted
        self.facts.schedules.append((at, wanted.number, wanted))

    def cancel(self, number: int) -> None:
        at = self.now
        answer = self.order(Code.POST, SCHEDULES, ScheduleCancellation(number).encode())
        if answer is None:
            return
        if answer.code == Code.NOT_FOUND:
            self.refused.append((at, "3.7.95.35", f"schedule {number}: unknown schedule"))
        else:
            assert answer.code == Code.CHANGED
            self.happened["schedule cancelled"] += 1
            self.facts.schedules.append((at, number, None))
        self.known.pop(number, None)

    def lengths(self) -> list[int]:
        return [one.interval_s for one in self.bench.recorder.channels]

    def programme(self) -> None:
        if not self.is_fit():
            return
        at, kind = self.now, self.dice.randrange(8)
        if kind == 0 and self.versions:
            old = replace(self.versions[0], applies_at=1)
            answer = self.order(Code.PUT, PROGRAMME, old.encode())
            if answer is not None and answer.code == Code.UNPROCESSABLE_ENTITY:
                self.refused.append((at, "3.7.83.35", f"version {old.version}, "))
            return
        if kind == 1:
            self.roll_back()
            return
        wanted = self.written_programme(1 + max((one.version for one in self.versions), default=0))
        answer = self.order(Code.PUT, PROGRAMME, wanted.encode())
        if answer is None:
            return
        assert answer.code == Code.CHANGED, answer.payload
        self.happened["programme"] += 1
        self.versions.append(wanted)
        self.facts.programmes.append((at, wanted))

    def roll_back(self) -> None:
        self.facts.end = self.now + 1
        found = self.facts.in_force()
        begun = [one for _, told, one in found if told <= self.now]
        if not begun or len(self.facts.programmes) < 2:
            return
        at, is_waiting = (
            self.now,
            found[-1][1] > self.now or self.facts.programmes[-1][1] not in begun,
        )
        target = begun[-1] if is_waiting else (begun[-2] if len(begun) > 1 else None)
        if target is None or (target.version == begun[-1].version and not is_waiting):
            return
        answer = self.order(Code.POST, PROGRAMME, RollBack(target.version).encode())
        if answer is None or answer.code != Code.CHANGED:
            return
        self.happened["roll back"] += 1
        if is_waiting:
            waiting = self.facts.programmes[-1][1]
            assert waiting is not None
            self.withdrawn.append((at, f"version {waiting.version} withdrawn"))
        self.facts.programmes.append((at, None if is_waiting else target))

    def written_programme(self, version: int) -> Programme:
        dice = self.dice
        first = dice.choice((300, 900, 900, 1800, HOUR))
        channels = [
            _channel(1, Quantity.DELIVERED, first),
            _channel(2, Quantity.RECEIVED, dice.choice((first, HOUR))),
        ]
        if dice.random() < 0.4:
            channels.append(_channel(3, Quantity.NET, dice.choice((first, HOUR))))
        if dice.random() < 0.4:
            channels.append(_channel(20, Quantity.DEMAND, dice.choice((900, HOUR))))
        calendar = dice.choice((None, TIERS_2, TIERS_3))
        if calendar is not None:
            length = dice.choice((DAY, HOUR))
            channels += [
                _channel(10 + tier, Quantity.DELIVERED, length, tier) for tier in calendar.tiers
            ]
        now = int(self.bench.utc(self.now))
        schedules: tuple[ReadSchedule, ...] = ()
        if dice.random() < 0.4:
            numbers = dice.sample([*PERIODS], dice.randrange(1, 4))
            made = [self.made(number, now + 4 * DAY) for number in sorted(numbers)]
            schedules = tuple(replace(one, start_s=0, end_s=0) for one in made)
        return Programme(
            version,
            now + dice.randrange(3 * DAY) if dice.random() < 0.4 else 0,
            self.facts.offset_s // 60,
            tuple(channels),
            calendar,
            dice.choice(DEMANDS),
            schedules=schedules,
        )

    def reset(self) -> None:
        demand = self.bench.recorder.demand
        utc = self.facts.utc(self.now)
        if not self.is_fit() or utc is None:
            return
        last = demand.period.since
        if last and abs(utc - last) < DAY + HOUR:
            return
        at = self.now
        answer = self.order(Code.POST, REGISTERS, DemandReset(demand.reset_count + 1).encode())
        if answer is not None and answer.code == Code.CHANGED:
            self.happened["reset"] += 1
            assert abs(demand.period.since - utc) <= 2
            self.facts.resets.append(demand.period.since)
            self.reset_at.append(at)

    def read(self) -> None:
        if not self.is_fit():
            return
        parts = ReadParts.REGISTERS | ReadParts.INTERVALS
        before = len(self.bench.head_end.answers)
        name = self.dice.randbytes(8)
        try:
            self.bench.head_end.read(METER, parts, "meter", now=self.now, name=name)
        except ValueError:
            return
        self.bench.settle_head_end()
        self.pass_time(5)
        for one in self.bench.head_end.answers[before:]:
            if one.message.code == Code.CONTENT:
                self.happened["read"] += 1
                self.asked.append(Asked(self.now, ReadAnswer.decode(one.message.payload)))


def _channel(number: int, quantity: Quantity, interval_s: int, tier: int = 0) -> ProgrammeChannel:
    return ProgrammeChannel.of(number, Measured(quantity, tier), interval_s)
