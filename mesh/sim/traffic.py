"""What meters and the head-end have to say to each other, and whether it was said in time.

Spec    RFC 8036 section 4.2 for the classes; retries as a confirmable exchange of RFC 7252 whose
        first timeout follows the path's round trip (RFC 6298)
In      `start`; `arrived` for every packet that comes out of the network
Out     `send` of a world, for the network; the figures of `mesh.sim.results`
Limit   TRY_COUNT_MAX transmissions of one message by its end points
Never   knows how packets are routed
"""

from __future__ import annotations

import enum
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from amistack.framing import Priority
from mesh.sim.chance import Chance
from mesh.sim.clock import VirtualClock
from mesh.sim.oracles import Ledger, message
from mesh.sim.scenario import Load

DAY_S: Final = 86_400.0
TRY_COUNT_MAX: Final = 12
TIMEOUT_FIRST_S: Final = 4.0
TIMEOUT_S_MIN: Final = 0.6
TIMEOUT_S_MAX: Final = 30.0
PAUSE_S_MAX: Final = 600.0
"""Between two tries, however many there were."""
RECEIPT_OCTETS: Final = 16
BURST_S: Final = 1.0
ACK_RANDOM: Final = 1.5
"""RFC 7252's ACK_RANDOM_FACTOR."""


class Kind(enum.IntEnum):
    """What a message is."""

    C1 = 1
    C2 = 2
    C3 = 3
    C4 = 4
    REQUEST = 5
    ANSWER = 6
    RECEIPT = 7


LIMITS_S: Final = {Kind.C1: 5.0, Kind.C2: 10.0, Kind.C3: 30.0, Kind.C4: 7200.0}
"""RFC 8036 section 4.2."""
PRIORITIES: Final = {
    Kind.C1: Priority.ALARM,
    Kind.C2: Priority.ON_DEMAND,
    Kind.C3: Priority.FREQUENT,
    Kind.C4: Priority.SCHEDULED,
}


@dataclass(slots=True)
class Exchange:
    """One thing that has to be said: a report of a meter, or a read of one."""

    kind: Kind
    number: int
    meter: int
    asked_at: float
    tries: int = 0
    tried_at: float = 0.0
    done_at: float | None = None
    """When the report reached the head-end, or the answer did."""
    is_over: bool = False
    """Nobody tries any more: the sender knows that it is done, or gave up, or has no power."""
    is_void: bool = False
    """Its meter lost power before it was done: nobody can be blamed."""
    hops: int = 0

    @property
    def latency_s(self) -> float | None:
        """How long it took."""
        return None if self.done_at is None else self.done_at - self.asked_at


class Carrier(Protocol):
    """What carries the messages: the world."""

    def is_up(self, meter: int) -> bool:
        """Whether the meter has power."""

    def send_up(self, meter: int, payload: bytes, priority: Priority, attempt: int) -> None:
        """From a meter to the head-end, by whichever collector."""

    def send_down(self, meter: int, payload: bytes, priority: Priority, attempt: int) -> int:
        """From the head-end to a meter; how many hops it goes, 0 if there is no way now."""

    def neighbourhood(self, meter: int, count: int) -> Sequence[int]:
        """The `count` meters nearest to it in the street, itself too."""


@dataclass(slots=True)
class _Pace:
    """Smoothed round trip of one end of a path, as RFC 6298 has it."""

    mean_s: float | None = None
    spread_s: float = 0.0

    def learn(self, sample_s: float) -> None:
        if self.mean_s is None:
            self.mean_s, self.spread_s = sample_s, sample_s / 2
            return
        self.spread_s += (abs(sample_s - self.mean_s) - self.spread_s) / 4
        self.mean_s += (sample_s - self.mean_s) / 8

    def timeout(self) -> float:
        if self.mean_s is None:
            return TIMEOUT_FIRST_S
        return min(max(self.mean_s + 4 * self.spread_s, TIMEOUT_S_MIN), TIMEOUT_S_MAX)


