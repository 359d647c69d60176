"""Makes the programs of a world's nodes: a real meter or a real collector for each, on the air.

Gives   `Homes`, what `mesh.sim.world` asks of a router: a node is a program with a disk of its own,
        which outlives its power
Never   decides how a node routes, or what a meter says
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from amistack.identifiers import Eui64, format_eui64
from amistack.keystore import save_key
from interop.simulate.head_end import BACKHAUL, Entropy
from interop.world.air import AirCollector, AirHost, AirMeter, OnAir
from interop.world.clock_loop import at_once
from interop.world.streams import Streams
from interop.world.world import world_key
from mesh.fragments import FragmentSettings
from mesh.routing.node import MeshNode
from mesh.routing.profile import load_profile
from mesh.sim.machine import NodeMachine
from mesh.sim.nodes import CIPHERS, KEY_INDEX, NETWORK_KEY
from mesh.sim.scenario import Scenario, radio_of
from mesh.sim.stations import Stations
from mesh.station.station import Station
from meterd.daemon import load_settings
from meterd.meshing.collector_settings import BackhaulSettings, CollectorNode, CollectorSettings
from meterd.meshing.making import RadioTraits
from meterd.meshing.settings import MeshSettings
from meterd.provision import KEY_FILE, Identity, Template, provision
from meterd.recorder import RECORDED_UNTIL
from meterd.storage import Storage

AREA: Final = 1
OFFSET: Final = "-01:00"
OFFSET_MIN: Final = -60
"""A world begins at midnight UTC, and so an hour before its meters' first midnight."""
REPORT_DELAY_S: Final = 60
REPORT_SPREAD_S: Final = 1800
CATCH_UP_S: Final = 60


@dataclass(slots=True)
class Home:
    """A node's disk, and its program while it has power."""

    folder: Path
    identity: Identity | None = None
    short: int = 0
    on_air: OnAir | None = None
    meter: AirMeter | None = None
    collector: AirCollector | None = None


