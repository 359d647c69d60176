"""A world of datagram machines: a network in one thread, with a clock and dice of its own.

Gives   hosts joined by a link whose faults (loss, repetition, reordering, delay) a seed decides
Raises  WorldError when a machine breaks the rules of `amistack.machine`: a timer that does not
        move on, or a run that does not come to rest
Limit   STEP_COUNT_MAX steps to a run, WAKEUP_COUNT_MAX wakeups of one machine at one time
Never   sleeps, reads a clock, or depends on the order of a set: one seed, one history
"""

from __future__ import annotations

import enum
import heapq
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar

from amistack.machine import DatagramMachine, Peer

EventT = TypeVar("EventT")

STEP_COUNT_MAX: Final = 200_000
WAKEUP_COUNT_MAX: Final = 3


class FixedDice(random.Random):
    """Dice whose `uniform` always falls the same share (0 to 1) of the way from low to high."""

    share = 0.0

    def uniform(self, a: float, b: float) -> float:
        return a + (b - a) * self.share


class WorldError(AssertionError):
    """A machine did what no machine may do."""


@dataclass(frozen=True, slots=True)
class LinkQuality:
    """What the network does to a datagram: probabilities of 0 to 1, times in seconds.

    A delay is drawn evenly between the two, for each copy anew; so a wide span reorders.
    """

    loss: float = 0.0
    duplication: float = 0.0
    delay_min: float = 0.01
    delay_max: float = 0.01

    def __post_init__(self) -> None:
        assert 0 <= self.delay_min <= self.delay_max


PERFECT: Final = LinkQuality()
BAD: Final = LinkQuality(loss=0.25, duplication=0.2, delay_min=0.01, delay_max=3.0)
CRUEL: Final = LinkQuality(loss=0.6, duplication=0.3, delay_min=0.01, delay_max=10.0)


class Fate(enum.Enum):
    """What became of a datagram; a repeated one is listed once for each copy."""

    SENT = "sent"
    LOST = "lost"
    DELIVERED = "delivered"


@dataclass(frozen=True, slots=True)
class Passage:
    """One line of a world's history."""

    time: float
    fate: Fate
    sender: Peer
    receiver: Peer
    datagram: bytes


Filter = Callable[[Peer, Peer, bytes], bool]
"""Sender, receiver, datagram: False drops it. For a test that wants one certain loss."""


@dataclass(slots=True)
class Host(Generic[EventT]):
    """One machine at its address, driven as a link would drive it.

    `on_event` may command the machine; what that causes is carried out before the next step.
    Everything that it was given stands in `log` with its time.
    """

    address: Peer
    machine: DatagramMachine[EventT]
    world: World
    on_event: Callable[[EventT], None] | None = None
    log: list[tuple[float, EventT]] = field(default_factory=list)
    wakeup_count: int = 0
    due: float | None = None

    def settle(self) -> None:
        """Send, report, re-arm: every entry ends here, and so must every command."""
        while True:
            for peer, datagram in self.machine.data_to_send():
                self.world.send(self.address, peer, datagram)
            events = self.machine.events()
            if not events:
                break
            for event in events:
                self.log.append((self.world.now, event))
                if self.on_event is not None:
                    self.on_event(event)
        self.due = self.machine.next_timer()

    def wake(self) -> None:
        """Tell the machine that its time has come."""
        self.wakeup_count += 1
        self.machine.handle_timer(now=self.world.now)
        self.settle()

    @property
    def events(self) -> list[EventT]:
        """What the machine reported, without the times."""
        return [event for _, event in self.log]


