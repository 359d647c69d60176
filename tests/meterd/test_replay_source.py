"""A recorded file, replayed.

The contract under test: every interval of the file comes out as its own Wh, sums are kept,
gaps stay gaps; and whatever else a file is, the answer is a SourceError of one line that
names the file and says what to do. What is expected is computed here by naive means
(`csv`, `Decimal`, a dictionary) that share no code with the source.
"""

from __future__ import annotations

import csv
import gzip
import io
import os
import random
from collections.abc import Callable
from datetime import UTC, datetime, tzinfo
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from amistack.errors import SourceError
from meterd.metrology import Flow, ReplaySource, replay
from tests.support.test_data import VARIABLE, recorded_data

DAY = 86_400
JANUARY = 1_767_225_600  # 2026-01-01T00:00Z
NOW = JANUARY + 323 * DAY + 40_000


Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """A file with what is given, text or octets."""

    def write_file(content: str | bytes, name: str = "profile.csv") -> Path:
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return write_file


def stamped(start: int, step: int, values: list[object]) -> str:
    """A file of ISO stamps in UTC, one for each value."""
    lines = ["start,value"]
    for i, value in enumerate(values):
        moment = datetime.fromtimestamp(start + i * step, UTC)
        lines.append(f"{moment:%Y-%m-%dT%H:%M:%SZ},{value}")
    return "\n".join(lines) + "\n"


def naive_expectation(path: Path, *, assumed: tzinfo, factor: int) -> dict[int, int]:
    """Wh by UTC second: first row of each stamp, register rounded half up, differences."""
    first: dict[int, Decimal] = {}
    with gzip.open(path, "rt", encoding="utf-8", newline="") as text:
        for row in csv.DictReader(text):
            moment = datetime.fromisoformat(row["start"])
            moment = moment if moment.tzinfo else moment.replace(tzinfo=assumed)
            first.setdefault(round(moment.timestamp()), Decimal(row["value"]) * factor)
    total, shown, wh = Decimal(0), 0, {}
    for second in sorted(first):
        total += first[second]
        register = int(total.quantize(Decimal(1), rounding=ROUND_HALF_UP))
        wh[second] = register - shown
        shown = register
    return wh


# Recorded files.

RECORDED = [
    # name, step, rows, duplicates
    ("il-electricity-cdd-hdd-hourly", 3600, 19417, 0),
    ("il-electricity-cdd-only-hourly", 3600, 19417, 0),
    ("uk-electricity-hdd-only-hourly-sample-0", 3600, 23508, 0),
    ("uk-electricity-hdd-only-hourly-sample-1", 1800, 22536, 15),
    ("uk-electricity-hdd-only-hourly-sample-2", 1800, 35468, 24),
]


@pytest.mark.parametrize(
    ("name", "step", "rows", "duplicates"), RECORDED, ids=[name for name, *_ in RECORDED]
)
def test_recorded_file_comes_out_value_by_value(
    name: str, step: int, rows: int, duplicates: int
) -> None:
    path = recorded_data() / "interval" / f"{name}.csv.gz"
    expected = naive_expectation(path, assumed=UTC, factor=1000)
    source = ReplaySource.open(path, unit="kWh", zone="UTC")
    report = source.report

    assert source.interval_s == step
    assert source.available() == (min(expected), max(expected) + step)
    seconds = range(report.first, report.end, step)
    values = source.energy(report.first, len(seconds))
    assert [wh for (wh,) in values] == [expected.get(second) for second in seconds]
    assert sum(expected.values()) > 1_000_000
    assert (report.rows, report.duplicates, report.conflicts) == (rows, duplicates, 0)
    assert (report.out_of_order, report.off_grid, report.missing) == (0, 0, 0)
    assert report.gaps == len(seconds) - len(expected)


