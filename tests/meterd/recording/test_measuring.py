"""What is measured, in the quantities and steps of a plan.

The contract under test: a step is the sum of its parts, whatever the source measures by; the part
of a step that has passed never falls, and is never more than the step; behind a real meter only the
ends of a step need be known; a quantity that is not there is not offered.
"""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amistack.model.quantity import Quantity
from meterd.metrology import ConstantSource, Flow, HouseholdProfile, LiveSource, Source
from meterd.metrology.registers import Reading, Register, RegisterTracker
from meterd.metrology.supply import MadeUpSupply
from meterd.recording.measuring import Metering
from tests.meterd.programme.bench import MIDNIGHT, FineSource

ENERGIES = (Quantity.DELIVERED, Quantity.RECEIVED, Quantity.NET)


@pytest.mark.parametrize("step_s", [600, 900, 1800, 3600])
@pytest.mark.parametrize("kind", ["profile", "constant"])
def test_finer_source_gives_the_same_steps(step_s: int, kind: str) -> None:
    def source(interval_s: int) -> Source:
        if kind == "constant":
            return ConstantSource(watts=1234.5, received_watts=77.7, interval_s=interval_s)
        return HouseholdProfile(3, interval_s=interval_s, solar=True)

    count = 86_400 // step_s
    fine, coarse = Metering(source(300)), Metering(source(step_s))
    assert fine.steps(ENERGIES, MIDNIGHT, count, step_s=step_s) == coarse.steps(
        ENERGIES, MIDNIGHT, count, step_s=step_s
    )


@settings(max_examples=60, deadline=None)
@given(
    quantity=st.sampled_from([*ENERGIES, Quantity.REACTIVE]),
    step_s=st.sampled_from([300, 900, 3600]),
    moments=st.lists(st.floats(0, 3600), min_size=2, max_size=10),
)
def test_part_of_a_step_grows_to_the_step(
    quantity: Quantity, step_s: int, moments: list[float]
) -> None:
    source = FineSource()
    metering = Metering(source, MadeUpSupply(source))
    begin = MIDNIGHT + 7200
    (whole,) = metering.steps([quantity], begin, 1, step_s=step_s)[quantity]
    seen = [
        metering.part(quantity, begin, begin + moment, step_s=step_s) or 0
        for moment in sorted(moment for moment in moments if moment < step_s)
    ]
    assert metering.part(quantity, begin, begin, step_s=step_s) == 0
    assert whole is not None
    if quantity is not Quantity.NET:
        assert seen == sorted(seen)
        assert all(0 <= one <= whole for one in seen)


def test_step_with_a_gap_in_any_part_has_no_value() -> None:
    metering = Metering(FineSource(gaps=[MIDNIGHT + 300]))
    (first, second) = metering.steps([Quantity.NET], MIDNIGHT, 2, step_s=900)[Quantity.NET]
    assert first is None
    assert second is not None
    assert metering.part(Quantity.NET, MIDNIGHT, MIDNIGHT + 700, step_s=900) is None


def test_behind_a_real_meter_only_the_ends_of_a_step_need_be_known() -> None:
    source = LiveSource(RegisterTracker((Flow.DELIVERED,)), interval_s=300, known_from=MIDNIGHT)
    metering = Metering(source)
    for second, wh in ((-2, 1000), (10, 1001), (898, 1090), (910, 1091)):
        reading = Reading((Register("1.8.0", Flow.DELIVERED, wh * 1000),), meter="M1")
        assert source.take(reading, utc=float(MIDNIGHT + second))[0]
    fives = metering.steps([Quantity.DELIVERED], MIDNIGHT, 3, step_s=300)
    assert fives == {Quantity.DELIVERED: [None, None, None]}
    quarter = metering.steps([Quantity.DELIVERED], MIDNIGHT, 1, step_s=900)
    assert quarter == {Quantity.DELIVERED: [90]}
    assert metering.dial(Quantity.DELIVERED, MIDNIGHT + 900) == 1090
    assert metering.dial(Quantity.VOLTAGE, MIDNIGHT + 900) is None
    assert Metering(FineSource()).dial(Quantity.DELIVERED, MIDNIGHT) is None


def test_quantities_are_those_that_the_source_and_its_supply_have() -> None:
    load = ConstantSource(watts=5, interval_s=300)
    solar = ConstantSource(watts=5, received_watts=5, interval_s=300)
    basic = {Quantity.DELIVERED, Quantity.DEMAND}
    both = basic | {Quantity.RECEIVED, Quantity.NET}
    assert Metering(load).quantities == basic
    assert Metering(solar).quantities == both
    assert Metering(solar, MadeUpSupply(solar)).quantities == set(Quantity)
