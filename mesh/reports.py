"""Topology reports: what a node tells the DCC about itself and its links, and when.

Spec    docs/protocol/topology.md; `mesh.report_layout` declares the same octets
Gives   `TopologyReport`, its octets, and `ReportSchedule`: a report is due at once after a
        registration, soon after a change beyond hysteresis, and every REPORT_PERIOD_S
Raises  MeshError on octets, LocalProtocolError on a value, that is no report
Limit   PARENTS_MAX parents and NEIGHBOURS_MAX other neighbours, REPORT_SIZE_MAX octets
Never   names the node it is about: that is the source of the packet it came in
"""

from __future__ import annotations

import enum
import random
import struct
from dataclasses import replace
from typing import Final

from amistack.errors import LocalProtocolError, MeshError
from amistack.values import frozen_value
from mesh.routing.width import width_of

VERSION: Final = 1
HEADER: Final = struct.Struct("!BBHHBB")  # version, reason, sequence, rank, hops, counts
LINK: Final = struct.Struct("!HHHBB")  # neighbour, ETX to it, ETX from it, samples, age in minutes

PARENTS_MAX: Final = 8
NEIGHBOURS_MAX: Final = 4
LINKS_MAX: Final = PARENTS_MAX + NEIGHBOURS_MAX
REPORT_SIZE_MIN: Final = HEADER.size
REPORT_SIZE_MAX: Final = HEADER.size + LINKS_MAX * LINK.size

ETX_ONE: Final = 128
"""One transmission, in the unit of every ETX here (RFC 6551 section 4.3.2)."""
ETX_UNKNOWN: Final = 0
ETX_UNUSABLE: Final = 0xFFFF

INFINITE_RANK: Final = 0xFFFF
HOPS_UNKNOWN: Final = 0xFF
SHORT_MIN: Final = 1
SHORT_MAX: Final = 0xFFFD
"""Short addresses of nodes; 0, 0xFFFE and 0xFFFF stand for nobody and for everybody."""

SAMPLES_MAX: Final = 0xFF
AGE_MINUTES_MAX: Final = 0xFF
"""The last value of either count means this many or more."""

REPORT_PERIOD_S: Final = 12 * 3600.0
CHANGE_DELAY_S: Final = 30.0
"""A change is told this long after it was seen, so that what comes of one fault is one report."""
CHANGE_SPACING_S: Final = 300.0
"""Reports about changes keep this distance, however much a link swings."""
CHANGE_SPACING_MAX_S: Final = 4800.0
"""They come ever more rarely, up to this, and after a periodic one, which says that nothing changed
for long, half as rarely: in a network that has just formed every figure is still on its way, and of
parents its DAOs tell sooner."""
BOOT_SPREAD_S: Final = 900.0
"""An area gets its power back at one instant; its reports come spread over this, from when its
root knows a node. Those of a thousand meters in one minute were more than the air holds."""
WIDTH_MAX: Final = 8.0
"""The spread of a boot and the distance of changes grow with the area, to so many times at most."""
PERIOD_SPREAD: Final = 0.1
ETX_HYSTERESIS: Final = ETX_ONE // 2
"""A link that is better or worse by less than half a transmission is the same link."""


class Reason(enum.IntEnum):
    """Why a report was sent; the first four are the reason codes of a registration as well."""

    COLD_BOOT = 0
    POWER_RESTORED = 1
    PARENT_CHANGED = 2
    ADDRESS_CHANGED = 3
    LINK_CHANGED = 4
    PERIODIC = 5
    ASKED = 6


REASON_MAX: Final = int(max(Reason))
BOOTS: Final = frozenset({Reason.COLD_BOOT, Reason.POWER_RESTORED})
AT_ONCE: Final = frozenset({Reason.ADDRESS_CHANGED, Reason.ASKED})
CHANGES: Final = frozenset({Reason.PARENT_CHANGED, Reason.LINK_CHANGED})


