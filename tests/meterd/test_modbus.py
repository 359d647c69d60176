"""A Modbus energy meter, simulated on loopback and on a pseudo-terminal, by the protocol's text.

The contract under test: a register's words become its figure exactly, for every kind of words and
both orders; a meter that does not answer, refuses or talks nonsense is told of and asked again.
"""

from __future__ import annotations

import asyncio
import os
import random
import socket
import struct
import tty
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amistack.errors import ConfigError, SourceError
from meterd.config import MetrologySettings
from meterd.metrology import LiveSource
from meterd.metrology.drivers import ModbusDriver, modbus_client
from meterd.metrology.live import Sensor
from meterd.metrology.modbus import MODELS, ModbusTable, Place, Words, figure_of
from meterd.metrology.opening import modbus_table
from meterd.metrology.registers import Note, NoteKind, RegisterTracker
from meterd.metrology.source import Flow

FORMATS = {
    Words.UINT32: ">I",
    Words.INT32: ">i",
    Words.UINT64: ">Q",
    Words.INT64: ">q",
    Words.FLOAT32: ">f",
    Words.FLOAT64: ">d",
}


def words_of(kind: Words, figure: float, *, is_low_first: bool = False) -> list[int]:
    """As a meter would hold it."""
    octets = struct.pack(FORMATS[kind], figure)
    words = [int.from_bytes(octets[at : at + 2], "big") for at in range(0, len(octets), 2)]
    return words[::-1] if is_low_first else words


@settings(deadline=None)
@given(kind=st.sampled_from(Words), figure=st.integers(0, 2**31 - 1), low=st.booleans())
def test_words_are_the_figure_that_a_meter_holds(kind: Words, figure: int, low: bool) -> None:
    place = Place(7, kind, is_low_first=low)
    held = figure_of(place, words_of(kind, figure, is_low_first=low))
    if kind is Words.FLOAT32:
        (figure,) = struct.unpack(">f", struct.pack(">f", figure))
    assert held == figure


def test_figure_that_a_maker_documents() -> None:
    # Eastron, SDM630 Modbus protocol: 43 66 33 34 (hex) is 230.2.
    assert figure_of(Place(0, Words.FLOAT32), [0x4366, 0x3334]) == pytest.approx(230.2, abs=1e-4)


def test_table_makes_a_reading_with_the_width_of_its_words() -> None:
    table = ModbusTable(
        {Flow.DELIVERED: Place(0, Words.UINT32), Flow.RECEIVED: Place(2, Words.INT64)},
        Decimal("0.1"),
    )
    wide = ModbusTable({Flow.DELIVERED: Place(0, Words.UINT64)}, Decimal(1))
    (register,) = wide.reading({Flow.DELIVERED: words_of(Words.UINT64, 5)}, None).registers
    assert (register.mwh, register.width_mwh) == (5_000, None)  # No meter counts to 2^64.
    words = {
        Flow.DELIVERED: words_of(Words.UINT32, 123),
        Flow.RECEIVED: words_of(Words.INT64, 45),
    }
    reading = table.reading(words, "77")
    assert [(one.name, one.mwh, one.width_mwh) for one in reading.registers] == [
        ("1.8.0", 12_300, 2**32 * 100),
        ("2.8.0", 4_500, None),
    ]
    assert reading.meter == "77"


@pytest.mark.parametrize(
    "words",
    [
        [0x7FC0, 0],  # not a number
        [0x7F80, 0],  # infinite
        [0xC000, 0],  # negative
        [0x7F00, 0],  # 10^38 kWh
        [0x4000],
        [],
        [0x4000, 70_000],
        [-1, 0],
    ],
)
def test_words_that_are_no_energy_are_refused(words: list[int]) -> None:
    table = ModbusTable({Flow.DELIVERED: Place(0, Words.FLOAT32)}, Decimal(1000))
    with pytest.raises(SourceError, match="Modbus register 0"):
        table.reading({Flow.DELIVERED: words}, None)


def test_table_that_cannot_be_is_refused() -> None:
    with pytest.raises(ConfigError, match="a Modbus register at 65535"):
        Place(65_535, Words.UINT32)
    with pytest.raises(ConfigError, match="register_wh is 0"):
        ModbusTable({}, Decimal(0))
    for given_keys, said in (
        ({"model": "sdm999"}, "expected sdm120, sdm630"),
        ({"delivered_register": 1, "register_words": "uint16"}, "expected register_words uint32"),
        ({"delivered_register": 1, "register_table": "coil"}, "register_table input, holding"),
    ):
        settings = MetrologySettings(source="modbus", address="192.0.2.1", **given_keys)  # type: ignore[arg-type]
        with pytest.raises(ConfigError, match=said):
            modbus_table(settings, (Flow.DELIVERED,))


