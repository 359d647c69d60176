"""What flows through a real meter now, and what its switch, load limit and display make of it.

The contract under test: telegrams and registers give power and currents exactly; what is older than
FRESH_S is not known, nor what came before a relay had settled; a switch believes what is measured
after its move and nothing else.
"""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal
from pathlib import Path

import pytest

from amistack.model.control import Action, LoadLimit, Outcome, Position
from meterd.config import MetrologySettings
from meterd.gpio.panel import Panel, Role
from meterd.gpio.service import PinService
from meterd.metrology.drivers import Driver, ModbusDriver, SerialDriver, modbus_client
from meterd.metrology.live import LiveSource, Sensor
from meterd.metrology.modbus import MODELS, ModbusTable, Words
from meterd.metrology.opening import open_driver
from meterd.metrology.power import (
    AMPERES_MAX,
    FRESH_S,
    POWER_W_MAX,
    SETTLE_S,
    Flowing,
    LivePower,
    PulsePower,
    flowing_of,
)
from meterd.metrology.pulse import PulseCounter
from meterd.metrology.registers import Reading, Register, RegisterTracker
from meterd.metrology.sml import SmlTelegrams
from meterd.metrology.source import Flow
from meterd.storage import Storage
from meterd.switch import Switch
from meterd.switch.confirmation import CONFIRM_S
from tests.meterd.gpio.test_driver import Board
from tests.meterd.switch.house import House as MadeUpHouse
from tests.meterd.switch.house import always
from tests.meterd.test_dsmr import OLD, a_telegram, recorded
from tests.meterd.test_modbus import Slave, device, words_of
from tests.meterd.test_sensor import Device, House, until
from tests.meterd.test_sml import entry, telegram_of

ENERGY = "1-0:1.8.0(000004.426*kWh)"


# What meters say


@pytest.mark.parametrize(
    ("name", "power_w", "currents_a"),
    # As a person reads them in the telegrams' lines 1.7.0, 2.7.0 and 31.7.0 to 71.7.0.
    [
        ("telegram_v2_2", 1010.0, ()),
        ("telegram_v3", 1190.0, ()),
        ("telegram_v4_2", 2027.0, (0.0, 6.0, 2.0)),
        ("telegram_v5", 244.0, (0.48, 0.44, 0.86)),
        ("telegram_v5_two_mbus", 111.0, (0.0, 0.0, 1.0)),
    ],
)
def test_recorded_telegram_says_its_power_and_currents(
    name: str, power_w: float, currents_a: tuple[float, ...]
) -> None:
    pytest.importorskip("dsmr_parser", reason="pip install 'amistack[dsmr]'")
    from meterd.metrology.dsmr import DsmrTelegrams

    telegrams = DsmrTelegrams(has_check_sum=name not in OLD)
    (reading,) = telegrams.receive_data(recorded(name))
    assert reading.power_w == pytest.approx(power_w)
    assert reading.currents_a == currents_a
    assert not telegrams.refused


@pytest.mark.parametrize(
    ("lines", "power_w", "refused"),
    [
        (("1-0:1.7.0(00.000*kW)", "1-0:2.7.0(01.500*kW)"), -1500.0, {}),
        (("1-0:1.7.0(00.003*kW)",), 3.0, {}),
        (("1-0:2.7.0(00.003*kW)",), None, {}),
        ((), None, {}),
        (("1-0:1.7.0(00.244*W)",), None, {"unreadable: 1.7.0": 1}),
        (("1-0:1.7.0(-0.244*kW)",), None, {"unreadable: 1.7.0": 1}),
        (("1-0:1.7.0(00.244*kW)", "1-0:2.7.0(x*kW)"), None, {"unreadable: 2.7.0": 1}),
        (("1-0:1.7.0(00.244*kW)", "1-0:31.7.0(1*V)"), 244.0, {"unreadable: 31.7.0": 1}),
    ],
)
def test_telegram_is_good_without_its_power_and_what_is_unreadable_is_counted(
    lines: tuple[str, ...], power_w: float | None, refused: dict[str, int]
) -> None:
    pytest.importorskip("dsmr_parser", reason="pip install 'amistack[dsmr]'")
    from meterd.metrology.dsmr import DsmrTelegrams

    telegrams = DsmrTelegrams()
    (reading,) = telegrams.receive_data(a_telegram(ENERGY, *lines))
    assert (reading.power_w, reading.currents_a) == (power_w, ())
    assert telegrams.refused == refused


