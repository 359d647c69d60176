"""Serial links: a pseudo-terminal for a line, on both loops.

The contract under test: framed peers hear each other through noise and split writes; a device that
vanishes ends the link, which is opened again when the device is back; what is missing is said.
"""

from __future__ import annotations

import asyncio
import builtins
import os
import random
import subprocess
import sys
import tty
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Final

import pytest

from amistack.errors import ConfigError, LinkError
from amistack.framing import (
    SERIAL,
    Closed,
    Ending,
    Event,
    Frame,
    FrameReceived,
    Kind,
    Opened,
    Priority,
    Skipped,
)
from amistack.framing.hello import Hello
from amistack.links import serial
from amistack.links.serial import keep_serial, open_serial
from amistack.links.streams import StreamLink
from tests.links.streams_support import COLLECTOR, HEAD_END, WAIT_MAX, Maker, Notes

pytest.importorskip("serialx")

PIECES: Final = 7


class Line:
    """Two pseudo-terminals and what carries octets between their far ends, in small pieces."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.paths: list[str] = []
        self._near: list[int] = []
        self._far: list[int] = []
        for _ in range(2):
            far, near = os.openpty()
            tty.setraw(near)
            os.set_blocking(far, False)
            self._far.append(far)
            # Held open as well: a pseudo-terminal that nobody has open reads as an end.
            self._near.append(near)
            self.paths.append(os.ttyname(near))
        for index in range(2):
            self._loop.add_reader(self._far[index], self._carry, index)

    def _carry(self, index: int) -> None:
        octets = os.read(self._far[index], PIECES)
        os.write(self._far[1 - index], octets)

    def put_in(self, index: int, octets: bytes) -> None:
        """Noise, towards the program at that end."""
        os.write(self._far[index], octets)

    def unplug(self, index: int) -> None:
        """As if the adapter at that end were pulled out."""
        self._loop.remove_reader(self._far[index])
        os.close(self._far[index])
        os.close(self._near[index])
        self._far[index] = self._near[index] = -1

    def close(self) -> None:
        for index in range(2):
            if self._far[index] >= 0:
                self.unplug(index)


@contextmanager
def a_line() -> Iterator[Line]:
    line = Line()
    try:
        yield line
    finally:
        line.close()


@asynccontextmanager
async def opened(path: str, notes: Notes, maker: Maker) -> AsyncIterator[StreamLink[Event]]:
    link = await open_serial(maker, notes, path=path)
    try:
        yield link
    finally:
        link.close()
        await asyncio.wait_for(link.wait_ended(), WAIT_MAX)


def reading(payload: bytes) -> Frame:
    return Frame(Kind.COAP, Priority.SCHEDULED, COLLECTOR, payload)


@pytest.mark.both_loops
async def test_frames_cross_a_line_that_splits_them_and_noise_between_them_costs_none() -> None:
    here, there = Notes(), Notes()
    near, far = Maker(COLLECTOR, SERIAL), Maker(HEAD_END, SERIAL)
    with a_line() as line:
        async with opened(line.paths[0], here, near) as link, opened(line.paths[1], there, far):
            await here.wait_for(Opened)
            await there.wait_for(Opened)
            sent = [reading(bytes([n, 0]) * (100 * n)) for n in range(5)]
            for index, frame in enumerate(sent):
                line.put_in(1, b"noise %d" % index)
                near.made[0].send(frame, now=link.now())
                link.settle()
                await there.wait_for(FrameReceived, index + 1)
            assert there.of(FrameReceived) == [FrameReceived(frame) for frame in sent]
            assert b"noise 0" in b"".join(
                event.octets for event in there.of(Skipped) if isinstance(event, Skipped)
            )
            assert link.address is link.peer_address is None
        (closed,) = await there.wait_for(Closed)
        assert isinstance(closed, Closed)


@pytest.mark.both_loops
async def test_noise_inside_a_frame_costs_that_frame_alone() -> None:
    there, far = Notes(), Maker(HEAD_END, SERIAL)
    with a_line() as line:
        async with opened(line.paths[1], there, far):
            hello = Frame(Kind.HELLO, Priority.CONTROL, COLLECTOR, Hello((1,), 90, 9).encode())
            damaged = bytearray(SERIAL.wrap(reading(b"lost")))
            damaged[9] ^= 0x10
            stream = (
                b"\xff\xfe" + SERIAL.wrap(hello) + bytes(damaged) + SERIAL.wrap(reading(b"kept"))
            )
            for place in range(0, len(stream), 3):
                line.put_in(1, stream[place : place + 3])
                await asyncio.sleep(0)
            await there.wait_for(FrameReceived)
            assert there.of(FrameReceived) == [FrameReceived(reading(b"kept"))]
            assert [event.reason for event in there.of(Skipped) if isinstance(event, Skipped)] == [
                "not cobs",
                "wrong crc",
            ]


@pytest.mark.both_loops
async def test_device_that_vanishes_ends_the_link_and_gives_back_what_was_not_sent() -> None:
    here, near = Notes(), Maker(COLLECTOR, SERIAL)
    with a_line() as line:
        link = await open_serial(near, here, path=line.paths[0])
        near.made[0].send(reading(b"waiting for a hello"), now=link.now())
        link.settle()
        line.unplug(0)
        await asyncio.wait_for(link.wait_ended(), WAIT_MAX)
        assert here.events == [Closed(Ending.LOST, "", (reading(b"waiting for a hello"),))]


@pytest.mark.both_loops
async def test_line_is_opened_again_when_its_device_is_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serial, "REOPEN_FIRST", 0.01)
    monkeypatch.setattr(serial, "REOPEN_MAX", 0.02)
    here, there = Notes(), Notes()
    near, far = Maker(COLLECTOR, SERIAL), Maker(HEAD_END, SERIAL)
    name = tmp_path / "meter"
    told: list[str | None] = []
    missing = asyncio.Event()

    def on_down(error: LinkError | None, wait: float, /) -> None:
        told.append(str(error) if error else None)
        assert wait <= 0.03
        if error is not None:
            missing.set()

    with a_line() as line:
        name.symlink_to(line.paths[0])
        kept = keep_serial(near, here, path=str(name), dice=random.Random(1), on_down=on_down)
        async with opened(line.paths[1], there, far):
            await here.wait_for(Opened)
            name.unlink()
            line.unplug(0)
            await here.wait_for(Closed)
            await asyncio.wait_for(missing.wait(), WAIT_MAX)
    with a_line() as line:
        name.symlink_to(line.paths[0])
        async with opened(line.paths[1], there, far):
            await here.wait_for(Opened, 2)
            await kept.close()
    assert told[0] is None
    assert told[1] == f"serial line {name}: no such device; plug it in, or correct the path"
    assert [type(event) for event in here.events] == [Opened, Closed, Opened, Closed]


@pytest.mark.both_loops
async def test_what_an_operator_must_mend_is_said_in_one_line(tmp_path: Path) -> None:
    maker, notes = Maker(COLLECTOR, SERIAL), Notes()
    with pytest.raises(LinkError, match=r"^serial line .*/none: no such device; plug it in"):
        await open_serial(maker, notes, path=str(tmp_path / "none"))
    plain = tmp_path / "plain"
    plain.touch()
    with pytest.raises(LinkError, match="no serial device; correct the path"):
        await open_serial(maker, notes, path=str(plain))
    with pytest.raises(ConfigError, match="0 baud: choose what its device has"):
        await open_serial(maker, notes, path=str(plain), baud_rate=0)
    with pytest.raises(ConfigError, match="0 baud"):
        keep_serial(maker, notes, path=str(plain), baud_rate=0, dice=random.Random(1))
    with a_line() as line:
        async with opened(line.paths[0], notes, maker):
            with pytest.raises(LinkError, match="in use; stop the program that holds it"):
                await open_serial(maker, notes, path=line.paths[0])


async def test_missing_library_is_named_with_how_to_install_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = builtins.__import__

    def without(name: str, *rest: object, **more: object) -> object:
        if name == "serialx":
            raise ImportError(name)
        return real(name, *rest, **more)  # type: ignore[arg-type]  # handed on as they came

    monkeypatch.setattr(builtins, "__import__", without)
    message = r"^serialx is not installed: pip install 'amistack\[serial\]'"
    with pytest.raises(ConfigError, match=message):
        await open_serial(Maker(COLLECTOR, SERIAL), Notes(), path="none")
    with pytest.raises(ConfigError, match=message):
        keep_serial(Maker(COLLECTOR, SERIAL), Notes(), path="none", dice=random.Random(1))


def test_nothing_is_imported_before_a_line_is_opened() -> None:
    code = "import amistack.links.serial, sys; sys.exit('serialx' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
