"""A node's place in the tree: version, rank, preferred parent, parent set, repair.

Spec    RFC 6550 section 8 (upward routes), RFC 6719 (MRHOF with ETX), RFC 8036 section 7
In      `hear_dio`, `hear_dis`, `note_attempts`, `note_child`, `handle_timer`; `bump_version`
Out     `actions` to carry out, in order; `deadline`; `rank`, `preferred`, `parents`
Limit   a NeighbourTable, `parents.count_max` parents; one parent being registered at a time
Never   makes a loop of preferred parents (below); reads a clock, draws chance of its own, logs

Why there is no loop. `lowest` is the lowest rank that we had in this version. A new parent must
be in a newer version, or have said a rank below `lowest`; the rank that we then take is above the
parent's. So (version, `lowest`) falls strictly from every node to its parent, whatever was lost on
the way; keeping a parent whose rank rises changes nothing in that. `lowest` may be forgotten
only when nobody has us as a parent: a parent is taken once it acknowledged a frame that says
so (`Act.REGISTER`), so that it knows its children; and who detaches poisons each of them, until it
acknowledges or is given up. What remains are nodes that lost their memory with their power:
those say a rank without end and wait before they choose; and the marks in packets, which find
what slipped through.
"""

from __future__ import annotations

import enum
import random
from collections import Counter, deque
from typing import Final

from amistack.identifiers import Eui64
from mesh.routing.messages import INFINITE_RANK, Configuration, Dio, Dis, is_newer, sequence_after
from mesh.routing.metric import ETX_CAP
from mesh.routing.neighbours import Neighbour, NeighbourTable
from mesh.routing.profile import Profile
from mesh.routing.trickle import NEVER, Trickle

INSTANCE: Final = 0
CHILD_TIME: Final = 2 * 3600.0
"""Seconds for which a child counts after its last frame; it must try its parents more often."""
UPKEEP_INTERVAL: Final = 60.0
"""Seconds between looks at ages, probes and hysteresis by time."""
EXPLORE_INTERVAL_MIN: Final = 10.0
"""Seconds from a new parent to the first look at a neighbour that might be a better one."""
EXPLORE_INTERVAL_MAX: Final = 600.0
"""It is doubled with each look, up to this."""
EXPLORE_ETX: Final = 1.1
"""What a link that nobody has measured might be."""
REPLY_INTERVAL: Final = 2.0
"""Seconds between two unsolicited answers to one neighbour."""
RESET_INTERVAL: Final = 8.0
"""Seconds between two resets of Trickle because somebody asks, needs us, or is mistaken."""
POISON_TRIES: Final = 2
"""Frames, each with all its attempts, to a child that must hear of a rank without end."""
LAST_PARENT_PATIENCE: Final = 3
"""How many times more a parent may fail when there is no other: a busy one is better than none,
and to detach would take the way from everybody below."""
REGISTER_WAIT: Final = 5.0
"""Seconds after which a registration whose outcome was never told counts as failed."""
POISON_SPACING: Final = 0.15
"""Seconds between repetitions of a poison for everybody."""


class Act(enum.Enum):
    """What the node shall send. All but the first four go to one neighbour."""

    DIO = "DIO to all"
    DIS = "DIS to all"
    DAO = "the preferred parent changed, or the root asks"
    DAO_LATER = "another parent changed"
    DIO_TO = "DIO to a neighbour"
    REGISTER = "DIO that makes it our parent"
    POISON = "DIO with a rank without end, to a child"
    PROBE = "DIO that tries a link"


class State(enum.Enum):
    """Where the node stands.

    ::

        DETACHED --> JOINED     a parent acknowledged
        JOINED --> DETACHED     no parent is left that makes no loop
        ROOT                    a collector, for good
    """

    DETACHED = "detached"
    JOINED = "joined"
    ROOT = "root"


