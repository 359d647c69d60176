"""What real meters show beside active energy: voltage and reactive energy.

The contract under test: telegrams and Modbus registers give them exactly; a step's voltage is the
mean of what was read, and is not known where readings leave a hole; a channel that a programme asks
for has what the meter showed, and from both energies follows the power factor.
"""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest

from amistack import settings as toml
from amistack.coap.codes import Code
from amistack.errors import ConfigError, SourceError
from amistack.model.programme import Programme, ProgrammeChannel
from amistack.model.quantity import Measured, Quantity, power_factor, registered
from amistack.model.resources import PROGRAMME
from meterd.config import MetrologySettings
from meterd.metrology.live import LiveSource, Sensor
from meterd.metrology.modbus import MODELS, Place, Words
from meterd.metrology.opening import modbus_table, open_driver
from meterd.metrology.registers import Reading, Register, RegisterTracker
from meterd.metrology.sml import SmlTelegrams
from meterd.metrology.source import Flow
from meterd.metrology.voltage import STEP_COUNT_MAX, LiveSupply
from meterd.recorder import Recorder
from meterd.storage import Storage
from tests.meterd.local.whole import Whole, request
from tests.meterd.test_modbus import Slave, device, words_of
from tests.meterd.test_sml import entry, telegram_of
from tests.support.power import TornFiles
from tests.support.test_data import recorded_data

MIDNIGHT = 20_700 * 86_400
STEP_S = 300
BOTH = (Flow.DELIVERED, Flow.REACTIVE)


def fed(*readings: tuple[float, float], tolerance_s: float = 15) -> LiveSupply:
    """A supply with readings at seconds after midnight."""
    supply = LiveSupply(interval_s=STEP_S, tolerance_s=tolerance_s)
    for at, volts in readings:
        supply.take((volts,), utc=MIDNIGHT + at)
    return supply


def decivolts(supply: LiveSupply, count: int = 1, length_s: int = STEP_S) -> list[int | None]:
    return [one.decivolts for one in supply.quality(MIDNIGHT, count, length_s=length_s)]


def every(
    seconds: float, first: float, last: float, volts: float = 230.0
) -> list[tuple[float, float]]:
    count = int((last - first) / seconds)
    return [(first + n * seconds, volts) for n in range(count + 1)]


# Means


def test_step_has_the_mean_of_its_readings_and_longer_intervals_that_of_their_steps() -> None:
    supply = fed(*every(10, 0, 290, 229.0), *every(10, 300, 590, 232.0), (600, 240))
    assert decivolts(supply, 2) == [2290, 2320]
    assert decivolts(supply, 1, 600) == [2305]
    halves = [(at, 230.0 if at < 150 else 231.0) for at, _ in every(10, 0, 290)]
    assert decivolts(fed(*halves)) == [2305]
    # Half up.
    assert decivolts(fed(*every(10, 0, 290, 230.05))) == [2301]


@pytest.mark.parametrize(
    ("readings", "is_known"),
    [
        (every(10, 15, 290), True),
        (every(10, 15.1, 290), False),
        (every(10, 5, 285), True),
        (every(10, 4.9, 285), False),
        ([*every(15, 0, 90), *every(15, 105, 290)], True),
        ([*every(15, 0, 90), *every(15, 105.1, 290)], False),
        # A clock that went back counts a time twice.
        ([*every(10, 0, 200), *every(10, 150, 290)], False),
        ([], False),
    ],
)
def test_step_is_known_where_no_hole_is_longer_than_the_tolerance(
    readings: list[tuple[float, float]], is_known: bool
) -> None:
    assert decivolts(fed(*readings)) == [2300 if is_known else None]
    # A longer interval is not known as soon as one of its steps is not.
    supply = fed(*readings, *every(10, 300, 590))
    assert decivolts(supply, 1, 600) == [2300 if is_known else None]


def test_mean_of_the_phases_counts_and_what_is_no_voltage_does_not() -> None:
    supply = LiveSupply(interval_s=STEP_S)
    for at in range(0, STEP_S, 10):
        supply.take((229.0, 230.0, 234.0), utc=MIDNIGHT + at)
        supply.take((float("nan"), 230.0), utc=MIDNIGHT + at)
        supply.take((-1.0,), utc=MIDNIGHT + at)
        supply.take((1_001.0,), utc=MIDNIGHT + at)
        supply.take((), utc=MIDNIGHT + at)
    assert decivolts(supply) == [2310]
    with pytest.raises(SourceError):
        supply.quality(MIDNIGHT + 1, 1, length_s=STEP_S)


def test_no_more_steps_are_kept_than_the_limit() -> None:
    supply = LiveSupply(interval_s=STEP_S)
    for step in range(STEP_COUNT_MAX + 10):
        supply.take((230.0,), utc=MIDNIGHT + step * STEP_S)
    assert len(supply._steps) == STEP_COUNT_MAX
    assert min(supply._steps) == MIDNIGHT + 10 * STEP_S


