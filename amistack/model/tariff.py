"""Which tariff is in force when: a time-of-use calendar.

The year has seasons, a season a week of day types, a day type its switch times; a special day has a
day type of its own. All of it in the meter's standard time, days of 24 hours.

Spec    docs/protocol/model.md, "Programme"
Gives   the tariff at any moment
Raises  `ModelError`, and nothing else, from the decoder and on a calendar that cannot be
Limit   DAY_TYPE_COUNT_MAX day types of SWITCH_COUNT_MAX switches, SEASON_COUNT_MAX seasons,
        SPECIAL_DAY_COUNT_MAX special days
Never   knows daylight saving
"""

from __future__ import annotations

import datetime as dt
import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from amistack.errors import ModelError
from amistack.model import wire
from amistack.model.quantity import TIER_MAX

DAY_MINUTES: Final = 1440
GRID_MINUTES: Final = 5
"""Tariffs change on this grid: no interval is shorter, so none has two tariffs in it."""
WEEK_DAYS: Final = 7
DAY_TYPE_COUNT_MAX: Final = 16
SWITCH_COUNT_MAX: Final = 16
SEASON_COUNT_MAX: Final = 8
SPECIAL_DAY_COUNT_MAX: Final = 64
YEAR_MAX: Final = 2105

_EPOCH: Final = dt.date(1970, 1, 1).toordinal()


@dataclass(frozen=True, slots=True)
class Switch:
    """From `minute` of the day on, `tier` is in force."""

    minute: int
    tier: int

    def __post_init__(self) -> None:
        wire.integer(self.minute, 0, DAY_MINUTES - 1, "switch time")
        wire.integer(self.tier, 1, TIER_MAX, "tier")


@dataclass(frozen=True, slots=True)
class DayType:
    """The switches of a day, ascending, the first at midnight."""

    switches: tuple[Switch, ...]

    def __post_init__(self) -> None:
        wire.array(self.switches, 1, SWITCH_COUNT_MAX, "switches")
        minutes = [switch.minute for switch in self.switches]
        if minutes[0] or minutes != sorted(set(minutes)):
            raise ModelError("bad calendar", "switches do not ascend from midnight")
        if any(minute % GRID_MINUTES for minute in minutes):
            raise ModelError("bad calendar", f"a switch is not on {GRID_MINUTES} minutes")

    def tier_at(self, minute: int) -> int:
        """The tariff in force at that minute."""
        return next(one.tier for one in reversed(self.switches) if one.minute <= minute)


@dataclass(frozen=True, slots=True)
class Season:
    """From that day of every year on, the days of a week, Monday first, are of these day types."""

    month: int
    day: int
    week: tuple[int, ...]

    def __post_init__(self) -> None:
        _check_date(0, self.month, self.day)
        wire.array(self.week, WEEK_DAYS, WEEK_DAYS, "week")
        for day_type in self.week:
            wire.integer(day_type, 0, DAY_TYPE_COUNT_MAX - 1, "day type")


@dataclass(frozen=True, slots=True)
class SpecialDay:
    """A date of one year, or of every year (0), has a day type of its own."""

    year: int
    month: int
    day: int
    day_type: int

    def __post_init__(self) -> None:
        if self.year:
            wire.integer(self.year, 1970, YEAR_MAX, "year")
        _check_date(self.year, self.month, self.day)
        wire.integer(self.day_type, 0, DAY_TYPE_COUNT_MAX - 1, "day type")


