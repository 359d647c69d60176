"""The devices of a home area network that are subscribed to a meter, and how each is.

Spec    docs/protocol/model.md, "Home devices"; the kinds are those of IEC 61968-9 Annex E (field 1)
Raises  `ModelError`, and nothing else, from every decoder
Limit   DEVICE_COUNT_MAX devices at a meter, NAME_SIZE_MAX octets of a name
"""

from __future__ import annotations

import enum
import ipaddress
from dataclasses import dataclass
from typing import Final

from amistack.errors import ModelError
from amistack.identifiers import EUI64_SIZE, Eui64
from amistack.model import wire
from amistack.model.clock import ClockReading

DEVICE_COUNT_MAX: Final = 16
NAME_SIZE_MAX: Final = 24
PERIOD_S_LEAST: Final = 30
PERIOD_S_MOST: Final = 86_400
PORT_MAX: Final = 65_535
ADDRESS_SIZES: Final = (4, 16)
"""Octets of an IPv4 and of an IPv6 address."""


class DeviceKind(enum.IntEnum):
    """What a device is: EndDeviceType codes; one that fits nowhere is a PAN device."""

    GAS_METER = 4
    PAN_GATEWAY = 7
    PAN_DEVICE = 12
    GENERATOR = 14
    DISPLAY = 15  # InPremisesDisplay
    LOAD_CONTROL = 16
    PAN_METER = 17
    PREPAYMENT = 18
    THERMOSTAT = 19
    RANGE_EXTENDER = 20
    WATER_METER = 24
    VEHICLE = 58


class DeviceState(enum.IntEnum):
    """What is known of a device."""

    UNHEARD = 0  # subscribed, and not heard yet
    ANSWERING = 1
    SILENT = 2  # it was tried so often as is said, without an answer


@dataclass(frozen=True, slots=True)
class Subscription:
    """A device whose owner had it subscribed to the meter; it is tried every `period_s` seconds.

    `address` is 4 octets of IPv4 or 16 of IPv6, `port` its UDP port for CoAP.
    """

    device: Eui64
    name: str
    kind: DeviceKind
    address: bytes
    port: int
    period_s: int

    def __post_init__(self) -> None:
        wire.octets(self.device, EUI64_SIZE, EUI64_SIZE, "device")
        wire.text(self.name, 1, NAME_SIZE_MAX, "name")
        if not self.name.isprintable():
            raise ModelError("bad name", "a character that cannot be shown")
        wire.octets(self.address, ADDRESS_SIZES[0], ADDRESS_SIZES[1], "address")
        if len(self.address) not in ADDRESS_SIZES:
            raise ModelError("wrong size", f"an address of {len(self.address)} octets")
        wire.integer(self.port, 1, PORT_MAX, "port")
        wire.integer(self.period_s, PERIOD_S_LEAST, PERIOD_S_MOST, "period")

    @property
    def host(self) -> str:
        """The address in words."""
        return str(ipaddress.ip_address(self.address))

    def to_tree(self) -> list[object]:
        """The subscription's items."""
        return [
            bytes(self.device),
            self.name,
            int(self.kind),
            self.address,
            self.port,
            self.period_s,
        ]

    @classmethod
    def from_tree(cls, item: object) -> Subscription:
        """The subscription that `to_tree` wrote."""
        device, name, kind, address, port, period_s = wire.array(item, 6, 6, "subscription")
        return cls(
            Eui64(wire.octets(device, EUI64_SIZE, EUI64_SIZE, "device")),
            wire.text(name, 1, NAME_SIZE_MAX, "name"),
            wire.member(kind, DeviceKind, "kind of device"),
            wire.octets(address, ADDRESS_SIZES[0], ADDRESS_SIZES[1], "address"),
            wire.integer(port, 1, PORT_MAX, "port"),
            wire.integer(period_s, PERIOD_S_LEAST, PERIOD_S_MOST, "period"),
        )

    def encode(self) -> bytes:
        """The subscription's one encoding."""
        return wire.dump(self.to_tree())

    @classmethod
    def decode(cls, data: bytes) -> Subscription:
        """The subscription that `data` is the encoding of."""
        return cls.from_tree(wire.load(data))


@dataclass(frozen=True, slots=True)
class Unsubscription:
    """Ends the subscription of a device: it is tried no more, and its silence is nobody's."""

    device: Eui64

    def __post_init__(self) -> None:
        wire.octets(self.device, EUI64_SIZE, EUI64_SIZE, "device")

    def encode(self) -> bytes:
        """The message's one encoding."""
        return wire.dump([bytes(self.device)])

    @classmethod
    def decode(cls, data: bytes) -> Unsubscription:
        """The message that `data` is the encoding of."""
        (device,) = wire.array(wire.load(data), 1, 1, "unsubscription")
        return cls(Eui64(wire.octets(device, EUI64_SIZE, EUI64_SIZE, "device")))


@dataclass(frozen=True, slots=True)
class DeviceStanding:
    """How a device is, and since when (UTC). `is_fixed`: the meter's settings subscribe it."""

    subscription: Subscription
    state: DeviceState
    since_s: int
    is_fixed: bool = False

    def __post_init__(self) -> None:
        wire.integer(self.since_s, 0, wire.UTC_S_MAX, "time of the change")


@dataclass(frozen=True, slots=True)
class HomeList:
    """The subscribed devices of a meter, by identifier."""

    clock: ClockReading
    standings: tuple[DeviceStanding, ...] = ()

    def __post_init__(self) -> None:
        wire.array(self.standings, 0, DEVICE_COUNT_MAX, "devices")
        devices = [bytes(one.subscription.device) for one in self.standings]
        if devices != sorted(set(devices)):
            raise ModelError("bad home list", "identifiers do not rise")

    def encode(self) -> bytes:
        """The list's one encoding."""
        return wire.dump(
            [
                self.clock.utc_s,
                int(self.clock.state),
                [
                    [one.subscription.to_tree(), int(one.state), one.since_s, one.is_fixed]
                    for one in self.standings
                ],
            ]
        )

    @classmethod
    def decode(cls, data: bytes) -> HomeList:
        """The list that `data` is the encoding of."""
        utc_s, state, standings = wire.array(wire.load(data), 3, 3, "home list")
        return cls(
            ClockReading.from_tree(utc_s, state),
            tuple(
                _standing_from_tree(one)
                for one in wire.array(standings, 0, DEVICE_COUNT_MAX, "devices")
            ),
        )


def _standing_from_tree(item: object) -> DeviceStanding:
    subscription, state, since_s, is_fixed = wire.array(item, 4, 4, "device standing")
    if type(is_fixed) is not bool:
        raise ModelError("wrong type", "whether it is fixed is no boolean")
    return DeviceStanding(
        Subscription.from_tree(subscription),
        wire.member(state, DeviceState, "device state"),
        wire.integer(since_s, 0, wire.UTC_S_MAX, "time of the change"),
        is_fixed,
    )
