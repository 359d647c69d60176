"""The real head-end and real meters in one thread on a virtual clock, with faults from one dice.

Gives   `World`: programs that can be killed and started again where they were, UTC that can be off,
        a network that can be foul; everything that happens follows from the seed
Never   looks into a program: what it did is judged from its store and from the datagrams
"""

from __future__ import annotations

import asyncio
import hashlib
import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric import ec

from amistack.identifiers import Eui64, format_eui64
from amistack.keystore import save_key
from amistack.links.host import Host
from amistack.session.credentials import AuthenticationKey
from amistack.session.fleet import encode_public_key, head_end_credential
from headend.collection.on_demand import OnDemandReads
from headend.collection.recovery import Recovery
from headend.domain.meters import Meter as EnrolledMeter
from headend.domain.meters import MeterState
from headend.domain.readings import OnDemandRead
from headend.southbound.service import Southbound
from headend.store.interface import EnrolMeters
from headend.store.sqlite import SqliteStore
from interop.world.loop import START
from interop.world.network import PERFECT, Network, Quality
from meterd.daemon import Meter, load_settings
from meterd.provision import KEY_FILE, Identity, Template, provision

HEAD_END: Final = ("10.0.0.1", 5683)
POLL_S: Final = 5.0


@dataclass(slots=True)
class HeadEndNode:
    """The head-end's side of the world: what survives a kill is the file."""

    store: SqliteStore
    southbound: Southbound
    reads: OnDemandReads
    recovery: Recovery


@dataclass(slots=True)
class MeterNode:
    """A meter of the world; `meter` is None while it is down."""

    identity: Identity
    folder: Path
    address: str
    clock_error_s: float = 0.0
    meter: Meter | None = None


