"""Find a head-end on this link by DNS-SD, and say where one is.

Spec    RFC 6763 over RFC 6762: service `_coap._udp` (RFC 7252 section 7.1) with TXT `amistack=1`
        and `kid=` and the head-end's kid in hex
Gives   addresses to try, in the form in which datagrams come from them
Raises  ConfigError where the library for it is missing; LinkError from a search that cannot be
        made; an announcement that cannot be made is in the log and tried again
Limit   SEARCH_S for a search, SERVICE_COUNT_MAX announcements looked at, FOUND_COUNT_MAX addresses;
        INTERFACE_COUNT_MAX of this machine's addresses of each IP version
Never   vouches for what it finds: anybody on the link may announce anything; loads its library
        before there is something to search or to say
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import ipaddress
import random
import re
import socket
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

import structlog

from amistack.errors import ConfigError, LinkError
from amistack.machine import Peer

if TYPE_CHECKING:
    from zeroconf import IPVersion, ServiceStateChange, Zeroconf
    from zeroconf.asyncio import AsyncServiceInfo, AsyncZeroconf

LOG: Final = structlog.get_logger("discovery")

SERVICE: Final = "_coap._udp.local."
TXT_VERSION: Final = ("amistack", "1")
TXT_KID: Final = "kid"

SEARCH_S: Final = 6.0
SETTLE_S: Final = 1.0
"""Once one is found: for others, since the first to answer may be a false one."""
LOOK_S: Final = 3.0
WITHDRAW_S: Final = 3.0
REFRESH_S: Final = 60.0
"""How often an announcement is compared with this machine's addresses."""
SERVICE_COUNT_MAX: Final = 64
FOUND_COUNT_MAX: Final = 16
INTERFACE_COUNT_MAX: Final = 16
LABEL_SIZE_MAX: Final = 63
"""Octets of one label of a name (RFC 1035 section 2.3.4)."""
SUFFIX_SIZE: Final = 8
"""Octets that a label keeps free for the number that a name gets when it is taken."""

_NOT_A_LABEL: Final = re.compile(r"[^A-Za-z0-9]+")


class Discovery(Protocol):
    """Where a program finds its head-end."""

    def require(self) -> None:
        """Raises ConfigError, one line that says what to do, if this machine cannot search."""

    async def find(self, kid: str, *, host: str) -> Sequence[Peer]:
        """Addresses at which a head-end with that `kid` (hex) is said to be; maybe none.

        They fit a socket bound to `host`. Raises LinkError when there is no way to search.
        """


class DnsSd:
    """Searches by multicast DNS. Searches for the same at the same time are made once."""

    def __init__(self, dice: random.Random | None = None) -> None:
        self._dice = dice or random.Random()
        self._searches: dict[tuple[str, str], asyncio.Task[list[Peer]]] = {}

    def require(self) -> None:
        """Raises ConfigError if zeroconf is not installed. Does not load it."""
        require_library("or set headend.address")

    async def find(self, kid: str, *, host: str) -> Sequence[Peer]:
        """See `Discovery.find`. Addresses on a network of ours come first."""
        key = (kid, host)
        search = self._searches.get(key)
        if search is None:
            search = asyncio.create_task(_search(kid, host, self._dice))
            self._searches[key] = search
            search.add_done_callback(lambda _: self._searches.pop(key, None))
        # Others may wait for the same search: whoever stops waiting does not end it.
        return list(await asyncio.shield(search))

    async def close(self) -> None:
        """End what is under way, and give its sockets back."""
        searches = list(self._searches.values())
        for search in searches:
            search.cancel()
        await asyncio.gather(*searches, return_exceptions=True)


class Announcement:
    """Says where a head-end is, in the background, until it is withdrawn.

    `host` is what its socket is bound to; a wildcard stands for all addresses of this machine.
    """

    def __init__(self, kid: str, host: str, port: int) -> None:
        """Raises ConfigError if zeroconf is not installed."""
        require_library("or set server.announce = false")
        self._kid = kid
        self._host = host
        self._port = port
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin. It takes a second or two until others can find it."""
        self._task = asyncio.create_task(self._keep())

    async def withdraw(self) -> None:
        """Say that it is gone, as far as others hear, and give the sockets back."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _keep(self) -> None:
        """Announce, and anew whenever this machine's addresses change."""
        reason = ""
        while True:
            try:
                ways = _announcing_ways(self._host)
                if not ways:
                    raise LinkError(f"{self._host} is on no network with multicast")
                async with contextlib.AsyncExitStack() as responders:
                    for way in ways:
                        await self._announce(way, responders)
                    LOG.info(
                        "announced",
                        kid=self._kid,
                        port=self._port,
                        addresses=[address for way in ways for address in way.addresses],
                    )
                    reason = ""
                    while _announcing_ways(self._host) == ways:  # noqa: ASYNC110  # Nothing tells.
                        await asyncio.sleep(REFRESH_S)
                LOG.info("addresses changed")
                continue
            except LinkError as error:
                # Not once a minute: only when there is something new to read.
                if reason != str(error):
                    reason = str(error)
                    LOG.warning("not announced", reason=reason, retry_s=REFRESH_S)
            await asyncio.sleep(REFRESH_S)

    async def _announce(self, way: _Way, responders: contextlib.AsyncExitStack) -> None:
        from zeroconf import Error
        from zeroconf.asyncio import AsyncServiceInfo

        responder = await responders.enter_async_context(_opened(way))
        name = _label(f"amistack-{self._kid}-{self._port}-{socket.gethostname().partition('.')[0]}")
        info = AsyncServiceInfo(
            SERVICE,
            f"{name}.{SERVICE}",
            port=self._port,
            properties={TXT_VERSION[0]: TXT_VERSION[1], TXT_KID: self._kid},
            server=f"{name}.local.",
            parsed_addresses=list(way.addresses),
        )
        try:
            await (await responder.async_register_service(info, allow_name_change=True))
        except (Error, OSError, RuntimeError) as error:
            raise LinkError(f"announcing failed: {_said(error)}") from error


