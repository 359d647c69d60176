"""Which neighbour is the parent: asked, taken, followed, left; and what is done without one.

Spec    RFC 6719 section 3 (MRHOF), RFC 6550 sections 8.2.2.4 and 8.2.2.5 (local repair, poisoning)
In      `consider` a neighbour that said something new, `settled` and `failed` for what became of
        frames, `choose` whenever things may have changed, `handle_timer`
Out     what is to be sent, in the actions of the place; `deadline`
Limit   one parent being asked at a time
Never   takes a parent that does not know of it; leaves one because frames failed, unless another
        one acknowledges, or it failed for a time: a busy channel kills nobody
"""

from __future__ import annotations

import random
from typing import Final

from amistack.identifiers import Eui64
from mesh.routing.acts import Act, State
from mesh.routing.advertising import Advertiser
from mesh.routing.binding import Binding
from mesh.routing.children import Children
from mesh.routing.messages import INFINITE_RANK
from mesh.routing.metric import ETX_CAP
from mesh.routing.neighbours import Neighbour
from mesh.routing.place import Place
from mesh.routing.trickle import NEVER
from mesh.routing.upkeep import Explorer

LAST_PARENT_PATIENCE: Final = 3
"""How many times more a parent may fail when no other takes its place: a busy one is better than
none, and to detach would take the way from everybody below."""
MOVE_WAIT: Final = 20.0
"""Seconds, about, that a node without ground waits before it moves to a neighbour that has some, so
that not all move at once; doubled each time that it came to nothing, up to MOVE_WAIT_MAX."""
MOVE_WAIT_MAX: Final = 640.0
RELAY_PATIENCE: Final = 2
"""How many times more, if others acknowledge, it may fail a node that has children."""
DETOUR_ETX: Final = 2
"""One that is further away by so much ETX takes its place only when it is dead: until then others
pass on what we have, and nobody's rank below us need change."""
SILENT_PATIENCE: Final = 4.0
"""Seconds for which it must."""
PARENT_PATIENCE: Final = 15.0
"""Seconds of failures, and of silence, after which a parent is dead that no other replaces."""
DEAF_PATIENCE: Final = 60.0
"""Seconds of failures after which it is, though it is heard: it may not hear us."""
RETRY_FIRST: Final = 0.25
"""Seconds, about, until a preferred parent that failed is tried again; doubled each time."""
RETRY_DOUBLINGS_MAX: Final = 5
DENY_FIRST: Final = 3.0
"""Seconds for which a neighbour that failed is no parent; four times as long each next time."""
REFUSED_TIME: Final = 60.0
"""Seconds until a neighbour is asked again whether it goes below what it has said."""
HOLD_TIME: Final = 6.0
"""Seconds at most in which one without a parent asks such neighbours, before it detaches."""
WAVE_SHARE: Final = 1 / 30
"""For how much of the time of hysteresis one that is much better must have been so."""
BUSY_WAIT: Final = 2.0
"""Seconds, about, until a parent is asked again for which the channel was never free; and until
a link is tried again that is overdue."""
PROBE_SPACING: Final = 10.0
"""Seconds, about, from the first try of one new link of the parent set to that of the next."""
PROMISE_STEP: Final = 1
"""By how much ETX the least rank must have risen for the parent to be told."""
PROMISE_SPACING: Final = 30.0
"""Seconds, about, from one time that it is told to the next."""
REGISTER_WAIT: Final = 60.0
"""Seconds after which a registration whose outcome was never told is over."""


