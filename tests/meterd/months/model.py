"""What a meter ought to have, worked out by somebody who only reads what happened to it.

Nothing of meterd is imported here. From facts (how the power, the network and the clocks were, what
the meter was told) it says the intervals of every day in every channel, their marks, registers,
tariffs and demand, and the instants at which each schedule reads.

Time is the world's (s); the meter's UTC at `t` is the epoch, `t` and its clock's error then.
"""

from __future__ import annotations

import bisect
import datetime as dt
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from amistack.model.programme import DemandRules, Programme, ProgrammeChannel
from amistack.model.quantity import Measured, Quantity
from amistack.model.schedule import ReadSchedule
from amistack.model.tariff import TariffCalendar

DAY = 86_400
SLOT = 300
SLOTS = DAY // SLOT
WEEK = 7 * DAY
NEVER = float("inf")
PROVED_S = 12.0
"""An answer to a message that was repeated proves little: the meter asks once more, 5 s later."""
KEPT_BETWEEN_RESETS_S = 86_400


@dataclass
class Life:
    """From one switching on of the meter to the end of its power."""

    begin: float
    end: float = NEVER
    was_torn: bool = False
    """The power went in the middle of a write."""
    lost_octets: int = 0
    is_clock_lost: bool = False
    has_begun: bool = True
    """False: the power went again before it was up."""


@dataclass
class Facts:
    """What happened, in the order of the world's time."""

    epoch: float
    offset_s: int
    delivered: Callable[[int], int | None]
    """Wh in the five minutes from a UTC second on; None: a gap."""
    received: Callable[[int], int | None]
    first_day: int
    default: tuple[ProgrammeChannel, ...]
    start: tuple[int, int]
    lives: list[Life] = field(default_factory=list)
    clock: list[tuple[float, float | None]] = field(default_factory=list)
    """From when on the clock has which error (s); None while it has no time at all."""
    wall: list[tuple[float, float]] = field(default_factory=lambda: [(0.0, 0.0)])
    """The same of the head-end's clock."""
    silences: list[tuple[float, float]] = field(default_factory=list)
    moves: list[tuple[float, float, float]] = field(default_factory=list)
    """When the meter moved its clock, from which UTC, to which."""
    programmes: list[tuple[float, Programme | None]] = field(default_factory=list)
    """When each was taken; None: the one that waited was withdrawn."""
    schedules: list[tuple[float, int, ReadSchedule | None]] = field(default_factory=list)
    """When a schedule was taken by itself, or (None) cancelled."""
    resets: list[int] = field(default_factory=list)
    """The meter's UTC seconds at which demand was reset by command."""
    faults: list[float] = field(default_factory=list)
    """When the meter's crystal had a bad hour."""
    end: float = 0.0
    _found: tuple[tuple[int, float], list[tuple[float, float, Programme]]] | None = None

    # The clock

    def error(self, at: float) -> float | None:
        """How far the meter's clock is ahead of the true time."""
        place = bisect.bisect_right(self.clock, at, key=lambda one: one[0])
        return self.clock[place - 1][1] if place else None

    def wall_error(self, at: float) -> float:
        """How far the head-end's is."""
        return self.wall[bisect.bisect_right(self.wall, at, key=lambda one: one[0]) - 1][1]

    def utc(self, at: float) -> float | None:
        """The meter's UTC."""
        error = self.error(at)
        return None if error is None else self.epoch + at + error

    def pieces(self, since: float = 0.0) -> Iterator[tuple[float, float, float]]:
        """Begin, end and the clock's error while the meter ran and knew a time."""
        marks = [*self.clock, (self.end, None)]
        for (begin, error), (end, _) in itertools.pairwise(marks):
            if error is None or end <= since:
                continue
            for life in self.lives:
                first, last = max(begin, life.begin, since), min(end, life.end)
                if first < last:
                    yield first, last, error

    def reach(self, utc: float, since: float = 0.0) -> float:
        """When the meter, running, first saw that UTC or more, from `since` on; or NEVER."""
        for begin, end, error in self.pieces(since):
            if self.epoch + end + error > utc:
                return max(begin, utc - self.epoch - error)
        return NEVER

    def is_dark(self, begin: float, end: float) -> bool:
        """Whether nobody at all could hear the meter in that time."""
        at = begin
        offs = [(one.end, two.begin) for one, two in itertools.pairwise(self.lives)]
        for first, last in sorted([*self.silences, *offs]):
            if first <= at < last:
                at = last
        return at >= end

    def is_bright(self, begin: float, end: float) -> bool:
        """Whether the meter ran and could be heard all that time."""
        if any(first < end and last > begin for first, last in self.silences):
            return False
        return any(life.begin <= begin and end <= life.end for life in self.lives)

    # Programmes

    def in_force(self) -> list[tuple[float, float, Programme]]:
        """Each programme that came into force: from which UTC on, when it was said, and it."""
        known = len(self.programmes), self.end
        if self._found is not None and self._found[0] == known:
            return self._found[1]
        found: list[tuple[float, float, Programme]] = []
        waiting: tuple[float, float, Programme] | None = None
        for taken, wanted in self.programmes:
            if waiting is not None and waiting[1] <= taken:
                found.append(waiting)
            waiting = None
            if wanted is None:
                continue
            utc = self.utc(taken)
            assert utc is not None, "nothing is taken without a time"
            since = float(max(wanted.applies_at, int(utc)))
            running = found[-1][2] if found else None
            if not _records_alike(wanted, running, self.default):
                since = max(since, float(int(utc) + (utc > int(utc))))
                since += -(since + self.offset_s) % DAY
            waiting = since, self.reach(since, taken), wanted
        if waiting is not None and waiting[1] < NEVER:
            found.append(waiting)
        self._found = known, found
        return found

    def programme_of(self, day: int) -> Programme | None:
        """What was in force as a day began; None: none ever."""
        midnight = self.midnight(day)
        found = [one for since, told, one in self.in_force() if since <= midnight and told < NEVER]
        return found[-1] if found else None

    def midnight(self, day: int) -> int:
        """The UTC second at which a day begins."""
        return day * DAY - self.offset_s

    def day_of(self, utc: float) -> int:
        """The day that a UTC second falls in."""
        return int(utc + self.offset_s) // DAY


