"""Run meters: open what the settings name, drive the agent with a socket, stop cleanly.

Raises  ConfigError, StoreUnusable, SourceError, LinkError from `Meter.open`, each one line
Never   decides anything about the conversation: that is the agent's
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
from collections import Counter
from collections.abc import Coroutine, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final, assert_never

import structlog

from amistack import settings as toml
from amistack.errors import AmiError, ConfigError, LinkError
from amistack.identifiers import format_eui64
from amistack.keystore import load_key
from amistack.links import UdpLink
from amistack.links.capture import open_capture
from amistack.links.discovery import DnsSd
from amistack.links.host import Host, observed
from amistack.links.supervision import Supervisor
from amistack.machine import DatagramMachine, Peer
from amistack.model import ClockState, EndDeviceEventType
from amistack.model.diagnosis import Occasion
from amistack.session.credentials import AuthenticationKey
from amistack.session.fleet import encode_public_key, meter_credential
from meterd.access import NetworkAttempts
from meterd.agent import (
    Agent,
    HeadEndWanted,
    Hindered,
    KeyChanged,
    ReadAnswered,
    ReadSent,
    Recovered,
    Registered,
    Reported,
    Schedule,
    Secured,
    StorageDamaged,
    StorageFailed,
)
from meterd.config import Settings
from meterd.display.door import display_door
from meterd.door import DOOR, Door
from meterd.download import Download
from meterd.finding import Finding
from meterd.fittings import Fittings, fit
from meterd.happenings import MeterEvent, PlaceChanged
from meterd.local.snapshot import snapshot_of
from meterd.metrology import Source
from meterd.metrology.resolution import refined
from meterd.metrology.supply import MadeUpSupply
from meterd.oversight import Oversight, clock_of
from meterd.parts import Part
from meterd.programme.declaring import Declaring
from meterd.programme.parts import programme_parts
from meterd.recorder import SOURCE, Recorder
from meterd.service import Service, SimulatedService
from meterd.status import Lately, MeterStatus, SwitchStatus, stall_of, status_of
from meterd.storage import Storage

if TYPE_CHECKING:
    from meterd.gpio.keeper import PinKeeper
    from meterd.home.network import HomeNetwork
    from meterd.local.gate import Gate
    from meterd.local.port import LocalPort
    from meterd.local.settings import LocalSettings
    from meterd.meshing.over_mesh import OverMesh
    from meterd.meshing.settings import MeshSettings
    from meterd.metrology.drivers import Driver
    from meterd.sensor import SensorKeeper

LOG: Final = structlog.get_logger("meterd")
DEFAULT_CONFIG: Final = Path("meterd.toml")


class Meter:
    """One meter at work: its storage, its agent, its socket."""

    def __init__(
        self,
        settings: Settings,
        storage: Storage,
        agent: Agent,
        host: Host,
        sensor: SensorKeeper | None = None,
        *,
        fittings: Fittings,
        oversight: Oversight,
        home: HomeNetwork | None = None,
    ) -> None:
        self.settings = settings
        self.agent = agent
        self.fittings = fittings
        self.oversight = oversight
        self.sensor = sensor
        """The real meter behind this one, if there is one."""
        self._storage = storage
        self._host = host
        self._machine: DatagramMachine[MeterEvent] = agent
        self._over_mesh: OverMesh | None = None
        self._gate: Gate | None = None
        self._local: LocalPort | None = None
        self._home = home
        self._link: UdpLink[MeterEvent] | None = None
        self._lately = Lately()
        self._started = 0.0
        # Only where nobody wrote an address down.
        is_unknown = settings.headend.address is None and settings.mesh is None
        self._finding = Finding() if is_unknown else None
        self._search: asyncio.Task[None] | None = None
        self._log = LOG.bind(meter=format_eui64(settings.meter.eui64))

    @classmethod
    async def open(cls, settings: Settings, *, host: Host | None = None) -> Meter:
        """Everything that `settings` name, ready to start, on this machine or another `host`."""
        host = host or Host()
        meter = settings.meter.eui64
        key = load_key(settings.meter.key, settings.meter.find_secret())
        own = meter_credential(meter, encode_public_key(key.public_key()))
        peer: Peer | None = None
        neighbours: Sequence[Peer] = ()
        if settings.mesh is not None:
            # Only now: a meter on plain IP needs none of it.
            from meterd.meshing.making import find_neighbours
            from meterd.meshing.over_mesh import HEAD_END

            peer, neighbours = HEAD_END, await find_neighbours(settings.mesh)
        elif settings.headend.host_and_port is None:
            host.discovery.require()
        else:
            is_ipv6 = ":" in settings.link.host_and_port[0]
            peer = await _resolve(*settings.headend.host_and_port, is_ipv6=is_ipv6)
        storage = Storage.open(settings.meter.storage)
        try:
            own_key = AuthenticationKey(key, own)
            agent, sensor, fittings, oversight, home = _agent(
                settings, own_key, peer, storage, host
            )
            made = cls(
                settings,
                storage,
                agent,
                host,
                sensor,
                fittings=fittings,
                oversight=oversight,
                home=home,
            )
            if settings.mesh is not None:
                made.join_mesh(settings.mesh, neighbours)
            if settings.local is not None:
                made.add_local_port(settings.local, own_key)
        except BaseException:
            storage.close()
            raise
        return made

    def join_mesh(self, mesh: MeshSettings, neighbours: Sequence[Peer]) -> None:
        """Speak over a node of the mesh instead of a socket of its own. Before `start`."""
        from mesh.lan import Lan
        from meterd.meshing.keeper import NodeKeeper
        from meterd.meshing.making import make_station
        from meterd.meshing.over_mesh import OverMesh

        keeper = NodeKeeper(self._storage)
        station = make_station(self.agent.meter, mesh, keeper, dice=self._host.dice)
        lan = Lan(station, station.node.seal, neighbours, learned=keeper.addresses())
        self._machine = self._over_mesh = OverMesh(self.agent, station, lan, keeper)

    def add_local_port(self, local: LocalSettings, key: AuthenticationKey) -> None:
        """Let field tools in. Before `start`. Raises ConfigError."""
        from meterd.local.gate import Gate, Order, Yielding
        from meterd.local.making import make_local_port

        self._gate = Gate(Order(local.order))
        self._machine = Yielding(self._machine, self._gate)
        self._local = make_local_port(
            local,
            self._gate,
            key=key,
            agent=self.agent,
            fittings=self.fittings,
            storage=self._storage,
            offset_min=self.settings.meter.standard_offset_min,
            host=self._host,
            settle=lambda: None if self._link is None else self._link.settle(),
            log=self._log,
        )

    async def start(self) -> None:
        """Record what is missing, then talk. Raises LinkError, StoreError, SourceError."""
        mesh = self.settings.mesh
        host, port = (self.settings.link if mesh is None else mesh).host_and_port
        self._link = await self._host.open_link(self._machine, self._on_event, host=host, port=port)
        self._started = self._link.now()
        if self._over_mesh is not None:
            self._over_mesh.start(now=self._started)
        self.agent.start(now=self._started)
        self.fittings.start(now=self._started)
        self._link.settle()
        self.fittings.start_pins(
            now=self._link.now, settle=self._link.settle, dice=self._host.dice, log=self._log
        )
        if self.sensor is not None:
            now, clock = self._link.now, self.agent.clock
            self.sensor.start(
                utc=lambda: clock.utc(now()),
                is_time_doubtful=lambda: clock.state_at(now()) is not ClockState.SET,
                dice=self._host.dice,
                log=self._log,
                record=self._record,
            )
        if self._local is not None:
            await self._local.open()
        if self._home is not None:
            await self._home.open(
                self._host.open_link, now=self._link.now, settle=self._link.settle, log=self._log
            )
        self._log.info("meter started", stage=self.agent.stage.value)

    def _record(self, event: EndDeviceEventType, detail: str | None) -> None:
        """Put on record what a sensor tells, and say it. Raises StoreError."""
        assert self._link is not None, "sensors start after the link"
        self.oversight.events.log(event, detail, now=self._link.now())
        self._link.settle()

    def stop(self) -> None:
        """Give everything back. What was said is durable already, so nothing needs waiting for."""
        if self.sensor is not None:
            self.sensor.stop()
        self.abandon()
        self._log.info("meter stopped")

    def abandon(self) -> None:
        """Stop as a kill would: at once, without a word."""
        if self.sensor is not None:
            self.sensor.abandon()
        if self._search is not None:
            self._search.cancel()
        self.fittings.stop()
        if self._gate is not None:
            self._gate.close()
        if self._home is not None:
            self._home.close()
        if self._link is not None:
            self._link.close()
        self._storage.close()

    async def wait_stopped(self) -> None:
        """Until a sensor's device and the pins were given back too."""
        if self.sensor is not None:
            await self.sensor.wait_stopped()
        await self.fittings.wait_stopped()
        if self._local is not None:
            await self._local.close()

    def display_door(self) -> Door:
        """Where its display is seen, not open yet. Only after `start`."""
        assert self._link is not None, "start() comes first"
        return display_door(
            self.settings.meter.storage, self.fittings.viewer, self._link.now, self._link.settle
        )

    def find_stall(self) -> str | None:
        """Why its work stands still, or None while it does not; before the start it does not."""
        return None if self._link is None else stall_of(self.agent, now=self._link.now())

    def status(self) -> MeterStatus:
        """How it is. Only after `start`."""
        assert self._link is not None, "start() comes first"
        return status_of(
            self.agent,
            self._lately,
            now=self._link.now(),
            started=self._started,
            storage=self.settings.meter.storage,
            journal=self._storage.journal,
            link={
                **self._link.counters,
                **({} if self._over_mesh is None else self._over_mesh.counts()),
            },
            sensor=None if self.sensor is None else self.sensor.status(),
            switch=self._switch_status(),
            mesh=None if self._over_mesh is None else self._over_mesh.place(),
            more={
                **self.oversight.counts,
                **({} if self._home is None else self._home.counts),
                **({} if self.fittings.board is None else self.fittings.board.counters),
            },
        )

    def _switch_status(self) -> SwitchStatus | None:
        switch, link = self.fittings.switch, self._link
        if switch is None or link is None:
            return None
        return SwitchStatus.of(switch.state(now=link.now()))

    def _on_event(self, event: MeterEvent) -> None:
        if isinstance(event, PlaceChanged):
            self._log.info("parent changed", parent=event.parent, rank=event.rank)
            return
        if self._link is not None:
            self._lately.take(event, utc=self.agent.clock.utc(self._link.now()))
            self.oversight.take(event, now=self._link.now())
        match event:
            case Secured():
                self._prove()
                self._log.info("session opened")
            case Registered():
                self._prove()
                self._log.info("registered")
            case Reported(day, verdicts):
                self._prove()
                self._log.info("report acknowledged", day=day, verdicts=list(verdicts))
            case ReadSent(number, until, verdicts):
                self._prove()
                self._log.info(
                    "read acknowledged", schedule=number, until=until, verdicts=list(verdicts)
                )
            case ReadAnswered(identifier):
                self._log.info("read answered", read=identifier.hex())
            case Hindered(stage, reason, retry_s, may_be_elsewhere):
                if may_be_elsewhere and self._finding is not None and self._finding.fail():
                    self.agent.forget_head_end_peer()
                self._log.warning(
                    "hindered", stage=stage.value, reason=reason, retry_s=round(retry_s, 1)
                )
            case Recovered():
                self._prove()
                self._log.info("no longer hindered")
            case HeadEndWanted():
                self._find()
            case KeyChanged(id_cred, epoch):
                self._log.info("head-end key changed", key=str(id_cred), epoch=epoch)
            case StorageFailed(reason, retry_s):
                self._log.error("storage failed", reason=reason, retry_s=retry_s)
            case StorageDamaged(lost_octets):
                self._log.error("storage damaged", lost_octets=lost_octets)
            case _:
                assert_never(event)

    # Where the head-end is, if nobody wrote it down

    def _prove(self) -> None:
        if self._finding is not None:
            self._finding.prove()

    def _find(self) -> None:
        """Try the next address that was found, or search."""
        assert self._finding is not None, "an address that was written down is never forgotten"
        if not self._try_next(self._finding) and self._search is None:
            self._search = asyncio.create_task(self._search_for(self._finding))

    async def _search_for(self, finding: Finding) -> None:
        assert self._link is not None, "it is wanted by a link's machine"
        kid = self.agent.trusted_kid.hex()
        reason = "no head-end with this key is announced"
        found: Sequence[Peer] = ()
        self._log.info("searching for the head-end", kid=kid)
        try:
            found = await self._host.discovery.find(kid, host=self._link.address[0])
        except LinkError as error:
            reason = str(error)
        finally:
            self._search = None
        finding.take(found)
        if not self._try_next(finding):
            self.agent.miss_head_end(reason, now=self._link.now())
        self._link.settle()

    def _try_next(self, finding: Finding) -> bool:
        """Whether there is an address to try."""
        assert self._link is not None, "it is wanted by a link's machine"
        peer = finding.next()
        if peer is None:
            return False
        self._log.info("trying a head-end", address=str(peer))
        self.agent.set_head_end_peer(peer, now=self._link.now())
        return True