def test_optical_head_gives_power_and_currents() -> None:
    power = entry("0100100700FF", unit="621B", scaler="52FF", value="53F830")  # -2000 x 0.1 W
    amperes = entry("01001F0700FF", unit="6221", scaler="52FE", value="62D7")  # 215 x 0.01 A
    (reading,) = SmlTelegrams().receive_data(telegram_of("02AA", entry(), power, amperes))
    assert reading.power_w == pytest.approx(-200.0)
    assert reading.currents_a == pytest.approx((2.15,))
    for odd in (
        entry("0100100700FF", unit="621E", scaler="5200", value="6207"),  # Wh
        entry("0100240700FF", unit="621B", scaler="5200", value="6207"),  # of one phase
        entry("0100100700FF", unit="621B", scaler="5200", value="01"),  # not said
    ):
        (reading,) = SmlTelegrams().receive_data(telegram_of("02AA", entry(), odd))
        assert (reading.power_w, reading.currents_a) == (None, ())


class PowerSlave(Slave):
    """A meter that says its power, too."""

    def __init__(self, address: int = 0x34) -> None:
        super().__init__()
        self.address = address
        self.watts = -1250.5

    def words(self, function: int, address: int) -> list[int] | None:
        if (function, address) == (4, self.address):
            return words_of(Words.FLOAT32, self.watts)
        return super().words(function, address)


@asynccontextmanager
async def modbus(slave: Slave, model: str) -> AsyncIterator[Sensor]:
    """A sensor that is fed from a device on loopback."""
    known = MODELS[model]
    table = ModbusTable(
        {Flow.DELIVERED: known.places[Flow.DELIVERED]}, Decimal(1000), power=known.power
    )
    sensor = Sensor(LiveSource(RegisterTracker((Flow.DELIVERED,))))
    async with device(slave) as port:
        made = modbus_client(host_and_port=("127.0.0.1", port), device="", baud_rate=9600)
        driver = ModbusDriver(sensor, table, made, name="m", unit=1, poll_s=0.02, silence_s=60)
        at = iter(range(1_790_000_000, 1_800_000_000))
        driver.start(utc=lambda: next(at), on_note=lambda _: None, dice=random.Random(1))
        try:
            yield sensor
        finally:
            driver.stop()
            await driver.wait_stopped()


@pytest.mark.parametrize(("model", "address"), [("sdm120", 0x0C), ("sdm630", 0x34)])
async def test_modbus_meter_is_asked_for_its_power(model: str, address: int) -> None:
    pytest.importorskip("pymodbus", reason="pip install 'amistack[modbus]'")
    slave = PowerSlave(address)
    async with modbus(slave, model) as sensor:
        await until(lambda: sensor.power.look(now=asyncio.get_running_loop().time()))
        flowing = sensor.power.look(now=asyncio.get_running_loop().time())
        assert flowing is not None
        assert flowing.power_w == -1250
        slave.watts = math.nan
        await until(lambda: sensor.refused["unreadable: power"])
        readings = sensor.readings
        await until(lambda: sensor.readings > readings + 2)


async def test_modbus_meter_that_refuses_its_power_is_not_asked_again() -> None:
    pytest.importorskip("pymodbus", reason="pip install 'amistack[modbus]'")
    async with modbus(Slave(), "sdm630") as sensor:
        await until(lambda: sensor.readings > 4)
        assert sensor.refused == {"power refused": 1}
        assert sensor.power.look(now=asyncio.get_running_loop().time()) is None


# What is of now


def watts(power_w: float | None, *currents_a: float) -> Reading:
    return Reading((), power_w=power_w, currents_a=currents_a)


