"""HTTP over a Unix socket for programs with an event loop, on asyncio's own streams.

The pool and HTTP itself are httpcore's. What it would take for the socket by default waits with
`loop.add_reader(socket, future.set_result)`: where the one who waits is cancelled in the same
turn of the loop as octets come, that call finds a future that has ended, and the loop prints a
traceback (anyio 4.16). A stream of asyncio has no such turn.

Raises  httpcore's errors, which httpx makes its own: ConnectError and ConnectTimeout, ReadError
        and ReadTimeout, WriteError and WriteTimeout
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Any

import httpcore
import httpx


class UnixTransport(httpx.AsyncHTTPTransport):
    """Requests over the socket at a path; connections are kept for the next request."""

    def __init__(self, socket: Path) -> None:
        super().__init__(uds=str(socket))
        self._pool = httpcore.AsyncConnectionPool(uds=str(socket), network_backend=_Sockets())


class _Sockets(httpcore.AsyncNetworkBackend):
    async def connect_unix_socket(
        self,
        path: str,
        timeout: float | None = None,  # noqa: ASYNC109  # httpcore's signature
        socket_options: Iterable[Any] | None = None,  # noqa: ARG002
    ) -> httpcore.AsyncNetworkStream:
        async with _within(timeout, httpcore.ConnectTimeout, httpcore.ConnectError):
            reader, writer = await asyncio.open_unix_connection(path)
        return _Stream(reader, writer)

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class _Stream(httpcore.AsyncNetworkStream):
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def read(
        self,
        max_bytes: int,
        timeout: float | None = None,  # noqa: ASYNC109
    ) -> bytes:
        async with _within(timeout, httpcore.ReadTimeout, httpcore.ReadError):
            return await self._reader.read(max_bytes)

    async def write(
        self,
        buffer: bytes,
        timeout: float | None = None,  # noqa: ASYNC109
    ) -> None:
        async with _within(timeout, httpcore.WriteTimeout, httpcore.WriteError):
            self._writer.write(buffer)
            await self._writer.drain()

    async def aclose(self) -> None:
        self._writer.transport.abort()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()

    def get_extra_info(self, info: str) -> object:
        """`is_readable` of a connection at rest: the other side has closed it."""
        return self._reader.at_eof() if info == "is_readable" else None


@contextlib.asynccontextmanager
async def _within(
    timeout_s: float | None, late: type[Exception], broken: type[Exception]
) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(timeout_s):
            yield
    except TimeoutError as error:
        raise late(str(error)) from error
    except OSError as error:
        raise broken(str(error)) from error
