"""libcoap's `coap-client` and `coap-server`, as Debian packs them.

Raises  PeerError when a program does not do its part
Limit   REQUEST_S_MAX seconds a request, START_S_MAX until the server listens; Linux, whose table
        of sockets says that it does; the build without TLS, which has no OSCORE either
"""

from __future__ import annotations

import asyncio
import re
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from amistack.coap.codes import Code
from interop.peers.aiocoap_plain import free_port
from interop.peers.exchange import Answer, Ask
from interop.peers.party import LOOPBACK, PeerError

CLIENTS: Final = ("coap-client-notls", "coap-client", "coap-client-openssl", "coap-client-gnutls")
SERVERS: Final = ("coap-server-notls", "coap-server", "coap-server-openssl", "coap-server-gnutls")
INSTALL: Final = "apt-get install -y libcoap3-bin"

REQUEST_S_MAX: Final = 8
START_S_MAX: Final = 5.0
OBSERVE_S: Final = 1
START_POLL_S: Final = 0.02
DYNAMIC_COUNT_MAX: Final = 10

_PDU: Final = re.compile(rb"^v:1 t:\w+ c:(\S+) ", re.MULTILINE)
_NOTIFICATION: Final = re.compile(
    rb"^v:1 t:\w+ c:(2\.05) \S+ \S+ \[ [^]]*Observe:[^]]*\] :: '([^']*)'", re.MULTILINE
)
_VERSION: Final = re.compile(r"v(\d+\.\d+\.\d+\S*)")


def find(names: tuple[str, ...]) -> str | None:
    """The first of these programs that is installed."""
    return next((path for name in names if (path := shutil.which(name)) is not None), None)


def missing() -> str | None:
    """The line that installs both programs, or None if they are there."""
    if find(CLIENTS) is None or find(SERVERS) is None:
        return f"coap-client and coap-server are not installed: {INSTALL}"
    return None


def version() -> str:
    """What judges."""
    program = find(CLIENTS)
    if program is None:
        return "libcoap"
    usage = subprocess.run([program], capture_output=True, text=True, check=False, timeout=5)
    found = _VERSION.search(usage.stdout + usage.stderr)
    return f"libcoap {found[1]}" if found else "libcoap"


class LibcoapClient:
    """`coap-client`, one process a request, towards one server of ours."""

    def __init__(self, root: str) -> None:
        self._root = root
        self._program = find(CLIENTS) or CLIENTS[0]

    async def ask(self, ask: Ask) -> Answer:
        """Send it, and wait for the response."""
        return (await self._ask(ask))[0]

    async def ask_under(self, ask: Ask, token: bytes) -> Answer:
        """Send it with a token of that size, and wait for the response."""
        return (await self._ask(ask, "-T", token.decode()))[0]

    async def observe(self, ask: Ask, count: int) -> list[Answer]:
        """Observe for OBSERVE_S, and give the first `count` notifications that it printed."""
        _, told = await self._ask(ask, "-s", str(OBSERVE_S))
        heard = _NOTIFICATION.findall(told)
        return [Answer(code.decode(), payload) for code, payload in heard[:count]]

    async def _ask(self, ask: Ask, *arguments: str) -> tuple[Answer, bytes]:
        """The last response, and all that the program said. `arguments` go to it as they are."""
        line = [self._program, "-v", "6", "-B", str(REQUEST_S_MAX), *arguments]
        line += ["-m", Code(ask.code).name.lower()]
        if not ask.is_confirmable:
            line.append("-N")
        if ask.content_format is not None:
            line += ["-t", str(ask.content_format)]
        for number, value in ask.options:
            line += ["-O", f"{number},0x{value.hex()}"]
        for query in ask.queries:
            line += ["-O", f"15,{query}"]
        if ask.payload:
            line += ["-f", "-"]
        with tempfile.TemporaryDirectory() as folder:
            received = Path(folder, "received")
            received.touch()  # noqa: ASYNC240  a few octets of this very machine
            line += ["-o", str(received), f"{self._root}/{ask.path}"]
            told = await _run(line, ask.payload)
            payload = received.read_bytes()  # noqa: ASYNC240  a few octets of this very machine
        codes = [code for code in _PDU.findall(told) if code[:1] in b"245" and code[1:2] == b"."]
        if not codes:
            raise PeerError(f"coap-client had no response: {told[-200:]!r}")
        return Answer(codes[-1].decode(), payload), told


async def _run(line: list[str], payload: bytes) -> bytes:
    process = await asyncio.create_subprocess_exec(
        *line,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        told, _ = await process.communicate(payload)
    finally:
        await end(process)
    return told


@asynccontextmanager
async def open_server() -> AsyncIterator[tuple[str, int]]:
    """`coap-server` on a free port; its address. Up to DYNAMIC_COUNT_MAX resources can be made."""
    port = free_port()
    program = find(SERVERS) or SERVERS[0]
    process = await asyncio.create_subprocess_exec(
        *(program, "-A", LOOPBACK, "-p", str(port), "-d", str(DYNAMIC_COUNT_MAX), "-v", "3"),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        await _until_bound(port, process)
        yield LOOPBACK, port
    finally:
        await end(process)


async def end(process: asyncio.subprocess.Process) -> None:
    """End a program that we started, if it still runs, and wait for it."""
    if process.returncode is None:
        process.kill()
    await process.wait()


async def _until_bound(port: int, process: asyncio.subprocess.Process) -> None:
    """Wait until somebody has that UDP port of the loopback address."""
    deadline = asyncio.get_running_loop().time() + START_S_MAX
    while not _is_bound(port):
        if process.returncode is not None or asyncio.get_running_loop().time() > deadline:
            raise PeerError("coap-server did not start")
        await asyncio.sleep(START_POLL_S)


def _is_bound(port: int) -> bool:
    return f"0100007F:{port:04X}" in Path("/proc/net/udp").read_text(encoding="ascii")