def test_reading_is_of_now_for_so_long_and_not_longer() -> None:
    power = LivePower()
    assert power.look(now=100.0) is None
    power.take(watts(460.4), now=100.0)
    assert power.look(now=100.0 + FRESH_S) == Flowing(460, 2_000)
    assert power.look(now=100.0 + FRESH_S + 0.01) is None
    # What says nothing of it, or cannot be, makes it neither younger nor none.
    power.take(watts(None), now=105.0)
    power.take(watts(math.nan), now=105.0)
    assert power.look(now=100.0 + FRESH_S) == Flowing(460, 2_000)
    assert power.look(now=100.0 + FRESH_S + 0.01) is None
    power.take(watts(1.0), now=113.0)
    power.forget()
    assert power.look(now=113.0) is None


@pytest.mark.parametrize(("late_s", "counts"), [(SETTLE_S, True), (SETTLE_S - 0.01, False)])
def test_after_a_move_only_what_came_after_it_counts(late_s: float, counts: bool) -> None:
    power = LivePower()
    power.take(watts(460.0), now=99.0)
    assert power.look(now=101.0, moved=100.0) is None
    power.take(watts(0.0), now=100.0 + late_s)
    expected = Flowing(0, 0) if counts else None
    assert power.look(now=103.0, moved=100.0) == expected


def test_phases_that_sum_to_nothing_are_current_and_what_cannot_be_is_none() -> None:
    assert flowing_of(0.0, (4.5, 0.0, 4.0)) == Flowing(0, 4_500)
    assert flowing_of(-2300.0, (1.0,)) == Flowing(-2300, 10_000)
    assert flowing_of(POWER_W_MAX) is not None
    assert flowing_of(-POWER_W_MAX - 1) is None
    assert flowing_of(0.0, (AMPERES_MAX,)) is not None
    assert flowing_of(0.0, (AMPERES_MAX + 1,)) is None
    assert flowing_of(0.0, (math.nan,)) is None


def test_only_a_reading_that_counts_has_power_and_a_lost_device_has_none() -> None:
    registers = (Register("1.8.0", Flow.DELIVERED, 1_000),)
    sensor = Sensor(LiveSource(RegisterTracker((Flow.DELIVERED,), meter="A")))
    other = Reading(registers, "B", power_w=99.0)
    assert not sensor.take(other, utc=1_790_000_000, now=1.0)
    assert sensor.power.look(now=1.0) is None
    own = Reading(registers, "A", 1_790_000_000, power_w=460.0)
    assert sensor.take(own, utc=1_790_000_001, now=2.0)
    assert sensor.power.look(now=2.0) == Flowing(460, 2_000)
    # A gateway that repeats itself makes it no younger.
    assert not sensor.take(own, utc=1_790_000_010, now=10.0)
    assert sensor.power.look(now=2.0 + FRESH_S + 1) is None
    sensor.lose("unplugged")
    assert sensor.power.look(now=2.0) is None


def test_pulse_input_has_its_power_from_the_time_between_pulses() -> None:
    pytest.importorskip("serialx", reason="pip install 'amistack[serial]'")
    settings = MetrologySettings(source="pulse", device="/dev/null", pulses_per_kwh=500)
    driver = open_driver(settings, offset_min=0, today=0, register_start=(), kept=None)
    counter = PulseCounter(500)
    for now, count in ((0.0, 0), (1.0, 1), (3.0, 1)):
        driver.sensor.take(counter.add(count), utc=1_790_000_000 + now, now=now)
    assert driver.sensor.power.look(now=3.0) == flowing_of(3600)


class Pulses:
    """1000 for a kWh: 3600 W are one in a second."""

    def __init__(self) -> None:
        self.power = PulsePower(1000)
        self._counter = PulseCounter(1000)

    def come(self, now: float, count: int = 1) -> None:
        self.power.take(self._counter.add(count), now=now)

    def watts(self, now: float, moved: float = -math.inf) -> int | None:
        flowing = self.power.look(now=now, moved=moved)
        return None if flowing is None else flowing.power_w


