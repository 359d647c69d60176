"""Drives the machines: joins each to its radio, its clock and its power.

In      `start` and `stop` for power; `touch` after a command to a machine
Out     `happened` for every event of every machine
Raises  WorldError when a machine breaks the rules of its shape: a timer that does not move on, a
        frame for nobody there is
Limit   WAKEUP_COUNT_MAX wakeups of one machine at one time
Never   looks into a sealed frame: from one it knows its size, its type and its priority
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Final

from amistack.errors import AmiError
from amistack.identifiers import Eui64
from mesh.security.frame import ACK_FIRST_OCTET
from mesh.sim.clock import VirtualClock
from mesh.sim.machine import AnswersAtOnce, NodeMachine, OutgoingFrame
from mesh.sim.medium import BROADCAST, Medium, Transmission
from mesh.sim.radio import Links

WAKEUP_COUNT_MAX: Final = 1000
CONTROL_PRIORITY: Final = 0


class WorldError(AmiError):
    """A machine did what no machine may do."""


@dataclass(slots=True)
class Airtime:
    """For how many seconds each station held the channel, with what."""

    control: list[float]
    """Routing, probes, reports about the topology, challenges, and the acknowledgements of such."""
    data: list[float]
    """Everything else, with its acknowledgements."""


@dataclass(slots=True)
class StationCounters:
    """What the stations did, since the world began."""

    timers: int = 0
    broadcasts: int = 0
    unicasts: int = 0
    acknowledgements: int = 0
    control: int = 0
    """Of these three, what `Airtime.control` holds the seconds of."""
    damaged: int = 0
    doubled: int = 0

    def as_dict(self) -> dict[str, int]:
        """By name, in order."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


Happened = Callable[[int, object], None]
"""Called with the station and an event of its machine."""
Watcher = Callable[[float, int, int, bytes], None]
"""Called for each frame that leaves an antenna: time, source, destination or BROADCAST, octets."""


