"""A recorded load profile, from a CSV file, replayed as if it were measured now.

Gives   the file's intervals as whole Wh, gaps as gaps, and a `Report` of what was odd in it
Raises  SourceError, one line that names the file, the line in it and the cure; nothing else
Limit   ROW_COUNT_MAX rows and LINE_SIZE_MAX octets a line, read as a stream; about 60 octets
        of memory a row while reading (twice that if rows are out of order), 16 to 24 after
Never   guesses a time zone or a unit, invents a value, or takes one that it is not sure of
"""

from __future__ import annotations

import csv
import enum
import gzip
import math
import re
import stat as file_modes
import zlib
from array import array
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from decimal import Context, Decimal, InvalidOperation, Overflow
from pathlib import Path
from typing import IO, Final, TypeVar, cast
from zoneinfo import ZoneInfo

from amistack.errors import ConfigError, SourceError
from meterd.metrology.source import (
    DAY_S,
    MINUTE_S,
    SECOND_MAX,
    Energy,
    Flow,
    check_settings,
    check_window,
    elapsed_within,
)

ROW_COUNT_MAX: Final = 2_000_000
"""Rows of one file: nearly four years of minutes."""

LINE_SIZE_MAX: Final = 4096
"""Octets of one line, its end included."""

OFF_GRID_COUNT_MAX: Final = 10
OFF_GRID_PART_MAX: Final = 100
"""So many stray stamps are dropped and counted, if they are under one in a hundred rows."""

VALUE_MAX: Final = 1_000_000_000
"""Wh in one interval, or W: a large power station."""

NANO: Final = 1_000_000_000
"""Values are summed in billionths of a Wh (or W) and rounded to 1 Wh only in the register."""

GZIP_MAGIC: Final = b"\x1f\x8b"
UTF16_MARKS: Final = (b"\xff\xfe", b"\xfe\xff")

MISSING: Final = frozenset({"", "null", "nan", "na", "n/a", "none"})
"""What files write, in any case, where there is no value."""

UNKNOWN: Final = -1
"""A missing value in an array; real ones are never negative."""

DIGITS: Final = re.compile(r"[0-9]+(\.0*)?")
NUMBER: Final = re.compile(r"-?[0-9]*[.,]?[0-9]+([eE][+-]?[0-9]+)?")
EPOCH_SECONDS: Final = re.compile(r"[0-9]{9,10}(\.0*)?")
FIXED_OFFSET: Final = re.compile(r"([+-])([0-9]{2}):?([0-9]{2})")
ENDING_HOUR: Final = re.compile(r"(.{10}[T ])24(:00(?::00(?:\.0*)?)?(?:Z|[+-].*)?)")

# Wide enough for any value under the bound in billionths; nothing else is kept.
DECIMALS: Final = Context(prec=60, traps=[InvalidOperation, Overflow])


class Unit(enum.StrEnum):
    """What a value of the file says: energy of the interval, or mean power over it."""

    WH = "Wh"
    KWH = "kWh"
    W = "W"
    KW = "kW"

    @property
    def is_power(self) -> bool:
        return self in (Unit.W, Unit.KW)

    @property
    def scale(self) -> int:
        return 1000 if self in (Unit.KWH, Unit.KW) else 1


class Stamp(enum.StrEnum):
    """Which end of the interval a stamp of the file names."""

    START = "start"
    END = "end"


class Shift(enum.StrEnum):
    """Whether recorded days are replayed as they were, or moved to the present."""

    NONE = "none"
    LAST_DAY_IS_YESTERDAY = "last-day-is-yesterday"


