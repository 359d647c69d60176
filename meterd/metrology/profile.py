"""A household that nobody lives in: believable energy from a seed, any day by itself.

Gives   one household per seed, different from the next in level, shape and appliances
Raises  ConfigError for settings that no household has
Limit   keeps DAYS_CACHED_MAX days; a day is made at a step of one minute
Never   draws anything but `random()` from a generator: only that is promised to stay the
        same from one Python to the next, and a meter must not change its past
"""

from __future__ import annotations

import enum
import functools
import math
from array import array
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, chain, pairwise, repeat
from random import Random
from typing import Final, TypeVar

from amistack.errors import ConfigError
from meterd.metrology.source import (
    DAY_S,
    MINUTE_S,
    Energy,
    Flow,
    check_settings,
    check_window,
    elapsed_within,
)

DAYS_CACHED_MAX: Final = 4
SKIES_CACHED_MAX: Final = 64
LATITUDE_MAX: Final = 65.0
"""Degrees; beyond the polar circle the sun keeps hours that this model does not."""

DAY_MINUTES: Final = 1440
SUN_STEP_MINUTES: Final = 5
YEAR_DAYS: Final = 365.2425
SOLAR_SHARE: Final = 0.2

Choice = TypeVar("Choice")

Draw = Callable[[], float]
"""A number from 0 up to, not including, 1."""

DARK_SINE: Final = 0.07
"""Sine of the sun's height (about 4 degrees) under which lamps go on."""

HEATING_BASE: Final = 15.5
"""Outdoor degrees Celsius under which a house needs heat."""


class Heating(enum.Enum):
    """How the house is kept warm, as far as its electricity meter can tell."""

    OTHER = "gas or district heat: only a pump"
    STORAGE = "storage heaters, charged at night"
    HEAT_PUMP = "heat pump"


class Occupancy(enum.Enum):
    """Who is at home on a working day."""

    OUT = "everybody is out"
    MIXED = "somebody comes back early"
    HOME = "somebody is always in"


@dataclass(frozen=True, slots=True)
class Household:
    """What a seed decides once. Powers in W, times in minutes of the day."""

    people: int
    occupancy: Occupancy
    heating: Heating
    standby: float
    fridge_power: float
    fridge_period: float
    fridge_share: float
    freezer_power: float
    wake: float
    leave: float
    back: float
    sleep: float
    lamps: float
    screens: float
    kettle: float
    cooker: float
    shower: float
    dishwasher: float
    washer: float
    dryer: float
    charger: float
    charge_at: float | None
    commute_wh: float
    heat_loss: float
    activity: float
    panel_power: float


class HouseholdProfile:
    """A seeded household behind a meter that nets sun against load.

    `solar` None lets the seed decide (one in five). Days follow the standard time that is
    `offset_min` from UTC, where the sun is highest at 12:00. The weather is the same for all
    seeds of one `latitude`: a street sees the same clouds. Each day comes to a whole number
    of Wh in each flow, so that days join without a remainder.
    """

    def __init__(
        self,
        seed: int,
        *,
        interval_s: int = 900,
        solar: bool | None = None,
        offset_min: int = 0,
        latitude: float = 52.0,
    ) -> None:
        check_settings(interval_s, offset_min)
        if not abs(latitude) <= LATITUDE_MAX:
            raise ConfigError(f"latitude is {latitude}, expected degrees within {LATITUDE_MAX}")
        self.interval_s: Final = interval_s
        self.household: Final = _household(seed, solar)
        self.flows: Final = (
            (Flow.DELIVERED, Flow.RECEIVED) if self.household.panel_power else (Flow.DELIVERED,)
        )
        self._seed: Final = seed
        self._offset_min: Final = offset_min
        self._latitude: Final = latitude
        self._days: Final[OrderedDict[int, _Curves]] = OrderedDict()

    def energy(self, start: int, count: int) -> list[Energy]:
        """Wh in each of `count` intervals from `start` on; there is never a gap."""
        self._check(start, count)
        values: list[Energy] = []
        local = start + self._offset_min * MINUTE_S
        while len(values) < count:
            day, second = divmod(local, DAY_S)
            # Intervals divide the day, so none reaches over midnight.
            last = min(DAY_S, second + (count - len(values)) * self.interval_s)
            ends = range(second, last + 1, self.interval_s)
            columns = []
            for curve in self._curves_of(day):
                shown = [_shown(curve, end) for end in ends]
                columns.append([after - before for before, after in pairwise(shown)])
            values.extend(zip(*columns, strict=True))
            local += last - second
        return values

    def partial(self, start: int, now: float) -> Energy:
        """Wh from `start` until `now`, within one interval."""
        self._check(start, 1)
        elapsed = elapsed_within(start, now, interval_s=self.interval_s)
        day, second = divmod(start + self._offset_min * MINUTE_S, DAY_S)
        return tuple(
            _shown(curve, second + elapsed) - _shown(curve, second)
            for curve in self._curves_of(day)
        )

    def available(self) -> tuple[int | None, int | None]:
        """No limit on either side."""
        return None, None

    def _check(self, start: int, count: int) -> None:
        check_window(start, count, interval_s=self.interval_s, offset_min=self._offset_min)

    def _curves_of(self, day: int) -> _Curves:
        """Cumulative Wh at each minute's end, one curve for each flow."""
        if (curves := self._days.get(day)) is not None:
            self._days.move_to_end(day)
            return curves
        curves = _make_day(self.household, self._seed, day, self._latitude)
        self._days[day] = curves
        if len(self._days) > DAYS_CACHED_MAX:
            self._days.popitem(last=False)
        return curves


