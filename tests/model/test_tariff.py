"""Tariff calendars.

The contract under test, with a walk over the dates as the oracle: the tariff at any moment; special
days go before seasons, those of one year before those of every year; a calendar that cannot be is
refused as it is made.
"""

from __future__ import annotations

import datetime as dt

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amistack.errors import ModelError
from amistack.model.tariff import DayType, Season, SpecialDay, Switch, TariffCalendar
from tests.model.programmes import calendars

WORKDAY = DayType((Switch(0, 1), Switch(6 * 60, 2), Switch(22 * 60, 1)))
WEEKEND = DayType((Switch(0, 1),))
HEATING = DayType((Switch(0, 3), Switch(60, 1)))
CALENDAR = TariffCalendar(
    (WORKDAY, WEEKEND, HEATING),
    (Season(4, 1, (0, 0, 0, 0, 0, 1, 1)), Season(10, 15, (2,) * 7)),
    (SpecialDay(0, 5, 1, 1), SpecialDay(2026, 5, 1, 0), SpecialDay(2026, 6, 10, 2)),
)


def at(text: str) -> int:
    """Seconds of standard time since 1970 at a date and time."""
    return int(dt.datetime.fromisoformat(text).replace(tzinfo=dt.UTC).timestamp())


@pytest.mark.parametrize(
    ("when", "tier"),
    [
        ("2026-06-09 05:59:59", 1),  # a Tuesday
        ("2026-06-09 06:00:00", 2),
        ("2026-06-09 21:59:59", 2),
        ("2026-06-09 22:00:00", 1),
        ("2026-06-13 12:00:00", 1),  # a Saturday
        ("2026-06-10 00:30:00", 3),  # a special day of this year
        ("2027-06-10 00:30:00", 1),  # ... and not of the next
        ("2027-05-01 12:00:00", 1),  # a special day of every year, a Saturday anyway
        ("2029-05-01 12:00:00", 1),  # a Tuesday
        ("2026-05-01 12:00:00", 2),  # ... but that year has another rule for it, a Friday
        ("2026-10-14 12:00:00", 2),  # the last day of a season, a Wednesday
        ("2026-10-15 00:59:59", 3),  # the first of the next
        ("2026-12-31 00:00:00", 3),
        ("2027-01-01 00:00:00", 3),  # the season goes on over the new year
        ("2027-03-31 00:00:00", 3),
        ("2027-04-01 00:00:00", 1),
        ("2028-02-29 12:00:00", 1),
    ],
)
def test_tariff_in_force(when: str, tier: int) -> None:
    assert CALENDAR.tier_at(at(when)) == tier


def walk(calendar: TariffCalendar, date: dt.date, minute: int) -> int:
    """The tariff found by going day by day, and switch by switch."""
    week = calendar.seasons[-1].week
    day = dt.date(date.year, 1, 1)
    while day <= date:
        for season in calendar.seasons:
            if (season.month, season.day) == (day.month, day.day):
                week = season.week
        # A season that begins on February 29 begins with March where there is none.
        if (day.month, day.day) == (3, 1) and day - dt.timedelta(1) == dt.date(day.year, 2, 28):
            for season in calendar.seasons:
                if (season.month, season.day) == (2, 29):
                    began = [one for one in calendar.seasons if (one.month, one.day) <= (3, 1)]
                    week = began[-1].week
        day += dt.timedelta(1)
    place = week[date.weekday()]
    for one in calendar.special_days:
        if one.year == 0 and (one.month, one.day) == (date.month, date.day):
            place = one.day_type
    for one in calendar.special_days:
        if (one.year, one.month, one.day) == (date.year, date.month, date.day):
            place = one.day_type
    tier = 0
    for switch in calendar.day_types[place].switches:
        if switch.minute <= minute:
            tier = switch.tier
    return tier


@settings(max_examples=100, deadline=None)
@given(
    calendars(),
    st.dates(dt.date(2024, 1, 1), dt.date(2027, 12, 31)),
    st.integers(0, 1439),
)
def test_tariff_is_that_of_a_walk_over_the_dates(
    calendar: TariffCalendar, date: dt.date, minute: int
) -> None:
    second = (date - dt.date(1970, 1, 1)).days * 86_400 + minute * 60
    assert calendar.tier_at(second) == walk(calendar, date, minute)
    assert calendar.tier_at(second) in calendar.tiers


@pytest.mark.parametrize(
    "switches",
    [
        (),
        (Switch(60, 1),),
        (Switch(0, 1), Switch(60, 2), Switch(60, 1)),
        (Switch(0, 1), Switch(120, 2), Switch(60, 1)),
        (Switch(0, 1), Switch(61, 2)),
        tuple(Switch(5 * place, 1) for place in range(17)),
    ],
)
def test_day_type_that_cannot_be_is_refused(switches: tuple[Switch, ...]) -> None:
    with pytest.raises(ModelError):
        DayType(switches)


def test_day_type_of_as_many_switches_as_there_may_be_is_taken() -> None:
    assert len(DayType(tuple(Switch(5 * place, 1) for place in range(16))).switches) == 16


@pytest.mark.parametrize(
    ("seasons", "special_days", "said"),
    [
        ((Season(4, 1, (0,) * 7), Season(4, 1, (0,) * 7)), (), "seasons do not ascend"),
        ((Season(5, 1, (0,) * 7), Season(4, 1, (0,) * 7)), (), "seasons do not ascend"),
        ((Season(4, 1, (1,) * 7),), (), "day type 1 is not there"),
        ((Season(4, 1, (0,) * 7),), (SpecialDay(0, 5, 1, 3),), "day type 3 is not there"),
        (
            (Season(4, 1, (0,) * 7),),
            (SpecialDay(2026, 5, 1, 0), SpecialDay(2026, 5, 1, 0)),
            "a special day comes twice",
        ),
        ((), (), "seasons has 0 items"),
    ],
)
def test_calendar_that_contradicts_itself_is_refused(
    seasons: tuple[Season, ...], special_days: tuple[SpecialDay, ...], said: str
) -> None:
    with pytest.raises(ModelError, match=said):
        TariffCalendar((WORKDAY,), seasons, special_days)


@pytest.mark.parametrize(("year", "month", "day"), [(0, 2, 30), (2026, 2, 29), (0, 13, 1)])
def test_date_that_there_is_none_of_is_refused(year: int, month: int, day: int) -> None:
    with pytest.raises(ModelError):
        SpecialDay(year, month, day, 0)
    with pytest.raises(ModelError):
        Season(month, 32, (0,) * 7)


def test_29_february_is_of_every_leap_year() -> None:
    leap = SpecialDay(0, 2, 29, 1)
    calendar = TariffCalendar((WORKDAY, HEATING), (Season(1, 1, (0,) * 7),), (leap,))
    assert calendar.tier_at(at("2028-02-29 00:00:00")) == 3
    assert calendar.tier_at(at("2027-03-01 00:00:00")) == 1