class Parenting:
    """One node and its parents. Born without one."""

    __slots__ = (
        "_advertiser",
        "_better",
        "_better_since",
        "_binding",
        "_chance",
        "_choose_at",
        "_dis_at",
        "_dis_interval",
        "_explorer",
        "_hold_until",
        "_move_at",
        "_move_wait",
        "_much_better_at",
        "_pending_until",
        "_place",
        "_probe_at",
        "_promise_at",
        "_rank_before",
        "_retry_at",
        "_settled_at",
        "children",
        "detached_at",
    )

    def __init__(self, place: Place, advertiser: Advertiser, chance: random.Random) -> None:
        self._place = place
        self._advertiser = advertiser
        self._chance = chance
        self._explorer = Explorer(place, chance)
        self._binding = Binding(place, chance)
        self.children = Children(place)
        self.detached_at: float | None = None
        self._hold_until = NEVER
        self._pending_until = NEVER
        self._probe_at = 0.0
        self._promise_at = 0.0
        self._choose_at = NEVER
        self._settled_at = 0.0
        self._rank_before = INFINITE_RANK
        self._retry_at = NEVER
        self._dis_at = NEVER
        self._dis_interval = place.profile.repair.dis_interval_min
        self._better: Neighbour | None = None
        self._better_since = NEVER
        self._move_at = NEVER
        self._move_wait = MOVE_WAIT
        self._much_better_at = NEVER

    @property
    def deadline(self) -> float:
        """When `handle_timer` has something to do."""
        # As `min`, at a third of its cost: it is asked after every call.
        deadline = self._explorer.deadline
        if self._pending_until < deadline:
            deadline = self._pending_until
        if self._choose_at < deadline:
            deadline = self._choose_at
        if self._retry_at < deadline:
            deadline = self._retry_at
        if self._dis_at < deadline:
            deadline = self._dis_at
        if self._binding.deadline < deadline:
            deadline = self._binding.deadline
        return self._move_at if self._move_at < deadline else deadline

    @property
    def is_settled(self) -> bool:
        """Whether nobody is asked, and nobody is better than the preferred parent."""
        return self._place.pending is None and self._better is None

    def begin(self, now: float) -> None:
        """A life begins, without a parent."""
        self._detach(now)
        # Whoever still takes us for a parent must hear first that we are none.
        wait = 2 * self._place.profile.repair.settle_time
        self._settled_at = self._choose_at = now + wait

    def handle_timer(self, *, now: float) -> None:
        """Act on what is due."""
        place = self._place
        if self._pending_until <= now:
            self.stop_asking()
            self.choose(now)
        if self._retry_at <= now:
            self._retry_at = NEVER
            if place.preferred is not None and place.preferred.metric.failures_in_a_row:
                place.ask(Act.PROBE, place.preferred.eui)
        if self._choose_at <= now:
            self._choose_at = NEVER
            self.choose(now)
        if self._dis_at <= now:
            self._solicit(now)
        if self._move_at <= now:
            self._move(now)
        if self._explorer.deadline <= now:
            self._explorer.handle_timer(now=now)
        if self._binding.deadline <= now:
            self._binding.handle_timer(now=now)

    # What came

    def consider(self, row: Neighbour, now: float) -> None:
        """That neighbour said something new."""
        place = self._place
        if row is place.pending and not place.is_usable(row, now):
            self.stop_asking()
        if row is place.preferred:
            if not place.is_usable(row, now):
                self.choose(now)
                return
            self.follow(now)
        if place.state is State.DETACHED and place.pending is None:
            if self._choose_at == NEVER:
                settle_time = place.profile.repair.settle_time
                wait = settle_time * (0.25 + 0.75 * self._chance.random())
                is_safe = row.rank < self._rank_before != INFINITE_RANK
                self._choose_at = now if is_safe else max(now + wait, self._settled_at)
            return
        if place.state is not State.JOINED or place.pending is not None:
            return
        # Who is no nearer to the root than we are is neither a better parent nor one of the set.
        if row.rank < place.rank or row in place.parents or place.preferred is None:
            self.choose(now)

    def asked(self, row: Neighbour, attempts: int, now: float, *, is_acknowledged: bool) -> None:
        """The frame that makes the pending one our parent is done with."""
        self.stop_asking()
        if is_acknowledged and self._place.is_usable(row, now):
            self._adopt(row, now)
        elif attempts:
            self._deny(row, now)
            self.choose(now)
        else:
            wait = BUSY_WAIT * (0.5 + self._chance.random())
            self._choose_at = min(self._choose_at, now + wait)

    def refused(self, row: Neighbour, now: float) -> None:
        """That neighbour cannot go below what it has said, or what we knew of it is too old."""
        row.refused_until = now + REFUSED_TIME
        if row is self._place.pending:
            self._place.counters["refused"] += 1
            self.stop_asking()
            self.choose(now)

    def stop_asking(self) -> None:
        """Whatever becomes of it, nobody is asked now."""
        self._place.pending = None
        self._pending_until = NEVER

    # Choosing

    def choose(self, now: float) -> None:
        """Take the best parent there is, keep ours, or detach."""
        place = self._place
        if place.state is State.ROOT:
            return
        place.relax(now)
        current = place.preferred
        if current is not None and not place.is_usable(current, now):
            # At once, whatever else is under way: it may be looking for a way through us.
            current = place.preferred = None
            self._gather(now)
        if place.pending is not None or place.is_leaving:
            return
        if place.lowest == INFINITE_RANK and self.children:
            return
        is_early = place.state is State.DETACHED and now < self._settled_at
        below = self._rank_before if is_early else INFINITE_RANK
        # A link beyond MAX_LINK_METRIC is still better than none at all.
        best, cost = place.best(now, etx_max=place.profile.parents.link_etx_max, below=below)
        if best is None and current is None:
            best, cost = place.best(now, etx_max=ETX_CAP, below=below)
        if current is not None:
            self._promise(current, place.path_rank(current), now)
            if place.rank >= place.lowest + place.step:
                other, other_cost = place.best_to_ask(now)
                if other is not None and other_cost < cost:
                    best, cost = other, other_cost
            if best is not None and best is not current:
                self._compare(current, best, cost, now)
            else:
                self._better, self._much_better_at = None, NEVER
        elif best is not None:
            if is_early and not best.is_grounded and place.has_ground_near(now):
                # What is nearest is safe at once, and leads nowhere; others are, a little later.
                self._choose_at = self._settled_at
            else:
                self._register(best, now)
        elif place.state is State.JOINED:
            self._hold(now)
        self._gather(now)

    def _hold(self, now: float) -> None:
        """No parent is left that is safe by what we know: others may say that they are."""
        place = self._place
        if self._hold_until == NEVER:
            self._hold_until = now + HOLD_TIME
        other, _ = place.best_to_ask(now)
        if other is None or now >= self._hold_until:
            self._detach(now)
        else:
            self._register(other, now)

    def _compare(self, current: Neighbour, best: Neighbour, cost: int, now: float) -> None:
        """Hysteresis by cost, and by time (RFC 6719 section 3.2.2)."""
        place = self._place
        parents = place.profile.parents
        gain = place.path_rank(current) - cost
        if not best.metric.is_measured:
            # It was only heard: `mesh.routing.upkeep` tries it.
            return
        if best.is_grounded and not current.is_grounded:
            # When it is time: what others said of their ground may be older than its loss.
            return
        if gain > parents.switch_etx * place.step:
            self._wait_for_ranks(best, now)
            return
        self._much_better_at = NEVER
        if gain <= place.worth:
            self._better = None
        elif self._better is not best:
            self._better, self._better_since = best, now
        elif now - self._better_since >= parents.switch_time:
            self._register(best, now)

    def _wait_for_ranks(self, best: Neighbour, now: float) -> None:
        """Ranks go up and down together where the air is full: whoever is better is so for a while.

        Who has nobody below it, and is not known to the root, disturbs nobody.
        """
        if self._much_better_at == NEVER and self._advertiser.is_known:
            wait = WAVE_SHARE * self._place.profile.parents.switch_time
            self._much_better_at = now + wait * (0.75 + 0.5 * self._chance.random())
        if self._advertiser.is_known and now < self._much_better_at:
            self._choose_at = min(self._choose_at, self._much_better_at)
        else:
            self._register(best, now)

    def _register(self, row: Neighbour, now: float) -> None:
        self._place.pending = row
        self._pending_until = now + REGISTER_WAIT
        self._better, self._much_better_at = None, NEVER
        self._place.ask(Act.REGISTER, row.eui)

    def _adopt(self, row: Neighbour, now: float) -> None:
        """`row` knows that it is our parent: now it is."""
        place = self._place
        if place.lowest < place.offered or (
            place.lowest == INFINITE_RANK and (row.child_until > now or self.children)
        ):
            # It said something new while it acknowledged, or a child came meanwhile.
            place.counters["parent withdrew"] += 1
            self.choose(now)
            return
        was, had_ground = place.preferred, place.is_grounded
        place.promised = place.offered
        self._hold_until = NEVER
        was_detached = place.state is State.DETACHED
        place.preferred = row
        place.state = State.JOINED
        self.detached_at = None
        self.children.clear()
        self._dis_at = NEVER
        self._dis_interval = place.profile.repair.dis_interval_min
        self._advertiser.end_poison()
        place.counters["parent changed"] += 1
        self.follow(now, is_new=True)
        if place.state is not State.JOINED:
            return
        if was_detached or had_ground is not place.is_grounded or not self._advertiser.is_running:
            self._advertiser.begin(now=now)
        self._explorer.begin(now)
        self._gather(now)
        if was is not row:
            if was is not None and not was.metric.failures_in_a_row:
                place.ask(Act.LEAVE, was.eui)
            place.ask(Act.DAO)

    def follow(self, now: float, *, is_new: bool = False) -> None:
        """Take the rank that the preferred parent gives us, if it differs enough."""
        place = self._place
        parent = place.preferred
        if parent is None:
            return
        place.relax(now)
        cost = place.path_rank(parent)
        self._promise(parent, cost, now)
        cost = max(cost, place.promised)
        increase = place.configuration.rank_increase_max
        if cost >= INFINITE_RANK or (
            increase and place.lowest != INFINITE_RANK and cost > place.lowest + increase
        ):
            self.choose(now)
            return
        unit = place.unit
        if is_new or abs(cost - place.rank) > unit // 2 or place.rank < parent.rank + unit:
            place.rank = cost
            place.lowest = min(place.lowest, cost)
            if not is_new:
                self._gather(now)
        self._binding.note(now)
        self._advertiser.note_rank(now)

    def _promise(self, parent: Neighbour, cost: int, now: float) -> None:
        """Tell the parent of it where our rank shall fall, or is higher for good."""
        place = self._place
        if place.pending is not None or now < self._promise_at or parent.rank == INFINITE_RANK:
            return
        least, step = min(parent.rank + 1, place.lowest), place.step
        if cost + step // 2 < place.promised or least >= place.promised + PROMISE_STEP * step:
            self._promise_at = now + PROMISE_SPACING * (0.5 + self._chance.random())
            place.ask(Act.REGISTER, parent.eui)

    def tell_promise(self, row: Neighbour, now: float) -> None:
        """That neighbour asks what binds it: our promise, as high as it may be, or nothing."""
        place = self._place
        if row is place.pending:
            return
        if row is place.preferred:
            self._promise_at = now + PROMISE_SPACING * (0.5 + self._chance.random())
            place.ask(Act.REGISTER, row.eui)
        else:
            place.ask(Act.LEAVE, row.eui)

    def _gather(self, now: float) -> None:
        """The parent set anew."""
        place = self._place
        before, place.parents = place.parents, place.parent_set(now)
        if place.parents == before:
            return
        interval = place.profile.parents.probe_interval
        for row in place.parents:
            is_unsure = row.metric.samples == 0 or row.metric.is_due(interval, now=now)
            if is_unsure and now >= self._probe_at and row is not place.preferred:
                # Nothing is known of this link but that it was heard, or that it was one once.
                self._probe_at = now + PROBE_SPACING * (0.5 + self._chance.random())
                place.ask(Act.PROBE, row.eui)
            elif row not in before:
                # It may be due before the next look, which was planned without it.
                due = max(row.metric.tried_at + interval, self._probe_at)
                place.look_at = min(place.look_at, due)
        if place.preferred is not None and set(place.parents) != set(before):
            place.ask(Act.DAO)

    # Ground

    def note_ground(self, row: Neighbour, now: float) -> None:
        """A neighbour said whether its way up ends at a root with a connection."""
        place = self._place
        if place.state is not State.JOINED or place.is_grounded:
            self._move_at = NEVER
            if place.is_grounded and place.state is State.JOINED:
                self._move_wait = MOVE_WAIT
        elif row.is_grounded and row.rank < INFINITE_RANK:
            # Later: if its ground was ours, it will have heard by then that it is gone.
            wait = self._move_wait * (0.5 + self._chance.random())
            self._move_at = min(self._move_at, now + wait)

    def _move(self, now: float) -> None:
        """Go to a parent that leads to a connection, if there is one; let go of ours for it."""
        place = self._place
        self._move_at = NEVER
        current = place.preferred
        if current is None or place.is_grounded or place.is_leaving:
            return
        if place.pending is not None:
            self._move_at = now + MOVE_WAIT
            return
        best, _ = place.best(now, etx_max=place.profile.parents.link_etx_max)
        if best is not None and best.is_grounded:
            self._register(best, now)
        elif place.has_ground_near(now):
            place.counters["left for ground"] += 1
            self._move_wait = min(2 * self._move_wait, MOVE_WAIT_MAX)
            self._detach(now)

    # Failures and repair

    def failed(self, row: Neighbour, now: float) -> None:
        """A parent did not acknowledge a frame, with all its attempts."""
        place = self._place
        failures, failures_max = row.metric.failures_in_a_row, place.profile.parents.failures_max
        if row is not place.preferred:
            if failures >= failures_max:
                self._leave(row, now)
            return
        if failures >= failures_max and place.pending is None:
            # Who acknowledges now shows that it is the parent, and not the channel.
            other, cost = place.best(now, etx_max=ETX_CAP, other_than=row)
            if other is None:
                other, cost = place.best_to_ask(now, other_than=row)
            if other is not None and (
                cost <= place.rank + DETOUR_ETX * place.step or not place.has_children(now)
            ):
                self._register(other, now)
            elif place.acknowledged_at <= row.metric.failing_since:
                sibling = place.sibling(now=now, tried=(row.eui,))
                if sibling is not None:
                    place.ask(Act.PROBE, sibling.eui)
        if self._is_dead(row, now):
            self._leave(row, now)
            return
        pause = RETRY_FIRST * 2 ** min(failures - 1, RETRY_DOUBLINGS_MAX)
        self._retry_at = min(self._retry_at, now + pause * (0.5 + self._chance.random()))

    def compare_with(self, other: Neighbour, now: float) -> None:
        """A neighbour acknowledged: if the preferred parent did not, it is not the channel."""
        row = self._place.preferred
        if row is None or row is other or not row.metric.failures_in_a_row:
            return
        if self._is_dead(row, now):
            self._leave(row, now)

    def _is_dead(self, row: Neighbour, now: float) -> bool:
        """Whether it failed while others did not, or for long enough."""
        place, metric = self._place, row.metric
        parents = place.profile.parents
        since, failures = metric.failing_since, metric.failures_in_a_row
        is_silent = row.heard_at <= since
        if is_silent and place.pending is None and place.acknowledged_at > since:
            # The channel is free enough. Over a poor link two failures are nothing strange; and one
            # that is heard may be busy, as a root is while an area forms.
            if place.has_children(now):
                # All below us would lose their way with ours: first the others are tried, by what
                # we have to send.
                enough = RELAY_PATIENCE * parents.failures_max
                return failures >= enough and now - since >= SILENT_PATIENCE
            is_poor = metric.etx > parents.link_etx_max
            return failures >= parents.failures_max * (LAST_PARENT_PATIENCE if is_poor else 1)
        return failures >= LAST_PARENT_PATIENCE * parents.failures_max and (
            now - since >= (PARENT_PATIENCE if is_silent else DEAF_PATIENCE)
        )

    def _leave(self, row: Neighbour, now: float) -> None:
        self._place.counters["parent failed"] += 1
        self._deny(row, now)
        self.choose(now)

    def _deny(self, row: Neighbour, now: float) -> None:
        """It was not reached: others first, for a while."""
        deny_time = DENY_FIRST * 4 ** min(row.denials, 8)
        row.denied_until = now + min(deny_time, self._place.profile.parents.deny_time)
        row.denials += 1
        self._place.counters["neighbour denied"] += 1

    def _detach(self, now: float) -> None:
        """No parent is left: tell the children, then look for others."""
        place = self._place
        repair = place.profile.repair
        place.counters["detached"] += 1
        self._rank_before = place.rank
        self._hold_until = NEVER
        place.state = State.DETACHED
        place.preferred = None
        place.parents = ()
        place.rank = INFINITE_RANK
        self.detached_at = now
        self.stop_asking()
        place.is_leaving = False
        self._settled_at = now + repair.settle_time
        self._advertiser.poison(now)
        self._dis_interval = repair.dis_interval_min
        # The first soon after the poison; chance keeps orphans of one parent apart.
        self._dis_at = now + repair.settle_time * (0.25 + 0.5 * self._chance.random())
        self.children.begin(now)
        if not self.children:
            self._forget_rank(now)

    def drop_child(self, eui: Eui64, now: float) -> None:
        """That neighbour does not have us as its parent any more."""
        if self.children.drop(eui):
            self._forget_rank(now)

    def loosen(self, now: float) -> None:
        """A child promised more, or left: we may promise more, or go elsewhere."""
        if self._place.state is State.JOINED:
            self.follow(now)

    def poisoned(self, row: Neighbour, now: float, *, is_acknowledged: bool) -> None:
        """A child was told, or could not be reached."""
        if self.children.note(row, is_acknowledged=is_acknowledged):
            self._forget_rank(now)

    def _forget_rank(self, now: float) -> None:
        """Nobody has us as a parent: any neighbour may become ours, if we are detached."""
        if self._place.state is State.DETACHED:
            self._place.lowest = INFINITE_RANK
            self._choose_at = min(self._choose_at, now)

    def _solicit(self, now: float) -> None:
        repair = self._place.profile.repair
        self._dis_interval = min(2 * self._dis_interval, repair.dis_interval_max)
        self._dis_at = now + self._dis_interval * (0.75 + 0.5 * self._chance.random())
        self._place.ask(Act.DIS)
        for row in self._place.neighbours:
            # Whoever is left may be the only one.
            row.denied_until = min(row.denied_until, now)
        self._choose_at = min(self._choose_at, now + repair.settle_time)
