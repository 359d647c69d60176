"""Bring a sensor its octets: a serial line, a Modbus device, an input pin of a small computer.

A driver is one task of the loop. It opens its device, feeds the sensor, and opens the device again
when it ends, cannot be had or falls silent, each time later. Nothing that a device does ends it.

Gives   readings to a `Sensor`, which tells of itself through the callback
Raises  ConfigError at birth for a library that is not installed
Limit   one device; REOPEN_MAX s between two attempts, and half as much again
Never   blocks the loop: what has no asyncio of its own is only asked when it is ready
"""

from __future__ import annotations

import asyncio
import importlib
import random
from collections import Counter
from collections.abc import Callable, Mapping
from datetime import timedelta
from types import ModuleType
from typing import Final, Protocol

from amistack.errors import ConfigError, LinkError, SourceError
from amistack.links.serial import REOPEN_FIRST, REOPEN_MAX, open_serial
from amistack.links.streams import Backoff, StreamLink
from meterd.metrology.live import Sensor, Telegrams
from meterd.metrology.modbus import ModbusTable, Place, Table, figure_of
from meterd.metrology.pulse import PulseCounter
from meterd.metrology.registers import Note, Reading

CHECK_S: Final = 5.0
"""Seconds between two looks at whether the sensor is still heard."""
STOP_AGAIN_S: Final = 0.5
"""Until who was told to stop and did not is told so again."""
MODBUS_TIMEOUT_S: Final = 3.0
EDGES_MAX: Final = 64
"""Edges taken from an input at once; the kernel keeps the others."""


class Driver:
    """What all drivers share: opening again, later each time, and telling of it."""

    def __init__(
        self,
        sensor: Sensor,
        *,
        silence_s: float,
        first_wait_s: float = REOPEN_FIRST,
        check_s: float = CHECK_S,
    ) -> None:
        self.sensor: Final = sensor
        self._silence_s: Final = silence_s
        self._first_wait_s: Final = first_wait_s
        self._check_s: Final = check_s
        self._utc: Callable[[], float] = lambda: 0.0
        self._on_note: Callable[[Note], None] = lambda _: None
        self._task: asyncio.Task[None] | None = None
        self._backoff: Backoff | None = None
        self._heard = 0.0

    def start(
        self,
        *,
        utc: Callable[[], float],
        on_note: Callable[[Note], None],
        dice: random.Random,
    ) -> None:
        """Begin, in the running loop. `utc` is the meter's clock; `on_note` must not raise."""
        self._utc, self._on_note = utc, on_note
        self._backoff = Backoff(dice, first=self._first_wait_s, longest=REOPEN_MAX)
        self._task = asyncio.get_running_loop().create_task(self._keep())

    def stop(self) -> None:
        """Give the device back, soon; `wait_stopped` says when."""
        if self._task is not None:
            self._task.cancel()

    async def wait_stopped(self) -> None:
        """Until the device was given back."""
        # A library may keep a cancellation for itself, as `asyncio.wait_for` of Python 3.11 does
        # where its answer comes in the same moment: then it is said again.
        while self._task is not None and not self._task.done():
            await asyncio.wait([self._task], timeout=STOP_AGAIN_S)
            self._task.cancel()

    async def run(self) -> None:
        """Feed the sensor from one opening of the device. Raises LinkError when that ends."""
        raise NotImplementedError

    async def _keep(self) -> None:
        assert self._backoff is not None, "it was started"
        while True:
            self._heard = self._loop_time()
            try:
                await self.run()
            except LinkError as error:
                trouble = str(error)
            except Exception as error:  # noqa: BLE001  a device or its library may do anything
                trouble = f"{type(error).__name__}: {error}"
            else:
                trouble = "the device ended"
            self.sensor.lose(trouble)
            self._tell()
            await asyncio.sleep(self._backoff.next_wait())

    def take(self, reading: Reading) -> None:
        """Hand a reading to the sensor."""
        assert self._backoff is not None, "it was started"
        if self.sensor.take(reading, utc=self._utc(), now=self._loop_time()):
            self._heard = self._loop_time()
            self._backoff.reset()
        self._tell()

    def look(self) -> None:
        """Notice silence. Raises LinkError where opening the device again may help."""
        self.sensor.check(utc=self._utc())
        self._tell()
        if self._loop_time() - self._heard >= self._silence_s:
            # The sensor goes by the wall's clock, which may be a moment behind.
            raise LinkError(self.sensor.trouble or f"no reading for {self._silence_s:g} s")

    def _tell(self) -> None:
        for note in self.sensor.notes():
            self._on_note(note)

    @staticmethod
    def _loop_time() -> float:
        return asyncio.get_running_loop().time()