def test_time_between_pulses_is_the_power_and_without_one_it_is_at_most_so_much() -> None:
    pulses = Pulses()
    pulses.come(0.0, 0)
    assert pulses.watts(0.0) is None
    pulses.come(10.0)
    assert pulses.watts(10.0) is None
    pulses.come(12.0)
    assert pulses.watts(12.0) == 1800
    pulses.come(13.0, 0)
    assert pulses.watts(13.0) == 1800
    pulses.come(16.0, 0)
    assert pulses.watts(16.0) == 900
    # Nobody says that none came: then it is not known.
    assert pulses.watts(16.0 + FRESH_S) == 900
    assert pulses.watts(16.0 + FRESH_S + 0.01) is None
    pulses.come(22.0, 5)
    assert pulses.watts(22.0) == 1800
    pulses.power.forget()
    pulses.come(23.0)
    assert pulses.watts(23.0) is None


def test_after_a_move_two_pulses_are_current_and_one_or_none_says_nothing_for_long() -> None:
    pulses = Pulses()
    for now in (8.0, 9.0, 10.0):
        pulses.come(now)
    assert pulses.watts(10.0) == 3600
    assert pulses.watts(10.0, moved=10.0) is None
    pulses.come(12.5)
    assert pulses.watts(12.5, moved=10.0) is None
    pulses.come(13.5)
    assert pulses.watts(13.5, moved=10.0) == 3600
    # 1 Wh in 400 s is 9 W: not before that is it known that nothing flows.
    moved = 20.0
    for now in range(30, 450, 10):
        pulses.come(now, 0)
        is_known = now - moved - SETTLE_S > 400
        assert pulses.watts(now, moved=moved) == (0 if is_known else None), now


# A switch over a relay, with a P1 meter at a pseudo-terminal


