"""Run a collector: its radio a UDP socket, its backhaul TCP, until SIGTERM.

Raises  ConfigError, StoreUnusable, LinkError from `CollectorDaemon.open` and `start`, each one line
Never   decides anything about routes: that is the machine's
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import structlog

from amistack import settings as toml
from amistack.errors import LinkError, StoreError
from amistack.identifiers import format_eui64
from amistack.links import UdpLink
from amistack.links.capture import open_capture
from amistack.links.host import Host, observed
from amistack.links.streams import KeptLink, StreamLink
from amistack.links.supervision import Supervisor
from amistack.links.tcp import Tls, keep_tcp
from amistack.machine import Peer
from mesh.collector.collector import Collector
from mesh.collector.events import BackhaulChanged, Event
from mesh.lan import Lan
from meterd.door import DOOR, Door
from meterd.meshing.collector_settings import CollectorSettings
from meterd.meshing.keeper import NodeKeeper
from meterd.meshing.making import RadioTraits, find_neighbours, make_station
from meterd.meshing.serving import Serving
from meterd.meshing.status import CollectorStatus, collector_status
from meterd.status import stall_of
from meterd.storage import Storage

LOG: Final = structlog.get_logger("meterd")


class _Backhaul:
    """One connection to the head-end, as the machine that a stream link drives.

    All is the collector's; only the connection's end is this one's own.
    """

    def __init__(self, serving: Serving, turn: asyncio.Event, *, now: float) -> None:
        self._serving = serving
        self._turn = turn
        self._is_over = False
        try:
            serving.backhaul_opened(now=now)
        except StoreError as error:
            LOG.error("backhaul not opened", reason=str(error))
            self._is_over = True

    @property
    def is_over(self) -> bool:
        return self._is_over or self._serving.collector.line.is_over

    def receive_data(self, data: bytes, *, now: float) -> None:
        self._serving.backhaul_received(data, now=now)
        self._turn.set()

    def handle_timer(self, *, now: float) -> None:
        """The radio's link wakes the collector for both."""

    def data_to_send(self, room: int | None = None) -> list[bytes]:
        return self._serving.backhaul_data(room)

    def events(self) -> list[object]:
        return []

    def next_timer(self) -> float | None:
        return None

    def close(self, *, now: float) -> None:
        self._serving.collector.line.close(now=now)
        self._is_over = True

    def end(self, *, now: float) -> None:
        self._is_over = True
        self._serving.backhaul_lost(now=now)
        self._turn.set()


