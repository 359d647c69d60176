"""What a meter can notice, and what it makes of it.

The contract under test: a state is one event as it begins and one as it ends, however often it is
looked at and however it dances on its limit; a limit holds on both of its sides; what could not be
kept is noticed again; a value that no threshold was set for is no event.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amistack.errors import StoreError
from amistack.model import EndDeviceEventType
from amistack.model import event_catalogue as types
from amistack.model.event_catalogue import CATALOGUE
from amistack.model.events import (
    ACCESS_DENIED,
    DETAIL_SIZE_MAX,
    PRIMARY_POWER_FAILED,
    PRIMARY_POWER_RESTORED,
)
from amistack.model.programme import Threshold, ThresholdKind
from amistack.model.quantity import Measured, Quantity
from meterd.clock import MeterClock
from meterd.events.following import LATER, follow
from meterd.events.intervals import IntervalWatch
from meterd.events.sources import EventSources
from meterd.events.watch import Watch
from meterd.happenings import Hindered, ReadAnswered, Registered, Reported, Secured, Stage
from meterd.metrology import Energy, Flow
from meterd.recorder import Recorder
from tests.meterd.events.bench import EPOCH, EventBench


@dataclass
class Notes:
    """Stands for the log: what it is told, or a disk that is full."""

    said: list[tuple[EndDeviceEventType, str | None]] = field(default_factory=list)
    is_full: bool = False

    def __call__(self, event: EndDeviceEventType, detail: str | None = None, *, now: float) -> None:
        assert now >= 0
        if self.is_full:
            raise StoreError("full")
        assert event in CATALOGUE
        assert detail is None or len(detail.encode()) <= DETAIL_SIZE_MAX
        self.said.append((event, detail))

    def events(self) -> list[EndDeviceEventType]:
        return [event for event, _ in self.said]


def test_power_failure_is_told_once_and_its_end_with_how_long_it_lasted() -> None:
    notes = Notes()
    sources = EventSources(notes)
    sources.power(is_there=True, now=1)
    sources.power(is_there=False, now=10)
    sources.power(is_there=False, now=11)
    sources.power(is_there=True, now=85)
    assert notes.said == [(PRIMARY_POWER_FAILED, None), (PRIMARY_POWER_RESTORED, "after 75 s")]


STATES: dict[str, tuple[Callable[[EventSources, bool, float], None], object, object]] = {
    "cover": (
        lambda sources, is_on, now: sources.cover(is_open=is_on, now=now),
        types.COVER_OPENED,
        types.COVER_CLOSED,
    ),
    "tilt": (
        lambda sources, is_on, now: sources.tilt(is_tilted=is_on, now=now),
        types.TILTED,
        types.TILT_CLEARED,
    ),
    "measurement": (
        lambda sources, is_on, now: sources.measurement("no light" if is_on else None, now=now),
        types.MEASUREMENT_FAILED,
        types.MEASUREMENT_CLEARED,
    ),
    "communication": (
        lambda sources, is_on, now: (
            sources.communication_failed("silent", now=now)
            if is_on
            else sources.communication_works(now=now)
        ),
        types.COMMUNICATION_FAILED,
        types.COMMUNICATION_RESTORED,
    ),
    "power": (
        lambda sources, is_on, now: sources.power(is_there=not is_on, now=now),
        PRIMARY_POWER_FAILED,
        PRIMARY_POWER_RESTORED,
    ),
}


@pytest.mark.parametrize("name", STATES)
@given(looks=st.lists(st.tuples(st.booleans(), st.booleans()), max_size=30))
def test_state_is_an_event_as_it_changes_and_only_then(
    name: str, looks: list[tuple[bool, bool]]
) -> None:
    """Each look sees the state, and a disk that is full or not."""
    look, found, over = STATES[name]
    notes = Notes()
    sources = EventSources(notes)
    expected = []
    kept = False
    for now, (is_on, is_full) in enumerate(looks):
        notes.is_full = is_full
        try:
            look(sources, is_on, float(now))
        except StoreError:
            assert is_full
            assert is_on != kept
            continue
        if is_on != kept:
            expected.append(found if is_on else over)
            kept = is_on
    assert notes.events() == expected


@pytest.mark.requirement("I2-FR-02")
@pytest.mark.parametrize(("form", "is_told"), [("2S", False), ("1S", True), ("12S", True)])
def test_meter_in_a_socket_of_another_form_raises_it(form: str, *, is_told: bool) -> None:
    notes = Notes()
    sources = EventSources(notes, socket="2S")
    assert sources.socket(form, now=0) is not is_told
    assert sources.socket(form, now=1) is not is_told
    assert notes.said == ([(types.WRONG_SOCKET, f"{form}, expected 2S")] if is_told else [])
    assert sources.socket("2S", now=2)
    assert EventSources(notes).socket("anything", now=0)


@pytest.mark.parametrize(
    ("kind", "limit", "beyond", "within", "back", "found", "over"),
    [
        (ThresholdKind.VOLTAGE_HIGH, 2530, 253.1, 253.0, 250.0,
         types.VOLTAGE_HIGH, types.VOLTAGE_HIGH_CLEARED),
        (ThresholdKind.VOLTAGE_LOW, 2070, 206.9, 207.0, 210.0,
         types.VOLTAGE_LOW, types.VOLTAGE_LOW_CLEARED),
    ],
)  # fmt: skip
def test_voltage_beyond_its_limit_for_long_enough_is_an_event_until_it_is_well_back(
    kind: ThresholdKind, limit: int, beyond: float, within: float, back: float,
    found: object, over: object,
) -> None:  # fmt: skip
    notes = Notes()
    sources = EventSources(notes, thresholds=[Threshold(kind, limit, hysteresis=30, hold_s=10)])
    for now, volts in enumerate([within] * 20 + [beyond] * 10):
        sources.voltage(volts, now=now)
    assert notes.said == []
    sources.voltage(beyond, now=30)
    assert notes.events() == [found]
    # Dancing on the limit ends nothing, and begins nothing.
    for now in range(31, 60):
        sources.voltage((beyond, within)[now % 2], now=now)
    assert notes.events() == [found]
    sources.voltage(back, now=61)
    assert notes.events() == [found, over]
    assert notes.said[1][1] == f"after 31 s: phase 1: {back:.1f} V"


def test_phases_are_watched_each_by_itself() -> None:
    notes = Notes()
    sources = EventSources(notes, thresholds=[Threshold(ThresholdKind.VOLTAGE_LOW, 2070)])
    sources.voltage(100.0, phase=2, now=0)
    sources.voltage(230.0, phase=1, now=1)
    sources.voltage(100.0, phase=3, now=2)
    assert [detail for _, detail in notes.said] == ["phase 2: 100.0 V", "phase 3: 100.0 V"]


@given(
    values=st.lists(st.floats(0, 100), max_size=60),
    hysteresis=st.floats(0, 20),
    hold=st.integers(0, 5),
    is_upper=st.booleans(),
)
def test_watch_never_finds_what_was_not_there_long_enough(
    values: list[float], hysteresis: float, hold: int, *, is_upper: bool
) -> None:
    watch = Watch(50.0, hysteresis=hysteresis, hold_s=hold, is_upper=is_upper)
    distance = [(value - 50) if is_upper else (50 - value) for value in values]
    changes = []
    for now, value in enumerate(values):
        change = watch.take(value, now=now)
        if change:
            assert all(one > 0 for one in distance[now - hold : now + 1])
        elif change is False:
            assert -distance[now] >= hysteresis - 1e-9
        if change is not None:
            changes.append(change)
    assert changes == [number % 2 == 0 for number in range(len(changes))]


def test_demand_and_energy_that_flows_back_have_limits_on_both_sides() -> None:
    notes = Notes()
    thresholds = [
        Threshold(ThresholdKind.DEMAND, 5000, hysteresis=500),
        Threshold(ThresholdKind.REVERSE_FLOW, 10),
    ]
    sources = EventSources(notes, thresholds=thresholds)
    sources.demand(5000, now=0)
    sources.received(10, now=0)
    assert notes.said == []
    sources.demand(5001, now=900)
    sources.received(11, now=900)
    assert notes.said == [(types.DEMAND_EXCEEDED, "5001 W"), (types.FLOW_REVERSED, "11 Wh")]
    sources.demand(4501, now=1800)
    assert len(notes.said) == 2
    sources.demand(4500, now=2700)
    sources.received(10, now=2700)
    assert notes.events()[2:] == [types.DEMAND_NORMAL, types.FLOW_NORMAL]


def test_value_without_a_threshold_is_no_event() -> None:
    notes = Notes()
    sources = EventSources(notes, thresholds=[])
    sources.voltage(900.0, now=0)
    sources.demand(1e9, now=0)
    sources.received(1e9, now=0)
    assert notes.said == []


@pytest.mark.parametrize(("celsius", "volts", "count"), [(85.0, 2.7, 0), (85.1, 2.69, 2)])
def test_temperature_and_battery_have_limits(celsius: float, volts: float, count: int) -> None:
    notes = Notes()
    sources = EventSources(notes)
    sources.temperature(celsius, now=0)
    sources.battery(volts, now=0)
    assert notes.events() == [types.TEMPERATURE_HIGH, types.BATTERY_LOW][:count]
    sources.temperature(80.0, now=1)
    sources.battery(2.9, now=1)
    assert notes.events()[2:] == [types.TEMPERATURE_NORMAL, types.BATTERY_NORMAL][:count]


def test_each_thing_that_happens_once_is_the_event_of_its_name() -> None:
    notes = Notes()
    sources = EventSources(notes)
    sources.memory_failed("page 3", now=0)
    sources.checksum_wrong("journal", now=0)
    sources.program_damaged("agent.py", now=0)
    sources.program_failed("watchdog", now=0)
    sources.upgrade_failed("0.2", now=0)
    sources.access("tool 7", is_granted=True, now=0)
    sources.access("tool 8", is_granted=False, now=0)
    sources.programme_changed(7, now=0)
    sources.programme_refused("too long", now=0)
    sources.schedule_changed("3 cancelled", now=0)
    sources.schedule_refused("overlaps", now=0)
    assert notes.said == [
        (types.RAM_FAILED, "page 3"),
        (types.CHECKSUM_WRONG, "journal"),
        (types.PROGRAM_DAMAGED, "agent.py"),
        (types.PROGRAM_FAILED, "watchdog"),
        (types.UPGRADE_FAILED, "0.2"),
        (types.ACCESSED, "tool 7"),
        (ACCESS_DENIED, "tool 8"),
        (types.PROGRAMME_CHANGED, "version 7"),
        (types.PROGRAMME_REFUSED, "too long"),
        (types.SCHEDULE_CHANGED, "3 cancelled"),
        (types.SCHEDULE_REFUSED, "overlaps"),
    ]


def test_what_an_agent_says_of_the_network_is_noticed() -> None:
    notes = Notes()
    sources = EventSources(notes)
    follow(Hindered(Stage.REPORTING, LATER, 60.0), sources, now=0)
    assert notes.said == []
    for now in (1, 2, 3):
        follow(Hindered(Stage.REPORTING, "no answer", 60.0), sources, now=now)
    follow(ReadAnswered(b"read-one"), sources, now=4)
    follow(Reported(20_000), sources, now=11)
    for event in (Secured(), Registered()):
        follow(event, sources, now=12)
    assert notes.said == [
        (types.COMMUNICATION_FAILED, "no answer"),
        (types.COMMUNICATION_RESTORED, "after 10 s: 3 failures"),
    ]


class SunnySource:
    """A household that takes 3 kW, and gives 12 Wh back in the third hour of each day."""

    interval_s = 3600
    flows = (Flow.DELIVERED, Flow.RECEIVED)

    def energy(self, start: int, count: int) -> list[Energy]:
        hours = [start // 3600 % 24 + number for number in range(count)]
        return [(6000 if hour % 24 == 5 else 3000, 12 * (hour % 24 == 2)) for hour in hours]

    def partial(self, start: int, now: float) -> Energy:
        return (0, 0)

    def available(self) -> tuple[int | None, int | None]:
        return (None, None)


def test_intervals_that_end_are_looked_at_once_each() -> None:
    notes = Notes()
    bench = EventBench()
    midnight = 86_400 - int(EPOCH) % 86_400
    clock = MeterClock(utc=EPOCH, now=0.0)
    recorder = Recorder(bench.storage, SunnySource(), offset_min=0)
    recorder.advance(clock.utc(0.0))
    sources = EventSources(
        notes,
        thresholds=[
            Threshold(ThresholdKind.DEMAND, 5000),
            Threshold(ThresholdKind.REVERSE_FLOW, 5),
        ],
    )
    watch = IntervalWatch(recorder, clock, sources, now=0.0)
    now = 0.0
    seen: list[tuple[int, EndDeviceEventType]] = []
    while now < midnight + 86_400:
        recorder.advance(clock.utc(now))
        count = len(notes.said)
        watch.handle_timer(now=now)
        seen += [(int(now - midnight) // 3600, event) for event in notes.events()[count:]]
        due = watch.next_timer()
        assert due is not None
        assert now < due <= now + 3602
        now = due
    assert seen == [
        (3, types.FLOW_REVERSED),
        (4, types.FLOW_NORMAL),
        (6, types.DEMAND_EXCEEDED),
        (7, types.DEMAND_NORMAL),
    ]


def test_interval_that_was_looked_at_is_not_looked_at_again() -> None:
    notes = Notes()
    bench = EventBench()
    clock = MeterClock(utc=EPOCH, now=0.0)
    recorder = Recorder(bench.storage, SunnySource(), offset_min=0)
    recorder.advance(clock.utc(0.0))
    thresholds = [Threshold(ThresholdKind.DEMAND, 2000, hold_s=1800)]
    watch = IntervalWatch(recorder, clock, EventSources(notes, thresholds=thresholds), now=0.0)
    # Nothing is recorded meanwhile: one interval above the limit, however often it is seen.
    for hour in range(5):
        watch.handle_timer(now=hour * 3602.0)
    assert notes.said == []
    recorder.advance(clock.utc(3 * 3600.0))
    watch.handle_timer(now=5 * 3602.0)
    assert notes.events() == [types.DEMAND_EXCEEDED]


@pytest.mark.parametrize(("volts", "is_told"), [(207.0, False), (206.9, True)])
def test_mean_voltage_of_an_interval_is_held_against_its_limit(
    volts: float, *, is_told: bool
) -> None:
    notes = Notes()
    bench = EventBench()
    recorder = Recorder(bench.storage, SunnySource(), offset_min=0)
    clock = MeterClock(utc=EPOCH, now=10_000.0)
    watch = IntervalWatch(recorder, clock, EventSources(notes), now=10_000.0)
    watch._tell(Measured(Quantity.VOLTAGE), round(volts * 10), 900, 10_000.0)
    assert notes.events() == [types.VOLTAGE_LOW] * is_told
