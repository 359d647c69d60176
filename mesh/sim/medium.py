"""The air: frames that hold it, and who hears them.

Spec    IEEE 802.15.4 unslotted CSMA-CA; half duplex; reception by signal over noise and all
        other frames that are really on the air at that time
In      `offer` a frame of a station that is free; `cut`, `join` for stations without power;
        `jam`, `Links.change_loss` for the air itself
Out     `heard` for every station that receives a frame, `sent` when one has left the antenna or
        was given up
Limit   one frame a station; FRAME_SIZE_MAX octets
Never   looks into a frame
"""

from __future__ import annotations

import array
import math
import random
import sys
from collections.abc import Callable, Collection
from dataclasses import dataclass, fields
from itertools import compress, count
from operator import ge
from typing import Final, Protocol

from amistack.errors import LocalProtocolError
from mesh.sim.clock import VirtualClock
from mesh.sim.radio import Links

BROADCAST: Final = -1
DOWN: Final = math.inf
_IS_BIG_ENDIAN: Final = sys.byteorder == "big"


@dataclass(slots=True)
class MediumCounters:
    """What came of the frames, since the world began."""

    frames: int = 0
    given_up: int = 0
    """After the last backoff found the channel held."""
    looks: int = 0
    looks_busy: int = 0
    overlapped: int = 0
    """Frames during which another was on the air that some station hears as well."""
    received: int = 0
    lost_weak: int = 0
    """To one receiver, below its sensitivity."""
    lost_collided: int = 0
    """To one receiver, above its sensitivity but not over the others."""
    lost_deaf: int = 0
    """To one receiver that was sending itself, or had no power for all of the frame."""

    def as_dict(self) -> dict[str, int]:
        """By name, in order."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


class Transmission:
    """One frame on the air."""

    __slots__ = ("destination", "dice", "end", "octets", "overlaps", "source", "start")

    def __init__(
        self, source: int, destination: int, octets: bytes, start: float, end: float
    ) -> None:
        self.source = source
        self.destination = destination
        self.octets = octets
        self.start = start
        self.end = end
        # A fall for each receiver in the source's row: its fading for this frame.
        self.dice: array.array[int]
        self.overlaps: list[Transmission] | None = None


Heard = Callable[[int, Transmission, float], None]
"""Called with the receiver, the frame and its power in dBm."""


class Sent(Protocol):
    """What is called when a station is rid of its frame."""

    def __call__(self, station: int, /, *, was_on_air: bool) -> None:
        """`was_on_air` is False where the channel was never clear."""


class Medium:
    """One channel, shared by all stations.

    A frame for one destination is offered to that station alone (a radio filters by address),
    unless `is_open`: then all hear everything.
    """

    def __init__(
        self,
        clock: VirtualClock,
        links: Links,
        *,
        backoff: random.Random,
        fading: random.Random,
        heard: Heard,
        sent: Sent,
        is_open: bool = False,
    ) -> None:
        radio = links.radio
        self.links = links
        self.counters = MediumCounters()
        self.active: list[Transmission] = []
        self._clock = clock
        self._draw_backoff = backoff.random
        self._draw_octets = fading.randbytes
        self._heard = heard
        self._sent = sent
        self._is_open = is_open
        self._radio = radio
        self._cca_s = radio.cca_s
        self._backoff_s = radio.backoff_s
        self._octet_s = 8 / radio.rate_bps
        self._overhead = radio.phy_octets + radio.mac_octets
        # As an array it is a quarter of the size: each frame looks at other places of it.
        self._fading = array.array("d", links.fading)
        # Who hears a station, a bit each: whether two have a hearer in common is one operation.
        self._audience = [sum(1 << receiver for receiver in row) for row in links.receivers]
        # What each station has in hand: (destination, octets) or None; how often it backed off.
        self._offered: list[tuple[int, bytes] | None] = [None] * links.count
        self._backoffs = [0] * links.count
        self._exponents = [0] * links.count
        # A call of the clock counts only if nothing happened to the station since: see `_cut`.
        self._lives = [0] * links.count
        self._flying: list[Transmission | None] = [None] * links.count
        # Until when a station hears nothing, for it sends or has no power.
        self._deaf_until = [0.0] * links.count
        self._noise_mw = [_milliwatts(radio.noise_dbm)] * links.count
        self._capture = _milliwatts(radio.capture_db)
        self._busy_mw = _milliwatts(radio.busy_dbm)
        self._jams = [0] * links.count
        self._jam_count = 0

    # From the stations

    def is_free(self, station: int) -> bool:
        """Whether the station may offer a frame."""
        return self._offered[station] is None and self._deaf_until[station] <= self._clock.now

    def is_sending(self, station: int) -> bool:
        """Whether a frame of the station is on the air."""
        return self._flying[station] is not None

    def offer(self, station: int, destination: int, octets: bytes, *, at_once: bool) -> None:
        """Send a frame when the channel is clear; or, as an acknowledgement, after a turnaround.

        Raises LocalProtocolError if the station is not free or the frame is too large.
        """
        if not self.is_free(station):
            raise LocalProtocolError(f"station {station} offers a second frame, one at a time")
        if len(octets) + self._radio.mac_octets > self._radio.frame_octets_max:
            raise LocalProtocolError(
                f"{len(octets)} octets and {self._radio.mac_octets} of MAC, "
                f"at most {self._radio.frame_octets_max}"
            )
        self._offered[station] = (destination, octets)
        # A frame carries the station's life in its clock calls, for a station that loses power.
        call = self._lives[station] * self.links.count + station
        if at_once:
            self._clock.at(self._clock.now + self._radio.turnaround_s, self._start, call)
            return
        self._backoffs[station] = 0
        self._exponents[station] = self._radio.backoff_exponent_min
        self._back_off(station, call)

    def take_back(self, station: int) -> None:
        """Forget the frame that was offered, if it is not on the air; `sent` is not called."""
        if self._flying[station] is None and self._offered[station] is not None:
            self._offered[station] = None
            self._lives[station] += 1

    # From the world

    def cut(self, station: int) -> None:
        """The station's power fails: its frame ends in the middle, it hears nothing."""
        self._lives[station] += 1
        self._offered[station] = None
        self._deaf_until[station] = DOWN
        flying = self._flying[station]
        if flying is not None:
            # What is left of it disturbs nobody, and nobody can use the beginning.
            self._flying[station] = None
            self.active.remove(flying)
            flying.overlaps = None

    def join(self, station: int) -> None:
        """The station has power again."""
        self._deaf_until[station] = self._clock.now

    def jam(self, stations: Collection[int], dbm: float) -> Callable[[], None]:
        """Add noise of `dbm` at these stations; call what is returned to end it."""
        added = _milliwatts(dbm)
        within = sorted(set(stations))
        for station in within:
            self._jams[station] += 1
            self._noise_mw[station] += added
        self._jam_count += 1

        def end() -> None:
            for station in within:
                self._jams[station] -= 1
                self._noise_mw[station] -= added
                if not self._jams[station]:
                    # Exactly as before: rounding must not stay behind.
                    self._noise_mw[station] = _milliwatts(self._radio.noise_dbm)
            self._jam_count -= 1

        return end

    # CSMA-CA

    def _back_off(self, station: int, call: int) -> None:
        periods = int(self._draw_backoff() * (1 << self._exponents[station]))
        self._clock.at(self._clock.now + periods * self._backoff_s + self._cca_s, self._look, call)

    def _look(self, call: int) -> None:
        life, station = divmod(call, self.links.count)
        if life != self._lives[station]:
            return
        self.counters.looks += 1
        if not self._is_busy(station):
            self._clock.at(self._clock.now + self._radio.turnaround_s, self._start, call)
            return
        self.counters.looks_busy += 1
        self._backoffs[station] += 1
        if self._backoffs[station] > self._radio.backoffs_max:
            self._offered[station] = None
            self.counters.given_up += 1
            self._sent(station, was_on_air=False)
            return
        self._exponents[station] = min(
            self._exponents[station] + 1, self._radio.backoff_exponent_max
        )
        self._back_off(station, call)

    def _is_busy(self, station: int) -> bool:
        """Whether the station feels so much energy that it does not send."""
        energy, busy = self._noise_mw[station], self._busy_mw
        index, means, fading = self.links.index, self.links.means, self._fading
        for other in self.active:
            source = other.source
            column = index[source].get(station)
            if column is not None:
                energy += 10 ** ((means[source][column] + fading[other.dice[column]]) / 10)
                if energy >= busy:
                    return True
        return energy >= busy

    # Frames

    def _start(self, call: int) -> None:
        life, station = divmod(call, self.links.count)
        offered = self._offered[station]
        if life != self._lives[station] or offered is None:
            return
        now = self._clock.now
        destination, octets = offered
        end = now + (self._overhead + len(octets)) * self._octet_s
        frame = Transmission(station, destination, octets, now, end)
        dice = array.array("H", self._draw_octets(2 * len(self.links.receivers[station])))
        if _IS_BIG_ENDIAN:
            dice.byteswap()
        frame.dice = dice
        audiences = self._audience
        audience = audiences[station]
        for other in self.active:
            if audience & audiences[other.source]:
                _overlap(frame, other)
                _overlap(other, frame)
        self.active.append(frame)
        self._flying[station] = frame
        self._deaf_until[station] = end
        self.counters.frames += 1
        self._clock.at(end, self._end, call)

    def _end(self, call: int) -> None:
        life, station = divmod(call, self.links.count)
        frame = self._flying[station]
        if life != self._lives[station] or frame is None:
            return
        self._flying[station] = None
        self._offered[station] = None
        self.active.remove(frame)
        if frame.overlaps is not None:
            self.counters.overlapped += 1
        # First those who hear, then the sender: an answer may be on its way when it listens.
        if frame.overlaps is not None or self._jam_count:
            self._deliver_disturbed(frame)
        else:
            self._deliver(frame)
        # Others may still need this frame, nobody what it met: or, where the channel is never
        # silent, each would hold the one before it in memory, back to the first.
        frame.overlaps = None
        self._sent(station, was_on_air=True)

    def _deliver(self, frame: Transmission) -> None:
        source, destination, start = frame.source, frame.destination, frame.start
        deaf_until, dice = self._deaf_until, frame.dice
        links, counters = self.links, self.counters
        means, needs = links.means[source], links.needs[source]
        if destination >= 0 and not self._is_open:
            column = links.index[source].get(destination)
            if column is None or dice[column] < needs[column]:
                counters.lost_weak += 1
            elif deaf_until[destination] > start:
                counters.lost_deaf += 1
            else:
                counters.received += 1
                self._heard(destination, frame, means[column] + self._fading[dice[column]])
            return
        fading = self._fading
        receivers = links.receivers[source]
        strong = list(compress(count(), map(ge, dice, needs)))
        counters.lost_weak += len(receivers) - len(strong)
        for column in strong:
            receiver = receivers[column]
            # Looked at one by one: hearing may make a station do things.
            if deaf_until[receiver] > start:
                counters.lost_deaf += 1
            else:
                counters.received += 1
                self._heard(receiver, frame, means[column] + fading[dice[column]])

    def _deliver_disturbed(self, frame: Transmission) -> None:
        """As `_deliver`, with all that was on the air at any time of the frame."""
        source, destination, start = frame.source, frame.destination, frame.start
        links, counters, fading, dice = self.links, self.counters, self._fading, frame.dice
        means, needs, receivers = links.means[source], links.needs[source], links.receivers[source]
        if destination >= 0 and not self._is_open:
            only = links.index[source].get(destination)
            strong = [] if only is None or dice[only] < needs[only] else [only]
            counters.lost_weak += only is not None and not strong
        else:
            strong = list(compress(count(), map(ge, dice, needs)))
            counters.lost_weak += len(receivers) - len(strong)
        others = [
            (links.index[other.source], links.means[other.source], other.dice)
            for other in frame.overlaps or ()
        ]
        deaf_until, capture = self._deaf_until, self._capture
        for column in strong:
            receiver = receivers[column]
            if deaf_until[receiver] > start:
                counters.lost_deaf += 1
                continue
            dbm = means[column] + fading[dice[column]]
            power = 10 ** (dbm / 10)
            disturbance = self._noise_mw[receiver]
            for index, powers, falls in others:
                place = index.get(receiver)
                if place is not None:
                    # As if all were on the air at the same time: what overlaps is judged harder
                    # than it may deserve, never softer.
                    disturbance += 10 ** ((powers[place] + fading[falls[place]]) / 10)
                    if power < capture * disturbance:
                        break
            if power < capture * disturbance:
                counters.lost_collided += 1
            else:
                counters.received += 1
                self._heard(receiver, frame, dbm)


def _overlap(frame: Transmission, other: Transmission) -> None:
    if frame.overlaps is None:
        frame.overlaps = [other]
    else:
        frame.overlaps.append(other)


def _milliwatts(dbm: float) -> float:
    return float(10 ** (dbm / 10))
