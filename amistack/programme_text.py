"""A programme as people write it: TOML, with names for what the wire has numbers for.

    version = 7
    applies_at = "2026-12-01T00:00:00Z"     # or leave it out: at once
    standard_offset_min = 60

    [[channel]]
    number = 1
    quantity = "delivered"                  # or reading_type = "0.0.2.4.1.1.12..."
    interval_s = 900

Gives   the programme of a text, and the text of a programme: one gives back the other
Raises  ConfigError, one line: where, what was seen and what was expected
Never   judges whether the parts agree: `programme_check` does
"""

from __future__ import annotations

import datetime as dt
import enum
import re
import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

from amistack import settings
from amistack.errors import ConfigError, ModelError
from amistack.model.event_catalogue import Delivery, Importance
from amistack.model.event_notice import EventRule
from amistack.model.events import EndDeviceEventType
from amistack.model.on_demand import ReadParts
from amistack.model.programme import (
    DemandRules,
    Programme,
    ProgrammeChannel,
    Threshold,
    ThresholdKind,
)
from amistack.model.quantity import Measured, Quantity
from amistack.model.reading_type import ReadingType
from amistack.model.schedule import ReadSchedule
from amistack.model.tariff import DayType, Season, SpecialDay, Switch, TariffCalendar

TEXT: Final = Path("the programme")
"""What messages call a text that is no file."""

_SWITCH: Final = re.compile(r"([01][0-9]|2[0-3]):([0-5][0-9]) ([1-9])", re.ASCII)
_DATE: Final = re.compile(r"(?:([0-9]{4})-)?([0-9]{2})-([0-9]{2})", re.ASCII)
_STAMP: Final = "%Y-%m-%dT%H:%M:%SZ"

_PARTS: Final = {
    "registers": ReadParts.REGISTERS,
    "intervals": ReadParts.INTERVALS,
    "log": ReadParts.LOG,
}

MemberT = TypeVar("MemberT", bound=enum.IntEnum)


@dataclass(frozen=True, slots=True)
class _Channel:
    number: int
    interval_s: int
    quantity: str | None = None
    tier: int = 0
    reading_type: str | None = None


@dataclass(frozen=True, slots=True)
class _DayType:
    name: str
    switches: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Season:
    begins: str
    week: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _SpecialDay:
    date: str
    day_type: str


@dataclass(frozen=True, slots=True)
class _Calendar:
    day_type: tuple[_DayType, ...]
    season: tuple[_Season, ...]
    special_day: tuple[_SpecialDay, ...] = ()


@dataclass(frozen=True, slots=True)
class _Threshold:
    kind: str
    limit: int
    hysteresis: int = 0
    hold_s: int = 0


@dataclass(frozen=True, slots=True)
class _Event:
    type: str
    delivery: str
    importance: str


@dataclass(frozen=True, slots=True)
class _Schedule:
    number: int
    period_s: int
    offset_s: int = 0
    starts: str | None = None
    ends: str | None = None
    parts: tuple[str, ...] = ("registers", "intervals", "log")


@dataclass(frozen=True, slots=True)
class _Demand:
    window_s: int
    sub_interval_s: int
    reset_day: int = 0


@dataclass(frozen=True, slots=True)
class _Programme:
    version: int
    channel: tuple[_Channel, ...]
    applies_at: str | None = None
    standard_offset_min: int = 0
    calendar: _Calendar | None = None
    demand: _Demand | None = None
    threshold: tuple[_Threshold, ...] = ()
    event: tuple[_Event, ...] = ()
    schedule: tuple[_Schedule, ...] = ()


# From text


def load_programme(path: Path) -> Programme:
    """The programme in the TOML file at `path`. Raises ConfigError."""
    return _programme(settings.load(path, _Programme), path)


def parse_programme(text: str, *, file: Path = TEXT) -> Programme:
    """The programme that `text` writes; `file` is for messages. Raises ConfigError."""
    try:
        table = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{file} is not valid TOML: {error}") from None
    return _programme(settings.build(table, _Programme, file=file), file)


