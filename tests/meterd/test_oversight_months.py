"""Two months of one meter's life, against a person who only keeps lists.

The contract under test: through power cuts, networks that fail, clocks that are wrong or lost, and
all that happens to it, the head-end has in the end every interval once and right, every entry once
and with one meaning, and registers that only rise; and the meter's clock says of itself what is so.
"""

from __future__ import annotations

import random
from collections import Counter

import pytest

from amistack.coap.codes import Code
from amistack.model import ClockState, EndDeviceEventType, LogEntry
from amistack.model import event_catalogue as types
from amistack.model.clock import ClockSetting
from amistack.model.event_catalogue import Delivery, kind_of
from amistack.model.resources import CLOCK
from meterd.recorder import RETENTION_DAYS
from meterd.storage import LOG, entry_of
from tests.meterd.bench import DAY
from tests.meterd.test_oversight import OverseenBench

MONTHS_DAYS = 60
HOUR = 3600
WH = 100
"""In each hour: the load is constant."""
QUIET_DAYS = 3
"""In the end nothing happens for so long, and everything is said."""


class Life:
    """What happens to the meter, by a seed; and what somebody noted of it."""

    def __init__(self, seed: int) -> None:
        self.dice = random.Random(seed)
        self.bench = OverseenBench(seed=seed)
        self.noted: dict[int, tuple[EndDeviceEventType, float]] = {}
        self.happened: Counter[str] = Counter()

    def live(self) -> None:
        self.bench.power_on()
        end = MONTHS_DAYS * DAY
        while self.bench.world.now < end:
            self.bench.world.elapse(self.dice.expovariate(1 / (8 * HOUR)))
            happen = self.dice.choice(
                (self.sensor, self.sensor, self.power_cut, self.network, self.clock, self.order)
            )
            happen()
            self.happened[happen.__name__] += 1
            self.check_clock()
        self.bench.open_head_end()
        self.bench.world.elapse(QUIET_DAYS * DAY)
        # By itself it is right again, unless it is for an operator to set.
        state = self.bench.agent.clock.state_at(self.bench.world.now)
        assert state is ClockState.SET or abs(self.bench.error_s()) >= 119
        while self.bench.agent.clock.state_at(self.bench.world.now) is not ClockState.SET:
            self.order()
            self.bench.world.elapse(HOUR)
        self.bench.world.elapse(QUIET_DAYS * DAY)

    def sensor(self) -> None:
        before = self.bench.storage.next_sequence
        now = self.bench.world.now
        sources = self.bench.oversight.sources
        what = self.dice.randrange(4)
        is_on = self.dice.random() < 0.5
        if what == 0:
            sources.cover(is_open=is_on, now=now)
        elif what == 1:
            sources.tilt(is_tilted=is_on, now=now)
        elif what == 2:
            sources.battery(2.0 if is_on else 3.0, now=now)
        else:
            sources.access("tool 7", is_granted=is_on, now=now)
        self.bench.host.settle()
        for number in range(before, self.bench.storage.next_sequence):
            event = entry_of(number, self.bench.storage.get(LOG, number)).event
            self.noted[number] = (event, self.bench.utc(now))

    def power_cut(self) -> None:
        self.bench.power_off()
        self.bench.world.elapse(self.dice.choice([1, 60, HOUR, 9 * HOUR]))
        kind = self.dice.randrange(4)
        right = self.bench.utc(self.bench.world.now)
        # Mostly right; a little off; lost.
        self.bench.host_utc = [right, right, right + self.dice.uniform(-100, 100), 1000.0][kind]
        self.bench.power_on()

    def network(self) -> None:
        if self.bench.world.passes is None:
            self.bench.silence_head_end()
        else:
            self.bench.open_head_end()

    def clock(self) -> None:
        """The host's crystal had a bad hour."""
        clock = self.bench.agent.clock
        if clock.is_set:
            by_s = self.dice.choice([0.4, -3.0, 35.0, -80.0])
            clock._offset += by_s
            # Nobody tells it: what it measured before is of another clock.
            clock.forget_samples()

    def order(self) -> None:
        """An operator looks at the clock, and sets it."""
        if self.bench.world.passes is not None or not self.dice.randrange(3):
            return
        stamp = round(self.bench.utc(self.bench.world.now) * 1000)
        name = self.dice.randbytes(8)
        message = ClockSetting(name, stamp).encode()
        count = len(self.bench.head_end.answers)
        try:
            self.bench.ask(Code.PUT, CLOCK, message)
        except ValueError:
            # No session: it is in the middle of a handshake.
            assert len(self.bench.head_end.answers) == count

    def check_clock(self) -> None:
        now = self.bench.world.now
        if self.bench.agent.clock.state_at(now) is ClockState.SET:
            assert abs(self.bench.error_s()) <= 20.1


@pytest.mark.parametrize("seed", [1, 2])
def test_months_end_with_what_happened(seed: int) -> None:
    life = Life(seed)
    life.live()
    bench = life.bench
    assert life.happened.keys() >= {"sensor", "power_cut", "network", "clock"}
    reports = bench.head_end.reports

    # Intervals and registers.
    by_day: dict[int, set[tuple[int, int, bytes]]] = {}
    for report in reports:
        (block,) = report.blocks
        by_day.setdefault(report.day, set()).add((block.opening, block.advance, block.packed))
    days = sorted(by_day)
    first = int(bench.epoch) // DAY - RETENTION_DAYS
    assert days[0] == first
    assert days == list(range(first, days[-1] + 1)), "a day is missing"
    assert all(len(said) == 1 for said in by_day.values()), "a day was told in two ways"
    for day in days:
        ((opening, advance, _),) = by_day[day]
        assert advance == 24 * WH
        assert opening == (day - first) * 24 * WH
    assert days[-1] >= bench.today() - 2

    # The log: everything that came, from whichever message, has one meaning.
    told: dict[int, LogEntry] = {}
    noticed = [one.entry for notice in bench.head_end.notices for one in notice.events]
    for entry in (*noticed, *(entry for report in reports for entry in report.entries)):
        assert told.setdefault(entry.sequence, entry) == entry, "an entry with two meanings"
    on_record = {number: entry_of(number, row) for number, row in bench.storage.items(LOG)}
    for number, (event, at) in life.noted.items():
        if number in on_record:
            assert on_record[number].event == event
        if kind_of(event).delivery is Delivery.LOG_ONLY:
            continue
        assert told[number].event == event
        if not told[number].is_time_doubtful:
            assert abs(told[number].at - at) <= 21
    assert set(told) >= {number for number in on_record if number < max(told) - 20}
    assert bench.oversight.events.pending_count == 0
    assert types.RAM_FAILED not in {entry.event for entry in told.values()}
    assert types.DATA_CONTRADICTED not in {entry.event for entry in told.values()}
    assert types.METROLOGY_FAILED not in {entry.event for entry in told.values()}
    assert bench.head_end.refused == {}
