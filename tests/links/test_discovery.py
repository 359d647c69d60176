"""DNS-SD on a real link: what is announced is found, what is not ours is not, nothing is left open.

The contract under test: a search gives the addresses of the head-ends with one kid and no others;
whatever the link or the library does, it gives addresses or a LinkError; whoever announces is heard
again after the network changed; and the library is loaded for nothing else.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import importlib.util
import ipaddress
import os
import random
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st
from zeroconf.asyncio import AsyncServiceInfo

from amistack.errors import ConfigError, LinkError
from amistack.links import discovery
from amistack.links.discovery import (
    FOUND_COUNT_MAX,
    LABEL_SIZE_MAX,
    SERVICE,
    Announcement,
    DnsSd,
    is_head_end,
    peers_in,
)
from amistack.machine import Peer
from tests.support.multicast import needs_multicast

KID = "1a2b3c4d"
OTHER = "99999999"
HOST = "127.0.0.1"
IPV4 = False


def fresh_kid() -> str:
    """One that nobody else on this link has: other tests may run beside this one."""
    return os.urandom(4).hex()


def announcement_of(kid: str, port: int) -> Announcement:
    return Announcement(kid, HOST, port)


@contextlib.asynccontextmanager
async def announced(*announcements: Announcement) -> AsyncIterator[None]:
    for one in announcements:
        one.start()
    try:
        yield
    finally:
        await asyncio.gather(*(one.withdraw() for one in announcements))


async def found(kid: str, *, times: int = 3) -> list[Peer]:
    """What is found in the end: a datagram may be lost even here."""
    search = DnsSd()
    for _ in range(times):
        if peers := await search.find(kid, host=HOST):
            return list(peers)
    return []


def socket_count() -> int:
    """Sockets that this process has open."""
    folder = Path("/proc/self/fd")
    count = 0
    for entry in list(folder.iterdir()):
        with contextlib.suppress(OSError):
            count += str(entry.readlink()).startswith("socket:")
    return count


# On a link


@needs_multicast
@pytest.mark.both_loops
async def test_head_end_is_found_by_its_kid_and_gone_when_withdrawn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = socket_count()
    kid, other = fresh_kid(), fresh_kid()
    async with announced(announcement_of(kid, 7001), announcement_of(other, 7002)):
        assert await found(kid) == [(HOST, 7001)]
        assert await found(other) == [(HOST, 7002)]
    monkeypatch.setattr(discovery, "SEARCH_S", 1.5)
    assert await found(kid, times=1) == []
    await asyncio.sleep(0.05)
    assert socket_count() == before


@needs_multicast
async def test_several_that_claim_one_kid_are_all_found() -> None:
    kid = fresh_kid()
    async with announced(*(announcement_of(kid, port) for port in (7001, 7002, 7003))):
        await asyncio.sleep(2.5)  # All have said so: what is found first is not waited for.
        peers: set[Peer] = set()
        for _ in range(3):
            peers.update(await found(kid))
            if len(peers) == 3:
                break
        assert sorted(map(str, peers)) == [str((HOST, port)) for port in (7001, 7002, 7003)]


@needs_multicast
@pytest.mark.both_loops
@pytest.mark.parametrize("after_s", [0.0, 0.01, 0.3])
async def test_search_that_is_ended_leaves_nothing_open(after_s: float) -> None:
    before = socket_count()
    search = DnsSd()
    waiting = asyncio.create_task(search.find(KID, host=HOST))
    await asyncio.sleep(after_s)
    waiting.cancel()
    closing = asyncio.create_task(search.close())
    # Once more in the middle of it, as a loop does that comes to its end.
    for _ in range(2):
        await asyncio.sleep(0)
    await search.close()
    await closing
    await asyncio.sleep(0.05)
    assert socket_count() == before
    assert not search._searches


@needs_multicast
@pytest.mark.both_loops
@pytest.mark.parametrize("after_s", [0.0, 0.01, 0.5])
async def test_announcement_withdrawn_early_leaves_nothing_open(after_s: float) -> None:
    before = socket_count()
    one = announcement_of(KID, 7001)
    one.start()
    await asyncio.sleep(after_s)
    await one.withdraw()
    await one.withdraw()
    await asyncio.sleep(0.05)
    assert socket_count() == before


# What an announcement says


@pytest.mark.parametrize(
    ("properties", "is_it"),
    [
        ({b"amistack": b"1", b"kid": b"1a2b3c4d"}, True),
        ({b"AmiStack": b"1", b"KID": b"1A2B3C4D", b"more": None}, True),
        ({b"amistack": b"2", b"kid": b"1a2b3c4d"}, False),
        ({b"amistack": b"1", b"kid": b"1a2b3c4e"}, False),
        ({b"amistack": b"1", b"kid": b""}, False),
        ({b"amistack": b"1", b"kid": None}, False),
        ({b"amistack": None, b"kid": b"1a2b3c4d"}, False),
        ({b"kid": b"1a2b3c4d"}, False),
        ({b"amistack": b"1"}, False),
        ({}, False),
    ],
)
def test_only_our_version_and_the_pinned_kid_count(
    properties: dict[bytes, bytes | None], is_it: bool
) -> None:
    assert is_head_end(properties, KID) is is_it


@given(st.dictionaries(st.binary(max_size=9), st.none() | st.binary(max_size=9)))
def test_any_record_of_another_is_no_head_end(properties: dict[bytes, bytes | None]) -> None:
    assert not is_head_end(properties, KID)


@pytest.mark.parametrize(
    ("address", "peers"),
    [
        ("192.0.2.7", [("192.0.2.7", 7001)]),
        ("0.0.0.0", []),
        ("224.0.0.251", []),
        ("fd00::7", [("fd00::7", 7001, 0, 0)]),
        ("fe80::7%4", [("fe80::7", 7001, 0, 4)]),
        ("fe80::7", []),
        ("::", []),
        ("ff02::fb", []),
    ],
)
def test_address_becomes_the_form_in_which_datagrams_come(address: str, peers: list[Peer]) -> None:
    class Info(AsyncServiceInfo):
        def parsed_scoped_addresses(self, version: object = None) -> list[str]:
            return [address]

    info = Info(SERVICE, f"x.{SERVICE}", port=7001)
    assert peers_in(info, is_ipv6=":" in address) == peers


def test_addresses_on_our_network_come_first_then_chance_and_no_more_than_fit() -> None:
    way = discovery._Way(
        is_ipv6=False,
        interfaces=("192.0.2.1",),
        addresses=("192.0.2.1",),
        networks=(ipaddress.ip_network("192.0.2.0/24"),),
    )
    near: list[Peer] = [(f"192.0.2.{last}", 1) for last in range(2, 10)]
    far: list[Peer] = [(f"198.51.100.{last}", 1) for last in range(1, 200)]
    orders = [discovery._in_order([*far, *near], way, random.Random(seed)) for seed in range(50)]
    for order in orders:
        assert len(order) == FOUND_COUNT_MAX
        assert set(order[: len(near)]) == set(near)
    assert len({order[0] for order in orders}) == len(near), "nobody can make sure to be first"
    assert {peer for order in orders for peer in order} >= set(far[::50])


@given(st.text(max_size=100))
def test_any_host_name_makes_a_label(text: str) -> None:
    label = discovery._label(f"amistack-{KID}-{text}")
    assert 0 < len(label.encode()) < LABEL_SIZE_MAX
    info = AsyncServiceInfo(SERVICE, f"{label}.{SERVICE}", port=1, server=f"{label}.local.")
    assert info.name.startswith("amistack-")


# Whatever goes wrong


@pytest.mark.parametrize("host", ["192.0.2.99", "2001:db8::99", "::1"])
async def test_host_that_is_on_no_network_is_told_in_one_line(host: str) -> None:
    with pytest.raises(LinkError, match="on no network with multicast"):
        await DnsSd().find(KID, host=host)


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENODEV, os.strerror(errno.ENODEV)),
        RuntimeError("no adapter\nat all"),
        AssertionError(),
        KeyError("what nobody thought of"),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_library_that_fails_is_told_in_one_line(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("zeroconf.asyncio.AsyncZeroconf", fail)
    with pytest.raises(LinkError) as refused:
        await DnsSd().find(KID, host=HOST)
    assert "\n" not in str(refused.value)


async def test_searches_for_the_same_are_made_once_and_shared(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[tuple[str, str]] = []
    answer = asyncio.Event()

    async def search(kid: str, host: str, dice: random.Random) -> list[Peer]:
        asked.append((kid, host))
        await answer.wait()
        return [kid]

    monkeypatch.setattr(discovery, "_search", search)
    dns = DnsSd()
    waiting = [asyncio.create_task(dns.find(KID, host=HOST)) for _ in range(100)]
    other = asyncio.create_task(dns.find(OTHER, host=HOST))
    await asyncio.sleep(0)
    waiting[0].cancel()
    await asyncio.sleep(0)
    answer.set()
    assert await asyncio.gather(*waiting[1:], other) == [[KID]] * 99 + [[OTHER]]
    assert asked == [(KID, HOST), (OTHER, HOST)]
    assert await dns.find(KID, host=HOST) == [KID]
    assert len(asked) == 3, "an old answer is no answer"


def test_missing_library_is_one_line_that_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(ConfigError) as refused:
        DnsSd().require()
    assert str(refused.value) == (
        "zeroconf is not installed: pip install 'amistack[discovery]', or set headend.address"
    )
    with pytest.raises(ConfigError, match=r"or set server\.announce = false"):
        announcement_of(KID, 7001)


def test_nothing_is_loaded_before_there_is_something_to_search() -> None:
    program = """
