"""`meterd display` at a running meter.

The contract under test: it shows the running meter's display at 20 by 4 and at 80 by 24, takes its
keys, and is one line where no meter runs.
"""

from __future__ import annotations

import asyncio
import os
import pty
import select
import sys
import time
from pathlib import Path

import pytest

from amistack.model.control import Action, ControlCommand, Position
from amistack.model.messages import TextMessage
from amistack.session.fleet import encode_public_key
from meterd.cli import main
from meterd.daemon import Meter, load_settings
from meterd.provision import CONFIG_FILE, Template, provision
from tests.support.head_end import key_of

PUBLIC_KEY = encode_public_key(key_of(1).public_key()).hex()


def make_meter(folder: Path) -> Path:
    template = Template(
        address="127.0.0.1:59999",
        public_key=PUBLIC_KEY,
        metrology=('source = "constant"', "watts = 500", "interval_s = 3600"),
    )
    provision(folder, template)
    return folder / CONFIG_FILE


@pytest.mark.both_loops
async def test_display_of_a_running_meter_in_two_sizes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = make_meter(tmp_path)
    meter = await Meter.open(load_settings(config))
    try:
        await meter.start()
        door = meter.display_door()
        await door.open()
        at = int(time.time())
        hello = TextMessage(1, at - 60, at + 900, is_to_acknowledge=False, text="Hello there")
        meter.fittings.mailbox.take(hello, now=meter._link.now())  # type: ignore[union-attr]  # started
        for size, rows in (("20x4", 4), ("80x24", 24)):
            words = ["display", "--config", str(config), "--once", "--size", size]
            capsys.readouterr()
            assert await asyncio.to_thread(main, words) == 0
            lines = capsys.readouterr().out.splitlines()
            assert len(lines) % rows == 0
            columns = int(size.partition("x")[0])
            assert {len(line) for line in lines} == {columns}
            assert any(line.startswith("Used ") and " kWh" in line for line in lines)
            assert any(line.startswith("Hello there") for line in lines)
        await door.close()
    finally:
        meter.stop()
        await meter.wait_stopped()


async def test_key_on_a_terminal_closes_an_armed_switch(tmp_path: Path) -> None:
    config = make_meter(tmp_path)
    meter = await Meter.open(load_settings(config))
    pid = 0
    try:
        await meter.start()
        assert meter._link is not None
        switch, now = meter.fittings.switch, meter._link.now
        assert switch is not None
        expires_s = int(time.time()) + 600
        for number, action in enumerate((Action.DISCONNECT, Action.ARM), start=1):
            switch.command(ControlCommand(number, expires_s, action), now=now())
        door = meter.display_door()
        await door.open()
        program = f"import sys; from meterd.cli import main; sys.exit(main({_words(config)!r}))"
        pid, terminal = await asyncio.to_thread(_spawn, program)
        seen = await asyncio.to_thread(_read_until, terminal, b"press to close")
        assert b"press to close" in seen
        os.write(terminal, b"c")
        async with asyncio.timeout(20):
            while switch.state(now=now()).position is not Position.CLOSED:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        os.write(terminal, b"q")
        last = await asyncio.to_thread(_read_until, terminal, b"\x1b[?25h")
        assert last.endswith(b"\x1b[?25h")
        _, status = await asyncio.to_thread(os.waitpid, pid, 0)
        pid = 0
        assert status == 0
        os.close(terminal)
        await door.close()
    finally:
        if pid:
            _end(pid)
        meter.stop()
        await meter.wait_stopped()


def _end(pid: int) -> None:
    os.kill(pid, 9)
    os.waitpid(pid, 0)


def _words(config: Path) -> list[str]:
    return ["display", "--config", str(config), "--size", "40x12"]


def _spawn(program: str) -> tuple[int, int]:
    near, far = pty.openpty()
    pid = os.posix_spawn(
        sys.executable,
        [sys.executable, "-c", program],
        os.environ,
        file_actions=[(os.POSIX_SPAWN_DUP2, far, fd) for fd in (0, 1, 2)],
    )
    os.close(far)
    return pid, near


def _read_until(terminal: int, wanted: bytes) -> bytes:
    seen = b""
    ends = time.monotonic() + 30
    while wanted not in seen and time.monotonic() < ends:
        ready, _, _ = select.select([terminal], [], [], 1.0)
        if ready:
            try:
                seen += os.read(terminal, 4_096)
            except OSError:
                break  # It has ended.
    return seen


def test_no_running_meter_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = make_meter(tmp_path)
    assert main(["display", "--config", str(config), "--once"]) == 1
    assert "no meterd is running" in capsys.readouterr().err
    assert main(["display", "--config", str(config), "--size", "2x2"]) == 1
    assert "expected COLUMNSxROWS" in capsys.readouterr().err
