"""Quantities and their ReadingTypes.

The contract under test: the ReadingType of a channel's interval and what the channel records say
the same, and a ReadingType that is of nothing that we know is told so. The expected codes are put
together from the field lists of NAESB ESPI 4.0 (espi.xsd, Apache-2.0).
"""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amistack.errors import ModelError
from amistack.model.quantity import TIER_MAX, Measured, Quantity, measured
from amistack.model.reading_type import FlowDirection, interval_energy, register_energy
from tests.model.messages import reading_types

LENGTHS = [300, 600, 900, 1800, 3600, 86_400]


@pytest.mark.parametrize("quantity", Quantity)
@pytest.mark.parametrize("interval_s", LENGTHS)
def test_reading_type_of_an_interval_says_what_it_records(
    quantity: Quantity, interval_s: int
) -> None:
    tiers = range(TIER_MAX + 1) if quantity.has_tiers else [0]
    for tier in tiers:
        what = Measured(quantity, tier)
        assert measured(what.interval_type(interval_s), interval_s) == what


@pytest.mark.parametrize(
    ("what", "interval", "register"),
    [
        (
            Measured(Quantity.DELIVERED),
            "0.0.2.4.1.1.12.0.0.0.0.0.0.0.0.0.72.0",
            "0.0.0.1.1.1.12.0.0.0.0.0.0.0.0.0.72.0",
        ),
        (
            Measured(Quantity.RECEIVED, 2),
            "0.0.2.4.19.1.12.0.0.0.0.2.0.0.0.0.72.0",
            "0.0.0.9.19.1.12.0.0.0.0.2.0.0.0.0.72.0",
        ),
        (
            Measured(Quantity.NET),
            "0.0.2.4.4.1.12.0.0.0.0.0.0.0.0.0.72.0",
            "0.0.0.1.4.1.12.0.0.0.0.0.0.0.0.0.72.0",
        ),
        (
            Measured(Quantity.REACTIVE),
            "0.0.2.4.1.1.12.0.0.0.0.0.0.0.0.0.73.0",
            "0.0.0.1.1.1.12.0.0.0.0.0.0.0.0.0.73.0",
        ),
        (
            Measured(Quantity.VOLTAGE),
            "0.2.2.6.0.1.54.0.0.0.0.0.0.0.0.-1.29.0",
            "0.26.0.9.0.1.54.0.0.0.0.0.0.0.0.-1.29.0",
        ),
        (
            Measured(Quantity.DEMAND),
            "0.2.2.6.1.1.8.0.0.0.0.0.0.0.0.0.38.0",
            "0.26.0.9.1.1.8.0.0.0.0.0.0.0.0.0.38.0",
        ),
    ],
)
def test_codes_are_those_of_the_published_lists(
    what: Measured, interval: str, register: str
) -> None:
    assert str(what.interval_type(900)) == interval
    assert str(what.register_type) == register
    assert what.quantity.multiplier == what.register_type.multiplier


def test_channels_of_a_meter_without_a_programme_are_the_same_as_ever() -> None:
    for quantity, flow in (
        (Quantity.DELIVERED, FlowDirection.FORWARD),
        (Quantity.RECEIVED, FlowDirection.REVERSE),
    ):
        what = Measured(quantity)
        assert what.interval_type(450) == interval_energy(450, flow)
        assert what.register_type == register_energy(flow)
        assert (quantity.unit, quantity.multiplier) == ("Wh", 0)


@given(reading_types, st.sampled_from(LENGTHS))
def test_any_other_reading_type_is_refused(reading_type: object, interval_s: int) -> None:
    assert dataclasses.is_dataclass(reading_type)
    with pytest.raises(ModelError, match="unknown reading type"):
        measured(reading_type, interval_s)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("what", "interval_s"),
    [
        (Measured(Quantity.DELIVERED, TIER_MAX + 1), 900),
        (Measured(Quantity.NET, 1), 900),
        (Measured(Quantity.VOLTAGE, 1), 900),
    ],
)
def test_tariff_that_is_none_is_refused(what: Measured, interval_s: int) -> None:
    with pytest.raises(ModelError):
        measured(what.interval_type(interval_s), interval_s)


def test_reading_type_of_another_interval_length_is_refused() -> None:
    with pytest.raises(ModelError):
        measured(Measured(Quantity.DELIVERED).interval_type(900), 1800)