@dataclass(slots=True)
class Homes:
    """`mesh.sim.router.Router` with real programs. `stations` are the world's, set by the world."""

    addresses: Sequence[Eui64]
    scenario: Scenario
    folder: Path
    seed: int
    streams: Streams
    utc: Callable[[], float]
    entropy: Callable[[str], Entropy]
    stations: Stations = field(init=False)
    homes: list[Home] = field(init=False)
    radio: RadioTraits = field(init=False)
    queue_bound: int = field(init=False)
    _lives: int = 0

    def __post_init__(self) -> None:
        self.homes = [Home(self.folder / f"node-{n}") for n in range(len(self.addresses))]
        scenario = self.scenario
        radio = radio_of(scenario)
        self.radio = RadioTraits(
            radio.sensitivity_dbm,
            CIPHERS[scenario.cipher],
            FragmentSettings.where_needed(radio.frame_octets_max, overhead=radio.mac_octets),
        )
        profile = load_profile(scenario.profile)
        # As of any simulated node: eight queues, what waits for a way up, the one in flight.
        self.queue_bound = 9 * profile.links.queue_count_max + 1

    # Disks

    def furnish_collector(self, number: int, *, short: int) -> None:
        """Give a collector its network key and address."""
        home = self.homes[number]
        home.short = short
        home.folder.mkdir(parents=True)
        self._write_network_key(home)

    def furnish_meter(self, number: int, *, head_end_key: bytes) -> Identity:
        """Give a meter its identity and settings, all but its address in the mesh."""
        home = self.homes[number]
        home.folder.mkdir(parents=True)
        save_key(home.folder / KEY_FILE, world_key(self.seed, number + 1))
        catch_up_s = max(CATCH_UP_S, 2 * self.scenario.settlement.meters)
        template = Template(
            public_key=head_end_key.hex(),
            standard_offset=OFFSET,
            metrology=('source = "profile"', f"seed = {household(self.seed, number)}"),
            schedule=(
                f"report_delay_s = {REPORT_DELAY_S}",
                f"report_spread_s = {REPORT_SPREAD_S}",
                f"catch_up_s = {min(catch_up_s, 3600)}",
            ),
        )
        home.identity = provision(home.folder, template, meter=self.addresses[number])
        self._write_network_key(home)
        return home.identity

    def place_meter(self, number: int, *, short: int, mounted_at: int) -> None:
        """Write its address into its settings; its record begins at `mounted_at`, UTC s."""
        home = self.homes[number]
        home.short = short
        file = home.folder / "meterd.toml"
        table = (
            f"\n[mesh]\nshort = {short}\nkey_index = {KEY_INDEX}\n"
            f'profile = "{self.scenario.profile}"\n'
        )
        file.write_text(file.read_text(encoding="utf-8") + table, encoding="utf-8")
        storage = Storage.open(load_settings(file).meter.storage)
        storage.keep_note(RECORDED_UNTIL, str(mounted_at))
        storage.close()

    def _write_network_key(self, home: Home) -> None:
        key = home.folder / "network-key"
        key.touch(mode=0o600)
        key.write_text(NETWORK_KEY.hex() + "\n", encoding="utf-8")

    # What the world asks of a router

    def make(self, number: int, *, is_root: bool, chance: random.Random, now: float) -> NodeMachine:
        """A new life of node `number`, with what its disk has."""
        del now
        self._lives += 1
        home = self.homes[number]
        on_air = OnAir(number, self.stations, has_backhaul=is_root)
        home.on_air = on_air
        host = AirHost(
            wall=self.utc,
            monotonic=on_air.now,
            entropy=self.entropy(f"node.{number}.{self._lives}"),
            dice=chance,
            open_link=on_air.open_link,
            keep_stream=self.streams.keeper(host_of(number)) if is_root else None,
            on_air=on_air,
            radio=self.radio,
        )
        if is_root:
            collector = at_once(AirCollector.open(self._collector_settings(number), host=host))
            assert isinstance(collector, AirCollector), "opened as one"
            home.collector = collector
            at_once(collector.start())
        else:
            meter = at_once(AirMeter.open(load_settings(home.folder / "meterd.toml"), host=host))
            assert isinstance(meter, AirMeter), "opened as one"
            home.meter = meter
            at_once(meter.start())
        return on_air

    def stopped(self, number: int, machine: NodeMachine) -> None:
        """The node loses power: what is on its disk is all that stays."""
        del machine
        home = self.homes[number]
        if home.meter is not None:
            home.meter.abandon()
        if home.collector is not None:
            self.streams.kill(host_of(number))
            home.collector.abandon()
        home.meter = home.collector = home.on_air = None

    def send(self, *_: object, **__: object) -> bool:
        """Refused: programs alone send, not the world."""
        raise AssertionError("programs send, not the world")

    def take(self, number: int, machine: NodeMachine, event: object) -> tuple[int, bytes] | None:
        """Nothing: the program has heard of it."""
        del number, machine, event
        return None

    def parents(self, machine: NodeMachine) -> Sequence[int]:
        """Whom the node sends upward to, the preferred first."""
        numbers = self.stations.numbers
        return [numbers[address] for address in node_of(machine).parent_set]

    def route(self, root: NodeMachine, number: int, *, now: float) -> Sequence[int] | None:
        """The nodes that a packet from this root crosses, `number` last; None if unknown."""
        relays = node_of(root).route_to(self.homes[number].short, now=now)
        if relays is None:
            return None
        by_short = {home.short: n for n, home in enumerate(self.homes)}
        return [*(by_short[relay] for relay in relays), number]

    def set_ground(self, root: NodeMachine, *, has_ground: bool, now: float) -> None:
        """Nothing: the collector sees by itself whether it has a connection."""

    def queue_share(self, machine: NodeMachine) -> float:
        """How full all queues of the node together are, 1 being their bound."""
        return node_of(machine).queue_length / self.queue_bound

    def _collector_settings(self, number: int) -> CollectorSettings:
        home = self.homes[number]
        return CollectorSettings(
            CollectorNode(
                format_eui64(self.addresses[number]), AREA, DODAG, home.folder / "collector-data"
            ),
            MeshSettings(
                short=home.short,
                network_key=home.folder / "network-key",
                key_index=KEY_INDEX,
                profile=self.scenario.profile,
            ),
            BackhaulSettings(f"{BACKHAUL[0]}:{BACKHAUL[1]}", plain=True),
        )


DODAG: Final = "fd000000000000000000000000000001"
"""Of every simulated area, as a capture of its frames expects."""


def household(seed: int, number: int) -> int:
    """Which made-up household lives behind a meter."""
    return (seed * 20_011 + number) % 2**31


def host_of(number: int) -> str:
    """Where a collector is, for its backhaul."""
    return f"10.1.{number // 250}.{number % 250 + 1}"


def node_of(machine: NodeMachine) -> MeshNode:
    """The router in a program on the air."""
    assert isinstance(machine, OnAir), "made by Homes"
    return station_of(machine).node


def station_of(on_air: OnAir) -> Station:
    """The node at work in a program on the air."""
    node = on_air.node
    station = node if isinstance(node, Station) else getattr(node, "station", None)
    assert isinstance(station, Station), "a station, or a collector's"
    return station