def _records_alike(
    one: Programme, other: Programme | None, default: tuple[ProgrammeChannel, ...]
) -> bool:
    if other is None:
        return (_set(one.channels), one.calendar, one.demand) == (_set(default), None, None)
    return (_set(one.channels), one.calendar, one.demand) == (
        _set(other.channels),
        other.calendar,
        other.demand,
    )


def _set(channels: Sequence[ProgrammeChannel]) -> frozenset[tuple[int, str, int]]:
    return frozenset((one.number, str(one.reading_type), one.interval_s) for one in channels)


# Energy


@dataclass(frozen=True)
class Expected:
    """A channel's day: the register at its midnight, what it moved, each interval (None: gap)."""

    opening: int
    advance: int
    interval_s: int
    values: tuple[int | None, ...]


def tier_at(calendar: TariffCalendar, day: int, minute: int) -> int:
    """The tariff in force, read off the calendar by hand."""
    date = dt.date(1970, 1, 1) + dt.timedelta(days=day)
    special = [
        one
        for one in calendar.special_days
        if (one.month, one.day) == (date.month, date.day) and one.year in (0, date.year)
    ]
    if special:
        kind = max(special, key=lambda one: one.year).day_type
    else:
        begun = [one for one in calendar.seasons if (one.month, one.day) <= (date.month, date.day)]
        season = max(begun or calendar.seasons, key=lambda one: (one.month, one.day))
        kind = season.week[date.weekday()]
    tier = 0
    for switch in calendar.day_types[kind].switches:
        if switch.minute <= minute:
            tier = switch.tier
    return tier


