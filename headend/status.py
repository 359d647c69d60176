"""How the head-end is, as one value: what every door shows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from headend.domain.mesh import Endpoints
from headend.southbound.ledger import Tally
from headend.store.interface import Commits, Counts


@dataclass(frozen=True, slots=True)
class About:
    """What does not change while the head-end runs; `started_at` UTC s."""

    version: str
    started_at: int
    listen: str


@dataclass(frozen=True, slots=True)
class Measures:
    """What the head-end counts in memory since the start: reading it touches no store.

    `uplinks` is the account of each kind, `refused_uplinks` by kind and reason; `oldest_pending_s`
    how long the oldest uplink has waited for its commit. `queues` gives each bounded queue's depth
    and bound; `refused` (by `layer: reason`), `flagged` and `quarantined` how often for each
    reason. `records` are those committed, by kind and what became of them (new, repeated,
    conflict); `reads` the on-demand reads by result; `recalls` how meters answered that were asked
    for days again after a backup was put back, and `recalls_waiting` how many are still to be
    asked; `link` and `capture` count datagrams; `clock_doubt` says why our own clock is not
    believed; `endpoints` are the nodes of the mesh, None without one.
    """

    about: About
    uplinks: Mapping[str, Tally]
    refused_uplinks: Mapping[tuple[str, str], int]
    oldest_pending_s: float
    queues: Mapping[str, tuple[int, int]]
    counters: Mapping[str, int]
    refused: Mapping[str, int]
    flagged: Mapping[str, int]
    quarantined: Mapping[str, int]
    session_count: int
    records: Mapping[tuple[str, str], int]
    commits: Commits
    reads: Mapping[str, int]
    recalls: Mapping[str, int]
    recalls_waiting: int
    link: Mapping[str, int]
    capture: Mapping[str, int]
    clock_doubt: str | None = None
    endpoints: Endpoints | None = None

    @property
    def reconciles(self) -> bool:
        """Whether every uplink that came has one end, or is pending."""
        return not any(tally.difference for tally in self.uplinks.values())


@dataclass(frozen=True, slots=True)
class Status:
    """`counts` are of the store, `measures` since the start. `at` UTC s."""

    at: int
    counts: Counts
    measures: Measures


class Counting(Protocol):
    """Whoever counts what passes between the meters and the store."""

    @property
    def tallies(self) -> Mapping[str, Tally]:
        """What became of the uplinks of each kind."""

    @property
    def refused_uplinks(self) -> Mapping[tuple[str, str], int]:
        """The uplinks that were refused, by kind and reason."""

    @property
    def clock_doubt(self) -> str | None:
        """Why the own clock is not believed, or None if it is."""

    @property
    def oldest_pending_s(self) -> float:
        """How long the oldest uplink has waited for its commit; 0 when none waits."""

    @property
    def counters(self) -> Mapping[str, int]:
        """What went well."""

    @property
    def refused(self) -> Mapping[str, int]:
        """What was refused, by `layer: reason`."""

    @property
    def flagged(self) -> Mapping[str, int]:
        """What was taken though something is odd about it, by reason."""

    @property
    def quarantined(self) -> Mapping[str, int]:
        """What was set aside, by reason."""

    @property
    def depths(self) -> dict[str, tuple[int, int]]:
        """Each bounded queue's name, its depth and its bound."""

    @property
    def session_count(self) -> int:
        """Meters with whom there is a session."""

    @property
    def stored_records(self) -> Mapping[tuple[str, str], int]:
        """Records that were committed, by kind and what became of them."""

    @property
    def link_counters(self) -> Mapping[str, int]:
        """What the socket took in and sent, and what it dropped."""
