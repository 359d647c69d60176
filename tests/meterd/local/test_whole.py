"""All that a whole meter holds, read and downloaded at the local port and over the air.

The contract under test: a download has every row of the meter's memory, found by walking the
journal's tables and not by asking the dump's code; both ways tell the same; and only a credential
with the right role gets any of it, while every other attempt is on record and at the head-end.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from amistack.coap.codes import Code, Type
from amistack.coap.message import Message
from amistack.machine import Peer
from amistack.model import DailyReport, IntervalBlock, Quality, ReadAnswer, ReadParts, ReadRequest
from amistack.model.clock import ClockStatus
from amistack.model.diagnosis import Diagnosis
from amistack.model.dump import DumpPart
from amistack.model.event_catalogue import (
    ACCESSED,
    COVER_OPENED,
    PROGRAMME_CHANGED,
    VOLTAGE_LOW,
)
from amistack.model.event_notice import EventRules
from amistack.model.events import ACCESS_DENIED, PRIMARY_POWER_RESTORED
from amistack.model.history import DayRange, HistoryAnswer, HistoryParts, HistoryRequest
from amistack.model.holdings import KeptProgramme, LogBatch, Owed, TableRows, cell
from amistack.model.home import HomeList
from amistack.model.messages import MessageList, TextMessage
from amistack.model.programme_state import ProgrammeState
from amistack.model.quantity import Measured, Quantity, power_factor
from amistack.model.registers import RegistersAnswer
from amistack.model.resources import (
    CLOCK,
    DIAGNOSIS,
    EVENTS,
    HISTORY,
    HOME,
    MESSAGES,
    PROGRAMME,
    READ,
    REGISTERS,
    SCHEDULES,
    SWITCH,
)
from amistack.model.schedule import ScheduleTable
from meterd import storage as tables
from meterd.access import QUIET_S
from meterd.local.dumping import DUMPED
from meterd.local.framed import LINE
from meterd.local.reading import read_lines
from meterd.local.tool import Failed, ToolStation
from meterd.storage import entry_of
from tests.meterd.bench import METER, meter_key
from tests.meterd.local.bench import (
    CHANGER,
    PROGRAMMER,
    READER,
    STRANGER,
    VIEWER,
    tool_key,
)
from tests.meterd.local.whole import (
    EVERYTHING,
    Visit,
    Whole,
    by_path,
    fetch,
    programme,
    request,
)

SECRETS = (1, 3, 4)
"""Columns of a session that are keys, or lead to them: identifier, secret, salt."""


@pytest.fixture
def meter() -> Whole:
    made = Whole()
    made.power_on()
    made.fill()
    return made


@pytest.fixture
def fresh() -> Whole:
    made = Whole()
    made.power_on()
    made.world.elapse(120)
    return made


def over_the_air(meter: Whole) -> Sequence[DumpPart]:
    return meter.download()


def at_the_local_port(meter: Whole) -> Sequence[DumpPart]:
    return Visit(meter, READER).dump()


def blocks_in(found: dict[str, list[bytes]]) -> dict[tuple[int, int], IntervalBlock]:
    """Every block of the parts, by day and channel."""
    blocks: dict[tuple[int, int], IntervalBlock] = {}
    for payload in found["rep"]:
        report = DailyReport.decode(payload)
        blocks |= {(report.day, one.channel): one for one in report.blocks}
    for payload in found["read"]:
        read = ReadAnswer.decode(payload)
        blocks |= {(read.day, one.channel): one for one in read.blocks}
    return blocks


@pytest.mark.requirement("B1-FR-111", "I2-FR-24")
@pytest.mark.parametrize("download", [over_the_air, at_the_local_port])
def test_download_has_every_row_of_the_memory(
    meter: Whole, download: Callable[[Whole], Sequence[DumpPart]]
) -> None:
    found = by_path(download(meter))
    memory = {name: dict(meter.storage.journal.table(name)) for name in tables.TABLES}
    # Something of everything: a table that is added to a meter has to be thought of here.
    assert [name for name, rows in memory.items() if not rows] == []

    def taken(name: str) -> list[tuple[object, object]]:
        return list(memory.pop(name).items())

    # Days: every interval, register and gap of every channel.
    blocks = blocks_in(found)
    running = dict(taken(tables.RUNNING))
    days = taken(tables.DAY)
    assert len(days) > 45
    assert {key for key, _ in days} == blocks.keys()
    for (day, channel), (opening, advance, count, packed, missing) in days:  # type: ignore[misc]
        block = blocks[day, channel]
        ahead = 0
        if channel in running and running[channel][0] == day:  # type: ignore[index]
            ahead = running[channel][2]  # type: ignore[index]
        is_counted = meter.recorder.shelf.of_day(day).plan.tracks  # its quantity
        (quantity,) = (one.what.quantity for one in is_counted if one.number == channel)
        moved = advance - (ahead if quantity.is_counted else 0)
        assert (block.opening, block.advance, block.count) == (opening, moved, count)
        assert block.packed == packed
        gaps = [place for place, flag in enumerate(block.flags()) if Quality.MISSING in flag]
        assert gaps == [n for n in range(count) if int.from_bytes(missing, "little") >> n & 1]
    # The log, those that were reported as well; and what is owed.
    log = sorted(taken(tables.LOG))  # type: ignore[type-var]
    logged = [entry for payload in found["log"] for entry in LogBatch.decode(payload).entries]
    assert logged == [entry_of(key, row) for key, row in log]
    owed = [Owed.decode(payload) for payload in found["owed"]]
    assert [number for one in owed for number in one.sequences] == [
        key
        for key, row in log
        if not row[4]  # type: ignore[index]
    ]
    assert sorted(day for one in owed for day in one.days) == sorted(
        day
        for day, _ in taken(tables.OWED)  # type: ignore[type-var]
    )
    # Power quality: voltage in every interval, and its limits; failures of the supply; tampering.
    kinds = {entry.event for entry in logged}
    assert {VOLTAGE_LOW, PRIMARY_POWER_RESTORED, COVER_OPENED, PROGRAMME_CHANGED} <= kinds
    # What a schedule has read, and how far.
    (schedules,) = (ScheduleTable.decode(payload) for payload in found["sched"])
    assert [one.schedule.number for one in schedules.schedules] == [3]
    assert all(one.acknowledged_s > 0 for one in schedules.schedules)
    # Programmes, whole: what runs, what waits, what days were recorded by.
    kept = [KeptProgramme.decode(payload) for payload in found["kept"]]
    told = {(one.since, one.channel_set, one.programme.encode()) for one in kept}
    assert {tuple(row) for _, row in taken(tables.PROGRAMME)} <= told  # type: ignore[arg-type]
    declared = {one.channel_set: one.programme for one in kept}
    for payload in found["rep"]:
        # Whoever has the dump can read every day of it.
        report = DailyReport.decode(payload)
        numbers = {one.number for one in declared[report.channel_set].channels}
        assert {block.channel for block in report.blocks} <= numbers
    # Messages, and what became of them.
    messages = taken(tables.MESSAGE)
    assert [TextMessage.decode(one).encode() for one in found["text"]] == [
        row[0]
        for _, row in messages  # type: ignore[index]
    ]
    (listed,) = (MessageList.decode(one) for one in found["msg"])
    assert [(one.identifier, one.state, one.since_s) for one in listed.standings] == [
        (key, *row[1:])
        for key, row in messages  # type: ignore[index]
    ]
    # Keys of the session are nowhere.
    ((_, session),) = taken(tables.SESSION)
    for payload in (one for payloads in found.values() for one in payloads):
        for column in SECRETS:
            secret = session[column]  # type: ignore[index]
            assert len(secret) < 4 or secret not in payload
    # The house that is made up around the meter is no part of it.
    taken(tables.SERVICE)
    # All that is left is there row by row.
    rows = {
        (one.name, key): value
        for payload in found["table"]
        for one in (TableRows.decode(payload),)
        for key, value in one.rows
    }
    left = {
        (name, cell(key)): cell(value)
        for name, table in memory.items()
        for key, value in table.items()
    }
    assert {key: value for key, value in rows.items() if key[0] != tables.RUNNING} == left
    assert len(left) > 15
    assert meter.snapshot.counters == {}


def test_long_table_goes_in_pieces_and_whole(fresh: Whole) -> None:
    rows = {f"{number:05}": number for number in range(5_000)}
    fresh.storage.put(*((tables.DENIED, key, value) for key, value in rows.items()))
    payloads = by_path(fresh.snapshot.parts(fresh.world.now))["table"]
    pieces = [one for one in map(TableRows.decode, payloads) if one.name == tables.DENIED]
    assert len(pieces) > 1
    assert {key: value for one in pieces for key, value in one.rows} == rows
    # Few rows, but long ones.
    for number in range(40):
        fresh.storage.keep_note(f"note {number}", "x" * 1_000)
    notes = by_path(fresh.snapshot.parts(fresh.world.now))["table"]
    assert sum(payload.count(b"x" * 1_000) for payload in notes) == 40
    assert fresh.snapshot.counters == {}


def kinds_of(ask: Callable[[Message], Message], today: int) -> dict[str, object]:
    """Every kind of data, as single reads give them; what moves by itself apart."""
    said = ask(request(Code.FETCH, READ, ReadRequest(b"one read", ReadParts(7)).encode()))
    read = ReadAnswer.decode(said.payload)
    parts = HistoryParts.INTERVALS | HistoryParts.LOG
    wanted = HistoryRequest(b"one read", parts, (DayRange(today - 3, today - 1),))
    history = HistoryAnswer.decode(ask(request(Code.FETCH, HISTORY, wanted.encode())).payload)

    def get(path: str) -> bytes:
        return ask(request(Code.GET, path)).payload

    registers = RegistersAnswer.decode(get(REGISTERS))
    channels = ProgrammeState.decode(get(PROGRAMME)).programme.channels
    by_what = {one.measured: one.number for one in channels}
    latest = {block.channel: block.values()[-1] for block in read.blocks}
    active = latest[by_what[Measured(Quantity.DELIVERED)]]
    reactive = latest[by_what[Measured(Quantity.REACTIVE)]]
    assert active is not None
    assert reactive is not None
    return {
        "register reads": dict(read.registers),
        "demand": registers.demand,
        "demand register": registers.registers,
        "interval data": [block.values() for block in read.blocks],
        "days before": [[block.values() for block in day.blocks] for day in history.days],
        "logs": [entry for day in history.days for entry in day.entries],
        "voltage": latest[by_what[Measured(Quantity.VOLTAGE)]],
        "power factor": power_factor(active, reactive),
        "schedules": ScheduleTable.decode(get(SCHEDULES)),
        "programme": channels,
        "event table": EventRules.decode(get(EVENTS)),
        "switch": get(SWITCH),
        "messages": [one.state for one in MessageList.decode(get(MESSAGES)).standings],
        "diagnosis": Diagnosis.decode(get(DIAGNOSIS)).findings,
        "clock": ClockStatus.decode(get(CLOCK)).clock.state,
        "home": [one.subscription for one in HomeList.decode(get(HOME)).standings],
    }


@pytest.mark.requirement("I2-FR-24")
def test_reads_over_the_air_and_with_the_network_gone_at_the_local_port_agree(
    meter: Whole,
) -> None:
    today = meter.recorder.day_of(meter.utc(meter.world.now))
    began = meter.world.now
    remote = kinds_of(meter.send, today)
    downloaded = by_path(meter.download())
    meter.cut_off()
    local = kinds_of(Visit(meter, READER).get, today)
    dumped = by_path(Visit(meter, READER).dump())
    passed_s = meter.world.now - began
    assert passed_s < 5
    moving = ("register reads", "demand register")
    for kind, value in local.items():
        assert value, kind
        if kind not in moving:
            assert value == remote[kind], kind
    # What counts has counted on meanwhile, as much as the load can.
    now, before = local["register reads"], remote["register reads"]
    assert isinstance(now, dict)
    assert isinstance(before, dict)
    assert now.keys() == before.keys()
    for channel, register in now.items():
        assert 0 <= abs(register - before[channel]) <= 2_000 * passed_s / 3600 + 1
    assert blocks_in(downloaded) == blocks_in(dumped)
    for path in ("kept", "text", "sched", "ev", "prog", "switch", "reg"):
        assert downloaded[path] == dumped[path], path
    first, last = (
        [entry for payload in one["log"] for entry in LogBatch.decode(payload).entries]
        for one in (downloaded, dumped)
    )
    assert last[: len(first)] == first
    assert [entry.event for entry in last[len(first) :]] == [ACCESSED, ACCESSED]


def test_tool_shows_registers_demand_voltage_and_power_factor(meter: Whole) -> None:
    visit = Visit(meter, VIEWER)
    parts = ReadParts.REGISTERS | ReadParts.INTERVALS
    said = visit.get(request(Code.FETCH, READ, ReadRequest(b"the tool", parts).encode()))
    told = ReadAnswer.decode(said.payload)
    registers = RegistersAnswer.decode(visit.get(request(Code.GET, REGISTERS)).payload)
    lines = list(read_lines(told, registers))
    shown = meter.recorder.registers(meter.utc(meter.world.now))
    assert lines[0].endswith("Z clock set")
    assert lines[1] == f"channel 1   {shown[0][1]} Wh delivered"
    # 2 kW from 230 V: the made-up supply sags by 1.2 V, and swings by 4 V over the day.
    (volts,) = (line for line in lines if " V voltage, mean of " in line)
    assert 224 < float(volts.split()[2]) < 233
    assert any(line.startswith("demand      peak 2000 W at 20") for line in lines)
    assert any(line.startswith("power factor 0.950, ") for line in lines)
    assert len([line for line in lines if line.startswith("channel")]) == len(EVERYTHING) - 1


# Who may


READS = {
    READ: request(Code.FETCH, READ, ReadRequest(b"one read", ReadParts(7)).encode()),
    REGISTERS: request(Code.GET, REGISTERS),
    HISTORY: request(
        Code.FETCH, HISTORY, HistoryRequest(b"one read", HistoryParts.REGISTERS).encode()
    ),
    "dump": fetch(0),
}


def outcome(answer: Message | str) -> object:
    return answer.code if isinstance(answer, Message) else answer


@pytest.mark.requirement("B1-NFR-09")
def test_reads_and_downloads_at_the_local_port_are_for_the_right_role_alone(fresh: Whole) -> None:
    expected = {
        STRANGER: dict.fromkeys(READS, "not let in"),
        # The wrong role: it may change, and is no reader's.
        CHANGER: dict.fromkeys(READS, Code.FORBIDDEN),
        VIEWER: {**dict.fromkeys(READS, Code.CONTENT), "dump": Code.FORBIDDEN},
        READER: dict.fromkeys(READS, Code.CONTENT),
        PROGRAMMER: dict.fromkeys(READS, Code.CONTENT),
    }
    for tool, wanted in expected.items():
        visit = Visit(fresh, tool)
        assert {path: outcome(visit.ask(one)) for path, one in READS.items()} == wanted, tool
    # Nobody's credential at all.
    visit = Visit(fresh, READER)
    for one in READS.values():
        plain = Message(one.code, one.type, 7, b"", one.options, one.payload)
        visit.station.receive_datagram(plain.encode(), LINE, now=fresh.world.now)
        ((_, said),) = visit.station.data_to_send()
        assert Message.decode(said).code == Code.UNAUTHORIZED
        assert Message.decode(said).payload == b"not protected"
    # Each attempt is on record, and at the head-end.
    fresh.world.elapse(30)
    told = [
        str(one.entry.detail)
        for notice in fresh.head_end.notices
        for one in notice.events
        if one.entry.event == ACCESS_DENIED
    ]
    kid = tool_key(CHANGER).credential.id_cred.value.hex()  # type: ignore[union-attr]
    for part in ("unknown tool", f"tool {kid} may not do that", "not protected"):
        assert any(part in detail for detail in told), part
    granted = [entry.detail for entry in fresh.entries(ACCESSED)]
    assert len(granted) == 5


def test_changer_changes_and_a_reader_does_not(fresh: Whole) -> None:
    wanted = programme(1)
    message = request(Code.PUT, PROGRAMME, wanted.encode())
    assert outcome(Visit(fresh, CHANGER).ask(message)) == Code.CHANGED
    assert outcome(Visit(fresh, READER).ask(message)) == Code.FORBIDDEN


class Wandering:
    """A field tool that tries its luck over the network."""

    def __init__(self, tool: ToolStation) -> None:
        self.tool = tool

    def receive_datagram(self, data: bytes, peer: Peer, *, now: float) -> None:
        self.tool.receive_datagram(data, LINE, now=now)

    def handle_timer(self, *, now: float) -> None:
        self.tool.handle_timer(now=now)

    def data_to_send(self) -> list[tuple[Peer, bytes]]:
        return [("meter", datagram) for _, datagram in self.tool.data_to_send()]

    def events(self) -> list[object]:
        return list(self.tool.events())

    def next_timer(self) -> float | None:
        return self.tool.next_timer()


@pytest.mark.requirement("B1-NFR-09")
def test_reads_and_downloads_over_the_air_are_for_the_head_end_alone(fresh: Whole) -> None:
    world = fresh.world

    def said_to(name: str) -> list[Message]:
        sent = [one for one in world.datagrams() if (one.sender, one.receiver) == ("meter", name)]
        return [Message.decode(one.datagram) for one in sent]

    # Nobody's credential.
    for number, one in enumerate(READS.values()):
        plain = Message(one.code, Type.CON, number, b"", one.options, one.payload)
        world.send("stranger", "meter", plain.encode())
        world.elapse(1)
    assert [answer.code for answer in said_to("stranger")] == [Code.UNAUTHORIZED] * len(READS)
    # The wrong role: a tool that may read all at the local port is nobody over the air.
    dice = fresh.world.dice
    tool = ToolStation(
        key=tool_key(PROGRAMMER), meter=meter_key().credential, entropy=dice.randbytes, dice=dice
    )
    host = world.add("tool", Wandering(tool))
    tool.line_opened(now=world.now)
    host.settle()
    world.elapse(5)
    assert isinstance(host.events[0], Failed)
    assert all(answer.code != Code.CONTENT for answer in said_to("tool"))
    # A false key under the name of a true session: a request that never arrived, changed.
    world.passes = lambda sender, _, __: sender != "head-end"
    asked = fresh.head_end.ask(METER, READS[REGISTERS], "meter", now=world.now)
    fresh.settle_head_end()
    true = Message.decode(world.datagrams()[-1].datagram)
    fresh.head_end.cancel(asked, now=world.now)
    world.passes = None
    octets = bytes(octet ^ 0xFF for octet in true.payload)
    forged = Message(true.code, Type.CON, 99, b"f", true.options, octets)
    world.send("forger", "meter", forged.encode())
    world.elapse(1)
    (answer,) = said_to("forger")
    assert (answer.code, answer.payload) == (Code.BAD_REQUEST, b"decryption failed")
    # The right one.
    assert {path: fresh.send(one).code for path, one in READS.items()} == dict.fromkeys(
        READS, Code.CONTENT
    )
    assert [entry.detail for entry in fresh.entries(DUMPED)] == ["head-end"]
    # What was tried is on record, and told at once: a flood is one entry a minute.
    world.elapse(2 * QUIET_S)
    told = [
        str(one.entry.detail)
        for notice in fresh.head_end.notices
        for one in notice.events
        if one.entry.event == ACCESS_DENIED
    ]
    assert told[0] == "network: not protected"
    # The other reads, and the tool's handshake.
    assert "network: not protected, 4 times" in told
    assert "network: decryption failed" in told
    assert len(told) <= 5