# Against a server

pymodbus = pytest.importorskip("pymodbus", reason="pip install 'amistack[modbus]'")


class Slave:
    """A meter's registers."""

    def __init__(self) -> None:
        self.wh = 1_234_000.0
        self.serial = 20_171_234
        self.is_nonsense = False
        self.asked = 0

    def words(self, function: int, address: int) -> list[int] | None:
        self.asked += 1
        if (function, address) == (3, 0xFC00):
            return words_of(Words.UINT32, self.serial)
        if (function, address) == (4, 0x48):
            return words_of(Words.FLOAT32, float("nan") if self.is_nonsense else self.wh / 1000)
        return None


def mbap_answer(request: bytes, slave: Slave) -> bytes:
    """What a Modbus TCP device answers, by the protocol's text and no library."""
    transaction, _, _, unit, function, address, _ = struct.unpack(">HHHBBHH", request)
    words = slave.words(function, address)
    if words is None:
        body = struct.pack(">BBB", unit, function | 0x80, 2)
    else:
        body = struct.pack(f">BBB{len(words)}H", unit, function, 2 * len(words), *words)
    return struct.pack(">HHH", transaction, 0, len(body)) + body


@asynccontextmanager
async def device(slave: Slave, port: int = 0) -> AsyncIterator[int]:
    """The device on loopback; its port."""
    writers: list[asyncio.StreamWriter] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        try:
            while True:
                request = await reader.readexactly(12)
                writer.write(mbap_answer(request, slave))
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", port)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for writer in writers:
            writer.close()
            with_end = writer.wait_closed()
            await asyncio.wait_for(asyncio.gather(with_end, return_exceptions=True), 5)


def rtu_answer(request: bytes, slave: Slave) -> bytes:
    """What a Modbus device on a serial line answers."""
    unit, function, address, _ = struct.unpack(">BBHH", request[:6])
    words = slave.words(function, address)
    assert words is not None
    body = struct.pack(f">BBB{len(words)}H", unit, function, 2 * len(words), *words)
    return body + rtu_check(body).to_bytes(2, "little")


def rtu_check(octets: bytes) -> int:
    """CRC-16/MODBUS, bit by bit."""
    rest = 0xFFFF
    for octet in octets:
        rest ^= octet
        for _ in range(8):
            rest = rest >> 1 ^ (0xA001 if rest & 1 else 0)
    return rest


class Bench:
    def __init__(self, port: int, *, silence_s: float = 60, device: str = "") -> None:
        self.notes: list[Note] = []
        self.utc = 20_700 * 86_400.0
        self.tracker = RegisterTracker((Flow.DELIVERED,))
        table = ModbusTable(
            {Flow.DELIVERED: MODELS["sdm630"].places[Flow.DELIVERED]},
            Decimal(1000),
            MODELS["sdm630"].serial,
        )
        self.driver = ModbusDriver(
            Sensor(LiveSource(self.tracker), silence_s=silence_s),
            table,
            modbus_client(
                host_and_port=None if device else ("127.0.0.1", port),
                device=device,
                baud_rate=9600,
            ),
            name=f"Modbus 127.0.0.1:{port}",
            unit=1,
            poll_s=0.02,
            silence_s=silence_s,
            first_wait_s=0.02,
        )

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        def utc() -> float:
            self.utc += 0.5
            return self.utc

        self.driver.start(utc=utc, on_note=self.notes.append, dice=random.Random(1))
        try:
            yield
        finally:
            self.driver.stop()
            await self.driver.wait_stopped()

    async def until(self, condition: Callable[[], object]) -> None:
        async with asyncio.timeout(15):
            while not condition():  # noqa: ASYNC110  a socket is in between
                await asyncio.sleep(0.01)

    @property
    def kinds(self) -> list[NoteKind]:
        return [note.kind for note in self.notes]


class Answered:
    def __init__(self, registers: list[int]) -> None:
        self.registers = registers

    def isError(self) -> bool:  # noqa: N802  the library's name
        return False


class PatientClient:
    """A client that waits for its answers as pymodbus does, and says when it waits."""

    connected = True

    def __init__(self) -> None:
        self.waiting: asyncio.Queue[asyncio.Future[None]] = asyncio.Queue()

    async def connect(self) -> bool:
        return True

    def close(self) -> None:
        self.connected = False

    async def read_input_registers(
        self,
        address: int,
        *,
        count: int,
        device_id: int,
    ) -> Answered:
        answer: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.waiting.put_nowait(answer)
        await asyncio.wait_for(answer, 60)
        return Answered(words_of(Words.FLOAT32, 1234.0))

    read_holding_registers = read_input_registers


