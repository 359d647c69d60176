"""Datagrams between links on one loop, over a medium that may lose, delay, double and damage them.

Gives   `Network.open`, which takes the place of `amistack.links.open_udp`
Limit   IN_FLIGHT_MAX datagrams on the way; one more is lost and counted
Never   draws chance from anywhere but its own dice
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from amistack.errors import LinkError
from amistack.links import UdpLink
from amistack.machine import DatagramMachine

EventT = TypeVar("EventT")
Address = tuple[str, int]

IN_FLIGHT_MAX: Final = 100_000
EPHEMERAL_FIRST: Final = 49_152


@dataclass(frozen=True, slots=True)
class Quality:
    """What a medium does to a datagram: chances from 0 to 1, delays in seconds.

    Delays are drawn anew for each datagram, so a wide range reorders.
    """

    loss: float = 0.0
    doubling: float = 0.0
    damage: float = 0.0
    delay_min: float = 0.001
    delay_max: float = 0.002


PERFECT: Final = Quality()
BAD: Final = Quality(loss=0.1, doubling=0.05, damage=0.02, delay_min=0.01, delay_max=0.8)
CRUEL: Final = Quality(loss=0.3, doubling=0.2, damage=0.1, delay_min=0.01, delay_max=5.0)


class Network:
    """One medium; every link on it reaches every other by its address."""

    def __init__(self, dice: random.Random, quality: Quality = PERFECT) -> None:
        self.quality = quality
        self.counters: Counter[str] = Counter()
        self.watchers: list[Callable[[Address, Address, bytes], None]] = []
        """Called with source, destination and octets of every datagram that is handed over."""
        self._dice = dice
        self._links: dict[Address, UdpLink[Any]] = {}
        self._in_flight = 0
        self._next_port = EPHEMERAL_FIRST

    async def open(
        self,
        machine: DatagramMachine[EventT],
        on_event: Callable[[EventT], None],
        *,
        host: str,
        port: int,
    ) -> UdpLink[EventT]:
        """A link bound to `host` and `port` (0: any free port). Raises LinkError."""
        if not port:
            port = self._next_port
            self._next_port += 1
        address = (host, port)
        if address in self._links:
            raise LinkError(f"{host} port {port} is in use in this network")
        link = UdpLink(machine, on_event)
        self._links[address] = link
        link.connection_made(_Transport(self, address))
        return link

    def send(self, source: Address, destination: Address, datagram: bytes) -> None:
        """Let the medium do with a datagram what it does."""
        self.counters["sent"] += 1
        quality, dice = self.quality, self._dice
        if dice.random() < quality.loss or self._in_flight >= IN_FLIGHT_MAX:
            self.counters["lost"] += 1
            return
        copies = 2 if dice.random() < quality.doubling else 1
        for _ in range(copies):
            octets = datagram
            if octets and dice.random() < quality.damage:
                octets = self._damaged(octets)
            self._in_flight += 1
            asyncio.get_running_loop().call_later(
                dice.uniform(quality.delay_min, quality.delay_max),
                self._hand_over,
                source,
                destination,
                octets,
            )

    def remove(self, address: Address) -> None:
        """Nobody is there any more; what is on the way to it is lost."""
        self._links.pop(address, None)

    def _hand_over(self, source: Address, destination: Address, datagram: bytes) -> None:
        self._in_flight -= 1
        link = self._links.get(destination)
        if link is None:
            self.counters["to nobody"] += 1
            return
        self.counters["handed over"] += 1
        for watcher in self.watchers:
            watcher(source, destination, datagram)
        link.datagram_received(datagram, source)

    def _damaged(self, datagram: bytes) -> bytes:
        self.counters["damaged"] += 1
        octets = bytearray(datagram)
        octets[self._dice.randrange(len(octets))] ^= 1 << self._dice.randrange(8)
        return bytes(octets)


class _Transport(asyncio.DatagramTransport):
    """The end of a link that a loop's transport would be."""

    def __init__(self, network: Network, address: Address) -> None:
        super().__init__()
        self._network = network
        self._address = address
        self._is_closing = False

    def sendto(self, data: bytes, addr: Address | None = None) -> None:  # type: ignore[override]  # as both loops have it
        assert addr is not None, "a datagram endpoint of ours is never connected"
        if not self._is_closing:
            self._network.send(self._address, addr, bytes(data))

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self._address if name == "sockname" else default

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """There is no buffer here: the medium takes everything."""

    def close(self) -> None:
        self._is_closing = True
        self._network.remove(self._address)

    def abort(self) -> None:
        self.close()

    def is_closing(self) -> bool:
        return self._is_closing
