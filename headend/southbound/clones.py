"""Notices that two devices hold the keys of one meter: somebody copied its storage.

What shows it: two messages under one number; a report made after a higher number came; a report
made after its session was replaced. Which of the two is the meter cannot be told from here, so both
are named, by where they were heard, and the session ends: who holds the meter's own key opens a new
one. What to do about it is the operator's.

Limit   CHECKS_MAX under way, STRANGE_CHECKS_MAX of them for messages that nobody vouches for; what
        shows itself meanwhile is counted and not looked into. Only a report says when it was made,
        by a clock that is set: a copy is noticed when it reports, within a day
Never   flags anything for a message that is not authentic, or for one that was merely replayed or
        held back, however long
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine
from typing import Final

from amistack import telemetry
from amistack.coap.message import Message
from amistack.errors import CoapError, LocalProtocolError, ModelError, OscoreError, StoreError
from amistack.identifiers import Eui64, format_eui64
from amistack.model import ClockState, DailyReport
from amistack.model.resources import REPORT
from amistack.session.oscore import ReplayWindow, SecurityContext, unprotect_request
from amistack.stack import LATE_MAX_S, NumberTaken, StrangeSession
from headend.domain.meters import CloneSign, FormerSession
from headend.southbound.paths import path_of
from headend.store.interface import Store, SuspectClone

CHECKS_MAX: Final = 64
STRANGE_CHECKS_MAX: Final = 32
"""Anybody can cause these: they leave room for the others."""
NOT_LOOKED_INTO: Final = "sign of a clone not looked into"
SETTLED_S: Final = 300
"""Seconds after which nothing of a replaced session is still on its way (RFC 7252 4.8.2); and by
which a report must be younger than what it is compared with, as clocks are not quite right."""


class Clones:
    """The signs of copied meters, each looked into beside the traffic."""

    def __init__(
        self,
        *,
        store: Store,
        wall: Callable[[], float],
        known_path: Callable[[Eui64], str | None],
        end_session: Callable[[Eui64], None],
    ) -> None:
        """`wall` is UTC in seconds; `known_path` says where a meter was heard before."""
        self._store = store
        self._wall = wall
        self._known_path = known_path
        self._end_session = end_session
        self._checks: set[asyncio.Task[None]] = set()
        self._strange_count = 0
        self._log = telemetry.logger()
        self.flagged: Counter[str] = Counter()

    @property
    def depth(self) -> tuple[int, int]:
        """Checks under way, and how many there may be."""
        return len(self._checks), CHECKS_MAX

    async def stop(self) -> None:
        """Look into nothing any more."""
        for check in self._checks:
            check.cancel()
        await asyncio.gather(*self._checks, return_exceptions=True)

    def number_behind(self, meter: Eui64, message: Message, path: str, other_path: str) -> None:
        """A delivery came with a number below one that came, it seems, long before."""
        if self._is_of_now(message):  # Otherwise somebody may have held it back.
            self._look_into(self._check_behind(meter, path, other_path))

    def number_taken(self, event: NumberTaken) -> None:
        """An authentic message came under a number that was used."""
        if event.is_other or self._is_new(event):
            meter = Eui64(event.identity)
            path = path_of(event.peer)
            other_path = self._known_path(meter) or ""
            self._look_into(
                self._flag(meter, CloneSign.NUMBER_TAKEN, path, other_path, ends_session=True)
            )

    def session_strange(self, event: StrangeSession) -> None:
        """A message came under a session that is not in use."""
        if self._strange_count >= STRANGE_CHECKS_MAX:
            self.flagged[NOT_LOOKED_INTO] += 1
            return
        check = self._look_into(self._check_former(event))
        if check is not None:
            self._strange_count += 1
            check.add_done_callback(self._end_strange)

    def _end_strange(self, _: asyncio.Task[None]) -> None:
        self._strange_count -= 1

    def _is_new(self, event: NumberTaken) -> bool:
        """Whether a message that is not remembered was made lately, and so is no replay.

        And after the session's newest came: it was not held back until its number was too old.
        """
        if event.remembered_s < LATE_MAX_S or not self._is_of_now(event.message):
            return False
        made_at = _made_at(event.message)
        return made_at is not None and made_at > self._wall() - event.newest_s + SETTLED_S

    def _is_of_now(self, message: Message) -> bool:
        """Whether a message says that it was made just now, as far as clocks go."""
        made_at = _made_at(message)
        return made_at is not None and abs(made_at - self._wall()) < LATE_MAX_S / 2

    async def _check_behind(self, meter: Eui64, path: str, other_path: str) -> None:
        heard_at = await self._store.heard_at(meter)
        if heard_at is not None and self._wall() - heard_at > LATE_MAX_S:
            await self._flag(meter, CloneSign.NUMBER_BEHIND, path, other_path, ends_session=True)

    async def _check_former(self, event: StrangeSession) -> None:
        former = await self._store.find_former(event.recipient_id)
        if former is None or self._wall() - former.replaced_at <= SETTLED_S:
            return
        message = _opened_in(former, event.message)
        made_at = None if message is None else _made_at(message)
        # Not all that was accepted is in a stored window: one made before proves nothing.
        if made_at is not None and made_at > former.replaced_at + SETTLED_S:
            path = path_of(event.peer)
            other_path = self._known_path(former.meter) or ""
            # Its session is gone already: who spoke is told so, and opens a new one.
            await self._flag(
                former.meter, CloneSign.FORMER_SESSION, path, other_path, ends_session=False
            )

    async def _flag(
        self, meter: Eui64, sign: CloneSign, path: str, other_path: str, *, ends_session: bool
    ) -> None:
        at = int(self._wall())
        self.flagged["meter seems to be cloned"] += 1
        self._log.error(
            "meter seems to be cloned",
            meter=format_eui64(meter),
            sign=sign.value,
            path=path,
            other_path=other_path,
        )
        if ends_session:
            self._end_session(meter)
        await self._store.commit(SuspectClone(meter, sign, at, path, other_path, ends_session))

    def _look_into(self, check: Coroutine[None, None, None]) -> asyncio.Task[None] | None:
        if len(self._checks) >= CHECKS_MAX:
            check.close()
            self.flagged[NOT_LOOKED_INTO] += 1
            return None
        task = asyncio.create_task(self._guard(check))
        self._checks.add(task)
        task.add_done_callback(self._checks.discard)
        return task

    async def _guard(self, check: Coroutine[None, None, None]) -> None:
        try:
            await check
        except StoreError:
            self.flagged[NOT_LOOKED_INTO] += 1


def _made_at(message: Message) -> int | None:
    """UTC s at which a message was made, or None if it does not say so by a clock that is set."""
    try:
        if message.path != REPORT:
            return None
        report, _ = DailyReport.decode_leniently(message.payload)
    except (CoapError, ModelError):
        return None
    return report.clock.utc_s if report.clock.state is ClockState.SET else None


def _opened_in(former: FormerSession, message: Message) -> Message | None:
    """What is in a message that is authentic in a replaced session, and new there as far as known.

    None for any other.
    """
    try:
        context = SecurityContext.derive(
            master_secret=former.master_secret,
            master_salt=former.master_salt,
            sender_id=former.sender_id,
            recipient_id=former.recipient_id,
            algorithm=former.algorithm,
        )
        context.replay_window = ReplayWindow.restore(*former.window)
        opened, _ = unprotect_request(context, message)
    except (OscoreError, LocalProtocolError):
        return None
    return opened