import sys
from amistack.links.discovery import Announcement, DnsSd
from amistack.links.host import Host
import meterd.daemon, headend.app
DnsSd().require()
Host()
Announcement("1a2b3c4d", "127.0.0.1", 1)
print(*(name for name in ("zeroconf", "ifaddr") if name in sys.modules))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=True
    )
    assert done.stdout.split() == []


@pytest.fixture
def quickly(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, object]]:
    """An announcement looks at its network all the time; what it logs."""
    monkeypatch.setattr(discovery, "REFRESH_S", 0.01)
    lines: list[dict[str, object]] = []

    def keep(_: object, __: str, event: dict[str, object]) -> dict[str, object]:
        lines.append(dict(event))
        raise structlog.DropEvent

    logger = structlog.wrap_logger(structlog.PrintLogger(), processors=[keep])
    monkeypatch.setattr(discovery, "LOG", logger)
    return lines


async def _until_logged(lines: list[dict[str, object]], event: str, count: int = 1) -> None:
    async with asyncio.timeout(10):
        while [line["event"] for line in lines].count(event) < count:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_announcement_that_cannot_be_made_is_told_once_and_made_later(
    quickly: list[dict[str, object]], monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []
    tries = 0

    async def announce(self: Announcement, way: object, _: object) -> None:
        nonlocal tries
        tries += 1
        if tries < 5:
            raise LinkError("no such device")
        made.append(self._kid)

    monkeypatch.setattr(Announcement, "_announce", announce)
    async with announced(announcement_of(KID, 7001)):
        await _until_logged(quickly, "announced")
    assert made == [KID]
    assert [line["event"] for line in quickly] == ["not announced", "announced"]
    assert quickly[0]["reason"] == "no such device"


async def test_head_end_is_announced_anew_when_its_addresses_change(
    quickly: list[dict[str, object]], monkeypatch: pytest.MonkeyPatch
) -> None:
    now: list[discovery._Way] = []
    made: list[tuple[str, ...]] = []

    async def announce(self: Announcement, way: discovery._Way, _: object) -> None:
        made.append(way.addresses)

    monkeypatch.setattr(Announcement, "_announce", announce)
    monkeypatch.setattr(discovery, "_announcing_ways", lambda _: list(now))
    first = discovery._Way(IPV4, ("192.0.2.1",), ("192.0.2.1",), ())
    second = discovery._Way(IPV4, ("192.0.2.9",), ("192.0.2.9",), ())
    async with announced(announcement_of(KID, 7001)):
        await _until_logged(quickly, "not announced")
        now[:] = [first]
        await _until_logged(quickly, "announced")
        now[:] = [second]
        await _until_logged(quickly, "announced", 2)
    assert made == [("192.0.2.1",), ("192.0.2.9",)]


@pytest.mark.parametrize(
    ("host", "families"), [("127.0.0.1", [False]), ("0.0.0.0", [False]), ("192.0.2.99", [])]
)
def test_wildcard_stands_for_every_address_of_its_family(host: str, families: list[bool]) -> None:
    ways = discovery._announcing_ways(host)
    assert [way.is_ipv6 for way in ways] == families
    for way in ways:
        assert way.addresses
        assert "0.0.0.0" not in way.addresses
        if host == "0.0.0.0" and len(way.interfaces) > 1:
            assert "127.0.0.1" not in way.addresses, "only this machine itself is there"
