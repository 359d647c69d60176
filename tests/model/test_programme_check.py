"""Whether a programme's parts agree.

The contract under test: a whole programme has no fault; every contradiction is named with its
place, all of them at once, up to a bound; anything that can be decoded can be checked.
"""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import HealthCheck, given, settings

from amistack.model.event_catalogue import VOLTAGE_LOW, Delivery, Importance
from amistack.model.event_notice import EventRule
from amistack.model.programme import (
    DemandRules,
    Programme,
    ProgrammeChannel,
    Threshold,
    ThresholdKind,
)
from amistack.model.programme_check import FAULT_COUNT_MAX, faults_of
from amistack.model.quantity import Measured, Quantity
from amistack.model.reading_type import ReadingType
from amistack.model.tariff import DayType, Season, Switch, TariffCalendar
from tests.model.programmes import programmes

CALENDAR = TariffCalendar((DayType((Switch(0, 1), Switch(420, 2))),), (Season(1, 1, (0,) * 7),))
RULE = EventRule(VOLTAGE_LOW, Delivery.AT_ONCE, Importance.SERVICE)


def channel(
    number: int, quantity: Quantity = Quantity.DELIVERED, seconds: int = 900, tier: int = 0
) -> ProgrammeChannel:
    return ProgrammeChannel.of(number, Measured(quantity, tier), seconds)


WHOLE = Programme(
    1,
    0,
    60,
    (
        channel(1),
        channel(2, Quantity.RECEIVED),
        channel(3, Quantity.VOLTAGE, 300),
        channel(11, seconds=86_400, tier=1),
        channel(12, seconds=86_400, tier=2),
    ),
    CALENDAR,
    DemandRules(900, 300, 1),
    (
        Threshold(ThresholdKind.VOLTAGE_LOW, 2070, 20, 60),
        Threshold(ThresholdKind.VOLTAGE_HIGH, 2530, 20, 60),
        Threshold(ThresholdKind.DEMAND, 8000),
        Threshold(ThresholdKind.REVERSE_FLOW, 10),
    ),
    (RULE,),
)


def changed(**parts: object) -> Programme:
    return dataclasses.replace(WHOLE, **parts)  # type: ignore[arg-type]


def with_channels(*channels: ProgrammeChannel) -> Programme:
    return Programme(1, 0, 0, channels)


def test_whole_programme_has_no_fault() -> None:
    assert faults_of(WHOLE) == ()


@pytest.mark.parametrize("minutes", [5, 10, 15, 30, 60])
def test_intervals_of_every_length_there_is_are_taken(minutes: int) -> None:
    assert faults_of(with_channels(channel(1, seconds=60 * minutes))) == ()


@pytest.mark.parametrize(
    ("programme", "said"),
    [
        (changed(version=0), "version: 0 is what a meter does without a programme"),
        (
            with_channels(channel(1), channel(1, Quantity.RECEIVED)),
            "channel 1: its number comes twice",
        ),
        (
            with_channels(channel(1), channel(2, seconds=300)),
            "channel 2: records delivered as channel 1 does",
        ),
        (with_channels(channel(1, seconds=1200)), "channel 1: intervals of 1200 s"),
        (with_channels(channel(1, seconds=60)), "channel 1: intervals of 60 s"),
        (with_channels(channel(1, Quantity.VOLTAGE, 86_400)), "channel 1: intervals of 86400 s"),
        (
            with_channels(ProgrammeChannel(7, ReadingType(unit=999), 900)),
            "channel 7: unknown reading type 0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.999.0",
        ),
        (
            changed(calendar=None),
            "channel 11: tier 1, but there is no calendar",
        ),
        (
            changed(channels=(channel(1), channel(11, tier=1))),
            "channels: none for tier 2 of delivered",
        ),
        (
            changed(channels=(channel(1), *(channel(10 + tier, tier=tier) for tier in (1, 2, 3)))),
            "channel 13: tier 3 is never in force",
        ),
        (
            changed(channels=(channel(11, tier=1), channel(12, tier=2))),
            "channels: none for all tiers together of delivered",
        ),
        (changed(channels=(channel(1),)), "calendar: no channel records a tier"),
        (changed(demand=DemandRules(900, 301)), "demand: window and sub-interval are not on 5"),
        (changed(demand=DemandRules(900, 600)), "demand: sub-intervals of 600 s do not divide"),
        (changed(demand=DemandRules(300, 900)), "demand: sub-intervals of 900 s do not divide"),
        (changed(demand=DemandRules(2700, 900)), "demand: windows of 2700 s do not divide an hour"),
        (
            dataclasses.replace(
                with_channels(channel(1, Quantity.RECEIVED)), demand=DemandRules(900, 900)
            ),
            "demand: no channel records delivered energy",
        ),
        (
            changed(thresholds=(Threshold(ThresholdKind.DEMAND, 5),) * 2),
            "thresholds: demand comes twice",
        ),
        (
            changed(thresholds=(Threshold(ThresholdKind.DEMAND, 5, 6),)),
            "thresholds: demand: hysteresis is more than the limit",
        ),
        (changed(demand=None), "thresholds: demand is watched, but there are no demand rules"),
        (changed(events=(RULE, RULE)), f"events: {VOLTAGE_LOW} comes twice"),
    ],
)
def test_contradiction_is_named_with_its_place(programme: Programme, said: str) -> None:
    assert any(str(fault).startswith(said) for fault in faults_of(programme)), faults_of(programme)


@pytest.mark.parametrize(("high", "is_fault"), [(2110, True), (2111, False)])
def test_voltage_limits_may_not_meet_with_their_hysteresis(high: int, is_fault: bool) -> None:
    thresholds = (
        Threshold(ThresholdKind.VOLTAGE_LOW, 2070, 20),
        Threshold(ThresholdKind.VOLTAGE_HIGH, high, 20),
    )
    assert bool(faults_of(changed(thresholds=thresholds))) is is_fault


@pytest.mark.parametrize(("count", "is_fault"), [(10, False), (11, True)])
def test_intervals_of_a_day_must_fit_a_report(count: int, is_fault: bool) -> None:
    numbers = range(1, count + 1)
    channels = tuple(channel(number, seconds=300) for number in numbers)
    found = [fault for fault in faults_of(with_channels(*channels)) if "fit a report" in str(fault)]
    assert bool(found) is is_fault


@given(programmes)
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_anything_that_can_be_decoded_can_be_checked(programme: Programme) -> None:
    faults = faults_of(Programme.decode(programme.encode()))
    assert len(faults) <= FAULT_COUNT_MAX
    assert len(set(faults)) == len(faults)