def _agent(
    settings: Settings, key: AuthenticationKey, peer: Peer | None, storage: Storage, host: Host
) -> tuple[Agent, SensorKeeper | None, Fittings, Oversight, HomeNetwork | None]:
    meter = settings.meter.eui64
    offset_min = settings.meter.standard_offset_min
    # A replay's shift is fixed once: after a restart its days must stay where they were.
    today = storage.note("today")
    if today is None:
        today = str(int(host.wall()))
        storage.keep_note("today", today)
    register_start = settings.meter.register_start
    # Both loops count on this clock; but uvloop's own reading of it may be from long before.
    clock = clock_of(storage, utc=host.wall(), now=host.monotonic())
    driver: Driver | None = None
    service: Service | None = None
    source: Source
    metrology, interval_s = refined(settings.metrology)
    if metrology.is_live:
        driver = metrology.open_driver(
            offset_min=offset_min,
            today=int(today),
            register_start=register_start,
            kept=storage.note(SOURCE),
        )
        source = driver.sensor.source
    else:
        source = metrology.open(
            offset_min=offset_min, today=int(today), default_seed=int.from_bytes(meter, "big")
        )
        simulated = SimulatedService(storage, source, utc=clock.utc, offset_min=offset_min)
        service, source = simulated, simulated.source
    pins: PinKeeper | None = None
    if settings.pins is not None:
        from meterd.gpio.keeper import open_pins

        power = None if driver is None else driver.sensor.power
        pins = open_pins(settings.pins, is_live=metrology.is_live, power=power)
        service = pins.service or service
    recorder = Recorder(
        storage,
        source,
        offset_min=offset_min,
        register_start=register_start,
        interval_s=interval_s,
        supply=MadeUpSupply(source) if driver is None else driver.sensor.supply,
    )
    sensor: SensorKeeper | None = None
    if driver is not None:
        # Only now: a street of made-up households needs none of it.
        from meterd.sensor import SensorKeeper

        sensor = SensorKeeper(driver, recorder)

    oversight = Oversight(
        meter=meter,
        storage=storage,
        clock=clock,
        recorder=recorder,
        source=source,
        offset_min=offset_min,
        folder=settings.meter.storage,
        dice=host.dice,
        now=host.monotonic(),
    )
    fittings = fit(
        meter=meter,
        storage=storage,
        clock=clock,
        recorder=recorder,
        source=source,
        service=service,
        offset_min=offset_min,
        log=oversight.events.door(host.monotonic),
        sources=oversight.sources,
        pins=pins,
        board=settings.board,
    )
    home_parts: tuple[Part, ...] = ()
    home: HomeNetwork | None = None
    if settings.home is not None:
        from meterd.home.making import make_home

        home, home_parts = make_home(
            settings.home, storage, clock, log=oversight.events.log, dice=host.dice
        )
    attempts = NetworkAttempts(log=oversight.events.log)
    download = Download(log=oversight.events.log)
    schedule = settings.schedule
    agent = Agent(
        meter=meter,
        key=key,
        head_end=settings.headend.trust,
        head_end_peer=peer,
        storage=storage,
        recorder=recorder,
        clock=clock,
        schedule=Schedule(
            schedule.report_delay_s,
            schedule.report_spread_s,
            schedule.start_spread_s,
            schedule.catch_up_s,
        ),
        offset_min=offset_min,
        entropy=host.entropy,
        dice=host.dice,
        parts=(
            *oversight.parts,
            *fittings.parts,
            *home_parts,
            attempts,
            download,
            *programme_parts(
                storage,
                recorder,
                clock,
                offset_min=offset_min,
                log=oversight.events.log,
                on_change=oversight.follow_programme,
            ),
        ),
        voices=(
            *oversight.voices,
            Declaring(storage, recorder, clock, meter=meter, dice=host.dice),
        ),
        log=oversight.events.log,
        self_test=lambda now: oversight.diagnosis.look(Occasion.DEMAND, now=now),
    )
    attempts.watch(lambda: agent.refused)
    download.serve(snapshot_of(agent, fittings, storage, offset_min=offset_min).parts)
    return agent, sensor, fittings, oversight, home


