"""What each schedule sent in two months, beside what it had to send."""

from __future__ import annotations

import itertools
from collections import defaultdict
from dataclasses import dataclass, field

from amistack.model.schedule import ReadSchedule
from amistack.model.scheduled_read import ScheduledRead
from tests.meterd.months.life import Life
from tests.meterd.months.model import (
    DAY,
    NEVER,
    Expected,
    Facts,
    expected_days,
    instants,
)

HOUR = 3600
DARK_S = HOUR
"""A read that nobody could hear for so long has failed."""
BRIGHT_S = 300.0
"""Seconds within which a read is through, if all was well for SETTLED_S before."""
SETTLED_S = 45 * 60.0
SLACK_S = 2.0
AT_ONCE_S = 0.1
REPEATED_S = 600.0
"""Seconds for which a message is repeated."""


@dataclass
class Run:
    """A schedule from its first setting to its end, however it changed meanwhile."""

    number: int
    versions: list[tuple[float, ReadSchedule]]
    """From when on (world) it was which."""
    end: float = NEVER


@dataclass
class Plan:
    """All runs, and what the log has to say of how they came and went."""

    runs: list[Run] = field(default_factory=list)
    said: list[tuple[float, str]] = field(default_factory=list)


def plan_of(facts: Facts) -> Plan:
    """The schedules as orders and programmes made them."""
    plan, now = Plan(), dict[int, Run]()
    orders = [(at, 0, number, one) for at, number, one in facts.schedules]
    changes: list[tuple[float, int, object]] = [(at, 0, order) for at, *order in orders]
    changes += [(told, 1, one) for _, told, one in facts.in_force() if one.schedules]
    for at, kind, what in sorted(changes, key=lambda one: one[:2]):
        if kind:
            wanted = what.schedules  # type: ignore[attr-defined]
            for one in wanted:
                _set(plan, now, at, one)
            for number in sorted(now.keys() - {one.number for one in wanted}):
                _cancel(plan, now, at, number)
            continue
        _, number, schedule = what  # type: ignore[misc]
        if schedule is None:
            _cancel(plan, now, at, number)
            continue
        utc = facts.utc(at)
        assert utc is not None
        if now.get(number) is None or now[number].versions[-1][1] != schedule:
            # Those that have ended make room.
            for other in [*now.values()]:
                end_s = other.versions[-1][1].end_s
                if other.number != number and end_s and end_s <= utc:
                    now.pop(other.number).end = at
        _set(plan, now, at, schedule)
    return plan


def _set(plan: Plan, now: dict[int, Run], at: float, schedule: ReadSchedule) -> None:
    run = now.get(schedule.number)
    if run is not None and run.versions[-1][1] == schedule:
        return
    plan.said.append((at, f"schedule {schedule.number} set, every {schedule.period_s} s"))
    if run is not None:
        run.versions.append((at, schedule))
        return
    now[schedule.number] = run = Run(schedule.number, [(at, schedule)])
    plan.runs.append(run)


def _cancel(plan: Plan, now: dict[int, Run], at: float, number: int) -> None:
    plan.said.append((at, f"schedule {number} cancelled"))
    now.pop(number).end = at


@dataclass
class Read:
    """One instant of a run: when the meter's clock showed it, and what came of it."""

    instant: int
    at: float
    following: float
    """When it showed the next one, or the schedule was changed."""
    messages: list[tuple[float, ScheduledRead]] = field(default_factory=list, repr=False)
    is_whole: bool = False


def reads_of(facts: Facts, run: Run) -> list[Read]:
    """Every instant that became due, in order."""
    found: list[Read] = []
    ends = [*(at for at, _ in run.versions[1:]), run.end]
    for (at, schedule), end in zip(run.versions, ends, strict=True):
        begun, stop = facts.utc(at), min(end, facts.end)
        assert begun is not None
        due = []
        for instant in instants(
            schedule, int(begun), facts.epoch + facts.end + DAY, facts.offset_s
        ):
            when = facts.reach(instant, at)
            # What the meter found missed as it came up again, with the change that came then, may
            # be on record as failed, or nobody's.
            if when > stop + AT_ONCE_S:
                break
            due.append(Read(instant, when, stop))
        for one, following in itertools.pairwise(due):
            one.following = following.at
        found += due
    return found


def check_schedules(life: Life) -> None:
    """Each due read of each schedule was sent whole, or has failed and is on record."""
    facts = life.facts
    days = expected_days(facts, facts.day_of(facts.epoch + facts.end) + 1)
    heard = defaultdict(list)
    for one in life.bench.head_end.heard:
        if one.read is not None:
            heard[one.read.number].append((one.now, one.read))
    failures = failures_of(life)
    for run in plan_of(facts).runs:
        last = min(run.end, facts.end)
        first = run.versions[0][0]
        mine = [one for one in heard[run.number] if first < one[0] <= last + SLACK_S]
        failed = [one for one in failures[run.number] if first < one[0] <= last + SLACK_S]
        reads = reads_of(facts, run)
        for when, message in mine:
            (read,) = [one for one in reads if one.at <= when + 0.1][-1:]
            read.messages.append((when, message))
        check_run(facts, run, reads, days)
        check_outcomes(life, run, reads, failed)


def failures_of(life: Life) -> dict[int, list[tuple[float, int]]]:
    """Of each schedule, when failures went on record, and how many."""
    found: dict[int, list[tuple[float, int]]] = defaultdict(list)
    for one in life.kept():
        if one.event == "3.20.87.85" and one.detail and one.detail.startswith("schedule "):
            words = one.detail.removeprefix("schedule ").removesuffix(" times").split(", ")
            found[int(words[0])].append((one.at, int(words[1]) if len(words) > 1 else 1))
    return found


