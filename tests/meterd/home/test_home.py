"""Home devices that are subscribed to a meter, in a world with a head-end.

The contract under test: a subscribed device that stops to answer is told of at once, by name, after
three tries and not after two, and so is its return; a device that is not subscribed may do as it
likes. Subscriptions outlive a power cut, and so does what was told.
"""

from __future__ import annotations

import dataclasses
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amistack.coap.codes import Code, Type
from amistack.coap.message import Message
from amistack.errors import StoreUnusable
from amistack.identifiers import format_eui64
from amistack.model.event_catalogue import (
    DEVICE_ANSWERS,
    DEVICE_SILENT,
    DEVICE_SUBSCRIBED,
    DEVICE_UNSUBSCRIBED,
)
from amistack.model.home import DEVICE_COUNT_MAX, DeviceState, Unsubscription
from amistack.model.resources import HOME
from meterd.clock import MeterClock
from meterd.home.subscriptions import Subscriptions
from meterd.home.watch import (
    DETECTION_S,
    FAILURE_COUNT,
    FIRST_WITHIN_S,
    RETRANSMIT_MAX,
    TIMING,
    TRY_AGAIN_S,
    HomeWatch,
)
from meterd.storage import HOME as TABLE
from meterd.storage import Storage
from tests.meterd.home.devices import PERIOD_S, Home, device, place, subscription
from tests.support.power import TornFiles
from tests.support.worlds import World


@pytest.fixture
def home() -> Home:
    made = Home()
    made.power_on()
    made.world.elapse(60)
    return made


def standing(home: Home, number: int) -> DeviceState:
    (found,) = [
        one.state for one in home.listing().standings if one.subscription.device == device(number)
    ]
    return found


@pytest.mark.requirement("I2-FR-07")
def test_subscribed_device_that_stops_answering_is_told_of_by_name_and_no_other(
    home: Home,
) -> None:
    display, stranger = home.plug_in(7), home.plug_in(8)
    assert home.put(subscription(7, "kitchen display")) == Code.CHANGED
    home.world.elapse(2 * PERIOD_S)
    assert standing(home, 7) is DeviceState.ANSWERING
    assert home.told(DEVICE_SILENT) == []
    display.is_on = stranger.is_on = False
    home.world.elapse(PERIOD_S + DETECTION_S + 30)
    assert home.told(DEVICE_SILENT) == [
        f"{format_eui64(device(7))} kitchen display: {FAILURE_COUNT} tries"
    ]
    assert standing(home, 7) is DeviceState.SILENT
    # Told once, however long it lasts.
    home.world.elapse(10 * PERIOD_S)
    assert len(home.told(DEVICE_SILENT)) == 1
    assert home.told(DEVICE_ANSWERS) == []
    display.is_on = True
    home.world.elapse(PERIOD_S + 30)
    assert home.told(DEVICE_ANSWERS) == [f"{format_eui64(device(7))} kitchen display"]
    assert standing(home, 7) is DeviceState.ANSWERING
    # Nobody ever spoke to the other one.
    assert not any(
        place(subscription(8)) in (one.sender, one.receiver) for one in home.world.history
    )


@pytest.mark.requirement("I2-FR-07")
def test_device_that_is_no_longer_subscribed_may_be_silent(home: Home) -> None:
    display = home.plug_in(7)
    home.put(subscription(7))
    home.world.elapse(60)
    answer = home.ask(Code.POST, HOME, Unsubscription(device(7)).encode())
    assert answer.code == Code.CHANGED
    display.is_on = False
    before = len(home.world.history)
    home.world.elapse(5 * PERIOD_S)
    assert home.told(DEVICE_SILENT) == []
    assert place(subscription(7)) not in [one.receiver for one in home.world.history[before:]]
    assert home.listing().standings == ()
    assert [one.detail for one in home.entries(DEVICE_SUBSCRIBED)] == [
        f"{format_eui64(device(7))} device 7"
    ]
    assert len(home.entries(DEVICE_UNSUBSCRIBED)) == 1
    again = home.ask(Code.POST, HOME, Unsubscription(device(7)).encode())
    assert (again.code, again.payload) == (Code.NOT_FOUND, b"unknown device")