@pytest.mark.parametrize("offset_min", [0, -360, 60])
@pytest.mark.parametrize("number", [0, 1, 2])
def test_last_whole_recorded_day_lands_on_yesterday(number: int, offset_min: int) -> None:
    path = recorded_data() / "interval" / f"uk-electricity-hdd-only-hourly-sample-{number}.csv.gz"
    expected = naive_expectation(path, assumed=UTC, factor=1000)
    source = ReplaySource.open(
        path,
        unit="kWh",
        zone="UTC",
        shift="last-day-is-yesterday",
        today=NOW,
        offset_min=offset_min,
    )
    step = source.interval_s
    days: dict[int, int] = {}
    for second in expected:
        day = (second + offset_min * 60) // DAY
        days[day] = days.get(day, 0) + 1
    last_whole = max(day for day, count in days.items() if count == DAY // step)
    midnight = last_whole * DAY - offset_min * 60
    yesterday = (NOW + offset_min * 60) // DAY * DAY - DAY - offset_min * 60

    count = 2 * DAY // step
    wanted = [expected.get(midnight + i * step) for i in range(count)]
    assert [wh for (wh,) in source.energy(yesterday, count)] == wanted
    assert None not in wanted[: DAY // step]
    assert source.report.whole_days == sum(n == DAY // step for n in days.values())


def test_recorded_utc_stamps_are_not_taken_for_british_clock_time() -> None:
    """They have the hour that the clocks skip in March 2013, so they cannot be."""
    path = recorded_data() / "interval" / "uk-electricity-hdd-only-hourly-sample-1.csv.gz"
    with pytest.raises(SourceError, match=r"line \d+: '2013-03-31 01:00:00' is skipped"):
        ReplaySource.open(path, unit="kWh", zone="Europe/London")


# The forms that files have.


@pytest.mark.parametrize(
    ("unit", "text", "wh"),
    [("Wh", "250", 250), ("kWh", "0.25", 250), ("W", "1000", 250), ("kW", "1", 250)],
)
def test_unit_says_what_a_value_means(write: Write, unit: str, text: str, wh: int) -> None:
    path = write(stamped(JANUARY, 900, [text] * 4))
    source = ReplaySource.open(path, unit=unit)
    assert source.interval_s == 900
    assert source.energy(JANUARY, 4) == [(wh,)] * 4


SAME_TWO = [
    "start,value\n2026-01-01T00:00:00Z,0.1\n2026-01-01T00:30:00Z,0.2\n",
    "2026-01-01T00:00Z,0.1\n2026-01-01T00:30Z,0.2\n",
    "2026-01-01 00:00,0.1\r\n2026-01-01 00:30,0.2",
    "\ufeffstart;value\n2026-01-01 00:00:00+00:00;0,1\n2026-01-01 00:30:00+00:00;0,2\n",
    "start\tvalue\n2026-01-01T01:00:00+01:00\t0.1\n2026-01-01T01:30:00+01:00\t.2\n",
    "time,kWh\n1767225600,1e-1\n1767227400.0,0.2\n",
    '"start","value"\n"2026-01-01T00:00:00Z","0.1"\n\n"2026-01-01T00:30:00Z","0.2"\n',
    "a, b\n2025-12-31T24:00:00Z, 0.1\n2026-01-01T00:30:00.0000000Z, 0.2\n",
]


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzip"])
@pytest.mark.parametrize("text", SAME_TWO, ids=range(len(SAME_TWO)))
def test_every_accepted_form_gives_the_same_two_intervals(
    write: Write, text: str, packed: bool
) -> None:
    content = gzip.compress(text.encode()) if packed else text.encode()
    source = ReplaySource.open(write(content, "named.txt"), unit="kWh", zone="UTC")
    assert source.energy(JANUARY - 1800, 4) == [(None,), (100,), (200,), (None,)]
    assert source.report.notes == ()


def test_columns_are_found_by_name_and_received_is_a_second_flow(write: Write) -> None:
    path = write(
        "id,to grid,from grid,time\n"
        "7,0.010,0.5,2026-01-01T00:00Z\n"
        "7,,0.6,2026-01-01T00:30Z\n"
        "7,null,NaN,2026-01-01T01:00Z\n"
        "7,0.030,0.8,2026-01-01T01:30Z\n"
    )
    source = ReplaySource.open(
        path,
        unit="kWh",
        time_column="time",
        value_column="from grid",
        received_column="to grid",
    )
    assert source.flows == (Flow.DELIVERED, Flow.RECEIVED)
    assert source.energy(JANUARY, 4) == [(500, 10), (600, None), (None, None), (800, 30)]
    assert source.partial(JANUARY + 1800, JANUARY + 2700.0) == (300, None)
    assert (source.report.missing, source.report.gaps) == (1, 1)


def test_stamps_at_the_end_name_the_interval_before(write: Write) -> None:
    path = write(stamped(JANUARY + 900, 900, [1, 2, 3]))
    source = ReplaySource.open(path, unit="Wh", stamp="end")
    assert source.available() == (JANUARY, JANUARY + 2700)
    assert source.energy(JANUARY, 3) == [(1,), (2,), (3,)]


def test_fixed_offset_and_named_zone_place_naive_stamps(write: Write) -> None:
    path = write("2026-01-01 00:00,1\n2026-01-01 01:00,2\n")
    for zone, ahead in (("+05:30", 19_800), ("-06:00", -21_600), ("Asia/Kolkata", 19_800)):
        source = ReplaySource.open(path, unit="Wh", zone=zone, offset_min=ahead // 60)
        assert source.available()[0] == JANUARY - ahead


# Rounding, gaps and order.

energies = st.one_of(
    st.none(), st.decimals(0, 30_000, places=4, allow_nan=False, allow_infinity=False)
)


@settings(
    deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    values=st.lists(energies, min_size=2, max_size=60),
    step=st.sampled_from([60, 300, 900, 1800, 3600]),
    unit=st.sampled_from(["Wh", "kWh", "W", "kW"]),
    seed=st.none() | st.integers(0, 1000),
)
def test_any_profile_in_any_order_comes_out_with_its_sum(
    tmp_path: Path, values: list[Decimal | None], step: int, unit: str, seed: int | None
) -> None:
    factor = Decimal(1000 if unit.startswith("k") else 1)
    share = Decimal(step) / 3600 if not unit.endswith("h") else Decimal(1)
    # Two neighbours at least, which show that `step` is a step of the file.
    values = [Decimal(1), Decimal(1), *values, Decimal(2)]
    header, *lines = stamped(
        JANUARY, step, ["" if value is None else value for value in values]
    ).splitlines()
    if seed is not None:
        random.Random(seed).shuffle(lines)
    path = tmp_path / "any.csv"
    path.write_text("\n".join([header, *lines]), encoding="utf-8")
    source = ReplaySource.open(path, unit=unit, interval_s=step)
    assert source.report.missing == values.count(None)
    seen = [wh for (wh,) in source.energy(JANUARY, len(values))]
    assert [wh is None for wh in seen] == [value is None for value in values]
    total = Decimal(0)
    running = 0
    for value, wh in zip(values, seen, strict=True):
        if value is not None and wh is not None:
            total += value * factor * share
            running += wh
            assert abs(running - total) <= Decimal("0.5000001")


def test_sum_of_thousands_of_thirds_is_not_lost(write: Write) -> None:
    """20 W over a minute is a third of a Wh; differences of the register add up all the same."""
    source = ReplaySource.open(write(stamped(JANUARY, 60, [20] * 3000)), unit="W")
    values = [wh for (wh,) in source.energy(JANUARY, 3000)]
    assert set(values) == {0, 1}
    assert sum(wh or 0 for wh in values) == 1000


def test_repeated_rows_collapse_and_contradictions_keep_the_first(write: Write) -> None:
    path = write(
        "2026-01-01T00:00Z,1\n2026-01-01T00:30Z,2\n2026-01-01T00:30Z,2.0\n"
        "2026-01-01T01:00Z,3\n2026-01-01T01:00Z,9\n2026-01-01T01:30Z,\n2026-01-01T01:30Z,4\n"
        "2026-01-01T03:00Z,7\n2026-01-01T02:30Z,6\n"
    )
    source = ReplaySource.open(path, unit="Wh")
    assert source.energy(JANUARY, 7) == [(1,), (2,), (3,), (4,), (None,), (6,), (7,)]
    report = source.report
    assert (report.rows, report.duplicates, report.conflicts) == (9, 1, 1)
    assert (report.missing, report.out_of_order, report.gaps) == (1, 1, 1)
    assert len(report.notes) == 5
    assert "1 exact duplicates" in str(report)


def test_any_window_is_a_piece_of_the_whole(write: Write) -> None:
    source = ReplaySource.open(write(stamped(JANUARY, 1800, list(range(48)))), unit="Wh")
    whole = source.energy(JANUARY - 5 * 1800, 60)
    for start in range(0, 60, 7):
        for count in (0, 1, min(5, 60 - start), 60 - start):
            piece = source.energy(JANUARY + (start - 5) * 1800, count)
            assert piece == whole[start : start + count]


@settings(
    deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(value=st.integers(0, 100_000), shares=st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_partial_is_the_elapsed_share_rounded_down(
    tmp_path: Path, value: int, shares: list[float]
) -> None:
    path = tmp_path / "partial.csv"
    path.write_text(stamped(JANUARY, 900, [value, value]), encoding="utf-8")
    source = ReplaySource.open(path, unit="Wh")
    seen = [source.partial(JANUARY, JANUARY + share * 900)[0] or 0 for share in sorted(shares)]
    assert seen == sorted(seen)
    assert source.partial(JANUARY, JANUARY) == (0,)
    assert source.partial(JANUARY, JANUARY + 450) == (value // 2,)
    assert source.partial(JANUARY, JANUARY + 900) == (value,)
    assert source.partial(JANUARY + 1800, JANUARY + 2000) == (None,)


# Daylight saving.

AUTUMN = datetime(2025, 10, 25, 23, tzinfo=UTC)  # Midnight in Britain; clocks go back at 01:00Z.


def british_night() -> list[str]:
    """Half hours from 00:00 to 03:00 on the clock on the wall: 01:00 and 01:30 come twice."""
    walls = ["00:00", "00:30", "01:00", "01:30", "01:00", "01:30", "02:00", "02:30"]
    return [f"2025-10-26 {wall},{i + 1}" for i, wall in enumerate(walls)]


def test_repeated_hour_is_told_apart_by_order_of_appearance(write: Write) -> None:
    path = write("\n".join(british_night()))
    source = ReplaySource.open(path, unit="Wh", zone="Europe/London")
    start = round(AUTUMN.timestamp())
    assert source.energy(start, 8) == [(i + 1,) for i in range(8)]
    assert source.report.notes == ()


def test_repeated_hour_of_a_file_that_is_newest_first_is_told_apart_too(write: Write) -> None:
    path = write("\n".join(reversed(british_night())))
    source = ReplaySource.open(path, unit="Wh", zone="Europe/London")
    assert source.energy(round(AUTUMN.timestamp()), 8) == [(i + 1,) for i in range(8)]


def test_repeated_hour_that_a_file_has_once_is_the_first_and_leaves_a_gap(write: Write) -> None:
    lines = british_night()
    path = write("\n".join(lines[:4] + lines[6:]))
    source = ReplaySource.open(path, unit="Wh", zone="Europe/London")
    values = [wh for (wh,) in source.energy(round(AUTUMN.timestamp()), 8)]
    assert values == [1, 2, 3, 4, None, None, 7, 8]


def test_blank_row_in_the_repeated_hour_keeps_its_place(write: Write) -> None:
    lines = british_night()
    lines[2] = "2025-10-26 01:00,"
    source = ReplaySource.open(write("\n".join(lines)), unit="Wh", zone="Europe/London")
    values = [wh for (wh,) in source.energy(round(AUTUMN.timestamp()), 8)]
    assert values == [1, 2, None, 4, 5, 6, 7, 8]


def test_skipped_hour_is_refused_with_the_cure(write: Write) -> None:
    path = write("2026-03-29 00:30,1\n2026-03-29 01:00,2\n2026-03-29 02:00,3\n")
    with pytest.raises(SourceError, match=r"line 2: .*skipped.*Europe/London.*set `zone`"):
        ReplaySource.open(path, unit="Wh", zone="Europe/London")


# Moving days to the present.


def test_shift_is_by_whole_days_and_the_same_for_the_rest_of_the_day(write: Write) -> None:
    path = write(stamped(JANUARY, 3600, list(range(30))))
    for today in (NOW, NOW // DAY * DAY, NOW // DAY * DAY + DAY - 1):
        source = ReplaySource.open(path, unit="Wh", shift="last-day-is-yesterday", today=today)
        yesterday = NOW // DAY * DAY - DAY
        assert source.energy(yesterday, 30) == [(i,) for i in range(30)]
        assert source.available() == (yesterday, yesterday + 30 * 3600)
        assert source.report.shift_days == (yesterday - JANUARY) // DAY


def test_without_a_whole_day_the_last_day_with_data_counts(write: Write) -> None:
    path = write(stamped(JANUARY + 20 * 3600, 3600, list(range(8))))
    source = ReplaySource.open(path, unit="Wh", shift="last-day-is-yesterday", today=NOW)
    yesterday = NOW // DAY * DAY - DAY
    assert source.report.whole_days == 0
    assert source.energy(yesterday, 4) == [(4,), (5,), (6,), (7,)]


def test_whole_day_is_that_of_the_meters_standard_time(write: Write) -> None:
    """22 hours from local midnight, then a whole local day: only one of them is yesterday."""
    offset_min = -360
    path = write(stamped(JANUARY + 8 * 3600, 3600, list(range(24 + 22 + 12))))
    source = ReplaySource.open(
        path, unit="Wh", shift="last-day-is-yesterday", today=NOW, offset_min=offset_min
    )
    local_midnight = (NOW - 21_600) // DAY * DAY - DAY + 21_600
    assert source.report.whole_days == 1
    assert source.energy(local_midnight, 24) == [(22 + i,) for i in range(24)]


# Refusals. Each is one line that names the file, and the line in it where there is one.

LINES = "2026-01-01T00:00Z,1\n2026-01-01T00:15Z,2\n"

REFUSED = [
    ("empty", "", {}, "no rows"),
    ("header alone", "start,value\n", {}, "no rows"),
    ("no values", "2026-01-01T00:00Z,\n2026-01-01T00:15Z,null\n", {}, "no row has a value"),
    ("one row", "2026-01-01T00:00Z,1\n", {}, "set.*interval_s|interval_s to be set"),
    ("bad number", LINES + "2026-01-01T00:30Z,x1\n", {}, "line 3: value 'x1'"),
    ("infinite", LINES + "2026-01-01T00:30Z,inf\n", {}, "line 3: value 'inf'"),
    ("underscore", LINES + "2026-01-01T00:30Z,1_0\n", {}, "line 3: value"),
    ("huge exponent", LINES + "2026-01-01T00:30Z,1e999999\n", {}, "line 3.*check the unit"),
    ("absurd exponent", LINES + f"2026-01-01T00:30Z,1e{'9' * 40}\n", {}, "line 3"),
    ("beyond any meter", LINES + "2026-01-01T00:30Z,1000000001\n", {}, "line 3.*check the unit"),
    ("negative", LINES + "2026-01-01T00:30Z,-1\n", {}, "line 3.*negative.*received_column"),
    ("bad stamp", LINES + "01/02/2026 00:30,1\n", {}, "line 3: stamp.*ISO 8601"),
    ("bad first stamp", "2026-13-01T00:00Z,1\n", {}, "line 1: stamp.*ISO 8601"),
    ("date in digits", "20260101,1\n", {}, "line 1: stamp"),
    ("milliseconds", "1767225600000,1\n", {}, "line 1: stamp.*seconds since 1970"),
    ("before 1970", "1969-12-31T23:00:00Z,1\n", {}, "line 1.*since 1970"),
    ("year one", "0001-01-01T00:00:00,1\n", {"zone": "+14:00"}, "line 1.*since 1970"),
    ("year one, zone", "0001-01-01T00:00:00,1\n", {"zone": "Asia/Tokyo"}, "line 1.*since 1970"),
    ("year 9999", "9999-12-31T24:00:00,1\n", {"zone": "UTC"}, "line 1: stamp"),
    ("no zone", "2026-01-01T00:00,1\n", {}, "line 1.*no offset.*zone"),
    ("one column", "start\n2026-01-01T00:00Z\n", {}, "line 1: 1 column"),
    ("column lost", LINES + "2026-01-01T00:30Z\n", {}, "line 3: 1 columns"),
    ("open quote", LINES + '"2026-01-01T00:30Z,3\n' + LINES, {}, "line 3: quotes"),
    ("wrong column", "a,b\n" + LINES, {"value_column": "c"}, "line 1: column 'c'.*'a', 'b'"),
    ("twice", "a,b,b\n" + LINES, {"value_column": "b"}, "line 1: column 'b' is twice"),
    ("same column", "a,b\n" + LINES, {"received_column": "b"}, "one column for two"),
    ("one name for all", "a,b\n" + LINES, {"time_column": "b"}, "one column for two"),
    ("no header to name", LINES, {"value_column": "kWh"}, "line 1: column 'kWh'"),
    ("binary", bytes(range(256)) * 20, {}, "line 1"),
    ("zeros", bytes(3000), {}, "line 1.*NUL"),
    ("latin-1", "Zeit,Z\xe4hler\n".encode("latin-1"), {}, "line 1.*UTF-8"),
    ("utf-16", LINES.encode("utf-16"), {}, "UTF-16"),
    ("long line", "a" * 5000, {}, "line 1: longer than 4096"),
    ("cut gzip", gzip.compress(LINES.encode() * 200)[:40], {}, "cut off or damaged"),
    ("gzip with no data", b"\x1f\x8b", {}, "cut off or damaged"),
    ("gzip by mark only", b"\x1f\x8b\x08\x00 not really", {}, "cut off or damaged"),
    ("unit", LINES, {"unit": "MWh"}, "unit is 'MWh', expected one of Wh, kWh, W, kW"),
    ("stamp", LINES, {"stamp": "middle"}, "stamp is 'middle', expected one of start, end"),
    ("shift", LINES, {"shift": "today"}, "shift is 'today', expected one of none, last-"),
    ("no today", LINES, {"shift": "last-day-is-yesterday"}, "`today`"),
    ("zone", LINES, {"zone": "Mars/Olympus"}, "zone is 'Mars/Olympus'"),
    ("zone outside", LINES, {"zone": "../../etc/passwd"}, "zone is"),
    ("zone folder", LINES, {"zone": "Europe"}, "zone is 'Europe'"),
    ("zone empty", LINES, {"zone": ""}, "zone is ''"),
    ("zone offset", LINES, {"zone": "+01:75"}, "zone is"),
    ("zone NUL", LINES, {"zone": "a\0b"}, "zone is"),
    ("interval", LINES, {"interval_s": 1000}, "interval_s is 1000"),
    ("interval too short", LINES, {"interval_s": 300}, "interval_s is 300, expected 900"),
    ("offset", LINES, {"offset_min": 2000}, "offset_min is 2000"),
    ("odd step", stamped(JANUARY, 7000, [1, 2, 3, 4]), {}, "step is 7000 s"),
    ("off grid", stamped(JANUARY + 60, 900, [1] * 9), {}, "line 2: 60 s into.*9 of 9"),
]


@pytest.mark.parametrize(
    ("content", "changed", "message"),
    [case[1:] for case in REFUSED],
    ids=[case[0].replace(" ", "_") for case in REFUSED],
)
def test_unusable_file_or_setting_is_refused_in_one_line(
    write: Write, content: str | bytes, changed: dict[str, object], message: str
) -> None:
    path = write(content)
    settings_: dict[str, object] = {"unit": "Wh", **changed}
    with pytest.raises(SourceError, match=message) as caught:
        ReplaySource.open(path, **settings_)  # type: ignore[arg-type]  # wrong on purpose
    assert str(caught.value).startswith(str(path))
    assert str(caught.value).isprintable()


def test_what_is_not_a_file_is_refused_in_one_line(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path, message in (
        (tmp_path / "absent.csv", "no such file"),
        (tmp_path, "is a directory"),
        (tmp_path / "pipe", "not a regular file"),
        (tmp_path / ("x" * 300), "cannot be read"),
        (tmp_path / "a\0b", "cannot be read"),
    ):
        with pytest.raises(SourceError, match=message):
            ReplaySource.open(path, unit="Wh")


def test_a_few_stray_stamps_are_dropped_and_counted(write: Write) -> None:
    text = stamped(JANUARY, 900, list(range(300)))
    stray = "2026-01-01T05:07:00Z,50\n2026-01-02T05:00:00.500Z,60\n"
    source = ReplaySource.open(write(text + stray), unit="Wh")
    assert source.report.off_grid == 2
    assert source.energy(JANUARY, 300) == [(i,) for i in range(300)]
    # The fourth in three hundred is over one in a hundred.
    with pytest.raises(SourceError, match=r"line 302: 420 s into"):
        ReplaySource.open(write(text + stray * 2), unit="Wh")


def test_rows_have_a_bound(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replay, "ROW_COUNT_MAX", 40)
    text = stamped(JANUARY, 900, list(range(40)))
    assert ReplaySource.open(write(text), unit="Wh").report.rows == 40
    for more in ("2026-01-02T00:00Z,1\n", "\n"):
        with pytest.raises(SourceError, match="line 42: one too many, expected at most 40 rows"):
            ReplaySource.open(write(text + more), unit="Wh")


def test_gzip_that_unpacks_without_end_is_refused_early(write: Write) -> None:
    packed = io.BytesIO()
    with gzip.GzipFile(fileobj=packed, mode="wb") as out:
        out.write(bytes(50_000_000))
    with pytest.raises(SourceError, match="longer than 4096"):
        ReplaySource.open(write(packed.getvalue()), unit="Wh")


@settings(
    deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    content=st.binary(max_size=300)
    | st.text('0123456789-:TZ+.,;\t" \n\re', max_size=200).map(str.encode)
    | st.builds(
        lambda junk, at: (stamped(JANUARY, 900, [1, 2, 3]))[:at] + junk,
        st.text(max_size=20),
        st.integers(0, 90),
    ).map(lambda text: text.encode("utf-8", "surrogatepass")),
    packed=st.booleans(),
    cut=st.integers(0, 400),
    stamp=st.sampled_from(["start", "end"]),
)
def test_arbitrary_octets_are_a_source_or_a_source_error(
    tmp_path: Path, content: bytes, packed: bool, cut: int, stamp: str
) -> None:
    path = tmp_path / "junk"
    path.write_bytes(gzip.compress(content)[:cut] if packed else content)
    try:
        source = ReplaySource.open(path, unit="kWh", zone="Europe/London", stamp=stamp)
    except SourceError as refusal:
        message = str(refusal)
    else:
        values = source.energy(source.report.first, 3)
        message = str(source.report)
        assert all(wh is None or wh >= 0 for (wh,) in values)
    assert message.isprintable()


def test_window_off_the_grid_or_too_long_is_refused(write: Write) -> None:
    source = ReplaySource.open(write(stamped(JANUARY, 900, [1, 2, 3])), unit="Wh")
    for start, count in ((JANUARY + 1, 1), (JANUARY, -1), (JANUARY, 10**9), (-900, 1)):
        with pytest.raises(SourceError, match="expected"):
            source.energy(start, count)


def test_hours_of_a_half_hour_zone_need_and_accept_the_meters_offset(write: Write) -> None:
    path = write(stamped(JANUARY + 1800, 3600, list(range(24))))
    with pytest.raises(SourceError, match=r"1800 s into an interval of 3600 s.*offset_min"):
        ReplaySource.open(path, unit="Wh")
    source = ReplaySource.open(path, unit="Wh", offset_min=330)
    assert source.energy(JANUARY + 1800, 2) == [(0,), (1,)]


# The folder of recorded data.


def test_absent_data_skips_at_home_and_fails_in_ci(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, str(tmp_path / "absent"))
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match=VARIABLE):
        recorded_data()
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match=VARIABLE):
        recorded_data()
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    assert recorded_data() == tmp_path


def test_oracle_of_this_module_rounds_half_up(tmp_path: Path) -> None:
    """Guards the oracle: 0.5 Wh twice is one Wh, shown with the first."""
    path = tmp_path / "half.csv.gz"
    path.write_bytes(
        gzip.compress(b"start,value\n2026-01-01T00:00Z,.0005\n2026-01-01T01:00Z,.0005\n")
    )
    expected = {JANUARY: 1, JANUARY + 3600: 0}
    assert naive_expectation(path, assumed=UTC, factor=1000) == expected
    source = ReplaySource.open(path, unit="kWh")
    assert source.energy(JANUARY, 2) == [(1,), (0,)]
