"""What a node of the mesh keeps through a restart: counters, sequences; a collector its table.

Raises  StoreError when a write fails: then nothing of it counts
Never   gives out a frame counter that an earlier run may have used
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Iterator
from typing import Any, Final

from amistack.errors import StoreError
from amistack.identifiers import Eui64
from amistack.machine import Peer
from mesh.backhaul import RouteRow
from mesh.backhaul.messages import LIFETIME_INFINITE
from mesh.routing.node import MeshNode
from mesh.security import CountersWanted
from meterd.storage import DENIED, ROUTE, Storage

COUNTER: Final = "frame counter"
PATH_SEQUENCE: Final = "path sequence"
REPORT_SEQUENCE: Final = "report sequence"
SHORT: Final = "short address"
ADDRESSES: Final = "neighbours' addresses"
VERSION: Final = "DODAG version"
EPOCH: Final = "epoch"
DTSN: Final = "DTSN"
NEIGHBOURS: Final = "neighbours"
RUN: Final = "backhaul run"
STORE_RETRY_S: Final = 60.0
REPORT_STEP: Final = 64
"""Reports between two writes of their number; a restart skips as many at the most."""
FIRST_VERSION: Final = 240
ENDLESS: Final = 0
"""In place of the time at which a row ends."""


class NodeKeeper:
    """A node's facts, as notes and rows of its storage."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    # Of every node

    @property
    def counter(self) -> int:
        """Frame counters below this one may be used already."""
        return self._number(COUNTER, 0)

    def reserve_counters(self, until: int) -> None:
        """Frame counters below `until` may be used from now on."""
        self._storage.keep_note(COUNTER, str(until))

    @property
    def path_sequence(self) -> int | None:
        """The last one that is known to have been used, None before the first."""
        note = self._storage.note(PATH_SEQUENCE)
        return None if note is None else int(note)

    def keep_path_sequence(self, sequence: int) -> None:
        """The root knows us under that one."""
        if sequence != self.path_sequence:
            self._storage.keep_note(PATH_SEQUENCE, str(sequence))

    @property
    def short(self) -> int | None:
        """The short address that it was last known under, None before the first."""
        note = self._storage.note(SHORT)
        return None if note is None else int(note)

    def keep_short(self, short: int) -> None:
        """It is known under that one."""
        if short != self.short:
            self._storage.keep_note(SHORT, str(short))

    def begin_reports(self) -> int:
        """The number of this run's first report: further than any that was used."""
        sequence = self._number(REPORT_SEQUENCE, 0) & 0xFFFF
        self._storage.keep_note(REPORT_SEQUENCE, str(sequence + REPORT_STEP))
        return sequence

    def keep_report_sequence(self, sequence: int) -> None:
        """That number comes next."""
        ahead = (self._number(REPORT_SEQUENCE, 0) - sequence) & 0xFFFF
        if not 0 < ahead <= REPORT_STEP:
            self._storage.keep_note(REPORT_SEQUENCE, str(sequence + REPORT_STEP))

    def addresses(self) -> list[tuple[Eui64, Peer]]:
        """Where each neighbour was last."""
        listed = json.loads(self._storage.note(ADDRESSES) or "[]")
        return [(Eui64(bytes.fromhex(node)), _peer(peer)) for node, peer in listed]

    def keep_addresses(self, addresses: Iterable[tuple[Eui64, Peer]]) -> None:
        """Keep where each neighbour was last."""
        listed = [[node.hex(), peer] for node, peer in addresses]
        self._storage.keep_note(ADDRESSES, json.dumps(listed))

    # Of a collector

    @property
    def version(self) -> int:
        """The DODAG version to go on with."""
        return self._number(VERSION, FIRST_VERSION)

    def keep_version(self, version: int) -> None:
        """The area runs under that version."""
        self._storage.keep_note(VERSION, str(version))

    @property
    def epoch(self) -> int:
        """The lease it last served under, 0 for none."""
        return self._number(EPOCH, 0)

    def keep_epoch(self, epoch: int) -> None:
        """It serves under that lease."""
        self._storage.keep_note(EPOCH, str(epoch))

    def next_run(self) -> int:
        """A number of 1 to 2^32 - 1 that no connection had before."""
        run = self._number(RUN, 0) % 0xFFFF_FFFF + 1
        self._storage.keep_note(RUN, str(run))
        return run

    @property
    def dtsn(self) -> int | None:
        """The DTSN to go on with: another one would have everybody tell its parents anew."""
        note = self._storage.note(DTSN)
        return None if note is None else int(note)

    def keep_dtsn(self, dtsn: int) -> None:
        """Everybody has been asked under that one."""
        self._storage.keep_note(DTSN, str(dtsn))

    def neighbours(self) -> list[tuple[Eui64, int]]:
        """The short address of each neighbour."""
        listed = json.loads(self._storage.note(NEIGHBOURS) or "[]")
        return [(Eui64(bytes.fromhex(node)), short) for node, short in listed]

    def keep_neighbours(self, neighbours: Iterable[tuple[Eui64, int]]) -> None:
        """Keep the short address of each neighbour."""
        listed = [[node.hex(), short] for node, short in neighbours]
        self._storage.keep_note(NEIGHBOURS, json.dumps(listed))

    def rows(self, utc: float) -> Iterator[RouteRow]:
        """The table's rows that have not ended."""
        for target, (parents, path_sequence, ends_at) in self._storage.items(ROUTE):
            shorts = tuple(short for (short,) in struct.iter_unpack("!H", parents))
            if ends_at == ENDLESS:
                yield RouteRow(target, shorts, path_sequence, LIFETIME_INFINITE)
            elif ends_at > utc:
                yield RouteRow(target, shorts, path_sequence, int(ends_at - utc))

    def keep_row(self, row: RouteRow, utc: float) -> None:
        """Keep a row, in place of the target's last one."""
        ends_at = ENDLESS if row.lifetime == LIFETIME_INFINITE else int(utc) + row.lifetime
        parents = struct.pack(f"!{len(row.parents)}H", *row.parents)
        self._storage.put((ROUTE, row.target, [parents, row.path_sequence, ends_at]))

    def drop_row(self, target: int) -> None:
        """The target has no row any more."""
        self._storage.put((ROUTE, target, None))

    def denied(self) -> Iterator[tuple[Eui64, int]]:
        """Nodes that are kept out, with their short address or 0."""
        for node, short in self._storage.items(DENIED):
            yield Eui64(bytes.fromhex(node)), short

    def keep_denied(self, node: Eui64, short: int, *, is_denied: bool) -> None:
        """A node is kept out, or not any more."""
        self._storage.put((DENIED, node.hex(), short if is_denied else None))

    def _number(self, name: str, default: int) -> int:
        note = self._storage.note(name)
        return default if note is None else int(note)


