"""The graph of all areas: who is where, who hears whom how well, and how old each word is.

In      `place`, `remove`, `keep_out`, `set_backhaul`; `take_report`; `age` with the time
Out     what each call changed, as `Change`s: what a link costs now
Raises  MeshError, counted in `refused` by reason, for what contradicts itself or what we know;
        nothing has changed then. TableFull at a bound
Limit   NODES_MAX nodes, AREA_NODES_MAX in an area, as many links as reports have room for
Never   believes a node about other nodes' links, or guesses a link that neither end reported

A link has one cost for both directions, in 1/128 transmissions: the mean of its ETX each way,
because what the DCC asks is answered over the same link. A direction's ETX is what the sending
end measured, or else what the other end heard. An older word weighs more: see `Stage`.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from amistack.errors import LocalProtocolError, MeshError, TableFull
from amistack.identifiers import Eui64, format_eui64
from mesh.reports import (
    ETX_ONE,
    HOPS_UNKNOWN,
    INFINITE_RANK,
    LINKS_MAX,
    SHORT_MAX,
    SHORT_MIN,
    LinkReport,
    Reason,
    TopologyReport,
    is_newer,
)
from mesh.topology.facts import (
    AGE_SHIFT,
    FROM_SHIFT,
    GONE,
    MINUTE_S,
    NO_PARENT,
    PLACE_SHIFT,
    SAMPLES_SHIFT,
    STAGE_ENDS_S,
    WEIGHT_ONE,
    AreaId,
    Backhaul,
    Change,
    Index,
    LinkFact,
    NodeFact,
    Role,
    Stage,
    direction,
    packed,
    weight_of,
)

NODES_MAX: Final = 1_000_000
AREA_NODES_MAX: Final = 60_000
AREAS_MAX: Final = 10_000
HOP_RANK_INCREASE: Final = 256
"""MinHopRankIncrease where an area's profile has no other (RFC 6550 section 17)."""
ASSUMED_ETX: Final = 2 * ETX_ONE
"""Of a link to a parent whose figures are not reported yet: what nodes assume themselves."""
ASSUMED_MAX: Final = 8
AGED_MAX: Final = 500
"""Nodes whose words grow older in one call; more wait for the next, which is due at once."""
REORDER_S: Final = 600.0
"""A report can be overtaken by a later one for this long; a lower number after it is a restart."""
REORDER_COUNT: Final = 8
"""How far back a report that was overtaken can lie; a boot's further back is a restart."""

NEVER: Final = float("-inf")


