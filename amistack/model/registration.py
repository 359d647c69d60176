"""How a meter says who it is, what it speaks and what its channels mean.

Spec    docs/protocol/model.md, "Registration"
Raises  `ModelError`, and nothing else, from every decoder
Limit   CHANNEL_COUNT_MAX channels, MODEL_VERSION_COUNT_MAX versions
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Final

from amistack.errors import ModelError
from amistack.identifiers import EUI64_SIZE, Eui64
from amistack.model import wire
from amistack.model.reading_type import MULTIPLIER_MAX, TEXT_SIZE_MAX, ReadingType
from amistack.model.readings import BLOCK_COUNT_MAX, CHANNEL_MAX
from amistack.model.report import CHANNEL_SET_MAX

CHANNEL_COUNT_MAX: Final = BLOCK_COUNT_MAX
MODEL_VERSION_MAX: Final = 255
MODEL_VERSION_COUNT_MAX: Final = 8
SOFTWARE_SIZE_MAX: Final = 64
UNIT_SIZE_MAX: Final = 16
STANDARD_OFFSET_MIN_LEAST: Final = -12 * 60
STANDARD_OFFSET_MIN_MOST: Final = 14 * 60


class RegistrationReason(enum.IntEnum):
    """Why a meter registers now."""

    COLD_BOOT = 1
    POWER_RESTORED = 2
    ADDRESS_CHANGED = 3
    PROGRAMME_CHANGED = 4
    ASKED = 5


@dataclass(frozen=True, slots=True)
class Channel:
    """What one channel counts: an integer times 10^`multiplier` is so many `unit`.

    The multiplier stands in both ReadingTypes too, and must be the same there.
    """

    number: int
    reading_type: ReadingType
    register_type: ReadingType
    multiplier: int
    unit: str
    interval_s: int

    def __post_init__(self) -> None:
        wire.integer(self.number, 0, CHANNEL_MAX, "channel")
        wire.integer(self.multiplier, -MULTIPLIER_MAX, MULTIPLIER_MAX, "multiplier")
        wire.text(self.unit, 1, UNIT_SIZE_MAX, "unit")
        wire.check_interval(self.interval_s)
        declared = {self.reading_type.multiplier, self.register_type.multiplier}
        if declared != {self.multiplier}:
            raise ModelError(
                "bad channel", f"multiplier {self.multiplier}, but the reading types differ"
            )

    def to_tree(self) -> list[object]:
        """The channel's items."""
        return [
            self.number,
            str(self.reading_type),
            str(self.register_type),
            self.multiplier,
            self.unit,
            wire.interval_to_tree(self.interval_s),
        ]

    @classmethod
    def from_tree(cls, item: object) -> Channel:
        """The channel that `to_tree` wrote."""
        items = wire.array(item, 6, 6, "channel")
        return cls(
            wire.integer(items[0], 0, CHANNEL_MAX, "channel"),
            ReadingType.parse(wire.text(items[1], 1, TEXT_SIZE_MAX, "reading type")),
            ReadingType.parse(wire.text(items[2], 1, TEXT_SIZE_MAX, "reading type")),
            wire.integer(items[3], -MULTIPLIER_MAX, MULTIPLIER_MAX, "multiplier"),
            wire.text(items[4], 1, UNIT_SIZE_MAX, "unit"),
            wire.interval_from_tree(items[5]),
        )


@dataclass(frozen=True, slots=True)
class Registration:
    """A meter's declaration; everything it sends later refers to it.

    `model_versions` ascend. `channel_set` changes whenever `channels` do. `standard_offset_min`
    is minutes east of UTC, fixed all year: it says when the meter's days begin.
    """

    meter: Eui64
    model_versions: tuple[int, ...]
    software: str
    channel_set: int
    standard_offset_min: int
    channels: tuple[Channel, ...]
    reason: RegistrationReason

    def __post_init__(self) -> None:
        wire.octets(self.meter, EUI64_SIZE, EUI64_SIZE, "meter")
        wire.array(self.model_versions, 1, MODEL_VERSION_COUNT_MAX, "model versions")
        for version in self.model_versions:
            wire.integer(version, 1, MODEL_VERSION_MAX, "model version")
        if list(self.model_versions) != sorted(set(self.model_versions)):
            raise ModelError("bad registration", "model versions do not ascend")
        wire.text(self.software, 1, SOFTWARE_SIZE_MAX, "software")
        wire.integer(self.channel_set, 0, CHANNEL_SET_MAX, "channel set")
        wire.integer(
            self.standard_offset_min,
            STANDARD_OFFSET_MIN_LEAST,
            STANDARD_OFFSET_MIN_MOST,
            "standard offset",
        )
        wire.array(self.channels, 1, CHANNEL_COUNT_MAX, "channels")
        if len({channel.number for channel in self.channels}) < len(self.channels):
            raise ModelError("bad registration", "a channel comes twice")

    def encode(self) -> bytes:
        """The registration's one encoding."""
        return wire.dump(
            [
                bytes(self.meter),
                list(self.model_versions),
                self.software,
                self.channel_set,
                self.standard_offset_min,
                [channel.to_tree() for channel in self.channels],
                int(self.reason),
            ]
        )

    @classmethod
    def decode(cls, data: bytes) -> Registration:
        """The registration that `data` is the encoding of."""
        items = wire.array(wire.load(data), 7, 7, "registration")
        versions = wire.array(items[1], 1, MODEL_VERSION_COUNT_MAX, "model versions")
        channels = wire.array(items[5], 1, CHANNEL_COUNT_MAX, "channels")
        return cls(
            Eui64(wire.octets(items[0], EUI64_SIZE, EUI64_SIZE, "meter")),
            tuple(wire.integer(item, 1, MODEL_VERSION_MAX, "model version") for item in versions),
            wire.text(items[2], 1, SOFTWARE_SIZE_MAX, "software"),
            wire.integer(items[3], 0, CHANNEL_SET_MAX, "channel set"),
            wire.integer(
                items[4], STANDARD_OFFSET_MIN_LEAST, STANDARD_OFFSET_MIN_MOST, "standard offset"
            ),
            tuple(Channel.from_tree(item) for item in channels),
            wire.member(items[6], RegistrationReason, "reason"),
        )


@dataclass(frozen=True, slots=True)
class RegistrationAcknowledgement:
    """The head-end knows the meter now, and has chosen `model_version` from those offered.

    `received_ms`, 0 for a time not known, and `held_ms` as in a report's acknowledgement.
    """

    received_ms: int
    held_ms: int
    model_version: int

    def __post_init__(self) -> None:
        wire.integer(self.received_ms, 0, wire.UTC_MS_MAX, "time of receipt")
        wire.integer(self.held_ms, 0, wire.HELD_MS_MAX, "time held")
        wire.integer(self.model_version, 1, MODEL_VERSION_MAX, "model version")

    def encode(self) -> bytes:
        """The acknowledgement's one encoding."""
        return wire.dump([self.received_ms, self.held_ms, self.model_version])

    @classmethod
    def decode(cls, data: bytes) -> RegistrationAcknowledgement:
        """The acknowledgement that `data` is the encoding of."""
        items = wire.array(wire.load(data), 3, 3, "acknowledgement")
        return cls(
            wire.integer(items[0], 0, wire.UTC_MS_MAX, "time of receipt"),
            wire.integer(items[1], 0, wire.HELD_MS_MAX, "time held"),
            wire.integer(items[2], 1, MODEL_VERSION_MAX, "model version"),
        )
