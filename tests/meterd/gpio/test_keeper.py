"""The pins of a running meter.

The contract under test: a contact's change becomes its event; the button reads a message first and
closes an armed switch after; pins that vanish are on record once; a full disk ends nothing.
"""

from __future__ import annotations

import asyncio
import random

import pytest
import structlog

from amistack.errors import ConfigError, StoreError
from amistack.model import EndDeviceEventType
from amistack.model.control import Action, Position
from amistack.model.messages import TextMessage
from meterd.events.sources import EventSources
from meterd.gpio import PinSettings
from meterd.gpio.keeper import PINS_LOST, PINS_RETURNED, PinKeeper, open_pins
from tests.meterd.display.test_viewing import Meter
from tests.meterd.gpio.test_driver import Board, until
from tests.meterd.switch.house import MONDAY

SETTINGS = PinSettings(cover=17, tilt=18, power=22, button=27)


class Kept:
    """A keeper on a board in memory, and what it told."""

    def __init__(self) -> None:
        self.board = Board()
        self.board.active = dict.fromkeys((17, 18, 22, 27), False)
        self.log: list[str] = []
        self.pressed = 0
        self.is_full = False
        self.keeper = PinKeeper(SETTINGS, self.board)

    def record(
        self, event: EndDeviceEventType, detail: str | None = None, *, now: float = 0.0
    ) -> None:
        if self.is_full:
            raise StoreError("disk full")
        self.log.append(str(event))

    def press(self) -> None:
        self.pressed += 1

    def start(self) -> None:
        self.keeper._driver._first_wait_s = 0.01
        self.keeper.start(
            sources=EventSources(self.record),
            press=self.press,
            record=self.record,
            now=lambda: 1.0,
            dice=random.Random(1),
            log=structlog.wrap_logger(structlog.ReturnLogger()),
        )

    async def stop(self) -> None:
        self.keeper.stop()
        await self.keeper.wait_stopped()


@pytest.mark.both_loops
async def test_contacts_become_events_and_the_button_a_press() -> None:
    kept = Kept()
    kept.start()
    try:
        await until(lambda: kept.keeper.panel.is_there)
        for line, event in ((17, "3.12.29.39"), (22, "3.26.0.47"), (18, "3.12.0.263")):
            kept.board.set_level(line, is_active=True)
            await until(lambda event=event: event in kept.log)
        kept.board.set_level(17, is_active=False)
        await until(lambda: "3.12.29.16" in kept.log)
        kept.board.set_level(27, is_active=True)
        await until(lambda: kept.pressed)
        kept.board.set_level(27, is_active=False)
        await asyncio.sleep(0.15)
        assert (kept.pressed, len(kept.log)) == (1, 4)
    finally:
        await kept.stop()


@pytest.mark.both_loops
async def test_pins_that_vanish_and_return_are_on_record_and_a_full_disk_ends_nothing() -> None:
    kept = Kept()
    kept.start()
    try:
        await until(lambda: kept.keeper.panel.is_there)
        kept.board.is_broken = True
        kept.board.set_level(17, is_active=False)
        await until(lambda: kept.log)
        kept.board.is_broken = False
        await until(lambda: len(kept.log) == 2)
        assert kept.log == [str(PINS_LOST), str(PINS_RETURNED)]
        kept.is_full = True
        kept.board.set_level(17, is_active=True)
        await asyncio.sleep(0.3)
        kept.is_full = False
        kept.board.set_level(18, is_active=True)
        await until(lambda: "3.12.0.263" in kept.log)
    finally:
        await kept.stop()


def test_button_reads_a_message_first_and_closes_an_armed_switch_after() -> None:
    meter = Meter()
    meter.command(1, Action.DISCONNECT)
    meter.run(20)
    meter.command(2, Action.ARM)
    meter.run(20)
    utc = int(MONDAY + meter.now)
    hello = TextMessage(3, utc, utc + 900, is_to_acknowledge=True, text="Hello")
    meter.mailbox.take(hello, now=meter.now)
    meter.look()
    meter.viewer.press_button(now=meter.now)
    assert meter.switch.state(now=meter.now).position is Position.ARMED
    assert meter.look().messages == ()
    meter.viewer.press_button(now=meter.now)
    assert meter.switch.state(now=meter.now).position is Position.CLOSED


def test_relay_goes_with_a_real_meter() -> None:
    with pytest.raises(ConfigError, match="goes with a real meter"):
        open_pins(PinSettings(relay=4), is_live=False)


def test_meter_with_nothing_but_a_relay_has_a_service_and_listens_to_nothing() -> None:
    keeper = PinKeeper(PinSettings(relay=4), Board())
    assert keeper.service is not None
    assert not keeper.has_load_sensor
    keeper.stop()