class Graph:
    """All areas. Calls that take `now` are made in the order of time."""

    def __init__(self) -> None:
        self.refused: Counter[str] = Counter()
        """What was not believed, by reason."""
        self.costs: list[dict[Index, int]] = []
        """Of every node, its neighbours and what the link costs. To be read, never written."""
        self._euis: list[Eui64 | None] = []
        self._indices: dict[Eui64, Index] = {}
        self._areas: dict[AreaId, dict[int, Index]] = {}
        self._area_of: list[AreaId] = []
        self._shorts = array("H")
        self._claims: list[dict[Index, int]] = []
        self._heard_at = array("d")
        self._ranks = array("H")
        self._hops = bytearray()
        self._sequences = array("H")
        self._reasons: list[Reason | None] = []
        self._stages = bytearray()
        self._backhauls: dict[Index, Backhaul] = {}
        self._kept_out: set[Index] = set()
        self._rank_increases: dict[AreaId, int] = {}
        self._free: list[Index] = []
        # Nodes of each stage in the order in which they leave it; dictionaries keep that order.
        self._waiting: tuple[dict[Index, float], ...] = ({}, {}, {})

    # Commands from above

    def place(
        self, node: Eui64, *, area: AreaId, short: int, role: Role = Role.METER
    ) -> list[Change]:
        """Put a node where the head-end assigned it, or move it; its links change with the area.

        Raises MeshError for an address that another node holds, TableFull at a bound.
        """
        if not SHORT_MIN <= short <= SHORT_MAX:
            raise self._refusal("impossible address", f"{short:#06x} for {format_eui64(node)}")
        shorts = self._areas.get(area, {})
        holder = shorts.get(short)
        index = self._indices.get(node)
        if holder is not None and holder != index:
            raise self._refusal(
                "address taken",
                f"{short:#06x} of area {area} for {format_eui64(node)}; "
                f"{format_eui64(self.eui_of(holder))} holds it",
            )
        if index is not None and (self._area_of[index], self.role_of(index)) == (area, role):
            del shorts[self._shorts[index]]
            shorts[short] = index
            self._shorts[index] = short
            return []
        if len(shorts) >= AREA_NODES_MAX:
            raise TableFull(f"area {area} has {AREA_NODES_MAX} nodes, its bound")
        if index is None and len(self._indices) >= NODES_MAX:
            raise TableFull(f"the topology has {NODES_MAX} nodes, its bound")
        changes = [] if index is None else self.remove(node)
        index = self._new_index(node)
        self._indices[node] = index
        self._area_of[index] = area
        self._shorts[index] = short
        self._areas.setdefault(area, {})[short] = index
        if role is Role.COLLECTOR:
            self._backhauls[index] = Backhaul.DOWN
        return changes

    def set_hop_rank_increase(self, area: AreaId, increase: int) -> None:
        """MinHopRankIncrease of an area's profile: a root's rank, and the least that a hop adds.

        Raises LocalProtocolError for one that cannot be, TableFull at the bound.
        """
        if not 1 <= increase < INFINITE_RANK:
            raise LocalProtocolError(f"MinHopRankIncrease {increase}, expected 1 to 65534")
        if area not in self._rank_increases and len(self._rank_increases) >= AREAS_MAX:
            raise TableFull(f"{AREAS_MAX} areas have a profile, the bound")
        self._rank_increases[area] = increase

    def remove(self, node: Eui64) -> list[Change]:
        """Forget a node and all that was said about it. Raises MeshError for one not known."""
        index = self.index_of(node)
        self._claims[index] = {}
        changes: list[Change] = []
        for neighbour in list(self.costs[index]):
            del self.costs[index][neighbour], self.costs[neighbour][index]
            changes.append((index, neighbour, GONE))
        # A claim may stand where the link is not usable, so that costs does not show it.
        for other in self._areas[self._area_of[index]].values():
            self._claims[other].pop(index, None)
        for waiting in self._waiting:
            waiting.pop(index, None)
        shorts = self._areas[self._area_of[index]]
        del shorts[self._shorts[index]]
        if not shorts:
            del self._areas[self._area_of[index]]
        self._backhauls.pop(index, None)
        self._kept_out.discard(index)
        del self._indices[node]
        self._euis[index] = None
        self._free.append(index)
        return changes

    def keep_out(self, node: Eui64, *, is_denied: bool) -> list[Change]:
        """Have no link lead to this node, or those again that are known. Raises MeshError."""
        index = self.index_of(node)
        if is_denied is (index in self._kept_out):
            return []
        if is_denied:
            self._kept_out.add(index)
        else:
            self._kept_out.discard(index)
        around = set(self._claims[index])
        around.update(
            other
            for other in self._areas[self._area_of[index]].values()
            if index in self._claims[other]
        )
        return self._changes(index, sorted(around))

    def is_kept_out(self, node: Eui64) -> bool:
        """Whether no link leads to this node by the operator's word. Raises MeshError."""
        return self.index_of(node) in self._kept_out

    def set_backhaul(self, collector: Eui64, state: Backhaul) -> bool:
        """Say whether the head-end has this collector's connection; whether that is news."""
        index = self.index_of(collector)
        known = self._backhauls.get(index)
        if known is None:
            raise self._refusal("no collector", f"{format_eui64(collector)} has no backhaul")
        self._backhauls[index] = state
        return known is not state

    # Inputs from below

    def take_report(
        self,
        report: TopologyReport,
        *,
        area: AreaId,
        short: int,
        now: float,
        node: Eui64 | None = None,
    ) -> list[Change]:
        """Believe a node about itself: its report replaces what it said before.

        `node` is who vouched for it, where that is known. Links to addresses that nobody holds are
        left out and counted. Raises MeshError.
        """
        shorts = self._areas.get(area, {})
        index = shorts.get(short)
        if index is None:
            raise self._refusal("unknown node", f"{short:#06x} of area {area}")
        if node is not None and self._euis[index] != node:
            raise self._refusal(
                "address of another",
                f"{format_eui64(node)} speaks as {short:#06x} of area {area}, "
                f"which is {format_eui64(self.eui_of(index))}",
            )
        self._check_place(index, report)
        self._check_order(index, report, now)
        claims: dict[Index, int] = {}
        for place, link in enumerate(report.links):
            neighbour = shorts.get(link.neighbour)
            if neighbour is None:
                self.refused["unknown neighbour"] += 1
                continue
            if neighbour == index:
                raise self._refusal("own neighbour", f"{short:#06x} of area {area} hears itself")
            claims[neighbour] = packed(link, place if place < len(report.parents) else NO_PARENT)
        before, self._claims[index] = self._claims[index], claims
        self._heard_at[index] = now
        self._ranks[index] = report.rank
        self._hops[index] = report.hops
        self._sequences[index] = report.sequence
        self._reasons[index] = report.reason
        self._enter(index, Stage.FRESH, now)
        return self._changes(index, [*claims, *(gone for gone in before if gone not in claims)])

    def take_parents(
        self, parents: Sequence[int], *, area: AreaId, short: int, now: float
    ) -> list[Change]:
        """Believe a node's DAO about its parents, by short address, until its next report.

        The first of them is the preferred one from now on. A parent that its last report did not
        have gets a link of ASSUMED_ETX; figures that were reported stay. Parents nobody holds are
        left out and counted, and those above ASSUMED_MAX since the last report. Raises MeshError
        for an unknown node, or one that is its own parent.
        """
        shorts = self._areas.get(area, {})
        index = shorts.get(short)
        if index is None:
            raise self._refusal("unknown node", f"{short:#06x} of area {area}")
        if short in parents:
            raise self._refusal("own neighbour", f"{short:#06x} of area {area} is its own parent")
        claims = self._claims[index]
        before = list(claims)
        if self._stages[index] == Stage.SILENT:
            # Its words are too old to count, and must not come back to life beside new ones.
            claims.clear()
            self._reasons[index] = None
            self._heard_at[index] = now
            self._enter(index, Stage.FRESH, now)
        for place, parent in enumerate(parents):
            neighbour = shorts.get(parent)
            if neighbour is None:
                self.refused["unknown neighbour"] += 1
            elif neighbour not in claims:
                if len(claims) >= LINKS_MAX + ASSUMED_MAX:
                    self.refused["too many links"] += 1
                    break
                link = LinkReport(parent, ASSUMED_ETX)
                claims[neighbour] = packed(link, min(place, NO_PARENT - 1) if place else NO_PARENT)
        preferred = shorts.get(parents[0]) if parents else None
        if preferred is not None and preferred in claims:
            _prefer(claims, preferred)
        return self._changes(index, [*claims, *(gone for gone in before if gone not in claims)])

    def age(self, *, now: float) -> list[Change]:
        """Let words grow old: what that did to the costs. Cheap where nothing was due.

        At most AGED_MAX nodes a call; while more are due, `next_timer` stays in the past.
        """
        changes: list[Change] = []
        left = AGED_MAX
        for stage in (Stage.FRESH, Stage.OLD, Stage.STALE):
            waiting = self._waiting[stage]
            while waiting:
                index, due = next(iter(waiting.items()))
                if due > now:
                    break
                if not left:
                    return changes
                left -= 1
                self._enter(index, Stage(stage + 1), self._heard_at[index])
                changes += self._changes(index, self._claims[index])
        return changes

    # Outputs

    def next_timer(self) -> float | None:
        """When `age` has work, or None while nobody was heard."""
        return min((next(iter(each.values())) for each in self._waiting if each), default=None)

    def __len__(self) -> int:
        """How many nodes there are."""
        return len(self._indices)

    def __contains__(self, node: Eui64) -> bool:
        return node in self._indices

    @property
    def capacity(self) -> int:
        """Every `Index` is below this."""
        return len(self._euis)

    @property
    def areas(self) -> Mapping[AreaId, Mapping[int, Index]]:
        """Of every area, its nodes by short address."""
        return self._areas

    @property
    def backhauls(self) -> Mapping[Index, Backhaul]:
        """Every collector and the state of its connection."""
        return self._backhauls

    def index_of(self, node: Eui64) -> Index:
        """Where a node stands in the tables. Raises MeshError, counted, for one not known."""
        index = self._indices.get(node)
        if index is None:
            raise self._refusal("unknown node", format_eui64(node))
        return index

    def find(self, area: AreaId, short: int) -> Eui64 | None:
        """Who holds an address, or None."""
        index = self._areas.get(area, {}).get(short)
        return None if index is None else self._euis[index]

    def is_used(self, index: Index) -> bool:
        """Whether a node stands at `index`."""
        return self._euis[index] is not None

    def eui_of(self, index: Index) -> Eui64:
        """The node at `index`, which is in use."""
        eui = self._euis[index]
        assert eui is not None, f"nobody stands at {index}"
        return eui

    def short_of(self, index: Index) -> int:
        """Its short address, unique in its area."""
        return self._shorts[index]

    def area_of(self, index: Index) -> AreaId:
        """Its area."""
        return self._area_of[index]

    def role_of(self, index: Index) -> Role:
        """What it is."""
        return Role.COLLECTOR if index in self._backhauls else Role.METER

    def hops_of(self, index: Index) -> int:
        """How far below a collector it is by its own last word, or HOPS_UNKNOWN."""
        return self._hops[index]

    def nodes(self, area: AreaId | None = None) -> Iterator[Index]:
        """Every node, or those of one area, in the order of area and address."""
        for number in sorted(self._areas) if area is None else [area]:
            for _, index in sorted(self._areas.get(number, {}).items()):
                yield index

    def fact_of(self, index: Index, *, now: float) -> NodeFact:
        """All that is known of a node, with ages."""
        heard_at = self._heard_at[index]
        links = []
        for neighbour, word in self._claims[index].items():
            place = word >> PLACE_SHIFT
            links.append(
                LinkFact(
                    self.eui_of(neighbour),
                    word & 0xFFFF,
                    word >> FROM_SHIFT & 0xFFFF,
                    word >> SAMPLES_SHIFT & 0xFF,
                    now - heard_at + (word >> AGE_SHIFT & 0xFF) * MINUTE_S,
                    None if place == NO_PARENT else place,
                )
            )
        return NodeFact(
            self.eui_of(index),
            self._area_of[index],
            self._shorts[index],
            self.role_of(index),
            self._backhauls.get(index),
            self._ranks[index],
            self._hops[index],
            None if heard_at == NEVER else now - heard_at,
            Stage(self._stages[index]),
            self._reasons[index],
            tuple(links),
        )

    def rebuild_costs(self) -> None:
        """Work out every cost anew from what the nodes said: the same as before, or a defect."""
        claims = self._claims
        self.costs = [{} for _ in claims]
        for index, said in enumerate(claims):
            here = Index(index)
            for neighbour in said:
                if here < neighbour or here not in claims[neighbour]:
                    cost = self._link_cost(here, neighbour)
                    if cost != GONE:
                        self.costs[here][neighbour] = self.costs[neighbour][here] = cost

    # Rules

    def _check_place(self, index: Index, report: TopologyReport) -> None:
        """Refuse a rank that the node cannot have, as what it is and where it says it is.

        Every hop adds the profile's increase or more, so that a rank bounds the hops.
        """
        if report.rank == INFINITE_RANK:
            return
        increase = self._rank_increases.get(self._area_of[index], HOP_RANK_INCREASE)
        if index in self._backhauls:
            is_possible = report.hops == 0 and report.rank == increase
        else:
            hops = 1 if report.hops == HOPS_UNKNOWN else report.hops
            is_possible = hops > 0 and report.rank >= increase * (hops + 1)
        if not is_possible:
            raise self._refusal(
                "impossible rank",
                f"{format_eui64(self.eui_of(index))} has rank {report.rank} at {report.hops} hops "
                f"as a {self.role_of(index).value}; a hop adds {increase} or more",
            )

    def _check_order(self, index: Index, report: TopologyReport, now: float) -> None:
        if self._reasons[index] is None or now - self._heard_at[index] > REORDER_S:
            return
        last = self._sequences[index]
        if report.sequence == last:
            raise self._refusal("repeated report", f"number {last} again")
        if is_newer(report.sequence, last):
            return
        is_boot = report.reason in (Reason.COLD_BOOT, Reason.POWER_RESTORED)
        if not is_boot or (last - report.sequence) & 0xFFFF <= REORDER_COUNT:
            raise self._refusal("old report", f"number {report.sequence} after {last}")

    def _refusal(self, reason: str, detail: str) -> MeshError:
        self.refused[reason] += 1
        return MeshError(reason, detail)

    def _new_index(self, node: Eui64) -> Index:
        if self._free:
            index = self._free.pop()
        else:
            index = Index(len(self._euis))
            self._euis.append(None)
            self._area_of.append(AreaId(0))
            self._shorts.append(0)
            self._claims.append({})
            self.costs.append({})
            self._heard_at.append(NEVER)
            self._ranks.append(INFINITE_RANK)
            self._hops.append(HOPS_UNKNOWN)
            self._sequences.append(0)
            self._reasons.append(None)
            self._stages.append(Stage.SILENT)
        self._euis[index] = node
        self._heard_at[index] = NEVER
        self._ranks[index] = INFINITE_RANK
        self._hops[index] = HOPS_UNKNOWN
        self._sequences[index] = 0
        self._reasons[index] = None
        self._stages[index] = Stage.SILENT
        return index

    def _enter(self, index: Index, stage: Stage, heard_at: float) -> None:
        current = self._stages[index]
        if current < Stage.SILENT:
            self._waiting[current].pop(index, None)
        self._stages[index] = stage
        if stage < Stage.SILENT:
            self._waiting[stage][index] = heard_at + STAGE_ENDS_S[stage]

    def _changes(self, index: Index, neighbours: list[Index] | dict[Index, int]) -> list[Change]:
        """Work out the costs of these links of a node, and keep them."""
        costs = self.costs[index]
        changes: list[Change] = []
        for neighbour in neighbours:
            cost = self._link_cost(index, neighbour)
            if cost == costs.get(neighbour, GONE):
                continue
            if cost == GONE:
                del costs[neighbour], self.costs[neighbour][index]
            else:
                costs[neighbour] = self.costs[neighbour][index] = cost
            changes.append((index, neighbour, cost))
        return changes

    def _link_cost(self, one: Index, other: Index) -> int:
        """The mean over both directions of ETX by weight, in 1/128, or GONE."""
        if one in self._kept_out or other in self._kept_out:
            return GONE
        stages = self._stages
        ours = self._claims[one].get(other, 0) if stages[one] < Stage.SILENT else 0
        theirs = self._claims[other].get(one, 0) if stages[other] < Stage.SILENT else 0
        our_weight = weight_of(ours, stages[one]) if ours else 0
        their_weight = weight_of(theirs, stages[other]) if theirs else 0
        up = direction(ours & 0xFFFF, our_weight, theirs >> FROM_SHIFT & 0xFFFF, their_weight)
        down = direction(theirs & 0xFFFF, their_weight, ours >> FROM_SHIFT & 0xFFFF, our_weight)
        if up < 0 or down < 0:
            return GONE
        if not (up and down):
            return (up or down) // WEIGHT_ONE
        return (up + down) // (2 * WEIGHT_ONE)


def _prefer(claims: dict[Index, int], preferred: Index) -> None:
    """That one comes first among the parents; those that came before it move back by one."""
    before = claims[preferred] >> PLACE_SHIFT
    for neighbour, word in claims.items():
        place = word >> PLACE_SHIFT
        if neighbour == preferred:
            place = 0
        elif place < before:
            place = min(place + 1, NO_PARENT)
        claims[neighbour] = word & (1 << PLACE_SHIFT) - 1 | place << PLACE_SHIFT