def lone_watch(seed: int = 0) -> tuple[World, HomeWatch, list[str | None]]:
    """A watch with device 7 alone in a world, its log a list."""
    world = World(seed)
    told: list[str | None] = []
    storage = Storage.on(TornFiles(random.Random(seed)))
    clock = MeterClock(utc=1_790_000_000.0, now=0.0)

    def log(event: object, detail: str | None = None, *, now: float) -> object:
        if event in (DEVICE_SILENT, DEVICE_ANSWERS):
            told.append(f"{event} at {now:.0f}")
        return event

    subscriptions = Subscriptions(storage, clock, log=log)  # type: ignore[arg-type]  # any entry
    watch = HomeWatch(subscriptions, dice=random.Random(seed), peer_of=place)
    host = world.add("meter's home", watch)

    def refresh() -> None:
        watch.refresh(now=world.now)
        host.settle()

    subscriptions.on_change = refresh
    assert subscriptions.subscribe(subscription(7), now=0.0) is None
    return world, watch, told


@pytest.mark.parametrize("missed", [FAILURE_COUNT - 1, FAILURE_COUNT])
def test_silence_is_told_after_three_tries_and_not_after_two(missed: int) -> None:
    from tests.meterd.home.devices import Device

    world, watch, told = lone_watch()
    beginner = Device()
    beginner.is_on = False
    world.add(place(subscription(7)), beginner)
    while watch.counters["pings without an answer"] < missed:
        world.elapse(1)
    assert watch.counters["pings"] == missed
    assert len(world.history) == 2 * missed * (1 + RETRANSMIT_MAX)  # sent and delivered
    beginner.is_on = True
    world.elapse(TRY_AGAIN_S + PERIOD_S)
    assert len(told) == (2 if missed == FAILURE_COUNT else 0)
    # Tries count in a row: two more without an answer are two, not four.
    beginner.is_on = False
    failures = watch.counters["pings without an answer"]
    while watch.counters["pings without an answer"] < failures + FAILURE_COUNT - 1:
        world.elapse(1)
    assert len(told) == (2 if missed == FAILURE_COUNT else 0)


@pytest.mark.parametrize("seed", range(20))
def test_silence_is_told_in_time_whatever_the_dice(seed: int) -> None:
    from tests.meterd.home.devices import Device

    world, watch, told = lone_watch(seed)
    made = Device()
    world.add(place(subscription(7)), made)
    world.elapse(FIRST_WITHIN_S + 100)
    assert watch.counters["pings"] == 1
    made.is_on = False
    off = world.now
    world.elapse(PERIOD_S + DETECTION_S + 1)
    (event,) = told
    least = TIMING.ack_timeout * (2 ** (RETRANSMIT_MAX + 1) - 1)
    after = float(str(event).rpartition(" ")[2]) - off
    assert FAILURE_COUNT * least <= after <= PERIOD_S + DETECTION_S
    assert DETECTION_S == 3 * 21 + 2 * 30


def test_power_cut_neither_forgets_a_silent_device_nor_tells_of_it_again(home: Home) -> None:
    display = home.plug_in(7)
    home.put(subscription(7))
    home.world.elapse(60)
    display.is_on = False
    home.world.elapse(PERIOD_S + DETECTION_S + 30)
    assert len(home.told(DEVICE_SILENT)) == 1
    home.power_off()
    home.world.elapse(60)
    home.power_on()
    home.world.elapse(5 * PERIOD_S)
    assert len(home.told(DEVICE_SILENT)) == 1
    display.is_on = True
    home.world.elapse(2 * PERIOD_S)
    assert len(home.told(DEVICE_ANSWERS)) == 1


def test_devices_of_the_settings_come_and_go_with_them(home: Home) -> None:
    home.put(subscription(1))
    home.power_off()
    home.fixed = (subscription(2), subscription(3))
    home.power_on()
    home.world.elapse(60)
    assert [(one.subscription.device, one.is_fixed) for one in home.listing().standings] == [
        (device(1), False),
        (device(2), True),
        (device(3), True),
    ]
    for answer in (
        home.ask(Code.PUT, HOME, subscription(2, "other").encode()),
        home.ask(Code.POST, HOME, Unsubscription(device(2)).encode()),
    ):
        assert (answer.code, answer.payload) == (
            Code.UNPROCESSABLE_ENTITY,
            b"in the meter's settings",
        )
    home.power_off()
    # What the settings say goes before the head-end's: the address of device 1 is wanted.
    home.fixed = (dataclasses.replace(subscription(1), device=device(9)),)
    home.power_on()
    home.world.elapse(60)
    assert [one.subscription.device for one in home.listing().standings] == [device(9)]


