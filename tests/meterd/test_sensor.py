"""Real meters on pseudo-terminals, behind a meter daemon.

The contract under test: what a P1 port, an optical head or a pulse counter sends reaches the
register; a device that vanishes is told of, logged, opened again, and its meter goes on by the
dial; a restart goes on; none of it stops the daemon, and nothing it does fills the log.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import os
import random
import re
import time
import tty
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest
import structlog

from amistack.errors import ConfigError, StoreError
from amistack.model import LogEntry
from amistack.session.fleet import encode_public_key
from meterd import daemon
from meterd.daemon import Meter, load_settings
from meterd.metrology import ConstantSource, Flow, LiveSource
from meterd.metrology.drivers import SerialDriver
from meterd.metrology.live import Sensor
from meterd.metrology.registers import Note, NoteKind, RegisterTracker
from meterd.metrology.sml import SmlTelegrams
from meterd.provision import CONFIG_FILE, Template, provision
from meterd.recorder import Recorder
from meterd.sensor import ENTRIES_PER_HOUR_MAX, EVENTS, SensorKeeper, detail_of
from meterd.status_commands import show
from meterd.storage import Storage
from tests.meterd.test_dsmr import a_telegram
from tests.meterd.test_sml import ONE, ONE_LATER
from tests.support.head_end import key_of

pytest.importorskip("serialx", reason="pip install 'amistack[serial]'")


@pytest.fixture(autouse=True)
def _quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """A logger of this module's own; reopening at once, so that nobody waits."""
    monkeypatch.setattr(daemon, "LOG", structlog.wrap_logger(structlog.PrintLogger(io.StringIO())))
    monkeypatch.setattr("meterd.metrology.drivers.REOPEN_MAX", 0.05)


