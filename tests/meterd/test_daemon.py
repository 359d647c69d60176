"""The meter daemon on real sockets: a session, a registration and its reports over loopback.

The contract under test: with and without uvloop, on IPv4 and IPv6, `Meter` carries between the
agent and a socket; the daemon is small: it needs nothing of the head-end's dependencies.
"""

from __future__ import annotations

import asyncio
import io
import random
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import structlog

from amistack.errors import ConfigError
from amistack.links import open_udp
from amistack.model import ReadParts
from amistack.session.fleet import encode_public_key, meter_credential
from meterd import daemon
from meterd.config import HeadEndSettings, LinkSettings
from meterd.daemon import Meter, load_settings
from meterd.provision import CONFIG_FILE, Template, provision
from tests.support.head_end import HeadEnd, head_end_key, key_of

PUBLIC_KEY = encode_public_key(key_of(1).public_key()).hex()
AT_ONCE = ("report_delay_s = 0", "report_spread_s = 0", "start_spread_s = 0", "catch_up_s = 0")


@pytest.fixture(autouse=True)
def _quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """A logger of this module's own, whatever another set up for the process."""
    monkeypatch.setattr(daemon, "LOG", structlog.wrap_logger(structlog.PrintLogger(io.StringIO())))


async def _until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110  # Nothing tells of it: a socket is in between.
            await asyncio.sleep(0.01)


@pytest.mark.both_loops
@pytest.mark.parametrize(
    ("host", "listen"), [("127.0.0.1", "127.0.0.1:0"), ("::1", "[::]:0")], ids=["ipv4", "ipv6"]
)
async def test_meter_registers_reports_and_is_read_over_a_real_socket(
    tmp_path: Path, host: str, listen: str
) -> None:
    head_end = HeadEnd(head_end_key(1), {}, lambda _: time.time(), seed=random.randrange(1 << 30))
    link = await open_udp(head_end, lambda _: None, host=host, port=0)
    name = f"[{host}]" if ":" in host else host
    template = Template(
        address=f"{name}:{link.address[1]}",
        public_key=PUBLIC_KEY,
        metrology=('source = "constant"', "watts = 500", "interval_s = 3600"),
        schedule=AT_ONCE,
    )
    identity = provision(tmp_path, template)
    config = tmp_path / CONFIG_FILE
    config.write_text(config.read_text() + f'\n[link]\nlisten = "{listen}"\n')
    head_end.meters = {identity.meter: meter_credential(identity.meter, identity.public_key)}

    meter = await Meter.open(load_settings(config))
    try:
        await meter.start()
        await _until(lambda: len(head_end.reports) >= 45)
        (registration,) = head_end.registrations
        assert registration.meter == identity.meter
        peer = (meter._link.address[0] if host != "::1" else "::1", meter._link.address[1])
        if host == "::1":
            peer = (*peer, 0, 0)
        head_end.read(identity.meter, ReadParts.REGISTERS, peer, now=link.now())
        head_end.settle_numbers(now=link.now())
        link.settle()
        await _until(lambda: head_end.read_answers)
        ((channel, register),) = head_end.read_answers[0].registers
        assert channel == 1
        hours = (time.time() - (time.time() // 86_400 - 45) * 86_400) / 3600
        assert register == pytest.approx(500 * hours, abs=20)
        best = meter.agent._clock.best
        assert best is not None
        assert abs(best.error_s) < 1
    finally:
        meter.stop()
        link.close()


async def test_clock_is_right_though_the_source_took_long_to_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    provision(tmp_path, Template(address="127.0.0.1:9", public_key=PUBLIC_KEY))
    settings = load_settings(tmp_path / CONFIG_FILE)
    real = daemon.Recorder

    def slow(*args: object, **kwargs: object) -> object:
        time.sleep(0.3)
        return real(*args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(daemon, "Recorder", slow)
    meter = await Meter.open(settings)
    try:
        clock = meter.agent._clock
        assert clock.utc(time.monotonic()) == pytest.approx(time.time(), abs=0.05)
    finally:
        meter.stop()


@pytest.mark.parametrize(
    ("host", "is_ipv6", "address"),
    [
        ("127.0.0.1", False, ("127.0.0.1", 7)),
        ("::1", True, ("::1", 7, 0, 0)),
        ("localhost", False, ("127.0.0.1", 7)),
    ],
)
async def test_head_end_is_found_in_the_family_of_the_socket(
    host: str, is_ipv6: bool, address: tuple[object, ...]
) -> None:
    assert await daemon._resolve(host, 7, is_ipv6=is_ipv6) == address


@pytest.mark.parametrize(
    ("host", "is_ipv6", "says"),
    [
        ("no-such-host.invalid", False, "not known to the name service"),
        ("a..b", False, "not known to the name service"),
        ("127.0.0.1", True, "has no IPv6 address; link.listen = '0.0.0.0:0'"),
        ("::1", False, "has no IPv4 address; link.listen = '[::]:0'"),
    ],
)
async def test_head_end_that_cannot_be_found_is_one_line(
    host: str, is_ipv6: bool, says: str
) -> None:
    with pytest.raises(ConfigError) as refused:
        await daemon._resolve(host, 7, is_ipv6=is_ipv6)
    assert says in str(refused.value)
    assert "\n" not in str(refused.value)


def test_settings_give_the_addresses_apart() -> None:
    assert HeadEndSettings(PUBLIC_KEY, "[::1]:7").host_and_port == ("::1", 7)
    assert LinkSettings().host_and_port == ("0.0.0.0", 0)


def _python(program: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program), *arguments],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def test_daemon_loads_nothing_of_the_head_ends_dependencies() -> None:
    loaded = _python(
        """
        import sys
        sys.modules["rich"] = None  # What logs would take it, if it is there, to look nicer.
        import meterd.cli, meterd.daemon
        print(*sorted({name.split(".")[0] for name in sys.modules}))
        """
    ).split()
    assert "amistack" in loaded
    assert "meterd" in loaded
    unwanted = {
        "fastapi",
        "uvicorn",
        "pydantic",
        "httpx",
        "aiocoap",
        "headend",
        "interop",
        "construct",
        "hypothesis",
        "pytest",
    }
    assert unwanted & set(loaded) == set()


def test_daemon_runs_where_there_is_no_uvloop(tmp_path: Path) -> None:
    provision(tmp_path, Template(address="127.0.0.1:9", public_key=PUBLIC_KEY))
    output = _python(
        """
        import os, signal, sys, threading
        sys.modules["uvloop"] = None
        from meterd.cli import main
        import meterd.daemon  # However long that takes: its handlers stand soon after.
        threading.Timer(1.0, os.kill, (os.getpid(), signal.SIGTERM)).start()
        raise SystemExit(main(["run", "--config", sys.argv[1]]))
        """,
        str(tmp_path / CONFIG_FILE),
    )
    assert "running on asyncio's own loop" in output
    assert '"meter started"' in output
    assert '"meter stopped"' in output
    assert "Traceback" not in output
