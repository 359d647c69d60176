"""Streams between programs on one loop, as TCP would carry them over somebody's mobile network.

Gives   `Streams.opener` and `Streams.keeper`, which take the places of `open_tcp_server` and
        `keep_tcp`; `cut` for a way that is lost, `kill` for a program that is gone
Limit   UNSENT_SIZE_MAX octets wait at an end whose way is cut; its link is told to pause then
Never   loses or reorders an octet of a stream that lives
"""

from __future__ import annotations

import asyncio
import random
import zlib
from collections import Counter, deque
from typing import Any, Final, TypeVar

from amistack.errors import LinkError
from amistack.links.host import KeepStream
from amistack.links.streams import (
    UNSENT_SIZE_MAX,
    Backoff,
    KeptLink,
    MakeMachine,
    OnDown,
    OnEvent,
    StreamLink,
    ignore_down,
)
from amistack.links.tcp import CONNECT_TIMEOUT, Tls

EventT = TypeVar("EventT")
Address = tuple[str, int]

DELAY_S: Final = 0.05
"""One way."""
PORT_FIRST: Final = 49_152


class _Way:
    """What one client's streams go over, both ways."""

    def __init__(self, host: str) -> None:
        self.host = host
        self.is_cut = False
        self.is_alive = True
        self.ends: list[_End] = []


class _End(asyncio.Transport):
    """One end of a stream, as its link's transport."""

    def __init__(self, streams: Streams, way: _Way, own: Address, other: Address) -> None:
        super().__init__()
        self._streams = streams
        self._way = way
        self._names = {"sockname": own, "peername": other}
        self._waiting: deque[bytes | None] = deque()
        self._is_closing = False
        self._is_paused = False
        self.is_server = False
        self.link: StreamLink[Any] | None = None
        self.twin: _End | None = None

    # What a link asks of a transport

    def write(self, data: bytes | bytearray | memoryview[Any]) -> None:
        """To the other end, in order."""
        if not self._is_closing:
            self._send(bytes(data))
            self._hold_back()

    def close(self) -> None:
        """End it behind what was written."""
        if not self._is_closing:
            self._is_closing = True
            self._send(None)
            asyncio.get_running_loop().call_soon(self.lose)

    def abort(self) -> None:
        """End it at once; what was written may be lost."""
        self.close()

    def is_closing(self) -> bool:
        return self._is_closing

    def get_write_buffer_size(self) -> int:
        """Nothing waits here: the way takes everything."""
        return 0

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """There is no buffer."""

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self._names.get(name, default)

    # What the way does

    def _send(self, octets: bytes | None) -> None:
        self._waiting.append(octets)
        if not self._way.is_cut:
            asyncio.get_running_loop().call_later(self._streams.delay_s, self._arrive)

    def _hold_back(self) -> None:
        """What cannot leave fills the system's buffer, and then the program has to wait."""
        if not self._way.is_cut or self._is_paused or self.link is None:
            return
        if sum(len(octets or b"") for octets in self._waiting) >= UNSENT_SIZE_MAX:
            self._is_paused = True
            self.link.pause_writing()

    def resume(self) -> None:
        """The way is there again: what was repeated in vain arrives."""
        for _ in range(len(self._waiting)):
            asyncio.get_running_loop().call_later(self._streams.delay_s, self._arrive)
        if self._is_paused and self.link is not None:
            self._is_paused = False
            self.link.resume_writing()

    def _arrive(self) -> None:
        # Cut again meanwhile: it is repeated later.
        if self._way.is_cut or not self._waiting:
            return
        octets = self._waiting.popleft()
        twin = self.twin
        if twin is None or twin.link is None:
            self._streams.counters["to nobody"] += 1
            if self._streams.is_back(self._way):
                # Its system knows nothing of such a stream, and says so.
                asyncio.get_running_loop().call_later(self._streams.delay_s, self.lose)
            return
        if octets is None:
            twin.lose()
            return
        self._streams.note(octets)
        twin.link.data_received(octets)

    def lose(self) -> None:
        """The stream is over for the link at this end."""
        link, self.link = self.link, None
        self._is_closing = True
        if self in self._way.ends:
            self._way.ends.remove(self)
        if link is not None:
            link.connection_lost(None)

    def vanish(self) -> None:
        """The program at this end is gone: nothing is called any more."""
        self.link = None
        self._is_closing = True
        if self in self._way.ends:
            self._way.ends.remove(self)


class _Server:
    """A place where streams are taken."""

    def __init__(
        self,
        streams: Streams,
        address: Address,
        make_machine: MakeMachine[Any],
        on_event: OnEvent[Any],
    ) -> None:
        self._streams = streams
        self._address = address
        self.make_machine = make_machine
        self.on_event = on_event
        self.links: list[StreamLink[Any]] = []

    @property
    def address(self) -> Address:
        """Where it listens."""
        return self._address

    async def close(self) -> None:
        """Take no more, let every machine take its leave, end all."""
        self._streams.servers.pop(self._address, None)
        for link in tuple(self.links):
            link.close()
        for link in tuple(self.links):
            await link.wait_ended()


