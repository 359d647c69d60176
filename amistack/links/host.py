"""What a program takes from the machine it runs on: time, chance, sockets, neighbours.

A program gets one of these at its start and takes all of it from there, so that a simulated world
can be put in its place.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, TypeVar

from amistack.links.discovery import Discovery, DnsSd
from amistack.links.udp import Observer, UdpLink, open_udp
from amistack.machine import DatagramMachine

if TYPE_CHECKING:
    from amistack.links.streams import KeptLink, MakeMachine, OnDown, OnEvent
    from amistack.links.tcp import Tls

EventT = TypeVar("EventT")


class OpenLink(Protocol):
    """Opens a datagram link for a machine, as `open_udp` does."""

    def __call__(
        self,
        machine: DatagramMachine[EventT],
        on_event: Callable[[EventT], None],
        *,
        host: str,
        port: int,
    ) -> Awaitable[UdpLink[EventT]]:
        """See `open_udp`."""


class KeepStream(Protocol):
    """Keeps a stream for one machine after the other, as `amistack.links.tcp.keep_tcp` does."""

    def __call__(
        self,
        make_machine: MakeMachine[EventT],
        on_event: OnEvent[EventT],
        *,
        host: str,
        port: int,
        dice: random.Random,
        tls: Tls | None = None,
        on_down: OnDown = ...,
    ) -> KeptLink[EventT]:
        """See `keep_tcp`."""


def observed(observer: Observer | None, *, wall: Callable[[], float] = time.time) -> OpenLink:
    """`open_udp` for links that all show what they carry to one observer, or to none."""
    if observer is None:
        return open_udp

    async def open_link(
        machine: DatagramMachine[EventT],
        on_event: Callable[[EventT], None],
        *,
        host: str,
        port: int,
    ) -> UdpLink[EventT]:
        return await open_udp(machine, on_event, host=host, port=port, observer=observer, wall=wall)

    return open_link


@dataclass(frozen=True, slots=True)
class Host:
    """`wall`: UTC in seconds. `entropy`: secret random octets. `dice`: chance that need not be.

    `monotonic` counts as the event loop's own clock does. `discovery` is only asked by a program
    that was not told where its head-end is. `keep_stream` None is TCP.
    """

    wall: Callable[[], float] = time.time
    monotonic: Callable[[], float] = time.monotonic
    entropy: Callable[[int], bytes] = os.urandom
    dice: random.Random = field(default_factory=lambda: random.Random(os.urandom(16)))
    open_link: OpenLink = open_udp
    keep_stream: KeepStream | None = None
    discovery: Discovery = field(default_factory=DnsSd)
