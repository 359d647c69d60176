"""The home devices as a part of the meter: the head-end subscribes them and sees how they are.

    PUT  /home   subscription     2.04: subscribed, durably and logged; 4.22 with the reason
    POST /home   unsubscription   2.04: ended, durably and logged; 4.04 or 4.22 with the reason
    GET  /home                    2.05 home list

Raises  ModelError on a payload that is none of these; StoreError when it cannot be kept
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from amistack.coap.codes import Code
from amistack.coap.message import Message
from amistack.model.home import Subscription, Unsubscription
from amistack.model.resources import HOME
from meterd.home.subscriptions import UNKNOWN, Subscriptions
from meterd.parts import Resource, granted, refused, unfit


class HomePart:
    """What one meter's head-end may ask of its home: the tries go over a socket of their own."""

    def __init__(self, subscriptions: Subscriptions) -> None:
        self._resources: Final = (_HomeResource(subscriptions),)

    def resources(self) -> Sequence[Resource]:
        """The one path."""
        return self._resources

    def handle_timer(self, *, now: float) -> None:
        """Nothing is ever due here."""

    def next_timer(self) -> float | None:
        """Never."""
        return None


class _HomeResource:
    path: Final = HOME
    kind: Final = "amistack.home"

    def __init__(self, subscriptions: Subscriptions) -> None:
        self._subscriptions = subscriptions

    def answer(self, message: Message, *, now: float) -> Message:
        """The answer to a request."""
        if (wrong := unfit(message, Code.GET, Code.PUT, Code.POST)) is not None:
            return wrong
        if message.code == Code.GET:
            return granted(Code.CONTENT, self._subscriptions.listing(now=now).encode())
        if message.code == Code.PUT:
            subscription = Subscription.decode(message.payload)
            reason = self._subscriptions.subscribe(subscription, now=now)
        else:
            device = Unsubscription.decode(message.payload).device
            reason = self._subscriptions.unsubscribe(device, now=now)
        if reason is None:
            return granted(Code.CHANGED)
        return refused(Code.NOT_FOUND if reason == UNKNOWN else Code.UNPROCESSABLE_ENTITY, reason)
