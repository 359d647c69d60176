"""After a backup was put back: ask each meter for the past days that the store lacks.

A meter is asked when it is heard, so nobody is called who is away, and at most ASKED_MAX at a time.
Who was asked is stored: a restart goes on where it was. A meter that does not answer is asked again
when it is next heard.

Limit   ASKED_MAX meters under way; the days that a meter keeps
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Final

from amistack.coap.codes import Code
from amistack.coap.message import Message
from amistack.errors import StoreError
from amistack.identifiers import Eui64
from amistack.model import CONTENT_FORMAT_V1, ReportRequest
from amistack.model.resources import REPORT
from headend.domain.asking import Asker, NotAnswered, Unreachable
from headend.store.interface import RecallDone, Store

ASKED_MAX: Final = 64
DEADLINE_S: Final = 60.0
KEPT_DAYS: Final = 45
"""Days that every meter keeps."""
DAY_S: Final = 86_400


class Recovery:
    """The meters that are still to be asked."""

    def __init__(self, *, store: Store, asker: Asker, wall: Callable[[], float]) -> None:
        """`wall` is UTC in seconds."""
        self._store = store
        self._asker = asker
        self._wall = wall
        self._waiting: set[Eui64] = set()
        self._under_way: dict[Eui64, asyncio.Task[None]] = {}
        self.counters: Counter[str] = Counter()

    async def start(self) -> None:
        """Take up who is still to be asked."""
        await self.refresh()

    async def refresh(self) -> None:
        """Look again who is to be asked: meters may have been enrolled since."""
        self._waiting |= set(await self._store.recalls())

    def stop(self) -> None:
        """Ask nobody any more."""
        self._waiting.clear()
        for task in self._under_way.values():
            task.cancel()

    @property
    def depth(self) -> tuple[int, int]:
        """Meters under way, and how many there may be at a time."""
        return len(self._under_way), ASKED_MAX

    @property
    def waiting_count(self) -> int:
        """Meters that are still to be asked, those under way among them."""
        return len(self._waiting)

    def heard(self, meter: Eui64) -> None:
        """A meter has spoken: ask it now if it is to be asked."""
        if meter not in self._waiting or meter in self._under_way:
            return
        if len(self._under_way) >= ASKED_MAX:
            return  # It is heard again.
        task = asyncio.create_task(self._ask(meter))
        self._under_way[meter] = task
        task.add_done_callback(lambda _: self._under_way.pop(meter, None))

    async def _ask(self, meter: Eui64) -> None:
        try:
            missing = await self._missing(meter)
            if missing is None:
                self.counters["recall put off"] += 1
                return
            if missing:
                wish = Message.request(
                    Code.POST,
                    REPORT,
                    payload=ReportRequest(min(missing), max(missing)).encode(),
                    content_format=CONTENT_FORMAT_V1,
                )
                answer, _ = await self._asker.ask(meter, wish, deadline_s=DEADLINE_S)
                if answer.code != Code.CHANGED:
                    self.counters["recall refused"] += 1
                    return
            await self._store.commit(RecallDone(meter))
        except (Unreachable, NotAnswered):
            self.counters["recall not answered"] += 1
        except StoreError:
            self.counters["recall not stored"] += 1
        else:
            self.counters["recalled"] += 1
            self._waiting.discard(meter)

    async def _missing(self, meter: Eui64) -> list[int] | None:
        """Days, among those that a meter keeps, of which no report is stored.

        None if that cannot be told yet: it is not registered here, or the clock stands near 1970.
        """
        overview = await self._store.find_overview(meter)
        if overview is None or overview.registration is None:
            return None
        offset_s = overview.registration.standard_offset_min * 60
        today = int(self._wall() + offset_s) // DAY_S
        if today < KEPT_DAYS:
            return None
        stored = set(await self._store.report_days(meter, today - KEPT_DAYS, today - 1))
        return [day for day in range(today - KEPT_DAYS, today) if day not in stored]
