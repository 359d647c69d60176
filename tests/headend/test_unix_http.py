"""The head-end's client for programs with an event loop, against a server of the test's own."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from headend.client import ApiError, AsyncHeadEndClient
from headend.unix_http import UnixTransport

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n\r\nhello"


@pytest.fixture
def listening(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "s.sock"))
        server.listen()
        server.settimeout(0)
        yield server


@pytest.fixture
async def client(listening: socket.socket) -> AsyncIterator[httpx.AsyncClient]:
    transport = UnixTransport(Path(listening.getsockname()))
    async with httpx.AsyncClient(transport=transport, base_url="http://head-end") as http:
        yield http


async def asked(server: socket.socket) -> socket.socket:
    """The connection of one request, which has been read."""
    connection, _ = await asyncio.get_running_loop().sock_accept(server)
    connection.settimeout(0)
    await read_request(connection)
    return connection


async def read_request(connection: socket.socket) -> bytes:
    request = b""
    while b"\r\n\r\n" not in request:
        request += await asyncio.get_running_loop().sock_recv(connection, 4096)
    return request


@pytest.mark.both_loops
async def test_who_is_cancelled_as_the_answer_comes_leaves_the_loop_in_peace(
    listening: socket.socket, client: httpx.AsyncClient
) -> None:
    loop = asyncio.get_running_loop()
    troubles: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, trouble: troubles.append(trouble))
    for _ in range(20):
        waiting = asyncio.ensure_future(client.get("/"))
        with await asked(listening) as connection:
            await asyncio.sleep(0.01)  # the client waits for the socket now
            # In one turn of the loop: first the cancellation, then the octets.
            loop.call_soon(waiting.cancel)
            connection.send(ANSWER)
            with pytest.raises(asyncio.CancelledError):
                await waiting
    assert troubles == []


@pytest.mark.both_loops
async def test_connection_is_used_again_and_one_that_was_closed_is_not(
    listening: socket.socket, client: httpx.AsyncClient
) -> None:
    waiting = asyncio.ensure_future(client.get("/first"))
    first = await asked(listening)
    first.send(ANSWER)
    assert (await waiting).text == "hello"
    waiting = asyncio.ensure_future(client.get("/second"))
    assert (await read_request(first)).startswith(b"GET /second ")
    first.send(ANSWER)
    assert (await waiting).text == "hello"
    first.close()
    await asyncio.sleep(0.05)
    waiting = asyncio.ensure_future(client.get("/third"))
    with await asked(listening) as second:
        second.send(ANSWER)
        assert (await waiting).text == "hello"


@pytest.mark.both_loops
async def test_answer_that_does_not_come_is_waited_for_as_long_as_was_said(
    listening: socket.socket, client: httpx.AsyncClient
) -> None:
    with pytest.raises(httpx.ReadTimeout):
        await client.get("/", timeout=0.1)
    # Nobody reads: what is written no longer fits into the socket.
    with pytest.raises(httpx.WriteTimeout):
        await client.post("/", content=bytes(8_000_000), timeout=0.1)


@pytest.mark.both_loops
async def test_broken_connection_is_one_line(listening: socket.socket) -> None:
    path = Path(listening.getsockname())
    async with AsyncHeadEndClient(path) as client:
        waiting = asyncio.ensure_future(client.status())
        (await asked(listening)).close()
        with pytest.raises(ApiError, match="broke off: it is stopping, or its log says why"):
            await waiting
        listening.close()
        with pytest.raises(ApiError, match=r"no head-end answers at .*: start it with"):
            await client.status()
