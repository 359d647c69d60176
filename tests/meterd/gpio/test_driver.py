"""Pins that are there, vanish and return; and a relay on one of them.

The contract under test: what changes on a pin reaches the meter once; a chip that fails is told of
once and opened again; a relay's pin is opened with the level it is to have.
"""

from __future__ import annotations

import asyncio
import os
import random
import sys
import types
from collections.abc import Callable, Mapping, Sequence

import pytest

from amistack.errors import ConfigError, LinkError
from meterd.gpio import Changed, Panel, PinSettings, Role
from meterd.gpio.driver import PinDriver
from meterd.gpio.pins import GpiodPins
from meterd.gpio.service import PinService
from meterd.metrology.power import LivePower
from meterd.metrology.registers import Reading
from meterd.service import Measured

LINES = {Role.COVER: 17, Role.BUTTON: 27}


class Board:
    """A chip of pins in memory; each has a level, and a pipe says when one changes."""

    def __init__(self) -> None:
        self.active: dict[int, bool] = {17: False, 27: False}
        self.is_broken = False
        self.opened = 0
        self.closed = 0
        self.outputs: list[tuple[int, bool]] = []
        self.outputs_opened = 0
        self._out = self._in = -1

    def open_inputs(self, lines: Sequence[int], *, active_low: bool) -> Board:
        if self.is_broken:
            raise OSError(19, "No such device")
        self._out, self._in = os.pipe()
        os.set_blocking(self._out, False)
        self.opened += 1
        return self

    def fileno(self) -> int:
        return self._out

    def read(self) -> None:
        os.read(self._out, 64)
        if self.is_broken:
            raise OSError(19, "No such device")

    def levels(self) -> Mapping[int, bool]:
        return dict(self.active)

    def close(self) -> None:
        if self._out >= 0:
            os.close(self._out)
            os.close(self._in)
            self._out = -1
            self.closed += 1

    def set_level(self, line: int, *, is_active: bool) -> None:
        self.active[line] = is_active
        if self._out >= 0:
            os.write(self._in, b"x")

    def open_output(self, line: int, *, is_active: bool) -> Relay:
        if self.is_broken:
            raise OSError(19, "No such device")
        self.outputs.append((line, is_active))
        self.outputs_opened += 1
        return Relay(self, line)


class Relay:
    def __init__(self, board: Board, line: int) -> None:
        self._board = board
        self._line = line

    def set(self, *, is_active: bool) -> None:
        if self._board.is_broken:
            raise OSError(5, "Input/output error")
        self._board.outputs.append((self._line, is_active))

    def close(self) -> None: ...


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110  a pipe is in between
            await asyncio.sleep(0.005)


@pytest.mark.both_loops
async def test_change_of_a_pin_is_told_once_and_a_chip_that_vanishes_is_opened_again() -> None:
    board = Board()
    changes: list[Changed] = []
    presence: list[str | None] = []
    panel = Panel(LINES)
    driver = PinDriver(panel, board, LINES, first_wait_s=0.01, check_s=0.05)
    driver.start(
        on_change=lambda change, _: changes.append(change),
        on_presence=presence.append,
        dice=random.Random(1),
    )
    try:
        await until(lambda: panel.level(Role.COVER) is False)
        board.set_level(17, is_active=True)
        await until(lambda: changes)
        assert changes == [Changed(Role.COVER, is_on=True)]
        board.is_broken = True
        board.set_level(17, is_active=True)
        await until(lambda: presence)
        assert panel.level(Role.COVER) is None
        await asyncio.sleep(0.1)
        assert len(presence) == 1
        assert "No such device" in str(presence[0])
        board.is_broken = False
        board.active[17] = False
        await until(lambda: len(changes) == 2)
        assert (changes[1], presence[1:]) == (Changed(Role.COVER, is_on=False), [None])
        assert board.opened == 2
    finally:
        driver.stop()
        await driver.wait_stopped()
    assert board.closed == 2


# The relay


def test_relay_s_pin_is_opened_with_the_level_it_is_to_have_and_kept() -> None:
    for opens_when_active, levels in ((True, [True, False]), (False, [False, True])):
        board = Board()
        service = PinService(Panel([]), board, relay_line=22, opens_when_active=opens_when_active)
        assert board.outputs == []
        service.drive(is_closed=False, now=0.0)
        service.drive(is_closed=True, now=1.0)
        assert board.outputs == [(22, level) for level in levels]


