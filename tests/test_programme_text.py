"""Programmes as people write them.

The contract under test: a text and its programme give back each other; what is wrong is refused in
one line that says where and what was expected, and nothing else is ever raised.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from amistack.errors import ConfigError
from amistack.model.event_catalogue import VOLTAGE_LOW, Delivery, Importance
from amistack.model.event_notice import EventRule
from amistack.model.on_demand import ReadParts
from amistack.model.programme import DemandRules, Programme, Threshold, ThresholdKind
from amistack.model.programme_check import faults_of
from amistack.model.quantity import Measured, Quantity
from amistack.model.schedule import ReadSchedule
from amistack.programme_text import load_programme, parse_programme, write_programme
from tests.model.programmes import programmes

TEXT = """
version = 7
applies_at = "2026-12-01T00:00:00Z"
standard_offset_min = 60

[[channel]]
number = 1
quantity = "delivered"
interval_s = 900

[[channel]]
number = 11
quantity = "delivered"
tier = 1
interval_s = 86400

[[channel]]
number = 12
reading_type = "0.0.4.4.1.1.12.0.0.0.0.2.0.0.0.0.72.0"
interval_s = 86400

[[calendar.day_type]]
name = "working day"
switches = ["00:00 1", "06:00 2", "22:00 1"]

[[calendar.day_type]]
name = "day off"
switches = ["00:00 1"]

[[calendar.season]]
begins = "01-01"
week = [
  "working day", "working day", "working day", "working day", "working day", "day off", "day off"
]

[[calendar.special_day]]
date = "12-25"
day_type = "day off"

[[calendar.special_day]]
date = "2027-03-26"
day_type = "day off"

[demand]
window_s = 900
sub_interval_s = 300
reset_day = 1

[[threshold]]
kind = "demand"
limit = 8000
hold_s = 60

[[event]]
type = "3.26.38.150"
delivery = "at once"
importance = "service"

[[schedule]]
number = 3
period_s = 3600
offset_s = 60
ends = "2027-01-01T00:00:00Z"
parts = ["registers", "intervals"]
"""


def test_text_says_what_it_means() -> None:
    one = parse_programme(TEXT)
    assert faults_of(one) == ()
    assert (one.version, one.applies_at, one.standard_offset_min) == (7, 1_796_083_200, 60)
    assert [(channel.number, channel.measured) for channel in one.channels] == [
        (1, Measured(Quantity.DELIVERED)),
        (11, Measured(Quantity.DELIVERED, 1)),
        (12, Measured(Quantity.DELIVERED, 2)),
    ]
    assert one.calendar is not None
    christmas = one.calendar.day_type(20_812)  # 2026-12-25, a Friday
    assert christmas == one.calendar.day_types[1]
    assert one.calendar.tier_at(20_811 * 86_400 + 6 * 3600) == 2
    assert one.demand == DemandRules(900, 300, 1)
    assert one.thresholds == (Threshold(ThresholdKind.DEMAND, 8000, 0, 60),)
    assert one.schedules == (
        ReadSchedule(3, 3600, 60, 0, 1_798_761_600, ReadParts.REGISTERS | ReadParts.INTERVALS),
    )
    assert one.events == (EventRule(VOLTAGE_LOW, Delivery.AT_ONCE, Importance.SERVICE),)


@given(programmes)
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_text_and_programme_give_back_each_other(programme: Programme) -> None:
    text = write_programme(programme)
    assert parse_programme(text) == programme
    assert write_programme(parse_programme(text)) == text


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("version = 7", "", "version is missing"),
        ("version = 7", "version = -1", "version is not from 0"),
        ("version = 7", 'version = "7"', "expected a whole number"),
        ("version = 7", "version = 7\ntariff = 1", "tariff is not a setting"),
        ("00:00:00Z", "00:00:00+01:00", "expected UTC such as"),
        ('"delivered"\ninterval_s', '"heat"\ninterval_s', "expected delivered"),
        ('quantity = "delivered"\ninterval_s', "interval_s", "either quantity or reading_type"),
        ("interval_s = 900", "interval_s = 7", "interval length is not from 30"),
        (".72.0", ".72", "expected 18 numbers"),
        ("06:00 2", "6:00 2", "expected such as '06:00 2'"),
        ("06:00 2", "06:01 2", "a switch is not on 5 minutes"),
        ("06:00 2", "06:00 9", "tier is not from 1 to 8"),
        ('name = "day off"', 'name = "working day"', "a name comes twice"),
        ('day_type = "day off"', 'day_type = "feast"', "day type 'feast' is not there"),
        ('"12-25"', '"25 December"', "expected such as '12-25'"),
        ('"2027-03-26"', '"2027-02-29"', "there is no 02-29"),
        ('kind = "demand"', 'kind = "heat"', "'heat' is none of voltage low, voltage high"),
        ('"at once"', '"soon"', "'soon' is none of log only, next read, at once"),
        ("3.26.38.150", "3.26.38", "expected 4 numbers"),
        ("period_s = 3600", "period_s = 3601", "a day is no whole number of 3601 s"),
        ('"registers",', '"heat",', "expected registers, intervals, log"),
        ("2027-01-01T", "2027-13-01T", "ends is '2027-13-01T00:00:00Z', expected UTC"),
        ("[demand]", "[demand", "is not valid TOML"),
    ],
)
def test_what_is_wrong_is_refused_in_one_line(old: str, new: str, said: str) -> None:
    assert old in TEXT
    with pytest.raises(ConfigError) as refused:
        parse_programme(TEXT.replace(old, new, 1))
    line = str(refused.value)
    assert said in line
    assert line.startswith("the programme")
    assert "\n" not in line


@given(st.data())
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_text_is_a_programme_or_a_config_error(data: st.DataObject) -> None:
    first = data.draw(st.integers(0, len(TEXT) - 1))
    end = data.draw(st.integers(first, min(first + 20, len(TEXT))))
    text = TEXT[:first] + data.draw(st.text(max_size=8)) + TEXT[end:]
    try:
        programme = parse_programme(text)
    except ConfigError:
        return
    assert parse_programme(write_programme(programme)) == programme


def test_programme_in_the_manual_is_whole() -> None:
    manual = Path(__file__).parents[1] / "docs/operating/programmes.md"
    text = manual.read_text(encoding="utf-8").split("```toml\n")[1].split("```")[0]
    assert faults_of(parse_programme(text)) == ()


def test_file_is_named_in_what_is_wrong_with_it(tmp_path: Path) -> None:
    file = tmp_path / "winter.toml"
    file.write_text(TEXT, encoding="utf-8")
    assert load_programme(file) == parse_programme(TEXT)
    file.write_text(TEXT.replace("06:00 2", "6 2"), encoding="utf-8")
    with pytest.raises(ConfigError, match=r"winter\.toml"):
        load_programme(file)