class Device:
    """A device at a path that can be plugged in and pulled out."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._far = self._near = -1
        self.plug()

    def plug(self) -> None:
        self._far, self._near = os.openpty()
        tty.setraw(self._near)
        os.set_blocking(self._far, False)
        self.path.unlink(missing_ok=True)
        self.path.symlink_to(os.ttyname(self._near))

    def unplug(self) -> None:
        self.path.unlink()
        os.close(self._far)
        os.close(self._near)

    def send(self, octets: bytes) -> None:
        # What nobody reads piles up, until the terminal is full.
        with contextlib.suppress(BlockingIOError):
            os.write(self._far, octets)

    def close(self) -> None:
        if self.path.is_symlink():
            self.unplug()


class House:
    """A meter daemon with a device."""

    def __init__(self, folder: Path, *metrology: str) -> None:
        self.device = Device(folder / "tty")
        template = Template(
            address="127.0.0.1:9",
            public_key=encode_public_key(key_of(1).public_key()).hex(),
            metrology=(*metrology, f'device = "{self.device.path}"'),
        )
        provision(folder, template)
        self.config = folder / CONFIG_FILE

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Meter]:
        meter = await Meter.open(load_settings(self.config))
        try:
            await meter.start()
            assert meter.sensor is not None
            yield meter
        finally:
            meter.stop()
            await meter.wait_stopped()


async def until(condition: Callable[[], object], poke: Callable[[], object] | None = None) -> None:
    async with asyncio.timeout(20):
        while not condition():
            if poke is not None:
                poke()
            await asyncio.sleep(0.02)


def p1(kwh: float, meter: str = "41") -> bytes:
    moved = datetime.fromtimestamp(p1.at, UTC).strftime("%y%m%d%H%M%SW")  # type: ignore[attr-defined]
    p1.at += 1  # type: ignore[attr-defined]
    return a_telegram(f"0-0:1.0.0({moved})", f"0-0:96.1.1({meter})", f"1-0:1.8.1({kwh:010.3f}*kWh)")


p1.at = 1_790_000_000  # type: ignore[attr-defined]


def registers(meter: Meter) -> tuple[int, ...]:
    return tuple(wh for _, wh in recorder(meter).registers(time.time()))


def recorder(meter: Meter) -> Recorder:
    assert meter.sensor is not None
    return meter.sensor._recorder


def entries(meter: Meter) -> list[LogEntry]:
    found = meter._storage.entries(0, 1 << 40, limit=99)
    return [entry for entry in found if entry.event in EVENTS.values()]


@pytest.mark.both_loops
async def test_p1_port_that_vanishes_is_logged_opened_again_and_goes_on_by_the_dial(
    tmp_path: Path,
) -> None:
    pytest.importorskip("dsmr_parser", reason="pip install 'amistack[dsmr]'")
    house = House(tmp_path, 'source = "dsmr"')
    async with house.running() as meter:
        assert meter.sensor is not None
        await until(lambda: registers(meter) == (12_345,), lambda: house.device.send(p1(12.345)))
        status = meter.sensor.status()
        assert (status.is_there, status.meter, status.trouble) == (True, "41", "")
        assert status.last_reading_at == pytest.approx(time.time(), abs=5)
        told = show(json.loads(meter.status().to_json()))
        assert re.search(r"sensor +meter 41; [0-9]+ readings; the last 20", told)

        house.device.unplug()
        await until(lambda: not meter.sensor.status().is_there)  # type: ignore[union-attr]
        await until(lambda: "no such device" in meter.sensor.status().trouble)  # type: ignore[union-attr]
        assert "NOT THERE: serial line" in show(json.loads(meter.status().to_json()))
        (entry,) = entries(meter)
        assert entry.event == EVENTS[NoteKind.VANISHED]
        assert entry.is_time_doubtful

        house.device.plug()
        await until(lambda: registers(meter) == (13_000,), lambda: house.device.send(p1(13)))
        assert [entry.event for entry in entries(meter)] == [
            EVENTS[NoteKind.VANISHED],
            EVENTS[NoteKind.RETURNED],
        ]
    # After a restart, before any telegram: where it was. A telegram then goes on from there.
    async with house.running() as meter:
        await until(lambda: registers(meter) == (13_500,), lambda: house.device.send(p1(13.5)))
    house.device.close()


async def test_telegrams_with_bad_check_sums_and_of_another_meter_change_nothing(
    tmp_path: Path,
) -> None:
    pytest.importorskip("dsmr_parser", reason="pip install 'amistack[dsmr]'")
    house = House(tmp_path, 'source = "dsmr"', 'meter = "41"')
    async with house.running() as meter:
        assert meter.sensor is not None
        await until(lambda: registers(meter) == (5_000,), lambda: house.device.send(p1(5)))
        house.device.send(p1(6).replace(b"006.000", b"009.000") + p1(77, "42"))
        await until(lambda: registers(meter) == (5_100,), lambda: house.device.send(p1(5.1)))
        (entry,) = entries(meter)
        assert (entry.event, entry.detail) == (EVENTS[NoteKind.OTHER_METER], "42")
        assert meter.sensor.status().refused["telegram of another meter"] == 1
    house.device.close()


async def test_halves_of_two_telegrams_around_a_pulled_plug_are_none(tmp_path: Path) -> None:
    house = House(tmp_path, 'source = "sml"')
    async with house.running() as meter:
        await until(lambda: registers(meter) == (2_043_105,), lambda: house.device.send(ONE))
        sensor = meter.sensor
        assert sensor is not None
        readings = sensor.status().readings
        house.device.send(ONE_LATER[:100])
        await asyncio.sleep(0.2)
        house.device.unplug()
        await until(lambda: not sensor.status().is_there)
        house.device.plug()
        for _ in range(40):
            # Opened again within these two seconds, and never heard from its beginning.
            house.device.send(ONE_LATER[100:])
            await asyncio.sleep(0.05)
        assert sensor.status().readings == readings
        await until(lambda: sensor.status().is_there, lambda: house.device.send(ONE_LATER))
    house.device.close()


async def test_optical_head_reaches_the_register(tmp_path: Path) -> None:
    house = House(tmp_path, 'source = "sml"', "received = true")
    async with house.running() as meter:
        await until(
            lambda: registers(meter) == (2_043_105, 0),
            lambda: house.device.send(b"\xff" + ONE + ONE_LATER),
        )
        assert meter.sensor is not None
        assert meter.sensor.status().meter == "0a015445535400000001"
    house.device.close()


@pytest.mark.both_loops
async def test_counter_of_pulses_on_a_serial_line_goes_on_from_register_start(
    tmp_path: Path,
) -> None:
    house = House(tmp_path, 'source = "pulse"', "pulses_per_kwh = 1000")
    text = house.config.read_text().replace("[meter]", "[meter]\nregister_start = [7_000_000]")
    house.config.write_text(text)
    async with house.running() as meter:
        await until(lambda: registers(meter)[0] > 7_000_010, lambda: house.device.send(b"\n3\n2\n"))
        shown = registers(meter)
    async with house.running() as meter:
        await until(lambda: registers(meter) > shown, lambda: house.device.send(b"\n1\n"))
        assert registers(meter)[0] < shown[0] + 1_000
    house.device.close()


async def test_device_that_is_not_there_at_the_start_is_waited_for(tmp_path: Path) -> None:
    house = House(tmp_path, 'source = "sml"')
    house.device.unplug()
    async with house.running() as meter:
        assert meter.sensor is not None
        await until(lambda: entries(meter))
        detail = entries(meter)[0].detail or ""
        assert detail.startswith("serial line /") or "no such device" in detail
        house.device.plug()
        await until(
            lambda: meter.sensor.status().is_there,  # type: ignore[union-attr]
            lambda: house.device.send(ONE),
        )
    house.device.close()


@pytest.mark.both_loops
async def test_device_that_falls_silent_is_opened_again(tmp_path: Path) -> None:
    """An adapter that hangs: it is still open, and nothing comes."""
    device = Device(tmp_path / "tty")
    notes: list[Note] = []
    source = LiveSource(RegisterTracker((Flow.DELIVERED,)))
    driver = SerialDriver(
        Sensor(source, silence_s=0.3),
        SmlTelegrams(),
        device=str(device.path),
        baud_rate=9600,
        silence_s=0.3,
        first_wait_s=0.01,
        check_s=0.05,
    )
    driver.start(utc=time.time, on_note=notes.append, dice=random.Random(1))
    try:
        await until(lambda: driver.sensor.is_there, lambda: device.send(ONE))
        hung = Device(tmp_path / "hung")
        hung._far, hung._near, device._far, device._near = (
            device._far,
            device._near,
            hung._far,
            hung._near,
        )
        device.path.unlink()
        device.path.symlink_to(os.ttyname(device._near))
        await until(lambda: len(notes) >= 2, lambda: device.send(ONE_LATER))
        assert [note.kind for note in notes[:2]] == [NoteKind.VANISHED, NoteKind.RETURNED]
        assert notes[0].detail == "no reading for 0.3 s"
    finally:
        driver.stop()
        await driver.wait_stopped()
        device.close()
        hung.close()


async def test_kept_state_that_is_none_is_one_line(tmp_path: Path) -> None:
    house = House(tmp_path, 'source = "sml"')
    settings = load_settings(house.config)
    storage = Storage.open(settings.meter.storage)
    storage.keep_note("source", "nonsense")
    storage.close()
    with pytest.raises(Exception, match="kept state of the source is none") as raised:
        await Meter.open(settings)
    assert "\n" not in str(raised.value)
    house.device.close()


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ('source = "dsmr"', "device is missing; source 'dsmr' needs it"),
        ('source = "dsmr"\ndevice = "x"\nunit_id = 1', "unit_id does not go with source 'dsmr'"),
        ('source = "sml"\ndevice = "x"\nbaud_rate = 5', "baud_rate is 5, expected 300 to 4000000"),
        ('source = "sml"\ndevice = "x"\nmeter = "a b"', "meter is 'a b', expected the serial"),
        ('source = "sml"\ndevice = "x"\ninterval_s = 60\ntolerance_s = 31', "expected up to 30 s"),
        ('source = "modbus"\nmodel = "sdm630"', "address or device is needed"),
        ('source = "modbus"\naddress = "h"', "model or delivered_register is needed"),
        ('source = "modbus"\naddress = "h"\nmodel = "sdm630"\nregister_wh = 1', "register_wh does"),
        (
            'source = "modbus"\naddress = "h"\ndelivered_register = 1\nreceived = true',
            "received_re",
        ),
        ('source = "modbus"\naddress = "h"\nmodel = "sdm630"\nbaud_rate = 9600', "baud_rate goes"),
        ('source = "modbus"\naddress = "h"\nmodel = "sdm630"\npoll_s = 15', "poll_s is 15, exp"),
        ('source = "pulse"\ngpio_line = 1', "pulses_per_kwh is missing"),
        ('source = "pulse"\npulses_per_kwh = 5', "gpio_line or device is needed"),
        ('source = "pulse"\npulses_per_kwh = 5\ndevice = "x"\ndebounce_ms = 5', "debounce_ms does"),
    ],
)
async def test_settings_that_cannot_be_are_refused_in_one_line(
    tmp_path: Path, keys: str, said: str
) -> None:
    provision(tmp_path, Template(public_key=encode_public_key(key_of(1).public_key()).hex()))
    config = tmp_path / CONFIG_FILE
    config.write_text(config.read_text().replace('source = "profile"', keys))
    with pytest.raises(ConfigError) as raised:
        load_settings(config)
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)


# What is told


class StubLog:
    def __init__(self) -> None:
        self.lines: list[str] = []

    def warning(self, event: str, **_: object) -> None:
        self.lines.append(event)

    info = error = warning


def keeper(tmp_path: Path) -> tuple[SensorKeeper, Recorder, Storage, StubLog, list[float]]:
    storage = Storage.open(tmp_path / "data")
    one = Recorder(storage, ConstantSource(watts=1), offset_min=0)
    made, log, clock = SensorKeeper(None, one), StubLog(), [1_790_000_000.0]  # type: ignore[arg-type]
    made._log = log
    made._utc = lambda: clock[0]
    return made, one, storage, log, clock


def test_notes_of_one_kind_are_limited_by_the_hour(tmp_path: Path) -> None:
    made, _, storage, log, clock = keeper(tmp_path)
    for _ in range(100):
        made.take(Note(NoteKind.IMPLAUSIBLE, "x"))
        clock[0] += 10
    assert len(storage.entries(0, 1 << 40, limit=999)) == len(log.lines) == ENTRIES_PER_HOUR_MAX
    made.take(Note(NoteKind.RESET, "another kind"))
    clock[0] += 3_600
    made.take(Note(NoteKind.IMPLAUSIBLE, "x"))
    assert len(storage.entries(0, 1 << 40, limit=999)) == ENTRIES_PER_HOUR_MAX + 2
    storage.close()


def test_every_kind_of_note_has_its_own_event_and_a_detail_that_fits() -> None:
    assert EVENTS.keys() == set(NoteKind)
    assert len(set(EVENTS.values())) == len(EVENTS)
    for detail in ("", "é" * 99, "x" * 64, "\ud800"):
        told = detail_of(Note(NoteKind.VANISHED, detail))
        LogEntry(0, 0, EVENTS[NoteKind.VANISHED], told)


def test_storage_that_fails_costs_the_entry_and_not_the_meter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, one, storage, log, _ = keeper(tmp_path)

    def fail(*_: object, **__: object) -> None:
        raise StoreError("disk full")

    monkeypatch.setattr(one, "log", fail)
    made.take(Note(NoteKind.VANISHED, "x"))
    assert log.lines == ["sensor vanished", "log entry lost"]
    storage.close()
