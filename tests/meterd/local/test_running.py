"""The local port of a running meter, and `meterd tool`, over TCP and a serial line.

The contract under test: a tool on the list reads, dumps and changes; every attempt is in the
meter's own log; what cannot be is one line and exit code 1.
"""

from __future__ import annotations

import asyncio
import os
import re
import time
from dataclasses import replace
from pathlib import Path

import pytest

from amistack.errors import ConfigError
from amistack.keystore import make_key, save_key
from amistack.model.dump import DumpPart, pages_of
from amistack.model.event_catalogue import ACCESSED
from amistack.model.events import ACCESS_DENIED
from amistack.model.holdings import LogBatch
from amistack.session.fleet import encode_public_key
from meterd.cli import main
from meterd.daemon import Meter, load_settings
from meterd.local.dump_file import read_dump, write_dump
from meterd.local.dumping import DUMPED
from meterd.provision import CONFIG_FILE, Identity, Template, provision
from tests.support.head_end import key_of

PUBLIC_KEY = encode_public_key(key_of(1).public_key()).hex()


def make_meter(folder: Path, port: str) -> Identity:
    template = Template(
        address="127.0.0.1:59999",
        public_key=PUBLIC_KEY,
        metrology=('source = "constant"', "watts = 500", "interval_s = 3600"),
    )
    identity = provision(folder, template)
    config = folder / CONFIG_FILE
    config.write_text(f"{config.read_text()}\n[local]\n{port}\n")
    return identity


def tool_key(path: Path) -> str:
    key = make_key()
    save_key(path, key)
    return encode_public_key(key.public_key()).hex()


class Tool:
    """`meterd tool` with a meter's name and address."""

    def __init__(self, identity: Identity, key: Path, where: list[str]) -> None:
        self._options = [
            *("--meter", identity.line.split(",")[0]),
            *("--meter-key", identity.line.split(",")[1].strip()),
            *("--key", str(key)),
            *where,
        ]

    async def run(self, *words: str) -> int:
        return await asyncio.to_thread(main, ["tool", *words, *self._options])