class Dodag:
    """The place of one node. Born detached and silent; `start` begins."""

    def __init__(
        self,
        profile: Profile,
        chance: random.Random,
        *,
        dodag_id: bytes | None = None,
        root_version: int | None = None,
        sensitivity_dbm: float | None = None,
    ) -> None:
        """`root_version` makes it a root; `dodag_id` None takes the first that is heard."""
        self._profile = profile
        self._chance = chance
        self._sensitivity_dbm = sensitivity_dbm
        self.dodag_id = dodag_id
        self.configuration: Configuration = profile.configuration
        self.version = -1 if root_version is None else root_version
        self.state = State.DETACHED if root_version is None else State.ROOT
        self.rank = INFINITE_RANK if root_version is None else self.unit
        """What we advertise. It follows the preferred parent, with hysteresis."""
        self.lowest = INFINITE_RANK
        self.dtsn = chance.randrange(128)
        self.neighbours = NeighbourTable(profile.parents.neighbour_count_max)
        self.preferred: Neighbour | None = None
        self.parents: tuple[Neighbour, ...] = ()
        """The parent set, the preferred one first, then by the cost through each."""
        self.actions: deque[tuple[Act, Eui64 | None]] = deque()
        self.counters: Counter[str] = Counter()
        self.deadline = NEVER
        self.detached_at: float | None = None
        self.version_changes = 0
        self._trickle = self._make_trickle()
        self._pending: Neighbour | None = None
        self._pending_until = NEVER
        self._children_to_poison: dict[Eui64, int] = {}
        self._poisons_left = 0
        self._poison_at = NEVER
        self._choose_at = NEVER
        self._settled_at = 0.0
        self._rank_before = INFINITE_RANK
        self._dis_at = NEVER
        self._dis_interval = profile.repair.dis_interval_min
        self._migrate_at = NEVER
        self._next_version = -1
        self._upkeep_at = NEVER
        self._explore_at = NEVER
        self._explore_interval = EXPLORE_INTERVAL_MIN
        self._better: Neighbour | None = None
        self._better_since = NEVER
        self._rank_told = self.rank
        self._replied: dict[Eui64, float] = {}
        self._reset_on_request_at = -NEVER

    @property
    def unit(self) -> int:
        """The rank that ETX 1.0 adds."""
        return self.configuration.hop_rank_increase_min

    @property
    def is_joined(self) -> bool:
        """Whether packets have a way up."""
        return self.state is not State.DETACHED

    def dio(self) -> Dio | None:
        """What we say of ourselves, for everybody; None while we know no DODAG."""
        if self.dodag_id is None or self.version < 0:
            return None
        return Dio(INSTANCE, self.version, self.rank, self.dtsn, self.dodag_id, self.configuration)

    def path_rank(self, row: Neighbour) -> int:
        """Our rank if that neighbour were our parent; INFINITE_RANK for none."""
        if row.rank == INFINITE_RANK:
            return INFINITE_RANK
        unit = self.configuration.hop_rank_increase_min
        return min(row.rank + max(unit, int(unit * row.metric.etx + 0.5)), INFINITE_RANK)

    # Commands from above

    def start(self, *, now: float) -> None:
        """Begin: a root to advertise, a node to say that it has no way and to look for one."""
        self._upkeep_at = now + UPKEEP_INTERVAL * (0.5 + self._chance.random())
        if self.state is State.ROOT:
            self.lowest = self.rank
            self._trickle.start(now=now)
        else:
            self._detach(now)
            # Whoever still takes us for a parent must hear first that we are none.
            self._settled_at = self._choose_at = now + 2 * self._profile.repair.settle_time
        self._schedule()

    def ask_for_routes(self, *, now: float) -> None:
        """Everybody below shall tell its parents anew (RFC 6550 section 9.6)."""
        self.dtsn = sequence_after(self.dtsn)
        self._trickle.start(now=now)
        self._schedule()

    def bump_version(self, *, now: float) -> int:
        """A root begins a new version: global repair. Returns it."""
        self.version = sequence_after(self.version)
        self.version_changes += 1
        self._trickle.start(now=now)
        self._schedule()
        return self.version

    # Inputs from below

    def hear_dio(
        self,
        eui: Eui64,
        short: int,
        dio: Dio,
        *,
        now: float,
        is_for_us: bool,
        rssi_dbm: float | None,
    ) -> None:
        """A DIO of a neighbour, authentic. What contradicts itself is counted, and no more."""
        if dio.instance != INSTANCE or dio.mode != 1:
            self.counters["dio: not our instance or mode"] += 1
            return
        if self.dodag_id is None and dio.configuration is not None and dio.rank < INFINITE_RANK:
            self.dodag_id = dio.dodag_id
        if dio.dodag_id != self.dodag_id:
            self.counters["dio: another dodag"] += 1
            return
        if dio.rank < self.unit:
            self.counters["dio: impossible rank"] += 1
            return
        if dio.configuration is not None and self.state is not State.ROOT:
            self._configure(dio.configuration, now)
        row = self.neighbours.take_in(eui, short, dio.rank, self._pinned(), now=now)
        if row is None:
            self.counters["neighbour table full"] += 1
            return
        self._note_strength(row, rssi_dbm)
        is_same = row.rank == dio.rank and row.version == dio.version
        if row is self.preferred and row.dtsn not in (-1, dio.dtsn):
            # Any other number: a root that started again may have drawn a lower one.
            self.dtsn = sequence_after(self.dtsn)
            self.actions.append((Act.DAO, None))
            self._hear_request(now)
        self._note_version(row, dio, now)
        row.rank = dio.rank
        row.version = dio.version
        row.dtsn = dio.dtsn
        if self.state is State.ROOT:
            self._answer_as_root(row, dio, now, is_for_us=is_for_us)
        else:
            if dio.rank == INFINITE_RANK or (
                dio.version == self.version and dio.rank <= self.lowest != INFINITE_RANK
            ):
                # It cannot have us as its parent.
                row.child_until = 0.0
            if dio.rank == INFINITE_RANK:
                self._drop_child_to_poison(eui, now)
                if self.state is State.JOINED and not is_same:
                    # A neighbour in need hears soon where it can go.
                    self._hear_request(now)
            elif dio.version == self.version:
                self._trickle.hear_consistent()
            if not is_same or row is self.preferred or self.state is State.DETACHED:
                self._consider(row, now)
            if is_for_us and (self.rank >= dio.rank) and dio.rank != INFINITE_RANK:
                self._answer(row, now)
        self._schedule()

    def hear_dis(self, eui: Eui64, dis: Dis, *, now: float, is_for_us: bool) -> None:
        """A solicitation: who asks has no way, whatever it had before."""
        if dis.solicited is not None and (
            self.dodag_id is None or not dis.solicited.fits(INSTANCE, self.dodag_id, self.version)
        ):
            return
        row = self.neighbours.get(eui)
        if row is not None:
            row.heard_at = now
            self._drop_child_to_poison(eui, now)
            if row.rank != INFINITE_RANK and self.state is not State.ROOT:
                row.rank = INFINITE_RANK
                row.child_until = 0.0
                self._consider(row, now)
        if self.state is State.DETACHED:
            return
        if is_for_us:
            self.actions.append((Act.DIO_TO, eui))
        else:
            self._hear_request(now)
        self._schedule()

    def note_child(self, eui: Eui64, short: int, rank: int, *, now: float) -> bool:
        """A frame came up through us from that neighbour: we may be its preferred parent.

        False if there is no place to remember that: then the frame must not be acknowledged.
        """
        row = self.neighbours.take_in(eui, short, rank, self._pinned(), now=now)
        if row is not None and row is self.preferred and rank >= self.rank:
            self.counters["our parent comes through us"] += 1
            return False
        if row is None:
            # Nobody is forgotten who may have us as a parent: this one gets no acknowledgement.
            self.counters["neighbour table full"] += 1
            return False
        row.child_until = now + CHILD_TIME
        if self.state is State.DETACHED and eui not in self._children_to_poison:
            self._children_to_poison[eui] = 0
            self.actions.append((Act.POISON, eui))
        return True

    def note_strength(self, eui: Eui64, rssi_dbm: float | None, *, now: float) -> None:
        """Any frame of a neighbour was heard."""
        row = self.neighbours.get(eui)
        if row is not None:
            row.heard_at = now
            self._note_strength(row, rssi_dbm)

    def note_attempts(
        self, eui: Eui64, attempts: int, act: Act | None, *, is_acknowledged: bool, now: float
    ) -> None:
        """A frame of ours to that neighbour is done with; `act` says which of ours it was."""
        row = self.neighbours.get(eui)
        if row is None:
            self._drop_child_to_poison(eui, now)
            self._schedule()
            return
        row.metric.note_attempts(attempts, is_acknowledged=is_acknowledged, now=now)
        if is_acknowledged:
            row.heard_at = now
        if act is Act.POISON:
            self._note_poisoned(row, now, is_acknowledged=is_acknowledged)
        if act is Act.REGISTER and row is self._pending:
            self._pending = None
            self._pending_until = NEVER
            if is_acknowledged and self._is_usable(row, now):
                self._adopt(row, now)
            else:
                self._deny(row, now)
                self._choose(now)
        elif not is_acknowledged and (row is self.preferred or row in self.parents):
            failures = row.metric.failures_in_a_row
            failures_max = self._profile.parents.failures_max
            if failures >= failures_max and (
                row is not self.preferred
                or failures >= LAST_PARENT_PATIENCE * failures_max
                or self._has_other(row, now)
            ):
                self.counters["parent failed"] += 1
                self._deny(row, now)
                self._choose(now)
            elif attempts:
                # Once may be chance: the next says it, at once.
                self.actions.append((Act.PROBE, eui))
        elif row is self.preferred:
            self._follow(now)
        elif act is Act.PROBE and self._pending is None and self.state is State.JOINED:
            self._choose(now)
        self._schedule()

    def note_loop(self, eui: Eui64, *, now: float) -> None:
        """A packet's mark contradicts the tree (RFC 6550 section 11.2): say where we stand."""
        self.counters["loop mark"] += 1
        row = self.neighbours.get(eui)
        if row is not None:
            self._answer(row, now)
        self._hear_request(now)
        self._schedule()

    def handle_timer(self, *, now: float) -> None:
        """Act on what is due."""
        if self._trickle.deadline <= now and self._trickle.handle_timer(now=now):
            self._rank_told = self.rank
            self.actions.append((Act.DIO, None))
        if self._pending_until <= now and self._pending is not None:
            row, self._pending = self._pending, None
            self._pending_until = NEVER
            self._deny(row, now)
            self._choose(now)
        if self._poison_at <= now and self._pending is not None:
            # What is said while a parent is asked must not take the question back.
            self._poison_at = now + POISON_SPACING
        elif self._poison_at <= now:
            self._poisons_left -= 1
            self._poison_at = now + POISON_SPACING if self._poisons_left > 0 else NEVER
            self.actions.append((Act.DIO, None))
        if self._migrate_at <= now:
            self._migrate(now)
        if self._choose_at <= now:
            self._choose_at = NEVER
            self._choose(now)
        if self._dis_at <= now:
            self._solicit(now)
        if self._explore_at <= now:
            self._explore(now)
        if self._upkeep_at <= now:
            self._keep_up(now)
        self._schedule()

    # Choosing

    def _is_usable(self, row: Neighbour, now: float, etx_max: float = ETX_CAP) -> bool:
        """Whether that neighbour could be our parent, as far as link and rank go."""
        if (
            row.rank == INFINITE_RANK
            or row.version != self.version
            or row.denied_until > now
            or row.metric.etx > etx_max
        ):
            return False
        cost = self.path_rank(row)
        if cost >= INFINITE_RANK or cost > self.unit * self._profile.parents.path_etx_max:
            return False
        increase = self.configuration.rank_increase_max
        return increase == 0 or self.lowest == INFINITE_RANK or cost <= self.lowest + increase

    def _choose(self, now: float) -> None:
        """Take the best parent there is, keep ours, or detach."""
        if self.state is State.ROOT:
            return
        current = self.preferred
        if current is not None and not self._is_usable(current, now):
            # At once, whatever else is under way: it may be looking for a way through us.
            current = self.preferred = None
            self._gather(now)
        if self._pending is not None or self._migrate_at != NEVER:
            return
        if self.lowest == INFINITE_RANK and self._children_to_poison:
            return
        # A link beyond MAX_LINK_METRIC is still better than none at all.
        best, best_cost = self._best(now, self._profile.parents.link_etx_max)
        if best is None and current is None:
            best, best_cost = self._best(now, ETX_CAP)
        if current is None:
            if best is not None:
                self._register(best, now)
            elif self.state is State.JOINED:
                self._detach(now)
            self._gather(now)
            return
        if best is not None and best is not current:
            gain = self.path_rank(current) - best_cost
            parents = self._profile.parents
            if gain > parents.switch_etx * self.unit:
                self._register(best, now)
            elif gain > parents.switch_etx_small * self.unit:
                if self._better is not best:
                    self._better, self._better_since = best, now
                elif now - self._better_since >= parents.switch_time:
                    self._register(best, now)
            else:
                self._better = None
        self._gather(now)

    def _best(self, now: float, etx_max: float) -> tuple[Neighbour | None, int]:
        best: Neighbour | None = None
        best_cost = INFINITE_RANK
        is_early = self.state is State.DETACHED and now < self._settled_at
        for row in self.neighbours:
            if (
                row.rank >= self.lowest
                or (row.child_until > now and self.lowest == INFINITE_RANK)
                or (is_early and row.rank >= self._rank_before)
            ):
                continue
            if not self._is_usable(row, now, etx_max):
                continue
            cost = self.path_rank(row)
            if cost < best_cost:
                best, best_cost = row, cost
        return best, best_cost

    def _has_other(self, row: Neighbour, now: float) -> bool:
        """Whether there is a parent to be had beside that one."""
        return any(
            other is not row and other.rank < self.lowest and self._is_usable(other, now)
            for other in self.neighbours
        )

    def _register(self, row: Neighbour, now: float) -> None:
        self._pending = row
        self._pending_until = now + REGISTER_WAIT
        self._better = None
        self.actions.append((Act.REGISTER, row.eui))

    def _adopt(self, row: Neighbour, now: float) -> None:
        """`row` knows that it is our parent: now it is."""
        if row.rank >= self.lowest or (
            self.lowest == INFINITE_RANK and (row.child_until > now or self._children_to_poison)
        ):
            # It said something new while it acknowledged, or a child came meanwhile.
            self.counters["parent withdrew"] += 1
            self._choose(now)
            return
        was = self.preferred
        was_detached = self.state is State.DETACHED
        self.preferred = row
        self.state = State.JOINED
        self.detached_at = None
        self._children_to_poison.clear()
        self._dis_at = NEVER
        self._dis_interval = self._profile.repair.dis_interval_min
        self._poisons_left = 0
        self._poison_at = NEVER
        self.counters["parent changed"] += 1
        self._follow(now, is_new=True)
        if self.state is not State.JOINED:
            return
        if was_detached or not self._trickle.is_running:
            self._trickle.start(now=now)
        if was is not row:
            self.actions.append((Act.DAO, None))
        if self._explore_at == NEVER:
            self._explore_interval = EXPLORE_INTERVAL_MIN
            self._explore_at = now + EXPLORE_INTERVAL_MIN * (0.5 + self._chance.random())
        self._gather(now)

    def _follow(self, now: float, *, is_new: bool = False) -> None:
        """Take the rank that the preferred parent gives us, if it differs enough."""
        parent = self.preferred
        if parent is None:
            return
        cost = self.path_rank(parent)
        increase = self.configuration.rank_increase_max
        if cost >= INFINITE_RANK or (
            increase and self.lowest != INFINITE_RANK and cost > self.lowest + increase
        ):
            self._choose(now)
            return
        unit = self.unit
        if (
            is_new
            or cost < self.rank - unit // 2
            or cost > self.rank + unit // 2
            or self.rank < parent.rank + unit
        ):
            self.rank = cost
            self.lowest = min(self.lowest, cost)
        if abs(self.rank - self._rank_told) >= 2 * unit:
            self._rank_told = self.rank
            self._trickle.hear_inconsistent(now=now)

    def _gather(self, now: float) -> None:
        """The parent set anew: the preferred one, and others below us."""
        before = self.parents
        count_max = self._profile.parents.count_max
        others: list[tuple[int, int, Neighbour]] = []
        if self.state is State.JOINED:
            limit = self.rank
            preferred = self.preferred
            for row in self.neighbours:
                if (
                    row.rank < limit
                    and row is not preferred
                    and row.child_until <= now
                    and self._is_usable(row, now)
                ):
                    # One that is in the set stays there unless another is clearly better.
                    bonus = self.unit // 2 if row in before else 0
                    others.append((self.path_rank(row) - bonus, row.short, row))
            others.sort(key=lambda entry: entry[:2])
            if preferred is None:
                self.parents = tuple(entry[2] for entry in others[:count_max])
            else:
                self.parents = (preferred, *(entry[2] for entry in others[: count_max - 1]))
        else:
            self.parents = ()
        for row in self.parents:
            if row.metric.samples == 0 and row not in before and row is not self.preferred:
                # Nothing is known of this link but that it was heard.
                self.actions.append((Act.PROBE, row.eui))
        if self.preferred is not None and set(self.parents) != set(before):
            self.actions.append((Act.DAO_LATER, None))

    def sibling(self, *, now: float, tried: set[Eui64]) -> Neighbour | None:
        """A neighbour of about our rank for one hop, when no parent took the packet."""
        best: Neighbour | None = None
        for row in self.neighbours:
            if (
                row.eui not in tried
                and row.child_until <= now
                and row.rank // self.unit <= self.rank // self.unit
                and self._is_usable(row, now)
                and (best is None or row.metric.etx < best.metric.etx)
            ):
                best = row
        return best

    def _consider(self, row: Neighbour, now: float) -> None:
        """That neighbour said something new."""
        if row is self._pending and not self._is_usable(row, now):
            self._pending = None
            self._pending_until = NEVER
        if row is self.preferred:
            if not self._is_usable(row, now):
                self._choose(now)
                return
            self._follow(now)
        if self.state is State.DETACHED and self._pending is None:
            if self._choose_at == NEVER:
                wait = self._profile.repair.settle_time * (0.25 + 0.75 * self._chance.random())
                is_safe = row.rank < self._rank_before != INFINITE_RANK
                self._choose_at = now if is_safe else max(now + wait, self._settled_at)
            return
        if self.state is State.JOINED and self._pending is None:
            self._choose(now)

    def _deny(self, row: Neighbour, now: float) -> None:
        row.denied_until = now + self._profile.parents.deny_time
        # It was not reached: whatever comes, it must say anew where it stands.
        self.counters["neighbour denied"] += 1

    # Repair

    def _detach(self, now: float) -> None:
        """No parent is left: tell the children, then look for others."""
        self.counters["detached"] += 1
        self._rank_before = self.rank
        self.state = State.DETACHED
        self.preferred = None
        self.parents = ()
        self.rank = INFINITE_RANK
        self.detached_at = now
        self._pending = None
        self._pending_until = NEVER
        self._migrate_at = NEVER
        self._trickle.stop()
        self._settled_at = now + self._profile.repair.settle_time
        self._poisons_left = self._profile.repair.poison_count
        self._poison_at = now
        self._dis_interval = self._profile.repair.dis_interval_min
        # The first soon after the poison; chance keeps orphans of one parent apart.
        self._dis_at = now + self._profile.repair.settle_time * (0.25 + 0.5 * self._chance.random())
        for row in self.neighbours:
            if row.child_until > now:
                self._children_to_poison[row.eui] = 0
                self.actions.append((Act.POISON, row.eui))
        if not self._children_to_poison:
            self._forget_rank(now)

    def _note_poisoned(self, row: Neighbour, now: float, *, is_acknowledged: bool) -> None:
        tries = self._children_to_poison.get(row.eui)
        if tries is None:
            return
        if not is_acknowledged and tries + 1 < POISON_TRIES:
            self._children_to_poison[row.eui] = tries + 1
            self.actions.append((Act.POISON, row.eui))
            return
        if not is_acknowledged:
            self.counters["child given up"] += 1
        row.child_until = 0.0
        self._drop_child_to_poison(row.eui, now)

    def _drop_child_to_poison(self, eui: Eui64, now: float) -> None:
        if self._children_to_poison.pop(eui, None) is None or self._children_to_poison:
            return
        if self.state is State.DETACHED:
            self._forget_rank(now)

    def _forget_rank(self, now: float) -> None:
        """Nobody has us as a parent: any neighbour may become ours."""
        self.lowest = INFINITE_RANK
        self._choose_at = min(self._choose_at, now)

    def _solicit(self, now: float) -> None:
        self._dis_interval = min(2 * self._dis_interval, self._profile.repair.dis_interval_max)
        self._dis_at = now + self._dis_interval * (0.75 + 0.5 * self._chance.random())
        self.actions.append((Act.DIS, None))
        for row in self.neighbours:
            # Whoever is left may be the only one.
            row.denied_until = min(row.denied_until, now)
        self._choose_at = min(self._choose_at, now + self._profile.repair.settle_time)

    # Versions

    def _note_version(self, row: Neighbour, dio: Dio, now: float) -> None:
        if dio.version == self.version:
            return
        if self.version < 0:
            if dio.rank < INFINITE_RANK:
                self.version = dio.version
            return
        if not is_newer(dio.version, self.version):
            self.counters["dio: old version"] += 1
            if is_newer(self.version, dio.version) and self.state is not State.DETACHED:
                self._hear_request(now)
            return
        if self.state is State.ROOT:
            # Versions belong to the whole area: another collector was told of a newer one.
            self.version = dio.version
            self._trickle.start(now=now)
            return
        if dio.rank == INFINITE_RANK:
            return
        if self._migrate_at == NEVER or is_newer(dio.version, self._next_version):
            self._next_version = dio.version
            wait = self._profile.repair.version_settle_time
            self._migrate_at = now + wait * (0.5 + 0.5 * self._chance.random())
        if row is self.preferred or self.preferred is None:
            self._migrate_at = min(
                self._migrate_at, now + self._profile.repair.settle_time * self._chance.random()
            )

    def _migrate(self, now: float) -> None:
        """Leave the old version, with its parents, for the new one."""
        self._migrate_at = NEVER
        self.version = self._next_version
        self.version_changes += 1
        self.lowest = INFINITE_RANK
        self._pending = None
        self._pending_until = NEVER
        self.preferred = None
        self.rank = INFINITE_RANK
        self._trickle.stop()
        self._choose(now)

    def _configure(self, configuration: Configuration, now: float) -> None:
        if configuration == self.configuration:
            return
        self.configuration = configuration
        is_running = self._trickle.is_running
        self._trickle = self._make_trickle()
        if is_running:
            self._trickle.start(now=now)

    def _make_trickle(self) -> Trickle:
        return Trickle(
            2**self.configuration.interval_min / 1000.0,
            self.configuration.interval_doublings,
            self.configuration.redundancy,
            self._chance,
        )

    # Answers and upkeep

    def _answer_as_root(self, row: Neighbour, dio: Dio, now: float, *, is_for_us: bool) -> None:
        if dio.rank == INFINITE_RANK:
            self._hear_request(now)
        elif dio.version == self.version:
            self._trickle.hear_consistent()
        elif is_for_us:
            self._answer(row, now)

    def _mark_reply(self, eui: Eui64, now: float) -> bool:
        """Whether that neighbour may have an unasked answer now: not too many."""
        if now - self._replied.get(eui, -NEVER) < REPLY_INTERVAL:
            return False
        if len(self._replied) > self._profile.parents.neighbour_count_max:
            self._replied.clear()
        self._replied[eui] = now
        return True

    def _answer(self, row: Neighbour, now: float) -> None:
        if self._mark_reply(row.eui, now):
            self.actions.append((Act.DIO_TO, row.eui))

    def _hear_request(self, now: float) -> None:
        """Somebody should hear a DIO of ours soon; a storm of such wishes is one."""
        if self.state is State.DETACHED or now - self._reset_on_request_at < RESET_INTERVAL:
            return
        self._reset_on_request_at = now
        self._trickle.hear_inconsistent(now=now)

    def _keep_up(self, now: float) -> None:
        self._upkeep_at = now + UPKEEP_INTERVAL
        parents = self._profile.parents
        for row in self.neighbours.forget_silent(
            parents.neighbour_age_max, self._pinned(), now=now
        ):
            self._drop_child_to_poison(row.eui, now)
        if self.state is State.JOINED:
            for row in self.parents:
                if row.metric.is_due(parents.probe_interval, now=now):
                    self.actions.append((Act.PROBE, row.eui))
            self._choose(now)

    def _explore(self, now: float) -> None:
        """Try the link that would make the best parent if it were as good as it might be."""
        self._explore_interval = min(2 * self._explore_interval, EXPLORE_INTERVAL_MAX)
        self._explore_at = now + self._explore_interval * (0.75 + 0.5 * self._chance.random())
        parent = self.preferred
        if self.state is not State.JOINED or parent is None:
            return
        unit = self.unit
        limit = self.path_rank(parent) - self._profile.parents.switch_etx_small * unit
        best: Neighbour | None = None
        best_rank = limit
        for row in self.neighbours:
            if row.metric.is_measured or row.rank >= self.lowest or not self._is_usable(row, now):
                continue
            hoped = row.rank + unit * max(EXPLORE_ETX, row.metric.etx - 1.0)
            if hoped < best_rank:
                best, best_rank = row, hoped
        if best is not None:
            # There may be more of them: not so slowly.
            self._explore_interval = max(self._explore_interval / 2, EXPLORE_INTERVAL_MIN)
            self._explore_at = now + self._explore_interval * (0.75 + 0.5 * self._chance.random())
            self.actions.append((Act.PROBE, best.eui))

    def _pinned(self) -> tuple[Neighbour, ...]:
        more = tuple(row for row in (self.preferred, self._pending) if row is not None)
        return self.parents + more

    def _note_strength(self, row: Neighbour, rssi_dbm: float | None) -> None:
        row.metric.note_heard(rssi_dbm)
        if rssi_dbm is not None and self._sensitivity_dbm is not None:
            row.metric.guess(rssi_dbm - self._sensitivity_dbm)

    def _schedule(self) -> None:
        self.deadline = min(
            self._trickle.deadline,
            self._pending_until,
            self._poison_at,
            self._choose_at,
            self._dis_at,
            self._migrate_at,
            self._upkeep_at,
            self._explore_at,
        )