def _programme(table: _Programme, file: Path) -> Programme:
    try:
        return Programme(
            table.version,
            _stamp("applies_at", table.applies_at),
            table.standard_offset_min,
            tuple(_channel(one) for one in table.channel),
            None if table.calendar is None else _calendar(table.calendar),
            None
            if table.demand is None
            else DemandRules(
                table.demand.window_s, table.demand.sub_interval_s, table.demand.reset_day
            ),
            tuple(
                Threshold(_named(one.kind, ThresholdKind), one.limit, one.hysteresis, one.hold_s)
                for one in table.threshold
            ),
            tuple(
                EventRule(
                    EndDeviceEventType.parse(one.type),
                    _named(one.delivery, Delivery),
                    _named(one.importance, Importance),
                )
                for one in table.event
            ),
            tuple(_schedule(one) for one in table.schedule),
        )
    except (ConfigError, ModelError) as error:
        raise ConfigError(f"{file}: {error}") from None


def _channel(table: _Channel) -> ProgrammeChannel:
    if (table.quantity is None) == (table.reading_type is None):
        raise ConfigError(f"channel {table.number}: expected either quantity or reading_type")
    if table.reading_type is not None:
        reading_type = ReadingType.parse(table.reading_type)
        return ProgrammeChannel(table.number, reading_type, table.interval_s)
    try:
        quantity = Quantity(table.quantity)
    except ValueError:
        names = ", ".join(one.value for one in Quantity)
        raise ConfigError(f"quantity is {table.quantity!r}, expected {names}") from None
    return ProgrammeChannel.of(table.number, Measured(quantity, table.tier), table.interval_s)


def _calendar(table: _Calendar) -> TariffCalendar:
    names = [one.name for one in table.day_type]
    if len(set(names)) < len(names):
        raise ConfigError("calendar.day_type: a name comes twice")

    def place(name: str) -> int:
        if name not in names:
            raise ConfigError(f"calendar: day type {name!r} is not there")
        return names.index(name)

    return TariffCalendar(
        tuple(DayType(tuple(_switch(one) for one in kind.switches)) for kind in table.day_type),
        tuple(
            Season(*_date(one.begins)[1:], tuple(place(name) for name in one.week))
            for one in table.season
        ),
        tuple(SpecialDay(*_date(one.date), place(one.day_type)) for one in table.special_day),
    )


def _schedule(table: _Schedule) -> ReadSchedule:
    parts = ReadParts(0)
    for name in table.parts:
        if name not in _PARTS:
            raise ConfigError(f"parts has {name!r}, expected {', '.join(_PARTS)}")
        parts |= _PARTS[name]
    return ReadSchedule(
        table.number,
        table.period_s,
        table.offset_s,
        _stamp("starts", table.starts),
        _stamp("ends", table.ends),
        parts,
    )


def _switch(text: str) -> Switch:
    found = _SWITCH.fullmatch(text)
    if found is None:
        raise ConfigError(f"switch is {text!r}, expected such as '06:00 2': a time and a tier")
    hour, minute, tier = (int(part) for part in found.groups())
    return Switch(60 * hour + minute, tier)


def _date(text: str) -> tuple[int, int, int]:
    """Year (0: every), month and day."""
    found = _DATE.fullmatch(text)
    if found is None:
        raise ConfigError(f"date is {text!r}, expected such as '12-25' or '2026-12-25'")
    year, month, day = found.groups()
    return int(year or 0), int(month), int(day)


def _stamp(key: str, text: str | None) -> int:
    if text is None:
        return 0
    try:
        when = dt.datetime.strptime(text, _STAMP).replace(tzinfo=dt.UTC)
    except ValueError:
        raise ConfigError(
            f"{key} is {text!r}, expected UTC such as '2026-12-01T00:00:00Z'"
        ) from None
    return int(when.timestamp())