@frozen_value(frozen=True, slots=True)
class LinkReport:
    """One link as its reporter sees it.

    `etx_to` and `etx_from` are expected transmissions towards the neighbour and from it, in units
    of 1/128, ETX_UNKNOWN or ETX_UNUSABLE. `samples` counts what the figure rests on and
    `age_minutes` how long ago the last of it was; both stop at 255. Raises LocalProtocolError.
    """

    neighbour: int
    etx_to: int
    etx_from: int = ETX_UNKNOWN
    samples: int = 0
    age_minutes: int = 0

    def __post_init__(self) -> None:
        fault = _link_fault(self.neighbour, self.etx_to, self.etx_from)
        if fault is not None:
            raise LocalProtocolError(fault)
        if not (0 <= self.samples <= SAMPLES_MAX and 0 <= self.age_minutes <= AGE_MINUTES_MAX):
            raise LocalProtocolError(
                f"{self.samples} samples, {self.age_minutes} minutes old; each is 0 to 255"
            )


@frozen_value(frozen=True, slots=True)
class TopologyReport:
    """All that a node says about its place: it replaces what the node said before.

    ::

        octet   0        1       2..3      4..5  6     7                8 ..
                version  reason  sequence  rank  hops  parents, others  8 octets a link
                                                       4 bits each
        link    0..1       2..3        4..5          6        7
                neighbour  ETX to it   ETX from it   samples  age, minutes

    Parents come first, the preferred one at the head. A node without a way up has rank
    INFINITE_RANK and HOPS_UNKNOWN; a collector that is a root has 0 hops and no parents. Who has
    a parent but does not know its hops says HOPS_UNKNOWN.
    Raises LocalProtocolError for what contradicts itself.
    """

    reason: Reason
    sequence: int
    rank: int
    hops: int
    parents: tuple[LinkReport, ...] = ()
    neighbours: tuple[LinkReport, ...] = ()

    def __post_init__(self) -> None:
        if not 0 <= self.sequence <= 0xFFFF:
            raise LocalProtocolError(f"sequence {self.sequence}, expected 0 to 65535")
        if not (0 <= self.rank <= 0xFFFF and 0 <= self.hops <= 0xFF):
            raise LocalProtocolError(f"rank {self.rank}, {self.hops} hops: no place for them")
        if len(self.parents) > PARENTS_MAX or len(self.neighbours) > NEIGHBOURS_MAX:
            raise LocalProtocolError(
                f"{len(self.parents)} parents and {len(self.neighbours)} neighbours, "
                f"at most {PARENTS_MAX} and {NEIGHBOURS_MAX}"
            )
        fault = _place_fault(self.rank, self.hops, len(self.parents))
        if fault is not None:
            raise LocalProtocolError(f"{fault[0]}: {fault[1]}")
        shorts = [link.neighbour for link in self.links]
        if len(set(shorts)) < len(shorts):
            raise LocalProtocolError("a neighbour stands there twice")

    @property
    def links(self) -> tuple[LinkReport, ...]:
        """Parents, then the others."""
        return self.parents + self.neighbours

    @property
    def is_attached(self) -> bool:
        """Whether the node has a way up, or is where all ways end."""
        return self.rank != INFINITE_RANK

    def aged(self, minutes: int) -> TopologyReport:
        """The same, so many minutes later."""

        def later(link: LinkReport) -> LinkReport:
            return replace(link, age_minutes=min(link.age_minutes + minutes, AGE_MINUTES_MAX))

        return replace(
            self,
            parents=tuple(map(later, self.parents)),
            neighbours=tuple(map(later, self.neighbours)),
        )

    def encode(self) -> bytes:
        """At most REPORT_SIZE_MAX octets."""
        counts = len(self.parents) << 4 | len(self.neighbours)
        head = HEADER.pack(VERSION, self.reason, self.sequence, self.rank, self.hops, counts)
        return head + b"".join(
            LINK.pack(link.neighbour, link.etx_to, link.etx_from, link.samples, link.age_minutes)
            for link in self.links
        )

    @classmethod
    def decode(cls, octets: bytes) -> TopologyReport:
        """The report in `octets`: all of them, and nothing else. Raises MeshError."""
        if len(octets) < REPORT_SIZE_MIN:
            raise MeshError("truncated", f"{len(octets)} octets, at least {REPORT_SIZE_MIN}")
        version, reason, sequence, rank, hops, counts = HEADER.unpack_from(octets)
        if version != VERSION:
            raise MeshError("version unknown", f"{version}, expected {VERSION}")
        if reason > REASON_MAX:
            raise MeshError("report reason unknown", f"{reason}, expected 0 to {REASON_MAX}")
        parent_count, neighbour_count = counts >> 4, counts & 0x0F
        if parent_count > PARENTS_MAX or neighbour_count > NEIGHBOURS_MAX:
            raise MeshError(
                "too many links", f"{parent_count} parents, {neighbour_count} neighbours"
            )
        expected = HEADER.size + (parent_count + neighbour_count) * LINK.size
        if len(octets) != expected:
            raise MeshError("length", f"{len(octets)} octets, expected {expected}")
        if (misplaced := _place_fault(rank, hops, parent_count)) is not None:
            raise MeshError(*misplaced)
        seen = set()
        for neighbour, etx_to, etx_from, _, _ in LINK.iter_unpack(octets[HEADER.size :]):
            if (fault := _link_fault(neighbour, etx_to, etx_from)) is not None:
                raise MeshError("impossible link", fault)
            if neighbour in seen:
                raise MeshError("neighbour twice", f"{neighbour:#06x}")
            seen.add(neighbour)
        links = tuple(LinkReport(*link) for link in LINK.iter_unpack(octets[HEADER.size :]))
        return cls(Reason(reason), sequence, rank, hops, links[:parent_count], links[parent_count:])


