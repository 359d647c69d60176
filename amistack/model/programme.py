"""What a meter is told to be: its channels, tariffs, demand, thresholds and events, as one value.

A programme is taken or refused as a whole. Its `version` names it, its digest proves that what runs
is what was sent.

Spec    docs/protocol/model.md, "Programme"
Raises  `ModelError`, and nothing else, from the decoder and on parts that cannot be. Whether the
        parts agree with each other, `programme_check` says; whether a meter can do it, the meter
Limit   CHANNEL_COUNT_MAX channels, THRESHOLD_COUNT_MAX thresholds, EVENT_RULE_COUNT_MAX event
        types, SCHEDULE_COUNT_MAX schedules
"""

from __future__ import annotations

import enum
import hashlib
from dataclasses import dataclass
from typing import Final

from amistack.model import wire
from amistack.model.event_notice import EventRule
from amistack.model.quantity import Measured, measured
from amistack.model.reading_type import TEXT_SIZE_MAX, ReadingType
from amistack.model.readings import CHANNEL_MAX
from amistack.model.registration import (
    CHANNEL_COUNT_MAX,
    STANDARD_OFFSET_MIN_LEAST,
    STANDARD_OFFSET_MIN_MOST,
    Channel,
)
from amistack.model.schedule import SCHEDULE_COUNT_MAX, ReadSchedule
from amistack.model.tariff import TariffCalendar

VERSION_MAX: Final = 2**32 - 1
THRESHOLD_COUNT_MAX: Final = 16
EVENT_RULE_COUNT_MAX: Final = 64
LIMIT_MAX: Final = 2**31 - 1
HOLD_S_MAX: Final = 86_400
WINDOW_S_MAX: Final = 3600
RESET_DAY_MAX: Final = 28
"""The last day that every month has."""
DIGEST_SIZE: Final = 32


@dataclass(frozen=True, slots=True)
class ProgrammeChannel:
    """A channel to record: what (by the ReadingType of an interval) and how often."""

    number: int
    reading_type: ReadingType
    interval_s: int

    def __post_init__(self) -> None:
        wire.integer(self.number, 0, CHANNEL_MAX, "channel")
        wire.check_interval(self.interval_s)

    @classmethod
    def of(cls, number: int, what: Measured, interval_s: int) -> ProgrammeChannel:
        """The channel that records `what`."""
        return cls(number, what.interval_type(interval_s), interval_s)

    @property
    def measured(self) -> Measured:
        """What it records. Raises ModelError if the ReadingType is of nothing that we know."""
        return measured(self.reading_type, self.interval_s)

    @property
    def declared(self) -> Channel:
        """As a registration declares it. Raises ModelError as `measured`."""
        what = self.measured
        return Channel(
            self.number,
            self.reading_type,
            what.register_type,
            what.quantity.multiplier,
            what.quantity.unit,
            self.interval_s,
        )


@dataclass(frozen=True, slots=True)
class DemandRules:
    """The mean power over windows; its peak is kept until it is reset.

    With sub-intervals shorter than the window it slides by them; else the windows are blocks, one
    after the other. `reset_day` is the day of the month at whose midnight it is reset; 0: never by
    itself.
    """

    window_s: int
    sub_interval_s: int
    reset_day: int = 0

    def __post_init__(self) -> None:
        wire.integer(self.window_s, 1, WINDOW_S_MAX, "demand window")
        wire.integer(self.sub_interval_s, 1, WINDOW_S_MAX, "demand sub-interval")
        wire.integer(self.reset_day, 0, RESET_DAY_MAX, "reset day")


class ThresholdKind(enum.IntEnum):
    """What is watched; the unit of its limit."""

    VOLTAGE_LOW = 1  # 0.1 V
    VOLTAGE_HIGH = 2  # 0.1 V
    DEMAND = 3  # W
    REVERSE_FLOW = 4  # Wh in an interval


@dataclass(frozen=True, slots=True)
class Threshold:
    """Crossed for `hold_s` it is an event; over when back by `hysteresis` within the limit."""

    kind: ThresholdKind
    limit: int
    hysteresis: int = 0
    hold_s: int = 0

    def __post_init__(self) -> None:
        wire.integer(self.limit, 0, LIMIT_MAX, "limit")
        wire.integer(self.hysteresis, 0, LIMIT_MAX, "hysteresis")
        wire.integer(self.hold_s, 0, HOLD_S_MAX, "hold")