def _named(text: str, kind: type[MemberT]) -> MemberT:
    """The member that people write with blanks and in lower case."""
    for member in kind:
        if _words(member) == text:
            return member
    raise ConfigError(f"{text!r} is none of {', '.join(_words(member) for member in kind)}")


# To text


def write_programme(programme: Programme) -> str:
    """The text that `parse_programme` makes this programme of."""
    return "\n".join(_lines(programme)) + "\n"


def _lines(programme: Programme) -> Iterator[str]:
    yield f"version = {programme.version}"
    yield from _stamp_lines("applies_at", programme.applies_at)
    yield f"standard_offset_min = {programme.standard_offset_min}"
    for channel in programme.channels:
        yield from ("", "[[channel]]", f"number = {channel.number}", *_what(channel))
        yield f"interval_s = {channel.interval_s}"
    if programme.calendar is not None:
        yield from _calendar_lines(programme.calendar)
    demand = programme.demand
    if demand is not None:
        yield from ("", "[demand]", f"window_s = {demand.window_s}")
        yield f"sub_interval_s = {demand.sub_interval_s}"
        yield f"reset_day = {demand.reset_day}"
    for threshold in programme.thresholds:
        yield from ("", "[[threshold]]", f'kind = "{_words(threshold.kind)}"')
        yield f"limit = {threshold.limit}"
        yield f"hysteresis = {threshold.hysteresis}"
        yield f"hold_s = {threshold.hold_s}"
    for rule in programme.events:
        yield from ("", "[[event]]", f'type = "{rule.event}"')
        yield f'delivery = "{_words(rule.delivery)}"'
        yield f'importance = "{_words(rule.importance)}"'
    for schedule in programme.schedules:
        yield from _schedule_lines(schedule)


def _schedule_lines(schedule: ReadSchedule) -> Iterator[str]:
    yield from ("", "[[schedule]]", f"number = {schedule.number}")
    yield f"period_s = {schedule.period_s}"
    yield f"offset_s = {schedule.offset_s}"
    yield from _stamp_lines("starts", schedule.start_s)
    yield from _stamp_lines("ends", schedule.end_s)
    yield f"parts = {_list(name for name, part in _PARTS.items() if part in schedule.parts)}"


def _stamp_lines(key: str, utc: int) -> Iterator[str]:
    if utc:
        yield f'{key} = "{dt.datetime.fromtimestamp(utc, dt.UTC).strftime(_STAMP)}"'


def _what(channel: ProgrammeChannel) -> Iterator[str]:
    try:
        what = channel.measured
    except ModelError:
        yield f'reading_type = "{channel.reading_type}"'
        return
    yield f'quantity = "{what.quantity.value}"'
    if what.tier:
        yield f"tier = {what.tier}"


def _calendar_lines(calendar: TariffCalendar) -> Iterator[str]:
    for place, kind in enumerate(calendar.day_types):
        yield from ("", "[[calendar.day_type]]", f'name = "{_day_name(place)}"')
        yield f"switches = {_list(map(_switch_text, kind.switches))}"
    for season in calendar.seasons:
        yield from ("", "[[calendar.season]]")
        yield f'begins = "{season.month:02}-{season.day:02}"'
        yield f"week = {_list(map(_day_name, season.week))}"
    for one in calendar.special_days:
        year = f"{one.year:04}-" if one.year else ""
        yield from ("", "[[calendar.special_day]]")
        yield f'date = "{year}{one.month:02}-{one.day:02}"'
        yield f'day_type = "{_day_name(one.day_type)}"'


def _switch_text(switch: Switch) -> str:
    return f"{switch.minute // 60:02}:{switch.minute % 60:02} {switch.tier}"


def _list(texts: Iterable[str]) -> str:
    return "[" + ", ".join(f'"{text}"' for text in texts) + "]"


def _day_name(place: int) -> str:
    return f"day {place}"


def _words(member: enum.IntEnum) -> str:
    return member.name.lower().replace("_", " ")