class Stations:
    """All the nodes of a world, by number. One without power has no machine."""

    def __init__(
        self,
        clock: VirtualClock,
        links: Links,
        addresses: Sequence[Eui64],
        *,
        backoff: random.Random,
        fading: random.Random,
        faults: random.Random,
        happened: Happened,
    ) -> None:
        self.clock = clock
        self.links = links
        self.addresses = tuple(addresses)
        self.numbers = {address: number for number, address in enumerate(self.addresses)}
        self.counters = StationCounters()
        self.airtime = Airtime([0.0] * links.count, [0.0] * links.count)
        self.medium = Medium(
            clock, links, backoff=backoff, fading=fading, heard=self._heard, sent=self._sent
        )
        self.watchers: list[Watcher] = []
        self.damage_share = 0.0
        """Of frames heard: how many have a bit turned over that the check sequence missed."""
        self.double_share = 0.0
        """Of frames heard: how many are heard twice."""
        self._faults = faults
        self._happened = happened
        self._machines: list[NodeMachine | None] = [None] * links.count
        self._answering: list[AnswersAtOnce | None] = [None] * links.count
        self._holding: list[OutgoingFrame | None] = [None] * links.count
        # The frame that had to let an acknowledgement go first.
        self._parked: list[OutgoingFrame | None] = [None] * links.count
        # Whether the last frame that asked this station for an acknowledgement was control.
        self._owes_control = [False] * links.count
        # Own time is rate * time + offset.
        self._rates = [1.0] * links.count
        self._offsets = [0.0] * links.count
        # What a station was woken for, which rounding may put a hair after the time it is.
        self._latest = [0.0] * links.count
        self._is_plain = [True] * links.count
        self._wake_at: list[float | None] = [None] * links.count
        self._wakeups = [(0.0, 0)] * links.count
        self._airtime_of = links.radio.airtime
        for number in range(links.count):
            self.medium.cut(number)

    # Power and commands

    def machine(self, number: int) -> NodeMachine | None:
        """The machine of a station, None if it has no power."""
        return self._machines[number]

    def machines(self) -> list[tuple[int, NodeMachine]]:
        """All stations that have power, with their machines."""
        return [
            (number, machine)
            for number, machine in enumerate(self._machines)
            if machine is not None
        ]

    def start(self, number: int, machine: NodeMachine) -> None:
        """The station has power; `machine` is its new life."""
        if self._machines[number] is not None:
            self.stop(number)
        self._machines[number] = machine
        self._answering[number] = machine if isinstance(machine, AnswersAtOnce) else None
        self.medium.join(number)
        self.touch(number)

    def stop(self, number: int) -> None:
        """The station loses power, at once."""
        self._machines[number] = None
        self._holding[number] = None
        self._parked[number] = None
        self._wake_at[number] = None
        self.medium.cut(number)

    def own_time(self, number: int) -> float:
        """The time by the station's own clock."""
        own = self.clock.now * self._rates[number] + self._offsets[number]
        latest = self._latest[number]
        return own if own > latest else latest

    def set_drift(self, number: int, parts_per_million: float) -> None:
        """Let the station's clock run fast (or slow, if negative) from now on; it does not jump."""
        rate = 1 + parts_per_million * 1e-6
        self._offsets[number] += self.clock.now * (self._rates[number] - rate)
        self._rates[number] = rate
        self._is_plain[number] = False
        self._wake_at[number] = None
        self.touch(number)

    def touch(self, number: int) -> None:
        """Collect what the machine has to say: events, a frame, a time. After every command."""
        machine = self._machines[number]
        if machine is None:
            return
        while events := machine.events():
            self._tell(number, machine, events)
            if self._machines[number] is not machine:
                return
        if self._holding[number] is None and self.medium.is_free(number):
            frame = machine.frame_to_send(now=self.own_time(number))
            if frame is not None:
                self._offer(number, frame)
            # What could not be sent is known only when its turn comes.
            if events := machine.events():
                self._tell(number, machine, events)
                if self._machines[number] is not machine:
                    return
        due = machine.next_timer()
        if due is not None:
            self._set_timer(number, due)

    # Frames

    def _offer(self, number: int, frame: OutgoingFrame) -> None:
        destination = BROADCAST
        if frame.destination is not None:
            found = self.numbers.get(frame.destination)
            if found is None:
                raise WorldError(f"a frame to {frame.destination.hex()}, which is nobody")
            destination = found
        self._holding[number] = frame
        self.medium.offer(number, destination, frame.octets, at_once=_is_ack(frame))

    def _interject(self, number: int, holding: OutgoingFrame, own: float) -> None:
        """An acknowledgement does not wait for a frame that itself waits for the channel."""
        if self._parked[number] is not None or _is_ack(holding):
            return
        answering = self._answering[number]
        frame = None if answering is None else answering.ack_to_send(now=own)
        if frame is not None:
            self.medium.take_back(number)
            self._parked[number] = holding
            self._offer(number, frame)

    def _sent(self, number: int, /, *, was_on_air: bool) -> None:
        machine, frame = self._machines[number], self._holding[number]
        self._holding[number] = None
        if machine is None or frame is None:
            return
        if was_on_air:
            self._account(number, frame)
        parked, self._parked[number] = self._parked[number], None
        if parked is not None:
            # The machine knows nothing of this: the frame it handed out goes on as it was.
            self._offer(number, parked)
            return
        machine.frame_sent(now=self.own_time(number), was_on_air=was_on_air)
        self.touch(number)

    def _account(self, number: int, frame: OutgoingFrame) -> None:
        octets, destination = frame.octets, frame.destination
        is_control = frame.priority == CONTROL_PRIORITY
        if destination is None:
            self.counters.broadcasts += 1
        elif _is_ack(frame):
            self.counters.acknowledgements += 1
            is_control = self._owes_control[number]
        else:
            self.counters.unicasts += 1
            if frame.wants_ack:
                self._owes_control[self.numbers[destination]] = is_control
        held = self.airtime.control if is_control else self.airtime.data
        self.counters.control += is_control
        held[number] += self._airtime_of(len(octets))
        to = BROADCAST if destination is None else self.numbers[destination]
        for watcher in self.watchers:
            watcher(self.clock.now, number, to, octets)

    def _heard(self, number: int, frame: Transmission, dbm: float) -> None:
        machine = self._machines[number]
        if machine is None:
            return
        octets = frame.octets
        if self.damage_share and self._faults.random() < self.damage_share:
            octets = self._damaged(octets)
        is_plain = self._is_plain[number]
        own = self.clock.now if is_plain else self.own_time(number)
        machine.receive_frame(octets, now=own, rssi_dbm=dbm)
        if self.double_share and self._faults.random() < self.double_share:
            self.counters.doubled += 1
            machine.receive_frame(octets, now=own, rssi_dbm=dbm)
        # As `touch`, written out: this is what happens most.
        events = machine.events()
        if events:
            self._tell(number, machine, events)
            if self._machines[number] is not machine:
                return
        holding = self._holding[number]
        if holding is not None and not self.medium.is_sending(number):
            self._interject(number, holding, own)
        elif holding is None:
            offered = machine.frame_to_send(now=own)
            if offered is not None:
                self._offer(number, offered)
            if events := machine.events():
                self._tell(number, machine, events)
                if self._machines[number] is not machine:
                    return
        due = machine.next_timer()
        waiting = self._wake_at[number]
        if due is not None and (not is_plain or waiting is None or due < waiting):
            self._set_timer(number, due)

    def _tell(self, number: int, machine: NodeMachine, events: Sequence[object]) -> None:
        for event in events:
            self._happened(number, event)
            # What is told may be the reason to cut its power.
            if self._machines[number] is not machine:
                return

    def _damaged(self, octets: bytes) -> bytes:
        self.counters.damaged += 1
        place = self._faults.randrange(len(octets) * 8)
        changed = bytearray(octets)
        changed[place // 8] ^= 1 << place % 8
        return bytes(changed)

    # Time

    def _set_timer(self, number: int, due: float) -> None:
        time = (due - self._offsets[number]) / self._rates[number]
        now = self.clock.now
        # Dividing and multiplying again may end a hair before the deadline.
        time = now if time <= now else time
        waiting = self._wake_at[number]
        if waiting is None or time < waiting:
            self._wake_at[number] = time
            self.clock.at(time, self._wake, number)

    def _wake(self, number: int) -> None:
        machine, now = self._machines[number], self.clock.now
        if machine is None or self._wake_at[number] != now:
            return
        self._wake_at[number] = None
        due = machine.next_timer()
        own = self.own_time(number)
        if due is not None and due <= own + TIME_GRAIN_S:
            time, count = self._wakeups[number]
            self._wakeups[number] = (now, count + 1 if time == now else 1)
            if count > WAKEUP_COUNT_MAX and time == now:
                raise WorldError(f"station {number} asks to be woken at {own} s again and again")
            self.counters.timers += 1
            if due > own:
                self._latest[number] = own = due
            machine.handle_timer(now=own)
            self.touch(number)
        elif due is not None:
            self._set_timer(number, due)


TIME_GRAIN_S: Final = 1e-6
"""A deadline so near is due: two clocks that drift agree on nothing finer."""
_ACK_FIRST: Final = bytes((ACK_FIRST_OCTET,))


def _is_ack(frame: OutgoingFrame) -> bool:
    """Whether it is a link acknowledgement: these alone are sent without looking first."""
    return frame.octets[:1] == _ACK_FIRST