def _link_fault(neighbour: int, etx_to: int, etx_from: int) -> str | None:
    if not SHORT_MIN <= neighbour <= SHORT_MAX:
        return f"neighbour {neighbour:#06x}, which is no node's address"
    for etx in (etx_to, etx_from):
        if etx != ETX_UNKNOWN and not ETX_ONE <= etx <= ETX_UNUSABLE:
            return f"ETX of {etx}/{ETX_ONE}, which is less than one transmission or has no place"
    return None


def _place_fault(rank: int, hops: int, parent_count: int) -> tuple[str, str] | None:
    """Reason and detail where rank, hops and parents cannot all be true.

    What a rank says of the hops depends on the area's profile and is not looked at here.
    """
    if rank == INFINITE_RANK:
        if parent_count or hops != HOPS_UNKNOWN:
            return "poisoned with a place", f"infinite rank, {parent_count} parents, {hops} hops"
    elif not rank:
        return "impossible rank", "rank 0, which is nobody's"
    elif not hops:
        if parent_count:
            return "root with parents", f"0 hops, {parent_count} parents"
    elif not parent_count:
        return "rank without a way", f"rank {rank}, {hops} hops, no parent"
    return None


def is_newer(sequence: int, than: int) -> bool:
    """Whether one 16-bit sequence number comes after another (RFC 1982)."""
    return 0 < (sequence - than) & 0xFFFF < 0x8000