class World:
    """Hosts, the links between them, and the time."""

    def __init__(
        self, seed: int = 0, quality: LinkQuality = PERFECT, *, start: float = 0.0
    ) -> None:
        self.now = start
        self.quality = quality
        self.dice = random.Random(seed)
        self.history: list[Passage] = []
        self.counters: Counter[str] = Counter()
        self.passes: Filter | None = None
        self._hosts: dict[Peer, Host[object]] = {}
        self._qualities: dict[tuple[Peer, Peer], LinkQuality] = {}
        self._under_way: list[tuple[float, int, Peer, Peer, bytes]] = []
        self._errands: list[tuple[float, int, Callable[[], None]]] = []
        self._order = 0
        self._step_count = 0

    def add(
        self,
        address: Peer,
        machine: DatagramMachine[EventT],
        on_event: Callable[[EventT], None] | None = None,
    ) -> Host[EventT]:
        """Put a machine on the network."""
        assert address not in self._hosts, f"{address!r} is taken"
        host = Host(address, machine, self, on_event)
        self._hosts[address] = host  # type: ignore[assignment]  # Events go back only to itself.
        host.settle()
        return host

    def remove(self, address: Peer) -> None:
        """Cut a host off for good: what is under way to it is lost."""
        del self._hosts[address]

    def set_quality(self, sender: Peer, receiver: Peer, quality: LinkQuality) -> None:
        """Give one direction between two hosts a quality of its own."""
        self._qualities[(sender, receiver)] = quality

    def at(self, time: float, errand: Callable[[], None]) -> None:
        """Do something at `time` (s); commands must be followed by their host's `settle`."""
        self._order += 1
        heapq.heappush(self._errands, (time, self._order, errand))

    def send(self, sender: Peer, receiver: Peer, datagram: bytes) -> None:
        """Put a datagram on its way: what a host sends, or what a test forges."""
        self._note(Fate.SENT, sender, receiver, datagram)
        if self.passes is not None and not self.passes(sender, receiver, datagram):
            self._note(Fate.LOST, sender, receiver, datagram)
            return
        quality = self._qualities.get((sender, receiver), self.quality)
        if self.dice.random() < quality.loss:
            self._note(Fate.LOST, sender, receiver, datagram)
            return
        copy_count = 2 if self.dice.random() < quality.duplication else 1
        for _ in range(copy_count):
            arrival = self.now + self.dice.uniform(quality.delay_min, quality.delay_max)
            self._order += 1
            heapq.heappush(self._under_way, (arrival, self._order, sender, receiver, datagram))

    def next_time(self) -> float | None:
        """When something happens next, or None if the world is at rest."""
        times = [host.due for host in self._hosts.values() if host.due is not None]
        times += [self._under_way[0][0]] if self._under_way else []
        times += [self._errands[0][0]] if self._errands else []
        return min(times) if times else None

    def run(self, *, until: float | None = None) -> None:
        """Let time pass: to `until` (s), or until nothing is left to happen."""
        while (time := self.next_time()) is not None and (until is None or time <= until):
            self._step_count += 1
            if self._step_count > STEP_COUNT_MAX:
                raise WorldError(f"no rest after {STEP_COUNT_MAX} steps, at {self.now} s")
            self.now = max(self.now, time)
            self._step()
        if until is not None:
            self.now = max(self.now, until)

    def elapse(self, seconds: float) -> None:
        """Let so much time pass."""
        self.run(until=self.now + seconds)

    def datagrams(self, fate: Fate = Fate.SENT) -> list[Passage]:
        """The lines of history of one kind."""
        return [passage for passage in self.history if passage.fate is fate]

    def _step(self) -> None:
        """Do all that is due now: errands, then arrivals, then timers."""
        while self._errands and self._errands[0][0] <= self.now:
            heapq.heappop(self._errands)[2]()
        while self._under_way and self._under_way[0][0] <= self.now:
            _, _, sender, receiver, datagram = heapq.heappop(self._under_way)
            self._deliver(sender, receiver, datagram)
        for host in list(self._hosts.values()):
            wakeup_count = 0
            while host.due is not None and host.due <= self.now:
                wakeup_count += 1
                if wakeup_count > WAKEUP_COUNT_MAX:
                    raise WorldError(f"{host.address!r} wants to be woken again and again")
                host.wake()

    def _deliver(self, sender: Peer, receiver: Peer, datagram: bytes) -> None:
        host = self._hosts.get(receiver)
        if host is None:
            self._note(Fate.LOST, sender, receiver, datagram)
            return
        self._note(Fate.DELIVERED, sender, receiver, datagram)
        host.machine.receive_datagram(datagram, sender, now=self.now)
        host.settle()

    def _note(self, fate: Fate, sender: Peer, receiver: Peer, datagram: bytes) -> None:
        self.counters[fate.value] += 1
        self.history.append(Passage(self.now, fate, sender, receiver, datagram))