class _Listener:
    """A stream machine that only listens (`amistack.links.streams.PacedMachine`)."""

    def __init__(self, telegrams: Telegrams, take: Callable[[Reading], None]) -> None:
        self.is_over = False
        self._telegrams = telegrams
        self._take = take

    def receive_data(self, data: bytes, *, now: float) -> None:  # noqa: ARG002
        for reading in self._telegrams.receive_data(data):
            self._take(reading)

    def handle_timer(self, *, now: float) -> None:
        """Nothing is due."""

    def data_to_send(self, room: int | None = None) -> list[bytes]:  # noqa: ARG002
        return []

    def events(self) -> list[None]:
        return []

    def next_timer(self) -> float | None:
        return None

    def close(self, *, now: float) -> None:  # noqa: ARG002
        self.is_over = True

    def end(self, *, now: float) -> None:  # noqa: ARG002
        self.is_over = True


class SerialDriver(Driver):
    """Listens on a serial line: P1 ports, optical heads, pulse counters."""

    def __init__(
        self,
        sensor: Sensor,
        telegrams: Telegrams,
        *,
        device: str,
        baud_rate: int,
        silence_s: float,
        has_dial: bool = True,
        first_wait_s: float = REOPEN_FIRST,
        check_s: float = CHECK_S,
    ) -> None:
        """`has_dial` is False for a sensor that only says what came since it last said so.

        Raises ConfigError where serialx is not installed.
        """
        super().__init__(sensor, silence_s=silence_s, first_wait_s=first_wait_s, check_s=check_s)
        library("serialx", "serial")
        self._telegrams = telegrams
        self._device = device
        self._baud_rate = baud_rate
        self._has_dial = has_dial
        self._refused: Counter[str] = Counter()

    async def run(self) -> None:
        """Listen until the line ends or falls silent."""
        self._telegrams.reset()
        listener = _Listener(self._telegrams, self.take)

        def make_machine(_: StreamLink[None], *, now: float) -> _Listener:  # noqa: ARG001
            return listener

        link = await open_serial(
            make_machine, lambda *_: None, path=self._device, baud_rate=self._baud_rate
        )
        if not self._has_dial:
            # What it said while nobody listened is lost.
            self.sensor.source.break_off()
        ended = asyncio.ensure_future(link.wait_ended())
        try:
            while not ended.done():
                await asyncio.wait([ended], timeout=self._check_s)
                self._count()
                if not ended.done():
                    self.look()
            raise LinkError(f"serial line {self._device}: the device is gone")
        finally:
            ended.cancel()
            link.abort()

    def _count(self) -> None:
        """What the telegrams refused since the last look is the sensor's to tell."""
        self.sensor.refused.update(self._telegrams.refused - self._refused)
        self._refused = Counter(self._telegrams.refused)


class ModbusClient(Protocol):
    """What this module needs of a client of pymodbus."""

    connected: bool

    async def connect(self) -> bool: ...

    def close(self) -> None: ...

    async def read_input_registers(
        self, address: int, *, count: int, device_id: int
    ) -> _Answer: ...

    async def read_holding_registers(
        self, address: int, *, count: int, device_id: int
    ) -> _Answer: ...


class _Answer(Protocol):
    registers: list[int]

    def isError(self) -> bool: ...  # noqa: N802  the library's name


class ModbusDriver(Driver):
    """Asks a Modbus meter every `poll_s` seconds."""

    def __init__(
        self,
        sensor: Sensor,
        table: ModbusTable,
        make_client: Callable[[], ModbusClient],
        *,
        name: str,
        unit: int,
        poll_s: float,
        silence_s: float,
        first_wait_s: float = REOPEN_FIRST,
    ) -> None:
        super().__init__(sensor, silence_s=silence_s, first_wait_s=first_wait_s)
        self._table = table
        self._make_client = make_client
        self._name = name
        self._unit = unit
        self._poll_s = poll_s

    async def run(self) -> None:
        """Ask until the meter does not answer."""
        client = self._make_client()
        try:
            if not await client.connect():
                raise LinkError(f"{self._name}: no connection")
            serial = await self._serial(client)
            has_power = self._table.power is not None
            due = self._loop_time()
            while True:
                try:
                    words = {
                        flow: await self._words(client, place)
                        for flow, place in self._table.places.items()
                    }
                    volts = [await self._words(client, place) for place in self._table.volts]
                    power = await self._power(client) if has_power else None
                    has_power = power is not None
                    reading = self._table.reading(words, serial, volts, power)
                    if has_power and reading.power_w is None:
                        self.sensor.refused["unreadable: power"] += 1
                    self.take(reading)
                except SourceError:
                    self.sensor.refused["unreadable"] += 1
                self.look()
                due = max(due + self._poll_s, self._loop_time())
                await asyncio.sleep(due - self._loop_time())
        except OSError as error:
            raise LinkError(f"{self._name}: {error.strerror or error}") from error
        finally:
            client.close()

    async def _serial(self, client: ModbusClient) -> str | None:
        """The meter's serial number, where it has one to read."""
        place = self._table.serial
        if place is None:
            return None
        try:
            return str(figure_of(place, await self._words(client, place)))
        except (LinkError, SourceError):
            # Some makes lack it, and say so; those that are silent are asked again for energy.
            return None

    async def _power(self, client: ModbusClient) -> list[int] | None:
        """The words of the power; None where the meter refuses: then it is not asked again."""
        assert self._table.power is not None, "it was looked at"
        try:
            return await self._words(client, self._table.power)
        except LinkError:
            self.sensor.refused["power refused"] += 1
            return None

    async def _words(self, client: ModbusClient, place: Place) -> list[int]:
        is_input = place.table is Table.INPUT
        read = client.read_input_registers if is_input else client.read_holding_registers
        answer = await read(place.address, count=place.words.count, device_id=self._unit)
        if answer.isError():
            raise LinkError(f"{self._name}: unit {self._unit} refuses register {place.address}")
        return list(answer.registers)


