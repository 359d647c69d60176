"""When a node says where it stands: by Trickle, to who needs it, and at once that it has no way.

Spec    RFC 6206 (Trickle), RFC 6550 sections 8.3 (DIO) and 8.2.2.5 (poisoning); decisions 19, 20
In      what was heard that agrees, asks or differs; `poison`; `handle_timer`
Out     DIOs in the actions of the place; `deadline`
Limit   one answer to a neighbour in REPLY_INTERVAL, one reset for the sake of others in
        RESET_INTERVAL
"""

from __future__ import annotations

import random
from typing import Final

from amistack.identifiers import Eui64
from mesh.routing.acts import Act, State
from mesh.routing.place import Place
from mesh.routing.trickle import NEVER, Trickle

REPLY_INTERVAL: Final = 2.0
"""Seconds between two unsolicited answers to one neighbour."""
RESET_INTERVAL: Final = 8.0
"""Seconds between two resets of Trickle because somebody asks, needs us, or is mistaken."""
HELPER_COUNT: Final = 6
"""Of those who hear that a neighbour has no way, about so many soon say where they stand."""
NEWS_ETX: Final = 0.75
"""A rank that moved by so much ETX since all heard it is said once more, soon."""
NEWS_WAIT: Final = (60.0, 180.0)
"""Seconds, from and to, until then: it may move on, and those below it speak after it."""
JUMP_ETX: Final = 8
"""One that moved by so much is said as often as Trickle says what is new."""
POISON_SPACING: Final = 0.15
"""Seconds between repetitions of a poison for everybody."""


class Advertiser:
    """What one node says of its place, unasked."""

    __slots__ = (
        "_chance",
        "_is_known",
        "_news_at",
        "_place",
        "_poison_at",
        "_poisons_left",
        "_rank_told",
        "_replied",
        "_reset_on_request_at",
        "_trickle",
    )

    def __init__(self, place: Place, chance: random.Random) -> None:
        self._place = place
        self._chance = chance
        self._trickle = self._make_trickle()
        self._rank_told = place.rank
        self._news_at = NEVER
        self._poisons_left = 0
        self._poison_at = NEVER
        self._replied: dict[Eui64, float] = {}
        self._reset_on_request_at = -NEVER
        self._is_known = place.state is State.ROOT

    def note_known(self, now: float) -> None:
        """The root has a way to us: now others may come after us.

        Until then, in each life, a node says to nobody where it stands, so that an area grows no
        faster than its root gets to know it.
        """
        if not self._is_known:
            self._is_known = True
            if self._place.state is State.JOINED:
                self._trickle.start(now=now)

    @property
    def deadline(self) -> float:
        """When `handle_timer` has something to do."""
        deadline = self._trickle.deadline
        if self._news_at < deadline:
            deadline = self._news_at
        return self._poison_at if self._poison_at < deadline else deadline

    @property
    def is_known(self) -> bool:
        """Whether the root has a way to us, in this life."""
        return self._is_known

    @property
    def is_running(self) -> bool:
        """Whether it says anything by itself."""
        return self._trickle.is_running

    def begin(self, *, now: float) -> None:
        """Something is new that all shall hear soon."""
        if self._is_known:
            self._trickle.start(now=now)

    def stop(self) -> None:
        """There is nothing to say."""
        self._trickle.stop()
        self._news_at = NEVER

    def configure(self, *, now: float) -> None:
        """The root's figures changed."""
        is_running = self._trickle.is_running
        self._trickle = self._make_trickle()
        if is_running:
            self._trickle.start(now=now)

    def hear_consistent(self) -> None:
        """Somebody says what we would."""
        self._trickle.hear_consistent()

    def hear_request(self, now: float) -> None:
        """Somebody should hear a DIO of ours soon; a storm of such wishes is one."""
        if (
            self._place.state is State.DETACHED
            or not self._is_known
            or now - self._reset_on_request_at < RESET_INTERVAL
        ):
            return
        self._reset_on_request_at = now
        self._trickle.hear_inconsistent(now=now)

    def hear_need(self, now: float) -> None:
        """Somebody said to all that it has no way: some of those who hear it are enough."""
        if self._chance.random() * len(self._place.neighbours) < HELPER_COUNT:
            self.hear_request(now)

    def answer(self, neighbour: Eui64, now: float) -> None:
        """That neighbour should hear where we stand: not too often."""
        self._reply(Act.DIO_TO, neighbour, now)

    def refuse(self, neighbour: Eui64, now: float) -> None:
        """We do not take that neighbour as a child, and it should know why."""
        self._reply(Act.REFUSE, neighbour, now)

    def _reply(self, act: Act, neighbour: Eui64, now: float) -> None:
        if now - self._replied.get(neighbour, -NEVER) < REPLY_INTERVAL:
            return
        if len(self._replied) > self._place.profile.parents.neighbour_count_max:
            self._replied.clear()
        self._replied[neighbour] = now
        self._place.ask(act, neighbour)

    def note_rank(self, now: float) -> None:
        """Our rank may have moved: all shall hear if it did by much."""
        if not self._is_known:
            return
        if self._is_news(JUMP_ETX):
            # What nobody has heard yet stays news: others cannot say it for us.
            self._trickle.hear_inconsistent(now=now)
        elif self._news_at == NEVER and self._is_news(NEWS_ETX):
            self._news_at = now + self._chance.uniform(*NEWS_WAIT)

    def _is_news(self, etx: float) -> bool:
        """Whether our rank is another one, by so much, than all heard last."""
        return abs(self._place.rank - self._rank_told) >= etx * self._place.step

    def poison(self, now: float) -> None:
        """Say at once, and again, that we have no way."""
        self._trickle.stop()
        self._news_at = NEVER
        self._poisons_left = self._place.profile.repair.poison_count
        self._poison_at = now

    def end_poison(self) -> None:
        """We have a way."""
        self._poisons_left = 0
        self._poison_at = NEVER

    def handle_timer(self, *, now: float) -> None:
        """Say what is due."""
        is_due = self._trickle.deadline <= now and self._trickle.handle_timer(
            now=now, is_news=self._is_news(NEWS_ETX / 2)
        )
        if self._news_at <= now:
            self._news_at = NEVER
            # It may have come back meanwhile.
            is_due = is_due or (self._trickle.is_running and self._is_news(NEWS_ETX))
        if is_due:
            self._rank_told = self._place.rank
            self._place.ask(Act.DIO)
        if self._poison_at > now:
            return
        if self._place.pending is not None:
            # What is said while a parent is asked must not take the question back.
            self._poison_at = now + POISON_SPACING
            return
        self._poisons_left -= 1
        self._poison_at = now + POISON_SPACING if self._poisons_left > 0 else NEVER
        self._place.ask(Act.DIO)

    def _make_trickle(self) -> Trickle:
        configuration = self._place.configuration
        return Trickle(
            2**configuration.interval_min / 1000.0,
            configuration.interval_doublings,
            configuration.redundancy,
            self._chance,
        )