def require_library(otherwise: str) -> None:
    """Raises ConfigError if zeroconf is not installed; `otherwise` is what else would help."""
    if importlib.util.find_spec("zeroconf") is None:
        raise ConfigError(
            f"zeroconf is not installed: pip install 'amistack[discovery]', {otherwise}"
        )


# This machine's own side


@dataclass(frozen=True, slots=True)
class _Way:
    """One IP version on this machine: where to send multicast, and what addresses are ours."""

    is_ipv6: bool
    interfaces: tuple[str | int, ...]
    """IPv4 addresses, or indexes for IPv6: an address does not say its link there."""
    addresses: tuple[str, ...]
    networks: tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]


def _way(host: str, *, is_ipv6: bool) -> _Way | None:
    """The way of a socket bound to `host`, or None if it is on no network of that IP version."""
    import ifaddr

    wanted = ipaddress.ip_address(host.partition("%")[0])
    interfaces: dict[str | int, None] = {}
    addresses, networks = [], []
    for adapter in ifaddr.get_adapters():
        for ip in adapter.ips:
            text = ip.ip if isinstance(ip.ip, str) else ip.ip[0]
            address = ipaddress.ip_address(text)
            if ip.is_IPv6 != is_ipv6 or (not wanted.is_unspecified and address != wanted):
                continue
            if is_ipv6 and (address.is_loopback or adapter.index is None):
                continue  # The loopback interface takes no IPv6 multicast.
            interfaces[adapter.index if is_ipv6 else text] = None  # type: ignore[index]  # not None
            addresses.append(text)
            networks.append(ipaddress.ip_network(f"{text}/{ip.network_prefix}", strict=False))
            if len(interfaces) == INTERFACE_COUNT_MAX:
                break
    if not interfaces:
        return None
    return _Way(is_ipv6, tuple(interfaces), tuple(addresses), tuple(networks))


def _announcing_ways(host: str) -> list[_Way]:
    """The ways of a head-end bound to `host`. `::` takes IPv4, too."""
    found = []
    for is_ipv6, wildcard in ((False, "0.0.0.0"), (True, "::")):
        if (":" in host) == is_ipv6 or host == "::":
            found.append(_way(wildcard if host == "::" else host, is_ipv6=is_ipv6))
    return [_for_others(way) for way in found if way is not None]


def _for_others(way: _Way) -> _Way:
    """`way` without the address by which a machine only reaches itself, if it has others."""
    others = tuple(one for one in way.addresses if not ipaddress.ip_address(one).is_loopback)
    return _Way(way.is_ipv6, way.interfaces, others or way.addresses, way.networks)


@contextlib.asynccontextmanager
async def _opened(way: _Way) -> AsyncIterator[AsyncZeroconf]:
    """The library at work on one way. Raises LinkError."""
    from zeroconf import Error
    from zeroconf.asyncio import AsyncZeroconf

    try:
        opened = AsyncZeroconf(
            interfaces=list(way.interfaces), ip_version=_ip_version(is_ipv6=way.is_ipv6)
        )
    except (Error, OSError, RuntimeError) as error:
        raise LinkError(f"multicast DNS cannot be opened: {_said(error)}") from error
    try:
        try:
            await opened.zeroconf.async_wait_for_start()
        except (Error, OSError) as error:
            raise LinkError(f"multicast DNS did not start: {_said(error)}") from error
        yield opened
    finally:
        # A task of its own: in one that is being cancelled the library gives up closing, and
        # leaves a socket open that it was about to take.
        await _to_its_end(asyncio.create_task(_close(opened)))


async def _close(opened: AsyncZeroconf) -> None:
    """Say goodbye and give every socket back: a loop of uvloop waits for ever for an open one."""
    from zeroconf import Error

    try:
        with contextlib.suppress(Error, OSError):
            async with asyncio.timeout(WITHDRAW_S):
                await opened.async_close()
    finally:
        opened.zeroconf.engine.close()


