"""FETCH /dump at the local port: all that the meter holds, page by page.

Raises  ModelError on a payload that is no request
Limit   one snapshot, as it was when the first page was asked for; DUMP_S later it is forgotten
Never   mixes two moments: every page is of the same snapshot
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from amistack.coap.codes import Code
from amistack.coap.message import Message
from amistack.model import EndDeviceEventType
from amistack.model.dump import DumpPage, DumpPart, DumpRequest, pages_of
from amistack.model.resources import DUMP
from meterd.parts import granted, refused, unfit

DUMPED: Final = EndDeviceEventType(3, 12, 202, 2)  # Security, ReadAccess, Accessed
DUMP_S: Final = 300.0
"""Seconds after its last page was asked for."""


class DumpResource:
    """One line's dump."""

    path: Final = DUMP
    kind: Final = "amistack.dump"

    def __init__(
        self,
        take: Callable[[float], Iterable[DumpPart]],
        *,
        on_dump: Callable[[float], None],
    ) -> None:
        """`on_dump` is called as a dump begins."""
        self._take = take
        self._on_dump = on_dump
        self._pages: list[DumpPage] = []
        self._asked = 0.0

    def answer(self, message: Message, *, now: float) -> Message:
        """A page; the first begins anew."""
        wrong = unfit(message, Code.FETCH)
        if wrong is not None:
            return wrong
        number = DumpRequest.decode(message.payload).page
        if not number:
            self._on_dump(now)
            self._pages = pages_of(self._take(now))
        elif now - self._asked > DUMP_S:
            self._pages = []
        if number >= len(self._pages):
            return refused(Code.NOT_FOUND, "no such page, begin with 0")
        self._asked = now
        return granted(Code.CONTENT, self._pages[number].encode())

    @property
    def kept_until(self) -> float | None:
        """Until when a snapshot is kept; None where there is none."""
        return self._asked + DUMP_S if self._pages else None

    def forget(self) -> None:
        """Whoever asked has gone."""
        self._pages = []