@dataclass(slots=True)
class Traffic:
    """All exchanges of a world."""

    load: Load
    clock: VirtualClock
    chance: Chance
    carrier: Carrier
    ledger: Ledger
    meters: Sequence[int]
    done: Callable[[Exchange], None] | None = None
    exchanges: list[Exchange] = field(default_factory=list)
    ends_at: float = 0.0
    _paces: dict[tuple[int, bool], _Pace] = field(default_factory=dict)
    _dice: dict[Kind, random.Random] = field(default_factory=dict)
    _retries: random.Random = field(init=False)
    _is_open: dict[int, set[int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        # From the first message on, whenever the load begins: one seed is one history.
        self._retries = self.chance.of("traffic.retries")

    def start(self, *, until: float) -> None:
        """Begin the load now; nothing new begins after `until`."""
        self.ends_at = until
        load = self.load
        rates = {
            Kind.C1: load.c1_per_day,
            Kind.C2: load.c2_per_day,
            Kind.C3: load.c3_per_day,
            Kind.REQUEST: load.on_demand_per_day,
        }
        for kind, per_day in rates.items():
            self._dice[kind] = self.chance.of(f"traffic.{kind.name}")
            if per_day:
                self._plan(kind, per_day * len(self.meters) / DAY_S)
        if load.c4_per_day:
            dice = self.chance.of("traffic.C4")
            period = DAY_S / load.c4_per_day
            for meter in self.meters:
                self._at(dice.random() * period, self._report_regularly, meter)
        if load.bursts_per_day:
            self._dice[Kind.RECEIPT] = self.chance.of("traffic.bursts")
            self._plan_burst()

    def end(self) -> None:
        """Nothing new begins from now on."""
        self.ends_at = min(self.ends_at, self.clock.now)

    # When something is to be said

    def _at(self, delay: float, call: Callable[[int], None], number: int) -> None:
        self.clock.at(self.clock.now + delay, call, number)

    def _plan(self, kind: Kind, rate: float) -> None:
        """A Poisson process over all meters: as seldom events of many come."""
        dice = self._dice[kind]

        def come(_: int) -> None:
            if self.clock.now >= self.ends_at:
                return
            self.begin(kind, dice.choice(self.meters))
            self._at(dice.expovariate(rate), come, 0)

        self._at(dice.expovariate(rate), come, 0)

    def _plan_burst(self) -> None:
        dice = self._dice[Kind.RECEIPT]
        rate = self.load.bursts_per_day / DAY_S

        def come(_: int) -> None:
            if self.clock.now >= self.ends_at:
                return
            first = dice.choice(self.meters)
            for meter in self.carrier.neighbourhood(first, self.load.burst_count):
                self._at(dice.random() * BURST_S, self._alarm, meter)
            self._at(dice.expovariate(rate), come, 0)

        self._at(dice.expovariate(rate), come, 0)

    def _alarm(self, meter: int) -> None:
        self.begin(Kind.C1, meter)

    def _report_regularly(self, meter: int) -> None:
        if self.clock.now >= self.ends_at:
            return
        self.begin(Kind.C4, meter)
        self._at(DAY_S / self.load.c4_per_day, self._report_regularly, meter)

    # Exchanges

    def begin(self, kind: Kind, meter: int) -> Exchange | None:
        """Something is to be said by, or asked of, `meter` now; None if it has no power."""
        if not self.carrier.is_up(meter):
            return None
        exchange = Exchange(kind, len(self.exchanges), meter, self.clock.now)
        self.exchanges.append(exchange)
        self._is_open.setdefault(meter, set()).add(exchange.number)
        self._try(exchange.number)
        return exchange

    def meter_stopped(self, meter: int) -> None:
        """The meter lost power: what it had to say is gone with it."""
        for number in sorted(self._is_open.pop(meter, ())):
            exchange = self.exchanges[number]
            exchange.is_void = exchange.done_at is None
            exchange.is_over = True

    def _try(self, number: int) -> None:
        exchange = self.exchanges[number]
        if exchange.is_over:
            return
        if exchange.tries >= TRY_COUNT_MAX:
            self._end(exchange)
            return
        kind, meter, attempt = exchange.kind, exchange.meter, exchange.tries
        exchange.tries += 1
        exchange.tried_at = self.clock.now
        if kind is Kind.REQUEST:
            hops = self._down(Kind.REQUEST, exchange, self.load.request_octets, attempt)
            exchange.hops = hops or exchange.hops
        else:
            size = self._size(kind)
            self.ledger.give(number, kind, meter, size, at=self.clock.now)
            payload = message(kind, number, meter, size)
            self.carrier.send_up(meter, payload, PRIORITIES[kind], attempt)
        pace = self._pace(meter, is_down=kind is Kind.REQUEST)
        # Doubled each time: what is lost for congestion must not make more of it.
        pause = pace.timeout() * 2.0 ** min(attempt, 10)
        self._at(min(pause, PAUSE_S_MAX) * self._retries.uniform(1, ACK_RANDOM), self._try, number)

    def _size(self, kind: Kind) -> int:
        load = self.load
        return {
            Kind.C1: load.c1_octets,
            Kind.C2: load.c2_octets,
            Kind.C3: load.c3_octets,
            Kind.C4: load.c4_octets,
        }[kind]

    def _pace(self, meter: int, *, is_down: bool) -> _Pace:
        return self._paces.setdefault((meter, is_down), _Pace())

    def _down(self, kind: Kind, exchange: Exchange, size: int, attempt: int) -> int:
        meter, number = exchange.meter, exchange.number
        self.ledger.give(number, kind, meter, size, at=self.clock.now)
        priority = PRIORITIES.get(exchange.kind, Priority.ON_DEMAND)
        return self.carrier.send_down(meter, message(kind, number, meter, size), priority, attempt)

    def _end(self, exchange: Exchange) -> None:
        if exchange.is_over:
            return
        exchange.is_over = True
        self._is_open.get(exchange.meter, set()).discard(exchange.number)
        if exchange.done_at is not None and exchange.tries == 1:
            # Karn's rule: of a message sent twice nobody knows which one was answered.
            pace = self._pace(exchange.meter, is_down=exchange.kind is Kind.REQUEST)
            pace.learn(self.clock.now - exchange.tried_at)
        if self.done is not None:
            self.done(exchange)

    def arrived_at_head_end(self, meter: int, payload: bytes) -> None:
        """A packet of `meter` came through a collector to the head-end."""
        taken = self.ledger.take(payload, node=meter, at=self.clock.now)
        if taken is None:
            return
        kind, number, arrival = taken
        exchange = self.exchanges[number]
        if arrival == 1:
            exchange.done_at = self.clock.now
        if kind == Kind.ANSWER:
            self._end(exchange)
            return
        # A repeated report is told again that it arrived: the receipt may have been lost.
        self._down(Kind.RECEIPT, exchange, RECEIPT_OCTETS, min(arrival - 1, 255))

    def arrived_at_meter(self, meter: int, payload: bytes) -> None:
        """A packet for `meter` came."""
        taken = self.ledger.take(payload, node=meter, at=self.clock.now)
        if taken is None:
            return
        kind, number, arrival = taken
        if kind == Kind.RECEIPT:
            self._end(self.exchanges[number])
        elif kind == Kind.REQUEST:
            size = self.load.answer_octets
            self.ledger.give(number, Kind.ANSWER, meter, size, at=self.clock.now)
            answer = message(Kind.ANSWER, number, meter, size)
            self.carrier.send_up(meter, answer, Priority.ON_DEMAND, min(arrival - 1, 255))
