"""The real head-end on a virtual clock, with collectors over streams; it can be killed.

Gives   `HeadEnd.operations`, what every door of it calls; `seen`, when which record was committed
Raises  what the head-end's own parts raise at a start
Never   looks at more than what is committed, and when
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from amistack.identifiers import Eui64
from amistack.session.credentials import AuthenticationKey
from amistack.session.fleet import encode_public_key, head_end_credential
from headend.collection.on_demand import OnDemandReads
from headend.collection.recovery import Recovery
from headend.dcc.opening import own_eui64
from headend.dcc.operations import MeshOperations
from headend.dcc.service import DccService
from headend.domain.meters import RegistrationRecord
from headend.domain.readings import LogRecord, ReportRecord
from headend.operations import Operations
from headend.southbound.service import Southbound
from headend.status import About
from headend.store.interface import KeepDelivery, Outcome, Write
from headend.store.sqlite import SqliteStore
from interop.world.network import Network
from interop.world.streams import Streams
from interop.world.world import world_key

ADDRESS: Final = ("10.0.0.1", 5683)
BACKHAUL: Final = ("10.0.0.1", 5685)

TALLIES: Final = ("received", "stored", "answered", "refused", "pending")

Entropy = Callable[[int], bytes]


@dataclass(slots=True)
class Seen:
    """When what was committed first, in seconds of the world's clock; through every life."""

    registered: dict[Eui64, float] = field(default_factory=dict)
    reports: dict[tuple[Eui64, int], float] = field(default_factory=dict)
    entries: dict[tuple[Eui64, int], float] = field(default_factory=dict)
    clock_error_s: dict[Eui64, float] = field(default_factory=dict)
    """By how much a meter's clock was ahead at its latest report, on its way for a moment."""


class _Watched(SqliteStore):
    """The real store, which tells when a delivery is committed."""

    seen: Seen | None = None

    def submit(self, write: Write, done: Callable[[Outcome], None]) -> None:
        """See `Store.submit`."""
        if not isinstance(write, KeepDelivery) or self.seen is None:
            super().submit(write, done)
            return
        seen, delivery = self.seen, write

        def committed(outcome: Outcome) -> None:
            if isinstance(outcome, tuple):
                self._note(seen, delivery)
            done(outcome)

        super().submit(write, committed)

    @staticmethod
    def _note(seen: Seen, delivery: KeepDelivery) -> None:
        now = asyncio.get_running_loop().time()
        for record in delivery.records:
            match record:
                case RegistrationRecord():
                    seen.registered.setdefault(delivery.meter, now)
                case ReportRecord():
                    seen.reports.setdefault((delivery.meter, record.day), now)
                    error_s = record.clock_s - delivery.received_ms / 1000
                    seen.clock_error_s[delivery.meter] = error_s
                case LogRecord():
                    seen.entries.setdefault((delivery.meter, record.sequence), now)
                case _:
                    pass


@dataclass(slots=True)
class _Life:
    """From one start to the next kill: what survives it is the file."""

    store: _Watched
    southbound: Southbound
    dcc: DccService
    reads: OnDemandReads
    recovery: Recovery
    operations: Operations
    tasks: set[asyncio.Task[Any]] = field(default_factory=set)