# What meters send


def test_p1_port_gives_voltages_and_reactive_energy() -> None:
    pytest.importorskip("dsmr_parser", reason="pip install 'amistack[dsmr]'")
    from meterd.metrology.dsmr import DsmrTelegrams
    from tests.meterd.test_dsmr import a_telegram

    (recorded,) = DsmrTelegrams().receive_data(
        (recorded_data() / "dsmr" / "telegram_v5.txt").read_bytes()
    )
    assert recorded.volts == (230.0, 230.0, 229.0)
    telegrams = DsmrTelegrams()
    energy = "1-0:1.8.0(000004.426*kWh)"
    (swedish,) = telegrams.receive_data(
        a_telegram(energy, "1-0:3.8.0(00001.234*kVArh)", "1-0:32.7.0(229.7*V)")
    )
    assert swedish.volts == (229.7,)
    (reactive,) = (one for one in swedish.registers if one.flow is Flow.REACTIVE)
    assert (reactive.name, reactive.mwh) == ("3.8.0", 1_234_000)
    # A telegram is as good without what cannot be read of these.
    (odd,) = telegrams.receive_data(
        a_telegram(energy, "1-0:3.8.0(00001.234*kWh)", "1-0:32.7.0(x*V)", "1-0:52.7.0(231*V)")
    )
    assert odd.volts == (231.0,)
    assert [one.flow for one in odd.registers] == [Flow.DELIVERED]
    assert dict(telegrams.refused) == {"unreadable: 3.8.0": 1, "unreadable: 32.7.0": 1}


def test_optical_head_gives_voltages_and_reactive_energy() -> None:
    octets = telegram_of(
        "0B0A015445535400000001",
        entry(),
        entry("0100030800FF", unit="6220", value="6303E8"),  # 32: varh; 1000 in 0.1 varh
        entry("0100200700FF", unit="6223", value="6308FC"),  # 35: V; 2300 in 0.1 V
        entry("0100340700FF", unit="6223", value="630906"),
        entry("0100480700FF", unit="621E", value="630906"),  # Wh, which is no voltage
    )
    (reading,) = SmlTelegrams().receive_data(octets)
    assert reading.volts == pytest.approx((230.0, 231.0))
    (reactive,) = (one for one in reading.registers if one.flow is Flow.REACTIVE)
    assert reactive == Register("3.8.0", Flow.REACTIVE, 100_000)
    (odd,) = SmlTelegrams().receive_data(
        telegram_of("0B0A015445535400000001", entry(), entry("0100030800FF", unit="621E"))
    )
    assert [one.flow for one in odd.registers] == [Flow.DELIVERED]


def test_modbus_meters_have_them_by_model_or_by_address() -> None:
    model = MetrologySettings(
        "modbus", address="192.0.2.1", model="sdm630", reactive=True, voltage=True
    )
    table = modbus_table(model, BOTH)
    assert [place.address for place in table.places.values()] == [0x48, 0x4C]
    assert [place.address for place in table.volts] == [0, 2, 4]
    words = {
        Flow.DELIVERED: words_of(Words.FLOAT32, 1_234.0),
        Flow.REACTIVE: words_of(Words.FLOAT32, 56.0),
    }
    volts = [words_of(Words.FLOAT32, one) for one in (230.5, 229.5, 231.0)]
    reading = table.reading(words, "1", volts)
    assert [one.mwh for one in reading.registers] == [1_234_000_000, 56_000_000]
    assert reading.volts == (230.5, 229.5, 231.0)
    assert len(MODELS["sdm120"].volts) == 1
    assert modbus_table(MetrologySettings(
        "modbus", address="192.0.2.1", model="sdm120"), (Flow.DELIVERED,)).volts == ()  # fmt: skip
    named = MetrologySettings(
        "modbus",
        address="192.0.2.1",
        delivered_register=10,
        reactive=True,
        reactive_register=20,
        voltage=True,
        voltage_registers=(30,),
        register_words="uint32",
        register_v=0.1,
    )
    table = modbus_table(named, BOTH)
    assert (table.places[Flow.REACTIVE], table.volts) == (
        Place(20, Words.UINT32),
        (Place(30, Words.UINT32),),
    )
    one = words_of(Words.UINT32, 1)
    found = table.reading(dict.fromkeys(BOTH, one), None, [words_of(Words.UINT32, 2_305)])
    assert found.volts == pytest.approx((230.5,))


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ("reactive = true", "reactive_register is missing"),
        ("voltage = true", "voltage_registers is missing"),
        ("reactive_register = 5", "reactive_register needs reactive = true"),
        ("voltage_registers = [5]", "voltage_registers needs voltage = true"),
        ("voltage = true\nvoltage_registers = []", "1 to 3 phases"),
        ("voltage = true\nvoltage_registers = [1, 3, 5, 7]", "1 to 3 phases"),
        ("voltage = true\nvoltage_registers = [1]\nregister_v = 0.0", "register_v is 0"),
    ],
)
def test_settings_that_do_not_go_together_are_refused_in_a_line(
    tmp_path: Path, lines: str, said: str
) -> None:
    path = tmp_path / "metrology.toml"
    path.write_text(f"source = 'modbus'\naddress = '192.0.2.1'\ndelivered_register = 1\n{lines}\n")
    with pytest.raises(ConfigError, match=said):
        toml.load(path, MetrologySettings)
    with pytest.raises(ConfigError, match="does not go with source 'pulse'"):
        MetrologySettings("pulse", pulses_per_kwh=1000, gpio_line=1, voltage=True)


