"""Home devices, and a meter that they are subscribed to, in one world."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Final

from amistack.coap.codes import Code
from amistack.coap.endpoint import Endpoint
from amistack.identifiers import Eui64, eui64
from amistack.machine import Peer
from amistack.model import EndDeviceEventType
from amistack.model.home import DeviceKind, HomeList, Subscription
from amistack.model.resources import HOME
from meterd.agent import Agent
from meterd.home.part import HomePart
from meterd.home.subscriptions import Subscriptions
from meterd.home.watch import HomeWatch
from meterd.oversight import Oversight, clock_of
from meterd.recorder import Recorder
from meterd.storage import Storage
from tests.meterd.bench import METER, meter_key
from tests.meterd.test_oversight import Overseen, OverseenBench

PERIOD_S: Final = 300


def device(number: int) -> Eui64:
    return eui64(bytes(7) + bytes((number,)))


def subscription(number: int, name: str = "", *, period_s: int = PERIOD_S) -> Subscription:
    """Device `number`, at an address of its own."""
    address = bytes((192, 0, 2, number))
    named = name or f"device {number}"
    return Subscription(device(number), named, DeviceKind.DISPLAY, address, 5683, period_s)


def place(of: Subscription) -> Peer:
    """Where a device is in a world."""
    return f"home {of.host}"


class Device(Endpoint):
    """A CoAP device that answers pings as its stack does, unless it is off."""

    is_on = True

    def __init__(self) -> None:
        super().__init__(dice=random.Random(9))

    def receive_datagram(self, data: bytes, peer: Peer, *, now: float) -> None:
        if self.is_on:
            super().receive_datagram(data, peer, now=now)


@dataclass
class Home(OverseenBench):
    """A meter with its own oversight, its home's devices beside it."""

    devices: dict[int, Device] = field(default_factory=dict)
    fixed: tuple[Subscription, ...] = ()
    subscriptions: Subscriptions = field(init=False)
    watch: HomeWatch = field(init=False)

    def power_on(self) -> object:  # type: ignore[override]
        self.start_count += 1
        dice = random.Random(f"meter {self.seed} {self.start_count}")
        now = self.world.now
        self.storage = Storage.on(self.files)
        clock = clock_of(self.storage, utc=self.utc(now), now=now)
        source = self.make_source()
        recorder = Recorder(self.storage, source, offset_min=0)
        self.oversight = Oversight(
            meter=METER,
            storage=self.storage,
            clock=clock,
            recorder=recorder,
            source=source,
            offset_min=0,
            folder=None,
            dice=dice,
            now=now,
        )
        self.subscriptions = Subscriptions(self.storage, clock, log=self.oversight.events.log)
        self.watch = HomeWatch(self.subscriptions, dice=dice, peer_of=place)
        self.agent = Agent(
            meter=METER,
            key=meter_key(),
            head_end=self.head_end.key.credential,
            head_end_peer="head-end",
            storage=self.storage,
            recorder=recorder,
            clock=clock,
            schedule=self.schedule,
            offset_min=0,
            entropy=dice.randbytes,
            dice=dice,
            parts=(*self.oversight.parts, HomePart(self.subscriptions)),
            voices=self.oversight.voices,
            log=self.oversight.events.log,
        )
        self.agent.start(now=now)
        self.host = self.world.add("meter", Overseen(self.agent, self.oversight, now))
        home = self.world.add("meter's home", self.watch)

        def refresh() -> None:
            self.watch.refresh(now=self.world.now)
            home.settle()

        self.subscriptions.on_change = refresh
        self.subscriptions.on_told = self.host.settle
        self.subscriptions.fix(self.fixed, now=now)
        return self.host

    def power_off(self) -> None:
        self.world.remove("meter's home")
        super().power_off()

    def plug_in(self, number: int) -> Device:
        """A device at its address, whether it is subscribed or not."""
        made = self.devices[number] = Device()
        self.world.add(place(subscription(number)), made)
        return made

    def put(self, wanted: Subscription) -> int:
        """The code that the head-end gets for it."""
        return self.ask(Code.PUT, HOME, wanted.encode()).code

    def listing(self) -> HomeList:
        """What the head-end sees."""
        return HomeList.decode(self.ask(Code.GET, HOME).payload)

    def told(self, event: EndDeviceEventType) -> list[str | None]:
        """The details of the notices of an event that the head-end has had."""
        return [
            one.entry.detail
            for notice in self.head_end.notices
            for one in notice.events
            if one.entry.event == event
        ]
