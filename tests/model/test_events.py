"""Event codes and log entries.

The contract under test: a code has one text; the codes our meters log are those of the list.
"""

from __future__ import annotations

import pytest
from hypothesis import given, settings

from amistack.errors import ModelError
from amistack.model import events
from amistack.model.events import EndDeviceEventType, LogEntry
from tests.model.messages import event_types


@given(event_types)
@settings(deadline=None)
def test_parse_inverts_str(event: EndDeviceEventType) -> None:
    assert EndDeviceEventType.parse(str(event)) == event


@pytest.mark.parametrize(
    "text", ["", "3.26.0", "3.26.0.85.1", "3.26.00.85", "3.26.0.x", "3.2.0.-1"]
)
def test_second_spellings_are_refused(text: str) -> None:
    with pytest.raises(ModelError, match="bad event type"):
        EndDeviceEventType.parse(text)


def test_field_beyond_its_range_is_refused() -> None:
    with pytest.raises(ModelError):
        EndDeviceEventType.parse("3.26.0.65536")


def test_what_our_meters_log_has_the_listed_codes() -> None:
    assert str(events.PRIMARY_POWER_FAILED) == "3.26.0.47"
    assert str(events.PRIMARY_POWER_RESTORED) == "3.26.0.216"
    assert str(events.CLOCK_SET) == "3.36.114.24"
    assert str(events.CLOCK_FAILED) == "3.36.0.79"
    assert str(events.CONFIGURATION_CHANGED) == "3.7.0.24"
    assert str(events.ACCESS_DENIED) == "3.12.1.38"


@pytest.mark.parametrize("detail", ["", "x" * 65, "é" * 33, "\ud800"])
def test_detail_that_is_empty_long_or_no_text_is_refused(detail: str) -> None:
    with pytest.raises(ModelError):
        LogEntry(1, 0, events.CLOCK_SET, detail)


@pytest.mark.parametrize(
    "rest", [[False], [True, True], ["x", False], [True, "x"], ["x", "y"], ["x", 1], [None], [""]]
)
def test_items_behind_an_entry_are_a_detail_then_true_or_refused(rest: list[object]) -> None:
    plain = [1, 0, 3, 36, 114, 24]
    for good in ([], ["x"], [True], ["x", True]):
        LogEntry.from_tree(plain + good, 0)
    with pytest.raises(ModelError):
        LogEntry.from_tree(plain + rest, 0)


def test_entry_before_the_epoch_is_refused() -> None:
    with pytest.raises(ModelError):
        LogEntry.from_tree([1, -1, 3, 36, 114, 24], 0)