class CollectorDaemon:
    """One collector at work: its storage, its machine, its two links."""

    def __init__(
        self, settings: CollectorSettings, storage: Storage, serving: Serving, host: Host
    ) -> None:
        self.settings = settings
        self.serving = serving
        self._storage = storage
        self._host = host
        self._tls: Tls | None = None
        self._radio: UdpLink[BackhaulChanged] | None = None
        self._kept: KeptLink[object] | None = None
        self._turn = asyncio.Event()
        self._turning: asyncio.Task[None] | None = None
        self._started = self._backhaul_since = 0.0
        self._log = LOG.bind(collector=format_eui64(settings.collector.eui64))

    @classmethod
    async def open(
        cls, settings: CollectorSettings, *, host: Host | None = None
    ) -> CollectorDaemon:
        """Everything that `settings` name, ready to start, on this machine or another `host`."""
        host = host or Host()
        tls = settings.backhaul.make_tls()
        neighbours = await find_neighbours(settings.mesh)
        storage = Storage.open(settings.collector.storage)
        try:
            keeper = NodeKeeper(storage)
            station = make_station(
                settings.collector.eui64,
                settings.mesh,
                keeper,
                dice=host.dice,
                dodag_id=settings.collector.dodag_octets,
                radio=cls.radio_of(host),
            )
            collector = Collector(
                station,
                settings.collector.area,
                epoch=keeper.epoch,
                hop_limit=settings.mesh.load_profile().links.hop_limit,
            )
            lan = cls.make_lan(collector, neighbours, keeper, host)
        except BaseException:
            storage.close()
            raise
        daemon = cls(settings, storage, Serving(collector, lan, keeper, utc=host.wall), host)
        daemon._tls = tls
        return daemon

    @classmethod
    def radio_of(cls, host: Host) -> RadioTraits:  # noqa: ARG003  for those of another world
        """What the node has to know of its radio."""
        return RadioTraits()

    @classmethod
    def make_lan(
        cls,
        collector: Collector,
        neighbours: Sequence[Peer],
        keeper: NodeKeeper,
        host: Host,  # noqa: ARG003  for those of another world
    ) -> Lan[Event]:
        """What carries its frames."""
        seal = collector.station.node.seal
        return Lan(collector, seal, neighbours, learned=keeper.addresses())

    @property
    def address(self) -> tuple[str, int]:
        """Where its radio listens. Only after `start`."""
        assert self._radio is not None, "start() comes first"
        return self._radio.address

    async def start(self) -> None:
        """Take part in the mesh, and look for the head-end. Raises LinkError, StoreError."""
        host, port = self.settings.mesh.host_and_port
        self._radio = await self._host.open_link(self.serving, self._tell, host=host, port=port)
        self._started = self._backhaul_since = self._radio.now()
        self.serving.start(now=self._started)
        self._radio.settle()
        to, at = self.settings.backhaul.host_and_port
        keep = self._host.keep_stream or keep_tcp
        self._kept = keep(
            lambda _, *, now: _Backhaul(self.serving, self._turn, now=now),
            _ignore,
            host=to,
            port=at,
            dice=self._host.dice,
            tls=self._tls,
            on_down=self._on_down,
        )
        self.serving.when_turned = self._settle_backhaul
        self._turning = asyncio.create_task(self._turn_radio())
        self._log.info("collector started", area=self.settings.collector.area)

    def find_stall(self) -> str | None:
        """Why its work stands still, or None while it does not; before the start it does not."""
        return None if self._radio is None else stall_of(self.serving, now=self._radio.now())

    def status(self) -> CollectorStatus:
        """How it is. Only after `start`."""
        assert self._radio is not None, "start() comes first"
        return collector_status(
            self.serving.collector,
            area=self.settings.collector.area,
            epoch=self.serving.epoch,
            head_end=self.settings.backhaul.address,
            now=self._radio.now(),
            utc=self._host.wall(),
            started=self._started,
            backhaul_since=self._backhaul_since,
            stall=self.find_stall(),
            counters=self.serving.counts() | self._radio.counters,
        )

    async def stop(self) -> None:
        """Take leave of the head-end, and give everything back."""
        self.serving.when_turned = None
        if self._kept is not None:
            await self._kept.close()
        self.abandon()
        self._log.info("collector stopped")

    def abandon(self) -> None:
        """Stop as a kill would: at once, without a word."""
        if self._turning is not None:
            self._turning.cancel()
        if self._radio is not None:
            self._radio.close()
        self._storage.close()

    def _settle_backhaul(self) -> None:
        link = None if self._kept is None else self._kept.link
        if link is not None:
            link.settle()

    async def _turn_radio(self) -> None:
        """What came over the backhaul may have something for the radio."""
        while True:
            await self._turn.wait()
            self._turn.clear()
            assert self._radio is not None, "the radio is opened first"
            self._radio.settle()

    def _tell(self, event: BackhaulChanged) -> None:
        if self._radio is not None:
            self._backhaul_since = self._radio.now()
        if event.is_up:
            self._log.info("accepted by the head-end")
        else:
            self._log.warning("backhaul down", detail=event.detail)

    def _on_down(self, error: LinkError | None, wait: float) -> None:
        reason = "the connection ended" if error is None else str(error)
        self._log.warning("no connection to the head-end", reason=reason, retry_s=round(wait, 1))


async def _open_door(daemon: CollectorDaemon) -> Door | None:
    """The door at which it says how it is; it does its work without one, too."""
    door = Door(daemon.settings.collector.storage / DOOR, lambda: (daemon.status().to_json(),))
    try:
        await door.open()
    except LinkError as error:
        LOG.warning("no status to be had", reason=str(error))
        return None
    return door


def _ignore(link: StreamLink[object], event: object) -> None:
    """A connection has no events of its own."""


def load_settings(path: Path) -> CollectorSettings:
    """The settings in the file at `path`. Raises ConfigError."""
    return toml.load(path, CollectorSettings)


async def run(file: Path, *, capture: Path | None = None) -> None:
    """Run the collector of that settings file until SIGTERM or SIGINT.

    Its frames go to the file `capture`, if there is one. Raises what `open_capture`, `open` and
    `start` raise.
    """
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    supervisor = Supervisor.from_environment()
    settings = load_settings(file)
    kept = None if capture is None else open_capture(capture)
    host = Host(open_link=observed(None if kept is None else kept.observe))
    daemon = await CollectorDaemon.open(settings, host=host)
    door: Door | None = None
    try:
        await daemon.start()
        door = await _open_door(daemon)
        supervisor.tell_ready("serving")
        await stopping.wait()
    finally:
        supervisor.tell_stopping()
        supervisor.close()
        if door is not None:
            await door.close()
        await daemon.stop()
        if kept is not None:
            kept.close()