@dataclass(frozen=True, slots=True)
class Programme:
    """Everything that a meter is told, as one. It comes into force at `applies_at`, UTC s.

    0 is at once. `version` tells programmes of a meter apart; 0 is what it does without any. Where
    it names no thresholds, events or schedules, those that are set stay as they are.
    """

    version: int
    applies_at: int
    standard_offset_min: int
    channels: tuple[ProgrammeChannel, ...]
    calendar: TariffCalendar | None = None
    demand: DemandRules | None = None
    thresholds: tuple[Threshold, ...] = ()
    events: tuple[EventRule, ...] = ()
    schedules: tuple[ReadSchedule, ...] = ()

    def __post_init__(self) -> None:
        wire.integer(self.version, 0, VERSION_MAX, "version")
        wire.integer(self.applies_at, 0, wire.UTC_S_MAX, "time to apply")
        wire.integer(
            self.standard_offset_min,
            STANDARD_OFFSET_MIN_LEAST,
            STANDARD_OFFSET_MIN_MOST,
            "standard offset",
        )
        wire.array(self.channels, 1, CHANNEL_COUNT_MAX, "channels")
        wire.array(self.thresholds, 0, THRESHOLD_COUNT_MAX, "thresholds")
        wire.array(self.events, 0, EVENT_RULE_COUNT_MAX, "event rules")
        wire.array(self.schedules, 0, SCHEDULE_COUNT_MAX, "schedules")

    @property
    def digest(self) -> bytes:
        """SHA-256 of the encoding: two programmes with the same one are the same."""
        return hashlib.sha256(self.encode()).digest()

    def encode(self) -> bytes:
        """The programme's one encoding."""
        demand = self.demand
        return wire.dump(
            [
                self.version,
                self.applies_at,
                self.standard_offset_min,
                [
                    [one.number, str(one.reading_type), wire.interval_to_tree(one.interval_s)]
                    for one in self.channels
                ],
                [] if self.calendar is None else self.calendar.to_tree(),
                []
                if demand is None
                else [demand.window_s, demand.sub_interval_s, demand.reset_day],
                [[int(one.kind), one.limit, one.hysteresis, one.hold_s] for one in self.thresholds],
                [one.to_tree() for one in self.events],
                [one.to_tree() for one in self.schedules],
            ]
        )

    @classmethod
    def decode(cls, data: bytes) -> Programme:
        """The programme that `data` is the encoding of."""
        items = wire.array(wire.load(data), 9, 9, "programme")
        calendar = wire.array(items[4], 0, 3, "calendar")
        demand = wire.array(items[5], 0, 3, "demand")
        return cls(
            wire.integer(items[0], 0, VERSION_MAX, "version"),
            wire.integer(items[1], 0, wire.UTC_S_MAX, "time to apply"),
            wire.integer(
                items[2], STANDARD_OFFSET_MIN_LEAST, STANDARD_OFFSET_MIN_MOST, "standard offset"
            ),
            tuple(_channel(one) for one in wire.array(items[3], 1, CHANNEL_COUNT_MAX, "channels")),
            TariffCalendar.from_tree(calendar) if calendar else None,
            _demand(demand) if demand else None,
            tuple(
                _threshold(one)
                for one in wire.array(items[6], 0, THRESHOLD_COUNT_MAX, "thresholds")
            ),
            tuple(
                EventRule.from_tree(one)
                for one in wire.array(items[7], 0, EVENT_RULE_COUNT_MAX, "event rules")
            ),
            tuple(
                ReadSchedule.from_tree(one)
                for one in wire.array(items[8], 0, SCHEDULE_COUNT_MAX, "schedules")
            ),
        )


def _channel(item: object) -> ProgrammeChannel:
    number, reading_type, length = wire.array(item, 3, 3, "channel")
    return ProgrammeChannel(
        wire.integer(number, 0, CHANNEL_MAX, "channel"),
        ReadingType.parse(wire.text(reading_type, 1, TEXT_SIZE_MAX, "reading type")),
        wire.interval_from_tree(length),
    )


def _demand(item: object) -> DemandRules:
    window_s, sub_interval_s, reset_day = wire.array(item, 3, 3, "demand")
    return DemandRules(
        wire.integer(window_s, 1, WINDOW_S_MAX, "demand window"),
        wire.integer(sub_interval_s, 1, WINDOW_S_MAX, "demand sub-interval"),
        wire.integer(reset_day, 0, RESET_DAY_MAX, "reset day"),
    )


def _threshold(item: object) -> Threshold:
    kind, limit, hysteresis, hold_s = wire.array(item, 4, 4, "threshold")
    return Threshold(
        wire.member(kind, ThresholdKind, "threshold"),
        wire.integer(limit, 0, LIMIT_MAX, "limit"),
        wire.integer(hysteresis, 0, LIMIT_MAX, "hysteresis"),
        wire.integer(hold_s, 0, HOLD_S_MAX, "hold"),
    )
