"""The supply of a made-up load.

The contract under test: reactive energy of an interval is the sum of that of its parts, voltage is
their mean; both are of the load alone, whoever asks and whenever; what the load does not know,
nobody knows.
"""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from meterd.metrology import ConstantSource
from meterd.metrology.supply import MadeUpSupply, Quality
from tests.meterd.programme.bench import DAY, MIDNIGHT, FineSource


@given(st.integers(0, 500), st.sampled_from([300, 900, 3600]), st.integers(1, 6))
def test_intervals_are_made_of_their_parts(first: int, length_s: int, count: int) -> None:
    supply = MadeUpSupply(FineSource(known_from=0))
    start = MIDNIGHT + first * 3600
    share = length_s // 300
    parts = supply.quality(start, count * share, length_s=300)
    for place, whole in enumerate(supply.quality(start, count, length_s=length_s)):
        mine = parts[place * share : (place + 1) * share]
        assert whole.varh == sum(part.varh or 0 for part in mine)
        mean = sum(part.decivolts or 0 for part in mine) / share
        assert whole.decivolts is not None
        assert abs(whole.decivolts - mean) <= 0.5


def test_gap_of_the_load_is_one_of_the_supply() -> None:
    supply = MadeUpSupply(FineSource(gaps=[MIDNIGHT + 300]))
    first, second = supply.quality(MIDNIGHT, 2, length_s=900)
    assert first == Quality(None, None)
    assert None not in second


def test_voltage_swings_by_day_and_sags_under_the_load() -> None:
    idle = MadeUpSupply(ConstantSource(watts=0, interval_s=300))
    busy = MadeUpSupply(ConstantSource(watts=8000, interval_s=300))
    volts = [one.decivolts or 0 for one in idle.quality(MIDNIGHT, DAY // 300, length_s=300)]
    assert (max(volts), min(volts)) == (2340, 2260)
    assert (volts[0], volts[144]) == (2340, 2260)
    under_load = [one.decivolts or 0 for one in busy.quality(MIDNIGHT, DAY // 300, length_s=300)]
    sag = {before - after for before, after in zip(volts, under_load, strict=True)}
    assert sag <= {49, 50}


def test_power_factor_is_that_of_a_household() -> None:
    supply = MadeUpSupply(ConstantSource(watts=1200, interval_s=300))
    assert {one.varh for one in supply.quality(MIDNIGHT, 12, length_s=300)} == {33}