class HeadEnd:
    """One head-end through all its lives. Not started yet."""

    def __init__(
        self,
        folder: Path,
        *,
        seed: int,
        utc: Callable[[], float],
        streams: Streams,
        entropy: Callable[[str], Entropy],
        dice: Callable[[str], random.Random],
    ) -> None:
        """`entropy` and `dice` give a source of its own for each purpose."""
        self.seen = Seen()
        self.lives = 0
        self._uplinks: Counter[str] = Counter()
        self._is_reconciled = True
        private = world_key(seed, 0)
        self.public_key = encode_public_key(private.public_key())
        self._key = AuthenticationKey(private, head_end_credential(self.public_key))
        self._folder = folder
        self._utc = utc
        self._streams = streams
        self._entropy = entropy
        self._dice = dice
        self._life: _Life | None = None

    @property
    def is_up(self) -> bool:
        """Whether it runs."""
        return self._life is not None

    @property
    def operations(self) -> Operations:
        """What its doors call. Only while it runs."""
        return self._require().operations

    @property
    def dcc(self) -> DccService:
        """Its side of the mesh. Only while it runs."""
        return self._require().dcc

    @property
    def store(self) -> SqliteStore:
        """Its store. Only while it runs."""
        return self._require().store

    async def start(self) -> None:
        """Start on what the file holds."""
        self.lives += 1
        name = f"headend.{self.lives}"
        entropy = self._entropy(name)
        store = _Watched.open(self._folder / "headend.sqlite", is_threaded=False, wall=self._utc)
        assert isinstance(store, _Watched), "made of that class"
        store.seen = self.seen
        dcc = DccService(
            own=own_eui64((self.public_key,)),
            store=store,
            wall=self._utc,
            dice=self._dice(f"{name}.dcc"),
            open_server=self._streams.open_server,
        )
        southbound = Southbound(
            key=self._key,
            store=store,
            entropy=entropy,
            dice=self._dice(f"{name}.southbound"),
            wall=self._utc,
            open_link=Network(self._dice(f"{name}.network")).open,
            elsewhere=dcc,
        )
        reads = OnDemandReads(store=store, asker=southbound, entropy=entropy, wall=self._utc)
        await reads.start()
        recovery = Recovery(store=store, asker=southbound, wall=self._utc)
        await recovery.start()
        southbound.on_heard = recovery.heard
        await southbound.start(*ADDRESS)
        dcc.deliver = southbound.receive_datagram
        await dcc.load()
        host, port = await dcc.start(*BACKHAUL)
        mesh = MeshOperations(
            store=store, dcc=dcc, entropy=entropy, wall=self._utc, listen=f"{host}:{port}"
        )
        operations = Operations(
            about=About("simulated", int(self._utc()), f"{ADDRESS[0]}:{ADDRESS[1]}"),
            store=store,
            counting=southbound,
            reads=reads,
            wall=self._utc,
            recovery=recovery,
            sessions=southbound,
            mesh=mesh,
        )
        self._life = _Life(store, southbound, dcc, reads, recovery, operations)

    def account(self) -> tuple[Counter[str], bool]:
        """What became of every uplink, through every life, and whether each life's sums agreed."""
        uplinks, agrees = Counter(self._uplinks), self._is_reconciled
        if self._life is not None:
            measures = self._life.operations.measures()
            agrees = agrees and measures.reconciles
            for tally in measures.uplinks.values():
                for name in TALLIES:
                    uplinks[name] += getattr(tally, name)
        return uplinks, agrees

    def spawn(self, task: Coroutine[Any, Any, None]) -> None:
        """Let something be asked of it that ends with it."""
        life = self._require()
        made = asyncio.get_running_loop().create_task(task)
        life.tasks.add(made)
        made.add_done_callback(life.tasks.discard)

    async def kill(self) -> None:
        """End it as SIGKILL would: what is not committed is gone."""
        life = self._require()
        self._uplinks, self._is_reconciled = self.account()
        self._life = None
        for task in life.tasks:
            task.cancel()
        life.recovery.stop()
        self._streams.kill_server(BACKHAUL)
        life.dcc.abandon()
        life.southbound.abandon()
        life.store.abandon()
        await life.southbound.stop()

    async def stop(self) -> None:
        """End it in good order."""
        life = self._require()
        self._life = None
        life.recovery.stop()
        life.reads.stop()
        await life.southbound.drain(10.0)
        await life.southbound.stop()
        await life.dcc.stop()
        await life.store.close()

    def _require(self) -> _Life:
        assert self._life is not None, "the head-end runs"
        return self._life