def slots_of(
    facts: Facts, day: int, programme: Programme | None, what: Measured
) -> list[int | None]:
    """What flows in each five minutes of a day, of a quantity in a tariff."""
    begin = facts.midnight(day)
    found: list[int | None] = []
    for place in range(SLOTS):
        given = facts.delivered(begin + SLOT * place)
        taken = facts.received(begin + SLOT * place)
        one: int | None
        if what.quantity is Quantity.RECEIVED:
            one = taken
        elif what.quantity is Quantity.NET:
            one = None if given is None or taken is None else given - taken
        else:
            one = given
        if what.tier:
            assert programme is not None
            assert programme.calendar is not None
            if tier_at(programme.calendar, day, place * SLOT // 60) != what.tier:
                one = 0
        found.append(one)
    return found


def expected_days(facts: Facts, last_day: int) -> dict[int, dict[int, Expected]]:
    """Every whole day up to and with `last_day`: each channel by its number."""
    delivered, received = Measured(Quantity.DELIVERED), Measured(Quantity.RECEIVED)
    registers: dict[Measured, int] = {delivered: facts.start[0], received: facts.start[1]}
    days: dict[int, dict[int, Expected]] = {}
    for day in range(facts.first_day, last_day + 1):
        programme = facts.programme_of(day)
        channels = facts.default if programme is None else programme.channels
        # It stands for the difference of the other two.
        registers[Measured(Quantity.NET)] = registers[delivered] - registers[received]
        days[day] = {}
        for channel in channels:
            what, length = channel.measured, channel.interval_s
            slots = slots_of(facts, day, programme, what)
            width = length // SLOT
            values: list[int | None] = []
            for first in range(0, SLOTS, width):
                parts = slots[first : first + width]
                known = [one for one in parts if one is not None]
                total = sum(known) if len(known) == width else None
                if total is not None and what.quantity is Quantity.DEMAND:
                    total = _rounded(total * 3600, length)
                values.append(total)
            counted = values if what.quantity is Quantity.DEMAND else slots
            opening = registers.get(what, 0)
            advance = sum(one or 0 for one in counted)
            days[day][channel.number] = Expected(opening, advance, length, tuple(values))
            registers[what] = opening + advance
    return days


def part_of(facts: Facts, day: int, utc: int, what: Measured) -> int:
    """What flowed of a quantity from midnight on, to the five minutes."""
    slots = slots_of(facts, day, facts.programme_of(day), what)
    return sum(one or 0 for one in slots[: (utc - facts.midnight(day)) // SLOT])


def _rounded(number: int, divisor: int) -> int:
    """A quotient, to the nearest whole number, halves upwards."""
    return int((2 * number + divisor) // (2 * divisor))


# Demand


@dataclass
class Period:
    """From one reset to the next."""

    since: int = 0
    until: int = 0
    peak: int = 0
    peak_at: int = 0


def demand_periods(facts: Facts, until: int) -> list[Period]:
    """The periods of the demand register up to the UTC second `until`, the running one last."""
    periods = [Period()]
    windows = list(_windows(facts, until))
    resets = sorted([*facts.resets, *_dated(facts, until)])
    place = 0
    for reset in [*resets, None]:
        running = periods[-1]
        if reset is not None and running.since and reset - running.since < KEPT_BETWEEN_RESETS_S:
            continue
        while place < len(windows) and (reset is None or windows[place][1] <= reset):
            begin, end, watts = windows[place]
            place += 1
            if begin >= running.since and (not running.peak_at or watts > running.peak):
                running.peak, running.peak_at = watts, end
        if reset is not None:
            running.until = reset
            periods.append(Period(since=reset))
    return periods


def dated_resets(facts: Facts, until: int) -> list[int]:
    """The midnights at which the date reset it."""
    sinces = {one.since for one in demand_periods(facts, until)}
    return [one for one in _dated(facts, until) if one in sinces and one not in facts.resets]


def _dated(facts: Facts, until: int) -> Iterator[int]:
    for day in range(facts.first_day + 1, facts.day_of(until) + 1):
        rules = _rules_of(facts, day)
        date = dt.date(1970, 1, 1) + dt.timedelta(days=day)
        if rules is not None and rules.reset_day == date.day:
            yield facts.midnight(day)


def _rules_of(facts: Facts, day: int) -> DemandRules | None:
    programme = facts.programme_of(day)
    return None if programme is None else programme.demand


def _windows(facts: Facts, until: int) -> Iterator[tuple[int, int, int]]:
    """Begin, end and mean power of every window that is known whole."""
    begun: int | None = None  # since when sub-intervals have this length
    length = 0
    for day in range(facts.first_day, facts.day_of(until) + 1):
        rules, midnight = _rules_of(facts, day), facts.midnight(day)
        if rules is None:
            begun = None
            continue
        if begun is None or rules.sub_interval_s != length:
            begun, length = midnight, rules.sub_interval_s
        for end in range(midnight + length, midnight + DAY + 1, length):
            begin = end - rules.window_s
            if begin < begun or end > until:
                continue
            slots = [facts.delivered(at) for at in range(begin, end, SLOT)]
            known = [one for one in slots if one is not None]
            if len(known) == len(slots):
                yield begin, end, _rounded(sum(known) * 3600, rules.window_s)


# Schedules


def instants(schedule: ReadSchedule, after: float, before: float, offset_s: int) -> Iterator[int]:
    """The UTC seconds at which it reads, later than `after` and before `before`."""
    phase = schedule.offset_s - offset_s
    if schedule.period_s == WEEK:
        phase += 4 * DAY  # 1970-01-05 was a Monday.
    at = int(max(after + 1, schedule.start_s))
    at += (phase - at) % schedule.period_s
    while at < before and (not schedule.end_s or at < schedule.end_s):
        yield at
        at += schedule.period_s


# What is proved of the clock


@dataclass
class Doubt:
    """From which UTC second the clock was in doubt, and to which; at the least, and at the most.

    It was proved at the world's time `proved_at`: what was told before says nothing of it.
    """

    proved_at: float
    most_begin: float
    least_begin: float = NEVER
    least_end: float = NEVER
    most_end: float = NEVER


@dataclass
class Proofs:
    """What the contacts with the head-end proved of the clock, in their order."""

    doubts: list[Doubt] = field(default_factory=list)
    out_of_step: list[float] = field(default_factory=list)
    """The world's times at which that was to be said."""
    in_step: list[float] = field(default_factory=list)


def proofs_of(facts: Facts, contacts: Sequence[float]) -> Proofs:
    """`contacts`: when the head-end answered with its time."""
    found = Proofs()
    marks = [(at, 1, 0.0) for at in contacts]
    marks += [(at, 0, new - old) for at, old, new in facts.moves]
    marks += [(life.begin, 2, 0.0) for life in facts.lives]
    is_told = False
    for at, kind, by_s in sorted(marks):
        if kind == 2:
            is_told = False
        elif kind == 0:
            is_told = False
            utc = facts.utc(at)
            assert utc is not None
            _end(found, utc - by_s, is_sure=not _is_torn(facts, at))
        else:
            error = facts.error(at + 0.5)
            if error is None:
                continue
            wrong = error - facts.wall_error(at)
            utc = facts.epoch + at + error
            is_sure = not _is_torn(facts, at)
            if abs(wrong) > 120:
                if not found.doubts or found.doubts[-1].most_end < NEVER:
                    found.doubts.append(Doubt(at, utc - 2))
                if is_sure:
                    doubt = found.doubts[-1]
                    doubt.least_begin = min(doubt.least_begin, utc + PROVED_S)
                if not is_told:
                    found.out_of_step.append(at)
                is_told = True
            elif abs(wrong) < 20:
                if is_told:
                    found.in_step.append(at)
                is_told = False
                _end(found, utc, is_sure=is_sure)
    return found


def _end(found: Proofs, utc: float, *, is_sure: bool) -> None:
    if found.doubts and found.doubts[-1].most_end == NEVER:
        doubt = found.doubts[-1]
        doubt.least_end = min(doubt.least_end, utc - 2)
        if is_sure:
            doubt.most_end = utc + PROVED_S


def _is_torn(facts: Facts, at: float) -> bool:
    """Whether the power went so soon after `at` that what was written then may be lost."""
    return any(life.was_torn and at - 1 < life.end < at + 2 for life in facts.lives)
