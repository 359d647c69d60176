"""Judges that share no code with the router: of delivery, of loops, of queues.

Gives   a verdict in numbers; `faults` lists what must never be, one line each
Limit   FAULT_COUNT_MAX lines are kept, the rest only counted
Never   imports anything of the router, or asks a node what it thinks of itself
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

FAULT_COUNT_MAX: Final = 100
SEAL: Final = struct.Struct("!BIHI")  # kind of message, number, node, checksum of the filling


@dataclass(slots=True)
class Faults:
    """What must never be, and was."""

    count: int = 0
    lines: list[str] = field(default_factory=list)

    def add(self, line: str) -> None:
        """One more."""
        self.count += 1
        if len(self.lines) < FAULT_COUNT_MAX:
            self.lines.append(line)


def message(kind: int, number: int, node: int, size: int) -> bytes:
    """A payload of `size` octets that proves by itself what it is."""
    filling = _filling(number, node, max(0, size - SEAL.size))
    return SEAL.pack(kind, number, node, zlib.crc32(filling)) + filling


def read_message(payload: bytes) -> tuple[int, int, int] | None:
    """Kind, number and node of a payload that `message` made; None if it did not."""
    if len(payload) < SEAL.size:
        return None
    kind, number, node, checksum = SEAL.unpack_from(payload)
    filling = payload[SEAL.size :]
    if filling != _filling(number, node, len(filling)) or zlib.crc32(filling) != checksum:
        return None
    return kind, number, node


def _filling(number: int, node: int, size: int) -> bytes:
    seed = struct.pack("!IH", number, node)
    return (seed * (size // len(seed) + 1))[:size]


@dataclass(slots=True)
class Sent:
    """What the ledger knows of one message."""

    kind: int
    node: int
    size: int
    at: float
    arrivals: int = 0
    first_at: float | None = None


class Ledger:
    """Every message that was given to the network, and each of its arrivals."""

    def __init__(self, faults: Faults) -> None:
        self.sent: dict[tuple[int, int], Sent] = {}
        self.arrivals = 0
        self.repeated = 0
        """Arrivals after the first: harmless, for the layers above tell them apart."""
        self._faults = faults

    def give(self, number: int, kind: int, node: int, size: int, *, at: float) -> None:
        """A message goes to the network; of one that went before, this is a repetition."""
        self.sent.setdefault((kind, number), Sent(kind, node, size, at))

    def take(self, payload: bytes, *, node: int, at: float) -> tuple[int, int, int] | None:
        """A message of or for `node` came out: its kind, its number, the how many-eth arrival.

        None where it is no message of ours, which is a fault.
        """
        self.arrivals += 1
        found = read_message(payload)
        if found is None:
            self._faults.add(f"t={at:.3f} at {node}: {len(payload)} octets that nobody sent")
            return None
        kind, number, named = found
        sent = self.sent.get((kind, number))
        if sent is None or (sent.node, sent.size) != (named, len(payload)):
            self._faults.add(f"t={at:.3f} at {node}: message {number}, which was not sent so")
            return None
        if named != node:
            self._faults.add(f"t={at:.3f} message {number} of {named} came as one of {node}")
            return None
        if at < sent.at:
            self._faults.add(f"t={at:.3f} message {number} came before it was sent")
        sent.arrivals += 1
        if sent.arrivals == 1:
            sent.first_at = at
        else:
            self.repeated += 1
        return kind, number, sent.arrivals


def cycles(parents: Sequence[int]) -> list[tuple[int, ...]]:
    """The loops among nodes that each point to one other (-1 for none)."""
    state = bytearray(len(parents))  # 0 not seen, 1 on the way now, 2 done
    found = []
    for start, is_seen in enumerate(state):
        if is_seen:
            continue
        way: list[int] = []
        node = start
        while node >= 0 and state[node] == 0:
            state[node] = 1
            way.append(node)
            node = parents[node]
        if node >= 0 and state[node] == 1:
            found.append(tuple(way[way.index(node) :]))
        for passed in way:
            state[passed] = 2
    return found


class LoopWatch:
    """Looks at the preferred parents of all nodes from time to time.

    A loop for a moment is what distance vectors do; one that stands longer than `bound_s` is a
    fault.
    """

    def __init__(self, faults: Faults, *, bound_s: float) -> None:
        self.seen = 0
        self.longest_s = 0.0
        self._faults = faults
        self._bound_s = bound_s
        self._since: dict[frozenset[int], float] = {}
        self._said: set[frozenset[int]] = set()

    def look(self, parents: Sequence[int], *, at: float) -> None:
        """Take one snapshot."""
        standing = {frozenset(loop): loop for loop in cycles(parents)}
        for loop in list(self._since):
            if loop not in standing:
                del self._since[loop]
                self._said.discard(loop)
        for loop, order in sorted(standing.items(), key=lambda item: item[1]):
            since = self._since.get(loop)
            if since is None:
                self._since[loop] = at
                self.seen += 1
                continue
            if at - since > self._bound_s and loop not in self._said:
                self._said.add(loop)
                self._faults.add(f"t={at:.1f} loop of {order} stands since t={since:.1f}")
            self.longest_s = max(self.longest_s, at - since)


class QueueWatch:
    """Looks at how full queues are: never over their bound."""

    def __init__(self, faults: Faults) -> None:
        self.fullest = 0.0
        self._faults = faults

    def look(self, shares: Iterable[tuple[int, float]], *, at: float) -> None:
        """Take one snapshot: (node, how full its fullest queue is)."""
        for node, share in shares:
            if share > self.fullest:
                self.fullest = share
            if share > 1:
                self._faults.add(f"t={at:.1f} a queue of {node} holds {share:.2f} of its bound")


def path_cost(
    parents: Sequence[int], node: int, roots: frozenset[int], cost: Callable[[int, int], float]
) -> float | None:
    """What the way along the parents really costs; None if it does not end at a root."""
    total, seen = 0.0, set()
    while node not in roots:
        if node in seen:
            return None
        seen.add(node)
        parent = parents[node]
        if parent < 0:
            return None
        total += cost(node, parent)
        node = parent
    return total