async def _to_its_end(task: asyncio.Task[None]) -> None:
    """Wait for `task` also when cancelled meanwhile, and be cancelled after it."""
    is_cancelled = False
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            is_cancelled = True
    if is_cancelled:
        raise asyncio.CancelledError


def _ip_version(*, is_ipv6: bool) -> IPVersion:
    from zeroconf import IPVersion

    return IPVersion.V6Only if is_ipv6 else IPVersion.V4Only


# Searching


async def _search(kid: str, host: str, dice: random.Random) -> list[Peer]:
    """One search from its first question to its last answer. Raises LinkError, nothing else."""
    try:
        return await _search_on(kid, host, dice)
    except LinkError:
        raise
    except Exception as error:
        # What the link brought must end no program, and the library says little of what it raises.
        raise LinkError(f"the search failed: {_said(error)}") from error


async def _search_on(kid: str, host: str, dice: random.Random) -> list[Peer]:
    require_library("or set headend.address")
    from zeroconf.asyncio import AsyncServiceBrowser

    way = _way(host, is_ipv6=":" in host)
    if way is None:
        raise LinkError(f"{host} is on no network with multicast, so nothing can be found there")
    found: dict[Peer, None] = {}
    is_found = asyncio.Event()
    looks: dict[str, asyncio.Task[None]] = {}

    async def look(opened: AsyncZeroconf, name: str) -> None:
        for peer in await _peers_of(opened, name, kid, way):
            found[peer] = None
            is_found.set()

    async with _opened(way) as opened:

        def on_change(
            zeroconf: Zeroconf,  # noqa: ARG001  # The library names its arguments.
            service_type: str,  # noqa: ARG001
            name: str,
            state_change: ServiceStateChange,  # noqa: ARG001
        ) -> None:
            if name not in looks and len(looks) < SERVICE_COUNT_MAX:
                looks[name] = asyncio.create_task(look(opened, name))

        browser = AsyncServiceBrowser(opened.zeroconf, SERVICE, handlers=[on_change])
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(SEARCH_S):
                    await is_found.wait()
                    await asyncio.sleep(SETTLE_S)
        finally:
            for task in looks.values():
                task.cancel()
            await asyncio.gather(*looks.values(), return_exceptions=True)
            await browser.async_cancel()
    return _in_order(list(found), way, dice)


async def _peers_of(opened: AsyncZeroconf, name: str, kid: str, way: _Way) -> list[Peer]:
    """Where the announcement called `name` says that the head-end is, if it is one of it."""
    from zeroconf import Error
    from zeroconf.asyncio import AsyncServiceInfo

    try:
        info = AsyncServiceInfo(SERVICE, name)
        if not await info.async_request(opened.zeroconf, LOOK_S * 1000):
            return []
    except (Error, OSError):
        return []
    if not is_head_end(info.properties, kid) or not info.port:
        return []
    return peers_in(info, is_ipv6=way.is_ipv6)


def is_head_end(properties: Mapping[bytes, bytes | None], kid: str) -> bool:
    """Whether a TXT record is that of a head-end with that `kid`, in our version of it."""
    texts = {key.lower(): value for key, value in properties.items()}
    version, expected = TXT_VERSION
    return (
        texts.get(version.encode()) == expected.encode()
        and (texts.get(TXT_KID.encode()) or b"").lower() == kid.encode()
    )


def peers_in(info: AsyncServiceInfo, *, is_ipv6: bool) -> list[Peer]:
    """The socket addresses of one announcement; none that stands for several hosts or for none."""
    peers: list[Peer] = []
    for text in info.parsed_scoped_addresses(_ip_version(is_ipv6=is_ipv6)):
        bare, _, scope = text.partition("%")
        address = ipaddress.ip_address(bare)
        if address.is_unspecified or address.is_multicast:
            continue
        if isinstance(address, ipaddress.IPv4Address):
            peers.append((bare, info.port))
        elif not address.is_link_local or scope.isdecimal():
            # Made here: uvloop's own look-up of such an address forgets its link.
            peers.append((bare, info.port, 0, int(scope) if address.is_link_local else 0))
    return peers


def _in_order(peers: list[Peer], way: _Way, dice: random.Random) -> list[Peer]:
    """Those on a network of ours first; else by chance, so that no announcer can push ahead."""
    dice.shuffle(peers)

    def is_far(peer: Peer) -> bool:
        assert isinstance(peer, tuple)
        address = ipaddress.ip_address(peer[0])
        return not any(address in network for network in way.networks)

    return sorted(peers, key=is_far)[:FOUND_COUNT_MAX]


# Small things


def _label(text: str) -> str:
    """`text` as one label of a name."""
    return _NOT_A_LABEL.sub("-", text)[: LABEL_SIZE_MAX - SUFFIX_SIZE].strip("-")


def _said(error: BaseException) -> str:
    """What an error says, in one line."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return " ".join(str(error).split()) or type(error).__name__
