"""A node's way through the tree: what is heard of neighbours, and what follows from it.

Spec    RFC 6550 section 8 (upward routes), RFC 6719 (MRHOF with ETX), RFC 8036 section 7
In      `hear_dio`, `hear_dis`, `note_attempts`, `note_child`, `handle_timer`; `bump_version`
Out     `actions` to carry out, in order; `deadline`; `rank`, `preferred`, `parents`
Limit   what its parts say: `mesh.routing.place`, `parents`, `advertising`, `upkeep`
Never   makes a loop of preferred parents (below); reads a clock, draws chance of its own, logs

Why there is no loop. `lowest` is the lowest rank that we had in this version. A new parent must
be in a newer version, or have said a rank below `lowest`; the rank that we then take is above the
parent's. So (version, `lowest`) falls strictly from every node to its parent, whatever was lost on
the way; keeping a parent whose rank rises changes nothing in that. A parent is taken once it
acknowledged a frame that says so (`Act.REGISTER`), so that it knows its children, and that promises
a rank below which the child does not go without telling it: so `lowest` may rise, to just below the
least of these promises, and fall as far as our own parent was promised, to just below the promise
of who asks to be our child: a neighbour that said a higher rank may be a parent if it takes us by
the promise of our `lowest`. It may be forgotten only when nobody has us as a parent: who detaches
poisons each child, until it acknowledges or is given up. What remains are nodes that lost their
memory with their power: those say a rank without end and wait before they choose; and the marks in
packets, which find what slipped through.
"""

from __future__ import annotations

import math
import operator
import random
from collections import Counter, deque
from collections.abc import Collection
from typing import Final

from amistack.identifiers import Eui64
from mesh.routing.acts import Act, State
from mesh.routing.advertising import Advertiser
from mesh.routing.messages import (
    INFINITE_RANK,
    OCP_MRHOF,
    Configuration,
    Dio,
    Dis,
    is_newer,
    sequence_after,
)
from mesh.routing.metric import ETX_HOPED, hoped_at
from mesh.routing.neighbours import NO_SHORT, Neighbour, NeighbourTable
from mesh.routing.parents import BUSY_WAIT, Parenting
from mesh.routing.place import INSTANCE, Place
from mesh.routing.profile import Profile
from mesh.routing.trickle import NEVER
from mesh.routing.versions import Versions

__all__ = ["INSTANCE", "Act", "Dodag", "State"]

CHILD_TIME: Final = 2 * 3600.0
"""Seconds for which a child counts after the last frame that it sent up through us, or by which it
said that it is one. It must do so more often, and does by its looks at its parent."""
CROWD_TIME: Final = 240.0
"""Seconds for which it is remembered that another one looks for a way."""
UPKEEP_INTERVAL: Final = 60.0
"""Seconds from a look at ages, links and hysteresis by time to the next, while there is something
to see; sooner if a link is to be tried."""
QUIET_INTERVAL: Final = 600.0
"""Seconds at most from a look that found nothing to the next; sooner if a link is to be tried, or a
neighbour is denied no more."""
_EUI_OF: Final = operator.attrgetter("eui")


