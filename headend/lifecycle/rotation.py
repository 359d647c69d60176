"""Another key for the head-end, meter by meter: each confirms before the old one goes.

    begin            a next key is made; its public half goes to whoever keeps the root
    begin(statement) the root has vouched for it: every meter is told when it is next heard
    finish           all have confirmed, or an operator insists: the old key answers no more

A meter that was away meanwhile asks for the old key, is answered with the new one and the root's
statement, and follows by itself.

Raises  RotationRefused, one line that says what to do; StoreError
Limit   TOLD_MAX meters are being told at a time; who does not fit is told when it is next heard
Never   counts a meter before it said, in its session, that it keeps the key
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from amistack.coap.codes import Code
from amistack.coap.message import Message
from amistack.errors import ConfigError, StoreError
from amistack.identifiers import Eui64
from amistack.model import CONTENT_FORMAT_V1, HeadEndKeyNotice
from amistack.model.resources import HEAD_END_KEY
from headend.domain.asking import Asker, NotAnswered, Unreachable
from headend.domain.refusals import RotationRefused
from headend.identity import IdentityFiles, OwnKey
from headend.store.interface import ConfirmTrust, Store

TOLD_MAX: Final = 64
DEADLINE_S: Final = 60.0
REFUSED_WORDS_MAX: Final = 40


@dataclass(frozen=True, slots=True)
class KeyState:
    """One of the head-end's keys: `stage` in a word, and how many meters confirmed it."""

    kid: bytes
    public_key: bytes
    epoch: int | None
    stage: str
    meter_count: int


@dataclass(frozen=True, slots=True)
class RotationState:
    """Where a change of keys stands. `next_epoch` is what the root's next statement needs.

    `unconfirmed_count`: meters in service that have yet to confirm the newest key; None if none is
    on offer.
    """

    keys: tuple[KeyState, ...]
    root: bytes | None
    next_epoch: int
    unconfirmed_count: int | None
    counters: Mapping[str, int]