def check_run(
    facts: Facts, run: Run, reads: list[Read], days: dict[int, dict[int, Expected]]
) -> None:
    """What it sent is right, has no hole and nothing twice; which of its reads were whole."""
    if not reads:
        return
    schedule = run.versions[0][1] if len(run.versions) == 1 else None
    covered: dict[int, set[int]] = defaultdict(set)
    reached = begin = None
    for read in reads:
        if begin is None:
            current = [one for at, one in run.versions if at <= read.at][-1]
            since = read.instant - (current.period_s if current.period_s >= DAY else 0)
            begin = facts.midnight(facts.day_of(since))
        for when, message in read.messages:
            where = f"schedule {run.number}, day {message.day}, sent at {when:.0f}"
            wanted = days[message.day]
            assert {one.block.channel for one in message.spans} <= wanted.keys(), where
            for span in message.spans:
                one = wanted[span.block.channel]
                assert span.block.interval_s == one.interval_s, where
                assert span.block.values() == one.values[span.first : span.end], where
            told = {
                place
                for span in message.spans
                if span.block.channel == 1
                for place in range(span.first, span.end)
            }
            again = told & covered[message.day]
            assert not again or _may_repeat(facts, read, when), f"{where}: told twice"
            covered[message.day] |= told
            # It was made a while ago if it was repeated, and the clock may have moved since.
            errors = {facts.error(when), facts.error(when - REPEATED_S)}
            errors |= {error for at, error in facts.clock if when - REPEATED_S <= at <= when}
            late = [
                facts.epoch + when + one - message.clock.utc_s for one in errors if one is not None
            ]
            assert any(-SLACK_S <= one <= REPEATED_S for one in late), (where, late)
        reached = _reached(facts, covered, days, begin)
        length = days[facts.day_of(read.instant - 1)][1].interval_s
        read.is_whole = (
            bool(read.messages)
            and reached > read.instant - length
            and _is_whole(facts, covered, days, begin, read.instant - length)
        )
    assert schedule is None or reached is not None


def _reached(
    facts: Facts, covered: dict[int, set[int]], days: dict[int, dict[int, Expected]], begin: int
) -> float:
    """Up to which UTC second something of the first channel was sent."""
    ends = [
        facts.midnight(day) + (max(places) + 1) * days[day][1].interval_s
        for day, places in covered.items()
        if places
    ]
    return max(ends, default=begin)


def _is_whole(
    facts: Facts,
    covered: dict[int, set[int]],
    days: dict[int, dict[int, Expected]],
    begin: int,
    end: int,
) -> bool:
    """Whether all from `begin` to `end` was sent."""
    for day in range(facts.day_of(begin), facts.day_of(end) + 1):
        if day < facts.first_day:
            continue
        length = days[day][1].interval_s
        midnight = facts.midnight(day)
        first = max(begin - midnight, 0) // length
        last = min(end - midnight, DAY) // length
        if any(place not in covered[day] for place in range(first, last)):
            return False
    return True


def _may_repeat(facts: Facts, read: Read, when: float) -> bool:
    """Whether the power went, or the answer was lost, so that it could not know that it was heard.

    What was told before is told again as of the last message before that.
    """
    before = [at for at, _ in read.messages if at < when]
    since = max(before, default=read.at - DAY)
    return any(life.was_torn and since - DAY <= life.end <= when for life in facts.lives)


def check_outcomes(
    life: Life, run: Run, reads: list[Read], failed: list[tuple[float, int]]
) -> None:
    """Each read is whole or on record as failed; the one that is open in the end may be neither."""
    facts = life.facts
    changes = [at for at, _ in run.versions[1:]] + [min(run.end, facts.end)]
    waiting: list[Read] = []
    pending = sorted(failed)
    place = 0
    for when, count in [*pending, (NEVER, 0)]:
        while place < len(reads) and reads[place].at <= when:
            one = reads[place]
            place += 1
            if not one.is_whole or is_unheard(facts, one):
                waiting.append(one)
        # Those that were due as the schedule was changed are nobody's.
        waiting = [
            one for one in waiting if not (one.following in changes and one.following < when)
        ]
        name = f"schedule {run.number} at {when:.0f}"
        if when == NEVER:
            open_ones = [one for one in waiting if not one.is_whole]
            assert open_ones == [], f"{name}: neither sent nor on record: {open_ones[:3]}"
            break
        assert len(waiting) >= count, f"{name}: {count} failed, due were {waiting}"
        waiting = sorted(waiting, key=lambda one: one.is_whole)[count:]
    for one in reads:
        check_outcome(facts, run, one)


def is_unheard(facts: Facts, read: Read) -> bool:
    """Whether the power went before the meter could keep that it was heard."""
    return any(
        life.was_torn and when - SLACK_S <= life.end <= when + SLACK_S
        for when, _ in read.messages
        for life in facts.lives
    )


def check_outcome(facts: Facts, run: Run, read: Read) -> None:
    name = f"schedule {run.number}, due at {read.at:.0f}"
    if facts.is_dark(read.at, min(read.at + DARK_S, read.following)):
        assert not read.messages, f"{name}: heard though nobody could hear it"
    elif read.following > read.at + BRIGHT_S and facts.is_bright(
        read.at - SETTLED_S, read.at + BRIGHT_S
    ):
        assert read.is_whole, f"{name}: not sent though all was well"
        assert read.messages[0][0] <= read.at + BRIGHT_S