class Streams:
    """All streams of a world."""

    def __init__(self, delay_s: float = DELAY_S) -> None:
        self.delay_s = delay_s
        self.counters: Counter[str] = Counter()
        self.servers: dict[Address, _Server] = {}
        self.trace = 0
        """A digest of all that arrived, in order."""
        self._ways: dict[str, _Way] = {}
        self._kept: list[KeptLink[Any]] = []
        self._next_port = PORT_FIRST

    def note(self, octets: bytes) -> None:
        """These arrived."""
        self.counters["octets"] += len(octets)
        self.trace = zlib.crc32(octets, self.trace)

    async def open_server(
        self,
        make_machine: MakeMachine[Any],
        on_event: OnEvent[Any],
        *,
        host: str,
        port: int,
        tls: Tls | None = None,
        connection_count_max: int = 0,  # noqa: ARG002  as TCP has it
        connection_count_per_host_max: int = 0,  # noqa: ARG002  as above
    ) -> _Server:
        """As `open_tcp_server`, without TLS. Raises LinkError."""
        assert tls is None, "nobody listens here but us"
        address = (host, port)
        if address in self.servers:
            raise LinkError(f"{host} port {port} is in use in this network")
        server = self.servers[address] = _Server(self, address, make_machine, on_event)
        return server

    def keeper(self, client: str) -> KeepStream:
        """`keep_tcp` for the program at the address `client`, in its new life."""
        way = _Way(client)
        before = self._ways.get(client)
        way.is_cut = before is not None and before.is_cut
        self._ways[client] = way

        def keep(
            make_machine: MakeMachine[EventT],
            on_event: OnEvent[EventT],
            *,
            host: str,
            port: int,
            dice: random.Random,
            tls: Tls | None = None,
            on_down: OnDown = ignore_down,
        ) -> KeptLink[EventT]:
            assert tls is None, "nobody listens here but us"

            async def connect() -> StreamLink[EventT]:
                return await self._connect(way, (host, port), make_machine, on_event)

            kept = KeptLink(connect, Backoff(dice), on_down)
            # Of a program that was killed nobody else does, and its task waits for ever.
            self._kept.append(kept)
            return kept

        return keep

    def cut(self, client: str, *, is_cut: bool) -> None:
        """The way of that client is lost, or there again."""
        way = self._ways[client]
        if way.is_cut == is_cut:
            return
        way.is_cut = is_cut
        if not is_cut:
            for end in tuple(way.ends):
                end.resume()

    def is_back(self, way: _Way) -> bool:
        """Whether the client's computer runs, in that life or a later one."""
        latest = self._ways[way.host]
        return latest.is_alive and not latest.is_cut

    def kill(self, client: str) -> None:
        """The program there has lost its power: nobody hears that, neither side is told."""
        way = self._ways[client]
        way.is_alive = False
        for end in tuple(way.ends):
            if not end.is_server:
                end.vanish()

    def kill_server(self, address: Address) -> None:
        """The program there was killed; its system ends the streams that it had."""
        self.servers.pop(address, None)
        for way in self._ways.values():
            for end in tuple(way.ends):
                if end.is_server:
                    end.vanish()
                    end._send(None)  # noqa: SLF001  one end of ours and its way

    async def _connect(
        self,
        way: _Way,
        to: Address,
        make_machine: MakeMachine[EventT],
        on_event: OnEvent[EventT],
    ) -> StreamLink[EventT]:
        await asyncio.sleep(2 * self.delay_s)
        is_lost = way.is_cut
        if is_lost:
            await asyncio.sleep(CONNECT_TIMEOUT)
        if not way.is_alive:
            await asyncio.get_running_loop().create_future()  # Nobody is there any more.
        if is_lost:
            raise LinkError(f"{to[0]} port {to[1]}: no answer in {CONNECT_TIMEOUT:g} s")
        server = self.servers.get(to)
        if server is None:
            raise LinkError(f"{to[0]} port {to[1]}: refused")
        self.counters["connections"] += 1
        own = (way.host, self._next_port)
        self._next_port += 1
        near, far = _End(self, way, own, to), _End(self, way, to, own)
        near.twin, far.twin, far.is_server = far, near, True
        way.ends += [near, far]
        there = StreamLink(server.make_machine, server.on_event)
        server.links.append(there)
        there.when_ended(server.links.remove)
        far.link = there
        here = StreamLink(make_machine, on_event)
        near.link = here
        there.connection_made(far)
        here.connection_made(near)
        return here