@pytest.mark.both_loops
@pytest.mark.timeout(20)
async def test_driver_stops_though_an_answer_comes_in_the_same_moment() -> None:
    client = PatientClient()
    table = ModbusTable({Flow.DELIVERED: MODELS["sdm630"].places[Flow.DELIVERED]}, Decimal(1000))
    sensor = Sensor(LiveSource(RegisterTracker((Flow.DELIVERED,))))
    driver = ModbusDriver(
        sensor, table, lambda: client, name="m", unit=1, poll_s=0.01, silence_s=60
    )
    driver.start(utc=lambda: 1.8e9, on_note=lambda _: None, dice=random.Random(1))
    answer = await client.waiting.get()
    answer.set_result(None)
    driver.stop()
    await driver.wait_stopped()
    assert not client.connected


@pytest.mark.both_loops
async def test_meter_on_loopback_is_read_with_its_serial_number() -> None:
    slave = Slave()
    async with device(slave) as port:
        bench = Bench(port)
        async with bench.running():
            await bench.until(lambda: bench.tracker.total_mwh == (1_234_000_000,))
            slave.wh += 250
            await bench.until(lambda: bench.tracker.total_mwh == (1_234_250_000,))
    assert bench.tracker.meter == "20171234"


@pytest.mark.both_loops
async def test_meter_on_a_serial_line_is_read_with_its_serial_number() -> None:
    pytest.importorskip("serial", reason="pip install 'amistack[modbus]'")
    slave = Slave()
    far, near = os.openpty()
    tty.setraw(near)
    os.set_blocking(far, False)
    heard = bytearray()

    def answer() -> None:
        heard.extend(os.read(far, 64))
        while len(heard) >= 8:
            request = bytes(heard[:8])
            del heard[:8]
            assert rtu_check(request) == 0
            os.write(far, rtu_answer(request, slave))

    asyncio.get_running_loop().add_reader(far, answer)
    bench = Bench(0, device=os.ttyname(near))
    try:
        async with bench.running():
            await bench.until(lambda: bench.tracker.total_mwh == (1_234_000_000,))
        assert bench.tracker.meter == "20171234"
    finally:
        asyncio.get_running_loop().remove_reader(far)
        os.close(far)
        os.close(near)


@pytest.mark.both_loops
async def test_meter_that_goes_away_is_told_of_and_read_again_when_it_is_back() -> None:
    slave = Slave()
    async with device(slave) as port:
        bench = Bench(port)
        running = bench.running()
        await running.__aenter__()
        await bench.until(lambda: bench.tracker.total_mwh)
    try:
        await bench.until(lambda: NoteKind.VANISHED in bench.kinds)
        assert not bench.driver.sensor.is_there
        slave.wh += 500
        async with device(slave, port):
            await bench.until(lambda: NoteKind.RETURNED in bench.kinds)
            assert bench.tracker.total_mwh == (1_234_500_000,)
        assert bench.kinds[:2] == [NoteKind.VANISHED, NoteKind.RETURNED]
    finally:
        await running.__aexit__(None, None, None)


async def test_register_that_the_meter_refuses_is_told_in_one_line() -> None:
    slave = Slave()
    async with device(slave) as port:
        bench = Bench(port)
        bench.driver._table = ModbusTable(
            {Flow.DELIVERED: Place(999, Words.UINT32)}, Decimal(1), None
        )
        async with bench.running():
            await bench.until(lambda: bench.notes)
    assert bench.notes[0].detail == f"Modbus 127.0.0.1:{port}: unit 1 refuses register 999"


async def test_meter_without_the_serial_number_is_read_all_the_same() -> None:
    slave = Slave()
    async with device(slave) as port:
        bench = Bench(port)
        bench.driver._table = ModbusTable(
            bench.driver._table.places, Decimal(1000), Place(5, Words.UINT32)
        )
        async with bench.running():
            await bench.until(lambda: bench.tracker.total_mwh)
    assert (bench.tracker.meter, bench.notes) == (None, [])


async def test_meter_that_talks_nonsense_has_vanished_and_says_why() -> None:
    slave = Slave()
    slave.is_nonsense = True
    async with device(slave) as port:
        bench = Bench(port)
        async with bench.running():
            await bench.until(lambda: NoteKind.VANISHED in bench.kinds)
            assert bench.notes[0].detail == "no reading for 60 s; refused: unreadable"
            slave.is_nonsense = False
            await bench.until(lambda: NoteKind.RETURNED in bench.kinds)


async def test_address_where_nobody_listens_is_told_and_tried_again() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    bench = Bench(port)
    async with bench.running():
        await bench.until(lambda: bench.notes)
        assert bench.notes[0].detail == f"Modbus 127.0.0.1:{port}: no connection"
        async with device(Slave(), port):
            await bench.until(lambda: bench.driver.sensor.is_there)
