"""Where a node stands in the tree, and what that makes of each neighbour.

Spec    RFC 6550 section 8.2.2.4 (MaxRankIncrease), RFC 6719 section 3 (MRHOF with ETX)
Gives   `path_rank`, `is_usable`, `best`, `sibling`, `parent_set`; `ask` puts what is to be sent
        into `actions`
Limit   a NeighbourTable, `parents.count_max` parents
Never   moves the node: that is `mesh.routing.dodag`
"""

from __future__ import annotations

import math
import operator
from collections import Counter, deque
from collections.abc import Collection
from typing import Final

from amistack.identifiers import Eui64
from mesh.routing.acts import Act, State
from mesh.routing.messages import INFINITE_RANK, Configuration, Dio
from mesh.routing.metric import ETX_CAP
from mesh.routing.neighbours import Neighbour, NeighbourTable
from mesh.routing.profile import Profile
from mesh.routing.trickle import NEVER

INSTANCE: Final = 0
ETX_WORTH_KNOWING: Final = 2.5
"""A link that may be no better than this is of use only where it makes the best parent."""
TRIED_COUNT_MIN: Final = 3
"""Neighbours whose links a node tries, be they of use today or not."""
KNOWN_COUNT_MIN: Final = 8
"""Neighbours that a node gets to know whatever their rank."""
CERTAIN_ETX: Final = 12.0
"""From a path of so much ETX on, what makes a difference grows with it: so do the doubts in it."""
WORTH_SHARE: Final = 0.08
"""A way that is shorter by less than such a share of it is not worth another parent: that is told
to the root, and moves the ranks of all below. See decision 20."""
_COST_AND_SHORT: Final = operator.itemgetter(0, 1)


