"""Home devices over real sockets: a foreign CoAP stack as the device, and a whole meter.

The contract under test: a ping of ours is answered by a stack that is not ours; a device whose
program ended is silent; a meter tries the devices of its settings and shows what it counted.
"""

from __future__ import annotations

import asyncio
import random
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import structlog

from amistack import settings as toml
from amistack.coap.timing import Timing
from amistack.errors import ConfigError, LinkError
from amistack.links.host import Host
from amistack.links.udp import open_udp
from amistack.model.event_catalogue import DEVICE_ANSWERS, DEVICE_SILENT
from amistack.model.home import DEVICE_COUNT_MAX, DeviceKind, DeviceState, Subscription
from amistack.session.fleet import encode_public_key
from meterd.clock import MeterClock
from meterd.daemon import Meter, load_settings
from meterd.home.network import HomeNetwork
from meterd.home.settings import DeviceSettings, HomeSettings
from meterd.home.subscriptions import Subscriptions
from meterd.home.watch import HomeWatch
from meterd.provision import CONFIG_FILE, Template, provision
from meterd.storage import Storage
from tests.meterd.home.devices import device
from tests.support.head_end import key_of
from tests.support.power import TornFiles
from tests.support.worlds import FixedDice

PATIENCE_S = 20.0
LOG = structlog.get_logger("test")
HURRIED = Timing(ack_timeout=0.1, max_retransmit=2)


def free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not condition():  # noqa: ASYNC110  Nothing tells of it.
            await asyncio.sleep(0.01)


@pytest.mark.requirement("I2-FR-07")
async def test_foreign_device_on_loopback_answers_and_is_told_of_when_its_program_ends() -> None:
    aiocoap = pytest.importorskip("aiocoap", reason="32-bit ARM cannot have it")
    resource = pytest.importorskip("aiocoap.resource")
    port = free_port()
    told: list[tuple[object, str | None]] = []
    storage = Storage.on(TornFiles(random.Random(1)))
    clock = MeterClock(utc=1_790_000_000.0, now=0.0)

    def log(event: object, detail: str | None = None, *, now: float) -> object:
        told.append((event, detail))
        return event

    subscriptions = Subscriptions(storage, clock, log=log)  # type: ignore[arg-type]  # any entry
    watch = HomeWatch(subscriptions, dice=FixedDice(), timing=HURRIED, try_again_s=0.05)
    network = HomeNetwork(HomeSettings("127.0.0.1:0"), subscriptions, watch)
    await network.open(open_udp, now=lambda: 0.0, settle=lambda: None, log=LOG)

    def state() -> DeviceState:
        found = subscriptions.find(device(7))
        assert found is not None
        return found.state

    def subscribe(name: str) -> None:
        address = socket.inet_aton("127.0.0.1")
        wanted = Subscription(device(7), name, DeviceKind.DISPLAY, address, port, 30)
        assert subscriptions.subscribe(wanted, now=0.0) is None

    foreign = await aiocoap.Context.create_server_context(
        resource.Site(), bind=("127.0.0.1", port), transports=["simplesocketserver"]
    )
    try:
        subscribe("display")
        await until(lambda: state() is DeviceState.ANSWERING)
        await foreign.shutdown()
        # A changed subscription is tried at once.
        subscribe("kitchen display")
        await until(lambda: state() is DeviceState.SILENT)
        events = [event for event, _ in told]
        assert events.count(DEVICE_SILENT) == 1
        assert f"{'0' * 15}7 kitchen display" in str(told[-1][1])
        # The device starts again, and the first thing it does is to look for its meter.
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as back:
            back.bind(("127.0.0.1", port))
            back.settimeout(0)
            back.sendto(b"\x40\x00\x12\x34", network.address)
            async with asyncio.timeout(PATIENCE_S):
                answer = await asyncio.get_running_loop().sock_recv(back, 100)
            assert answer == b"\x70\x00\x12\x34"
        await until(lambda: state() is DeviceState.ANSWERING)
        assert told[-1][0] == DEVICE_ANSWERS
    finally:
        network.close()


