"""The service manager is told how we are, over a socket of its own.

The contract under test: what is sent is as sd_notify(3) has it; beats come from the running loop,
stop while the work stands still or the loop is blocked, and go on afterwards; where the environment
asks for nothing, or nobody is there, nothing happens and nothing fails.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
from hypothesis import given, settings
from hypothesis import strategies as st

from amistack.links import supervision
from amistack.links.supervision import BEATS_PER_PERIOD, STATUS_SIZE_MAX, Supervisor

PERIOD_S = 0.15


@pytest.fixture(autouse=True)
def log(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    lines = io.StringIO()
    logger = structlog.wrap_logger(
        structlog.PrintLogger(lines), processors=[structlog.processors.JSONRenderer()]
    )
    monkeypatch.setattr(supervision, "LOG", logger)
    return lines


class Manager:
    """The other end."""

    def __init__(self, address: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(address)
        self.socket.settimeout(0)

    def heard(self) -> list[bytes]:
        found = []
        with contextlib.suppress(BlockingIOError):
            while True:
                found.append(self.socket.recv(4096))
        return found


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    manager = Manager(str(tmp_path / "notify"))
    yield manager
    manager.socket.close()


def _environment(manager: Manager, **more: str) -> dict[str, str]:
    return {"NOTIFY_SOCKET": manager.socket.getsockname(), **more}


def test_ready_and_stopping_are_told(manager: Manager) -> None:
    supervisor = Supervisor.from_environment(_environment(manager))
    supervisor.tell_ready("1 reporting")
    supervisor.tell_stopping()
    assert manager.heard() == [b"READY=1\nSTATUS=1 reporting", b"STOPPING=1\nSTATUS=stopping"]


def test_abstract_socket_is_reached() -> None:
    name = f"amistack-test-{os.getpid()}"
    manager = Manager("\0" + name)
    Supervisor.from_environment({"NOTIFY_SOCKET": "@" + name}).tell_ready()
    assert manager.heard() == [b"READY=1"]
    manager.socket.close()


@pytest.mark.parametrize(
    "address", [None, "", "/", "@", "relative", "vsock:2:1234", "/nowhere/at/all"]
)
def test_nobody_to_tell_is_no_failure(address: str | None) -> None:
    environment = {} if address is None else {"NOTIFY_SOCKET": address}
    supervisor = Supervisor.from_environment(environment)
    supervisor.tell_ready("x")
    supervisor.tell_stopping()
    supervisor.close()


def test_manager_that_does_not_read_keeps_nobody_waiting(manager: Manager) -> None:
    supervisor = Supervisor.from_environment(_environment(manager))
    begun = time.monotonic()
    for _ in range(1000):
        supervisor.tell_ready("x" * 150)
    assert time.monotonic() - begun < 2
    assert 0 < len(manager.heard()) < 1000


@pytest.mark.parametrize(
    ("asked", "beat_s"),
    [
        ({"WATCHDOG_USEC": "30000000"}, 10.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "7"}, 10.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "8"}, None),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": ""}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "-3"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({"WATCHDOG_USEC": "٣"}, None),
        ({"WATCHDOG_USEC": "9" * 5000}, 28_800.0),
        ({}, None),
    ],
)
def test_watch_is_kept_if_it_is_asked_of_us(
    manager: Manager, asked: dict[str, str], beat_s: float | None
) -> None:
    supervisor = Supervisor.from_environment(_environment(manager, **asked), process=7)
    assert supervisor.beat_s == beat_s


@given(st.text(max_size=2 * STATUS_SIZE_MAX))
@settings(deadline=None, max_examples=50)
def test_status_is_one_line_and_says_nothing_else(status: str) -> None:
    name = f"amistack-status-{os.getpid()}"
    manager = Manager("\0" + name)
    Supervisor.from_environment({"NOTIFY_SOCKET": "@" + name}).tell_ready(status)
    (told,) = manager.heard()
    manager.socket.close()
    lines = told.decode(errors="replace").split("\n")
    assert lines[0] == "READY=1"
    assert len(lines) <= 2
    assert all(line.startswith("STATUS=") for line in lines[1:])
    assert all(len(line) <= len("STATUS=") + STATUS_SIZE_MAX for line in lines)


def _watched(manager: Manager) -> Supervisor:
    return Supervisor(manager.socket.getsockname(), period_s=PERIOD_S)


@pytest.mark.both_loops
async def test_beats_come_often_enough_and_end_with_close(manager: Manager) -> None:
    supervisor = _watched(manager)
    supervisor.watch(lambda: None, lambda: "all is well")
    await asyncio.sleep(2 * PERIOD_S)
    heard = manager.heard()
    assert set(heard) == {b"WATCHDOG=1\nSTATUS=all is well"}
    assert len(heard) >= 2 * (BEATS_PER_PERIOD - 1)
    supervisor.close()
    await asyncio.sleep(PERIOD_S)
    assert manager.heard() == []


async def test_no_beat_while_the_work_stands_still_and_again_afterwards(
    manager: Manager, log: io.StringIO
) -> None:
    stalls: list[str | None] = ["the disk is away"]
    supervisor = _watched(manager)
    supervisor.watch(lambda: stalls[-1], lambda: "well")
    await asyncio.sleep(PERIOD_S)
    assert set(manager.heard()) == {b"STATUS=standing still: the disk is away"}
    assert log.getvalue().count("standing still") == 1
    stalls.append(None)
    await asyncio.sleep(PERIOD_S)
    assert b"WATCHDOG=1\nSTATUS=well" in manager.heard()
    supervisor.close()


@pytest.mark.both_loops
async def test_no_beat_while_the_loop_is_blocked(manager: Manager) -> None:
    supervisor = _watched(manager)
    supervisor.watch(lambda: None, lambda: "")
    await asyncio.sleep(0.01)
    manager.heard()
    time.sleep(2 * PERIOD_S)  # noqa: ASYNC251  what is under test
    assert manager.heard() == []
    await asyncio.sleep(PERIOD_S)
    assert manager.heard()
    supervisor.close()


async def test_nobody_watches_and_nothing_is_asked() -> None:
    def unasked() -> str:
        raise AssertionError("asked")

    supervisor = Supervisor("/nowhere")
    supervisor.watch(unasked, unasked)
    await asyncio.sleep(0.02)
    supervisor.close()


async def test_fault_of_ours_ends_the_watch(manager: Manager) -> None:
    """Better restarted than taken for well."""
    calls: list[int] = []

    def find() -> None:
        calls.append(1)
        if len(calls) > 1:
            raise ZeroDivisionError

    failures: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: failures.append(context))
    supervisor = _watched(manager)
    supervisor.watch(find, lambda: "")
    await asyncio.sleep(2 * PERIOD_S)
    assert manager.heard() == [b"WATCHDOG=1"]
    assert (len(calls), len(failures)) == (2, 1)
    supervisor.close()