class ReportSchedule:
    """When a node sends its next report.

    The node hands in what it would report whenever something about that changed, and asks for
    `next_timer`. A report is due REPORT_PERIOD_S after the last (up to a tenth sooner, so that
    neighbours drift apart), at once for the reasons in AT_ONCE, within `boot_spread` of a boot,
    and otherwise CHANGE_DELAY_S after a change beyond hysteresis was first seen, but not sooner
    than CHANGE_SPACING_S after the last report, doubled with each of its kind up to
    CHANGE_SPACING_MAX_S; in a wide area after longer times.
    """

    def __init__(
        self, chance: random.Random, *, sequence: int = 0, boot_spread: float = BOOT_SPREAD_S
    ) -> None:
        """`sequence` is the number of the next report; `boot_spread` is in seconds."""
        self._chance = chance
        self._boot_spread = boot_spread
        self._sequence = sequence & 0xFFFF
        self._told: TopologyReport | None = None
        self._told_at = 0.0
        self._reason: Reason | None = None
        self._due: float | None = None
        self._period_ends_at: float | None = None
        self._spacings = dict.fromkeys(Reason, CHANGE_SPACING_S)

    @property
    def sequence(self) -> int:
        """The number that the next report carries."""
        return self._sequence

    @property
    def told(self) -> TopologyReport | None:
        """The last report, None before the first."""
        return self._told

    def ask(self, reason: Reason, *, now: float, path_etx: float = 1.0) -> None:
        """Something happened that `reason` names: a registration, or a question of the DCC.

        `path_etx` is how far away the root is.
        """
        due = now
        width = min(width_of(path_etx), WIDTH_MAX)
        if reason in BOOTS:
            due += self._chance.uniform(0.0, self._boot_spread * width)
        elif reason not in AT_ONCE:
            due += CHANGE_DELAY_S
            if self._told is not None:
                due = max(due, self._told_at + self._spacings[reason] * width)
        self._due = due if self._due is None else min(due, self._due)
        if self._reason is None or reason < self._reason:
            self._reason = reason

    def compare(self, report: TopologyReport, *, now: float, path_etx: float = 1.0) -> None:
        """What would be said now; a difference beyond hysteresis makes it due."""
        if self._told is None:
            self.ask(Reason.COLD_BOOT, now=now, path_etx=path_etx)
        elif (reason := difference(self._told, report)) is not None:
            self.ask(reason, now=now, path_etx=path_etx)

    def is_news(self, report: TopologyReport) -> bool:
        """Whether what is due says more than the last: what changed may be as it was again."""
        return (
            self._told is None
            or report.reason not in CHANGES
            or difference(self._told, report) is not None
        )

    def left_out(self) -> None:
        """What was due was no news: the next is due as if nothing had changed."""
        self._reason = None
        self._due = self._period_ends_at

    def next_timer(self) -> float | None:
        """When a report is due; None until the first is asked for."""
        return self._due

    def reason_due(self, *, now: float) -> Reason | None:
        """Why to send a report now, or None for not yet."""
        if self._due is None or now < self._due:
            return None
        return Reason.PERIODIC if self._reason is None else self._reason

    def sent(self, report: TopologyReport, *, now: float) -> None:
        """`report` is on its way, with `sequence` as its number."""
        self._sequence = (report.sequence + 1) & 0xFFFF
        self._told, self._told_at = report, now
        if report.reason is Reason.PERIODIC:
            for reason, spacing in self._spacings.items():
                self._spacings[reason] = max(spacing / 2, CHANGE_SPACING_S)
        else:
            spacing = 2 * self._spacings[report.reason]
            self._spacings[report.reason] = min(spacing, CHANGE_SPACING_MAX_S)
        self._reason = None
        share = self._chance.uniform(1.0 - PERIOD_SPREAD, 1.0)
        self._due = self._period_ends_at = now + REPORT_PERIOD_S * share


def difference(told: TopologyReport, new: TopologyReport) -> Reason | None:
    """What changed beyond hysteresis since a report, as the reason for the next; None if nothing.

    The preferred parent, or being attached at all, is one matter; the other a parent that was not
    listed, fewer parents, and a link's ETX by ETX_HYSTERESIS and a quarter of itself. Which of the
    links that were told make the set swings with every sample, and is no reason; nor are samples
    and ages, which change all the time.
    """
    if _preferred(told) != _preferred(new) or told.is_attached != new.is_attached:
        return Reason.PARENT_CHANGED
    before = {link.neighbour: link for link in told.links}
    if len(new.parents) < len(told.parents) or any(
        link.neighbour not in before for link in new.parents
    ):
        return Reason.LINK_CHANGED
    for link in new.links:
        last = before.get(link.neighbour)
        # Which of the others are worth listing swings with every sample: no news by itself.
        if last is not None and (
            differs(last.etx_to, link.etx_to) or differs(last.etx_from, link.etx_from)
        ):
            return Reason.LINK_CHANGED
    return None


def _preferred(report: TopologyReport) -> int | None:
    return report.parents[0].neighbour if report.parents else None


def differs(before: int, after: int) -> bool:
    """Whether an ETX is another one, beyond hysteresis."""
    if before == after:
        return False
    if before in (ETX_UNKNOWN, ETX_UNUSABLE) or after in (ETX_UNKNOWN, ETX_UNUSABLE):
        return True
    return abs(after - before) > max(ETX_HYSTERESIS, before // 4)