def _peer(written: Any) -> Peer:
    """A socket address as it was: JSON has arrays, not tuples."""
    return tuple(written) if isinstance(written, list) else written


class CounterKeeper:
    """Puts the node's frame counters on disk, and tries again when that fails."""

    def __init__(self, node: MeshNode, keeper: NodeKeeper) -> None:
        self.failures = 0
        self._node = node
        self._keeper = keeper
        self._wanted: int | None = None
        self._retry_at: float | None = None

    def start(self) -> None:
        """Reserve the first block: before it there is no frame. Raises StoreError."""
        for event in self._node.events():
            if isinstance(event, CountersWanted):
                self._reserve(event.until)

    def want(self, until: int, *, now: float) -> None:
        """The node asks for the next block, ahead of need."""
        self._wanted = until
        self._try(now)

    def handle_timer(self, *, now: float) -> None:
        """Try again, if that is due."""
        if self._retry_at is not None and self._retry_at <= now:
            self._try(now)

    def next_timer(self) -> float | None:
        """When to call `handle_timer`, or None."""
        return self._retry_at

    def _try(self, now: float) -> None:
        if self._wanted is None:
            return
        try:
            self._reserve(self._wanted)
        except StoreError:
            self.failures += 1
            self._retry_at = now + STORE_RETRY_S
        else:
            self._wanted = self._retry_at = None

    def _reserve(self, until: int) -> None:
        self._keeper.reserve_counters(until)
        self._node.counters_reserved(until)