def load_settings(path: Path) -> Settings:
    """The settings in the file at `path`. Raises ConfigError."""
    with contextlib.suppress(OSError):  # What else is wrong with the path is said below.
        if not path.exists():
            raise ConfigError(f"{path} is missing: `meterd init` makes one")
    return toml.load(path, Settings)


async def run(
    files: list[Path], *, capture: Path | None = None, street: Path | None = None
) -> None:
    """Run the meters of those settings files until SIGTERM or SIGINT.

    What they send and receive goes to the file `capture`, if there is one. How they are is told at
    a door in the folder `street`, or else in the first meter's storage; and to the service manager,
    if one asks for it. Raises what `open_capture`, `Meter.open` and `Meter.start` raise; the meters
    that run already are stopped then.
    """
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    meters: list[Meter] = []
    started: list[Meter] = []
    door: Door | None = None
    display: Door | None = None
    supervisor = Supervisor.from_environment()
    kept = None if capture is None else open_capture(capture)
    discovery = DnsSd()
    host = Host(open_link=observed(None if kept is None else kept.observe), discovery=discovery)
    try:
        for file in files:
            settings = load_settings(file)
            with _named(file):
                meter = await Meter.open(settings, host=host)
                meters.append(meter)
                if door is None:
                    door = await _open_door(street or settings.meter.storage, started)
                await meter.start()
                started.append(meter)
                if len(files) == 1:
                    display = await _open_display(meter)
            # Let those that run already talk while the next takes up its history.
            await asyncio.sleep(0)
            if stopping.is_set():
                return
        supervisor.tell_ready(_summary(started))
        supervisor.watch(lambda: _find_stall(started), lambda: _summary(started))
        await stopping.wait()
    finally:
        supervisor.tell_stopping()
        supervisor.close()
        for one in (door, display):
            if one is not None:
                await one.close()
        for meter in meters:
            meter.stop()
        for meter in meters:
            await meter.wait_stopped()
        await discovery.close()
        if kept is not None:
            kept.close()


