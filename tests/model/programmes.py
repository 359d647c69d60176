"""Strategies for the messages about programmes, any value that they may hold."""

from __future__ import annotations

from hypothesis import strategies as st

from amistack.model.clock import ClockReading, ClockState
from amistack.model.programme import (
    DemandRules,
    Programme,
    ProgrammeChannel,
    Threshold,
    ThresholdKind,
)
from amistack.model.programme_check import Fault
from amistack.model.programme_state import (
    ProgrammeRefusal,
    ProgrammeStamp,
    ProgrammeState,
    RollBack,
)
from amistack.model.quantity import TIER_MAX, Measured, Quantity
from amistack.model.reading_type import ReadingType
from amistack.model.registers import (
    DemandReading,
    DemandReset,
    PeakPeriod,
    RegisterReading,
    RegistersAnswer,
)
from amistack.model.tariff import DayType, Season, SpecialDay, Switch, TariffCalendar
from tests.model import noticing, scheduling

uint16 = st.integers(0, 65_535)
utc_s = st.integers(0, 2**32 - 1)
versions = st.integers(0, 2**32 - 1)
amounts = st.integers(0, 2**31 - 1)
dates = st.tuples(st.integers(1, 12), st.integers(1, 28)) | st.sampled_from(
    [(1, 31), (2, 29), (12, 31)]
)


def _text(most: int) -> st.SearchStrategy[str]:
    return st.text(st.characters(codec="utf-8"), min_size=1, max_size=most).filter(
        lambda text: len(text.encode()) <= most
    )


@st.composite
def day_types(draw: st.DrawFn) -> DayType:
    minutes = draw(st.sets(st.integers(1, 287), max_size=4))
    return DayType(
        tuple(
            Switch(5 * minute, draw(st.integers(1, TIER_MAX))) for minute in [0, *sorted(minutes)]
        )
    )


@st.composite
def calendars(draw: st.DrawFn) -> TariffCalendar:
    kinds = tuple(draw(st.lists(day_types(), min_size=1, max_size=3)))
    places = st.integers(0, len(kinds) - 1)
    starts = sorted(draw(st.sets(dates, min_size=1, max_size=3)))
    special = draw(
        st.lists(
            st.tuples(st.just(0) | st.sampled_from([1972, 2024, 2104]), dates),
            max_size=3,
            unique=True,
        )
    )
    return TariffCalendar(
        kinds,
        tuple(Season(*start, tuple(draw(places) for _ in range(7))) for start in starts),
        tuple(SpecialDay(year, *date, draw(places)) for year, date in special),
    )


measured = st.builds(
    Measured, st.sampled_from([Quantity.DELIVERED, Quantity.RECEIVED]), st.integers(0, TIER_MAX)
) | st.builds(Measured, st.sampled_from(Quantity))
known_channels = st.builds(
    ProgrammeChannel.of,
    st.integers(0, 255),
    measured,
    st.sampled_from([300, 600, 900, 1800, 3600, 86_400, 450]),
)
strange_channels = st.builds(
    ProgrammeChannel,
    st.integers(0, 255),
    st.builds(ReadingType, *[uint16] * 15, st.integers(-24, 24), uint16, uint16),
    st.sampled_from([30, 900, 3600, 3456]),
)
programmes = st.builds(
    Programme,
    versions,
    utc_s,
    st.integers(-720, 840),
    st.lists(known_channels | strange_channels, min_size=1, max_size=4).map(tuple),
    st.none() | calendars(),
    st.none()
    | st.builds(DemandRules, st.integers(1, 3600), st.integers(1, 3600), st.integers(0, 28)),
    st.lists(
        st.builds(Threshold, st.sampled_from(ThresholdKind), amounts, amounts, st.just(60)),
        max_size=3,
    ).map(tuple),
    st.lists(noticing.rules, max_size=3).map(tuple),
    st.lists(scheduling.schedules(), max_size=3).map(tuple),
)
stamps = st.builds(ProgrammeStamp, versions, st.binary(min_size=32, max_size=32), utc_s)

registers = st.integers(-(2**53) + 1, 2**53 - 1)
types = st.builds(ReadingType, *[uint16] * 15, st.integers(-24, 24), uint16, uint16)
periods = st.builds(PeakPeriod, utc_s, utc_s, registers, utc_s)
demand_readings = st.builds(
    DemandReading,
    types,
    periods,
    st.lists(periods, max_size=3).map(tuple),
    st.integers(0, 2**53 - 1),
    versions,
)

MESSAGES = {
    "registers-answer": (
        RegistersAnswer,
        st.builds(
            RegistersAnswer,
            st.builds(ClockReading, utc_s, st.sampled_from(ClockState)),
            st.lists(st.builds(RegisterReading, types, registers), max_size=3).map(tuple),
            st.none() | demand_readings,
        ),
    ),
    "demand-reset": (DemandReset, st.builds(DemandReset, st.integers(1, 2**32 - 1))),
    "programme": (Programme, programmes),
    "programme-stamp": (ProgrammeStamp, stamps),
    "programme-state": (
        ProgrammeState,
        st.builds(ProgrammeState, stamps, st.none() | stamps, st.none() | stamps, programmes),
    ),
    "roll-back": (RollBack, st.builds(RollBack, versions)),
    "programme-refusal": (
        ProgrammeRefusal,
        st.builds(
            ProgrammeRefusal,
            versions,
            st.lists(st.builds(Fault, _text(32), _text(128)), min_size=1, max_size=3).map(tuple),
        ),
    ),
}