class Phases(Slave):
    """A meter of three phases on Modbus, with reactive energy."""

    def words(self, function: int, address: int) -> list[int] | None:
        shown = {0x00: 230.5, 0x02: 229.5, 0x04: 231.5, 0x4C: 56.0}.get(address)
        if function == 4 and shown is not None:
            return words_of(Words.FLOAT32, shown)
        return super().words(function, address)


@pytest.mark.both_loops
async def test_modbus_meter_on_loopback_is_asked_for_them() -> None:
    pytest.importorskip("pymodbus", reason="pip install 'amistack[modbus]'")
    async with device(Phases()) as port:
        settings = MetrologySettings(
            "modbus",
            address=f"127.0.0.1:{port}",
            model="sdm630",
            reactive=True,
            voltage=True,
            poll_s=0.2,
        )
        driver = open_driver(settings, offset_min=0, today=MIDNIGHT, register_start=(), kept=None)
        sensor = driver.sensor
        driver.start(utc=lambda: float(MIDNIGHT + 5), on_note=lambda _: None, dice=random.Random(1))
        try:
            async with asyncio.timeout(15):
                while not sensor.readings:  # noqa: ASYNC110  a socket is in between
                    await asyncio.sleep(0.01)
        finally:
            driver.stop()
            await driver.wait_stopped()
    assert sensor.source.register(MIDNIGHT + 5) == (1_234_000, 56_000)
    assert sensor.supply is not None
    (step,) = sensor.supply._steps.values()
    assert step.total / step.count == pytest.approx(230.5)


# The whole way, from what a meter shows to its channels


class RealMeter:
    """A recorder behind a meter that shows kWh, kvarh and volts every ten seconds."""

    def __init__(self) -> None:
        self.settings = MetrologySettings(
            "modbus", address="192.0.2.1", model="sdm630", reactive=True, voltage=True,
            interval_s=STEP_S,
        )  # fmt: skip
        pytest.importorskip("pymodbus", reason="pip install 'amistack[modbus]'")
        self.storage = Storage.on(TornFiles(random.Random(1)))
        self.utc = float(MIDNIGHT)
        self.wh, self.varh = 5_000_000.0, 700_000.0
        self.power_on()

    def power_on(self, *, reactive: bool = True) -> None:
        settings = self.settings if reactive else MetrologySettings(
            "modbus", address="192.0.2.1", model="sdm630", interval_s=STEP_S
        )  # fmt: skip
        kept = self.storage.note("source")
        driver = open_driver(settings, offset_min=0, today=MIDNIGHT, register_start=(), kept=kept)
        self.sensor: Sensor = driver.sensor
        self.recorder = Recorder(
            self.storage,
            self.sensor.source,
            offset_min=0,
            interval_s=900,
            supply=self.sensor.supply,
        )

    def run(self, seconds: float, *, watts: float, var: float, volts: float) -> None:
        """Time with a load."""
        for _ in range(int(seconds / 10)):
            registers = (
                Register("1.8.0", Flow.DELIVERED, round(self.wh * 1000)),
                Register("3.8.0", Flow.REACTIVE, round(self.varh * 1000)),
            )
            self.sensor.take(Reading(registers, "77", volts=(volts,)), utc=self.utc)
            self.recorder.advance(self.utc)
            self.utc += 10
            self.wh += watts / 360
            self.varh += var / 360

    def ask_for(self, *wanted: Measured) -> None:
        """A programme, in force from the next midnight on."""
        channels = [Measured(Quantity.DELIVERED), *wanted]
        programme = Programme(
            1,
            0,
            0,
            tuple(ProgrammeChannel.of(n, what, 900) for n, what in enumerate(channels, start=1)),
        )
        self.recorder.shelf.add(programme, since=MIDNIGHT + 86_400, utc=self.utc)


