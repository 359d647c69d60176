"""Which home devices are subscribed to a meter, and what is known of each, through restarts.

A device comes by the head-end, or by the meter's settings: then it stays as long as it stands
there. Whether it is silent is kept with it, so that a restart neither tells of it again nor
forgets to tell that it is back.

Gives   every change durable, together with the event that tells of it
Raises  StoreError; then nothing has changed. StoreUnusable for rows that no meterd writes
Limit   DEVICE_COUNT_MAX devices
Never   writes because a device answers as it did before
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Final, Protocol

from amistack.errors import ModelError, StoreUnusable
from amistack.identifiers import Eui64, format_eui64
from amistack.model import ClockReading, EndDeviceEventType, LogEntry
from amistack.model.event_catalogue import (
    DEVICE_ANSWERS,
    DEVICE_SILENT,
    DEVICE_SUBSCRIBED,
    DEVICE_UNSUBSCRIBED,
)
from amistack.model.home import (
    DEVICE_COUNT_MAX,
    DeviceStanding,
    DeviceState,
    HomeList,
    Subscription,
)
from meterd.journal import Value
from meterd.storage import HOME, Storage

NO_ROOM: Final = "no room"
SAME_ADDRESS: Final = "address of another device"
OTHER_FAMILY: Final = "address of another IP version"
FIXED: Final = "in the meter's settings"
UNKNOWN: Final = "unknown device"


class Clock(Protocol):
    """What is needed of the meter's clock."""

    def utc(self, now: float) -> float: ...

    def reading(self, now: float) -> ClockReading: ...


class Log(Protocol):
    """The door of the meter's log."""

    def __call__(
        self, event: EndDeviceEventType, detail: str | None = None, *, now: float
    ) -> LogEntry | None:
        """Put an event on record; None if there were too many of its kind. Raises StoreError."""


class Subscriptions:
    """The home devices of one meter."""

    def __init__(self, storage: Storage, clock: Clock, *, log: Log, is_ipv6: bool = False) -> None:
        self._storage = storage
        self._clock = clock
        self._log = log
        self._is_ipv6 = is_ipv6
        self.on_change: Callable[[], None] = lambda: None
        """Called after a device came, changed or went."""
        self.on_told: Callable[[], None] = lambda: None
        """Called after an event was logged of a device that fell silent or came back."""
        try:
            self.all()
        except (ModelError, ValueError) as error:
            raise StoreUnusable(f"a home device's row is none of ours ({error})") from error

    # What there is

    def all(self) -> Sequence[DeviceStanding]:
        """Every device, by identifier."""
        return tuple(self._device(row) for _, row in sorted(self._storage.items(HOME)))

    def find(self, device: Eui64) -> DeviceStanding | None:
        """How a device is, if it is subscribed."""
        row = self._storage.get(HOME, format_eui64(device))
        return None if row is None else self._device(row)

    def listing(self, *, now: float) -> HomeList:
        """All of it, as a message."""
        return HomeList(self._clock.reading(now), tuple(self.all()))

    # What changes it

    def fix(self, subscriptions: Sequence[Subscription], *, now: float) -> None:
        """Those of the settings are subscribed; those that stood there before are no more."""
        wanted = {one.device for one in subscriptions}
        taken = {(one.address, one.port) for one in subscriptions}
        gone: list[Subscription] = []
        room = DEVICE_COUNT_MAX - len(subscriptions)
        for known in self.all():
            other = known.subscription
            if other.device in wanted:
                continue
            # What the settings say goes before what the head-end said.
            if known.is_fixed or (other.address, other.port) in taken or not room:
                gone.append(other)
            else:
                room -= 1
        with self._changing():
            for one in gone:
                self._remove(one, now)
            for one in subscriptions:
                self._add(one, now, is_fixed=True)

    def subscribe(self, subscription: Subscription, *, now: float) -> str | None:
        """Subscribe a device, or change its subscription; why not, or None.

        The same once more changes nothing.
        """
        known = self.find(subscription.device)
        if known is not None and known.subscription == subscription:
            return None
        if known is not None and known.is_fixed:
            return FIXED
        if (len(subscription.address) > 4) != self._is_ipv6:
            return OTHER_FAMILY
        for one in self.all():
            other = one.subscription
            is_same_place = (other.address, other.port) == (subscription.address, subscription.port)
            if is_same_place and other.device != subscription.device:
                return SAME_ADDRESS
        if known is None and len(self.all()) >= DEVICE_COUNT_MAX:
            return NO_ROOM
        with self._changing():
            self._add(subscription, now, is_fixed=False)
        return None

    def unsubscribe(self, device: Eui64, *, now: float) -> str | None:
        """End a subscription; why not, or None."""
        known = self.find(device)
        if known is None:
            return UNKNOWN
        if known.is_fixed:
            return FIXED
        with self._changing():
            self._remove(known.subscription, now)
        return None

    def mark(self, device: Eui64, state: DeviceState, detail: str, *, now: float) -> None:
        """A device is silent, or answers: told once, as it begins.

        Where the log has had too many of such events the state stays, so that the next try tells.
        """
        known = self.find(device)
        if known is None or known.state is state:
            return
        about = _about(known.subscription, detail)
        with self._storage.together():
            if state is DeviceState.SILENT and self._log(DEVICE_SILENT, about, now=now) is None:
                return
            is_back = known.state is DeviceState.SILENT
            if is_back and self._log(DEVICE_ANSWERS, about, now=now) is None:
                return
            self._keep(known.subscription, state, now, is_fixed=known.is_fixed)
        self.on_told()

    # Inside

    def _device(self, row: Value) -> DeviceStanding:
        encoded, is_fixed, state, since_s = row
        return DeviceStanding(Subscription.decode(encoded), DeviceState(state), since_s, is_fixed)

    @contextlib.contextmanager
    def _changing(self) -> Iterator[None]:
        """All of it or nothing; then others are told."""
        with self._storage.together():
            yield
        self.on_change()

    def _add(self, subscription: Subscription, now: float, *, is_fixed: bool) -> None:
        known = self.find(subscription.device)
        if known is not None and known.subscription == subscription:
            if known.is_fixed != is_fixed:
                self._keep(subscription, known.state, now, is_fixed=is_fixed)
            return
        self._log(DEVICE_SUBSCRIBED, _about(subscription), now=now)
        self._keep(subscription, DeviceState.UNHEARD, now, is_fixed=is_fixed)

    def _remove(self, subscription: Subscription, now: float) -> None:
        self._log(DEVICE_UNSUBSCRIBED, _about(subscription), now=now)
        self._storage.put((HOME, format_eui64(subscription.device), None))

    def _keep(
        self, subscription: Subscription, state: DeviceState, now: float, *, is_fixed: bool
    ) -> None:
        since_s = max(int(self._clock.utc(now)), 0)
        row = [subscription.encode(), is_fixed, int(state), since_s]
        self._storage.put((HOME, format_eui64(subscription.device), row))


def _about(subscription: Subscription, detail: str = "") -> str:
    """What names the device in a log entry."""
    text = f"{format_eui64(subscription.device)} {subscription.name}"
    return f"{text}: {detail}" if detail else text
