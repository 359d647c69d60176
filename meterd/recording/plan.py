"""What a programme means for recording: its channels as tracks, on one grid.

Everything that is recorded falls on the plan's grid: every interval, every switch of a tariff and
every demand sub-interval is a whole number of its steps. So a step has one tariff and belongs to
one interval of each channel, and what is counted by step adds up.

Gives   `Plan`, made from a programme
Raises  ModelError from `plan_of` on a ReadingType that is of nothing that we know
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from amistack.model import Channel
from amistack.model.programme import DemandRules, Programme, ProgrammeChannel
from amistack.model.quantity import Measured, Quantity
from amistack.model.tariff import TariffCalendar
from amistack.model.wire import DAY_S
from meterd.metrology import Flow, Source

FLOW_QUANTITIES: Final = {
    Flow.DELIVERED: Quantity.DELIVERED,
    Flow.RECEIVED: Quantity.RECEIVED,
}
STEP_S_MAX: Final = 3600
"""A plan of nothing but whole days is recorded by the hour all the same."""


@dataclass(frozen=True, slots=True)
class Track:
    """A channel as it is recorded: what, and in which intervals."""

    what: Measured
    declared: Channel

    @property
    def number(self) -> int:
        """The channel's number."""
        return self.declared.number

    @property
    def interval_s(self) -> int:
        """The length of its intervals."""
        return self.declared.interval_s


@dataclass(frozen=True, slots=True)
class Plan:
    """What is recorded while a programme runs. Tracks of all tariffs stand before those of one."""

    tracks: tuple[Track, ...]
    step_s: int
    calendar: TariffCalendar | None
    demand: DemandRules | None

    @property
    def channels(self) -> tuple[Channel, ...]:
        """As a registration declares them, by number."""
        return tuple(sorted((track.declared for track in self.tracks), key=lambda one: one.number))

    def track_of(self, what: Measured) -> Track | None:
        """The track that records `what`."""
        return next((track for track in self.tracks if track.what == what), None)


def plan_of(programme: Programme) -> Plan:
    """The plan of a programme. Raises ModelError."""
    tracks = [Track(one.measured, one.declared) for one in programme.channels]
    tracks.sort(key=lambda track: track.what.tier)
    return Plan(tuple(tracks), step_of(programme), programme.calendar, programme.demand)


def step_of(programme: Programme) -> int:
    """The grid of a programme, in seconds."""
    lengths = [one.interval_s for one in programme.channels]
    if programme.demand is not None:
        lengths.append(programme.demand.sub_interval_s)
    if programme.calendar is not None:
        lengths += [minute * 60 for minute in programme.calendar.minutes]
    step_s = math.gcd(*lengths)
    return math.gcd(step_s, STEP_S_MAX) if min(lengths) == DAY_S else step_s


def default_programme(source: Source, *, interval_s: int, offset_min: int) -> Programme:
    """What a meter does that was never told otherwise: a channel for each flow."""
    flows = [flow for flow in source.flows if flow in FLOW_QUANTITIES]
    return Programme(
        0,
        0,
        offset_min,
        tuple(
            ProgrammeChannel.of(number, Measured(FLOW_QUANTITIES[flow]), interval_s)
            for number, flow in enumerate(flows, start=1)
        ),
    )