ALL = (Measured(Quantity.REACTIVE), Measured(Quantity.VOLTAGE))


def test_channels_of_a_programme_have_what_the_meter_showed() -> None:
    meter = RealMeter()
    assert meter.recorder.metering.quantities == {
        Quantity.DELIVERED,
        Quantity.DEMAND,
        Quantity.REACTIVE,
        Quantity.VOLTAGE,
    }
    meter.run(3_600, watts=1_000, var=300, volts=230)
    assert [block.channel for block in meter.recorder.block(20_700)] == [1]
    meter.ask_for(*ALL)
    meter.run(86_400 - 3_600, watts=1_000, var=300, volts=230)
    varh_at_midnight = meter.varh
    meter.run(1_800, watts=4_000, var=3_000, volts=226)
    meter.run(10, watts=4_000, var=3_000, volts=226)
    delivered, reactive, voltage = meter.recorder.block(20_701)
    assert delivered.values() == (1_000, 1_000)
    assert reactive.values() == (750, 750)
    assert voltage.values() == (2_260, 2_260)
    assert power_factor(1_000, 750) == pytest.approx(0.8)
    # Its register is the meter's dial, from the first interval on: what stood there is no leap.
    assert reactive.opening == pytest.approx(varh_at_midnight, abs=1)
    assert reactive.advance == 1_500
    registers = dict(meter.recorder.registers(meter.utc - 10))
    assert registers[2] == pytest.approx(meter.varh, abs=10)


def test_hole_in_the_readings_and_a_restart_are_gaps_and_nothing_is_made_up() -> None:
    meter = RealMeter()
    meter.ask_for(*ALL)
    meter.run(86_400, watts=1_000, var=400, volts=230)
    meter.run(1_000, watts=1_000, var=400, volts=230)
    # Half a minute without a word, within a step of the second interval.
    meter.utc += 30
    meter.run(800, watts=1_000, var=400, volts=230)
    meter.recorder.keep_source()
    meter.power_on()
    meter.run(970 + 900, watts=1_000, var=400, volts=230)
    _, reactive, voltage = meter.recorder.block(20_701)
    assert voltage.values()[:4] == (2_300, None, None, 2_300)
    # A dial knows what flowed meanwhile.
    assert None not in reactive.values()


def test_reactive_energy_may_come_and_go_in_the_settings() -> None:
    meter = RealMeter()
    meter.run(2_000, watts=1_000, var=400, volts=230)
    meter.recorder.keep_source()
    before = meter.sensor.source.register(meter.utc - 10)
    assert before is not None
    meter.power_on(reactive=False)
    assert meter.sensor.source.flows == (Flow.DELIVERED,)
    meter.run(20, watts=1_000, var=400, volts=230)
    after = meter.sensor.source.register(meter.utc - 10)
    assert after is not None
    assert after[0] == pytest.approx(before[0] + 5, abs=2)
    meter.recorder.keep_source()
    meter.power_on()
    meter.run(120, watts=1_000, var=400, volts=230)
    again = meter.sensor.source.register(meter.utc - 10)
    assert again is not None
    assert again[0] == pytest.approx(after[0] + 30, abs=12)
    assert 0 <= again[1] < 20
    # What was received is no such thing: other flows are another storage.
    text = meter.sensor.source.state()
    assert text is not None
    other = LiveSource(RegisterTracker((Flow.DELIVERED, Flow.RECEIVED)))
    with pytest.raises(SourceError, match="other flows"):
        other.resume(text)


def test_meter_takes_a_programme_for_what_its_settings_say_it_shows() -> None:
    """Put together as `meterd run` does it."""
    pytest.importorskip("pymodbus", reason="pip install 'amistack[modbus]'")
    for is_said in (False, True):
        meter = Whole(
            metrology=MetrologySettings(
                "modbus",
                address="192.0.2.1",
                model="sdm120",
                reactive=is_said or None,
                voltage=is_said or None,
            )
        )
        meter.power_on()
        meter.world.elapse(60)
        what = [Measured(Quantity.DELIVERED), *ALL]
        wanted = Programme(
            1, 0, 0, tuple(ProgrammeChannel.of(n, one, 900) for n, one in enumerate(what, start=1))
        )
        answer = meter.send(request(Code.PUT, PROGRAMME, wanted.encode()))
        assert answer.code == (Code.CHANGED if is_said else Code.UNPROCESSABLE_ENTITY)


def test_every_register_says_of_what_it_is() -> None:
    for quantity in Quantity:
        assert registered(Measured(quantity).register_type) == Measured(quantity)
    tier = Measured(Quantity.DELIVERED, 2)
    assert registered(tier.register_type) == tier
    assert power_factor(0, 0) is None
    assert power_factor(-3, 4) == pytest.approx(0.6)
