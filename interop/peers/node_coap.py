"""node coap as a client and as a server: two small programs in JavaScript, and their package.

Raises  PeerError when a program does not do its part
Limit   INSTALL_S_MAX seconds for npm, START_S_MAX for a program; every version is pinned in
        package.json, for a lock file would name the registry it was made with
Never   runs a package's own scripts; installs outside of CACHE
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final, TypedDict, cast

from amistack.coap.codes import Code
from interop.peers.exchange import Answer, Ask
from interop.peers.libcoap import end
from interop.peers.party import LOOPBACK, PeerError

SOURCES: Final = Path(__file__).parent / "node"
FILES: Final = ("package.json", "client.js", "server.js")
CACHE: Final = Path("build/peers")
INSTALL: Final = "apt-get install -y nodejs npm"

INSTALL_S_MAX: Final = 120.0
START_S_MAX: Final = 10.0


class Package(TypedDict):
    """What is read of package.json."""

    dependencies: dict[str, str]


class Line(TypedDict, total=False):
    """What a program says, one JSON object a line."""

    id: int
    code: str
    payload: str
    error: str
    port: int


def version() -> str:
    """What judges."""
    package = cast("Package", json.loads((SOURCES / "package.json").read_text(encoding="utf-8")))
    return f"node coap {package['dependencies']['coap']}"


def missing() -> str | None:
    """Why it cannot run, and the line that helps; None once it is installed."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        return f"node and npm are not installed: {INSTALL}"
    try:
        installed()
    except PeerError as error:
        return str(error)
    return None


def installed() -> Path:
    """The folder with the programs and their package, installed by npm where it is not yet.

    Raises PeerError where npm cannot.
    """
    contents = [(SOURCES / name).read_bytes() for name in FILES]
    mark = hashlib.sha256(b"\0".join(contents)).hexdigest()[:12]
    folder = CACHE / f"node-{mark}"
    if folder.is_dir():
        return folder
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE) as made:
        fresh = Path(made, "peer")
        fresh.mkdir()
        for name, content in zip(FILES, contents, strict=True):
            (fresh / name).write_bytes(content)
        _npm_install(fresh)
        try:
            fresh.rename(folder)
        except OSError:
            if not folder.is_dir():  # Unless somebody else was faster.
                raise
    return folder


def _npm_install(folder: Path) -> None:
    quiet = ("--no-audit", "--no-fund", "--ignore-scripts", "--no-package-lock", "--omit=dev")
    line = ["npm", "install", "--loglevel=error", *quiet]
    try:
        done = subprocess.run(
            line, cwd=folder, capture_output=True, text=True, check=False, timeout=INSTALL_S_MAX
        )
    except subprocess.TimeoutExpired:
        raise PeerError(f"npm did not install {version()} in {INSTALL_S_MAX:.0f} s") from None
    if done.returncode != 0:
        told = (done.stderr.strip().splitlines() or ["no word from npm"])[0]
        raise PeerError(f"npm could not install {version()}: {told}")


class NodeClient:
    """node coap's client: one process for a whole suite."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._next_id = 0

    async def ask(self, ask: Ask) -> Answer:
        """Send it, and wait for the response."""
        (answer,) = await self._ask(ask)
        return answer

    async def ask_under(self, ask: Ask, token: bytes) -> Answer:
        """Send it under that token, and wait for the response."""
        (answer,) = await self._ask(ask, token=token)
        return answer

    async def observe(self, ask: Ask, count: int) -> list[Answer]:
        """Observe, and give the first `count` notifications."""
        return await self._ask(ask, observe=count)

    async def _ask(self, ask: Ask, *, token: bytes | None = None, observe: int = 0) -> list[Answer]:
        self._next_id += 1
        one = {
            "id": self._next_id,
            "method": Code(ask.code).name,
            "path": ask.path,
            "queries": ask.queries,
            "payload": ask.payload.hex(),
            "confirmable": ask.is_confirmable,
            "content_format": ask.content_format,
            "options": [(number, value.hex()) for number, value in ask.options],
            "token": None if token is None else token.hex(),
            "observe": observe,
        }
        writer = self._process.stdin
        assert writer is not None, "it was started with a pipe"
        writer.write(json.dumps(one).encode() + b"\n")
        await writer.drain()
        answers: list[Answer] = []
        while len(answers) < max(observe, 1):
            line = await _read(self._process)
            if line.get("id") != self._next_id:
                continue  # Of an earlier request that was given up.
            if "error" in line:
                raise PeerError(f"node coap: {line['error']}")
            answers.append(Answer(line["code"], bytes.fromhex(line["payload"])))
        return answers


@asynccontextmanager
async def open_client(address: tuple[str, int]) -> AsyncIterator[NodeClient]:
    """A client for the server at `address`."""
    async with _open("client.js", (address[0], str(address[1]))) as (process, _):
        yield NodeClient(process)


@asynccontextmanager
async def open_server() -> AsyncIterator[tuple[str, int]]:
    """A server on a free port of the loopback address."""
    async with _open("server.js", ()) as (_, first):
        yield LOOPBACK, first["port"]


@asynccontextmanager
async def _open(
    script: str, arguments: Sequence[str]
) -> AsyncIterator[tuple[asyncio.subprocess.Process, Line]]:
    """A program of ours under node, and the first line that it said."""
    process = await asyncio.create_subprocess_exec(
        *("node", script, *arguments),
        cwd=installed(),
        env={**os.environ, "NODE_NO_WARNINGS": "1"},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        limit=1 << 20,
    )
    try:
        async with asyncio.timeout(START_S_MAX):
            first = await _read(process)
        yield process, first
    finally:
        if process.stdin is not None:
            process.stdin.close()
        await end(process)


async def _read(process: asyncio.subprocess.Process) -> Line:
    assert process.stdout is not None, "it was started with a pipe"
    line = await process.stdout.readline()
    if not line:
        raise PeerError("node ended without a word")
    return cast("Line", json.loads(line))
