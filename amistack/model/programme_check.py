"""Whether the parts of a programme agree with each other: for who sends it and who takes it.

Gives   every fault with its place, in words that say what to change; none for a whole programme
Raises  nothing
Never   knows a particular meter: what one can measure, and has room for, it says itself
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from amistack.errors import ModelError
from amistack.model import wire
from amistack.model.programme import Programme, ThresholdKind
from amistack.model.quantity import Measured, Quantity
from amistack.model.tariff import GRID_MINUTES

INTERVALS_S: Final = (300, 600, 900, 1800, 3600)
"""5, 10, 15, 30, 60 minutes."""
INTERVALS_PER_REPORT_MAX: Final = 2_880
"""Values that one report can hold on all channels."""
PLACE_SIZE_MAX: Final = 32
REASON_SIZE_MAX: Final = 160
FAULT_COUNT_MAX: Final = 16
"""As many as are told at once."""
GRID_S: Final = GRID_MINUTES * 60


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong, and where: `place` is the part's name and, of several, its number."""

    place: str
    reason: str

    def __post_init__(self) -> None:
        wire.text(self.place, 1, PLACE_SIZE_MAX, "place")
        wire.text(self.reason, 1, REASON_SIZE_MAX, "reason")

    def __str__(self) -> str:
        return f"{self.place}: {self.reason}"


def faults_of(programme: Programme) -> tuple[Fault, ...]:
    """What contradicts what in a programme, at most FAULT_COUNT_MAX faults."""
    found = [
        *_channel_faults(programme),
        *_tier_faults(programme),
        *_demand_faults(programme),
        *_threshold_faults(programme),
        *_event_faults(programme),
        *_schedule_faults(programme),
    ]
    return tuple(dict.fromkeys(found))[:FAULT_COUNT_MAX]


def recorded(programme: Programme) -> dict[Measured, int]:
    """What its channels record, with the number of each; unknown ReadingTypes are left out."""
    found: dict[Measured, int] = {}
    for channel in programme.channels:
        try:
            found.setdefault(channel.measured, channel.number)
        except ModelError:
            continue
    return found


def _channel_faults(programme: Programme) -> Iterator[Fault]:
    if not programme.version:
        yield Fault("version", "0 is what a meter does without a programme; expected 1 or more")
    for number, count in Counter(one.number for one in programme.channels).items():
        if count > 1:
            yield Fault(f"channel {number}", "its number comes twice; number channels apart")
    seen: dict[Measured, int] = {}
    for one in programme.channels:
        place = f"channel {one.number}"
        try:
            what = one.measured
        except ModelError:
            yield Fault(place, f"unknown reading type {one.reading_type}")
            continue
        if what in seen:
            yield Fault(place, f"records {what} as channel {seen[what]} does; drop one")
        seen.setdefault(what, one.number)
        is_daily = one.interval_s == wire.DAY_S and what.quantity.is_counted
        if one.interval_s not in INTERVALS_S and not is_daily:
            yield Fault(
                place, f"intervals of {one.interval_s} s; expected 5, 10, 15, 30, 60 min or a day"
            )
    count = sum(wire.DAY_S // one.interval_s for one in programme.channels)
    if count > INTERVALS_PER_REPORT_MAX:
        yield Fault(
            "channels",
            f"{count} intervals a day in all; at most {INTERVALS_PER_REPORT_MAX} fit a report: "
            "longer intervals or fewer channels",
        )


def _tier_faults(programme: Programme) -> Iterator[Fault]:
    found = recorded(programme)
    tiered = {what.quantity for what in found if what.tier}
    if programme.calendar is None:
        for what, number in found.items():
            if what.tier:
                yield Fault(f"channel {number}", f"tier {what.tier}, but there is no calendar")
        return
    tiers = programme.calendar.tiers
    if not tiered:
        yield Fault("calendar", "no channel records a tier; add tier channels or drop the calendar")
    for quantity in sorted(tiered, key=lambda one: one.value):
        here = {what.tier for what in found if what.quantity is quantity}
        for tier in sorted({0, *tiers} - here):
            lacking = f"tier {tier}" if tier else "all tiers together"
            yield Fault(
                "channels", f"none for {lacking} of {quantity.value}: its tiers would not add up"
            )
        for tier in sorted(here - {0, *tiers}):
            number = found[Measured(quantity, tier)]
            yield Fault(f"channel {number}", f"tier {tier} is never in force in the calendar")


def _demand_faults(programme: Programme) -> Iterator[Fault]:
    rules = programme.demand
    if rules is None:
        return
    if rules.window_s % GRID_S or rules.sub_interval_s % GRID_S:
        yield Fault("demand", f"window and sub-interval are not on {GRID_MINUTES} minutes")
    elif rules.window_s % rules.sub_interval_s:
        yield Fault(
            "demand", f"sub-intervals of {rules.sub_interval_s} s do not divide {rules.window_s} s"
        )
    elif 3600 % rules.window_s:
        yield Fault("demand", f"windows of {rules.window_s} s do not divide an hour")
    if Measured(Quantity.DELIVERED) not in recorded(programme):
        yield Fault("demand", "no channel records delivered energy, which it is the power of")


def _threshold_faults(programme: Programme) -> Iterator[Fault]:
    for kind, count in Counter(one.kind for one in programme.thresholds).items():
        if count > 1:
            yield Fault("thresholds", f"{_name(kind)} comes twice; keep one")
    limits = {one.kind: one for one in programme.thresholds}
    low = limits.get(ThresholdKind.VOLTAGE_LOW)
    high = limits.get(ThresholdKind.VOLTAGE_HIGH)
    if low and high and low.limit + low.hysteresis >= high.limit - high.hysteresis:
        yield Fault("thresholds", "voltage low and high meet, counted with their hysteresis")
    for one in programme.thresholds:
        if one.kind is not ThresholdKind.VOLTAGE_LOW and one.hysteresis > one.limit:
            yield Fault("thresholds", f"{_name(one.kind)}: hysteresis is more than the limit")
    if ThresholdKind.DEMAND in limits and programme.demand is None:
        yield Fault("thresholds", "demand is watched, but there are no demand rules")


def _event_faults(programme: Programme) -> Iterator[Fault]:
    for event, count in Counter(one.event for one in programme.events).items():
        if count > 1:
            yield Fault("events", f"{event} comes twice; keep one")


def _schedule_faults(programme: Programme) -> Iterator[Fault]:
    for number, count in Counter(one.number for one in programme.schedules).items():
        if count > 1:
            yield Fault(f"schedule {number}", "its number comes twice; number schedules apart")


def _name(kind: ThresholdKind) -> str:
    return kind.name.lower().replace("_", " ")
