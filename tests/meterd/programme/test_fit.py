"""What a programme takes in a meter's memory.

The contract under test: the size model is a bound on what the journal holds of a history, whatever
the values up to those that it names; and the largest programme that there is fits.
"""

from __future__ import annotations

import random

import cbor2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amistack.model import pack
from amistack.model.programme_check import INTERVALS_PER_REPORT_MAX, faults_of
from amistack.model.quantity import Quantity
from amistack.model.registration import CHANNEL_COUNT_MAX
from meterd.metrology.profile import HouseholdProfile
from meterd.metrology.supply import MadeUpSupply
from meterd.programme.fit import (
    DAY_OCTETS,
    HISTORY_DAYS,
    MEMORY_OCTETS,
    VALUE_OCTETS,
    Abilities,
    history_octets,
    misfits,
    octets_of,
)
from meterd.recorder import Recorder
from meterd.recording.measuring import Metering
from meterd.storage import DAY as DAY_TABLE
from meterd.storage import Storage
from tests.meterd.programme.bench import DAY, MIDNIGHT, TODAY, TWO_TIERS, channel, programme
from tests.support.power import TornFiles

LARGEST = programme(
    1,
    *(
        channel(number, quantity, 5)
        for number, quantity in enumerate(
            (
                Quantity.DELIVERED,
                Quantity.RECEIVED,
                Quantity.NET,
                Quantity.REACTIVE,
                Quantity.VOLTAGE,
                Quantity.DEMAND,
            ),
            1,
        )
    ),
    channel(11, Quantity.DELIVERED, 5, 1),
    channel(12, Quantity.DELIVERED, 5, 2),
    calendar=TWO_TIERS,
)
"""Eight channels of five minutes."""


@settings(max_examples=100, deadline=None)
@given(
    count=st.sampled_from([24, 48, 96, 144, 288]),
    data=st.data(),
)
def test_day_of_any_values_takes_no_more_than_the_model_says(
    count: int, data: st.DataObject
) -> None:
    dice = random.Random(data.draw(st.integers(0, 1 << 32)))
    most = data.draw(st.sampled_from([1, 100, 16_383]))
    values = [dice.choice([0, dice.randint(0, most), most]) for _ in range(count)]
    missing = dice.getrandbits(count).to_bytes(count // 8, "little")
    gaps = missing if data.draw(st.booleans()) else b""
    row = [
        DAY_TABLE,
        [30_000, 12],
        [2**40, 2**24, count, pack(values), gaps],
    ]
    allowed = DAY_OCTETS + VALUE_OCTETS * count
    assert len(cbor2.dumps(row)) <= allowed


def test_history_of_the_largest_programme_fits_the_memory_and_the_model_bounds_it() -> None:
    source = HouseholdProfile(3, interval_s=300, solar=True)
    storage = Storage.on(TornFiles(random.Random(0)))
    recorder = Recorder(storage, source, offset_min=0, interval_s=900, supply=MadeUpSupply(source))
    recorder.advance(MIDNIGHT)
    recorder.shelf.add(LARGEST, since=MIDNIGHT, utc=MIDNIGHT)
    recorder.advance(MIDNIGHT + 46 * DAY - 1)
    assert len(recorder.block(TODAY)) == 8
    rows = [[DAY_TABLE, key, value] for key, value in storage.items(DAY_TABLE)]
    assert len(rows) == 46 * 8
    assert len(cbor2.dumps(rows)) <= octets_of(LARGEST) <= MEMORY_OCTETS


@pytest.mark.requirement("B1-FR-123", "B1-NFR-19")
def test_any_programme_there_can_be_fits_45_days_of_its_memory() -> None:
    abilities = Abilities(frozenset(Quantity), 300, 0)
    whats = [
        *((quantity, 0) for quantity in Quantity),
        *((Quantity.DELIVERED, tier) for tier in range(1, 9)),
        *((Quantity.RECEIVED, tier) for tier in range(1, 9)),
    ]
    # As many channels and as many intervals as a report takes: 10 of 5 minutes, or more of longer.
    for count, minutes in ((10, 5), (16, 10), (16, 15)):
        wanted = programme(
            1,
            *(
                channel(number, what, minutes, tier)
                for number, (what, tier) in enumerate(whats[:count])
            ),
        )
        assert sum(DAY // one.interval_s for one in wanted.channels) <= INTERVALS_PER_REPORT_MAX
        assert [str(fault) for fault in misfits(wanted, abilities) if "octets" in str(fault)] == []
        assert octets_of(wanted) <= MEMORY_OCTETS
    most = history_octets(CHANNEL_COUNT_MAX, INTERVALS_PER_REPORT_MAX)
    assert most == MEMORY_OCTETS
    assert HISTORY_DAYS > 45


def test_meter_of_a_made_up_load_can_do_the_largest_programme() -> None:
    source = HouseholdProfile(3, interval_s=300, solar=True)
    abilities = Abilities.of(Metering(source, MadeUpSupply(source)), offset_min=0)
    assert faults_of(LARGEST) == ()
    assert list(misfits(LARGEST, abilities)) == []
    assert INTERVALS_PER_REPORT_MAX > 8 * 288


@pytest.mark.parametrize("has_solar", [False, True])
def test_what_a_source_lacks_cannot_be_recorded(has_solar: bool) -> None:
    source = HouseholdProfile(3, interval_s=300, solar=has_solar)
    abilities = Abilities.of(Metering(source), offset_min=0)
    lacking = {Quantity.VOLTAGE, Quantity.REACTIVE}
    if not has_solar:
        lacking |= {Quantity.RECEIVED, Quantity.NET}
    assert abilities.quantities == set(Quantity) - lacking
    said = [fault.reason for fault in misfits(LARGEST, abilities)]
    assert sorted(said) == sorted(f"this meter does not measure {one.value}" for one in lacking)