class Relayed:
    """A switch with a pin for its relay, a P1 port, and a clock of the test's."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, *, every_s: int = 1) -> None:
        from meterd.metrology.dsmr import DsmrTelegrams

        monkeypatch.setattr(Driver, "_loop_time", staticmethod(lambda: self.now))
        self.now = 1_000.0
        self.every_s = every_s
        self.watts = 2_000
        self.when_open_w = 0
        self.is_silent = False
        self.board = Board()
        self.panel = Panel([Role.POWER])
        self.sensor = Sensor(LiveSource(RegisterTracker((Flow.DELIVERED,))), silence_s=600)
        self.service = PinService(self.panel, self.board, relay_line=4, power=self.sensor.power)
        self.house = MadeUpHouse(has_load_sensor=False)
        self.house.now = self.now
        self.house.storage = Storage.on(self.house.files)
        self.house.switch = Switch(
            self.house.storage,
            self.service,
            self.house.clock,
            log=self.house.take_event,
            has_load_sensor=False,
        )
        self.device = Device(folder / "p1")
        self._driver = SerialDriver(
            self.sensor,
            DsmrTelegrams(),
            device=str(self.device.path),
            baud_rate=115_200,
            silence_s=600,
        )

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Relayed]:
        self._driver.start(
            utc=lambda: 1_790_000_000 + self.now, on_note=lambda _: None, dice=random.Random(1)
        )
        self.house.switch.start(now=self.now)
        try:
            await until(lambda: self.sensor.readings, lambda: self.device.send(self.telegram()))
            await self.run(2)
            yield self
        finally:
            self._driver.stop()
            await self._driver.wait_stopped()
            self.device.close()

    def telegram(self) -> bytes:
        is_open = bool(self.board.outputs) and self.board.outputs[-1][1]
        kilowatts = (self.when_open_w if is_open else self.watts) / 1000
        return a_telegram(ENERGY, f"1-0:1.7.0({kilowatts:06.3f}*kW)", "1-0:2.7.0(00.000*kW)")

    async def run(self, seconds: int) -> None:
        """Second by second: a telegram if one is due, then whatever the switch wants to do."""
        for _ in range(seconds):
            self.now += 1
            if not self.is_silent and self.now % self.every_s == 0:
                had = self.sensor.readings
                self.device.send(self.telegram())
                await until(lambda had=had: self.sensor.readings > had)  # type: ignore[misc]
            self.house.run(self.now - self.house.now)

    def outcome(self) -> Outcome:
        return self.house.switch.state(now=self.now).outcome

    def position(self) -> Position:
        return self.house.switch.state(now=self.now).position


@pytest.mark.parametrize("every_s", [1, 5])
async def test_opening_is_confirmed_when_the_meter_says_that_nothing_flows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, every_s: int
) -> None:
    pytest.importorskip("dsmr_parser", reason="pip install 'amistack[dsmr]'")
    async with Relayed(tmp_path, monkeypatch, every_s=every_s).running() as meter:
        await meter.run(8)
        meter.house.command(1, Action.DISCONNECT)
        assert meter.board.outputs == [(4, True)]
        await meter.run(int(SETTLE_S))
        assert meter.outcome() is Outcome.PENDING  # Not by what was measured before.
        await meter.run(int(CONFIRM_S - SETTLE_S))
        assert (meter.position(), meter.outcome()) == (Position.OPEN, Outcome.CONFIRMED)
        # Closed again: what is drawn confirms it.
        meter.house.command(2, Action.CONNECT)
        await meter.run(int(CONFIRM_S))
        assert (meter.position(), meter.outcome()) == (Position.CLOSED, Outcome.CONFIRMED)


async def test_opening_is_contradicted_when_the_meter_goes_on_to_say_that_current_flows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("dsmr_parser", reason="pip install 'amistack[dsmr]'")
    async with Relayed(tmp_path, monkeypatch).running() as meter:
        meter.when_open_w = 2_000
        meter.house.command(1, Action.DISCONNECT)
        await meter.run(int(CONFIRM_S))
        assert meter.outcome() is Outcome.CONTRADICTED
        assert ("contradicted: current flows") in [detail for _, detail in meter.house.log]


@pytest.mark.parametrize("action", [Action.DISCONNECT, Action.CONNECT])
async def test_silent_meter_neither_confirms_nor_contradicts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, action: Action
) -> None:
    pytest.importorskip("dsmr_parser", reason="pip install 'amistack[dsmr]'")
    async with Relayed(tmp_path, monkeypatch).running() as meter:
        if action is Action.CONNECT:
            meter.house.command(1, Action.DISCONNECT)
            await meter.run(int(CONFIRM_S))
            assert meter.outcome() is Outcome.CONFIRMED
        meter.is_silent = True
        meter.house.command(2, action)
        await meter.run(int(CONFIRM_S))
        assert meter.outcome() is Outcome.UNCONFIRMED


@pytest.mark.parametrize("every_s", [1, 10])
async def test_load_over_the_limit_opens_and_without_telegrams_it_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, every_s: int
) -> None:
    pytest.importorskip("dsmr_parser", reason="pip install 'amistack[dsmr]'")
    async with Relayed(tmp_path, monkeypatch, every_s=every_s).running() as meter:
        limit: LoadLimit = always(2_500)
        meter.house.command(1, Action.LIMIT, limit=limit)
        await meter.run(limit.over_s + 20)
        assert meter.position() is Position.CLOSED
        meter.watts = 2_600
        await meter.run(5)
        meter.is_silent = True
        await meter.run(limit.over_s + 60)
        assert meter.position() is Position.CLOSED
        meter.is_silent = False
        await meter.run(limit.over_s + every_s + 2)
        assert meter.position() is Position.LIMITED


async def test_display_and_switch_of_a_running_meter_have_the_power_of_its_p1_port(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("dsmr_parser", reason="pip install 'amistack[dsmr]'")
    board = Board()
    monkeypatch.setattr("meterd.gpio.keeper.GpiodPins", lambda _: board)
    house = House(tmp_path, 'source = "dsmr"')
    house.config.write_text(house.config.read_text() + "\n[pins]\nrelay = 4\n")
    telegram = a_telegram(ENERGY, "1-0:1.7.0(00.244*kW)", "1-0:2.7.0(00.000*kW)")
    async with house.running() as meter:
        assert meter._link is not None
        now = meter._link.now
        assert meter.fittings.viewer.look(now=now()).demand_w is None
        await until(
            lambda: meter.fittings.viewer.look(now=now()).demand_w == 244,
            lambda: house.device.send(telegram),
        )
        assert meter.fittings.switch is not None
        assert meter.fittings.switch.state(now=now()).current.name == "PRESENT"
    house.device.close()
