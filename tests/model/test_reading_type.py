"""ReadingType codes: eighteen fields and one text for each.

The contract under test: `str` and `parse` invert each other, and `parse` takes no second
spelling. The expected codes are those that utilities publish for energy.
"""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amistack.errors import ModelError
from amistack.model.reading_type import (
    FlowDirection,
    ReadingType,
    interval_energy,
    register_energy,
)
from tests.model.messages import reading_types


@given(reading_types, st.integers(-24, 24))
@settings(deadline=None)
def test_parse_inverts_str(reading_type: ReadingType, multiplier: int) -> None:
    reading_type = dataclasses.replace(reading_type, multiplier=multiplier)
    assert ReadingType.parse(str(reading_type)) == reading_type


@given(st.text("0123456789.-", max_size=60) | st.text(max_size=60))
@settings(deadline=None)
def test_any_text_is_a_code_in_its_one_spelling_or_an_error(text: str) -> None:
    try:
        parsed = ReadingType.parse(text)
    except ModelError:
        return
    assert str(parsed) == text


@pytest.mark.parametrize(
    ("interval_s", "flow", "code"),
    [
        (900, FlowDirection.FORWARD, "0.0.2.4.1.1.12.0.0.0.0.0.0.0.0.0.72.0"),
        (3600, FlowDirection.REVERSE, "0.0.7.4.19.1.12.0.0.0.0.0.0.0.0.0.72.0"),
        (1800, FlowDirection.NET, "0.0.5.4.4.1.12.0.0.0.0.0.0.0.0.0.72.0"),
        (86_400, FlowDirection.FORWARD, "0.0.4.4.1.1.12.0.0.0.0.0.0.0.0.0.72.0"),
        (720, FlowDirection.FORWARD, "0.0.0.4.1.1.12.0.0.0.0.0.0.0.0.0.72.0"),
    ],
)
def test_interval_energy_has_the_listed_code(
    interval_s: int, flow: FlowDirection, code: str
) -> None:
    assert str(interval_energy(interval_s, flow)) == code


def test_register_energy_has_the_listed_code() -> None:
    code = "0.0.0.1.1.1.12.0.0.0.0.0.0.0.0.0.72.0"
    assert str(register_energy(FlowDirection.FORWARD)) == code


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0.0.2.4.1.1.12.0.0.0.0.0.0.0.0.0.72",
        "0.0.2.4.1.1.12.0.0.0.0.0.0.0.0.0.72.0.0",
        "0.0.02.4.1.1.12.0.0.0.0.0.0.0.0.0.72.0",
        "0.0.-2.4.1.1.12.0.0.0.0.0.0.0.0.0.72.0",
        "0.0.2.4.1.1.12.0.0.0.0.0.0.0.0.-0.72.0",
        "0.0.2.4.1.1.12.0.0.0.0.0.0.0.0.25.72.0",
        "0.0.2.4.1.1.12.0.0.0.0.0.0.0.0.0.65536.0",
        "0.0.2.4.1.1.12.0.0.0.0.0.0.0.0.0.72.0\n",
        "0.0.2.4.1.1.1\u0662.0.0.0.0.0.0.0.0.0.72.0",
    ],
)
def test_second_spellings_and_other_numbers_are_refused(text: str) -> None:
    with pytest.raises(ModelError):
        ReadingType.parse(text)


def test_field_out_of_range_is_refused_when_made() -> None:
    with pytest.raises(ModelError, match="multiplier"):
        ReadingType(multiplier=25)
    with pytest.raises(ModelError, match="tou"):
        ReadingType(tou=-1)


def test_every_listed_period_has_the_code_of_the_published_list() -> None:
    """TimeAttributeKind of NAESB ESPI 4.0 espi.xsd (Apache-2.0), in minutes."""
    codes = {1: 3, 2: 10, 3: 14, 5: 6, 10: 1, 15: 2, 20: 31, 30: 5, 60: 7, 1440: 4}
    for minutes in range(1, 1441):
        code = interval_energy(minutes * 60, FlowDirection.FORWARD).measuring_period
        assert code == codes.get(minutes, 0)