class EdgeInput(Protocol):
    """An input whose edges the kernel counts."""

    def fileno(self) -> int:
        """Readable when there are edges."""

    def read(self) -> int:
        """How many there were, up to EDGES_MAX; does not wait where `fileno` was readable."""

    def close(self) -> None:
        """Give the input back."""


class EdgeDriver(Driver):
    """Counts the pulses on an input pin. It is there as long as the pin can be had."""

    def __init__(
        self,
        sensor: Sensor,
        counter: PulseCounter,
        open_input: Callable[[], EdgeInput],
        *,
        silence_s: float,
        first_wait_s: float = REOPEN_FIRST,
        check_s: float = CHECK_S,
    ) -> None:
        super().__init__(sensor, silence_s=silence_s, first_wait_s=first_wait_s, check_s=check_s)
        self._counter = counter
        self._open_input = open_input

    async def run(self) -> None:
        """Count until the input fails."""
        loop = asyncio.get_running_loop()
        failed: asyncio.Future[None] = loop.create_future()
        try:
            pulses = self._open_input()
        except OSError as error:
            raise LinkError(f"pulse input: {error.strerror or error}") from error
        # What came before it was open is not counted: an era of its own.
        self.sensor.source.break_off()

        def on_edges() -> None:
            try:
                self.take(self._counter.add(pulses.read()))
            except OSError as error:
                loop.remove_reader(pulses.fileno())
                if not failed.done():
                    failed.set_exception(LinkError(f"pulse input: {error.strerror or error}"))

        loop.add_reader(pulses.fileno(), on_edges)
        try:
            while True:
                self.take(self._counter.add(0))
                await asyncio.wait([failed], timeout=self._check_s)
                if failed.done():
                    failed.result()
        finally:
            loop.remove_reader(pulses.fileno())
            pulses.close()


class _GpiodInput:
    """An input pin by libgpiod."""

    def __init__(self, gpiod: ModuleType, chip: str, line: int, debounce_ms: int) -> None:
        settings = gpiod.LineSettings(
            edge_detection=gpiod.line.Edge.FALLING,
            bias=gpiod.line.Bias.PULL_UP,
            debounce_period=timedelta(milliseconds=debounce_ms),
        )
        self._request = gpiod.request_lines(chip, consumer="meterd", config={line: settings})

    def fileno(self) -> int:
        return int(self._request.fd)

    def read(self) -> int:
        return len(self._request.read_edge_events(EDGES_MAX))

    def close(self) -> None:
        self._request.release()


def gpio_input(chip: str, line: int, debounce_ms: int) -> Callable[[], EdgeInput]:
    """What opens pin `line` of `chip`, pulled up; a pulse pulls it down. Raises ConfigError."""
    gpiod = library("gpiod", "gpio")
    return lambda: _GpiodInput(gpiod, chip, line, debounce_ms)


def modbus_client(
    *, host_and_port: tuple[str, int] | None, device: str, baud_rate: int
) -> Callable[[], ModbusClient]:
    """What makes a client over TCP, or over a serial line without an address. Raises ConfigError.

    It tries nothing again by itself: that is the driver's, which tells of it.
    """
    client = library("pymodbus.client", "modbus")
    # It writes a line for every error; those are told of here.
    importlib.import_module("pymodbus").pymodbus_apply_logging_config("CRITICAL")
    given: Mapping[str, float] = {"timeout": MODBUS_TIMEOUT_S, "retries": 1, "reconnect_delay": 0}
    if host_and_port is not None:
        host, port = host_and_port

        def over_tcp() -> ModbusClient:
            made: ModbusClient = client.AsyncModbusTcpClient(host, port=port, **given)
            return made

        return over_tcp
    library("serial", "modbus")

    def over_serial() -> ModbusClient:
        made: ModbusClient = client.AsyncModbusSerialClient(device, baudrate=baud_rate, **given)
        return made

    return over_serial


def library(name: str, extra: str) -> ModuleType:
    """A library that only some meters need. Raises ConfigError with how to get it."""
    try:
        return importlib.import_module(name)
    except ImportError:
        raise ConfigError(
            f"{name.partition('.')[0]} is not installed: pip install 'amistack[{extra}]', "
            "or use another source"
        ) from None