@dataclass(frozen=True, slots=True)
class TariffCalendar:
    """Tariffs all year. `seasons` ascend; before the first of a year the last one goes on."""

    day_types: tuple[DayType, ...]
    seasons: tuple[Season, ...]
    special_days: tuple[SpecialDay, ...] = ()

    def __post_init__(self) -> None:
        wire.array(self.day_types, 1, DAY_TYPE_COUNT_MAX, "day types")
        wire.array(self.seasons, 1, SEASON_COUNT_MAX, "seasons")
        wire.array(self.special_days, 0, SPECIAL_DAY_COUNT_MAX, "special days")
        starts = [(season.month, season.day) for season in self.seasons]
        if starts != sorted(set(starts)):
            raise ModelError("bad calendar", "seasons do not ascend")
        dates = {(one.year, one.month, one.day) for one in self.special_days}
        if len(dates) < len(self.special_days):
            raise ModelError("bad calendar", "a special day comes twice")
        named = {day_type for season in self.seasons for day_type in season.week}
        named.update(one.day_type for one in self.special_days)
        if max(named) >= len(self.day_types):
            raise ModelError("bad calendar", f"day type {max(named)} is not there")

    @property
    def tiers(self) -> tuple[int, ...]:
        """The tariffs that some switch names, ascending."""
        return tuple(sorted({one.tier for kind in self.day_types for one in kind.switches}))

    @property
    def minutes(self) -> tuple[int, ...]:
        """The minutes of a day at which some day type switches."""
        return tuple(sorted({one.minute for kind in self.day_types for one in kind.switches}))

    def day_type(self, day: int) -> DayType:
        """The day type of a day, counted from 1970-01-01 in standard time."""
        return self.day_types[_day_type(self.seasons, self.special_days, day)]

    def tier_at(self, local_s: int) -> int:
        """The tariff in force at a second of standard time, counted from 1970-01-01."""
        day, second = divmod(local_s, wire.DAY_S)
        return self.day_type(day).tier_at(second // 60)

    def to_tree(self) -> list[object]:
        """The calendar's items."""
        return [
            [[[one.minute, one.tier] for one in kind.switches] for kind in self.day_types],
            [[season.month, season.day, list(season.week)] for season in self.seasons],
            [[one.year, one.month, one.day, one.day_type] for one in self.special_days],
        ]

    @classmethod
    def from_tree(cls, item: object) -> TariffCalendar:
        """The calendar that `to_tree` wrote."""
        kinds, seasons, special_days = wire.array(item, 3, 3, "calendar")
        return cls(
            tuple(
                DayType(tuple(_switch(one) for one in wire.array(kind, 1, SWITCH_COUNT_MAX, "day")))
                for kind in wire.array(kinds, 1, DAY_TYPE_COUNT_MAX, "day types")
            ),
            tuple(_season(one) for one in wire.array(seasons, 1, SEASON_COUNT_MAX, "seasons")),
            tuple(
                _special_day(one)
                for one in wire.array(special_days, 0, SPECIAL_DAY_COUNT_MAX, "special days")
            ),
        )


@functools.lru_cache(maxsize=64)
def _day_type(seasons: tuple[Season, ...], special_days: Sequence[SpecialDay], day: int) -> int:
    date = dt.date.fromordinal(_EPOCH + day)
    for year in (date.year, 0):  # What is said of one year goes before what is said of all.
        for one in special_days:
            if (one.year, one.month, one.day) == (year, date.month, date.day):
                return one.day_type
    begun = [one for one in seasons if (one.month, one.day) <= (date.month, date.day)]
    return (begun or seasons)[-1].week[date.weekday()]


def _check_date(year: int, month: int, day: int) -> None:
    wire.integer(month, 1, 12, "month")
    try:
        dt.date(year or 2000, month, wire.integer(day, 1, 31, "day of the month"))
    except ValueError:
        raise ModelError("bad calendar", f"there is no {month:02}-{day:02}") from None


def _switch(item: object) -> Switch:
    minute, tier = wire.array(item, 2, 2, "switch")
    return Switch(
        wire.integer(minute, 0, DAY_MINUTES - 1, "switch time"),
        wire.integer(tier, 1, TIER_MAX, "tier"),
    )


def _season(item: object) -> Season:
    month, day, week = wire.array(item, 3, 3, "season")
    return Season(
        wire.integer(month, 1, 12, "month"),
        wire.integer(day, 1, 31, "day of the month"),
        tuple(
            wire.integer(one, 0, DAY_TYPE_COUNT_MAX - 1, "day type")
            for one in wire.array(week, WEEK_DAYS, WEEK_DAYS, "week")
        ),
    )


def _special_day(item: object) -> SpecialDay:
    year, month, day, day_type = wire.array(item, 4, 4, "special day")
    return SpecialDay(
        wire.integer(year, 0, YEAR_MAX, "year"),
        wire.integer(month, 1, 12, "month"),
        wire.integer(day, 1, 31, "day of the month"),
        wire.integer(day_type, 0, DAY_TYPE_COUNT_MAX - 1, "day type"),
    )
