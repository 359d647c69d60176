"""A running meter's local port: a serial line that is kept open, or TCP connections.

Raises  ConfigError at birth; LinkError from `open` where the address cannot be had
Limit   one tool on a serial line, CONNECTION_COUNT_MAX over TCP
Never   ends because of what a tool or a line does
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import structlog

from amistack.addresses import parse_address
from amistack.errors import LinkError, StoreError
from amistack.framing import SERIAL, TCP, Carrier
from amistack.identifiers import Eui64
from amistack.links.serial import keep_serial
from amistack.links.streams import KeptLink, StreamLink
from amistack.links.tcp import TcpServer, open_tcp_server
from amistack.model import EndDeviceEventType
from amistack.model.dump import DumpPart
from amistack.model.resources import DUMP
from amistack.session.credentials import AuthenticationKey
from meterd.local.dumping import DUMPED, DumpResource
from meterd.local.framed import FramedStation
from meterd.local.gate import Gate
from meterd.local.settings import LocalSettings
from meterd.local.station import LocalStation, OnAccess
from meterd.local.tools import CHANGER, PROGRAMMER, READER, VIEWER, tools_of
from meterd.parts import Resource

DEFAULT_PORT: Final = 5690
CONNECTION_COUNT_MAX: Final = 4
RUN_MAX: Final = 2**32 - 1


class LocalPort:
    """One meter's."""

    def __init__(
        self,
        settings: LocalSettings,
        *,
        meter: Eui64,
        key: AuthenticationKey,
        resources: Sequence[Resource],
        take_dump: Callable[[float], Iterator[DumpPart]],
        gate: Gate,
        on_access: OnAccess,
        record: Callable[[EndDeviceEventType, str | None], None],
        settle: Callable[[], None],
        entropy: Callable[[int], bytes],
        dice: random.Random,
        log: structlog.typing.FilteringBoundLogger,
    ) -> None:
        """`settle` is called after whatever a tool has done: it may have woken something."""
        self._settings = settings
        self._meter = meter
        self._key = key
        self._tools = tools_of(
            {
                VIEWER: settings.viewers,
                READER: settings.readers,
                PROGRAMMER: settings.programmers,
                CHANGER: settings.changers,
            }
        )
        self._resources = resources
        self._take_dump = take_dump
        self._gate = gate
        self._on_access = on_access
        self._record = record
        self._settle = settle
        self._entropy = entropy
        self._dice = dice
        self._log = log
        self._server: TcpServer[None] | None = None
        self._line: KeptLink[None] | None = None

    async def open(self) -> None:
        """Wait for tools from now on. Raises LinkError, ConfigError."""
        settings = self._settings
        if settings.listen is not None:
            host, port = parse_address(settings.listen, default_port=DEFAULT_PORT, what="listen")
            self._server = await open_tcp_server(
                self._make(TCP),
                self._ignore,
                host=host,
                port=port,
                connection_count_max=CONNECTION_COUNT_MAX,
                connection_count_per_host_max=CONNECTION_COUNT_MAX,
            )
            return
        assert settings.device is not None, "it was checked"
        self._line = keep_serial(
            self._make(SERIAL),
            self._ignore,
            path=settings.device,
            baud_rate=settings.baud_rate,
            dice=self._dice,
            on_down=self._on_down,
        )

    @property
    def address(self) -> tuple[str, int] | None:
        """Where tools come in over TCP."""
        return None if self._server is None else self._server.address

    async def close(self) -> None:
        """Give everything back."""
        if self._server is not None:
            await self._server.close()
        if self._line is not None:
            await self._line.close()

    def _make(self, carrier: Carrier) -> Any:
        """What makes the machine of a new line."""

        def make(_: StreamLink[None], *, now: float) -> FramedStation[None]:
            run = self._dice.randint(1, RUN_MAX)
            return FramedStation(self._meter, carrier, self._station(), now=now, run=run)

        return make

    def _station(self) -> LocalStation:
        dump = DumpResource(self._take_dump, on_dump=self._note_dump)
        return LocalStation(
            key=self._key,
            tools=self._tools,
            resources=[*(one for one in self._resources if one.path != DUMP), dump],
            gate=self._gate,
            on_access=self._note,
            on_answer=self._settle,
            on_leave=dump.forget,
            entropy=self._entropy,
            dice=self._dice,
        )

    def _note(self, who: str, *, is_granted: bool, now: float) -> None:
        self._log.info("field tool", who=who, is_granted=is_granted)
        self._on_access(who, is_granted=is_granted, now=now)

    def _note_dump(self, _: float) -> None:
        self._log.info("dump taken by a field tool")
        try:
            self._record(DUMPED, "field tool")
        except StoreError as error:
            self._log.error("log entry lost", event_type=str(DUMPED), reason=str(error))

    def _on_down(self, error: LinkError | None, wait: float) -> None:
        reason = "it ended" if error is None else str(error)
        self._log.warning("no local port", reason=reason, retry_s=round(wait, 1))

    def _ignore(self, _: StreamLink[None], __: None) -> None:
        """A station has nothing to tell."""
