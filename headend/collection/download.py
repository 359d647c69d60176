"""Take all that a meter holds, over the network, page by page.

Spec    docs/protocol/model.md, "Dump"
Gives   the pages as they came, whole and of one moment; nothing of them is stored here
Raises  UnknownMeter, TooMany, BadWish, NotHad
Limit   UNDER_WAY_MAX downloads at a time
Never   takes half a dump for one
"""

from __future__ import annotations

from collections import Counter
from typing import Final

from amistack.coap.codes import Code, format_code
from amistack.coap.message import Message
from amistack.errors import ModelError
from amistack.identifiers import Eui64
from amistack.model import CONTENT_FORMAT_V1
from amistack.model.dump import DumpPage, DumpRequest
from amistack.model.resources import DUMP
from headend.collection.on_demand import shorten
from headend.domain.asking import Asker, NotAnswered, Unreachable
from headend.domain.downloads import Download
from headend.domain.refusals import BadWish, NotHad, TooMany, UnknownMeter
from headend.store.interface import Store

UNDER_WAY_MAX: Final = 16
DEADLINE_S: Final = 120.0
"""Seconds for each page: some 50 blocks, one after the other."""
DEADLINE_S_MAX: Final = 600.0


class Downloads:
    """Every download of this head-end."""

    def __init__(self, *, store: Store, asker: Asker) -> None:
        self._store = store
        self._asker = asker
        self._under_way = 0
        self.results: Counter[str] = Counter()

    @property
    def depth(self) -> tuple[int, int]:
        """Downloads under way, and how many there may be."""
        return self._under_way, UNDER_WAY_MAX

    async def take(self, meter: Eui64, *, deadline_s: float = DEADLINE_S) -> Download:
        """All pages, each within `deadline_s`."""
        if not 0 < deadline_s <= DEADLINE_S_MAX:
            raise BadWish(
                f"a deadline of {deadline_s:g} s, expected above 0 and at most {DEADLINE_S_MAX:g}"
            )
        if self._under_way >= UNDER_WAY_MAX:
            raise TooMany(f"{self._under_way} downloads are under way already; try again later")
        self._under_way += 1
        try:
            if await self._store.find_meter(meter) is None:
                raise UnknownMeter(meter)
            return await self._take(meter, deadline_s)
        except NotHad:
            self.results["not had"] += 1
            raise
        finally:
            self._under_way -= 1

    async def _take(self, meter: Eui64, deadline_s: float) -> Download:
        pages: list[bytes] = []
        count, path = 1, ""
        while len(pages) < count:
            answer, path = await self._ask(meter, len(pages), deadline_s)
            page = _page_in(answer, len(pages), count if pages else None)
            count = page.count
            pages.append(answer.payload)
        self.results["had"] += 1
        return Download(meter, tuple(pages), path)

    async def _ask(self, meter: Eui64, number: int, deadline_s: float) -> tuple[Message, str]:
        wish = Message.request(
            Code.FETCH,
            DUMP,
            payload=DumpRequest(number).encode(),
            content_format=CONTENT_FORMAT_V1,
            accept=CONTENT_FORMAT_V1,
        )
        try:
            return await self._asker.ask(meter, wish, deadline_s=deadline_s)
        except Unreachable as error:
            raise NotHad(shorten(str(error))) from error
        except NotAnswered as error:
            raise NotHad(f"page {number}: {shorten(str(error))}") from error


def _page_in(answer: Message, number: int, count: int | None) -> DumpPage:
    """The page in an authentic answer. Raises NotHad where it is another one, or none."""
    if answer.code != Code.CONTENT:
        said = answer.payload.decode(errors="replace")
        raise NotHad(shorten(f"page {number}: {format_code(answer.code)} {said}".rstrip()))
    try:
        page = DumpPage.decode(answer.payload)
        page.parts()
    except ModelError as error:
        raise NotHad(shorten(f"page {number} cannot be read: {error}")) from error
    if page.number != number or (count is not None and page.count != count):
        raise NotHad(f"page {page.number} of {page.count} in place of page {number}")
    return page