_Curves = tuple["array[float]", ...]


def _shown(curve: Sequence[float], second: float) -> int:
    """The register at `second` of the day: whole Wh since midnight, rounded half up."""
    minute = int(second // MINUTE_S)
    wh = curve[minute]
    if rest := second - minute * MINUTE_S:
        wh += (curve[minute + 1] - wh) * rest / MINUTE_S
    return math.floor(wh + 0.5)


# The household.


def _household(seed: int, solar: bool | None) -> Household:
    draw = Random(f"household/{seed}").random
    people = _pick(draw, ((1, 0.30), (2, 0.36), (3, 0.16), (4, 0.13), (5, 0.05)))
    occupancy = _pick(
        draw, ((Occupancy.OUT, 0.45), (Occupancy.MIXED, 0.25), (Occupancy.HOME, 0.30))
    )
    heating = _pick(
        draw, ((Heating.OTHER, 0.84), (Heating.STORAGE, 0.06), (Heating.HEAT_PUMP, 0.10))
    )
    has_sun = draw() < SOLAR_SHARE
    panel_power = _between(draw, 2200, 5500)
    has_car = draw() < (0.04 if heating is not Heating.OTHER else 0.14)
    charge_at = _between(draw, 30, 150) if draw() < 0.5 else None
    wake = _bell(draw, 400, 60)
    return Household(
        people=people,
        occupancy=occupancy,
        heating=heating,
        standby=_between(draw, 25, 60) + 12 * people + 160 * draw() ** 4,
        fridge_power=_between(draw, 60, 120),
        fridge_period=_between(draw, 38, 75),
        fridge_share=_between(draw, 0.28, 0.45),
        freezer_power=_between(draw, 60, 110) if draw() < 0.35 else 0.0,
        wake=wake,
        leave=wake + _between(draw, 50, 110),
        back=_bell(draw, 1045, 90) if occupancy is Occupancy.OUT else _bell(draw, 900, 90),
        sleep=_bell(draw, 1370, 55),
        lamps=_between(draw, 40, 110) + 25 * people,
        screens=_between(draw, 70, 160) + 45 * people,
        kettle=_between(draw, 1800, 3000) if draw() < 0.9 else 0.0,
        cooker=_between(draw, 1400, 2600) if draw() < 0.65 else 0.0,
        shower=_between(draw, 7500, 9500) if draw() < 0.25 else 0.0,
        dishwasher=_between(draw, 1700, 2200) if draw() < 0.35 + 0.1 * people else 0.0,
        washer=_between(draw, 1800, 2200),
        dryer=_between(draw, 900, 2400) if draw() < 0.25 + 0.07 * people else 0.0,
        charger=_pick(draw, ((2300.0, 0.25), (3700.0, 0.35), (7200.0, 0.4))) if has_car else 0.0,
        charge_at=charge_at,
        commute_wh=_between(draw, 3000, 9000),
        heat_loss=_between(draw, 85, 170),
        activity=0.6 + 0.8 * draw() ** 1.7,
        panel_power=panel_power if (has_sun if solar is None else solar) else 0.0,
    )


# One day.


class _Loads:
    """The powers of a day as steps up and down, summed once at the end."""

    def __init__(self) -> None:
        self._steps = [0.0] * (DAY_MINUTES + 1)

    def add(self, start: float, minutes: float, watts: float) -> None:
        """`watts` from `start` on; what lies outside of the day is cut off."""
        first = min(max(int(start), 0), DAY_MINUTES)
        last = min(max(int(start + minutes), 0), DAY_MINUTES)
        self._steps[first] += watts
        self._steps[last] -= watts

    def total(self) -> list[float]:
        """W in each minute of the day."""
        return list(accumulate(self._steps[:DAY_MINUTES]))


def _make_day(house: Household, seed: int, day: int, latitude: float) -> _Curves:
    draw = Random(f"day/{seed}/{day}").random
    sky = _sky(day, latitude)
    loads = _Loads()
    _add_always_on(loads, house, draw)
    _add_heating(loads, house, sky, draw)
    _add_car(loads, house, seed, day)
    if not _is_away(seed, day):
        # Some days are lively, some are not; everything that people do follows.
        house = replace(house, activity=house.activity * (0.45 + 1.2 * draw()))
        awake = _waking_hours(house, day, draw)
        _add_evening(loads, house, sky, awake, draw)
        _add_kitchen(loads, house, awake, draw)
        _add_laundry(loads, house, awake, draw)

    watts = loads.total()
    if not house.panel_power:
        return (_cumulated(watts),)
    scale = house.panel_power
    net = [load - scale * sun for load, sun in zip(watts, sky.sun, strict=True)]
    return (
        _cumulated([max(power, 0.0) for power in net]),
        _cumulated([max(-power, 0.0) for power in net]),
    )


def _cumulated(watts: Sequence[float]) -> array[float]:
    return array("d", (total / 60 for total in accumulate(watts, initial=0.0)))


def _add_always_on(loads: _Loads, house: Household, draw: Draw) -> None:
    loads.add(0, DAY_MINUTES, house.standby * (0.9 + 0.2 * draw()))
    _add_cycles(loads, house.fridge_power, house.fridge_period, house.fridge_share, draw)
    if house.freezer_power:
        _add_cycles(loads, house.freezer_power, house.fridge_period * 1.3, 0.35, draw)


def _add_cycles(loads: _Loads, watts: float, period: float, share: float, draw: Draw) -> None:
    """A thermostat at work: on for `share` of each `period` minutes, never quite regular."""
    minute = -period * draw()
    while minute < DAY_MINUTES:
        lasts = period * (0.8 + 0.4 * draw())
        loads.add(minute, lasts * share, watts)
        minute += lasts


def _add_heating(loads: _Loads, house: Household, sky: _Sky, draw: Draw) -> None:
    need = max(HEATING_BASE - sky.temperature, 0.0)
    if not need:
        return
    if house.heating is Heating.OTHER:
        loads.add(360, 960, 45 * min(need / 8, 1))
    elif house.heating is Heating.STORAGE:
        heat_wh = need * house.heat_loss * 0.5 * 24 * (0.85 + 0.3 * draw())
        for watts in (2800.0, 1900.0, 1900.0):
            hours = min(heat_wh / watts, 7.0)
            loads.add(30 + 20 * draw(), hours * 60, watts)
            heat_wh -= hours * watts
    else:
        # It draws more for each unit of heat as the air gets colder, and cycles when mild.
        efficiency = min(max(2.6 + 0.09 * sky.temperature, 1.7), 4.5)
        power = need * house.heat_loss / efficiency
        for hour in range(24):
            swing = 1.0 + 0.3 * math.cos((hour - 5) * math.pi / 12)
            wanted = power * swing * (0.85 + 0.3 * draw())
            running = max(wanted, 550.0)
            loads.add(hour * 60 + 12 * draw(), 60 * wanted / running, running)


def _add_car(loads: _Loads, house: Household, seed: int, day: int) -> None:
    if not house.charger:
        return
    # A car plugged in last night may still be charging.
    for plugged_in, shift in ((day, 0), (day - 1, -DAY_MINUTES)):
        draw = Random(f"car/{seed}/{plugged_in}").random
        if draw() < 0.45 and not _is_away(seed, plugged_in):
            wh = house.commute_wh * (0.5 + 1.6 * draw())
            came_home = house.back + 60 * draw() + 15
            start = came_home if house.charge_at is None else DAY_MINUTES + house.charge_at
            loads.add(start + shift, wh / house.charger * 60, house.charger)


def _is_away(seed: int, day: int) -> bool:
    """Nobody sleeps here: some weeks of the year, and a day now and then."""
    if Random(f"week/{seed}/{day // 7}").random() < 0.045:
        return True
    return Random(f"away/{seed}/{day}").random() < 0.02


def _waking_hours(house: Household, day: int, draw: Draw) -> list[tuple[float, float]]:
    """Spans of minutes in which somebody is at home and awake, in order."""
    wake = house.wake + 40 * (draw() - 0.5)
    sleep = min(house.sleep + 70 * (draw() - 0.5), DAY_MINUTES - 5)
    is_weekend = (day + 3) % 7 >= 5  # Day 0 was a Thursday.
    if is_weekend:
        wake += 75 * draw() + 20
        if draw() < 0.45:
            out = _between(draw, wake + 90, wake + 300)
            return [(wake, out), (min(out + _between(draw, 90, 330), sleep - 60), sleep)]
        return [(wake, sleep)]
    if house.occupancy is Occupancy.HOME and draw() < 0.75:
        return [(wake, sleep)]
    leave = house.leave + 30 * (draw() - 0.5)
    back = min(house.back + 100 * (draw() - 0.4), sleep - 60)
    return [(wake, leave), (back, sleep)]


def _add_evening(
    loads: _Loads,
    house: Household,
    sky: _Sky,
    awake: list[tuple[float, float]],
    draw: Draw,
) -> None:
    """Lamps while it is dark, screens while somebody is in, most of all at night."""
    for first, last in awake:
        for start, end in ((first, min(last, sky.sunrise)), (max(first, sky.sunset), last)):
            if end > start:
                loads.add(start, end - start, house.lamps * (0.6 + 0.5 * draw()))
        minute = first
        while minute < last:
            lasts = min(25 + 95 * draw(), last - minute)
            busy = 1.0 if minute > 1050 else 0.45
            loads.add(minute, lasts, house.screens * busy * house.activity * draw() * 1.5)
            minute += lasts


def _add_kitchen(
    loads: _Loads, house: Household, awake: list[tuple[float, float]], draw: Draw
) -> None:
    wake, sleep = awake[0][0], awake[-1][1]
    for first, last in awake:
        minute = first + 5 + 20 * draw()
        while house.kettle and minute < last:
            loads.add(minute, 2 + 3 * draw(), house.kettle)
            minute += (60 + 180 * draw()) / (0.5 + house.activity * house.people**0.3 / 2)
    loads.add(wake + 15 + 20 * draw(), 3 + 4 * draw(), 1100)
    for _ in range(house.people):
        if house.shower and draw() < 0.4 + 0.4 * house.activity:
            loads.add(wake + 5 + 60 * draw(), 4 + 5 * draw(), house.shower)

    supper = min(max(_between(draw, 1050, 1170), awake[-1][0] + 10), sleep - 40)
    lasts = (20 + 45 * draw()) * (0.4 + 0.7 * house.activity)
    if not house.cooker or draw() < 0.2:
        loads.add(supper, 4 + 8 * draw(), 1250)
    else:
        # A thermostat again: full on at first, then half of the time.
        loads.add(supper, 9 + 4 * draw(), house.cooker)
        minute = supper + 14
        while minute < supper + lasts:
            loads.add(minute, 2 + 2 * draw(), house.cooker)
            minute += 5 + 2 * draw()
    if len(awake) == 1 and draw() < 0.6:
        loads.add(_between(draw, 715, 800), 6 + 14 * draw(), house.cooker or 1200)
    if house.dishwasher and draw() < 0.25 + 0.14 * house.people:
        start = min(supper + 60 + 60 * draw(), sleep - 10)
        loads.add(start, 110, 60)
        loads.add(start + 8, 16, house.dishwasher)
        loads.add(start + 70, 14, house.dishwasher)


def _add_laundry(
    loads: _Loads, house: Household, awake: list[tuple[float, float]], draw: Draw
) -> None:
    washes = 0.08 + 0.16 * house.people * house.activity
    for _ in range(2):
        if draw() >= washes:
            continue
        first, last = awake[-1] if draw() < 0.6 else awake[0]
        start = _between(draw, first, max(last - 120, first + 1))
        loads.add(start + 6, 12 + 12 * draw(), house.washer)
        loads.add(start, 75, 130)
        if house.dryer and draw() < 0.75:
            loads.add(start + 80, 50 + 40 * draw(), house.dryer)


# The weather and the sun, the same for all of a street.


@dataclass(frozen=True, slots=True)
class _Sky:
    """A day's weather: degrees Celsius, minutes, and the yield of a 1 W panel in each minute."""

    temperature: float
    sunrise: float
    sunset: float
    sun: tuple[float, ...]


@functools.lru_cache(maxsize=SKIES_CACHED_MAX)
def _sky(day: int, latitude: float) -> _Sky:
    phase = 2 * math.pi * ((day - 10) % YEAR_DAYS) / YEAR_DAYS  # From the winter solstice.
    tilt = -math.radians(23.44) * math.cos(phase)
    phi = math.radians(latitude)
    warmest = 27 - 0.32 * abs(latitude)
    swing = 0.16 * abs(latitude) * (1 if latitude >= 0 else -1)
    # Earth and sea are behind the sun by about four weeks.
    temperature = warmest - swing * math.cos(phase - 0.48) + 5.5 * (_weather("air", day) - 0.5) * 2

    # Panels look to the equator, raised by 35 degrees: they see the sun of a lower latitude.
    plane = phi - math.copysign(math.radians(35), phi)
    up, up_swing = math.sin(phi) * math.sin(tilt), math.cos(phi) * math.cos(tilt)
    on, on_swing = math.sin(plane) * math.sin(tilt), math.cos(plane) * math.cos(tilt)
    draw = Random(f"clouds/{day}").random
    cover = min(max(_weather("cloud", day) * 1.3 - 0.15 + 0.3 * (draw() - 0.5), 0.0), 1.0)
    sun: list[float] = []
    passing = draw()
    light_minutes: list[int] = []
    for minute in range(0, DAY_MINUTES, SUN_STEP_MINUTES):
        turn = math.cos((minute + SUN_STEP_MINUTES / 2 - 720) * math.pi / 720)
        height = up + up_swing * turn
        if height > DARK_SINE:
            light_minutes.append(minute)
        if height <= 0.01:
            sun.append(0.0)
            continue
        # Clouds drift: what was overhead five minutes ago mostly still is.
        passing += (draw() - passing) * 0.35
        shade = 1 - cover * (0.55 + 0.85 * (passing - 0.5 + 0.25 * (draw() - 0.5)))
        beam = 0.72 ** (height**-0.65) * max(on + on_swing * turn, 0.0)
        sun.append((beam * shade + 0.09 * height) * 0.9)
    return _Sky(
        temperature=temperature,
        sunrise=light_minutes[0] if light_minutes else 720,
        sunset=light_minutes[-1] if light_minutes else 720,
        sun=tuple(chain.from_iterable(repeat(value, SUN_STEP_MINUTES) for value in sun)),
    )


def _weather(what: str, day: int) -> float:
    """0 to 1, slow and smooth from day to day, with a little of the day's own."""
    knot, share = divmod(day / 3, 1)
    before, after = (Random(f"{what}/{int(knot) + i}").random() for i in (0, 1))
    own = Random(f"{what}/day/{day}").random()
    return 0.8 * (before + (after - before) * share) + 0.2 * own


# Chance.


def _between(draw: Draw, low: float, high: float) -> float:
    return low + (high - low) * draw()


def _bell(draw: Draw, middle: float, spread: float) -> float:
    """About `middle`, give or take `spread` (one standard deviation), never beyond three."""
    return middle + spread * 2 * (draw() + draw() + draw() - 1.5)


def _pick(draw: Draw, choices: tuple[tuple[Choice, float], ...]) -> Choice:
    rest = draw()
    for choice, weight in choices:
        rest -= weight
        if rest < 0:
            return choice
    return choices[-1][0]