async def test_meter_tries_the_devices_of_its_settings(tmp_path: Path) -> None:
    template = Template(
        address="127.0.0.1:59999",
        public_key=encode_public_key(key_of(1).public_key()).hex(),
        metrology=('source = "constant"', "watts = 500", "interval_s = 3600"),
    )
    provision(tmp_path, template)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as neighbour:
        neighbour.bind(("127.0.0.1", 0))
        neighbour.settimeout(0)
        port = neighbour.getsockname()[1]
        config = tmp_path / CONFIG_FILE
        config.write_text(
            f"{config.read_text()}\n[home]\nlisten = '127.0.0.1:0'\n[[home.devices]]\n"
            f"id = '0000000000000007'\naddress = '127.0.0.1:{port}'\n"
            "name = 'heat pump'\nkind = 'load_control'\n"
        )
        host = Host(dice=FixedDice(5))
        meter = await Meter.open(load_settings(config), host=host)
        try:
            await meter.start()
            loop = asyncio.get_running_loop()
            async with asyncio.timeout(PATIENCE_S):
                ping, peer = await loop.sock_recvfrom(neighbour, 100)
            assert (len(ping), ping[:2]) == (4, b"\x40\x00")
            neighbour.sendto(b"\x70\x00" + ping[2:], peer)
            assert meter._home is not None
            watched = meter._home.subscriptions

            def is_answering() -> bool:
                return watched.all()[0].state is DeviceState.ANSWERING

            await until(is_answering)
            assert meter.status().counters["home: pings"] == 1
        finally:
            meter.stop()
            await meter.wait_stopped()


async def test_home_network_that_is_not_there_yet_is_tried_again() -> None:
    storage = Storage.on(TornFiles(random.Random(1)))
    clock = MeterClock(utc=1_790_000_000.0, now=0.0)

    def log(event: object, detail: str | None = None, *, now: float) -> object:
        return event

    subscriptions = Subscriptions(storage, clock, log=log)  # type: ignore[arg-type]  # any entry
    watch = HomeWatch(subscriptions, dice=FixedDice(), timing=HURRIED)
    fixed = DeviceSettings("0000000000000007", f"127.0.0.1:{free_port()}", "x")
    settings = HomeSettings("127.0.0.1:0", (fixed,))
    network = HomeNetwork(settings, subscriptions, watch, retry_s=0.01)
    attempts: list[str] = []

    async def open_link(machine: Any, on_event: Any, *, host: str, port: int) -> Any:
        attempts.append(host)
        if len(attempts) < 3:
            raise LinkError("no such address")
        return await open_udp(machine, on_event, host=host, port=port)

    await network.open(open_link, now=lambda: 0.0, settle=lambda: None, log=LOG)
    try:
        # The subscriptions do not wait for it.
        assert subscriptions.find(device(7)) is not None
        assert attempts == ["127.0.0.1"]
        await until(lambda: watch.counters["pings"] > 0)
        assert len(attempts) == 3
    finally:
        network.close()
    # Closed before it ever was there: it ends.
    attempts.clear()
    again = HomeNetwork(settings, subscriptions, watch, retry_s=60.0)
    await again.open(open_link, now=lambda: 0.0, settle=lambda: None, log=LOG)
    again.close()
    assert again._opening is not None
    await asyncio.wait([again._opening])
    assert again._opening.cancelled()


@pytest.mark.parametrize(
    ("device_lines", "said"),
    [
        ("id = '7'\naddress = '127.0.0.1'\nname = 'x'", "16 hex digits"),
        ("id = '0000000000000007'\naddress = 'tv.local'\nname = 'x'", "expected digits such as"),
        ("id = '0000000000000007'\naddress = '[::1]'\nname = 'x'", "cannot be reached"),
        ("id = '0000000000000007'\naddress = '127.0.0.1:0'\nname = 'x'", "port"),
        ("id = '0000000000000007'\naddress = '127.0.0.1'\nname = ''", "name"),
        (
            "id = '0000000000000007'\naddress = '127.0.0.1'\nname = 'x'\nkind = 'tv'",
            "expected gas_meter",
        ),
        ("id = '0000000000000007'\naddress = '127.0.0.1'\nname = 'x'\nperiod_s = 29", "period"),
        (
            (
                "id = '0000000000000007'\naddress = '127.0.0.1'\nname = 'x'\n[[devices]]\n"
                "id = '0000000000000008'\naddress = '127.0.0.1'\nname = 'y'"
            ),
            "an address comes twice",
        ),
    ],
)
def test_home_settings_that_cannot_be_are_refused_in_a_line(
    tmp_path: Path, device_lines: str, said: str
) -> None:
    path = tmp_path / "home.toml"
    path.write_text(f"listen = '0.0.0.0:0'\n[[devices]]\n{device_lines}\n")
    with pytest.raises(ConfigError, match=said) as found:
        toml.load(path, HomeSettings)
    assert "\n" not in str(found.value)
    good = DeviceSettings("0000000000000007", "127.0.0.1", "x")
    assert HomeSettings(devices=(good,)).subscriptions[0].port == 5683
    many = [
        DeviceSettings(f"{n:016x}", f"127.0.0.{n}", "x") for n in range(1, DEVICE_COUNT_MAX + 2)
    ]
    assert len(HomeSettings(devices=tuple(many[1:])).subscriptions) == DEVICE_COUNT_MAX
    with pytest.raises(ConfigError, match="17 devices, at most 16"):
        HomeSettings(devices=tuple(many))