async def _open_door(folder: Path, meters: list[Meter]) -> Door | None:
    """The door at which `meters` say how they are; a meter does its work without one, too."""
    door = Door(folder / DOOR, lambda: (meter.status().to_json() for meter in tuple(meters)))
    try:
        await door.open()
    except LinkError as error:
        LOG.warning("no status to be had", reason=str(error))
        return None
    return door


async def _open_display(meter: Meter) -> Door | None:
    """The door of a meter's display; it works without one, too."""
    door = meter.display_door()
    try:
        await door.open()
    except LinkError as error:
        LOG.warning("no display to be had", reason=str(error))
        return None
    return door


def _find_stall(meters: list[Meter]) -> str | None:
    return next((stall for meter in meters if (stall := meter.find_stall()) is not None), None)


def _summary(meters: list[Meter]) -> str:
    """The line that the service manager shows."""
    stages = Counter(meter.agent.stage.value for meter in meters)
    told = ", ".join(f"{count} {stage}" for stage, count in sorted(stages.items()))
    owed = sum(meter.agent.owed_count for meter in meters)
    return f"{told}; {owed} days owed"


def run_forever(main: Coroutine[None, None, None]) -> None:
    """Run a program on uvloop where there is one, on asyncio's own loop elsewhere."""
    try:
        import uvloop
    except ImportError:
        LOG.info("uvloop is not installed, running on asyncio's own loop")
        asyncio.run(main)
    else:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(main)


@contextlib.contextmanager
def _named(file: Path) -> Iterator[None]:
    """Say with every error inside which meter's it is: a street has many."""
    try:
        yield
    except AmiError as error:
        raise type(error)(f"{file}: {error}") from error


async def _resolve(host: str, port: int, *, is_ipv6: bool) -> Peer:
    """The socket address of the head-end, as datagrams will come from it. Raises ConfigError."""
    family, other = (socket.AF_INET6, "IPv6") if is_ipv6 else (socket.AF_INET, "IPv4")
    found = []
    with contextlib.suppress(OSError, ValueError):
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_DGRAM)
    if not found:
        raise ConfigError(f"headend.address: {host!r} is not known to the name service")
    for kind, _, _, _, address in found:
        if kind == family:
            return address
    listen = "0.0.0.0:0" if is_ipv6 else "[::]:0"
    raise ConfigError(
        f"headend.address: {host!r} has no {other} address; link.listen = {listen!r} may help"
    )
