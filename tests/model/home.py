"""Strategies for the messages about home devices."""

from __future__ import annotations

from hypothesis import strategies as st

from amistack.identifiers import eui64
from amistack.model import ClockReading, ClockState
from amistack.model.home import (
    DeviceKind,
    DeviceStanding,
    DeviceState,
    HomeList,
    Subscription,
    Unsubscription,
)

devices = st.binary(min_size=8, max_size=8).map(eui64)
utc_s = st.integers(0, 2**32 - 1)
clocks = st.builds(ClockReading, utc_s, st.sampled_from(ClockState))
subscriptions = st.builds(
    Subscription,
    devices,
    st.text("Abc é-9", min_size=1, max_size=12),
    st.sampled_from(DeviceKind),
    st.binary(min_size=4, max_size=4) | st.binary(min_size=16, max_size=16),
    st.integers(1, 65_535),
    st.integers(30, 86_400),
)
standings = st.lists(
    st.builds(DeviceStanding, subscriptions, st.sampled_from(DeviceState), utc_s, st.booleans()),
    max_size=4,
    unique_by=lambda one: one.subscription.device,
).map(lambda found: tuple(sorted(found, key=lambda one: one.subscription.device)))

MESSAGES = {
    "home-subscription": (Subscription, subscriptions),
    "home-unsubscription": (Unsubscription, st.builds(Unsubscription, devices)),
    "home-list": (HomeList, st.builds(HomeList, clocks, standings)),
}
"""As in `tests.model.messages`."""