@dataclass(slots=True)
class World:
    """A head-end and its meters. Make one inside `run_virtually`."""

    seed: int
    folder: Path
    begins_at: float
    """UTC at the world's beginning."""
    quality: Quality = PERFECT
    dice: random.Random = field(init=False)
    network: Network = field(init=False)
    head_end: HeadEndNode | None = None
    meters: list[MeterNode] = field(default_factory=list)
    _entropy_count: int = 0

    def __post_init__(self) -> None:
        self.dice = random.Random(self.seed)
        self.network = Network(random.Random(self.seed + 1), self.quality)

    # Time and chance, as programs see them

    def utc(self) -> float:
        """True UTC."""
        return self.begins_at + asyncio.get_running_loop().time() - START

    def entropy(self, size: int) -> bytes:
        """Octets that nobody draws twice, the same in every run of a seed."""
        self._entropy_count += 1
        return hashlib.shake_256(f"{self.seed} {self._entropy_count}".encode()).digest(size)

    def _wall(self, node: MeterNode) -> Callable[[], float]:
        return lambda: self.utc() + node.clock_error_s

    # The programs

    async def start_head_end(self) -> None:
        """Start the head-end on what its file holds."""
        private_key = world_key(self.seed, 0)
        public_key = encode_public_key(private_key.public_key())
        key = AuthenticationKey(private_key, head_end_credential(public_key))
        store = SqliteStore.open(self.folder / "headend.sqlite", is_threaded=False, wall=self.utc)
        southbound = Southbound(
            key=key,
            store=store,
            entropy=self.entropy,
            dice=random.Random(self.dice.random()),
            wall=self.utc,
            open_link=self.network.open,
        )
        reads = OnDemandReads(store=store, asker=southbound, entropy=self.entropy, wall=self.utc)
        await reads.start()
        recovery = Recovery(store=store, asker=southbound, wall=self.utc)
        await recovery.start()
        southbound.on_heard = recovery.heard
        await southbound.start(*HEAD_END)
        self.head_end = HeadEndNode(store, southbound, reads, recovery)

    async def kill_head_end(self) -> None:
        """End it as SIGKILL would: what is not committed is gone."""
        node = self.head_end
        assert node is not None, "it runs"
        self.head_end = None
        node.recovery.stop()
        node.southbound.abandon()
        node.store.abandon()
        await node.southbound.stop()

    async def add_meter(self, metrology: tuple[str, ...]) -> MeterNode:
        """A new meter, enrolled and not started yet."""
        number = len(self.meters)
        folder = self.folder / f"meter-{number}"
        template = Template(
            address=f"{HEAD_END[0]}:{HEAD_END[1]}",
            public_key=encode_public_key(world_key(self.seed, 0).public_key()).hex(),
            metrology=metrology,
            schedule=("report_delay_s = 60", "report_spread_s = 600", "start_spread_s = 5"),
        )
        folder.mkdir(parents=True)
        save_key(folder / KEY_FILE, world_key(self.seed, number + 1))
        meter = Eui64(
            bytes((0x02, 0, 0, 0))
            + (self.seed & 0xFFFF).to_bytes(2, "big")
            + bytes((0, number + 1))
        )
        identity = provision(folder, template, meter=meter)
        node = MeterNode(identity, folder, f"10.0.1.{number + 1}")
        config = folder / "meterd.toml"
        listen = f'\n[link]\nlisten = "{node.address}:5683"\n'
        config.write_text(config.read_text() + listen, encoding="utf-8")
        assert self.head_end is not None, "a head-end enrols"
        await self.head_end.store.commit(
            EnrolMeters(
                (
                    EnrolledMeter(
                        identity.meter,
                        identity.public_key,
                        MeterState.ENROLLED,
                        int(self.utc()),
                    ),
                )
            )
        )
        self.meters.append(node)
        return node

    def copy_meter(self, node: MeterNode, address: str) -> MeterNode:
        """A second device with all that is stored of a meter which is down, not started yet.

        It is none of `meters`: nobody waits for its reports.
        """
        assert node.meter is None, "what a running meter writes is not whole"
        folder = node.folder.with_name(f"{node.folder.name}-copy")
        shutil.copytree(node.folder, folder)
        config = folder / "meterd.toml"
        text = config.read_text(encoding="utf-8").replace(f'"{node.address}:', f'"{address}:')
        config.write_text(text, encoding="utf-8")
        return MeterNode(node.identity, folder, address, node.clock_error_s)

    async def start_meter(self, node: MeterNode) -> None:
        """Start a meter on what its storage holds."""
        host = Host(
            wall=self._wall(node),
            monotonic=asyncio.get_running_loop().time,
            entropy=self.entropy,
            dice=random.Random(self.dice.random()),
            open_link=self.network.open,
        )
        node.meter = await Meter.open(load_settings(node.folder / "meterd.toml"), host=host)
        await node.meter.start()

    def kill_meter(self, node: MeterNode) -> None:
        """End it as SIGKILL would."""
        assert node.meter is not None, "it runs"
        node.meter.abandon()
        node.meter = None

    # What is done and waited for

    async def read(self, node: MeterNode, *, deadline_s: float = 60.0) -> OnDemandRead:
        """Read a meter now."""
        assert self.head_end is not None, "it runs"
        return await self.head_end.reads.read(node.identity.meter, deadline_s=deadline_s)

    async def until_settled(self, *, at_most_s: float) -> bool:
        """Let time pass until no meter owes a report; False if `at_most_s` was not enough."""
        end = self.utc() + at_most_s
        while self.utc() < end:
            await asyncio.sleep(POLL_S)
            running = [node.meter for node in self.meters if node.meter is not None]
            if len(running) == len(self.meters) and not any(
                meter.agent.owed_count for meter in running
            ):
                return True
        return False

    async def stop(self) -> None:
        """End everything in good order."""
        for node in self.meters:
            if node.meter is not None:
                node.meter.stop()
                node.meter = None
        if self.head_end is not None:
            self.head_end.recovery.stop()
            await self.head_end.southbound.drain(10.0)
            await self.head_end.southbound.stop()
            await self.head_end.store.close()
            self.head_end = None


def world_key(seed: int, number: int) -> ec.EllipticCurvePrivateKey:
    """A key that follows from the seed: a world's, never a device's."""
    digest = hashlib.sha256(f"key {seed} {number}".encode()).digest()
    return ec.derive_private_key(int.from_bytes(digest[:31], "big") + 1, ec.SECP256R1())


def name_of(node: MeterNode) -> str:
    """A meter's name for messages."""
    return format_eui64(node.identity.meter)