@pytest.mark.requirement("B1-FR-109")
@pytest.mark.both_loops
async def test_tool_reads_and_dumps_over_tcp_and_every_attempt_is_in_the_log(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    known = tool_key(tmp_path / "known.pem")
    reader = tool_key(tmp_path / "reader.pem")
    tool_key(tmp_path / "stranger.pem")
    identity = make_meter(
        tmp_path,
        f'listen = "127.0.0.1:0"\nprogrammers = ["{known}"]\nreaders = ["{reader}"]',
    )
    meter = await Meter.open(load_settings(tmp_path / CONFIG_FILE))
    try:
        await meter.start()
        assert meter._local is not None
        assert meter._local.address is not None
        where = ["--address", f"127.0.0.1:{meter._local.address[1]}"]
        right = Tool(identity, tmp_path / "known.pem", where)
        wrong = Tool(identity, tmp_path / "stranger.pem", where)
        only = Tool(identity, tmp_path / "reader.pem", where)
        assert await right.run("read") == 0
        assert re.search(r"channel 1 +\d+", capsys.readouterr().out)
        assert await wrong.run("dump", str(tmp_path / "none")) == 1
        assert "not let in" in capsys.readouterr().err
        assert not (tmp_path / "none").exists()
        nonsense = tmp_path / "programme"
        nonsense.write_bytes(b"\x80")
        assert await only.run("program", str(nonsense)) == 1
        assert "4.03 FORBIDDEN may not do that" in capsys.readouterr().err
        assert await right.run("program", str(nonsense)) == 1
        assert "4.00 BAD" in capsys.readouterr().err
        recorder = meter.fittings.recorder
        running = recorder.shelf.of_day(recorder.day_of(time.time())).programme
        programme = tmp_path / "programme"
        programme.write_bytes(replace(running, version=7).encode())
        assert await right.run("program", str(programme)) == 0, capsys.readouterr().err
        assert "version 7, in force from" in capsys.readouterr().out
        programme.write_bytes(replace(running, version=8, standard_offset_min=600).encode())
        assert await right.run("program", str(programme)) == 1
        assert "version 8 is refused: " in capsys.readouterr().err
        file = tmp_path / "dump"
        assert await only.run("dump", str(file)) == 0
        assert "45 rep" in capsys.readouterr().out
        logged = [
            (entry.event, entry.detail)
            for part in read_dump(file)
            if part.path == "log"
            for entry in LogBatch.decode(part.payload).entries
        ]
        assert (DUMPED, "field tool") in logged
        assert ACCESSED in [event for event, _ in logged]
        denied = [detail for event, detail in logged if event == ACCESS_DENIED]
        assert any("unknown tool" in str(detail) for detail in denied)
        assert any("may not do that" in str(detail) for detail in denied)
        assert await asyncio.to_thread(main, ["tool", "show", str(file)]) == 0
        assert "45 rep" in capsys.readouterr().out
    finally:
        meter.stop()
        await meter.wait_stopped()


async def test_tool_has_the_meter_look_at_itself_and_says_what_failed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    viewer, changer = tool_key(tmp_path / "viewer.pem"), tool_key(tmp_path / "changer.pem")
    port = f'listen = "127.0.0.1:0"\nviewers = ["{viewer}"]\nchangers = ["{changer}"]'
    identity = make_meter(tmp_path, port)
    meter = await Meter.open(load_settings(tmp_path / CONFIG_FILE))
    try:
        await meter.start()
        assert meter._local is not None
        assert meter._local.address is not None
        where = ["--address", f"127.0.0.1:{meter._local.address[1]}"]
        looking = Tool(identity, tmp_path / "viewer.pem", where)
        # A clock that nobody has compared yet is one that failed.
        assert await looking.run("test") == 1
        lines = capsys.readouterr().out.splitlines()
        assert [line.split()[0] for line in lines if " failed" in line] == ["clock"]
        assert "checksum       passed" in [line[:21] for line in lines]
        now = time.monotonic()
        stamp_ms = int(meter.agent.clock.utc(now) * 1000)
        meter.agent.clock.take_sample(sent=now, got=now, received_ms=stamp_ms, held_ms=0)
        assert await looking.run("test") == 0
        assert " failed" not in capsys.readouterr().out
        for command in ("read", "test"):
            assert await Tool(identity, tmp_path / "changer.pem", where).run(command) == 1
            assert "4.03 FORBIDDEN may not do that" in capsys.readouterr().err
    finally:
        meter.stop()
        await meter.wait_stopped()


@pytest.mark.both_loops
async def test_tool_reads_over_a_serial_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    known = tool_key(tmp_path / "known.pem")
    # Two pseudo-terminals, and a wire between them.
    near, near_end = os.openpty()
    far, far_end = os.openpty()
    for fd in (near, far):
        os.set_blocking(fd, False)
    identity = make_meter(tmp_path, f'device = "{os.ttyname(near_end)}"\nprogrammers = ["{known}"]')
    loop = asyncio.get_running_loop()

    def carry(one: int, other: int) -> None:
        try:
            os.write(other, os.read(one, 4_096))
        except OSError:
            loop.remove_reader(one)

    loop.add_reader(near, carry, near, far)
    loop.add_reader(far, carry, far, near)
    meter = await Meter.open(load_settings(tmp_path / CONFIG_FILE))
    try:
        await meter.start()
        tool = Tool(identity, tmp_path / "known.pem", ["--device", os.ttyname(far_end)])
        assert await tool.run("read") == 0, capsys.readouterr().err
        assert "channel 1" in capsys.readouterr().out
    finally:
        meter.stop()
        await meter.wait_stopped()
        for one, other in ((near, near_end), (far, far_end)):
            loop.remove_reader(one)
            os.close(one)
            os.close(other)


def test_key_is_made_once_and_printed_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "key.pem"
    assert main(["tool", "key", "--key", str(path)]) == 0
    first = capsys.readouterr().out
    assert re.fullmatch(r"[0-9a-f]{66}\n", first)
    assert main(["tool", "key", "--key", str(path)]) == 0
    assert capsys.readouterr().out == first
    assert path.stat().st_mode & 0o077 == 0


def test_tool_without_a_meter_to_reach_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tool_key(tmp_path / "key.pem")
    began = time.monotonic()
    given = ["--meter", "02aabbccddeeff01", "--meter-key", PUBLIC_KEY]
    key = ["--key", str(tmp_path / "key.pem")]
    assert main(["tool", "read", *given, *key, "--address", "127.0.0.1:1"]) == 1
    assert "refused" in capsys.readouterr().err
    assert main(["tool", "read", *given, *key, "--device", str(tmp_path / "none")]) == 1
    assert "no such device" in capsys.readouterr().err
    assert time.monotonic() - began < 20


def test_file_that_is_no_whole_dump_is_refused_in_a_line(tmp_path: Path) -> None:
    path = tmp_path / "dump"
    pages = pages_of(DumpPart("log", os.urandom(30_000)) for _ in range(4))
    assert len(pages) > 1
    write_dump(path, pages)
    assert len(read_dump(path)) == 4
    for octets in (b"", b"nonsense", path.read_bytes()[:-1], pages[0].encode()):
        path.write_bytes(octets)
        with pytest.raises(ConfigError, match="no dump of a meter"):
            read_dump(path)
    with pytest.raises(ConfigError, match="cannot be read"):
        read_dump(tmp_path / "none")