class Place:
    """The place of one node. `pending` is the neighbour that is being asked to be the parent."""

    __slots__ = (
        "acknowledged_at",
        "actions",
        "configuration",
        "counters",
        "dodag_id",
        "dtsn",
        "has_ground",
        "is_leaving",
        "look_at",
        "lowest",
        "need_heard_at",
        "neighbours",
        "offered",
        "parents",
        "pending",
        "preferred",
        "profile",
        "promised",
        "rank",
        "state",
        "version",
    )

    def __init__(
        self, profile: Profile, *, dodag_id: bytes | None, root_version: int | None, dtsn: int
    ) -> None:
        self.profile = profile
        self.dodag_id = dodag_id
        self.configuration: Configuration = profile.configuration
        self.version = -1 if root_version is None else root_version
        self.state = State.DETACHED if root_version is None else State.ROOT
        self.need_heard_at = -math.inf
        """When a neighbour, whoever it was, said last that it has no way."""
        self.acknowledged_at = -math.inf
        """When any neighbour acknowledged a frame of ours last: then the channel works."""
        self.rank = INFINITE_RANK if root_version is None else self.unit
        """What we advertise. It follows the preferred parent, with hysteresis."""
        self.lowest = INFINITE_RANK
        """The lowest rank that we had in this version, or let a child count on."""
        self.promised = 0
        """The rank below which we do not go while our preferred parent knows nothing of it."""
        self.offered = 0
        """What the last frame that made a promise said."""
        self.dtsn = dtsn
        self.neighbours = NeighbourTable(profile.parents.neighbour_count_max)
        self.preferred: Neighbour | None = None
        self.parents: tuple[Neighbour, ...] = ()
        """The parent set, the preferred one first, then by the cost through each."""
        self.pending: Neighbour | None = None
        self.has_ground = True
        """Whether we, a root, have a connection to the head-end."""
        self.is_leaving = False
        """A newer version is known and taken up soon: nobody becomes our parent in this one."""
        self.look_at = NEVER
        """When the links of the parent set are looked at, at the latest: one came that is due."""
        self.actions: deque[tuple[Act, Eui64 | None]] = deque()
        self.counters: Counter[str] = Counter()

    @property
    def unit(self) -> int:
        """The rank that ETX 1.0 adds."""
        return self.configuration.hop_rank_increase_min

    @property
    def step(self) -> int:
        """The rank that ETX 1.0 adds; so far away that it makes no difference, what does."""
        unit = self.configuration.hop_rank_increase_min
        certain = int(CERTAIN_ETX * unit)
        if self.rank <= certain or self.rank == INFINITE_RANK:
            return unit
        return unit * self.rank // certain

    @property
    def worth(self) -> int:
        """By how much lower our rank would have to be to be worth another parent, in time."""
        least = self.profile.parents.switch_etx_small * self.unit
        return int(max(least, WORTH_SHARE * self.rank))

    def pinned(self) -> tuple[Neighbour, ...]:
        """Those that must stay in the table."""
        if self.pending is None:
            return self.parents if self.preferred is None else (*self.parents, self.preferred)
        return (*self.parents, self.pending, self.preferred or self.pending)

    @property
    def is_grounded(self) -> bool:
        """Whether our way up ends at a root with a connection (RFC 6550 section 6.3.1, bit G)."""
        return self.has_ground if self.preferred is None else self.preferred.is_grounded

    def ask(self, act: Act, neighbour: Eui64 | None = None) -> None:
        """Something is to be sent."""
        self.actions.append((act, neighbour))

    def dio(self) -> Dio | None:
        """What we say of ourselves, for everybody; None while we know no DODAG."""
        if self.dodag_id is None or self.version < 0:
            return None
        return Dio(
            INSTANCE,
            self.version,
            self.rank,
            self.dtsn,
            self.dodag_id,
            self.configuration,
            is_grounded=self.is_grounded,
        )

    def path_rank(self, row: Neighbour) -> int:
        """Our rank if that neighbour were our parent; INFINITE_RANK for none."""
        if row.rank == INFINITE_RANK:
            return INFINITE_RANK
        unit = self.configuration.hop_rank_increase_min
        return min(row.rank + max(unit, int(unit * row.metric.etx + 0.5)), INFINITE_RANK)

    def is_usable(self, row: Neighbour, now: float, etx_max: float = ETX_CAP) -> bool:
        """Whether that neighbour could be our parent, as far as link and rank go."""
        return self.cost_through(row, now, etx_max) != INFINITE_RANK

    def cost_through(self, row: Neighbour, now: float, etx_max: float = ETX_CAP) -> int:
        """Our rank if that neighbour were our parent; INFINITE_RANK if it could not be that.

        Every look at the table asks this of each row: written without calls.
        """
        rank, etx = row.rank, row.metric.etx
        if (
            rank == INFINITE_RANK
            or row.version != self.version
            or row.denied_until > now
            or etx > etx_max
        ):
            return INFINITE_RANK
        configuration = self.configuration
        unit = configuration.hop_rank_increase_min
        step = int(unit * etx + 0.5)
        cost = rank + (step if step > unit else unit)
        if cost >= INFINITE_RANK or cost > unit * self.profile.parents.path_etx_max:
            return INFINITE_RANK
        increase, lowest = configuration.rank_increase_max, self.lowest
        if increase and lowest != INFINITE_RANK and cost > lowest + increase:
            return INFINITE_RANK
        return cost

    def relax(self, now: float) -> None:
        """Let the lowest rank that we had be what we have, as far as no child minds."""
        highest = self.rank
        if self.lowest >= highest or highest == INFINITE_RANK:
            return
        for row in self.neighbours:
            if row.child_until > now and row.floor <= highest:
                highest = row.floor - 1
        self.lowest = max(self.lowest, highest)

    @property
    def bound(self) -> int:
        """What every child must promise more than; INFINITE_RANK where we have no place yet."""
        if self.lowest == INFINITE_RANK:
            return INFINITE_RANK
        return self.promised if self.pending is None else max(self.promised, self.offered)

    def promise(self, row: Neighbour) -> int:
        """What to tell our parent, or who is to be that: no rank of ours will be below it.

        That is more than the rank by which we know it, so it holds for any link.
        """
        self.offered = min(row.rank + 1, self.lowest)
        if row is self.preferred:
            self.promised = max(self.promised, self.offered)
        return self.offered

    def spare_to_try(self, now: float) -> Neighbour | None:
        """A neighbour that is no parent and was never tried, for one of whom too few are known.

        It can be a way when the parents are gone, and the head-end hears only of links that were
        tried.
        """
        found: Neighbour | None = None
        count = len(self.parents)
        if count >= TRIED_COUNT_MIN:
            return None
        for row in self.neighbours:
            if row in self.parents:
                continue
            if row.metric.samples:
                count += 1
            elif (
                row.rank != INFINITE_RANK
                and row.version == self.version
                and row.denied_until <= now
                and (found is None or row.rank < found.rank)
            ):
                found = row
        return found if count < TRIED_COUNT_MIN else None

    def has_children(self, now: float) -> bool:
        """Whether somebody may have us as its preferred parent."""
        return any(row.child_until > now for row in self.neighbours)

    def has_use_for(self, rank: int, etx: float, now: float) -> bool:
        """Whether a neighbour of that rank might become our parent, or one of a set too small.

        `etx` is the best that its link may have. Some more are known for the day on which the
        parents are gone.
        """
        if self.state is State.ROOT:
            return False
        if self.preferred is None:
            return not any(row.rank < rank and self.is_usable(row, now) for row in self.neighbours)
        parents = self.profile.parents
        if rank + self.unit * etx + self.worth < self.rank:
            return True
        return etx <= ETX_WORTH_KNOWING and (
            (rank < self.rank and len(self.parents) < parents.count_max)
            or len(self.neighbours) < KNOWN_COUNT_MIN
        )

    def best(
        self,
        now: float,
        *,
        etx_max: float,
        below: int = INFINITE_RANK,
        other_than: Neighbour | None = None,
    ) -> tuple[Neighbour | None, int]:
        """The best parent that makes no loop and says a rank under `below`; our rank then.

        One without ground is one only where there is no other.
        """
        best: Neighbour | None = None
        best_cost = INFINITE_RANK
        limit = min(self.lowest, below)
        for row in self.neighbours:
            if row.rank >= limit or (row.child_until > now and self.lowest == INFINITE_RANK):
                continue
            if row is other_than:
                continue
            cost = self.cost_through(row, now, etx_max)
            if cost == INFINITE_RANK:
                continue
            if best is None or (row.is_grounded, -cost) > (best.is_grounded, -best_cost):
                best, best_cost = row, cost
        return best, best_cost

    def best_to_ask(
        self, now: float, *, other_than: Neighbour | None = None
    ) -> tuple[Neighbour | None, int]:
        """The best of those whose rank is not below our lowest, but who may go below it for us.

        They know best: one that is below us itself promised more than that, and so did all between.
        """
        best: Neighbour | None = None
        best_cost = INFINITE_RANK
        if self.lowest == INFINITE_RANK:
            return best, best_cost
        for row in self.neighbours:
            if (
                row.rank < self.lowest
                or row.refused_until > now
                or row.child_until > now
                or row is other_than
            ):
                continue
            cost = self.cost_through(row, now)
            if cost == INFINITE_RANK:
                continue
            if best is None or (row.is_grounded, -cost) > (best.is_grounded, -best_cost):
                best, best_cost = row, cost
        return best, best_cost

    def has_ground_near(self, now: float) -> bool:
        """Whether a neighbour says that it has ground, at whatever rank.

        One that was our child is none any more: we have no ground.
        """
        etx_max = self.profile.parents.link_etx_max
        return any(
            row.is_grounded
            and row.rank < INFINITE_RANK
            and row.version == self.version
            and row.denied_until <= now
            and row.metric.etx <= etx_max
            for row in self.neighbours
        )

    def sibling(self, *, now: float, tried: Collection[Eui64]) -> Neighbour | None:
        """A neighbour of about our rank for one hop, when no parent took the packet."""
        best: Neighbour | None = None
        for row in self.neighbours:
            if (
                row.eui not in tried
                and row.below_until <= now
                and row.rank // self.unit <= self.rank // self.unit
                and self.is_usable(row, now)
                and (best is None or row.metric.etx < best.metric.etx)
            ):
                best = row
        return best

    def parent_set(self, now: float) -> tuple[Neighbour, ...]:
        """The preferred parent and the best others below us."""
        if self.state is not State.JOINED:
            return ()
        preferred, before = self.preferred, self.parents
        rank, is_grounded = self.rank, self.is_grounded
        others: list[tuple[int, int, Neighbour]] = []
        for row in self.neighbours:
            if (
                row.rank < rank
                and row is not preferred
                and (row.is_grounded or not is_grounded)
                and row.below_until <= now
            ):
                cost = self.cost_through(row, now)
                if cost != INFINITE_RANK:
                    # One that is in the set stays there unless another is clearly better.
                    bonus = self.unit // 2 if row in before else 0
                    others.append((cost - bonus, row.short, row))
        others.sort(key=_COST_AND_SHORT)
        first = () if preferred is None else (preferred,)
        count = self.profile.parents.count_max - len(first)
        return (*first, *(entry[2] for entry in others[:count]))
