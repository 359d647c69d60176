"""The head-end composed: start, serve, drain, stop.

The contract under test: a start that fails gives everything back; what is under way when the end
comes is finished or ended in the store, soon; a second signal does not wait; and all doors see the
same head-end, whichever loop it runs on.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import importlib.util
import logging
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
import structlog

from amistack import telemetry
from amistack.errors import ConfigError, LinkError, StoreUnusable
from amistack.keystore import load_key, make_key, save_key
from amistack.links import discovery
from amistack.links.discovery import DnsSd
from amistack.session.fleet import encode_public_key, head_end_credential, head_end_kid
from headend import app
from headend.app import HeadEnd
from headend.client import AsyncHeadEndClient
from headend.config import (
    ApiSettings,
    IdentitySettings,
    LogSettings,
    ServerSettings,
    Settings,
    StoreSettings,
    split_address,
)
from headend.mdm.days import format_day
from tests.support import headend as world
from tests.support.headend import YESTERDAY, meter_id, post, private_key, public_key, until
from tests.support.multicast import needs_multicast
from tests.support.street_meter import StreetMeter

METER = meter_id(1)


def settings_in(folder: Path, *, listen: str = "127.0.0.1:0") -> Settings:
    key = folder / "key.pem"
    if not key.exists():
        save_key(key, private_key("head-end"))
    return Settings(
        ServerSettings(listen),
        ApiSettings(folder / "s.sock"),
        StoreSettings(folder / "s.sqlite"),
        IdentitySettings(key),
        LogSettings(),
    )


@pytest_asyncio.fixture
async def head_end(tmp_path: Path) -> AsyncIterator[HeadEnd]:
    made = HeadEnd(settings_in(tmp_path))
    await made.start()
    yield made
    await made.stop()


async def joined_meter(head_end: HeadEnd, client: AsyncHeadEndClient, folder: Path) -> StreetMeter:
    """A meter that is enrolled through the door, has joined and registered."""
    await client.enrol([(METER.hex(), public_key(METER.hex()).hex())])
    key = load_key(folder / "key.pem").public_key()
    trusted = head_end_credential(encode_public_key(key))
    meter = StreetMeter(METER, split_address(head_end.address, ""), trusted)
    await meter.join()
    await meter.ask(post("reg", world.registration(METER).encode()))
    return meter


@pytest.mark.both_loops
async def test_what_a_meter_sends_is_seen_through_the_door(
    head_end: HeadEnd, tmp_path: Path
) -> None:
    async with AsyncHeadEndClient(tmp_path / "s.sock") as client:
        meter = await joined_meter(head_end, client, tmp_path)
        await meter.ask(post("rep", world.report(blocks=[world.block(1), world.block(2)]).encode()))
        found = await client.readings(METER, format_day(YESTERDAY), format_day(YESTERDAY))
        assert [day.values for day in found.readings] == [tuple(range(96))] * 2
        read = await client.read(METER, deadline_s=5)
        assert read.answer is not None
        assert [(register.channel, register.value) for register in read.answer.registers] == [
            (1, 2_075)
        ]
        status = await client.status()
        assert status.listen == head_end.address
        assert status.counters == {"sessions": 1, "received": 2, "stored": 2}
        meter.close()


@needs_multicast
@pytest.mark.both_loops
async def test_head_end_that_announces_itself_is_found_until_it_stops(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A key that nobody else on this link has: other tests may run beside this one.
    key = make_key()
    save_key(tmp_path / "key.pem", key)
    kid = head_end_kid(encode_public_key(key.public_key())).hex()
    settings = settings_in(tmp_path)
    server = dataclasses.replace(settings.server, announce=True)
    head_end = HeadEnd(dataclasses.replace(settings, server=server))
    await head_end.start()
    address = split_address(head_end.address, "")
    try:
        async with asyncio.timeout(30):
            while not (found := await DnsSd().find(kid, host="127.0.0.1")):
                pass
        assert list(found) == [address]
    finally:
        await head_end.stop()
    monkeypatch.setattr(discovery, "SEARCH_S", 1.5)
    assert await DnsSd().find(kid, host="127.0.0.1") == []


async def test_head_end_that_cannot_announce_itself_does_not_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_in(tmp_path)
    server = dataclasses.replace(settings.server, announce=True)
    with monkeypatch.context() as patch:
        patch.setattr(importlib.util, "find_spec", lambda _: None)
        with pytest.raises(ConfigError, match=r"zeroconf is not installed: pip install 'amis"):
            await HeadEnd(dataclasses.replace(settings, server=server)).start()
    second = HeadEnd(settings)
    await second.start()
    await second.stop()


@pytest.mark.both_loops
async def test_drain_ends_a_waiting_read_in_the_store_and_soon(
    tmp_path: Path,
) -> None:
    head_end = HeadEnd(settings_in(tmp_path))
    await head_end.start()
    async with AsyncHeadEndClient(tmp_path / "s.sock") as client:
        meter = await joined_meter(head_end, client, tmp_path)
        meter.is_silent = True
        waiting = asyncio.create_task(client.read(METER, deadline_s=60))
        async with AsyncHeadEndClient(tmp_path / "s.sock") as looking:
            for _ in range(500):
                if (await looking.status()).queues["on-demand reads"].depth:
                    break
        async with asyncio.timeout(5):
            assert await head_end.drain(4)
            read = await waiting
        assert read.result == "interrupted"
        meter.close()
    await head_end.stop()

    again = HeadEnd(settings_in(tmp_path))
    await again.start()
    async with AsyncHeadEndClient(tmp_path / "s.sock") as client:
        assert [one.result for one in (await client.reads()).reads] == ["interrupted"]
    await again.stop()


@pytest.mark.parametrize("failing", ["port", "socket", "store", "key"])
async def test_start_that_fails_gives_everything_back(
    tmp_path: Path, failing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_in(tmp_path)
    with monkeypatch.context() as patch:
        if failing == "port":
            settings = settings_in(tmp_path, listen="192.0.2.1:5683")
        elif failing == "socket":
            (tmp_path / "s.sock").write_text("in the way")
        elif failing == "store":
            (tmp_path / "s.sqlite").write_bytes(b"rubbish " * 1_000)
        else:
            refuse = (_ for _ in ()).throw
            patch.setattr(app, "IdentityFiles", lambda *_, **__: refuse(ConfigError("no")))
        with pytest.raises((ConfigError, LinkError, StoreUnusable)):
            await HeadEnd(settings).start()
    for name in ("s.sock", "s.sqlite"):
        if failing != "port":
            (tmp_path / name).unlink(missing_ok=True)
    second = HeadEnd(settings_in(tmp_path))
    await second.start()
    await second.stop()


async def test_second_head_end_on_the_same_store_is_refused_by_name(
    head_end: HeadEnd, tmp_path: Path
) -> None:
    with pytest.raises(StoreUnusable, match=rf"another head-end \(process {os.getpid()}\)"):
        await HeadEnd(settings_in(tmp_path)).start()
    assert (tmp_path / "s.sock").is_socket(), "the first one's socket is left alone"


async def test_socket_on_which_somebody_answers_is_left_alone(
    head_end: HeadEnd, tmp_path: Path
) -> None:
    settings = settings_in(tmp_path)
    other = Settings(
        settings.server, settings.api, StoreSettings(tmp_path / "other.sqlite"),
        settings.identity, settings.log,
    )  # fmt: skip
    with pytest.raises(ConfigError, match="in use by another head-end"):
        await HeadEnd(other).start()
    assert (tmp_path / "s.sock").is_socket()


async def test_door_that_closes_by_itself_is_an_error(head_end: HeadEnd) -> None:
    assert head_end._server is not None
    head_end._server.should_exit = True
    with pytest.raises(LinkError, match="ended by itself"):
        await asyncio.wait_for(head_end.serve(asyncio.Event()), 5)


@pytest.mark.both_loops
async def test_second_signal_cuts_the_draining_short(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    draining = asyncio.Event()

    async def for_ever(_: HeadEnd, deadline_s: float) -> bool:
        draining.set()
        await asyncio.Event().wait()
        return deadline_s > 0

    monkeypatch.setattr(HeadEnd, "drain", for_ever)
    running = asyncio.create_task(app.run(settings_in(tmp_path)))
    await until(lambda: (tmp_path / "s.sock").is_socket() and "ready" in read_out(capsys))
    os.kill(os.getpid(), signal.SIGTERM)
    await asyncio.wait_for(draining.wait(), 5)
    assert not running.done()
    os.kill(os.getpid(), signal.SIGTERM)
    assert await asyncio.wait_for(running, 5) == 0
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.remove_signal_handler(number)


def read_out(capsys: pytest.CaptureFixture[str]) -> str:
    return capsys.readouterr().out


@pytest.mark.parametrize("listen", ["[::1]:0", "[::]:0"])
async def test_ipv6_is_served_too(tmp_path: Path, listen: str) -> None:
    head_end = HeadEnd(settings_in(tmp_path, listen=listen))
    try:
        await head_end.start()
    except LinkError:
        pytest.skip("this machine has no IPv6")
    async with AsyncHeadEndClient(tmp_path / "s.sock") as client:
        assert (await client.status()).listen == head_end.address
        if listen == "[::]:0":
            # IPv4 finds the same socket.
            _, port = split_address(head_end.address, "")
            await client.enrol([(METER.hex(), public_key(METER.hex()).hex())])
            key = load_key(tmp_path / "key.pem").public_key()
            trusted = head_end_credential(encode_public_key(key))
            meter = StreetMeter(METER, ("127.0.0.1", port), trusted)
            await meter.join()
            await meter.ask(post("reg", world.registration(METER).encode()))
            assert (await client.read(METER, deadline_s=5)).result == "answered"
            meter.close()
    await head_end.stop()


def test_log_is_one_json_object_a_line_where_nobody_watches(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    handlers, level = logging.root.handlers[:], logging.root.level
    try:
        telemetry.configure("warning")
        telemetry.logger().info("not this")
        telemetry.logger().warning("store failed", error="disk\nfull")
        try:
            raise ZeroDivisionError("inside")
        except ZeroDivisionError:
            logging.getLogger("uvicorn.error").exception("a library")
        logging.getLogger("uvicorn.error").info("not this either")
    finally:
        logging.root.handlers[:] = handlers
        logging.root.setLevel(level)
        structlog.reset_defaults()
    import json

    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [line["event"] for line in lines] == ["store failed", "a library"]
    assert lines[0]["error"] == "disk\nfull"
    assert "ZeroDivisionError" in lines[1]["exception"]
    assert {line["level"] for line in lines} == {"warning", "error"}
    assert sys.stderr is not None


# The service manager


async def test_service_manager_hears_that_it_is_ready_alive_and_stopping(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(0)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        monkeypatch.setenv("WATCHDOG_USEC", "150000")
        monkeypatch.delenv("WATCHDOG_PID", raising=False)
        told: list[str] = []

        def beats() -> bool:
            with contextlib.suppress(BlockingIOError):
                while True:
                    told.extend(manager.recv(4096).decode().splitlines())
            return told.count("WATCHDOG=1") >= 3

        running = asyncio.create_task(app.run(settings_in(tmp_path)))
        await until(beats)
        os.kill(os.getpid(), signal.SIGTERM)
        assert await running == 0
        beats()
    assert told[0] == "READY=1"
    assert told[1].startswith("STATUS=udp 127.0.0.1:")
    assert told[1].endswith("; sessions with 0 meters")
    assert "STOPPING=1" in told


async def test_head_end_stands_still_when_an_uplink_waits_too_long_for_its_commit(
    head_end: HeadEnd, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert head_end.find_stall() is None
    for waited, is_still in ((app.STALL_S, False), (app.STALL_S + 1, True)):
        monkeypatch.setattr(
            type(head_end._southbound), "oldest_pending_s", property(lambda _, w=waited: w)
        )
        assert (head_end.find_stall() is not None) is is_still