@dataclass(frozen=True, slots=True)
class Report:
    """What reading a file brought to light. Stamps are as in the file, before any shift."""

    rows: int
    interval_s: int
    first: int
    """UTC second of the first interval's start."""
    end: int
    """UTC second of the last interval's end."""
    missing: int
    """Rows without any value: gaps that the file itself declares."""
    duplicates: int
    """Rows that repeat an earlier one exactly; counted once."""
    conflicts: int
    """Rows whose interval an earlier row has with another value; the earlier one holds."""
    out_of_order: int
    """Rows older than the row before them; sorted."""
    off_grid: int
    """Rows whose stamp is no interval's start; dropped."""
    gaps: int
    """Intervals between `first` and `end` of which nothing is known."""
    whole_days: int
    shift_days: int
    """Days added to every stamp of the file."""

    @property
    def notes(self) -> tuple[str, ...]:
        """A sentence for everything an operator should know of; empty for a flawless file."""
        said = (
            (self.missing, "rows without a value, taken as gaps"),
            (self.duplicates, "exact duplicates, counted once"),
            (self.conflicts, "rows that contradict an earlier one, which was kept"),
            (self.out_of_order, "rows out of order, sorted"),
            (self.off_grid, "rows between the intervals, dropped"),
            (self.gaps, "intervals missing, left as gaps"),
        )
        return tuple(f"{count} {what}" for count, what in said if count)

    def __str__(self) -> str:
        head = f"{self.rows} rows of {self.interval_s} s, {self.whole_days} whole days"
        return "; ".join((head, *self.notes))


