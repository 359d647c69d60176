"""The log of two months, entry by entry, beside what happened.

Every entry that is in it was written down as it was made; whether it had to be made, and with which
time, and what had to be made and is not there, the facts say.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterable

from amistack.model import LogEntry
from meterd.storage import LOG, entry_of
from tests.meterd.months.life import Life
from tests.meterd.months.model import DAY, NEVER, PROVED_S, Facts, dated_resets, proofs_of
from tests.meterd.months.noted import Written
from tests.meterd.months.sending import plan_of

HOUR = 3600
SLACK_S = 2.0
COLD_STARTED = "3.21.0.31"
POWER_FAILED, POWER_RESTORED = "3.26.0.47", "3.26.0.216"
REGISTERED = "3.1.90.58"
DAMAGED = "3.18.72.79"
CLOCK_SET, CLOCK_NOT_SET = "3.36.114.24", "3.36.0.79"
OUT_OF_STEP, IN_STEP = "3.36.114.93", "3.36.114.73"
SYNC_FAILED, CLOCK_LOST = "3.36.116.85", "3.36.114.47"
SILENT, HEARD = "3.1.0.85", "3.1.0.49"
SCHEDULE_CHANGED, PROGRAMME_CHANGED = "3.7.95.24", "3.7.83.24"
REFUSED = ("3.7.95.35", "3.7.83.35")
DEMAND_RESET = "3.8.0.215"
READ_FAILED = "3.20.87.85"
COVER_OPENED, COVER_CLOSED = "3.12.29.39", "3.12.29.16"
LOOKS = ("3.21.111.58", "3.21.100.58", "3.21.100.85")
"""The metrology check, the self-test that passed, and one with a finding."""

Due = tuple[float, str | None]
"""When (world) an entry has to be, with which words; None: with any."""


def check_log(life: Life) -> None:
    """The log at the head-end and in the meter is one, whole, and as the facts have it."""
    told = told_of(life)
    kept = life.kept()
    assert [one.sequence for one in kept] == sorted(told), "an entry was lost, or made up"
    for one in kept:
        entry = told[one.sequence]
        assert (str(entry.event), entry.detail) == (one.event, one.detail)
        check_time(life, one, entry)
    damaged = {one.sequence for one in kept if one.event == DAMAGED}
    for before, after in itertools.pairwise(kept):
        assert before.at <= after.at
        assert after.sequence == before.sequence + 1 or after.sequence in damaged
    by_event: dict[str, list[Written]] = defaultdict(list)
    for one in kept:
        by_event[one.event].append(one)
    check_events(life, by_event)


def told_of(life: Life) -> dict[int, LogEntry]:
    """Every entry that anybody was told of or that is kept, with one meaning each."""
    head_end = life.bench.head_end
    told: dict[int, LogEntry] = {}
    every: list[LogEntry] = [one.entry for notice in head_end.notices for one in notice.events]
    every += [entry for report in head_end.reports for entry in report.entries]
    every += [entry for read in head_end.reads for entry in read.entries]
    heard = len(every)
    every += [entry_of(number, row) for number, row in sorted(life.bench.storage.items(LOG))]
    for place, entry in enumerate(every):
        known = told.setdefault(entry.sequence, entry)
        assert known == entry, f"entry {entry.sequence} has two meanings: {known}, {entry}"
        if place >= heard and known is entry:
            # Not told yet: that goes for the last day's alone.
            assert entry.at >= life.facts.epoch + life.facts.end - 2 * DAY
    return told


def check_time(life: Life, one: Written, entry: LogEntry) -> None:
    """An entry's time is the meter's clock as it was made; or found afterwards, and doubtful."""
    facts, name = life.facts, f"entry {one.sequence}, {one.event}"
    if one.event == DEMAND_RESET and one.detail == "by date":
        return
    utc = facts.utc(one.at)
    if one.event == CLOCK_SET:
        # Of the time before, or of that after; none of an operator's stands in the log of 1970.
        (move,) = [each for each in facts.moves if each[0] == one.at]
        assert min(abs(entry.at - each) for each in move[1:]) <= SLACK_S, name
        return
    if utc is None:
        assert entry.is_time_doubtful, name
        life_of = next(each for each in facts.lives if each.begin <= one.at <= each.end)
        first = next((at for at, error in facts.clock if at >= one.at and error is not None), NEVER)
        if first < life_of.end - SLACK_S:
            error = facts.error(first)
            assert error is not None
            assert abs(entry.at - (facts.epoch + one.at + error)) <= SLACK_S, name
        return
    before = facts.utc(one.at - 0.001) or utc
    assert min(abs(entry.at - utc), abs(entry.at - before)) <= SLACK_S, name
    error = facts.error(one.at)
    assert error is not None
    if not entry.is_time_doubtful:
        wrong = min(abs(error - by_s) for at, by_s in facts.wall if at <= one.at)
        assert wrong <= 20.1, name


# Event by event


def check_events(life: Life, by_event: dict[str, list[Written]]) -> None:
    """What had to be on record is, and nothing else."""
    facts = life.facts
    plan, changes = plan_of(facts), facts.in_force()
    proofs = proofs_of(facts, [one.now for one in life.bench.head_end.heard])
    lives = [one for one in facts.lives if one.has_begun]

    def take(event: str, due: Iterable[Due], within_s: float = SLACK_S) -> None:
        match(life, event, by_event.pop(event, []), [*due], within_s)

    take(COLD_STARTED, [(facts.lives[0].begin, None)])
    restored = list(by_event.get(POWER_RESTORED, []))
    assert {one.at for one in restored} >= {one.begin for one in lives[1:]}
    take(POWER_RESTORED, [(one.at, None) for one in restored])
    assert {one.at for one in restored} <= {one.begin for one in facts.lives[1:]}
    take(POWER_FAILED, [(at, None) for at in life.gasps])
    take(DAMAGED, [(one.begin, None) for one in facts.lives if one.lost_octets and one.has_begun])
    take(CLOCK_LOST, [(one.begin, None) for one in lives if one.is_clock_lost])
    registered = [
        one.now
        for one in life.bench.head_end.heard
        if one.registration is not None and one.registration.reason.name != "PROGRAMME_CHANGED"
    ]
    take(REGISTERED, [(at, None) for at in registered])
    moves = [(at, f", {new - old:+.1f} s") for at, old, new in facts.moves]
    take(CLOCK_SET, moves)
    take(CLOCK_NOT_SET, [(at, None) for at in life.settings_refused])
    take(OUT_OF_STEP, [(at, None) for at in proofs.out_of_step], PROVED_S)
    take(IN_STEP, [(at, None) for at in proofs.in_step], PROVED_S)
    take(SCHEDULE_CHANGED, [(at, words) for at, words in plan.said])
    for event in REFUSED:
        take(event, [(at, words) for at, one, words in life.refused if one == event])
    told = [(when, f"version {one.version}") for _, when, one in changes]
    take(PROGRAMME_CHANGED, [*told, *life.withdrawn])
    utc = int(facts.epoch + facts.end)
    resets = [(facts.reach(at), "by date") for at in dated_resets(facts, utc)]
    resets += [(at, "by command") for at in life.reset_at]
    take(DEMAND_RESET, sorted(resets))
    take(COVER_OPENED, [(at, None) for at in life.covers])
    take(COVER_CLOSED, [(at, None) for at in life.covers])
    check_looks(life, by_event)
    check_network(life, by_event)
    check_failed_days(life, by_event.pop(READ_FAILED, []))
    assert by_event == {}, f"nobody knows why: {[*by_event]}"


def match(life: Life, event: str, found: list[Written], due: list[Due], within_s: float) -> None:
    """One entry for each that was due, in order; as the power went one may be missing."""
    rest = [*found]
    for at, words in due:
        one = next((each for each in rest if abs(each.at - at) <= within_s), None)
        if one is None:
            assert _is_torn(life.facts, at), f"{event} is missing at {at:.1f}: {words}"
            continue
        rest.remove(one)
        assert words is None or words in (one.detail or ""), f"{event} at {at:.1f}: {one.detail}"
    assert rest == [], f"{event}: {rest[:3]} were not due"


def _is_torn(facts: Facts, at: float) -> bool:
    return any(life.was_torn and abs(life.end - at) <= SLACK_S for life in facts.lives)


def check_looks(life: Life, by_event: dict[str, list[Written]]) -> None:
    """The meter looks at itself within minutes of its first start and each day; it finds no fault.

    Of its memory, that is: a clock or a network that is not well is found as well.
    """
    facts = life.facts
    metrology, passed, failed = (by_event.pop(event, []) for event in LOOKS)
    looks = sorted({one.at for one in [*passed, *failed]})
    assert {one.at for one in metrology} <= set(looks)
    assert looks[0] <= facts.lives[0].begin + 600
    for before, after in zip(looks, [*looks[1:], facts.end], strict=True):
        off = sum(
            max(0.0, two.begin - one.end + 600)
            for one, two in zip(facts.lives, facts.lives[1:], strict=False)
            if two.begin > before and one.end < after
        )
        # Who lost the time begins to count anew; who has a wrong one counts by that.
        lost = sum(one.is_clock_lost and before <= one.begin <= after for one in facts.lives)
        longest = DAY + off + lost * DAY + 2 * HOUR
        assert after - before <= longest, f"no look after {before:.0f} until {after:.0f}"
    for one in failed:
        findings = [
            entry
            for event in (SYNC_FAILED, SILENT)
            for entry in by_event.get(event, [])
            if entry.at == one.at
        ]
        assert findings, f"a finding at {one.at:.0f} that is on record as nothing else"
        for entry in findings:
            by_event[entry.event].remove(entry)
            check_finding(life, entry)


def check_finding(life: Life, entry: Written) -> None:
    facts, at = life.facts, entry.at
    if entry.event == SILENT:
        contacts = [one.now for one in life.bench.head_end.heard if one.now < at]
        begun = max(one.begin for one in facts.lives if one.begin <= at)
        assert at - max([begun, *contacts]) > 20 * HOUR
        return
    error = facts.error(at)
    heard = [one.now for one in life.bench.head_end.heard if one.now < at]
    begun = [*facts.faults, *(each.begin for each in facts.lives)]
    since = max(one for one in begun if one <= at)
    is_unproved = max([0.0, *heard]) <= since or at - max(heard) > 20 * HOUR
    assert error is None or is_unproved or abs(error - facts.wall_error(max(heard))) > 19


def check_network(life: Life, by_event: dict[str, list[Written]]) -> None:
    """That nobody answered, and that somebody did again; that the clock could not be compared."""
    facts = life.facts
    lost, back, unset = (by_event.pop(event, []) for event in (SILENT, HEARD, SYNC_FAILED))
    for one in facts.lives:
        mine = [each for each in [*lost, *back] if one.begin <= each.at <= one.end]
        mine.sort(key=lambda each: each.sequence)
        for place, each in enumerate(mine):
            assert each.event == (SILENT, HEARD)[place % 2], f"at {each.at:.0f}"
    for begin, end in facts.silences:
        whole = [one for one in facts.lives if one.begin <= begin and one.end >= end + HOUR]
        if whole and end - begin > 25 * HOUR:
            assert any(begin - 1 <= each.at <= end for each in lost) or _was_lost(lost, back, begin)
            assert any(end <= each.at <= end + HOUR for each in back)
    excuses = [*facts.silences, *((at, at) for at in facts.faults)]
    excuses += [(at, at) for at, _ in facts.wall[1:]]
    excuses += [(one.begin, one.begin) for one in facts.lives]
    for one in [*lost, *unset]:
        assert any(begin - 1 <= one.at <= end + 2 * DAY for begin, end in excuses), one


def _was_lost(lost: list[Written], back: list[Written], at: float) -> bool:
    """Whether it was on record already, and not over."""
    last = max((one.at for one in lost if one.at < at), default=-1.0)
    return last > max((one.at for one in back if one.at < at), default=-1.0)


def check_failed_days(life: Life, failed: list[Written]) -> None:
    """Of each day's report: on record as failed where nobody could hear it, else not."""
    facts = life.facts
    days = {int((one.detail or "").split()[1]): one.at for one in failed if _is_day(one)}
    assert len(days) == sum(map(_is_day, failed)), "a day has failed twice"
    assert all(_is_day(one) or (one.detail or "").startswith("schedule ") for one in failed)
    heard: dict[int, float] = {}
    for one in life.bench.head_end.heard:
        if one.report is not None:
            heard.setdefault(one.report.day, one.now)
    for day, first in heard.items():
        due = facts.reach(facts.midnight(day + 1) + 300)
        if day in days:
            assert days[day] >= due, day
            assert first > due + SLACK_S, f"day {day} was heard at once"
        is_on = any(one.begin <= due and one.end >= due + HOUR + 60 for one in facts.lives)
        knows = all(error is not None for at, error in facts.clock if due <= at <= due + HOUR)
        moved = any(due - 60 <= at <= due + HOUR + 60 for at in facts.faults)
        if is_on and knows and not moved and facts.is_dark(due - 1, due + HOUR + 60):
            assert day in days, f"day {day}: nobody heard it, and nobody was told"


def _is_day(one: Written) -> bool:
    return (one.detail or "").startswith("day ")
