"""How a running meter is: on its door, to the service manager, and on the screen.

The contract under test: `meterd status` tells stage, days owed, last report, clock, storage and
counters of a meter that runs, as text and as JSON; a street's is told in one place; a service
manager hears that the meter is ready and beats, until its storage hangs; a meter whose work stands
still is exit code 1.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import io
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog

from amistack.links import open_udp
from amistack.model import event_catalogue
from amistack.model.control import Action, ControlCommand, Refusal
from amistack.session.fleet import encode_public_key, meter_credential
from meterd import daemon
from meterd.agent import Hindered, ReadAnswered, Registered, Reported, Stage, StorageFailed
from meterd.cli import main
from meterd.daemon import Meter, load_settings
from meterd.door import DOOR
from meterd.provision import CONFIG_FILE, Template, provision
from meterd.status import Lately, MeterStatus, stall_of
from meterd.status_commands import show, show_street
from tests.support.head_end import HeadEnd, head_end_key, key_of

PUBLIC_KEY = encode_public_key(key_of(1).public_key()).hex()
AT_ONCE = ("report_delay_s = 0", "report_spread_s = 0", "start_spread_s = 0", "catch_up_s = 0")
METROLOGY = ('source = "constant"', "watts = 500", "interval_s = 3600")
METERD = [sys.executable, "-c", "from meterd.cli import main; raise SystemExit(main())"]


@pytest.fixture(autouse=True)
def _quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(daemon, "LOG", structlog.wrap_logger(structlog.PrintLogger(io.StringIO())))


def _made(folder: Path, port: int = 9) -> Path:
    template = Template(
        address=f"127.0.0.1:{port}",
        public_key=PUBLIC_KEY,
        metrology=METROLOGY,
        schedule=AT_ONCE,
    )
    provision(folder, template)
    return folder / CONFIG_FILE


async def _until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110  # Nothing tells of it: a socket is in between.
            await asyncio.sleep(0.01)


async def test_meter_tells_what_it_has_done(tmp_path: Path) -> None:
    head_end = HeadEnd(head_end_key(1), {}, lambda _: time.time(), seed=random.randrange(1 << 30))
    link = await open_udp(head_end, lambda _: None, host="127.0.0.1", port=0)
    config = _made(tmp_path, link.address[1])
    settings = load_settings(config)
    meter = await Meter.open(settings)
    head_end.meters = {settings.meter.eui64: meter_credential(settings.meter.eui64, _key(config))}
    try:
        await meter.start()
        before = meter.status()
        assert (before.stage, before.owed_days, before.last_report_at) == ("securing", 45, None)
        assert before.clock == "doubtful"
        assert before.clock_error_s is None
        await _until(lambda: meter.agent.owed_count == 0)
        status = meter.status()
    finally:
        meter.stop()
        link.close()
    today = int(time.time()) // 86_400
    assert status.meter == settings.meter.id
    assert abs(status.at - time.time()) < 3
    assert status.stage == "reporting"
    assert status.head_end == f"127.0.0.1:{link_port(settings.headend.address)}"
    assert (status.owed_days, status.oldest_owed_day) == (0, None)
    assert status.last_report_day == today - 45
    assert status.last_report_at is not None
    assert abs(status.last_report_at - time.time()) < 3
    assert status.recorded_until is not None
    assert 0 <= time.time() - status.recorded_until < 3601
    assert status.clock == "set"
    assert status.clock_error_s is not None
    assert abs(status.clock_error_s) < 1
    assert (status.hindrance, status.stall, status.storage_failure) == (None, None, None)
    assert status.counters["reports acknowledged"] == 45
    assert status.flushes > 45
    assert status.written_octets > 1000
    assert status.link["datagrams sent"] > 45
    secret = settings.meter.key.read_text().splitlines()[1]
    assert secret not in status.to_json()
    assert "\n" not in status.to_json()


def link_port(address: str | None) -> str:
    assert address is not None
    return address.rsplit(":", 1)[1]


def _key(config: Path) -> bytes:
    from amistack.keystore import load_key

    return encode_public_key(load_key(config.parent / "meter-key.pem", None).public_key())


# What is noted of events


def test_hindrance_is_told_until_the_meter_gets_on() -> None:
    lately = Lately()
    hindered = Hindered(Stage.REPORTING, "later", 60.0)
    for cure in (Registered(), Reported(20_000)):
        lately.take(hindered, utc=1000.0)
        assert lately.hindrance == ("later", 1060.0)
        lately.take(ReadAnswered(b"x"), utc=1001.0)
        assert lately.hindrance is not None
        lately.take(cure, utc=1002.0)
        assert lately.hindrance is None
    assert (lately.report_day, lately.report_at, lately.read_at) == (20_000, 1002.0, 1001.0)


def test_storage_failure_is_told_as_long_as_it_repeats() -> None:
    lately = Lately()
    assert lately.storage_failure(0.0) is None
    lately.take(StorageFailed("disk is full", 60.0), utc=1000.0)
    assert lately.storage_failure(1089.0) == "disk is full"
    assert lately.storage_failure(1091.0) is None


class _Due:
    def __init__(self, due: float | None) -> None:
        self._due = due

    def next_timer(self) -> float | None:
        return self._due


@pytest.mark.parametrize(
    ("due", "is_still"), [(None, False), (200.0, False), (70.1, False), (70.0, False), (69.9, True)]
)
def test_work_stands_still_when_something_is_due_for_long(
    due: float | None, *, is_still: bool
) -> None:
    stall = stall_of(_Due(due), now=100.0)  # type: ignore[arg-type]  # all that is asked of it
    assert (stall is not None) is is_still


# On the screen


def _status(**changes: Any) -> dict[str, Any]:
    status = MeterStatus(
        meter="02000000000000aa",
        at=1_800_000_000,
        started_at=1_799_990_000,
        stage="reporting",
        head_end="192.0.2.7:5683",
        owed_days=2,
        oldest_owed_day=20_831,
        recorded_until=1_799_999_100,
        last_report_day=20_830,
        last_report_at=1_799_995_000,
        last_read_at=None,
        hindrance=None,
        hindered_until=None,
        stall=None,
        clock="set",
        clock_error_s=-0.25,
        clock_bound_s=0.01,
        storage="/var/lib/meterd/meter-data",
        written_octets=13_000,
        flushes=100,
        storage_failure=None,
        counters={"reads answered": 3},
        refused={"oscore: replay": 1},
        link={"datagrams sent": 9},
    )
    return json.loads(dataclasses.replace(status, **changes).to_json())


def test_status_for_the_eye() -> None:
    text = show(_status())
    for part in (
        "reporting",
        "192.0.2.7:5683",
        "of 2027-01-12, acknowledged 2027-01-15 06:36:40Z",
        "2, the oldest 2027-01-13",
        "set, -0.250 s to the head-end's, give or take 0.010 s",
        "13000 octets in 100 flushes",
        "counted         reads answered: 3",
        "refused         oscore: replay: 1",
    ):
        assert part in text
    assert "hindered" not in text


async def test_meter_tells_where_its_switch_is_and_what_is_measured(tmp_path: Path) -> None:
    settings = load_settings(_made(tmp_path))
    meter = await Meter.open(settings)
    try:
        await meter.start()
        told = meter.status().switch
        assert told is not None
        assert (told.position, told.outcome, told.current) == ("closed", "none", "present")
        assert (told.newest, told.limit_from, told.limit_until) == (0, None, None)
        switch = meter.fittings.switch
        assert switch is not None
        command = ControlCommand(7, int(time.time()) + 600, Action.DISCONNECT)
        now = meter._link.now()  # type: ignore[union-attr]
        # Only a clock that was set obeys: here it is not compared yet, and set all the same.
        assert switch.command(command, now=now).refusal is Refusal.NONE
        told = meter.status().switch
    finally:
        meter.stop()
    assert told is not None
    assert (told.position, told.newest, told.current) == ("open", 7, "absent")
    assert abs(told.since - time.time()) < 5
    text = show(_status(switch=dataclasses.asdict(told)))
    assert "switch          open since" in text
    assert "current absent, load side absent" in text
    limited = dataclasses.replace(told, limit_from=1_800_000_000, limit_until=1_800_086_400)
    text = show(_status(switch=dataclasses.asdict(limited)))
    assert "load limit from 2027-01-15 08:00:00Z to 2027-01-16 08:00:00Z, closed 0 times" in text
    assert "switch" not in show(_status())


async def test_meter_looks_at_the_board_that_its_settings_name(tmp_path: Path) -> None:
    config = _made(tmp_path)
    thermometer = tmp_path / "temp"
    thermometer.write_text("90500\n")
    with config.open("a") as file:
        file.write(f'\n[board]\ntemperature = "{thermometer}"\nbattery = "{tmp_path / "no"}"\n')
    meter = await Meter.open(load_settings(config))
    try:
        await meter.start()
        await _until(lambda: meter.status().counters.get("board: battery not read"))
        kinds = [entry.event for entry in meter._storage.entries(0, 2**32, limit=100)]
    finally:
        meter.stop()
    assert event_catalogue.TEMPERATURE_HIGH in kinds


def test_what_is_wrong_is_in_the_text() -> None:
    text = show(
        _status(
            head_end=None,
            owed_days=0,
            oldest_owed_day=None,
            last_report_at=None,
            clock_error_s=None,
            clock_bound_s=None,
            hindrance="4.03 \x1b[31m\nno",
            hindered_until=1_800_000_060,
            stall="what was due 90 s ago is not done",
            storage_failure="disk is full",
        )
    )
    for part in (
        "searching",
        "none since the start",
        "not compared with the head-end's yet",
        "4.03 ?[31m?no; again 2027-01-15 08:01:00Z",
        "STANDS STILL    what was due 90 s ago",
        "FAILS: disk is full",
    ):
        assert part in text


def test_street_for_the_eye_names_some_who_are_hindered() -> None:
    meters = [_status(hindrance=f"reason {number}", hindered_until=1) for number in range(23)]
    meters += [_status(stage="securing", clock="doubtful", storage_failure="full")]
    text = show_street(meters)
    assert "meters          24: 23 reporting, 1 securing" in text
    assert "days owed       48" in text
    assert "1 doubtful, 23 set" in text
    assert "storage         1 failing" in text
    assert "hindered        23" in text
    assert "reason 19" in text
    assert "reason 20" not in text
    assert "and 3 more" in text


# The real program


@pytest.fixture
def start() -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    started: list[subprocess.Popen[bytes]] = []

    def run(*arguments: str, **environment: str) -> subprocess.Popen[bytes]:
        command = arguments if arguments[0] == sys.executable else (*METERD, *arguments)
        started.append(
            subprocess.Popen(
                command,
                env={**os.environ, **environment},
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
        )
        return started[-1]

    yield run
    for process in started:
        process.kill()
        process.wait()


def _wait_for(condition: Callable[[], object], timeout: float = 20) -> None:
    end = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def _is_answering(*arguments: str) -> bool:
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        return main(arguments) == 0


def test_status_of_a_running_meter_and_of_none(
    tmp_path: Path,
    start: Callable[..., subprocess.Popen[bytes]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    config = str(_made(tmp_path))
    assert main(["status", "--config", config]) == 1
    refused = capsys.readouterr()
    assert refused.out == ""
    assert refused.err.startswith("meterd: no meterd is running")
    assert refused.err.count("\n") == 1
    process = start("run", "--config", config)
    _wait_for(lambda: _is_answering("status", "--config", config))
    assert main(["status", "--config", config, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["owed_days"] == 45
    assert set(told) == {field.name for field in dataclasses.fields(MeterStatus)}
    assert main(["status", "--config", config]) == 0
    assert "days owed       45" in capsys.readouterr().out
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == 0
    assert not (tmp_path / "meter-data" / DOOR).exists()


def test_street_made_and_run_by_one_command(
    tmp_path: Path,
    start: Callable[..., subprocess.Popen[bytes]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    street = str(tmp_path / "street")
    made = ["--directory", street, "--headend", "127.0.0.1:9", "--headend-key", PUBLIC_KEY]
    assert main(["street", "init", street, "--meters", "2", *made[2:]]) == 0
    loads = (tmp_path / "street" / "meter-0002" / CONFIG_FILE).read_text()
    start("street", "--count", "3", *made)
    _wait_for(lambda: _is_answering("street", "status", street))
    _wait_for((tmp_path / "street" / "meter-0003" / "meter-data").exists)
    capsys.readouterr()
    _wait_for(lambda: len(_street_lines(street, capsys)) == 3)
    assert main(["street", "status", street]) == 0
    assert "meters          3: 3 securing" in capsys.readouterr().out
    assert (tmp_path / "street" / "meter-0002" / CONFIG_FILE).read_text() == loads
    assert main(["street", "init", str(tmp_path / "other"), "--meters", "3", *made[2:]]) == 0
    other = (tmp_path / "other" / "meter-0003" / CONFIG_FILE).read_text()
    third = (tmp_path / "street" / "meter-0003" / CONFIG_FILE).read_text()
    assert third.splitlines()[4:] == other.splitlines()[4:], "its load hangs on its number alone"


def _street_lines(street: str, capsys: pytest.CaptureFixture[str]) -> list[str]:
    main(["street", "status", street, "--json"])
    return capsys.readouterr().out.splitlines()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--count", "0"], "--count is 0, expected 1 to 10000"),
        (["--count", "10001"], "--count is 10001, expected"),
        (["--count", "2"], "2 meters are to be made and --headend-key is missing"),
    ],
)
def test_street_that_cannot_be_made_is_one_line_and_makes_nothing(
    tmp_path: Path, arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    street = tmp_path / "street"
    assert main(["street", *arguments, "--directory", str(street)]) == 1
    assert says in capsys.readouterr().err
    assert not street.exists()


async def test_meter_works_without_a_door(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = io.StringIO()
    monkeypatch.setattr(
        daemon,
        "LOG",
        structlog.wrap_logger(
            structlog.PrintLogger(lines), processors=[structlog.processors.JSONRenderer()]
        ),
    )
    (tmp_path / "meter-data").mkdir()
    (tmp_path / "meter-data" / DOOR).write_text("in the way")
    config = _made(tmp_path)
    running = asyncio.create_task(daemon.run([config]))
    await _until(lambda: "meter started" in lines.getvalue())
    assert "is there and is no socket" in lines.getvalue()
    os.kill(os.getpid(), signal.SIGTERM)
    await running


# The service manager


class _Manager:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(path))
        self.socket.settimeout(0)
        self.lines: list[str] = []

    def heard(self) -> list[str]:
        with contextlib.suppress(BlockingIOError):
            while True:
                self.lines += self.socket.recv(4096).decode().splitlines()
        return self.lines


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[_Manager]:
    manager = _Manager(tmp_path / "notify")
    yield manager
    manager.socket.close()


def test_service_manager_hears_ready_beats_and_stopping(
    tmp_path: Path, manager: _Manager, start: Callable[..., subprocess.Popen[bytes]]
) -> None:
    config = str(_made(tmp_path))
    process = start(
        "run", "--config", config, NOTIFY_SOCKET=str(manager.path), WATCHDOG_USEC="300000"
    )
    _wait_for(lambda: manager.heard().count("WATCHDOG=1") >= 3)
    assert manager.lines[:2] == ["READY=1", "STATUS=1 securing; 45 days owed"]
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == 0
    assert "STOPPING=1" in manager.heard()


HANGING = """
import os, time
from amistack.links.supervision import Supervisor
ready = Supervisor.tell_ready
def and_then_the_disk_hangs(self, status=""):
    ready(self, status)
    os.fsync = lambda _: time.sleep(60)
