"""A meter's home area network, put together from the meter's own parts."""

from __future__ import annotations

import random

from meterd.clock import MeterClock
from meterd.home.network import HomeNetwork
from meterd.home.part import HomePart
from meterd.home.settings import HomeSettings
from meterd.home.subscriptions import Log, Subscriptions
from meterd.home.watch import HomeWatch
from meterd.parts import Part
from meterd.storage import Storage


def make_home(
    settings: HomeSettings,
    storage: Storage,
    clock: MeterClock,
    *,
    log: Log,
    dice: random.Random,
) -> tuple[HomeNetwork, tuple[Part, ...]]:
    """Not open yet, and the parts for the agent. Raises StoreUnusable."""
    subscriptions = Subscriptions(storage, clock, log=log, is_ipv6=settings.is_ipv6)
    watch = HomeWatch(subscriptions, dice=dice)
    return HomeNetwork(settings, subscriptions, watch), (HomePart(subscriptions),)
