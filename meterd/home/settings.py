"""The home area network of a meter, and devices that are subscribed for good: the table [home].

Raises  ConfigError, one line, from everything here
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import Final

from amistack.addresses import parse_address
from amistack.errors import ConfigError, ModelError
from amistack.identifiers import parse_eui64
from amistack.model.home import DEVICE_COUNT_MAX, DeviceKind, Subscription

COAP_PORT: Final = 5683
PERIOD_S: Final = 300


@dataclass(frozen=True, slots=True)
class DeviceSettings:
    """A home device: it is subscribed as long as it stands here."""

    id: str
    """Its EUI-64, 16 hex digits."""
    address: str
    """Its address as HOST, HOST:PORT, [IPV6] or [IPV6]:PORT, in digits; port 5683 unless said."""
    name: str
    """What people call it; it is in the events about it."""
    kind: str = "pan_device"
    """What it is."""
    period_s: int = PERIOD_S
    """Seconds between two tries."""

    def __post_init__(self) -> None:
        _ = self.subscription

    @property
    def subscription(self) -> Subscription:
        """The same as the head-end would send it."""
        try:
            kind = DeviceKind[self.kind.upper()]
        except KeyError:
            known = ", ".join(one.name.lower() for one in DeviceKind)
            raise ConfigError(f"kind is {self.kind!r}, expected {known}") from None
        host, port = parse_address(self.address, default_port=COAP_PORT, what="address")
        try:
            address = ipaddress.ip_address(host).packed
        except ValueError:
            raise ConfigError(
                f"address is {self.address!r}, expected digits such as 192.0.2.7 or [2001:db8::7]"
            ) from None
        try:
            device = parse_eui64(self.id)
            return Subscription(device, self.name, kind, address, port, self.period_s)
        except ModelError as error:
            raise ConfigError(f"device {self.id}: {error}") from None


@dataclass(frozen=True, slots=True)
class HomeSettings:
    """Where the meter speaks to home devices."""

    listen: str = "0.0.0.0:0"
    """HOST:PORT of its own end; port 0 takes any free one. `[::]:0` for IPv6."""
    devices: tuple[DeviceSettings, ...] = ()

    def __post_init__(self) -> None:
        _ = self.host_and_port
        if len(self.devices) > DEVICE_COUNT_MAX:
            raise ConfigError(f"{len(self.devices)} devices, at most {DEVICE_COUNT_MAX}")
        subscriptions = self.subscriptions
        for what, keys in (
            ("id", [one.device for one in subscriptions]),
            ("address", [(one.address, one.port) for one in subscriptions]),
        ):
            if len(set(keys)) < len(keys):
                raise ConfigError(f"devices: an {what} comes twice")
        for one in subscriptions:
            if self.is_ipv6 != (len(one.address) > 4):
                raise ConfigError(
                    f"devices: {one.name} is at {one.host}, which cannot be reached from "
                    f"listen = {self.listen!r}"
                )

    @property
    def host_and_port(self) -> tuple[str, int]:
        """`listen` taken apart."""
        return parse_address(self.listen, default_port=COAP_PORT, what="listen")

    @property
    def is_ipv6(self) -> bool:
        """Whether the home's network is IPv6."""
        return ":" in self.host_and_port[0]

    @property
    def subscriptions(self) -> tuple[Subscription, ...]:
        """The devices that are subscribed here."""
        return tuple(one.subscription for one in self.devices)