def test_relay_that_cannot_be_had_is_a_link_error_and_opened_again_later() -> None:
    board = Board()
    service = PinService(Panel([]), board, relay_line=22)
    service.drive(is_closed=False, now=0.0)
    board.is_broken = True
    with pytest.raises(LinkError, match="relay pin"):
        service.drive(is_closed=True, now=1.0)
    board.is_broken = False
    service.drive(is_closed=True, now=2.0)
    assert board.outputs == [(22, True), (22, False)]
    assert board.outputs_opened == 2


def test_what_is_measured_is_what_the_pins_say_and_no_more() -> None:
    panel = Panel([Role.POWER, Role.LOAD, Role.CONTACT])
    power = LivePower()
    power.take(Reading((), power_w=460.0), now=0.0)
    service = PinService(panel, Board(), relay_line=22, power=power)
    assert service.measure(now=0.0) == Measured(None, None, 2_000, 460, None)
    for role, is_on in ((Role.POWER, False), (Role.LOAD, True), (Role.CONTACT, True)):
        panel.take(role, is_on=is_on, now=0.0)
    panel.handle_timer(now=10.0)
    seen = service.measure(now=10.0)
    assert (seen.is_line_live, seen.is_load_live, seen.is_contact_closed) == (True, True, True)
    assert PinService(panel, Board(), relay_line=22).measure(now=10.0).is_current is None


# Settings, and the library


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"cover": -1}, "no line of a chip"),
        ({"cover": 1_024}, "no line of a chip"),
        ({"cover": 4, "tilt": 4}, "named twice"),
        ({"cover": 4, "relay": 4}, "named twice"),
        ({"load": 4}, "go with a relay"),
    ],
)
def test_pins_that_cannot_be_are_refused_in_a_line(given: dict[str, int], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        PinSettings(**given)  # type: ignore[arg-type]  # lines


def test_settings_name_the_inputs_that_there_are() -> None:
    assert PinSettings().inputs == {}
    assert PinSettings(cover=1_023, button=0).inputs == {Role.COVER: 1_023, Role.BUTTON: 0}


def test_missing_library_is_a_line_that_says_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "gpiod", None)
    with pytest.raises(ConfigError, match=r"pip install 'amistack\[gpio\]'"):
        GpiodPins("/dev/gpiochip0")


def test_library_is_asked_for_edges_levels_and_outputs(monkeypatch: pytest.MonkeyPatch) -> None:
    """With what gpiod 2 offers, as far as it is used here."""
    asked: list[tuple[object, ...]] = []

    class Request:
        fd = 7

        def __init__(self, chip: str, consumer: str, config: Mapping[object, object]) -> None:
            asked.append((chip, consumer, config))

        def read_edge_events(self, most: int) -> list[object]:
            return []

        def get_values(self, lines: Sequence[int]) -> list[bool]:
            return [line == 17 for line in lines]

        def set_value(self, line: int, value: str) -> None:
            asked.append((line, value))

        def release(self) -> None:
            asked.append(("released",))

    line = types.SimpleNamespace(
        Edge=types.SimpleNamespace(BOTH="both"),
        Bias=types.SimpleNamespace(PULL_UP="up", PULL_DOWN="down"),
        Direction=types.SimpleNamespace(INPUT="in", OUTPUT="out"),
        Value=types.SimpleNamespace(ACTIVE="active", INACTIVE="inactive"),
    )
    gpiod = types.ModuleType("gpiod")
    vars(gpiod).update(line=line, LineSettings=lambda **settings: settings, request_lines=Request)
    monkeypatch.setitem(sys.modules, "gpiod", gpiod)

    pins = GpiodPins("/dev/gpiochip4")
    inputs = pins.open_inputs((17, 27), active_low=True)
    inputs.read()
    assert (inputs.fileno(), inputs.levels()) == (7, {17: True, 27: False})
    inputs.close()
    relay = pins.open_output(22, is_active=False)
    relay.set(is_active=True)
    settings = {"direction": "in", "edge_detection": "both", "bias": "up", "active_low": True}
    assert asked == [
        ("/dev/gpiochip4", "meterd", {(17, 27): settings}),
        ("released",),
        ("/dev/gpiochip4", "meterd", {22: {"direction": "out", "output_value": "inactive"}}),
        (22, "active"),
    ]