Supervisor.tell_ready = and_then_the_disk_hangs
from meterd.cli import main
main()
"""


async def test_beats_end_when_the_storage_hangs(
    tmp_path: Path, manager: _Manager, start: Callable[..., subprocess.Popen[bytes]]
) -> None:
    head_end = HeadEnd(head_end_key(1), {}, lambda _: time.time(), seed=1)
    link = await open_udp(head_end, lambda _: None, host="127.0.0.1", port=0)
    config = _made(tmp_path, link.address[1])
    config.write_text(config.read_text().replace("start_spread_s = 0", "start_spread_s = 1"))
    meter = load_settings(config).meter.eui64
    head_end.meters = {meter: meter_credential(meter, _key(config))}
    start(
        sys.executable,
        "-c",
        HANGING,
        "run",
        "--config",
        str(config),
        NOTIFY_SOCKET=str(manager.path),
        WATCHDOG_USEC="150000",
    )
    try:
        await _until(lambda: "READY=1" in manager.heard())

        def is_quiet() -> bool:
            heard = len(manager.heard())
            time.sleep(0.5)
            return len(manager.heard()) == heard

        await _until(is_quiet)
        # It is the session that cannot be kept: nothing was said under it.
        assert not head_end.registrations
    finally:
        link.close()


async def test_meter_that_is_overdue_stands_still(tmp_path: Path) -> None:
    meter = await Meter.open(load_settings(_made(tmp_path)))
    try:
        assert meter.find_stall() is None
        await meter.start()
        assert meter.find_stall() is None
        assert meter._link is not None
        meter.agent._patience.act_at = meter._link.now() - 31
        assert "is not done" in str(meter.find_stall())
        assert meter.status().stall is not None
    finally:
        meter.stop()


def test_meter_that_stands_still_is_exit_code_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = _made(tmp_path)
    monkeypatch.setattr("meterd.door.ask", lambda _: [json.dumps(_status(stall="it is late"))])
    assert main(["status", "--config", str(config)]) == 1
    told = capsys.readouterr()
    assert "STANDS STILL    it is late" in told.out
    assert told.err == "meterd: 02000000000000aa stands still: it is late\n"