class ReplaySource:
    """Recorded intervals, held in memory and found by bisection. Made by `open`."""

    def __init__(self, rows: _Rows, offset_min: int, *, shift_s: int, report: Report) -> None:
        self.interval_s: Final = report.interval_s
        self.flows: Final = (Flow.DELIVERED, Flow.RECEIVED)[: len(rows.values)]
        self.report: Final = report
        self._starts: Final = rows.stamps
        self._energies: Final = rows.values
        self._offset_min: Final = offset_min
        self._shift_s: Final = shift_s

    @classmethod
    def open(
        cls,
        path: Path | str,
        *,
        unit: str,
        zone: str | None = None,
        stamp: str = Stamp.START,
        interval_s: int | None = None,
        shift: str = Shift.NONE,
        offset_min: int = 0,
        today: int | None = None,
        time_column: str | None = None,
        value_column: str | None = None,
        received_column: str | None = None,
    ) -> ReplaySource:
        """Read the whole file; it is closed and not needed again when this returns.

        `unit` is one of Unit, `stamp` of Stamp, `shift` of Shift. `zone` (an IANA name or an
        offset such as "+01:00") is for stamps that carry no offset, and needed only by them.
        `interval_s` None takes the most common step of the file. The meter's days begin at
        midnight of the standard time `offset_min` from UTC. `today` is the UTC second at
        which the shift was fixed, the same one after every restart. Columns are named as in
        the header line; without names, the first is the time and the second the value.

        Raises SourceError.
        """
        reader = _Reader(
            path=Path(path),
            unit=_setting(path, "unit", Unit, unit),
            zone=None if zone is None else _zone(path, zone),
            zone_name=zone or "",
            stamp=_setting(path, "stamp", Stamp, stamp),
            columns=(time_column, value_column, received_column),
        )
        move = _setting(path, "shift", Shift, shift)
        if move is Shift.LAST_DAY_IS_YESTERDAY:
            if today is None:
                raise SourceError(
                    f"{path}: shift is {move.value!r}, expected `today` along with it"
                )
            if not 0 <= today <= SECOND_MAX:
                raise SourceError(f"{path}: today is {today}, expected UTC seconds since 1970")
        try:
            check_settings(DAY_S if interval_s is None else interval_s, offset_min)
        except ConfigError as error:
            raise SourceError(f"{path}: {error}") from error

        rows = reader.read()
        counts = Counter(rows=len(rows.stamps))
        counts["missing"] = _drop_missing(path, rows)
        counts["out_of_order"] = _sort(rows)
        step = _interval(path, rows, interval_s)
        if reader.stamp is Stamp.END:
            rows.stamps = array("q", (end - step for end in rows.stamps))
        counts["off_grid"] = _drop_off_grid(path, rows, step, offset_min)
        _drop_repeated(rows, counts)
        _round(rows, step if reader.unit.is_power else None)

        whole_days, last_day = _days(rows, step, offset_min)
        shift_days = 0
        if move is Shift.LAST_DAY_IS_YESTERDAY and today is not None:
            shift_days = (today + offset_min * MINUTE_S) // DAY_S - 1 - last_day
        first, end = rows.stamps[0], rows.stamps[-1] + step
        report = Report(
            rows=counts["rows"],
            interval_s=step,
            first=first,
            end=end,
            missing=counts["missing"],
            duplicates=counts["duplicates"],
            conflicts=counts["conflicts"],
            out_of_order=counts["out_of_order"],
            off_grid=counts["off_grid"],
            gaps=(end - first) // step - len(rows.stamps),
            whole_days=whole_days,
            shift_days=shift_days,
        )
        return cls(rows, offset_min, shift_s=shift_days * DAY_S, report=report)

    def energy(self, start: int, count: int) -> list[Energy]:
        """Wh in each of `count` intervals from `start` on; None where the file has a gap."""
        check_window(start, count, interval_s=self.interval_s, offset_min=self._offset_min)
        wanted = start - self._shift_s
        at = bisect_left(self._starts, wanted)
        unknown: Energy = (None,) * len(self.flows)
        values: list[Energy] = []
        for _ in range(count):
            if at < len(self._starts) and self._starts[at] == wanted:
                row = tuple(column[at] for column in self._energies)
                values.append(tuple(None if wh == UNKNOWN else wh for wh in row))
                at += 1
            else:
                values.append(unknown)
            wanted += self.interval_s
        return values

    def partial(self, start: int, now: float) -> Energy:
        """Wh from `start` until `now`: the elapsed share of the interval's value, rounded down."""
        (whole,) = self.energy(start, 1)
        elapsed = elapsed_within(start, now, interval_s=self.interval_s)
        return tuple(None if wh is None else int(wh * elapsed // self.interval_s) for wh in whole)

    def available(self) -> tuple[int | None, int | None]:
        """First UTC second of the file and the second after its last interval, both shifted."""
        return self.report.first + self._shift_s, self.report.end + self._shift_s


# Reading.


@dataclass(slots=True)
class _Rows:
    """The rows of a file, as columns. Values in billionths until they are rounded."""

    stamps: array[int]
    values: list[array[int]]
    lines: array[int]
    """Line numbers, for blame."""


@dataclass(slots=True)
class _Reader:
    """One pass through one file."""

    path: Path
    unit: Unit
    zone: tzinfo | None
    zone_name: str
    stamp: Stamp
    columns: tuple[str | None, str | None, str | None]
    _line: int = 0
    _delimiter: str = ","
    _places: list[int] = field(default_factory=list)
    _repeats: dict[datetime, list[int]] = field(default_factory=dict)

    def read(self) -> _Rows:
        """All rows, in the order of the file."""
        rows = _Rows(array("q"), [], array("l"))
        rows.values = [array("q") for _ in range(3 if self.columns[2] is not None else 2)][1:]
        with self._opened() as stream:
            for line in self._lines(stream):
                self._take(line, rows)
        if not rows.stamps:
            raise SourceError(f"{self.path}: no rows, expected lines of a stamp and a value")
        self._order_repeated_hours(rows)
        return rows

    @contextmanager
    def _opened(self) -> Iterator[IO[bytes]]:
        """The octets of the file, unpacked; every way to fail is a SourceError."""
        try:
            mode = self.path.stat().st_mode
            if file_modes.S_ISDIR(mode):
                raise SourceError(f"{self.path}: is a directory, expected a CSV file in it")
            if not file_modes.S_ISREG(mode):
                raise SourceError(f"{self.path}: is not a regular file, expected a CSV file")
            with self.path.open("rb") as plain:
                magic = plain.read(2)
                plain.seek(0)
                if magic in UTF16_MARKS:
                    raise SourceError(f"{self.path}: is UTF-16 text, expected UTF-8: save it anew")
                if magic != GZIP_MAGIC:
                    yield plain
                    return
                with gzip.GzipFile(fileobj=plain) as packed:
                    # A cast: it reads like any binary file, but is not declared as one.
                    yield cast("IO[bytes]", packed)
        except FileNotFoundError as error:
            raise SourceError(f"{self.path}: there is no such file, check the path") from error
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            where = f"after line {self._line}"
            raise SourceError(
                f"{self.path}: gzip data is cut off or damaged {where}, copy the file again"
            ) from error
        except (OSError, ValueError) as error:
            # ValueError is what a path with a NUL in it gives.
            why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            raise SourceError(f"{self.path}: cannot be read ({why}), check the file") from error

    def _lines(self, stream: IO[bytes]) -> Iterator[str]:
        """Lines that have something in them, without their ends."""
        while octets := stream.readline(LINE_SIZE_MAX + 1):
            self._line += 1
            if len(octets) > LINE_SIZE_MAX:
                raise self._fault(
                    f"longer than {LINE_SIZE_MAX} octets", "short lines of a CSV file"
                )
            if self._line > ROW_COUNT_MAX + 1:
                raise self._fault("one too many", f"at most {ROW_COUNT_MAX} rows: split the file")
            try:
                line = octets.decode("utf-8-sig" if self._line == 1 else "utf-8").strip("\r\n ")
            except UnicodeDecodeError:
                raise self._fault("not UTF-8 text", "a CSV file, plain or gzip") from None
            if "\0" in line:
                raise self._fault("a NUL octet", "a CSV file, plain or gzip")
            if line.strip():
                yield line

    def _take(self, line: str, rows: _Rows) -> None:
        if not self._places:
            self._delimiter = next((mark for mark in "\t;" if mark in line), ",")
            cells = self._cells(line)
            if self._is_header(cells):
                self._places = self._named_places(cells)
                return
            self._places = self._first_places(cells)

        cells = self._cells(line)
        if len(cells) <= max(self._places):
            raise self._fault(
                f"{len(cells)} columns", f"at least {max(self._places) + 1}, as in the lines above"
            )
        second = self._second(cells[self._places[0]], row=len(rows.stamps))
        values = [self._value(cells[place]) for place in self._places[1:]]
        rows.stamps.append(second)
        for column, value in zip(rows.values, values, strict=True):
            column.append(value)
        rows.lines.append(self._line)

    def _cells(self, line: str) -> list[str]:
        if '"' not in line:
            return [cell.strip() for cell in line.split(self._delimiter)]
        try:
            # One line at a time, so that a stray quote cannot swallow the rest of the file.
            (cells,) = csv.reader([line], delimiter=self._delimiter, strict=True)
        except (csv.Error, ValueError):
            raise self._fault("quotes that do not match", 'text with a " on both sides') from None
        return [cell.strip() for cell in cells]

    def _is_header(self, cells: list[str]) -> bool:
        if any(name is not None for name in self.columns):
            return True
        # A first row with a bad stamp is no header: its value is a number all the same.
        return not any(NUMBER.fullmatch(cell) or self._is_stamp(cell) for cell in cells[:2])

    def _named_places(self, names: list[str]) -> list[int]:
        places = []
        for name, default in zip(self.columns, (0, 1, None), strict=True):
            if name is not None:
                if names.count(name) != 1:
                    seen = "twice" if name in names else "not there"
                    listed = ", ".join(map(repr, names))[:200]
                    raise self._fault(f"column {name!r} is {seen}", f"one of {listed}")
                places.append(names.index(name))
            elif default is not None:
                places.append(default)
        self._check_places(places, names)
        return places

    def _first_places(self, cells: list[str]) -> list[int]:
        self._check_places([0, 1], cells)
        return [0, 1]

    def _check_places(self, places: list[int], cells: list[str]) -> None:
        if max(places) >= len(cells):
            raise self._fault(
                f"{len(cells)} column", "a time and a value with comma, semicolon or tab between"
            )
        if len(set(places)) != len(places):
            raise self._fault(
                "one column for two things", "time_column, value_column, received_column to differ"
            )

    # Stamps.

    def _second(self, text: str, *, row: int) -> int:
        """The UTC second that `text` means."""
        if EPOCH_SECONDS.fullmatch(text):
            return int(text.partition(".")[0])
        if DIGITS.fullmatch(text):
            raise self._fault(
                f"stamp {text[:40]!r}", "ISO 8601 such as 2026-01-31T00:15, or seconds since 1970"
            )
        try:
            moment = self._parse_stamp(text)
        except ValueError:
            raise self._fault(
                f"stamp {text[:40]!r}", "ISO 8601 such as 2026-01-31T00:15, or seconds since 1970"
            ) from None
        if moment.tzinfo is None:
            moment = self._placed(moment, text, row=row)
        second = moment.timestamp()
        if not 0 <= second <= SECOND_MAX:
            raise self._fault(f"stamp {text[:40]!r}", "a time since 1970")
        # A part of a second counts as a whole one: off every grid but that of 1 s.
        return math.ceil(second)

    def _is_stamp(self, text: str) -> bool:
        try:
            self._parse_stamp(text)
        except ValueError:
            return False
        return True

    def _parse_stamp(self, text: str) -> datetime:
        try:
            return datetime.fromisoformat(text)
        except ValueError:
            if not (late := ENDING_HOUR.fullmatch(text)):
                raise
        try:
            return datetime.fromisoformat(f"{late[1]}00{late[2]}") + timedelta(days=1)
        except OverflowError as error:
            raise ValueError(text) from error

    def _placed(self, local: datetime, text: str, *, row: int) -> datetime:
        """`local` in the zone of the settings; the clock's repeated hour by order of appearance."""
        if self.zone is None:
            raise self._fault(
                f"stamp {text[:40]!r} has no offset", "`zone` to be set for such files"
            )
        moment = local.replace(tzinfo=self.zone)
        try:
            before, after = moment.utcoffset(), moment.replace(fold=1).utcoffset()
        except OverflowError:
            raise self._fault(f"stamp {text[:40]!r}", "a time since 1970") from None
        if before is None or after is None or before == after:
            return moment
        if before < after:
            raise self._fault(
                f"{text[:40]!r} is skipped by the clocks of {self.zone_name}",
                "a time that exists: if the file ignores daylight saving, set `zone` to its offset",
            )
        seen = self._repeats.setdefault(local, [])
        seen.append(row)
        return moment.replace(fold=1) if len(seen) == 2 else moment

    def _order_repeated_hours(self, rows: _Rows) -> None:
        """In a file that is newest first, what appeared first is the later one."""
        if rows.stamps[0] <= rows.stamps[-1]:
            return
        for first, second, *_ in (seen for seen in self._repeats.values() if len(seen) > 1):
            stamps = rows.stamps
            stamps[first], stamps[second] = stamps[second], stamps[first]

    # Values.

    def _value(self, text: str) -> int:
        """Billionths of a Wh or W, or UNKNOWN."""
        if text.lower() in MISSING:
            return UNKNOWN
        if self._delimiter != "," and text.count(",") == 1 and "." not in text:
            text = text.replace(",", ".")
        try:
            number = Decimal(text)
        except InvalidOperation:
            raise self._fault(f"value {text[:40]!r}", f"a number of {self.unit}") from None
        if not number.is_finite() or "_" in text:
            raise self._fault(f"value {text[:40]!r}", f"a number of {self.unit}")
        if number < 0:
            raise self._fault(
                f"value {text[:40]} is negative",
                "energy to the grid in a column of its own: name it as received_column",
            )
        # Before any arithmetic: 1e999999 is a short text and a very long integer.
        if number > VALUE_MAX // self.unit.scale:
            raise self._fault(
                f"value {text[:40]} {self.unit}",
                f"at most {VALUE_MAX // self.unit.scale} {self.unit}: check the unit",
            )
        scaled = DECIMALS.multiply(number, Decimal(NANO * self.unit.scale))
        return int(scaled.to_integral_value(context=DECIMALS))

    def _fault(self, seen: str, expected: str) -> SourceError:
        return SourceError(f"{self.path}, line {self._line}: {seen}, expected {expected}")


# Settings.

SettingT = TypeVar("SettingT", bound=enum.StrEnum)


def _setting(path: Path | str, name: str, kind: type[SettingT], text: str) -> SettingT:
    try:
        return kind(text)
    except ValueError:
        choices = ", ".join(kind)
        raise SourceError(f"{path}: {name} is {text!r}, expected one of {choices}") from None


def _zone(path: Path | str, name: str) -> tzinfo:
    if name in ("UTC", "Z"):
        return UTC
    if fixed := FIXED_OFFSET.fullmatch(name):
        minutes = int(fixed[2]) * 60 + int(fixed[3])
        if int(fixed[3]) < 60 and minutes < 24 * 60:
            return timezone(timedelta(minutes=-minutes if fixed[1] == "-" else minutes))
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError) as error:
        raise SourceError(
            f"{path}: zone is {name!r}, expected a name that this system knows, such as"
            ' "Europe/Berlin", or an offset such as "+01:00"'
        ) from error


# From rows to intervals.


def _drop_missing(path: Path | str, rows: _Rows) -> int:
    """Drop rows without any value, so that another row can fill the interval."""
    count = len(rows.stamps)
    known = array(
        "l", (i for i in range(count) if any(column[i] != UNKNOWN for column in rows.values))
    )
    if not known:
        raise SourceError(
            f"{path}: no row has a value, expected a number in some: check the column"
        )
    if len(known) < count:
        _keep(rows, known)
    return count - len(known)


def _sort(rows: _Rows) -> int:
    """Put rows in order of time, equal ones as they came; how many were older than the last."""
    stamps = rows.stamps
    out_of_order = sum(stamps[i] < stamps[i - 1] for i in range(1, len(stamps)))
    if out_of_order:
        _keep(rows, sorted(range(len(stamps)), key=stamps.__getitem__))
    return out_of_order


def _keep(rows: _Rows, places: Sequence[int]) -> None:
    rows.stamps = array("q", (rows.stamps[place] for place in places))
    rows.lines = array("l", (rows.lines[place] for place in places))
    rows.values = [array("q", (column[place] for place in places)) for column in rows.values]


def _interval(path: Path | str, rows: _Rows, wanted: int | None) -> int:
    """The interval's length: what the settings say, or the most common step; the shorter of two."""
    stamps = rows.stamps
    steps = Counter(stamps[i] - stamps[i - 1] for i in range(1, len(stamps)))
    del steps[0]
    if not steps:
        if wanted is None:
            raise SourceError(f"{path}: one interval only, expected interval_s to be set")
        return wanted
    common = max(steps, key=lambda step: (steps[step], -step))
    if wanted is None:
        if DAY_S % common:
            raise SourceError(
                f"{path}: the most common step is {common} s, expected one that divides a day:"
                " set interval_s"
            )
        return common
    if wanted not in steps:
        raise SourceError(
            f"{path}: interval_s is {wanted}, expected {common}, the most common step of the file"
        )
    return wanted


def _drop_off_grid(path: Path | str, rows: _Rows, step: int, offset_min: int) -> int:
    """Drop the few stamps that are no interval's start; more than a few are refused."""
    offset_s = offset_min * MINUTE_S
    off = [i for i, start in enumerate(rows.stamps) if (start + offset_s) % step]
    if not off:
        return 0
    if len(off) > min(OFF_GRID_COUNT_MAX, len(rows.stamps) // OFF_GRID_PART_MAX):
        first = min(off, key=rows.lines.__getitem__)
        late = (rows.stamps[first] + offset_s) % step
        raise SourceError(
            f"{path}, line {rows.lines[first]}: {late} s into an interval of {step} s"
            f" ({len(off)} of {len(rows.stamps)} rows are such), expected starts on the grid of a"
            " day: check interval_s, stamp, zone and offset_min"
        )
    dropped = set(off)
    _keep(rows, array("l", (i for i in range(len(rows.stamps)) if i not in dropped)))
    return len(off)


def _drop_repeated(rows: _Rows, counts: Counter[str]) -> None:
    """Keep the first row of each interval."""
    kept = array("l")
    for i, start in enumerate(rows.stamps):
        if kept and rows.stamps[kept[-1]] == start:
            same = all(column[i] == column[kept[-1]] for column in rows.values)
            counts["duplicates" if same else "conflicts"] += 1
        else:
            kept.append(i)
    if len(kept) < len(rows.stamps):
        _keep(rows, kept)


def _round(rows: _Rows, power_s: int | None) -> None:
    """Turn billionths into whole Wh, as differences of the rounded register."""
    # One Wh is a billion billionths; of power over `power_s` seconds, 3600 / power_s times that.
    multiplier, divisor = (1, NANO) if power_s is None else (power_s, NANO * 3600)
    for column in rows.values:
        total = shown = 0
        for i, value in enumerate(column):
            if value == UNKNOWN:
                continue
            total += value * multiplier
            register = (2 * total + divisor) // (2 * divisor)
            column[i] = register - shown
            shown = register
    rows.lines = array("l")


def _days(rows: _Rows, step: int, offset_min: int) -> tuple[int, int]:
    """How many days are whole, and the number of the last whole day (or of the last at all)."""
    offset_s = offset_min * MINUTE_S
    full = DAY_S // step
    known = Counter(
        (start + offset_s) // DAY_S
        for i, start in enumerate(rows.stamps)
        if all(column[i] != UNKNOWN for column in rows.values)
    )
    whole = [day for day, count in known.items() if count == full]
    last_at_all = (rows.stamps[-1] + offset_s) // DAY_S
    return len(whole), max(whole, default=last_at_all)