class Rotation:
    """The head-end's keys, and the meters that are to be told of a new one."""

    def __init__(
        self,
        *,
        files: IdentityFiles,
        store: Store,
        asker: Asker,
        wall: Callable[[], float],
        on_keys_changed: Callable[[], None] | None = None,
    ) -> None:
        """`wall` is UTC in seconds; `on_keys_changed` is called after the keys in use changed."""
        self._files = files
        self._store = store
        self._asker = asker
        self._wall = wall
        self._on_keys_changed = on_keys_changed
        self._waiting: set[Eui64] = set()
        self._under_way: dict[Eui64, asyncio.Task[None]] = {}
        self._lock = asyncio.Lock()
        self.counters: Counter[str] = Counter()

    async def start(self) -> None:
        """Take up who is still to be told."""
        offered = self._offered()
        if offered is not None:
            self._waiting = set(await self._store.unconfirmed(offered.kid))

    def stop(self) -> None:
        """Tell nobody any more."""
        self._waiting.clear()
        for task in self._under_way.values():
            task.cancel()

    @property
    def depth(self) -> tuple[int, int]:
        """Meters being told, and how many there may be at a time."""
        return len(self._under_way), TOLD_MAX

    # What an operator does

    async def begin(self, statement: bytes | None = None) -> RotationState:
        """Make the next key; or, with the root's statement on it, begin to tell the meters."""
        async with self._lock:
            try:
                if statement is None:
                    if self._files.root is None:
                        raise RotationRefused(
                            "there is no root to vouch for another key: make one with `headend pki "
                            "root init`, and name its public key as identity.root_key"
                        )
                    self._files.make_next()
                else:
                    self._files.certify(statement)
            except ConfigError as error:
                raise RotationRefused(str(error)) from error
            self._tell_keys_changed()
            return await self._state()

    async def status(self) -> RotationState:
        """How far it is. Whoever was enrolled meanwhile is to be told as well, from now on."""
        async with self._lock:
            return await self._state()

    async def finish(self, *, is_forced: bool = False) -> RotationState:
        """Let the new key take the old one's place; `is_forced` though meters have yet to confirm.

        Those follow when they come, if they know the root.
        """
        async with self._lock:
            following = self._files.next
            if following is None:
                raise RotationRefused("there is no next key: `headend pki rotate begin` makes one")
            if following.statement is None:
                raise RotationRefused(
                    f"the root has not vouched for key {following.kid.hex()}: "
                    "`headend pki rotate begin --statement FILE` takes its statement"
                )
            count = len(list(await self._store.unconfirmed(following.kid)))
            if count and not is_forced:
                raise RotationRefused(
                    f"{count} meters have not confirmed key {following.kid.hex()}: wait, or insist "
                    "with --force; those that know the root will follow when they come"
                )
            try:
                self._files.take_up_next()
            except ConfigError as error:
                raise RotationRefused(str(error)) from error
            self._tell_keys_changed()
            return await self._state()

    # What meters do

    def heard(self, meter: Eui64) -> None:
        """A meter has spoken: tell it now if it is to be told."""
        if meter not in self._waiting or meter in self._under_way:
            return
        if len(self._under_way) >= TOLD_MAX:
            return  # It is heard again.
        task = asyncio.create_task(self._tell(meter))
        self._under_way[meter] = task
        task.add_done_callback(lambda _: self._under_way.pop(meter, None))

    async def _tell(self, meter: Eui64) -> None:
        offered = self._offered()
        if offered is None or offered.signed is None:
            return
        notice = HeadEndKeyNotice(offered.signed, self._files.root)
        wish = Message.request(
            Code.PUT,
            HEAD_END_KEY,
            payload=notice.encode(),
            content_format=CONTENT_FORMAT_V1,
        )
        try:
            answer, _ = await self._asker.ask(meter, wish, deadline_s=DEADLINE_S)
            if answer.code != Code.CHANGED:
                words = answer.payload[:REFUSED_WORDS_MAX].decode(errors="replace")
                known = words if words in _REFUSALS else "otherwise"
                self.counters[f"key refused: {known}"] += 1
                return
            await self._store.commit(ConfirmTrust(meter, offered.kid, int(self._wall())))
        except (Unreachable, NotAnswered):
            self.counters["key not answered"] += 1
        except StoreError:
            self.counters["confirmation not stored"] += 1
        else:
            self.counters["key confirmed"] += 1
            self._waiting.discard(meter)

    def _offered(self) -> OwnKey | None:
        """The newest key that the root vouches for: the next one, or else the current one."""
        following, current = self._files.next, self._files.current
        if following is not None and following.statement is not None:
            return following
        return current if current.statement is not None else None

    async def _state(self) -> RotationState:
        offered, current = self._offered(), self._files.current
        counts = await self._store.trust_counts()
        self._waiting = set()
        if offered is not None:
            self._waiting = set(await self._store.unconfirmed(offered.kid))
        keys = [_key_state(current, "current", counts)]
        if (following := self._files.next) is not None:
            stage = "to be signed" if following.statement is None else "on offer"
            keys.append(_key_state(following, stage, counts))
        return RotationState(
            tuple(keys),
            self._files.root,
            self._files.next_epoch,
            None if offered is None else len(self._waiting),
            dict(self.counters),
        )

    def _tell_keys_changed(self) -> None:
        if self._on_keys_changed is not None:
            self._on_keys_changed()


_REFUSALS: Final = frozenset({"not by the root", "an older epoch", "another root", "no root"})
"""What meters say; anything else is counted together."""


def _key_state(key: OwnKey, stage: str, counts: Mapping[bytes, int]) -> KeyState:
    epoch = None if key.statement is None else key.statement.epoch
    return KeyState(key.kid, key.public_key, epoch, stage, counts.get(key.kid, 0))