def test_subscriptions_that_cannot_be_are_refused_with_the_reason(home: Home) -> None:
    for number in range(1, DEVICE_COUNT_MAX + 1):
        assert home.put(subscription(number)) == Code.CHANGED
    entries = len(home.entries(DEVICE_SUBSCRIBED))
    # The same again is the same.
    assert home.put(subscription(1)) == Code.CHANGED
    assert len(home.entries(DEVICE_SUBSCRIBED)) == entries
    for wanted, reason in (
        (subscription(17), b"no room"),
        (dataclasses.replace(subscription(17), address=subscription(1).address),
         b"address of another device"),
        (dataclasses.replace(subscription(1), address=bytes(15) + b"\1"),
         b"address of another IP version"),
    ):  # fmt: skip
        answer = home.ask(Code.PUT, HOME, wanted.encode())
        assert (answer.code, answer.payload) == (Code.UNPROCESSABLE_ENTITY, reason)
    assert home.ask(Code.PUT, HOME, b"\x80").code == Code.BAD_REQUEST
    # A change of one that is there needs no room.
    assert home.put(subscription(1, "moved")) == Code.CHANGED


def test_more_silent_devices_than_the_log_takes_at_once_are_all_named_in_time(
    home: Home,
) -> None:
    names = [f"device {number}" for number in range(1, 11)]
    for number in range(1, 11):
        home.plug_in(number)
        home.put(subscription(number))
    home.world.elapse(2 * PERIOD_S)
    for one in home.devices.values():
        one.is_on = False
    home.world.elapse(PERIOD_S + DETECTION_S + 30)
    assert 0 < len(home.told(DEVICE_SILENT)) < len(names)
    home.world.elapse(4 * 3600)
    told = [str(detail) for detail in home.told(DEVICE_SILENT)]
    assert sorted(name for name in names for detail in told if f" {name}:" in detail) == sorted(
        names
    )


def test_state_that_cannot_be_kept_is_told_with_the_next_try(home: Home) -> None:
    display = home.plug_in(7)
    home.put(subscription(7))
    home.world.elapse(60)
    display.is_on = False
    home.fill_disk()
    home.world.elapse(PERIOD_S + DETECTION_S)
    assert home.watch.counters["state not kept"] > 0
    home.mend_disk()
    home.world.elapse(DETECTION_S + 600)
    assert len(home.told(DEVICE_SILENT)) == 1


def test_what_comes_from_strangers_and_what_is_no_message_counts_for_nothing() -> None:
    world, watch, told = lone_watch()
    at = place(subscription(7))
    world.elapse(FIRST_WITHIN_S)
    ping = Message(Code.EMPTY, Type.CON, 77).encode()
    watch.receive_datagram(ping, "stranger", now=world.now)
    watch.receive_datagram(b"nonsense", at, now=world.now)
    # A reset of something that was never sent.
    wrong = (watch._next_id + 5) % 65_536
    watch.receive_datagram(Message(Code.EMPTY, Type.RST, wrong).encode(), at, now=world.now)
    assert dict(watch.counters) == {
        "pings": 1,
        "not heard: nobody who is subscribed": 1,
        "not heard: no message": 1,
        "not heard: answer to nothing": 1,
    }
    assert watch.data_to_send() == []
    world.elapse(DETECTION_S + 10)
    assert len(told) == 1
    # Whatever the device itself says shows that it is there; what wants an answer gets a reset.
    watch.receive_datagram(ping, at, now=world.now)
    ((_, said),) = watch.data_to_send()
    assert Message.decode(said) == Message(Code.EMPTY, Type.RST, 77)
    assert len(told) == 2


@given(
    datagrams=st.lists(
        st.binary(max_size=40)
        | st.builds(
            lambda kind, code, number: Message(code, kind, number).encode(),
            st.sampled_from(Type),
            st.sampled_from([0, 1, 69]),
            st.integers(0, 65_535),
        ),
        max_size=20,
    )
)
@settings(deadline=None, max_examples=60)
def test_nothing_that_comes_raises_or_collects(datagrams: list[bytes]) -> None:
    world, watch, _ = lone_watch()
    for octets in datagrams:
        watch.receive_datagram(octets, place(subscription(7)), now=world.now)
        world.elapse(1)
        assert len(watch.data_to_send()) <= 1
    assert len(watch._pings) <= 1


def test_rows_that_no_meterd_writes_are_refused() -> None:
    storage = Storage.on(TornFiles(random.Random(1)))
    storage.put((TABLE, "0000000000000007", [b"\x80", False, 0, 0]))
    with pytest.raises(StoreUnusable, match="none of ours"):
        Subscriptions(storage, MeterClock(utc=0.0, now=0.0), log=lambda *_, **__: None)
