"""Read a meter now: the wish is stored, the meter asked, what came of it stored and told.

Spec    docs/protocol/model.md, "On-demand read"
Gives   the read as it was stored, however it ended: only a refused wish is an error
Raises  UnknownMeter, TooMany, Stopping, BadWish; StoreError
Limit   ASKED_MAX reads are under way, WAITING_MAX more wait for their turn
Never   asks before the wish is durable, or tells a result before that is
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections import Counter
from collections.abc import Callable
from typing import Final

from amistack.coap.codes import Code, format_code, is_success
from amistack.coap.message import Message
from amistack.errors import ModelError
from amistack.identifiers import Eui64
from amistack.model import CONTENT_FORMAT_V1, ReadAnswer, ReadParts, ReadRequest
from amistack.model.resources import READ
from headend.domain.asking import Asker, NotAnswered, Unreachable
from headend.domain.readings import OnDemandRead, ReadResult
from headend.domain.refusals import BadWish, Stopping, TooMany, UnknownMeter
from headend.store.interface import InterruptReads, KeepRead, Store

ASKED_MAX: Final = 1_024
WAITING_MAX: Final = 4_096
DEADLINE_S: Final = 30.0
DEADLINE_S_MAX: Final = 600.0
IDENTIFIER_SIZE: Final = 8
DETAIL_SIZE_MAX: Final = 160
EVERYTHING: Final = ReadParts.REGISTERS | ReadParts.INTERVALS | ReadParts.LOG


class OnDemandReads:
    """Every on-demand read of this head-end."""

    def __init__(
        self,
        *,
        store: Store,
        asker: Asker,
        entropy: Callable[[int], bytes],
        wall: Callable[[], float],
    ) -> None:
        """`entropy` gives so many octets, `wall` is UTC in seconds."""
        self._store = store
        self._asker = asker
        self._entropy = entropy
        self._wall = wall
        self._slots = asyncio.Semaphore(ASKED_MAX)
        self._asking: set[asyncio.Task[OnDemandRead]] = set()
        self._stopping = asyncio.Event()
        self.results: Counter[str] = Counter()

    async def start(self) -> None:
        """Settle what an earlier run left behind: nobody waits for those answers any more."""
        await self._store.commit(InterruptReads())

    def stop(self) -> None:
        """Begin no more reads, and end those under way as interrupted."""
        self._stopping.set()
        for task in self._asking:
            task.cancel()

    @property
    def depth(self) -> tuple[int, int]:
        """Reads under way or waiting, and how many there may be."""
        return len(self._asking), ASKED_MAX + WAITING_MAX

    async def read(
        self, meter: Eui64, *, deadline_s: float = DEADLINE_S, parts: ReadParts = EVERYTHING
    ) -> OnDemandRead:
        """Ask `meter` for `parts`; what became of it, within about `deadline_s`."""
        if not 0 < deadline_s <= DEADLINE_S_MAX:
            raise BadWish(
                f"a deadline of {deadline_s:g} s, expected above 0 and at most {DEADLINE_S_MAX:g}"
            )
        if self._stopping.is_set():
            raise Stopping("the head-end is stopping")
        if len(self._asking) >= ASKED_MAX + WAITING_MAX:
            self.results["too many"] += 1
            raise TooMany(f"{len(self._asking)} reads are under way already; try again later")
        if await self._store.find_meter(meter) is None:
            raise UnknownMeter(meter)
        wish = OnDemandRead(self._entropy(IDENTIFIER_SIZE), meter, self._now_ms(), ReadResult.ASKED)
        await self._store.commit(KeepRead(wish))
        try:
            outcome = await self._carry_out(wish, parts, deadline_s)
        except asyncio.CancelledError:
            self.results["abandoned"] += 1
            raise
        self.results[outcome.result.words] += 1
        await self._store.commit(KeepRead(outcome))
        return outcome

    async def _carry_out(
        self, wish: OnDemandRead, parts: ReadParts, deadline_s: float
    ) -> OnDemandRead:
        if self._stopping.is_set():
            return self._ended(wish, ReadResult.INTERRUPTED, "the head-end is stopping")
        task = asyncio.create_task(self._ask(wish, parts, deadline_s))
        self._asking.add(task)
        task.add_done_callback(self._asking.discard)
        try:
            return await task
        except asyncio.CancelledError:
            if self._stopping.is_set():
                return self._ended(wish, ReadResult.INTERRUPTED, "the head-end is stopping")
            task.cancel()  # Whoever wished it has gone away.
            raise

    async def _ask(self, wish: OnDemandRead, parts: ReadParts, deadline_s: float) -> OnDemandRead:
        message = Message.request(
            Code.FETCH,
            READ,
            payload=ReadRequest(wish.identifier, parts).encode(),
            content_format=CONTENT_FORMAT_V1,
            accept=CONTENT_FORMAT_V1,
        )
        loop = asyncio.get_running_loop()
        ends_at = loop.time() + deadline_s
        try:
            async with asyncio.timeout_at(ends_at):
                await self._slots.acquire()
        except TimeoutError:
            return self._ended(wish, ReadResult.TIMED_OUT, f"{ASKED_MAX} reads went before it")
        try:
            left_s = max(0.001, ends_at - loop.time())
            answer, path = await self._asker.ask(wish.meter, message, deadline_s=left_s)
        except Unreachable as error:
            return self._ended(wish, ReadResult.UNREACHABLE, str(error))
        except NotAnswered as error:
            result = ReadResult.TIMED_OUT if error.is_timeout else ReadResult.REFUSED
            return self._ended(wish, result, str(error))
        finally:
            self._slots.release()
        return self._judge(wish, answer, path)

    def _judge(self, wish: OnDemandRead, answer: Message, path: str) -> OnDemandRead:
        """What an authentic answer comes to; what cannot be read is kept as it came."""
        came = dataclasses.replace(
            wish, answered_ms=self._now_ms(), path=path, answer=answer.payload
        )
        if not is_success(answer.code):
            said = answer.payload.decode(errors="replace")
            detail = f"{format_code(answer.code)}: {said}" if said else format_code(answer.code)
            return dataclasses.replace(
                came, result=ReadResult.REFUSED, detail=shorten(detail), answer=None
            )
        try:
            if answer.content_format != CONTENT_FORMAT_V1:
                raise ModelError("another content format", f"{answer.content_format}")
            decoded = ReadAnswer.decode(answer.payload)
            if decoded.identifier != wish.identifier:
                raise ModelError("answer to another read", decoded.identifier.hex())
            for block in decoded.blocks:
                block.values()
        except ModelError as error:
            return dataclasses.replace(
                came, result=ReadResult.UNREADABLE, detail=shorten(str(error))
            )
        return dataclasses.replace(came, result=ReadResult.ANSWERED)

    def _ended(self, wish: OnDemandRead, result: ReadResult, detail: str) -> OnDemandRead:
        path = self._asker.path_of(wish.meter) or ""
        return dataclasses.replace(wish, result=result, path=path, detail=shorten(detail))

    def _now_ms(self) -> int:
        return int(self._wall() * 1000)


def shorten(detail: str) -> str:
    """`detail` in at most DETAIL_SIZE_MAX printable characters: a meter may have written it."""
    return "".join(c if c.isprintable() else "?" for c in detail[:DETAIL_SIZE_MAX])