class Dodag:
    """The way of one node. Born detached and silent; `start` begins."""

    def __init__(
        self,
        profile: Profile,
        chance: random.Random,
        *,
        dodag_id: bytes | None = None,
        root_version: int | None = None,
        dtsn: int | None = None,
        sensitivity_dbm: float | None = None,
        has_lived: bool = True,
    ) -> None:
        """`root_version` makes it a root; `dodag_id` None takes the first that is heard.

        `dtsn` None is another one than before a restart: everybody below tells its parents anew.
        `has_lived`: there may be children of an earlier life that it knows nothing of.
        """
        self._chance = chance
        self._sensitivity_dbm = sensitivity_dbm
        place = self.place = Place(
            profile,
            dodag_id=dodag_id,
            root_version=root_version,
            dtsn=chance.randrange(128) if dtsn is None else dtsn,
        )
        self.neighbours: NeighbourTable = place.neighbours
        self.actions: deque[tuple[Act, Eui64 | None]] = place.actions
        self.counters: Counter[str] = place.counters
        self.deadline = NEVER
        self._advertiser = Advertiser(place, chance)
        self._parenting = Parenting(place, self._advertiser, chance)
        self._versions = Versions(place, self._advertiser, self._parenting, chance)
        self._upkeep_at = NEVER
        # When the preferred parent acknowledged a frame last that says that we are its child.
        self._counted_at = -math.inf
        self._root: int | None = None
        self._has_lived = has_lived
        self._memory_from = NEVER if has_lived else 0.0

    # Looking at it

    @property
    def dodag_id(self) -> bytes | None:
        """Which DODAG; None while none was heard of."""
        return self.place.dodag_id

    @property
    def configuration(self) -> Configuration:
        """The root's figures."""
        return self.place.configuration

    @property
    def version(self) -> int:
        """The DODAG's version, -1 while none was heard of."""
        return self.place.version

    @property
    def state(self) -> State:
        """Where the node stands."""
        return self.place.state

    @property
    def rank(self) -> int:
        """What we advertise."""
        return self.place.rank

    @property
    def path_etx(self) -> float:
        """How far away the root is, as the ETX of the way there."""
        return self.place.rank / self.place.unit - 1.0

    @property
    def lowest(self) -> int:
        """The lowest rank that we had in this version, or let a child count on."""
        return self.place.lowest

    @property
    def preferred(self) -> Neighbour | None:
        """The preferred parent."""
        return self.place.preferred

    @property
    def parents(self) -> tuple[Neighbour, ...]:
        """The parent set, the preferred one first, then by the cost through each."""
        return self.place.parents

    @property
    def detached_at(self) -> float | None:
        """Since when it has no way; None while it has one."""
        return self._parenting.detached_at

    @property
    def is_grounded(self) -> bool:
        """Whether the way up ends at a root with a connection to the head-end."""
        return self.place.is_grounded

    @property
    def is_joined(self) -> bool:
        """Whether packets have a way up."""
        return self.place.state is not State.DETACHED

    def is_parent(self, eui: Eui64) -> bool:
        """Whether that neighbour is in the parent set."""
        return eui in map(_EUI_OF, self.place.parents)

    def is_crowded(self, now: float) -> bool:
        """Whether others near us look for a way too: then an area has its power back, perhaps."""
        return now - self.place.need_heard_at < CROWD_TIME

    def has_use_for(self, rank: int, rssi_dbm: float | None, now: float) -> bool:
        """Whether a neighbour of that rank, heard at that strength, might become a parent."""
        return self.place.has_use_for(rank, self._hoped_etx(rssi_dbm), now)

    def hoped_rank(self, rank: int, rssi_dbm: float | None) -> int:
        """Our rank if that neighbour were our parent and its link as good as it may be."""
        return rank + int(self.place.unit * self._hoped_etx(rssi_dbm))

    def _hoped_etx(self, rssi_dbm: float | None) -> float:
        if rssi_dbm is None or self._sensitivity_dbm is None:
            return ETX_HOPED
        return hoped_at(rssi_dbm - self._sensitivity_dbm)

    def dio(self) -> Dio | None:
        """What we say of ourselves, for everybody; None while we know no DODAG."""
        return self.place.dio()

    def path_rank(self, row: Neighbour) -> int:
        """Our rank if that neighbour were our parent; INFINITE_RANK for none."""
        return self.place.path_rank(row)

    def sibling(self, *, now: float, tried: Collection[Eui64]) -> Neighbour | None:
        """A neighbour of about our rank for one hop, when no parent took the packet."""
        return self.place.sibling(now=now, tried=tried)

    # Commands from above

    def start(self, *, now: float) -> None:
        """Begin: a root to advertise, a node to say that it has no way and to look for one."""
        place = self.place
        if self._has_lived:
            self._memory_from = now + CHILD_TIME
        self._upkeep_at = now + UPKEEP_INTERVAL * (0.5 + self._chance.random())
        if place.state is State.ROOT:
            place.lowest = place.rank
            self._advertiser.begin(now=now)
        else:
            self._parenting.begin(now)
        self._schedule()

    def ask_for_routes(self, *, now: float) -> None:
        """Everybody below shall tell its parents anew (RFC 6550 section 9.6)."""
        self.place.dtsn = sequence_after(self.place.dtsn)
        self._advertiser.begin(now=now)
        self._schedule()

    def note_root(self, short: int, *, now: float) -> None:
        """The root with that address knows where we are.

        If it is another one than before, everybody below shall tell it too: their parents are the
        same, and the root that they told leads nowhere now.
        """
        self._advertiser.note_known(now)
        self._schedule()
        is_other = self._root is not None and self._root != short
        self._root = short
        if is_other:
            self.counters["came to another root"] += 1
            self.ask_for_routes(now=now)

    def set_ground(self, *, has_ground: bool, now: float) -> None:
        """A root's connection to the head-end came or went; everybody below hears of it."""
        if self.place.has_ground is not has_ground:
            self.place.has_ground = has_ground
            self._advertiser.begin(now=now)
            self._schedule()

    @property
    def dtsn(self) -> int:
        """What asks everybody below for routes when it changes (RFC 6550 section 6.3.1)."""
        return self.place.dtsn

    def bump_version(self, *, now: float) -> int:
        """A root begins a new version: global repair. Returns it."""
        version = self._versions.bump(now=now)
        self._schedule()
        return version

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
        place = self.place
        configuration = dio.configuration
        if configuration is place.configuration:
            configuration = None
        elif configuration is not None and configuration == place.configuration:
            # The same object the next time: it is compared with each DIO.
            place.configuration, configuration = configuration, None
        if not self._is_of_ours(dio, configuration):
            return
        is_new = place.neighbours.get(eui) is None
        row = place.neighbours.take_in(eui, short, dio.rank, place.pinned, now=now)
        if row is None:
            self.counters["neighbour table full"] += 1
            return
        if is_new:
            # Of others it was noted with the frame.
            self._note_strength(row, rssi_dbm)
        if configuration is not None and self._decides_for_us(row, dio):
            self._configure(configuration, now)
        is_same = row.rank == dio.rank and row.version == dio.version
        had_ground = place.is_grounded
        if row is place.preferred and row.dtsn not in (-1, dio.dtsn):
            # Any other number: a root that started again may have drawn a lower one.
            place.dtsn = sequence_after(place.dtsn)
            # Which root answers next is no news to those below: they are asked already.
            self._root = None
            place.ask(Act.DAO_ASKED)
            self._advertiser.hear_request(now)
        self._versions.note(row, dio, now)
        row.rank = dio.rank
        row.version = dio.version
        row.dtsn = dio.dtsn
        is_same = is_same and row.is_grounded is dio.is_grounded
        row.is_grounded = dio.is_grounded
        if place.is_grounded is not had_ground:
            # Those below us shall know as soon as we do.
            self._advertiser.begin(now=now)
        elif place.is_grounded and not row.is_grounded:
            # A neighbour in need hears soon where it can go.
            self._advertiser.hear_request(now)
        self._parenting.note_ground(row, now)
        if place.state is State.ROOT:
            self._answer_as_root(row, dio, now, is_for_us=is_for_us)
        else:
            self._hear_rank(row, now, is_same=is_same, is_for_us=is_for_us)
        self._schedule()

    def hear_dis(self, eui: Eui64, dis: Dis, *, now: float, is_for_us: bool) -> None:
        """A solicitation: who asks has no way, whatever it had before."""
        place = self.place
        if dis.solicited is not None and (
            place.dodag_id is None
            or not dis.solicited.fits(INSTANCE, place.dodag_id, place.version)
        ):
            return
        row = place.neighbours.get(eui)
        if row is not None:
            row.heard_at = now
            self._parenting.drop_child(eui, now)
            if row.rank != INFINITE_RANK and place.state is not State.ROOT:
                row.rank = INFINITE_RANK
                row.child_until = row.below_until = 0.0
                self._parenting.consider(row, now)
        if place.state is State.DETACHED:
            return
        if is_for_us:
            place.ask(Act.DIO_TO, eui)
        else:
            self._advertiser.hear_need(now)
        self._schedule()

    def note_passing(self, eui: Eui64, rank: int, *, now: float) -> bool:
        """A frame came up through us from that neighbour: it is below us, if not our child.

        Whoever has us as its preferred parent told us so; only after a restart we may have
        forgotten it. False if there is no place to remember that: then the frame must not be
        acknowledged.
        """
        if now < self._memory_from:
            return self.note_child(eui, NO_SHORT, rank, now=now)
        row = self._take_below(eui, NO_SHORT, rank, now)
        if row is not None:
            row.below_until = now + CHILD_TIME
            if row.child_until > now:
                row.child_until = row.below_until
        return row is not None

    def note_child(
        self, eui: Eui64, short: int, rank: int, *, promise: int | None = None, now: float
    ) -> bool:
        """We are the preferred parent of that neighbour, or may be.

        False if there is no place to remember that: then the frame must not be acknowledged.
        """
        place = self.place
        row = self._take_below(eui, short, rank, now)
        if row is None:
            return False
        row.child_until = row.below_until = now + CHILD_TIME
        if promise is not None:
            row.floor = promise
        if place.state is State.DETACHED:
            self._parenting.children.add(eui)
        return True

    def _take_below(self, eui: Eui64, short: int, rank: int, now: float) -> Neighbour | None:
        """The row of one that comes up through us; None if it must not."""
        place = self.place
        row = place.neighbours.take_in(eui, short, rank, place.pinned, now=now)
        if row is not None and row is place.preferred and rank >= place.rank:
            self.counters["our parent comes through us"] += 1
            return None
        if row is None:
            # Nobody is forgotten who may have us as a parent: this one gets no acknowledgement.
            self.counters["neighbour table full"] += 1
            return None
        if row.short == NO_SHORT and place.state is not State.DETACHED:
            # After a start: who hears a DIO of ours alone answers with one, which has its address.
            # Until then no source route that goes on by it can be followed.
            self._advertiser.answer(eui, now)
        return row

    def lose_child(self, eui: Eui64, *, now: float) -> None:
        """A neighbour says that another one is its preferred parent now."""
        row = self.neighbours.get(eui)
        if row is not None:
            row.child_until = 0.0
            self._parenting.drop_child(eui, now)
            self._parenting.loosen(now)
            self._schedule()

    def take_child(self, eui: Eui64, short: int, rank: int, *, promise: int, now: float) -> bool:
        """A neighbour wants us as its preferred parent; it will say no rank below `promise`.

        False if it knows us by a rank that we have no more, or there is no place for it: then the
        frame must not be acknowledged.
        """
        place = self.place
        if place.state is State.JOINED and promise <= place.bound:
            self.counters["child of an old rank"] += 1
            self._advertiser.refuse(eui, now)
            return False
        # That it had no rank at all is no promise.
        floor = 0 if promise == INFINITE_RANK else promise
        if not self.note_child(eui, short, rank, promise=floor, now=now):
            return False
        if place.state is State.JOINED:
            # Our own parent is below `bound`: we may go down as far as that.
            place.lowest = min(place.lowest, promise - 1)
            self._parenting.loosen(now)
            self._schedule()
        return True

    def tell_promise(self, eui: Eui64, *, now: float) -> None:
        """A neighbour takes us for its child, and is bound by what we promised it."""
        row = self.neighbours.get(eui)
        if row is not None:
            self._parenting.tell_promise(row, now)
            self._schedule()

    def note_refusal(self, eui: Eui64, attempts: int, *, now: float) -> None:
        """A neighbour does not take us as its child, which it heard after so many attempts."""
        row = self.neighbours.get(eui)
        if row is None:
            return
        if attempts:
            row.metric.note_attempts(attempts, is_acknowledged=True, now=now)
            self.place.acknowledged_at = now
        self._parenting.refused(row, now)
        self._schedule()

    def note_address(self, eui: Eui64, short: int, *, now: float) -> None:
        """A neighbour passed on a packet whose source route says which address it has.

        So an answer finds its way back where no DIO of that neighbour was ever heard.
        """
        place = self.place
        row = place.neighbours.by_short(short)
        if row is None or row.eui != eui:
            place.neighbours.take_in(eui, short, INFINITE_RANK, place.pinned, now=now)

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
        place = self.place
        row = place.neighbours.get(eui)
        if row is None:
            self._parenting.drop_child(eui, now)
            self._schedule()
            return
        row.metric.note_attempts(attempts, is_acknowledged=is_acknowledged, now=now)
        if is_acknowledged:
            row.heard_at = place.acknowledged_at = now
            row.denials = 0
            self._parenting.compare_with(row, now)
        if act is Act.POISON:
            self._parenting.poisoned(row, now, is_acknowledged=is_acknowledged)
        if act is Act.REGISTER and row is place.preferred and is_acknowledged:
            place.promised = place.offered
        if act is Act.REGISTER and row is place.pending:
            self._upkeep_at = min(self._upkeep_at, now + UPKEEP_INTERVAL)
            self._parenting.asked(row, attempts, now, is_acknowledged=is_acknowledged)
        elif not is_acknowledged and row in place.parents:
            is_overdue = not attempts and self._due_at(row) <= now
            wait = BUSY_WAIT if is_overdue else UPKEEP_INTERVAL
            self._upkeep_at = min(self._upkeep_at, now + wait)
            if attempts:
                self._parenting.failed(row, now)
        elif row is place.preferred:
            self._parenting.follow(now)
        elif act is Act.PROBE and place.pending is None and place.state is State.JOINED:
            self._parenting.choose(now)
        if is_acknowledged and row is place.preferred and (act is None or act is Act.REGISTER):
            self._counted_at = now
        self._schedule()

    def hear_need(self, now: float) -> None:
        """Somebody said to all that it has no way, proven or not: that is only a hint."""
        self.place.need_heard_at = now

    def note_loop(self, eui: Eui64, *, now: float) -> None:
        """A packet's mark contradicts the tree (RFC 6550 section 11.2): say where we stand."""
        self.counters["loop mark"] += 1
        if self.neighbours.get(eui) is not None:
            self._advertiser.answer(eui, now)
        self._advertiser.hear_request(now)
        self._schedule()

    def handle_timer(self, *, now: float) -> None:
        """Act on what is due."""
        if self._advertiser.deadline <= now:
            self._advertiser.handle_timer(now=now)
        if self._versions.deadline <= now:
            self._versions.handle_timer(now=now)
        if self._parenting.deadline <= now:
            self._parenting.handle_timer(now=now)
        if self._upkeep_at <= now or self.place.look_at <= now:
            self._keep_up(now)
        self._schedule()

    # What a neighbour says

    def _is_of_ours(self, dio: Dio, configuration: Configuration | None) -> bool:
        """Whether it is of our DODAG and possible; the first one that we hear is ours.

        `configuration` is the root's figures that it says, if they are not those that we have.
        """
        place = self.place
        if dio.instance != INSTANCE or dio.mode != 1:
            self.counters["dio: not our instance or mode"] += 1
            return False
        unit = place.unit
        if configuration is not None:
            if configuration.objective != OCP_MRHOF:
                self.counters["dio: another objective function"] += 1
                return False
            if configuration.hop_rank_increase_min != unit and place.lowest != INFINITE_RANK:
                # Ranks in two units cannot be compared, and others count on ours.
                self.counters["dio: another MinHopRankIncrease"] += 1
                return False
            unit = configuration.hop_rank_increase_min
        if place.dodag_id is None and dio.configuration is not None and dio.rank < INFINITE_RANK:
            place.dodag_id = dio.dodag_id
        if dio.dodag_id != place.dodag_id:
            self.counters["dio: another dodag"] += 1
            return False
        if dio.rank < unit:
            self.counters["dio: impossible rank"] += 1
            return False
        return True

    def _decides_for_us(self, row: Neighbour, dio: Dio) -> bool:
        """Whether we take the root's figures from that neighbour.

        Only the root changes them (RFC 6550 section 6.7.6), so they come down the tree, from parent
        to child; who has no parent takes them from whoever might be one.
        """
        place = self.place
        if place.state is State.ROOT:
            return False
        if place.version >= 0 and is_newer(place.version, dio.version):
            return False
        if place.preferred is not None:
            return row is place.preferred
        return dio.rank != INFINITE_RANK

    def _hear_rank(self, row: Neighbour, now: float, *, is_same: bool, is_for_us: bool) -> None:
        """A neighbour said its rank, to a node that is no root."""
        place = self.place
        if row.rank == INFINITE_RANK or (
            row.version == place.version and row.rank <= place.lowest != INFINITE_RANK
        ):
            # It cannot have us as its parent.
            row.child_until = row.below_until = 0.0
        if row.rank == INFINITE_RANK:
            self._parenting.drop_child(row.eui, now)
            if place.state is State.JOINED and not is_same:
                # A neighbour in need hears soon where it can go.
                self._advertiser.hear_need(now)
        elif row.version == place.version and row.rank < place.rank:
            # Who is further from the root than we says nothing that we would (RFC 6550 8.3).
            self._advertiser.hear_consistent()
        if not is_same or row is place.preferred or place.state is State.DETACHED:
            self._parenting.consider(row, now)
        if is_for_us and place.rank >= row.rank and row.rank != INFINITE_RANK:
            self._advertiser.answer(row.eui, now)

    def _answer_as_root(self, row: Neighbour, dio: Dio, now: float, *, is_for_us: bool) -> None:
        if dio.rank == INFINITE_RANK:
            self._advertiser.hear_request(now)
        elif dio.version != self.place.version and is_for_us:
            self._advertiser.answer(row.eui, now)

    def _note_strength(self, row: Neighbour, rssi_dbm: float | None) -> None:
        if rssi_dbm is not None:
            row.metric.note_heard(rssi_dbm)
            if self._sensitivity_dbm is not None:
                row.metric.guess(rssi_dbm - self._sensitivity_dbm)

    def _configure(self, configuration: Configuration, now: float) -> None:
        self.place.configuration = configuration
        self._advertiser.configure(now=now)

    # Upkeep

    def _due_at(self, row: Neighbour) -> float:
        """When the link to one of the parent set is to be tried again."""
        place = self.place
        # Our parent shall not forget that it is that, however little we have to say.
        last = self._counted_at if row is place.preferred else row.metric.tried_at
        return last + place.profile.parents.probe_interval

    def _keep_up(self, now: float) -> None:
        place, is_quiet = self.place, True
        place.look_at = NEVER
        # Until the next link is due, and until anything else is to be seen.
        until_due = until_seen = QUIET_INTERVAL
        age_max = place.profile.parents.neighbour_age_max
        for row in place.neighbours.forget_silent(age_max, place.pinned(), now=now):
            self._parenting.drop_child(row.eui, now)
        if place.state is State.JOINED:
            for row in place.parents:
                metric, due = row.metric, self._due_at(row)
                is_doubtful = metric.failures_in_a_row > 0 or not metric.samples
                if is_doubtful and not metric.is_at_rest(now=now):
                    is_quiet = False
                    place.ask(Act.PROBE, row.eui)
                elif due <= now:
                    place.ask(Act.REGISTER if row is place.preferred else Act.PROBE, row.eui)
                else:
                    until_due = min(until_due, due - now)
            for row in place.neighbours:
                if row.denied_until > now:
                    until_seen = min(until_seen, row.denied_until - now)
            spare = place.spare_to_try(now)
            if spare is not None:
                is_quiet = False
                place.ask(Act.PROBE, spare.eui)
            self._parenting.choose(now)
            is_quiet = is_quiet and self._parenting.is_settled
        if not is_quiet:
            until_seen = UPKEEP_INTERVAL
        self._upkeep_at = now + max(min(until_due, until_seen), 1.0)

    def _schedule(self) -> None:
        # As `min`, at a third of its cost: it is asked after every call.
        deadline = self._upkeep_at
        if self.place.look_at < deadline:
            deadline = self.place.look_at
        if (of_advertiser := self._advertiser.deadline) < deadline:
            deadline = of_advertiser
        if (of_parenting := self._parenting.deadline) < deadline:
            deadline = of_parenting
        if (of_versions := self._versions.deadline) < deadline:
            deadline = of_versions
        self.deadline = deadline
